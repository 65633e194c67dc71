"""A client that sends what it is told to and reads answers strictly; and http_server.py as a process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass
class Answer:
    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def field(self, name: str) -> str | None:
        values = [value for key, value in self.fields if key.lower() == name]
        assert len(values) < 2, f"{name} twice"
        return values[0] if values else None


class Stream:
    """One connection. What the server sends behind an answer stays in `kept` until it is asked for."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.kept = b""
        self.ended = False
        self.interim: list[int] = []

    def send(self, data: bytes) -> None:
        # A server that refuses may have closed before all is sent; its answer is what counts.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(data)

    def send_pieces(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self.send(piece)

    def more(self) -> bool:
        data = self.sock.recv(65536)
        self.kept += data
        return bool(data)

    def line(self) -> str | None:
        while b"\r\n" not in self.kept:
            if not self.more():
                assert self.kept == b"", f"cut off in a head: {self.kept!r}"
                return None
        line, _, self.kept = self.kept.partition(b"\r\n")
        assert b"\n" not in line
        return line.decode("latin-1")

    def exactly(self, size: int) -> bytes:
        pieces, self.kept = [self.kept[:size]], self.kept[size:]
        left = size - len(pieces[0])
        while left > 0:
            data = self.sock.recv(min(left, 1 << 20))
            if not data:
                raise EOFError(f"{size - left} of {size} bytes of a body")
            pieces.append(data)
            left -= len(data)
        return b"".join(pieces)

    def chunk(self) -> bytes:
        """The next chunk; b"" is the last."""
        line = self.line()
        if line is None:
            raise EOFError("in a chunked body")
        data = self.exactly(int(line, 16))
        assert self.exactly(2) == b"\r\n"
        return data

    def chunks(self) -> bytes:
        body = []
        while data := self.chunk():
            body.append(data)
        return b"".join(body)

    def head(self) -> tuple[int, list[tuple[str, str]]] | None:
        first = self.line()
        if first is None:
            return None
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        fields = []
        while line := self.line():
            name, _, value = line.partition(": ")
            fields.append((name, value))
        return int(status), fields

    def answer(self, head: bool = False) -> Answer | None:
        """The next final answer; None: the connection ended before one. EOFError: in the middle of it."""
        while True:
            begun = self.head()
            if begun is None:
                return None
            if begun[0] >= 200:
                break
            self.interim.append(begun[0])
        result = Answer(*begun, b"")
        length, coding = result.field("content-length"), result.field("transfer-encoding")
        assert length is None or coding is None
        if head or result.status in (204, 304):
            return result
        if coding is not None:
            assert coding == "chunked"
            result.body = self.chunks()
        elif length is not None:
            result.body = self.exactly(int(length))
        else:
            result.body = self.rest()
        return result

    def rest(self) -> bytes:
        """Everything until the server closes. An orderly end only: a reset is an error."""
        pieces, self.kept = [self.kept], b""
        while data := self.sock.recv(1 << 20):
            pieces.append(data)
        return b"".join(pieces)


def start(limits: dict[str, Any]) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, HERE / "http_server.py", json.dumps(limits)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE.parent.parent,
        env={"PYTHONPATH": str(HERE.parent.parent)} | os.environ,
    )
    assert process.stdout is not None
    port = process.stdout.readline()
    if not port:
        stop(process)
    assert port, "http_server.py did not start"
    return process, int(port)


def stop(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    assert process.wait(20) == 0
