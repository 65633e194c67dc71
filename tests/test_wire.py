"""wire/page.py, which must do without cffi, agrees with wire.h."""

from __future__ import annotations

from webserver.engine._engine import ffi, lib

from webserver.wire import page


def test_page_layout_is_the_header_s() -> None:
    assert page.HEAD.size == ffi.sizeof("struct wire_page") == 128
    assert page.SLOT.size == ffi.sizeof("struct wire_slot")
    assert lib.WIRE_FRONTENDS == page.FRONTENDS
    assert lib.WIRE_MAGIC == page.MAGIC
    assert lib.WIRE_VERSION == page.VERSION
