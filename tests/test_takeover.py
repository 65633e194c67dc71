"""Connections that applications take over: answers that they write by hand, head and all."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Server, directory, read_all, wait_until
from test_tunnel import idle
from tunnels import Tunnel, write

OK = b"HTTP/1.1 200 OK\r\n"


def by_hand(answer: bytes, *fields: str, path: str = "/hand/hand", method: str = "POST") -> bytes:
    """A request whose body the application writes to its client."""
    lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Content-Length: {len(answer)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + answer


def ask(server: Server, answer: bytes, *fields: str, path: str = "/hand/hand") -> tuple[bytes, bytes]:
    """Head and body of what comes of it; the connection is closed behind it."""
    head, _, body = server.raw(by_hand(answer, "Connection: close", *fields, path=path)).partition(b"\r\n\r\n")
    return head, body


def unchunked(body: bytes) -> bytes:
    content = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            return content
        content, body = content + body[: int(size, 16)], body[int(size, 16) + 2 :]


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    """One server for all that changes nothing of it."""
    with directory() as path:
        one = Server(path)
        one.allow("that it took over", "its Content-Length", "502: ")
        write(one, "frontends = 1")
        one.start()
        yield one
        one.stop()


@pytest.mark.parametrize("path", ["/hand/hand", "/hand/bytes"])
def test_answers(shared: Server, path: str) -> None:
    """By length, to the end, in chunks; in one piece and in pieces of one byte."""
    head, body = ask(shared, OK + b"X-A: b\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", path=path)
    assert head.startswith(OK)
    assert (head.count(b"X-A: b"), head.count(b"Content-Length: 5"), head.count(b"Connection")) == (1, 1, 1)
    assert body == b"hello"
    # What is said beyond the length is not the client's.
    assert ask(shared, OK + b"Content-Length: 5\r\n\r\nhellohello", path=path)[1] == b"hello"
    head, body = ask(shared, b"HTTP/1.0 404 Gone Away\r\n\r\nto the end", path=path)
    assert head.startswith(b"HTTP/1.1 404 Gone Away\r\n")
    assert body == b"to the end" or unchunked(body) == b"to the end"
    chunks = b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-Sum: 12\r\nHost: x\r\n\r\n"
    head, body = ask(shared, OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks, path=path)
    assert body == b"abcdefg" or unchunked(body) == b"abcdefg"
    assert b"X-Sum" not in head + body
    head, body = ask(shared, b"HTTP/1.1 204 No Content\r\n\r\n", path=path)
    assert (head.split()[1], body) == (b"204", b"")
    answer = shared.raw(by_hand(OK + b"Content-Length: 5\r\n\r\nhello", "Connection: close", path=path, method="HEAD"))
    assert b"\r\nContent-Length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")
    wait_until(lambda: idle(shared), "a slot is not free")


def test_trailers_of_chunks(shared: Server) -> None:
    chunks = b"3\r\nabc\r\n0\r\nX-Sum: 12\r\nX-Other: 1\r\n\r\n"
    body = ask(shared, OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks, "TE: trailers")[1]
    assert body.endswith(b"\r\n0\r\nX-Sum: 12\r\nX-Other: 1\r\n\r\n")


def test_large_answers(shared: Server) -> None:
    content = os.urandom(900_000)
    assert ask(shared, OK + b"Content-Length: 900000\r\n\r\n" + content)[1] == content
    assert unchunked(ask(shared, OK + b"\r\n" + content)[1]) == content
    chunks = b"".join(b"%x\r\n" % 30_000 + content[at : at + 30_000] + b"\r\n" for at in range(0, 900_000, 30_000))
    answer = OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    assert unchunked(ask(shared, answer)[1]) == content


def test_interim_answers(shared: Server) -> None:
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    answer = shared.raw(by_hand(hints + OK + b"Content-Length: 2\r\n\r\nhi", "Connection: close"))
    assert re.match(rb"HTTP/1\.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1\.1 200 OK\r\n", answer)
    assert answer.endswith(b"hi")


WRONG = {
    b"": "it was closed before there was any",
    b"HTTP/1.1 200 OK\r\nX-A: b": "it ended before its head did",
    b"hello\r\n\r\n": "its first line is not",
    b"HTTP/1.1 200 OK\nX-A: b\n\n": "a line does not end in CR LF",
    b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\n\r\n": "a field's line is not",
    b"HTTP/1.1 200 OK\r\nX-A : b\r\n\r\n": "a field's line is not",
    b"HTTP/1.1 200 OK\r\nX-A: b\rX-B: c\r\n\r\n": "a field's line is not",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi": "Content-Length comes twice",
    b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi": "Content-Length is not a number",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nhi": "both Content-Length",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi": "Transfer-Encoding is not just chunked",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000 + b"\r\n\r\n": "it is too large",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 201 + b"\r\n": "it has too many fields",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\n\r\n": "not to what the client asked for",
}


def test_heads_that_are_wrong(shared: Server) -> None:
    """The client is told no more than that; the log has the reason."""
    for answer, why in WRONG.items():
        head, body = ask(shared, answer)
        assert head.startswith(b"HTTP/1.1 500 Internal Server Error\r\n"), answer[:100]
        assert body == b"Internal Server Error\n"
        wait_until(lambda why=why: why in shared.log(), f"{why} is not in the log:\n{shared.log()}")


def test_answers_that_stop_in_their_midst(shared: Server) -> None:
    """They must not look whole."""
    for answer in (
        OK + b"Content-Length: 100\r\n\r\nshort",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
    ):
        try:
            got = shared.raw(by_hand(answer, "Connection: close"))
        except ConnectionResetError:
            continue
        assert not got.startswith(OK) or not got.endswith(b"0\r\n\r\n")


def test_all_else_is_refused(shared: Server) -> None:
    answer = shared.get("/hand/taken")
    assert (answer.status, answer.body) == (200, b"refused")
    assert shared.get("/echo/takeover").body == b"taken"


@pytest.mark.parametrize("chunked", [False, True])
def test_the_rest_of_the_body(shared: Server, chunked: bool) -> None:
    """By its length, or to the end where it has none; a client that waits for 100 gets it."""
    size = 1_500_000
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    with shared.connect() as sock:
        head = f"POST /hand/rest HTTP/1.1\r\nHost: a\r\n{framing}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode())
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        body = b"z" * size
        sock.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (size, body) if chunked else body)
        assert read_all(sock).endswith(b"\r\n\r\n1500000")


def test_tunnels(shared: Server) -> None:
    """In handle() and after it; with fields of the application's own."""
    for path in ("/hand/inline", "/hand/thread"):
        with Tunnel(shared, path) as tunnel:
            assert tunnel.head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
            assert tunnel.head.count(b"Upgrade: chat") == 1
            assert tunnel.head.count(b"Connection: Upgrade") == 1
            assert b"\r\nX-Hand: 1" in tunnel.head
            for number in range(300):
                tunnel.say(b"%d" % number)
                assert tunnel.hear(len(str(number))) == b"%d" % number
    wait_until(lambda: idle(shared), "a slot is not free")


