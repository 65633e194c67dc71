"""Large answers to clients of every speed: whole, in order, unchanged, whatever is kept in memory, a file or a socket."""

from __future__ import annotations

import hashlib
import socket
import threading
import time

from serving import Server

SIZE = 24 * 1024 * 1024  # spooled, and beyond the size of a hole (engine/spool.c) several times
CLIENTS = 9
# No two kilobytes are alike, so that a piece out of place is as wrong as one of zeros.
APPLICATION = f"""
PIECE = 65536

def piece(at):
    return b"".join(b"%016d" % (at + i * 16) for i in range(PIECE // 16))

PIECES = [piece(at) for at in range(0, {SIZE}, PIECE)]

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", "{SIZE}")])
    return iter(PIECES)
"""


def expected() -> str:
    digest = hashlib.sha256()
    for at in range(0, SIZE, 16):
        digest.update(b"%016d" % at)
    return digest.hexdigest()


def download(server: Server, number: int, digests: list[str]) -> None:
    """Every third client is slower than the worker from beginning to end, every third only at first."""
    digest, left = hashlib.sha256(), SIZE
    with socket.create_connection(("127.0.0.1", server.port), 30) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1)
        assert head.startswith(b"HTTP/1.1 200"), head
        if number % 3 == 1:
            time.sleep(0.5)  # what a slow client is made of, not a wait for something
        while left > 0:
            data = sock.recv(262144 if number % 3 else 131072)
            if not data:
                break
            digest.update(data)
            left -= len(data)
            if number % 3 == 0:
                time.sleep(0.002)
    digests[number] = digest.hexdigest() if left == 0 else f"{left} bytes are missing"


def test_large_answers_are_what_the_application_wrote(server: Server) -> None:
    server.file("app.wsgi", APPLICATION)
    server.write(
        "[groups]\n  [[app]]\n  language = python\n  application = app.wsgi\n  processes = 2\n"
        "[sites]\n  [[all]]\n  hosts = *\n    [[[routes]]]\n    / = group:app\n"
    )
    server.start()
    right = expected()
    for _ in range(3):
        digests = [""] * CLIENTS
        threads = [threading.Thread(target=download, args=(server, n, digests)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert digests == [right] * CLIENTS
