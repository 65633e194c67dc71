"""Clients of tunnels, by hand: what tests of Upgrade and of connections that are taken over have in common."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from pathlib import Path

from serving import SANITIZE_FLAGS, TREE, Server

CONFIG = """
[groups]
  [[echo]]
  language = echo
  processes = 2
  threads = 2
  {more}
  [[hand]]
  language = echo
  plugin = {plugin}
  processes = 1
  threads = 4
  {hand}
[sites]
  [[all]]
  hosts = *
  root = public
  gather = /gather/,
    [[[routes]]]
    / = files
    /echo/ = group:echo
    /gather/ = group:echo
    /hand/ = group:hand
"""


def build_plugin(directory: Path, name: str = "byhand") -> Path:
    """A plugin of tests/plugins, built with nothing but the public header."""
    target = directory / f"{name}.so"
    command = ["cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-fvisibility=hidden", "-shared", "-fPIC"]
    source = TREE / f"tests/plugins/{name}.c"
    include = f"-I{TREE / 'langplugins/include'}"
    flags = [*SANITIZE_FLAGS, *shlex.split(os.environ.get("CFLAGS", ""))]
    subprocess.run([*command, *flags, include, str(source), "-o", str(target), "-pthread"], check=True)
    target.chmod(0o644)
    return target


def write(server: Server, lines: str = "", more: str = "", hand: str = "") -> None:
    """`lines` for [server], `more` and `hand` for the two groups."""
    server.file("public/index.html", "static")
    server.write(CONFIG.format(plugin=build_plugin(server.directory), more=more, hand=hand), lines)


def upgrade(path: str, *fields: str, protocol: str = "chat", method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: a", "Connection: Upgrade", f"Upgrade: {protocol}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class Tunnel:
    """A client's end. `head` is the answer's, with what follows it in `early`."""

    def __init__(self, server: Server, path: str, *fields: str, protocol: str = "chat", early: bytes = b"") -> None:
        self.sock = server.connect()
        try:
            self.sock.sendall(upgrade(path, *fields, protocol=protocol) + early)
            self.head, self.early = read_head(self.sock)
        except BaseException:
            self.sock.close()
            raise

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    def say(self, data: bytes) -> None:
        self.sock.sendall(data)

    def hear(self, size: int) -> bytes:
        """Just so many bytes."""
        data, self.early = self.early[:size], self.early[size:]
        while len(data) < size:
            piece = self.sock.recv(min(65536, size - len(data)))
            assert piece, f"it ended after {len(data)} bytes"
            data += piece
        return data

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def rest(self) -> bytes:
        """To the server's end."""
        data, self.early = self.early, b""
        while piece := self.sock.recv(65536):
            data += piece
        return data

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def tunnels(server: Server) -> int:
    """As the workers' pages say."""
    return sum(group["tunnels"] for group in server.status()["groups"])
