"""The request texts of each kind of row, byte for byte.

One definition for the load client (a file that lua/cycle.lua reads) and for verification (which sends the same bytes).
Path, query and two fields (X-Request-Id, X-Trace) differ in every request; a kind ending in "-onepath" keeps the path,
for the row that compares 10,000 paths with one.  Static rows use the paths that exist: 100 files, or 10,000.
"""

import random
from pathlib import Path

from harness import site as tree

DISTINCT = 10_000
UPLOAD_BYTES = 1024 * 1024
UPLOAD_DISTINCT = 16  # each is 1 MiB of client memory
HOST = "bench.example"
SLEEP = "sleep20"  # hello after 20 ms

PAGE_FIELDS = (
    ("Accept-Language", "en-GB,en;q=0.8,de;q=0.5"),
    ("Cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
    ("Referer", "http://bench.example/where/from"),
    ("Cache-Control", "max-age=0"),
    ("DNT", "1"),
    ("X-Tenant", "tenant-seven"),
)
# kind: (method, path with {i}, extra fields)
_APP = "/p{i:05d}/{name}"  # the last segment chooses
_SCRIPT = "/{name}.php/p{i:05d}"
_STATIC = {
    "static1k": ("/s1k/f{file:05d}.txt", "s1k", ()),
    "static100k": ("/s100k/f{file:05d}.txt", "s100k", ()),
    "static10m": ("/s10m/f{file:05d}.txt", "s10m", ()),
    "static304": ("/s1k/f{file:05d}.txt", "s1k", (("If-Modified-Since", tree.HTTP_MTIME),)),
    "static206": ("/s100k/f{file:05d}.txt", "s100k", (("Range", "bytes=20000-20999"),)),
    "staticmany": ("/many/f{file:05d}.txt", "many", ()),
    "staticmany-onepath": ("/many/f{file:05d}.txt", "many", ()),
}


def upload_body(number: int) -> bytes:
    return random.Random(number).randbytes(4096) * (UPLOAD_BYTES // 4096)


def file_number(kind: str, number: int) -> int:
    if kind.endswith("-onepath"):
        return 0
    return number % tree.KINDS[_STATIC[kind][1]][0]


def static_directory(kind: str) -> str:
    return _STATIC[kind][1]


def path_of(language: str, kind: str, number: int) -> str:
    name, _, variant = kind.partition("-")
    if variant == "onepath":
        number = 0
    if language == "static":
        return _STATIC[kind][0].format(file=file_number(kind, number))
    if language == "echo":
        return f"/e{number:05d}"
    return (_SCRIPT if language == "php" else _APP).format(i=number, name="sleep" if name == SLEEP else name)


def fields_of(kind: str, number: int) -> list[tuple[str, str]]:
    fields = [
        ("Host", HOST),
        ("User-Agent", "bench/1"),
        ("Accept", "*/*"),
        ("X-Request-Id", f"{number:08x}{number * 2654435761 % 2**32:08x}"),
        ("X-Trace", f"00-{number * 40503 % 2**32:08x}-{number:05d}"),
    ]
    if kind == "page":
        fields += PAGE_FIELDS
    if kind in _STATIC:
        fields += _STATIC[kind][2]
    return fields


def one(language: str, kind: str, number: int) -> bytes:
    fields = fields_of(kind, number)
    method, body = "GET", b""
    if kind == "upload":
        method, body = "POST", upload_body(number)
        fields += [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(body)))]
    query = f"q={number}&v={number * 7919 % 100003}" + ("&ms=20" if kind == SLEEP else "")
    head = f"{method} {path_of(language, kind, number)}?{query} HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in fields)
    return head.encode("ascii") + b"\r\n" + body


def count(kind: str) -> int:
    return UPLOAD_DISTINCT if kind == "upload" else DISTINCT


def write(directory: Path, language: str, kind: str) -> Path:
    """The file for lua/cycle.lua, made once; the order is shuffled so that neighbours differ."""
    path = directory / f"{language}-{kind}"
    if not path.exists():
        numbers = list(range(count(kind)))
        random.Random(1).shuffle(numbers)
        with open(path, "wb") as file:
            for number in numbers:
                text = one(language, kind, number)
                file.write(b"%d\n" % len(text) + text)
    return path
