"""What is published for PSGI, unchanged: Plack's own suite and Lint, Mojolicious, Dancer2."""

from __future__ import annotations

import http.cookies
import json
import re
import subprocess
import urllib.parse

import pytest
from psgi_clauses import DATA, SOURCES, prepare
from serving import Answer, Server, wait_until


def with_application(server: Server, name: str) -> Server:
    """The server with another of the applications beside clauses.psgi."""
    prepare(server)
    text = server.config_file.read_text()
    server.configure(text.replace("work/clauses.psgi", f"work/{name}"))
    return server


def test_plack_s_own_suite(server: Server) -> None:
    """All of its handler tests, with Plack::Middleware::Lint around the application."""
    with_application(server, "suite.psgi")
    # One of the tests is an application that dies.
    server.allow("Server shouldn't crash")
    server.start()
    done = subprocess.run(
        ["perl", SOURCES / "suite_client.pl", str(server.port)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    results = re.findall(r"^(ok|not ok) \d+ - (.*)$", done.stdout, re.M)
    failed = [name for result, name in results if result != "ok"]
    assert not failed, f"{failed}\n{done.stdout}\n{done.stderr}\n{server.log()}"
    assert done.returncode == 0
    count = subprocess.run(["perl", "-MPlack::Test::Suite", "-e", "print scalar @Plack::Test::Suite::TEST"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    assert len(results) == int(count.stdout)
    assert not [line for line in server.log().splitlines() if "[error]" in line and "shouldn't crash" not in line]


def form(server: Server, target: str, cookie: str = "", **fields: str) -> Answer:
    body = urllib.parse.urlencode(fields).encode()
    return server.request("POST", target, body, {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie})


def cookie_of(answer: Answer) -> str:
    found = http.cookies.SimpleCookie(answer.field("Set-Cookie") or "")
    return "; ".join(f"{name}={one.value}" for name, one in found.items())


def multipart(note: str, content: bytes) -> tuple[bytes, str]:
    lines = [
        b"--edge", b'Content-Disposition: form-data; name="note"', b"", note.encode(),
        b"--edge", b'Content-Disposition: form-data; name="file"; filename="big.txt"', b"Content-Type: text/plain", b"",
        content, b"--edge--", b"",
    ]  # fmt: skip
    return b"\r\n".join(lines), "multipart/form-data; boundary=edge"


@pytest.mark.parametrize("name", ["mojo.pl", "dancer.psgi"])
def test_framework(server: Server, name: str) -> None:
    with_application(server, name)
    server.allow("in a controller", "in a route")
    server.start()
    assert server.get("/").text == "hello, nobody"
    assert form(server, "/login", name="ada", password="wrong").status == 403
    answer = form(server, "/login", name="ada", password="open sesame")
    assert (answer.status, str(answer.field("Location"))[-1:]) == (302, "/")
    cookie = cookie_of(answer)
    assert server.get("/", Cookie=cookie).text == "hello, ada"
    answer = form(server, "/logout", cookie)
    assert server.get("/", Cookie=cookie_of(answer)).text == "hello, nobody"
    for size in (100, 3_000_000):
        body, kind = multipart("a note", b"0123456789" * (size // 10))
        answer = server.request("POST", "/upload", body, {"Content-Type": kind})
        assert json.loads(answer.body) == {"name": "big.txt", "size": size, "head": "0123456789", "note": "a note"}
    answer = server.get("/download")
    assert answer.body == DATA
    assert "data.txt" in str(answer.field("Content-Disposition"))
    answer = server.get("/chunks")
    assert answer.text == "chunk 2\nchunk 1\nchunk 0\n"
    assert server.get("/where").text == f"http://127.0.0.1:{server.port}/x 127.0.0.1"
    assert server.get("/mount/point/where").text == f"http://127.0.0.1:{server.port}/mount/point/x 127.0.0.1"
    assert server.get("/wide").body == "\u20ac".encode()
    assert server.get("/die").status == 500
    wait_until(lambda: re.search(r"in a (controller|route)", server.log()), "the log does not say why")
    assert server.get("/nothing").status == 404
