"""The conformance application in ASGI 3."""

import asyncio
import hashlib
import os
import time
import urllib.parse

SCRATCH = os.environ["SCRATCH"]
PLAIN = (b"content-type", b"text/plain")


def note(name, token):
    """One line, one write."""
    fd = os.open(os.path.join(SCRATCH, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(fd, token.encode() + b"\n")
    finally:
        os.close(fd)


def content(size):
    for begin in range(0, size, 65536):
        block = b"".join(b"%015d\n" % at for at in range(begin, min(begin + 65536, size), 16))
        yield block[: size - begin]


class Gone(Exception):
    """The client has gone in the middle of its request."""


class Request:
    def __init__(self, scope, receive, send):
        self.scope, self.receive, self.send = scope, receive, send
        query = scope["query_string"].decode()
        self.token = next((part[6:] for part in query.split("&") if part.startswith("watch=")), "")
        self.fields = dict(scope["headers"])

    async def gate(self):
        path = os.path.join(SCRATCH, "go-" + self.token)
        for _ in range(2000):
            if os.path.exists(path):
                return
            await asyncio.sleep(0.01)

    async def pieces(self):
        more = True
        while more:
            event = await self.receive()
            if event["type"] == "http.disconnect":
                raise Gone
            more = event["more_body"]
            if event["body"]:
                yield event["body"]

    async def start(self, status=200, fields=(PLAIN,), **more):
        await self.send({"type": "http.response.start", "status": status, "headers": list(fields), **more})

    async def body(self, body, more=True):
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(self, body, status=200, fields=()):
        await self.start(status, [PLAIN, *fields])
        await self.body(body, False)


async def hello(request):
    await request.answer(b"hello, world", fields=[(b"x-method", request.scope["method"].encode())])


async def echo(request):
    await request.start()
    async for piece in request.pieces():
        await request.body(piece)
    await request.body(b"", False)


async def length(request):
    digest, size = hashlib.sha256(), 0
    async for piece in request.pieces():
        digest.update(piece)
        size += len(piece)
    await request.answer(f"{size} {digest.hexdigest()}\n".encode())


async def half(request):
    wanted = int(request.fields[b"content-length"]) // 2 if b"content-length" in request.fields else None
    size = 0
    # What comes in one event comes whole: the rest of it is thrown away.
    if wanted != 0:
        async for piece in request.pieces():
            size += len(piece)
            if size >= (wanted or 1):
                break
    await request.answer(b"half %d\n" % min(size, 1000 if wanted is None else wanted))


async def never(request):
    await request.answer(b"never\n", fields=[(b"content-length", b"6")])


async def first(request):
    await request.start()
    await request.body(b"first\n")
    await request.gate()
    await request.body(b"last\n", False)


async def late(request):
    await request.gate()
    await length(request)


async def hang(request, milliseconds):
    await asyncio.sleep(int(milliseconds) / 1000)
    await request.answer(b"too late")


async def hang_read(request, milliseconds):
    async for _ in request.pieces():
        pass
    await hang(request, milliseconds)


async def sleep(request, milliseconds):
    await asyncio.sleep(int(milliseconds) / 1000)
    await request.answer(b"slept")


async def fields(request, *rest):
    """With the names of CGI, made as every ASGI adapter of WSGI applications makes them."""
    scope, found = request.scope, {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key
        between = "; " if key == "HTTP_COOKIE" else ", "
        value = value.decode("latin-1")
        found[key] = found[key] + between + value if key in found else value
    found |= {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": scope["root_path"].encode().decode("latin-1"),
        "PATH_INFO": scope["path"].removeprefix(scope["root_path"]).encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": found.get("HTTP_HOST", scope["server"][0]).rpartition(":")[0] or found.get("HTTP_HOST", ""),
        "SERVER_PORT": str(scope["server"][1]),
        "SERVER_PROTOCOL": "HTTP/" + scope["http_version"],
        "REMOTE_ADDR": scope["client"][0],
        "REMOTE_PORT": str(scope["client"][1]),
        "REQUEST_SCHEME": scope["scheme"],
    }
    await request.answer("".join(f"{name}={value}\n" for name, value in sorted(found.items())).encode("latin-1"))


async def path_info(request, *rest):
    """scope["path"] is text; what its bytes are is in raw_path."""
    whole = urllib.parse.unquote_to_bytes(request.scope["raw_path"])
    await request.answer(whole.removeprefix(request.scope["root_path"].encode()))


async def cookies(request):
    await request.answer(b"; ".join(value for name, value in request.scope["headers"] if name == b"cookie"))


async def status(request, number):
    if number in ("204", "304"):
        await request.start(int(number), [])
        await request.body(b"", False)
    else:
        await request.answer(f"status {number}\n".encode(), int(number))


async def headers(request):
    many = [(b"x-many-%d" % number, b"%d" % number) for number in range(50)]
    cookies = [(b"set-cookie", value) for value in (b"a=1", b"b=2; Path=/", b"c=3")]
    await request.answer(b"headers", fields=[*many, *cookies, (b"x-long", b"x" * 8000)])


async def inject(request):
    await request.answer(b"injected", fields=[(b"x-bad", b"a\r\nX-Injected: 1")])


async def stream(request, count):
    await request.start()
    for number in range(int(count)):
        await request.body(b"piece %d\n" % number)
    await request.body(b"", False)


async def steps(request):
    await request.start()
    await request.body(b"one\n")
    await request.gate()
    await request.body(b"two\n", False)


async def large(request, size):
    await request.start(fields=[PLAIN, (b"content-length", size.encode())])
    for block in content(int(size)):
        await request.body(block)
    await request.body(b"", False)


async def file(request):
    await request.start()
    await request.send({"type": "http.response.pathsend", "path": os.path.join(SCRATCH, "file")})


async def empty(request):
    await request.answer(b"", fields=[(b"content-length", b"0")])


async def nobody(request):
    await request.start(204, [])
    await request.body(b"", False)


async def early(request):
    await request.send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]})
    await request.answer(b"early")


