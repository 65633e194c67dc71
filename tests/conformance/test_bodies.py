"""Request bodies: of every size and framing, read whole, in part or not at all."""

from __future__ import annotations

import hashlib

import pytest

from .client import Connection
from .content import content
from .server import Server

SIZES = [0, 1, 5, 8191, 8192, 8193, 65535, 65536, 65537, 262144, 1048577, 5000001]


def measure(body: bytes) -> bytes:
    return f"{len(body)} {hashlib.sha256(body).hexdigest()}\n".encode()


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", SIZES)
def test_a_body_arrives_whole(server: Server, size: int) -> None:
    body = content(size)
    assert server.ask("/length", body).body == measure(body)
    assert server.ask("/length", body, method="PUT").body == measure(body)


@pytest.mark.parametrize(
    ("size", "chunk"), [(0, 1), (1, 1), (500, 7), (70000, 1000), (3000001, 65536), (3000001, 1 << 20)]
)
def test_a_chunked_body_arrives_whole(connection: Connection, size: int, chunk: int) -> None:
    body = content(size)
    connection.head("POST", "/length", "Transfer-Encoding: chunked")
    connection.sock.sendall(chunked(body, chunk))
    assert connection.answer().body == measure(body)
    connection.head("GET", "/hello")
    assert connection.answer().body == b"hello, world"


@pytest.mark.parametrize("size", [1, 1000, 65536, 2000003])
def test_echo(connection: Connection, size: int) -> None:
    body = content(size)
    connection.request("POST", "/echo", body)
    answer = connection.answer()
    assert (answer.status, answer.body == body) == (200, True)


def test_a_body_comes_while_the_answer_goes(server: Server) -> None:
    """Streamed both ways: what was sent first is back, but for one read of 65,536 bytes, before the last has been sent."""
    with server.connect() as connection:
        connection.head("POST", "/echo", "Transfer-Encoding: chunked")
        got = b""
        body = content(400_000)
        connection.sock.sendall(chunked(body[:200_000], 50_000)[:-5])
        assert connection.next_head().status == 200
        while len(got) < 200_000 - 65536:
            part = connection.chunk()
            assert part is not None
            got += part
        connection.sock.sendall(chunked(body[200_000:], 50_000))
        while (part := connection.chunk()) is not None:
            got += part
        assert got == body


@pytest.mark.parametrize("size", [10, 1001, 300_000, 3_000_000])
def test_half_a_body(connection: Connection, size: int) -> None:
    """What is not read is no part of the next request."""
    connection.request("POST", "/half", content(size))
    answer = connection.answer()
    assert answer.body == b"half %d\n" % (size // 2)
    if "close" not in answer.words("Connection"):
        connection.usable_or_closed()


@pytest.mark.parametrize("size", [1, 100_000, 3_000_000])
def test_a_body_that_nobody_reads(connection: Connection, size: int) -> None:
    connection.request("POST", "/never", content(size))
    answer = connection.answer()
    assert (answer.status, answer.body) == (200, b"never\n")
    if "close" not in answer.words("Connection"):
        connection.usable_or_closed()


def test_uploads_of_many_at_once(server: Server) -> None:
    bodies = [content(200_000 + number) for number in range(8)]
    connections = [server.connect() for _ in bodies]
    try:
        for connection, body in zip(connections, bodies, strict=True):
            connection.head("POST", "/many/length", f"Content-Length: {len(body)}")
        for begin in range(0, 200_008, 20_000):
            for connection, body in zip(connections, bodies, strict=True):
                connection.sock.sendall(body[begin : begin + 20_000])
        for connection, body in zip(connections, bodies, strict=True):
            assert connection.answer().body == measure(body)
    finally:
        for connection in connections:
            connection.sock.close()
