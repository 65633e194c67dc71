"""rack.hijack in full and in part, upgrades, and rack.protocol."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from rack_server import lines, prepare
from serving import Server, directory, read_all


@pytest.fixture(scope="module", params=[1, 8], ids=["1-thread", "8-threads"])
def app(request: pytest.FixtureRequest) -> Iterator[Server]:
    with directory() as path:
        server = prepare(Server(path), threads=request.param)
        server.start()
        yield server
        server.stop()


def test_a_whole_answer_by_hand(app: Server) -> None:
    for count in range(1, 4):
        answer = app.get("/hijack")
        assert (answer.status, answer.text, answer.field("x-same")) == (200, "by hand", "true")
        assert lines(app, "closed", count)[-1] == "hijack"


def test_a_request_s_body_by_hand(app: Server) -> None:
    body = b"0123456789" * 30_000
    assert app.request("POST", "/hijack-read", body).body == body


def test_the_body_by_hand(app: Server) -> None:
    answer = app.get("/partial")
    assert answer.text == "partly " + "x" * 1_000_000
    assert answer.field("content-type") == "text/plain"


@pytest.mark.parametrize("target", ["/upgrade", "/protocol"])
def test_upgrade(app: Server, target: str) -> None:
    with app.connect() as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(4096)
        assert head.startswith(b"HTTP/1.1 101")
        assert b"upgrade: echo" in head.lower()
        for word in (b"hello", b"and again"):
            sock.sendall(word)
            assert sock.recv(4096) == word.upper()
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    assert app.get("/hello").text == "hello, world"


def test_without_an_upgrade(app: Server) -> None:
    assert app.get("/upgrade").status == 426
    assert app.get("/protocol").text == "nil"


def test_a_client_that_goes_ends_a_tunnel(app: Server) -> None:
    for _ in range(3):
        with app.connect() as sock:
            sock.sendall(b"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 101")
    assert app.get("/hello").text == "hello, world"
