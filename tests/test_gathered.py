"""Bodies that a route gathers: in memory, then in a file without a name, with limits, and what a full disk does."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from serving import ROOT, SERVER_USER, Server, read_all, wait_until

CONFIG = """
[groups]
  [[app]]
  language = python
  application = app.wsgi
  processes = 1
[sites]
  [[site]]
  hosts = *
  max_body = unlimited
  gather = /gather,
    [[[routes]]]
    / = group:app
    /gather = group:app
"""
APPLICATION = """
import hashlib, json, time

def application(environ, start_response):
    digest, size = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(100_000):
        digest.update(piece)
        size += len(piece)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([size, digest.hexdigest(), environ.get("CONTENT_LENGTH")]).encode()]
"""


def prepare(server: Server, lines: str = "spool_limit = 8m", spool: str = "spool") -> Path:
    server.file("app.wsgi", APPLICATION)
    path = server.directory / spool
    path.mkdir(exist_ok=True)
    if ROOT:
        os.chown(path, pwd.getpwnam(SERVER_USER).pw_uid, -1)
    server.write(CONFIG, f"frontends = 1\nspool = {spool}\n{lines}")
    return path


@pytest.fixture
def site(server: Server) -> Server:
    prepare(server)
    return server.start()


def files(server: Server, spool: str = "spool") -> list[str]:
    """Files in the spool directory that the front end holds open; they have no name there."""
    found = []
    for pid in server.pids("front end"):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(link)
            if f"/{spool}/" in target:
                found.append(target)
    return found


def expected(body: bytes, chunked: bool = False) -> str:
    length = "null" if chunked else f'"{len(body)}"'
    return f'[{len(body)}, "{hashlib.sha256(body).hexdigest()}", {length}]'


def chunks(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_of_any_size_and_framing(site: Server) -> None:
    for size in (1, 40_000, 49_153, 65_536, 300_000, 5 << 20):
        body = os.urandom(size)
        assert site.request("POST", "/gather", body).text == expected(body)
        data = b"POST /gather HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert expected(body, chunked=True).encode() in site.raw(data + chunks(body, 70_001))
    wait_until(lambda: not files(site), "a file is still open")
    assert not list((site.directory / "spool").iterdir())


def test_slow_uploads_hold_a_file_and_no_worker(site: Server) -> None:
    body = os.urandom(200_000)
    socks = []
    for _ in range(3):
        sock = socket.create_connection(("127.0.0.1", site.port), 20)
        sock.sendall(
            b"POST /gather HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\nConnection: close\r\n\r\n" + body[:150_000]
        )
        socks.append(sock)
    wait_until(lambda: len(files(site)) == 3, "not every body has a file")
    assert all("(deleted)" in name or "#" in name for name in files(site))
    # The only worker is free.
    assert site.request("POST", "/x", b"abc").status == 200
    socks.pop().close()
    wait_until(lambda: len(files(site)) == 2, "the file of a client that is gone is kept")
    for sock in socks:
        with sock:
            sock.sendall(body[150_000:])
            assert expected(body).encode() in read_all(sock)
    wait_until(lambda: not files(site), "a file is still open")


def test_limit(site: Server) -> None:
    """max_body is unlimited, the disk is not: spool_limit holds for a gathered body, not for a streamed one."""
    site.allow("413")
    with socket.create_connection(("127.0.0.1", site.port), 20) as sock:
        sock.sendall(b"POST /gather HTTP/1.1\r\nHost: x\r\nContent-Length: 8388609\r\nExpect: 100-continue\r\n\r\n")
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 413 ")  # and not one byte was asked for
    body = os.urandom(9 << 20)
    data = b"POST /gather HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(body, 1 << 20)
    with socket.create_connection(("127.0.0.1", site.port), 20) as sock:
        sender = threading.Thread(target=send_all, args=(sock, data))
        sender.start()
        assert read_all(sock).startswith(b"HTTP/1.1 413 ")
        sender.join()
    assert site.request("POST", "/x", body).text == expected(body)
    assert site.logged("larger than spool_limit")
    wait_until(lambda: not files(site), "a file is still open")


def send_all(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
    except OSError:
        pass  # refused in the middle


def test_many_at_once(site: Server) -> None:
    """More arrives in one turn of the front end than is written to files in one."""
    body = os.urandom(700_000)
    failed: list[str] = []

    def upload() -> None:
        answer = site.request("POST", "/gather", body)
        if answer.text != expected(body):
            failed.append(f"{answer.status} {answer.text}")

    threads = [threading.Thread(target=upload) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_who_is_refused_in_the_middle(server: Server) -> None:
    """Most of the body is still to come, so the answer says that the connection ends; nothing else would be honest."""
    prepare(server, "spool_limit = 64k")
    server.allow("413")
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
        sock.sendall(b"POST /gather HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        sock.sendall(b"7a1200\r\n" + b"x" * 200_000)
        answer = sock.recv(65536).lower()
        assert answer.startswith(b"http/1.1 413 ")
        assert b"\r\nconnection: close\r\n" in answer


def test_no_spool_directory(server: Server) -> None:
    """It is streamed then, and the operator is told."""
    spool = prepare(server, "spool_limit = 1g")
    server.allow("spool directory")
    server.start()
    spool.rmdir()
    for body in (os.urandom(1 << 20), os.urandom(300_000)):
        assert server.request("POST", "/gather", body).text == expected(body)
    wait_until(lambda: re.search("spool directory .*: open: No such file or directory", server.log()), "no line")


@pytest.mark.root
def test_a_full_disk(server: Server) -> None:
    """A file system of its own, of 2 MB: the rest of who does not fit is streamed."""
    spool = prepare(server, "spool_limit = 1g")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=777", "tmpfs", spool], check=True)
    try:
        server.allow("spool directory")
        server.start()
        small, large = os.urandom(1 << 20), os.urandom(4 << 20)
        assert server.request("POST", "/gather", small).text == expected(small)
        with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
            data = b"POST /gather HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(large)
            sender = threading.Thread(target=send_all, args=(sock, data + large))
            sender.start()
            assert read_all(sock).endswith(expected(large).encode())
            sender.join()
        assert server.request("POST", "/gather", small).text == expected(small)
        assert server.request("POST", "/x", large).text == expected(large)
        assert server.logged_like("spool directory .*No space left on device")
        server.stop()
    finally:
        subprocess.run(["umount", spool], check=True)