async def trailers(request):
    await request.start(trailers=True)
    await request.body(b"body", False)
    await request.send({"type": "http.response.trailers", "headers": [(b"x-checksum", b"12")]})


async def error(request):
    raise RuntimeError("conformance error")


async def error_late(request):
    await request.start()
    await request.body(b"part\n")
    raise RuntimeError("conformance error")


async def short(request):
    await request.answer(b"short", fields=[(b"content-length", b"100")])


async def long(request):
    await request.answer(b"hello, and more", fields=[(b"content-length", b"5")])


async def log(request):
    request.scope["extensions"]["webserver"]["log"](f"conformance log {request.token}")
    await request.answer(b"logged")


async def pid(request):
    await request.answer(b"%d" % os.getpid())


async def after(request):
    await request.answer(b"after")
    await request.gate()
    note("after", request.token)


async def deadline(request):
    until = request.scope["extensions"]["webserver"]["deadline"]
    await request.answer(b"none" if until is None else b"%.3f" % (until - time.monotonic()))


async def cancelled(request):
    async for _ in request.pieces():
        pass
    if (await request.receive())["type"] == "http.disconnect":
        note("cancelled", request.token)


NAMES = """hello echo length half never first late hang hang_read sleep fields path_info cookies status headers inject
stream steps large file empty nobody early trailers error error_late short long log pid after deadline cancelled"""
PATHS = {name if name == "path_info" else name.replace("_", "-"): globals()[name] for name in NAMES.split()}


async def application(scope, receive, send):
    assert scope["type"] == "http"
    request = Request(scope, receive, send)
    name, *rest = scope["path"].removeprefix(scope["root_path"]).lstrip("/").split("/")
    if name not in PATHS:
        await request.answer(b"no such path", 404)
        return
    if not request.token:
        await PATHS[name](request, *rest)
        return
    note("begun", request.token)
    try:
        await PATHS[name](request, *rest)
    finally:
        note("closed", request.token)