def test_connection_goes_on(shared: Server) -> None:
    one = by_hand(OK + b"Content-Length: 2\r\n\r\nhi")
    chunks = by_hand(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
    answers = shared.raw((one + chunks) * 3 + by_hand(OK + b"Content-Length: 3\r\n\r\nend", "Connection: close"))
    assert answers.count(b"HTTP/1.1 200 OK") == 7
    assert answers.endswith(b"end")


def test_nothing_is_left_in_the_worker(shared: Server) -> None:
    """Neither descriptors nor threads, whoever goes first."""
    (pid,) = shared.pids("worker", "hand")

    def held() -> tuple[int, int]:
        return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))

    assert shared.get("/hand/taken").status == 200
    wait_until(lambda: idle(shared), "a slot is not free")
    before = held()
    for number in range(60):
        with Tunnel(shared, ("/hand/inline", "/hand/thread", "/hand/shut")[number % 3]) as tunnel:
            tunnel.say(b"x" * number)
            if number % 2:
                tunnel.end()
                tunnel.rest()
            elif number % 4:
                tunnel.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        ask(shared, OK + b"\r\nhello")
    wait_until(lambda: idle(shared), "a slot is not free")
    wait_until(lambda: held() == before, f"{held()} and not {before}")


def test_a_waiting_tunnel_costs_no_processor(shared: Server) -> None:
    """Both of its sides shut but one that is slow, or one closed: nothing turns in circles."""
    pids = [*shared.pids("front end"), *shared.pids("worker", "hand"), *shared.pids("worker", "echo")]

    def ticks() -> int:
        return sum(sum(map(int, Path(f"/proc/{pid}/stat").read_text().split()[13:15])) for pid in pids)

    with Tunnel(shared, "/hand/shut") as shut, Tunnel(shared, "/hand/thread") as open_, Tunnel(shared, "/hand/flood"):
        assert shut.rest() == b"bye"
        open_.say(b"x")
        assert open_.hear(1) == b"x"
        time.sleep(0.5)
        before = ticks()
        time.sleep(1.5)
        assert ticks() - before < 0.15 * os.sysconf("SC_CLK_TCK")
