"""Trailers: fields behind a chunked body, to the application and back."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
from serving import Server, directory
from tunnels import write

CHUNKS = b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n"


def post(path: str, trailers: bytes, *fields: str, chunks: bytes = CHUNKS, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: a", "Transfer-Encoding: chunked", "Connection: close", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + chunks + trailers + b"\r\n"


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    """One server for all that changes nothing of it."""
    with directory() as path:
        one = Server(path)
        write(one, "frontends = 1")
        one.start()
        yield one
        one.stop()


@pytest.mark.parametrize("place", ["/echo", "/gather"])
def test_there_and_back(shared: Server, place: str) -> None:
    """Of a body that is streamed to the worker, and of one that is gathered before."""
    trailers = b"X-Sum: 12\r\nx-empty:\r\nX-Spaces: \t a b \t\r\nX-Sum: 13\r\n"
    answer = shared.raw(post(f"{place}/trailers", trailers, "TE: trailers"))
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked" in head
    assert b"\r\nTrailer: X-Sum, x-empty, X-Spaces, X-Sum\r\n" in head
    assert rest == b"1\r\n7\r\n0\r\nX-Sum: 12\r\nx-empty: \r\nX-Spaces: a b\r\nX-Sum: 13\r\n\r\n"


def test_of_a_large_body(shared: Server) -> None:
    """Gathered in a file, or longer than a window; in pieces of one byte at the end."""
    size = 3_000_000
    chunks = b"%x\r\n" % size + b"z" * size + b"\r\n0\r\n"
    for place in ("/echo", "/gather"):
        request = post(f"{place}/trailers", b"X-Sum: 12\r\n", "TE: trailers", chunks=chunks)
        with shared.connect() as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(request[:-20])
            for byte in request[-20:]:
                sock.sendall(bytes([byte]))
            data = b""
            while piece := sock.recv(65536):
                data += piece
        assert data.endswith(b"\r\n\r\n7\r\n3000000\r\n0\r\nX-Sum: 12\r\n\r\n"), data


@pytest.mark.parametrize("fields", [(), ("TE: gzip",), ("TE: trailersx",)])
def test_nobody_gets_them_unasked(shared: Server, fields: tuple[str, ...]) -> None:
    answer = shared.raw(post("/echo/trailers", b"X-Sum: 12\r\n", *fields))
    assert b"X-Sum" not in answer
    assert b"Trailer" not in answer
    assert answer.endswith(b"\r\n7") or answer.endswith(b"\r\n7\r\n0\r\n\r\n")


def test_the_last_word_of_te_counts(shared: Server) -> None:
    answer = shared.raw(post("/echo/trailers", b"X-Sum: 12\r\n", "TE: deflate;q=0.5, Trailers"))
    assert answer.endswith(b"\r\n0\r\nX-Sum: 12\r\n\r\n")


def test_fields_that_are_no_trailers(shared: Server) -> None:
    """What frames, routes, authenticates ... is left out, and what nobody sees of a head either."""
    refused = (
        b"Content-Length: 3\r\nHost: evil\r\nTransfer-Encoding: chunked\r\nAuthorization: Basic x\r\nCookie: a=b\r\n"
        b"Content-Type: text/html\r\nProxy: evil\r\nX_Under: evil\r\nTrailer: x\r\nConnection: close\r\n"
    )
    answer = shared.raw(post("/echo/trailers", refused + b"X-Fine: yes\r\n" + refused, "TE: trailers"))
    assert answer.partition(b"\r\n\r\n")[2] == b"1\r\n7\r\n0\r\nX-Fine: yes\r\n\r\n"


def test_the_connection_goes_on(shared: Server) -> None:
    one = post("/echo/trailers", b"X-Sum: 12\r\n", "TE: trailers").replace(b"Connection: close\r\n", b"")
    answers = shared.raw(one * 3 + b"GET /echo/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answers.count(b"\r\n0\r\nX-Sum: 12\r\n\r\nHTTP/1.1 200 OK") == 3
    assert answers.endswith(b"hello, world")


def test_limits(server: Server) -> None:
    """More of them than fields may be, or larger than a head: the request is refused, or cut off if it is answered."""
    write(server, "max_fields = 20\nmax_head = 2048\nmax_line = 2048")
    server.start()
    assert server.raw(post("/gather/trailers", b"X-A: b\r\n" * 20, "TE: trailers")).count(b"X-A: b") == 20
    for trailers in (b"X-A: b\r\n" * 21, b"X-A: " + b"b" * 2100 + b"\r\n"):
        answer = server.raw(post("/gather/trailers", trailers))
        assert re.match(rb"HTTP/1\.1 400 ", answer)
