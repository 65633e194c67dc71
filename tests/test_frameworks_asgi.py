"""Starlette and Django under ASGI, as people write them: sessions, forms, upload, download, streams, WebSocket."""

from __future__ import annotations

import hashlib
import http.cookiejar
import json
import random
import urllib.request
from collections.abc import Iterator

import pytest
from serving import Server, directory, wait_until
from websockets import TEXT, WebSocket, frame

STARLETTE = """
import asyncio, contextlib, hashlib, os
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

done = []
names = {}

async def index(request):
    name = names.get(request.cookies.get("who"))
    return PlainTextResponse("hello, " + (name or "stranger") + " " + request.app.state.made)

async def login(request):
    form = await request.form()
    if form["password"] != "open sesame":
        return PlainTextResponse("no", 403)
    key = hashlib.sha256(form["name"].encode()).hexdigest()
    names[key] = form["name"]
    answer = RedirectResponse(request.url_for("index"), 303)
    answer.set_cookie("who", key, httponly=True)
    return answer

async def upload(request):
    form = await request.form()
    data = await form["file"].read()
    return JSONResponse({"name": form["file"].filename, "size": len(data), "sum": hashlib.sha256(data).hexdigest()})

async def stream(request):
    async def parts():
        for number in range(2000):
            yield "line %d\\n" % number
    return StreamingResponse(parts(), media_type="text/plain")

async def endless(request):
    async def parts():
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.001)
        finally:
            done.append("endless is over")
    return StreamingResponse(parts())

async def download(request):
    return FileResponse("large.bin", filename="large.bin")

async def background(request):
    async def work():
        await asyncio.sleep(0.05)
        done.append("work is done")
    return PlainTextResponse("begun", background=BackgroundTask(work))

async def threaded(request):
    return PlainTextResponse(await asyncio.to_thread(os.path.basename, "/in/a/thread"))

async def wrong(request):
    raise RuntimeError("a mistake of the application")

async def happened(request):
    return PlainTextResponse("\\n".join(done))

async def chat(websocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text("said " + text)
    done.append("the chat is over")

class Marked(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        answer = await call_next(request)
        answer.headers["X-Marked"] = request.url.path
        return answer

def started():
    app.state.made = "at startup"

app = Starlette(on_startup=[started], on_shutdown=[lambda: print("it is shut down", flush=True)], routes=[
    Route("/", index, name="index"), Route("/login", login, methods=["POST"]), Route("/stream", stream),
    Route("/upload", upload, methods=["POST"]), Route("/endless", endless), Route("/download", download),
    Route("/background", background), Route("/threaded", threaded), Route("/wrong", wrong),
    Route("/happened", happened), WebSocketRoute("/chat", chat),
    Mount("/static", StaticFiles(directory="static")),
])
app.add_middleware(Marked)
"""
DJANGO = """
import asyncio, os
import django
from django.conf import settings
settings.configure(DEBUG=False, SECRET_KEY="not a secret", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"])
django.setup()
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

async def index(request):
    await asyncio.sleep(0)
    return HttpResponse("an asynchronous view, %s, %s" % (request.method, request.path))

def old(request):
    return HttpResponse("a view in a thread, %d bytes" % len(request.body))

def stream(request):
    return StreamingHttpResponse("line %d\\n" % number for number in range(2000))

urlpatterns = [path("", index), path("old", old), path("stream", stream)]
application = get_asgi_application()
"""
CONFIG = """
[groups]
[[starlette]]
language = python
interface = asgi
application = shop/main.py
processes = 1
[[django]]
language = python
interface = asgi
application = old/main.py
processes = 1
[sites]
[[all]]
hosts = *
root = public
[[[routes]]]
/ = group:starlette
/django = group:django
"""
LARGE = random.Random(1).randbytes(3_000_000)


@pytest.fixture(scope="module")
def shop() -> Iterator[Server]:
    with directory() as path:
        server = Server(path)
        server.file("shop/main.py", STARLETTE)
        server.file("shop/large.bin", LARGE)
        server.file("shop/static/style.css", "body {}")
        server.file("old/main.py", DJANGO)
        server.write(CONFIG)
        server.start()
        yield server
        server.stop()
        assert server.logged("it is shut down")


def test_login_with_a_form(shop: Server) -> None:
    jar = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    base = f"http://127.0.0.1:{shop.port}"
    assert browser.open(base + "/").read() == b"hello, stranger at startup"
    with browser.open(base + "/login", b"name=Ada&password=open+sesame") as answer:
        assert (answer.url, answer.read()) == (base + "/", b"hello, Ada at startup")
        assert answer.headers["X-Marked"] == "/"
    assert (
        shop.request(
            "POST", "/login", b"name=x&password=y", {"Content-Type": "application/x-www-form-urlencoded"}
        ).status
        == 403
    )


def test_upload_and_download(shop: Server) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n' + LARGE + b"\r\n--b--\r\n"
    answer = shop.request("POST", "/upload", body, {"Content-Type": "multipart/form-data; boundary=b"})
    assert json.loads(answer.body) == {"name": "a.bin", "size": len(LARGE), "sum": hashlib.sha256(LARGE).hexdigest()}
    answer = shop.get("/download")
    assert answer.body == LARGE
    assert answer.field("Content-Length") == str(len(LARGE))
    assert shop.get("/static/style.css").body == b"body {}"
    assert shop.get("/static/missing").status == 404


def test_streams_and_tasks(shop: Server) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(2000))
    assert shop.get("/stream").body == lines
    assert shop.get("/threaded").body == b"thread"
    assert shop.get("/background").body == b"begun"
    wait_until(lambda: "work is done" in shop.get("/happened").text, "the background task does not run")
    with shop.connect() as sock:
        sock.sendall(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
        assert sock.recv(1000)
    wait_until(lambda: "endless is over" in shop.get("/happened").text, "the stream does not end with its client")


def test_mistakes_and_websocket(shop: Server) -> None:
    shop.allow("error. group starlette", "a mistake of the application")
    assert shop.get("/wrong").status == 500
    wait_until(lambda: "RuntimeError: a mistake of the application" in shop.log(), "it is not in the log")
    with WebSocket(shop, "/chat") as client:
        client.say(frame(TEXT, b"hello"))
        assert client.hear() == (TEXT, b"said hello")
        assert client.close() == (1000, "")
    wait_until(lambda: "the chat is over" in shop.get("/happened").text, "it does not hear of the end")


def test_django(shop: Server) -> None:
    for method in ("GET", "POST"):
        answer = shop.request(method, "/django/", b"")
        assert answer.status == 200, shop.log()
        assert answer.text.startswith(f"an asynchronous view, {method}, /django/")
    assert shop.request("POST", "/django/old", b"x" * 5000).body == b"a view in a thread, 5000 bytes"
    assert shop.get("/django/stream").body == b"".join(b"line %d\n" % number for number in range(2000))
