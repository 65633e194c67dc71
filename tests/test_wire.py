"""wire/page.py, which must do without cffi, agrees with wire.h."""

from __future__ import annotations

import struct

from webserver.engine._engine import ffi, lib

from webserver.wire import page


def offsets(layout: str, names: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """Offset and size of each field of a struct format."""
    found = {}
    at = 0
    for code, name in zip(layout[1:], names, strict=True):
        size = struct.calcsize("=" + code)
        found[name] = (at, size)
        at += size
    return found


def test_page_layout_is_the_header_s() -> None:
    assert ffi.sizeof("struct wire_page") == page.PAGE_HEAD
    assert ffi.sizeof("struct wire_slot") == page.SLOT_SIZE
    for name, layout, names in (
        ("struct wire_page", page.PAGE_FORMAT, page.PAGE_FIELDS),
        ("struct wire_slot", page.SLOT_FORMAT, page.SLOT_FIELDS),
    ):
        fields = dict(ffi.typeof(name).fields)
        for field, (offset, size) in offsets(layout, names).items():
            assert fields[field].offset == offset, field
            assert ffi.sizeof(fields[field].type) == size, field
    assert (lib.WIRE_FRONTENDS, lib.WIRE_MAGIC, lib.WIRE_VERSION, lib.WIRE_SLOTS) == (
        page.FRONTENDS,
        page.MAGIC,
        page.VERSION,
        page.SLOTS,
    )
    assert (lib.WIRE_LOANS, lib.WIRE_LOAN) == (page.LOANS, page.LOAN)
    assert ffi.sizeof("struct wire_loans") == page.LOANS_HEAD
    assert ffi.sizeof("struct wire_slot_loans") == page.LOANS_SLOT
    assert (lib.WIRE_TUNNEL, page.PHASES[lib.WIRE_TUNNEL]) == (page.TUNNEL, "tunnel")
