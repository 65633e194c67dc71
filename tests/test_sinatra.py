"""A Sinatra application as its authors write them: log-in, session, form, upload, download, streaming, errors."""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.parse
from collections.abc import Iterator

import pytest
from rack_server import HERE, logged, prepare
from serving import Answer, Server, directory


@pytest.fixture(scope="module", params=[(1, ""), (4, "preload = app/config.ru")], ids=["1-thread", "4-preloaded"])
def app(request: pytest.FixtureRequest) -> Iterator[Server]:
    threads, group = request.param
    with directory() as path:
        server = prepare(
            Server(path),
            threads=threads,
            processes=2,
            application=(HERE / "sinatra.ru").read_text(),
            group=group,
        )
        (path / "scratch" / "uploads").mkdir()
        (path / "scratch" / "uploads").chmod(0o777)
        server.allow("Sinatra's own error", r"config\.ru:\d+:in")
        server.start()
        yield server
        server.stop()


class Browser:
    """One client with its cookies, which follows redirections."""

    def __init__(self, server: Server, base: str = "") -> None:
        self.server = server
        self.base = base
        self.cookies: dict[str, str] = {}

    def send(self, method: str, target: str, body: bytes | None = None, content_type: str = "") -> Answer:
        fields = (
            {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} if self.cookies else {}
        )
        if content_type:
            fields["Content-Type"] = content_type
        answer = self.server.request(method, target, body, fields)
        for name, value in answer.fields:
            if name.lower() == "set-cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.partition(";")[0]
        if answer.status in (302, 303):
            location = urllib.parse.urlsplit(answer.field("location") or "")
            return self.send("GET", location.path)
        return answer

    def get(self, target: str) -> Answer:
        return self.send("GET", self.base + target)

    def post(self, target: str, **values: str) -> Answer:
        form = urllib.parse.urlencode(values).encode()
        return self.send("POST", self.base + target, form, "application/x-www-form-urlencoded")


@pytest.mark.parametrize("base", ["", "/notes-application", "/mount/point"])
def test_log_in_and_form(app: Server, base: str) -> None:
    browser = Browser(app, base)
    assert "<form" in browser.get("/").text
    assert browser.post("/login", name="me", word="wrong").status == 403
    assert "Hello, Zo&eacute;" in browser.post("/login", name="Zoé", word="secret").text.replace("é", "&eacute;")
    assert browser.post("/notes", note="<first> & 100%").status == 200
    page = browser.post("/notes", note="zweite ü").text
    assert re.findall("<li>(.*?)</li>", page) == ["&lt;first&gt; &amp; 100%", "zweite ü"]
    assert "<form" in Browser(app, base).get("/").text


def multipart(name: str, content: bytes, **values: str) -> tuple[bytes, str]:
    parts = b"".join(
        f'--limit\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in values.items()
    )
    head = (
        f'--limit\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
    )
    return parts + head.encode() + content + b"\r\n--limit--\r\n", "multipart/form-data; boundary=limit"


@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
def test_upload_and_download(app: Server, size: int) -> None:
    browser = Browser(app)
    browser.post("/login", name="me", word="secret")
    content = os.urandom(size)
    body, kind = multipart("photo.png", content, title="A täble")
    found = json.loads(browser.send("POST", "/upload", body, kind).body)
    assert found == {"name": "photo.png", "type": "image/png", "size": size, "title": "A täble"}
    answer = browser.get("/files/photo.png")
    assert (answer.body, answer.field("content-type")) == (content, "image/png")
    assert "attachment" in (answer.field("content-disposition") or "")


def test_paths_mean_once_what_they_say(app: Server) -> None:
    assert app.get("/words/caf%C3%A9").text == "café UTF-8 5"
    assert app.get("/words/50%2525").text == "50%25 UTF-8 5"
    assert app.get("/words/a%20b+c").text == "a b+c UTF-8 5"


def test_streaming_head_and_methods(app: Server) -> None:
    assert app.get("/stream").text == "".join(f"part {number}\n" for number in range(5))
    assert app.request("PUT", "/method?x=1").text == "put 1"
    head = app.request("HEAD", "/login")
    assert (head.status, head.body) == (200, b"")
    assert app.get("/nowhere").text == "nothing is here"


def test_errors_are_not_shown_to_clients(app: Server) -> None:
    answer = app.get("/error")
    assert answer.status == 500
    assert "own error" not in answer.text
    logged(app, "Sinatra's own error")


def test_connections_are_kept(app: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=20)
    for _ in range(20):
        connection.request("GET", "/login")
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
    connection.close()
