"""Connections of the engine: time limits, ends of every kind, backpressure, draining, limits.

No test sleeps: each waits for what the server does, with short limits where it is a limit that is tested.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_client import Stream, start, stop
from serving import wait_until

MIB = 1 << 20
HOST = b"Host: example.org\r\n"


def request(path: str, *fields: str, method: str = "GET", body: bytes = b"", version: str = "1.1") -> bytes:
    head = f"{method} {path} HTTP/{version}\r\nHost: example.org\r\n" + "".join(f"{field}\r\n" for field in fields)
    return head.encode() + b"\r\n" + body


class Served:
    """A server with limits of its own, and connections to it."""

    def __init__(self, limits: dict[str, Any]) -> None:
        self.process, self.port = start(limits)
        self.sockets: list[socket.socket] = []

    def connect(self, receive_buffer: int = 0) -> Stream:
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", self.port))
        self.sockets.append(sock)
        return Stream(sock)

    def ask(self, path: str, *fields: str, **more: Any) -> bytes:
        """The body of one answer, on a connection of its own."""
        stream = self.connect()
        stream.send(request(path, *fields, **more))
        answer = stream.answer()
        assert answer is not None
        return answer.body

    def drain(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("drain\n")
        self.process.stdin.flush()
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "draining\n"

    def disconnect(self) -> None:
        while self.sockets:
            self.sockets.pop().close()

    def close(self) -> None:
        self.disconnect()
        stop(self.process)


@contextlib.contextmanager
def served(**limits: Any) -> Iterator[Served]:
    server = Served(limits)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    with served() as server:
        yield server


@pytest.fixture
def server(running: Served) -> Iterator[Served]:
    yield running
    running.disconnect()


def reset(stream: Stream) -> None:
    stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.sock.close()


def closed_reaches(server: Served, count: int) -> None:
    """Wait until so many requests have been told to Python as cut off."""
    deadline = time.monotonic() + 10
    while int(server.ask("/closed")) < count:
        assert time.monotonic() < deadline


# ---- time limits


def test_head_timeout_after_a_byte() -> None:
    with served(head_timeout_ns=0.2) as server:
        stream = server.connect()
        stream.send(b"GET / HT")
        answer = stream.answer()
        assert answer is not None
        assert answer.status == 408
        assert answer.field("connection") == "close"
        assert stream.rest() == b""


def test_head_timeout_without_a_byte() -> None:
    with served(head_timeout_ns=0.2) as server:
        assert server.connect().rest() == b""


def test_head_timeout_counts_from_the_first_byte_of_a_later_head() -> None:
    with served(head_timeout_ns=0.2, idle_timeout_ns=20) as server:
        stream = server.connect()
        stream.send(request("/"))
        assert stream.answer()
        stream.send(b"G")
        answer = stream.answer()
        assert answer is not None
        assert answer.status == 408


def test_idle_timeout() -> None:
    with served(idle_timeout_ns=0.2) as server:
        stream = server.connect()
        stream.send(request("/"))
        assert stream.answer()
        assert stream.rest() == b""


def test_body_timeout() -> None:
    with served(body_timeout_ns=0.2) as server:
        stream = server.connect()
        stream.send(request("/", "Content-Length: 10", method="POST", body=b"hel"))
        answer = stream.answer()
        assert answer is not None
        assert answer.status == 408
        assert stream.rest() == b""
        closed_reaches(server, 1)


def test_body_timeout_in_an_answer_cuts_it() -> None:
    with served(body_timeout_ns=0.2) as server:
        stream = server.connect()
        stream.send(request("/read-late", "Content-Length: 10", method="POST", body=b"hel"))
        with pytest.raises(EOFError):
            stream.answer()


def test_no_body_timeout_while_nobody_reads() -> None:
    with served(body_timeout_ns=0.1, head_timeout_ns=0.1) as server:
        hanging = server.connect()
        hanging.send(request("/hang", "Content-Length: 10", method="POST"))
        with served(idle_timeout_ns=0.5) as clock:
            other = clock.connect()
            other.send(request("/"))
            assert other.answer()
            assert other.rest() == b""
        assert server.ask("/closed") == b"0"


def test_send_timeout() -> None:
    with served(send_timeout_ns=0.3) as server:
        stream = server.connect(receive_buffer=4096)
        stream.send(request("/stream"))
        closed_reaches(server, 1)
        with pytest.raises((EOFError, ConnectionResetError, AssertionError)):
            stream.answer()


# ---- ends


def test_half_closed_client_gets_its_answer(server: Served) -> None:
    stream = server.connect()
    stream.send(request("/stream"))
    stream.sock.shutdown(socket.SHUT_WR)
    answer = stream.answer()
    assert answer is not None
    assert len(answer.body) == 10 * MIB
    assert stream.rest() == b""


def test_half_closed_client_gets_all_pipelined_answers(server: Served) -> None:
    stream = server.connect()
    stream.send(request("/a") + request("/b") + request("/c"))
    stream.sock.shutdown(socket.SHUT_WR)
    for _ in range(3):
        answer = stream.answer()
        assert answer is not None
        assert answer.status == 200
    assert stream.rest() == b""


def test_half_close_in_a_head(server: Served) -> None:
    stream = server.connect()
    stream.send(b"GET / HTTP/1.1\r\nHo")
    stream.sock.shutdown(socket.SHUT_WR)
    assert stream.rest() == b""


def test_half_close_in_a_body_cancels() -> None:
    with served() as server:
        stream = server.connect()
        stream.send(request("/", "Content-Length: 10", method="POST", body=b"hel"))
        stream.sock.shutdown(socket.SHUT_WR)
        assert stream.rest() == b""
        closed_reaches(server, 1)


def test_reset_cancels() -> None:
    with served() as server:
        stream = server.connect()
        stream.send(request("/", "Content-Length: 5", "Expect: 100-continue", method="POST"))
        assert stream.head() == (100, [])  # it runs
        reset(stream)
        closed_reaches(server, 1)


def test_closed_client_is_found_while_its_request_runs() -> None:
    """It looks like a half-closed one until it is sent something."""
    with served() as server:
        stream = server.connect()
        stream.send(request("/hang"))
        stream.sock.close()
        closed_reaches(server, 1)


def test_closed_client_in_an_answer_cancels() -> None:
    with served() as server:
        stream = server.connect(receive_buffer=4096)
        stream.send(request("/stream"))
        assert stream.more()
        stream.sock.close()
        closed_reaches(server, 1)


def test_short_answer_is_cut(server: Served) -> None:
    stream = server.connect()
    stream.send(request("/short"))
    with pytest.raises(EOFError):
        stream.answer()


def test_long_answer_is_cut_off_at_its_length(server: Served) -> None:
    stream = server.connect()
    stream.send(request("/long") + request("/b"))
    answer = stream.answer()
    assert answer is not None
    assert answer.body == b"0123456"
    assert stream.answer()


def test_aborted_answer_does_not_look_whole(server: Served) -> None:
    for path, version in [("/abort", "1.1"), ("/abort-unknown", "1.1"), ("/abort", "1.0"), ("/abort-unknown", "1.0")]:
        stream = server.connect()
        stream.send(request(path, version=version))
        with pytest.raises((EOFError, ConnectionResetError, AssertionError)):
            stream.answer()


def test_abort_before_the_answer_is_500(server: Served) -> None:
    stream = server.connect()
    stream.send(request("/abort-before"))
    answer = stream.answer()
    assert answer is not None
    assert answer.status == 500


def test_early_answer_reaches_a_client_that_still_sends(server: Served) -> None:
    """The 413 is seen although megabytes were on their way: the connection lingers."""
    stream = server.connect()
    stream.send(request("/", f"Content-Length: {4 * MIB}", method="POST"))
    stream.send(b"x" * (4 * MIB))
    answer = stream.answer()
    assert answer is not None
    assert answer.status == 413
    assert answer.field("connection") == "close"
    stream.sock.shutdown(socket.SHUT_WR)
    assert stream.rest() == b""


def test_unread_large_body_closes(server: Served) -> None:
    stream = server.connect()
    stream.send(request("/ignore", "Content-Length: 90000", method="POST", body=b"x" * 90000))
    answer = stream.answer()
    assert answer is not None
    assert answer.body == b"ignored"
    assert answer.field("connection") == "close"
    stream.sock.shutdown(socket.SHUT_WR)
    assert stream.rest() == b""


def test_body_read_after_the_answer_began(server: Served) -> None:
    stream = server.connect()
    stream.send(request("/read-late", "Content-Length: 90000", method="POST", body=b"x" * 60000))
    head = stream.head()
    assert head is not None
    assert stream.chunk() == b"begin "
    stream.send(b"x" * 30000)
    assert stream.chunks() == b"90000"


# ---- expect, interim answers


def test_continue_is_sent_when_the_body_is_read(server: Served) -> None:
    stream = server.connect()
    stream.send(request("/", "Content-Length: 5", "Expect: 100-continue", method="POST"))
    assert stream.head() == (100, [])
    stream.send(b"hello")
    answer = stream.answer()
    assert answer is not None
    assert answer.body == b"POST / - example.org 5"
    stream.send(request("/b"))
    assert stream.answer()


def test_no_continue_when_the_answer_comes_first(server: Served) -> None:
    stream = server.connect()
    stream.send(request("/ignore", "Content-Length: 5", "Expect: 100-continue", method="POST"))
    answer = stream.answer()
    assert answer is not None
    assert stream.interim == []
    assert answer.field("connection") == "close"
    stream.sock.shutdown(socket.SHUT_WR)
    assert stream.rest() == b""


def test_interim_answers_do_not_pile_up(server: Served) -> None:
    """No credit bounds them: beyond 64 KB that wait for the client they are dropped, and the answer still comes."""
    stream = server.connect()
    stream.send(request("/hints") + request("/b"))
    answer = stream.answer()
    assert answer is not None
    assert answer.body == b"hinted"
    assert set(stream.interim) == {103}
    assert 300 < len(stream.interim) < 1000
    assert stream.answer()


# ---- backpressure, framing


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("path", ["/stream", "/stream-length"])
def test_stream(server: Served, version: str, path: str) -> None:
    stream = server.connect()
    stream.send(request(path, version=version))
    answer = stream.answer()
    assert answer is not None
    assert answer.body == b"s" * (10 * MIB)
    assert (answer.field("transfer-encoding") == "chunked") == (version == "1.1" and path == "/stream")


def test_slow_reader_of_a_stream(server: Served) -> None:
    stream = server.connect(receive_buffer=4096)
    stream.send(request("/stream-length", "Connection: close"))
    assert stream.head()
    total = len(stream.kept)
    while data := stream.sock.recv(3000):
        total += len(data)
    assert total == 10 * MIB


def test_many_requests_on_one_connection(server: Served) -> None:
    stream = server.connect()
    for _ in range(200):
        stream.send(request("/", "Content-Length: 3", method="POST", body=b"abc"))
        answer = stream.answer()
        assert answer is not None
        assert answer.status == 200


def test_deep_pipeline(server: Served) -> None:
    stream = server.connect()
    stream.send(request("/") * 500)
    for _ in range(500):
        assert stream.answer()


def test_head_gets_no_body(server: Served) -> None:
    stream = server.connect()
    stream.send(request("/stream", method="HEAD") + request("/b"))
    answer = stream.answer(head=True)
    assert answer is not None
    answer = stream.answer()
    assert answer is not None
    assert answer.body == b"GET /b - example.org 0"


# ---- limits, draining


def test_connection_limit_makes_others_wait() -> None:
    with served(connections=2) as server:
        first, second = server.connect(), server.connect()
        for stream in (first, second):
            stream.send(request("/"))
            assert stream.answer()
        third = server.connect()
        third.send(request("/"))
        third.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            third.answer()
        first.sock.close()
        third.sock.settimeout(20)
        assert third.answer()


def test_out_of_descriptors_waits_refuses_and_recovers() -> None:
    with served(descriptors=30) as server:
        streams = [server.connect() for _ in range(60)]
        until = time.monotonic() + 1
        for stream in streams:
            stream.sock.setblocking(False)
        # For a moment they only wait; then those are refused that have waited for it.
        wait_until(lambda: any(ended(stream) for stream in streams), "nobody is refused")
        assert time.monotonic() > until
        server.disconnect()
        assert server.ask("/") == b"GET / - example.org 0"


def ended(stream: Stream) -> bool:
    try:
        return stream.sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "web.sock")
    with served(unix=path) as server:
        sock = socket.socket(socket.AF_UNIX)
        server.sockets.append(sock)
        sock.settimeout(20)
        sock.connect(path)
        stream = Stream(sock)
        stream.send(request("/a"))
        answer = stream.answer()
        assert answer is not None
        assert answer.body == b"GET /a - example.org 0"
        stream.send(request("/hang"))
        server.ask("/closed")  # a whole exchange later the engine has begun what was there before
        sock.close()
        closed_reaches(server, 1)


def test_drain_answers_the_next_request_and_ends() -> None:
    with served() as server:
        idle, quiet, fresh = server.connect(), server.connect(), server.connect()
        for stream in (idle, quiet):
            stream.send(request("/"))
            assert stream.answer()
        hanging = server.connect()
        hanging.send(request("/", "Content-Length: 5", method="POST", body=b"he"))
        server.drain()
        idle.send(request("/"))
        answer = idle.answer()
        assert answer is not None
        assert answer.field("connection") == "close"
        assert idle.rest() == b""
        assert quiet.rest() == b""
        assert fresh.rest() == b""
        hanging.send(b"llo")
        answer = hanging.answer()
        assert answer is not None
        assert answer.body.endswith(b" 5")
        assert answer.field("connection") == "close"
        assert hanging.rest() == b""
        assert server.process.wait(20) == 0
