"""A site with small limits and a log in JSON, and how its requests and its log are written and read."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
from typing import Any

from serving import ROOT, Server, wait_until

HOST = b"Host: example.org\r\n"
END = b"Connection: close\r\n\r\n"
WSGI = '''
import time

def application(environ, start_response):
    """Says how long the body is; or 8 MB at once and then a little ten times a second."""
    if environ["PATH_INFO"] == "/drip":
        start_response("200 OK", [])
        return drip()
    body = b"%d" % len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

def drip():
    yield b"x" * (8 << 20)
    for _ in range(100):
        time.sleep(0.1)
        yield b"y" * 100
'''
SITES = """
[groups]
  [[echo]]
  language = echo
  processes = 1
  [[python]]
  language = python
  application = app.wsgi
  processes = 1
[sites]
  [[one]]
  hosts = example.org, 127.0.0.1
  root = public
  max_body = 1000
    [[[routes]]]
    / = files
    /echo = group:echo
    /python = group:python
    /closed = =403
  [[bare]]
  hosts = bare.example.org,
    [[[routes]]]
    /echo = group:echo
"""
JSON_LOG = "access_log = logs/access.log\naccess_format = json"


def head(target: str, *fields: str, method: str = "GET", version: str = "1.1", end: bytes = END) -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: example.org", *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n" + end


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def records(server: Server, count: int) -> list[dict[str, Any]]:
    """The access log's records, once there are so many: they are written a second later."""

    def written() -> list[str]:
        lines = server.access_log.read_text().splitlines() if server.access_log.exists() else []
        return lines if len(lines) >= count else []

    lines = wait_until(written, f"{count} records in the access log")
    assert len(lines) == count
    return [json.loads(line) for line in lines]


def causes(server: Server, request: str) -> list[str]:
    """What front ends say of one request. (A worker may report a mistake of its application besides.)"""
    return re.findall(rf"\] front end \d+ \d+ .*request={request}: (.*)", server.log())


def prepare(server: Server) -> Server:
    """Small limits, a log in JSON, not started yet."""
    server.file("app.wsgi", WSGI)
    server.file("public/a.txt", "0123456789")
    server.file("public/big.bin", bytes(range(256)) * 16384)
    server.write(SITES, "frontends = 1\nmax_head = 4k\nmax_line = 1k\nmax_fields = 10", JSON_LOG)
    return server


def special_files(server: Server) -> None:
    public = server.directory / "public"
    os.mkfifo(public / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(public / "sock"))
    server.file("public/.env", "secret")
    (public / "empty").mkdir(mode=0o755)
    os.chmod(public / "empty", 0o755)
    (public / "loop").symlink_to("loop")
    (public / "dangling").symlink_to("nothing")
    server.file("public/unreadable", "secret").chmod(0)
    server.file("public/shut/inside", "secret")
    (public / "shut").chmod(0)
    if ROOT:
        os.mknod(public / "device", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
        os.chown(server.file("public/others", "x"), 65534, 65534)
        (public / "foreign").symlink_to("others")
