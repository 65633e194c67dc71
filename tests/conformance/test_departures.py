"""Clients that die: killed at any point of their request or of the answer, they leave nothing behind.

A client is a process of its own that sends, or takes, so many bytes, says so and is killed with SIGKILL. Its kernel then
ends the connection: in order (FIN) where nothing is left unread, with a reset (RST) where something is, or where the
socket's linger says so.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import LONG
from .content import content
from .server import SECONDS, Server, until

POINTS = 100 if LONG else 12
GROWTH_KB = 250  # of a process's own memory in one run
RUNS = 40  # Ruby's garbage collector takes some fifteen of them to find its size; one that does not grow ends it
UPLOAD = 700_000
ANSWER = 4_000_000
FIRST_PIECE = b"one\n\r\n"


class Doomed:
    """A client process that does its part, and is then killed. `takes`: so many bytes, or up to these."""

    def __init__(self, port: int, sends: bytes, takes: int | bytes, reset: bool) -> None:
        done, said = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._live(port, sends, takes, reset, said)
            finally:
                os._exit(1)
        os.close(said)
        try:
            assert os.read(done, 1) == b"x", "the client could not do its part"
        finally:
            os.close(done)
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    @staticmethod
    def _live(port: int, sends: bytes, takes: int | bytes, reset: bool, said: int) -> None:
        sock = socket.create_connection(("127.0.0.1", port), SECONDS)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(sends)
        if isinstance(takes, bytes):
            got = b""
            while takes not in got:
                got += sock.recv(1) or takes
        else:
            while takes > 0:
                takes -= len(sock.recv(min(takes, 65536))) or takes
        os.write(said, b"x")
        signal.pause()


def points(size: int) -> Iterator[int]:
    """So many places in a message of `size` bytes: dense at its beginning, where the head is, and its very end."""
    head = min(POINTS // 3, size)
    yield from range(1, head * 5, 5)
    rest = POINTS - head
    yield from (head * 5 + (size - head * 5) * number // rest for number in range(1, rest + 1))


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_kb(pid: int) -> int:
    """Allocated or inherited. What is the process's own alone grows too when its parent writes to a page of both."""
    return int(re.findall(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)[0])


class Watch:
    """Descriptors and memory of the front end and the one worker of the group "app", before and after."""

    def __init__(self, server: Server) -> None:
        self.server = server
        server.ask("/hello")  # a worker may keep what it needed for its last request
        self.pids = server.pids("front end") + server.pids("worker app")
        assert len(self.pids) == 2
        self.descriptors = {pid: descriptors(pid) for pid in self.pids}
        self.memory = {pid: memory_kb(pid) for pid in self.pids}

    def grown(self) -> dict[str, int]:
        """By how many KB each of them has grown. What it has opened must be closed."""
        self.server.ask("/hello")
        assert self.server.pids("front end") + self.server.pids("worker app") == self.pids, "a process has died"
        names = dict(zip(self.pids, ("front end", "worker"), strict=True))
        for pid in self.pids:
            before = self.descriptors[pid]
            until(lambda pid=pid, before=before: descriptors(pid) <= before, f"the {names[pid]} keeps descriptors")  # type: ignore[misc]
        return {names[pid]: memory_kb(pid) - self.memory[pid] for pid in self.pids}


def check_that_nothing_is_kept(server: Server, run: Callable[[], None]) -> None:
    """Buffers grow to what such requests need, and stay: so memory counts as kept only if each run takes more of it."""
    run()
    for _ in range(RUNS):
        watch = Watch(server)
        run()
        grown = watch.grown()
        if max(grown.values()) < GROWTH_KB + server.kept_kb:
            return
    raise AssertionError(f"memory grows with each run, in the last one by {grown} KB")


def all_are_closed(server: Server) -> bool:
    begun, closed = server.noted("begun"), server.noted("closed")
    return sorted(begun) == sorted(closed)


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_clients_that_die_in_their_request(server: Server, reset: bool) -> None:
    body = content(UPLOAD)
    head = "POST /length?watch={} HTTP/1.1\r\nHost: conformance\r\nContent-Length: {}\r\n\r\n"

    def kill(some: list[int]) -> list[str]:
        tokens = []
        for point in some:
            tokens.append(server.token())
            message = head.format(tokens[-1], UPLOAD).encode() + body
            Doomed(server.port, message[:point], 0, reset)
        return tokens

    def run() -> None:
        tokens = kill(list(points(len(head) + 20 + UPLOAD)))
        assert server.ask("/hello").body == b"hello, world"
        until(lambda: all_are_closed(server), "a request that was begun has not been cleaned up")
        assert set(tokens) & set(server.noted("begun")), "no request came as far as the application"

    check_that_nothing_is_kept(server, run)


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_clients_that_die_in_their_answer(server: Server, reset: bool) -> None:
    def kill(some: list[int]) -> list[str]:
        tokens = []
        for number, point in enumerate(some):
            tokens.append(server.token())
            # One that has a length, one that has none and is longer than anybody waits for.
            path = f"/large/{ANSWER}" if number % 2 else "/stream/200000"
            head = f"GET {path}?watch={tokens[-1]} HTTP/1.1\r\nHost: conformance\r\n\r\n"
            Doomed(server.port, head.encode(), point, reset)
        return tokens

    def run() -> None:
        tokens = kill([max(1, point // 2) for point in points(ANSWER)])
        assert server.ask("/hello").body == b"hello, world"
        until(lambda: all_are_closed(server), "a request that was begun has not been cleaned up")
        assert set(tokens) <= set(server.noted("begun"))

    check_that_nothing_is_kept(server, run)


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_clients_that_die_between_pieces(server: Server, reset: bool) -> None:
    """Everything has been read that was sent, so the kernel ends the connection in order; the application then goes on."""

    def run() -> None:
        for _ in range(POINTS // 5):
            token = server.token()
            head = f"GET /steps?watch={token} HTTP/1.1\r\nHost: conformance\r\n\r\n"
            Doomed(server.port, head.encode(), FIRST_PIECE, reset)
            server.open_gate(token)
            server.wait_for("closed", token)

    check_that_nothing_is_kept(server, run)


def test_requests_of_dead_clients_that_wait_are_never_run(server: Server) -> None:
    """The worker is busy at its gate; who dies meanwhile is never heard of by the application."""
    token = server.token()
    with server.connect() as busy:
        busy.head("GET", f"/steps?watch={token}")
        server.wait_for("begun", token)
        dead = []
        for _ in range(20):
            dead.append(server.token())
            Doomed(server.port, f"GET /hello?watch={dead[-1]} HTTP/1.1\r\nHost: conformance\r\n\r\n".encode(), 0, True)
        with server.connect() as last:
            mark = server.token()
            last.head("GET", f"/hello?watch={mark}")
            server.open_gate(token)
            assert last.answer().body == b"hello, world"
        assert busy.answer().body == b"one\ntwo\n"
    assert not set(dead) & set(server.noted("begun"))


def test_no_memory_or_descriptor_is_kept_for_a_request(server: Server) -> None:
    """Whole requests of several kinds, each with texts of its own."""
    count = 2000 if LONG else 100

    def run() -> None:
        with server.connect() as connection:
            for number in range(count):
                connection.request("POST", f"/length?n={number}", b"x" * 100, f"X-Own: {number}")
                assert connection.answer().status == 200
                connection.head("GET", "/headers", f"Cookie: n={number}")
                assert connection.answer().status == 200
                connection.head("GET", f"/stream/{number % 5}")
                assert connection.answer().status == 200

    check_that_nothing_is_kept(server, run)
