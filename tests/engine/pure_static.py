"""The engine's pure functions about files, dates, decisions and log texts, as a library of their own for the tests."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from cffi import FFI
from hypothesis import settings

ENGINE = Path(__file__).resolve().parent.parent.parent / "webserver" / "engine"
SOURCES = [
    "ranges.c",
    "dates.c",
    "conditions.c",
    "escape.c",
    "table.c",
    "hosts.c",
    "decisions.c",
    "paths.c",
    "sources.c",
]

# The first call compiles, and the machine may be busy: time is not what these tests are about.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

CDEF = """
struct engine_text { const char *data; size_t size; };
struct range { uint64_t first, size; };
int ranges_parse(const char *, size_t, uint64_t, struct range *, size_t *);
void date_format(int64_t, char *);
bool date_parse(const char *, size_t, int64_t, int64_t *);
bool etag_list_has(struct engine_text, struct engine_text, bool);
char *escape_combined(char *, size_t, const char *, size_t);
char *escape_json(char *, size_t, const char *, size_t);
bool path_allowed(struct engine_text, uint32_t);
size_t extension_end(struct engine_text, size_t, struct engine_text);

struct engine_choice { uint32_t kind, target, strip, reserved; struct engine_text script; };
struct engine_decision {
    uint32_t site, scope, method_only, gather;
    struct engine_text prefix, extension;
    const struct engine_text *except_prefixes; size_t except_prefix_count;
    const struct engine_text *except_extensions; size_t except_extension_count;
    const struct engine_choice *choices; size_t choice_count;
};
struct choice { uint32_t kind, target, strip; struct engine_text script; };
struct site { uint32_t id; uint64_t generation; char *name, *document_root; uint64_t max_body; };
struct decision;
struct decision_table;
struct decision_table *decisions_new(size_t);
void decisions_delete(struct decision_table *);
void decisions_limit(struct decision_table *, size_t);
size_t decisions_count(const struct decision_table *);
void decisions_clear(struct decision_table *);
struct decision *decisions_find(struct decision_table *, struct engine_text, struct engine_text, struct engine_text);
struct decision *decisions_add(struct decision_table *, const struct engine_decision *, struct site *,
    struct engine_text, struct engine_text, struct engine_text);
struct decision *decision_ref(struct decision *);
void decision_release(struct decision *);
uint32_t first_target(const struct decision *);
"""

# What a test cannot reach through struct decision, whose layout is the engine's.
REACH = '#include "decisions.h"\nuint32_t first_target(const struct decision *d) { return d->choices[0].target; }\n'


@functools.cache
def pure() -> tuple[FFI, Any]:
    """The library, compiled once for a run of the tests."""
    ffi = FFI()
    ffi.cdef(CDEF)
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "pure.so"
        subprocess.run(
            ["gcc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
             *os.environ.get("WEBSERVER_SANITIZE", "").split(), f"-I{ENGINE}",
             f"-I{ENGINE.parent / 'wire'}", *SOURCES, "-x", "c", "-", "-o", library],
            cwd=ENGINE, check=True, text=True, input=REACH,
        )  # fmt: skip
        return ffi, ffi.dlopen(str(library))


def text(value: bytes) -> tuple[Any, Any]:
    """A struct engine_text by value, and what keeps its bytes."""
    ffi, _ = pure()
    data = ffi.new("char[]", value)
    place = ffi.new("struct engine_text *", {"data": data, "size": len(value)})
    return place[0], (data, place)
