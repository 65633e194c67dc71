"""The conformance application in WSGI (PEP 3333), with wsgiref.validate around all that it can look at."""

import hashlib
import os
import time
from wsgiref.validate import validator

SCRATCH = os.environ["SCRATCH"]
PLAIN = ("Content-Type", "text/plain")


def note(name, token):
    """One line, one write."""
    fd = os.open(os.path.join(SCRATCH, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(fd, token.encode() + b"\n")
    finally:
        os.close(fd)


def token_of(environ):
    for part in environ.get("QUERY_STRING", "").split("&"):
        if part.startswith("watch="):
            return part[6:]
    return ""


def gate(environ):
    path = os.path.join(SCRATCH, "go-" + token_of(environ))
    for _ in range(2000):
        if os.path.exists(path):
            return
        time.sleep(0.01)


def content(size):
    for begin in range(0, size, 65536):
        block = b"".join(b"%015d\n" % at for at in range(begin, min(begin + 65536, size), 16))
        yield block[: size - begin]


def pieces(environ):
    while piece := environ["wsgi.input"].read(65536):
        yield piece


def answer(start, text, status="200 OK", fields=()):
    start(status, [PLAIN, *fields])
    return [text]


def hello(environ, start):
    return answer(start, b"hello, world", fields=[("X-Method", environ["REQUEST_METHOD"])])


def echo(environ, start):
    start("200 OK", [PLAIN])
    yield from pieces(environ)


def length(environ, start):
    digest, size = hashlib.sha256(), 0
    for piece in pieces(environ):
        digest.update(piece)
        size += len(piece)
    return answer(start, f"{size} {digest.hexdigest()}\n".encode())


def half(environ, start):
    left = int(environ["CONTENT_LENGTH"]) // 2 if environ.get("CONTENT_LENGTH") else 1000
    known, size = bool(environ.get("CONTENT_LENGTH")), 0
    while left and (piece := environ["wsgi.input"].read(left)):
        size += len(piece)
        left -= len(piece) if known else left
    return answer(start, b"half %d\n" % size)


def never(environ, start):
    return answer(start, b"never\n", fields=[("Content-Length", "6")])


def first(environ, start):
    start("200 OK", [PLAIN])
    yield b"first\n"
    gate(environ)
    yield b"last\n"


def late(environ, start):
    gate(environ)
    return length(environ, start)


def hang(environ, start, milliseconds):
    time.sleep(int(milliseconds) / 1000)
    return answer(start, b"too late")


def hang_read(environ, start, milliseconds):
    for _ in pieces(environ):
        pass
    return hang(environ, start, milliseconds)


def sleep(environ, start, milliseconds):
    time.sleep(int(milliseconds) / 1000)
    return answer(start, b"slept")


def fields(environ, start, *rest):
    lines = [f"{name}={value}\n" for name, value in sorted(environ.items()) if "." not in name]
    return answer(start, "".join(lines).encode("latin-1"))


def path_info(environ, start, *rest):
    return answer(start, environ["PATH_INFO"].encode("latin-1"))


def cookies(environ, start):
    return answer(start, environ.get("HTTP_COOKIE", "").encode("latin-1"))


def status(environ, start, number):
    if number in ("204", "304"):
        start(f"{number} Nothing", [])
        return []
    return answer(start, f"status {number}\n".encode(), f"{number} Status")


def reason(environ, start):
    start("299 Quite Fine", [PLAIN])
    return []


def headers(environ, start):
    many = [(f"X-Many-{number}", str(number)) for number in range(50)]
    cookies = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2; Path=/"), ("Set-Cookie", "c=3")]
    return answer(start, b"headers", fields=[*many, *cookies, ("X-Long", "x" * 8000)])


def inject(environ, start):
    return answer(start, b"injected", fields=[("X-Bad", "a\r\nX-Injected: 1")])


def lint(environ, start):
    return answer(start, b"not seen", fields=[("Status", "200")])


def stream(environ, start, count):
    start("200 OK", [PLAIN])
    for number in range(int(count)):
        yield b"piece %d\n" % number


def steps(environ, start):
    start("200 OK", [PLAIN])
    yield b"one\n"
    gate(environ)
    yield b"two\n"


def large(environ, start, size):
    start("200 OK", [PLAIN, ("Content-Length", size)])
    return content(int(size))


def file(environ, start):
    opened = open(os.path.join(SCRATCH, "file"), "rb")
    start("200 OK", [PLAIN])
    return environ["wsgi.file_wrapper"](opened)


def empty(environ, start):
    start("200 OK", [PLAIN, ("Content-Length", "0")])
    return []


def nobody(environ, start):
    start("204 No Content", [])
    return []


def error(environ, start):
    raise RuntimeError("conformance error")


def error_late(environ, start):
    start("200 OK", [PLAIN])
    yield b"part\n"
    raise RuntimeError("conformance error")


def short(environ, start):
    return answer(start, b"short", fields=[("Content-Length", "100")])


def long(environ, start):
    return answer(start, b"hello, and more", fields=[("Content-Length", "5")])


def log(environ, start):
    environ["wsgi.errors"].write(f"conformance log {token_of(environ)}\n")
    return answer(start, b"logged")


def pid(environ, start):
    return answer(start, b"%d" % os.getpid())


def early(environ, start):
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    return answer(start, b"early")


def trailers(environ, start):
    start("200 OK", [PLAIN])
    environ["webserver.trailers"]([("X-Checksum", "12")])
    return [b"body"]


def deadline(environ, start):
    ends = environ["webserver.deadline"]
    return answer(start, b"none" if ends is None else b"%.3f" % (ends - time.monotonic()))


def cancelled(environ, start):
    for _ in range(2000):
        if environ["webserver.cancelled"]():
            note("cancelled", token_of(environ))
            break
        time.sleep(0.01)
    return answer(start, b"cancelled")


class After:
    """The answer is complete with its Content-Length; close() comes afterwards."""

    def __init__(self, environ):
        self.environ = environ

    def __iter__(self):
        yield b"after"

    def close(self):
        gate(self.environ)
        note("after", token_of(self.environ))


def after(environ, start):
    start("200 OK", [PLAIN, ("Content-Length", "5")])
    return After(environ)


class Watched:
    """What an application returns, noted when its close() is called."""

    def __init__(self, token, result):
        self.token, self.result = token, result
        self.parts = iter(result)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.parts)

    def close(self):
        try:
            if hasattr(self.result, "close"):
                self.result.close()
        finally:
            note("closed", self.token)


PATHS = {
    name.replace("_", "-"): globals()[name]
    for name in """hello echo length half never first late hang hang_read sleep fields cookies status reason headers inject lint
    stream steps large file empty nobody error error_late short long log pid after early trailers deadline
    cancelled""".split()
} | {"path_info": path_info}


def plain(environ, start):
    name, *rest = environ["PATH_INFO"].lstrip("/").split("/")
    if name not in PATHS:
        return answer(start, b"no such path", "404 Not Found")
    token = token_of(environ)
    if not token:
        return PATHS[name](environ, start, *rest)
    note("begun", token)
    try:
        result = PATHS[name](environ, start, *rest)
    except BaseException:
        note("closed", token)
        raise
    return Watched(token, result)


validated = validator(plain)
# A validator in between hides the file from the server, and forbids what these try.
UNSEEN = ("/file", "/inject")


def application(environ, start):
    return (plain if environ["PATH_INFO"] in UNSEEN else validated)(environ, start)
