"""wire.h for tests: structs and constants by cffi's ABI mode, so that no engine has to be built for it."""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

HEADER = Path(__file__).resolve().parent.parent.parent / "webserver/wire/wire.h"
_match = re.search(r"/\* wire: begin \*/(.*)/\* wire: end \*/", HEADER.read_text(), re.S)
assert _match
ffi = FFI()
ffi.cdef(re.sub(r"/\*.*?\*/", "", _match.group(1), flags=re.S))
lib = ffi.dlopen(None)
