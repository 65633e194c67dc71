"""Build the engine: webserver.engine._engine, a cffi API-mode module, from the C files here and in wire/, and llhttp's.

Run as a script it builds in place; setup.py uses `ffibuilder` too. llhttp is compiled from where Debian's node-llhttp
puts its C sources (LLHTTP_SOURCE names another place); nothing of it is copied into the tree, and setup.py adds them
where it compiles, since setuptools takes no absolute path for a file of the project. The engine does not link libzmq:
it takes its functions from the library that pyzmq has loaded (zmqlib.c), and only needs zmq.h.

WEBSERVER_SANITIZE, when set, holds the compiler's flags of a build with sanitizers (tools/variant).
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
WIRE = HERE.parent / "wire"
LLHTTP = Path(os.environ.get("LLHTTP_SOURCE", "/usr/share/llhttp"))
LLHTTP_INCLUDE = os.environ.get("LLHTTP_INCLUDE", "/usr/share/include/llhttp")

STRICT = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-g"]
# cffi's own generated file and llhttp's are not ours to mend.
FOREIGN = ["-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-sign-compare"]


def declarations(header: Path, name: str) -> str:
    """The part of a header between its marks, as cffi takes it: constants kept, comments and other directives gone."""
    match = re.search(rf"/\* {name}: begin \*/(.*)/\* {name}: end \*/", header.read_text(), re.S)
    if match is None:
        raise SystemExit(f"{header}: the marks '{name}: begin' and '{name}: end' are not there")
    return re.sub(r"/\*.*?\*/", "", match.group(1), flags=re.S)


# Node's parser, of which nothing is in this tree.
PARSER = [str(LLHTTP / name) for name in ("api.c", "http.c", "llhttp.c")]


def make(foreign: list[str]) -> FFI:
    ffi = FFI()
    ffi.cdef(declarations(WIRE / "wire.h", "wire"))
    ffi.cdef(declarations(HERE / "api.h", "api"))
    own = sorted(str(path) for path in [*HERE.glob("*.c"), *WIRE.glob("*.c")] if not path.name.startswith("_"))
    sanitize = os.environ.get("WEBSERVER_SANITIZE", "").split()
    ffi.set_source(
        "webserver.engine._engine",
        '#include "wire.h"\n#include "api.h"\n',
        sources=[os.path.relpath(path, HERE.parent.parent) for path in own] + foreign,
        include_dirs=[str(HERE), str(WIRE), LLHTTP_INCLUDE],
        libraries=["dl"],
        define_macros=[("LLHTTP_STRICT_MODE", "1")],
        extra_compile_args=STRICT + FOREIGN + (sanitize or ["-O2"]),
        extra_link_args=sanitize,
        py_limited_api=False,
    )
    return ffi


ffibuilder = make([])

if __name__ == "__main__":
    os.chdir(HERE.parent.parent)
    make(PARSER).compile(verbose="-v" in sys.argv, tmpdir=".")
