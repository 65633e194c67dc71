"""Clients that try to make the server's memory grow."""

from __future__ import annotations

import os
import re
import select
import socket
from pathlib import Path
from typing import Any

import pytest
from serving import KEPT_KB, Server, read_all
from small_site import SITES, head, prepare, status_of


@pytest.fixture
def small(server: Server) -> Server:
    return prepare(server)


# ---- what costs memory


def resident(pid: int) -> int:
    """Kilobytes."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


# Kilobytes. AddressSanitizer keeps what was freed for a while (quarantine_size_mb=256), and room around each piece.
GROWTH = 400 * 1024 if "WEBSERVER_TREE" in os.environ else 12 * 1024
SLOW = 40  # readers; for each, absorb.c says, spool_memory and a window of 1 MB may be in memory


def pipeline_unread(server: Server) -> None:
    """As many requests as the sockets take, and no answer is read."""
    for path in ("/a.txt", "/echo/"):
        with server.connect() as sock:
            sock.setblocking(False)
            many = head(path, end=b"\r\n") * 1000
            for _ in range(300):
                _, writable, _ = select.select([], [sock], [], 0.05)
                if not writable:
                    break
                sock.send(many)


def chunks_of_one_byte(server: Server) -> None:
    """1.5 million, to a worker that reads and to one that sleeps first."""
    for path in ("/echo/length", "/echo/sleep/300"):
        with server.connect() as sock:
            sock.sendall(head(path, "Transfer-Encoding: chunked", method="POST"))
            for _ in range(150):
                sock.sendall(b"1\r\nx\r\n" * 10_000)
            sock.sendall(b"0\r\n\r\n")
            assert status_of(read_all(sock)) == 200


def slow_readers(server: Server) -> None:
    """800 MB of answers of which nothing is read: they go to files."""
    held = []
    for _ in range(SLOW):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(head("/echo/stream/20000000"))
        held.append(sock)
    assert server.raw(head("/echo/")).endswith(b"hello, world")  # it is served after them: no worker is held
    for sock in held:
        sock.close()


def many_hosts_and_paths(server: Server) -> None:
    """Each would be a decision to remember; none may cost what its sender likes."""
    with server.connect() as sock:
        for number in range(3000):
            host = b"x" * 200 + b"%d" % number
            target = b"/" + b"y" * 3000 + b"%d" % number
            sock.sendall(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            sock.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: bare.example.org\r\n\r\n")
            answer = b""
            while answer.count(b"</html>") < 2:
                answer += sock.recv(65536)


@pytest.mark.parametrize(
    ("attack", "growth"),
    [
        (pipeline_unread, GROWTH),
        (chunks_of_one_byte, GROWTH),
        (slow_readers, GROWTH + SLOW * 1100),
        (many_hosts_and_paths, GROWTH),
    ],
)
def test_clients_cannot_make_memory_grow(small: Server, attack: Any, growth: int) -> None:
    text = SITES.replace("max_body = 1000", "max_body = 100m")
    small.write(text, "frontends = 1\nspool_memory = 64k", "access_log = off")
    small.start()
    (pid,) = small.pids("front end")
    small.raw(head("/a.txt") + head("/echo/"))
    before = resident(pid)
    attack(small)
    assert resident(pid) - before < growth + KEPT_KB
    assert small.raw(head("/a.txt")).endswith(b"0123456789")
