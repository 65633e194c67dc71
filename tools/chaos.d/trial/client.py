"""One client connection: its own sockets, its own reading of HTTP/1.1, and no second try of anything.

What it says of a request is what it saw: how far it got, and whether every byte was the one that had to come. It knows
nothing of faults; whether something may have happened is the judge's business.
"""

from __future__ import annotations

import hashlib
import re
import socket
import time
from dataclasses import dataclass

from trial.mix import PIECE, Ask, static

PATIENCE = 60.0  # seconds without a byte after which a request counts as lost
RECEIVED = 262144  # bytes that are taken at a time at most
SLOW_BYTES = 65536  # that a slow reader takes at a time
SLOW_PAUSE = 0.02  # seconds between two such
NAMED = re.compile(rb"<p>Request ([0-9a-f]{16})</p>")


class Cut(Exception):
    """The connection ended early; the text says at what."""


class Wrong(Exception):
    """An answer that cannot be this request's."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended for its client. Times are time.time()."""

    ask: Ask
    kind: str  # answered, cut, reset, refused, silent, wrong, vanished
    status: int  # 0: none came
    named: str  # the server's id of the request, where its error page tells it
    detail: str
    port: int  # the client's end of the connection
    opened: float
    sent: float
    ended: float
    checksum: str = ""  # of the body that was sent, or was to be

    @property
    def good(self) -> bool:
        return self.kind == "answered" and 200 <= self.status < 300


class Connection:
    """Opened with the first request, used again while the server keeps it."""

    def __init__(self, port: int, slow: bool = False) -> None:
        self._port = port
        self._slow = slow
        self._sock: socket.socket | None = None
        self._input = b""
        self._got = 0  # bytes of the answer at hand
        self._local = 0
        self._opened = 0.0
        self._body = b""
        self._checksum = ""
        self.used = 0  # requests that were answered on it

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self.used = 0
        self._input = b""

    def ask(self, ask: Ask) -> Outcome:
        """Send one request and read its answer. The connection is closed unless it may be used again."""
        sent = time.time()
        status, named, reused = 0, "", self.used > 0
        self._got = 0
        self._body = ask.body()
        self._checksum = hashlib.sha256(self._body).hexdigest()
        try:
            if self._sock is None:
                self._open()
            sent = time.time()
            self._send(ask)
            if ask.vanish:
                self._vanish(ask)
                return self._outcome(ask, "vanished", 0, "", ask.vanish, sent)
            status, fields = self._head()
            named, keep = self._read(ask, status, fields)
        except ConnectionRefusedError as error:
            return self._outcome(ask, "refused", 0, "", repr(error), sent)
        except TimeoutError:
            return self._outcome(ask, "silent", status, named, f"nothing for {PATIENCE:g} s", sent)
        except Wrong as error:
            return self._outcome(ask, "wrong", status, named, str(error), sent)
        except (Cut, OSError) as error:
            kind = "reset" if reused and self._got == 0 else "cut"
            return self._outcome(ask, kind, status, named, str(error) or repr(error), sent)
        self.used += 1
        outcome = self._outcome(ask, "answered", status, named, "", sent, keep=keep)
        return outcome

    def _outcome(
        self, ask: Ask, kind: str, status: int, named: str, detail: str, sent: float, keep: bool = False
    ) -> Outcome:
        outcome = Outcome(
            ask, kind, status, named, detail, self._local, self._opened, sent, time.time(), self._checksum
        )
        if not keep:
            self.close()
        return outcome

    def _open(self) -> None:
        self._opened = time.time()
        self._sock = socket.socket()
        self._sock.settimeout(PATIENCE)
        if self._slow:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self._local = 0
        self._sock.connect(("127.0.0.1", self._port))
        self._local = self._sock.getsockname()[1]
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # To the server

    def _send(self, ask: Ask) -> None:
        assert self._sock is not None
        head = f"{ask.method} {ask.target} HTTP/1.1\r\nHost: chaos.example\r\n"
        if ask.chunked:
            head += "Transfer-Encoding: chunked\r\n"
        elif ask.upload:
            head += f"Content-Length: {ask.upload}\r\n"
        data = head.encode() + b"\r\n"
        body = self._body
        if ask.vanish == "upload":
            body = body[: len(body) // 2]
        try:
            if len(body) <= 4096 and not ask.chunked:
                self._sock.sendall(data + body)
                return
            self._sock.sendall(data)
            for at in range(0, len(body), PIECE):
                piece = body[at : at + PIECE]
                self._sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if ask.chunked else piece)
            if ask.chunked and not ask.vanish:
                self._sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            # It may have answered before it has read all. If there is no answer, reading it says so.
            if not body:
                raise

    def _vanish(self, ask: Ask) -> None:
        """Go away, at the latest when the answer has begun."""
        assert self._sock is not None
        if ask.vanish == "answer":
            try:
                self._sock.recv(1000)
            except (ConnectionResetError, TimeoutError):
                pass

    # From the server

    def _more(self, what: str) -> None:
        assert self._sock is not None
        data = self._sock.recv(SLOW_BYTES if self._slow else RECEIVED)
        if not data:
            raise Cut(f"end of file in {what}")
        self._got += len(data)
        self._input += data

    def _line(self, end: bytes, what: str) -> bytes:
        while end not in self._input:
            if len(self._input) > 65536:
                raise Wrong(f"no end of {what}")
            self._more(what)
        line, _, self._input = self._input.partition(end)
        return line

    def _head(self) -> tuple[int, dict[str, str]]:
        while True:
            lines = self._line(b"\r\n\r\n", "head").decode("latin-1").split("\r\n")
            match = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", lines[0])
            if match is None:
                raise Wrong(f"not a status line: {lines[0][:100]!r}")
            if int(match[1]) >= 200:
                parted = [line.lower().partition(":") for line in lines[1:]]
                return int(match[1]), {name: value.strip() for name, _, value in parted}

    def _read(self, ask: Ask, status: int, fields: dict[str, str]) -> tuple[str, bool]:
        """The rest of the answer: the server's id where an error page names it, and whether the connection is kept."""
        keep = fields.get("connection") != "close"
        check = _Check(ask, self._checksum) if status == 200 else _Page()
        if fields.get("transfer-encoding") == "chunked":
            self._chunks(check)
        else:
            length = fields.get("content-length")
            if length is None:
                raise Wrong(f"{status} without a length")
            self._some(int(length), check)
        check.end(fields)
        return (check.named() if isinstance(check, _Page) else ""), keep

    def _chunks(self, check: _Check | _Page) -> None:
        while True:
            size = int(self._line(b"\r\n", "chunk size"), 16)
            if size == 0:
                if self._line(b"\r\n", "end"):
                    raise Wrong("trailers that nobody sent")
                return
            self._some(size, check)
            if self._line(b"\r\n", "chunk end"):
                raise Wrong("a chunk is longer than it says")

    def _some(self, size: int, check: _Check | _Page) -> None:
        while size:
            if not self._input:
                if self._slow:
                    time.sleep(SLOW_PAUSE)
                self._more("body")
            part, self._input = self._input[:size], self._input[size:]
            check.take(part)
            size -= len(part)


class _Check:
    """An application's or file's answer, compared as it comes."""

    def __init__(self, ask: Ask, checksum: str) -> None:
        self._ask = ask
        self._checksum = checksum
        self._at = 0
        text = static(ask.target[8:].partition("?")[0]) if not ask.language else ask.answer()
        # Long enough that a piece begins anywhere in its first period.
        self._period = len(text)
        self._text = text * (2 + min(ask.out, RECEIVED) // len(text))

    def take(self, part: bytes) -> None:
        start = self._at % self._period
        if part != self._text[start : start + len(part)]:
            raise Wrong(f"from byte {self._at} on it is not this request's answer: {part[:80]!r}")
        self._at += len(part)

    def end(self, fields: dict[str, str]) -> None:
        ask = self._ask
        if self._at != ask.out:
            raise Wrong(f"{self._at} bytes instead of {ask.out}, and it looks whole")
        if ask.language and fields.get("x-id") != ask.id.lower():
            raise Wrong(f"the answer to {fields.get('x-id')}")
        if ask.language and fields.get("x-sum") != self._checksum:
            raise Wrong("the application read another body")


class _Page:
    """The server's own page."""

    def __init__(self) -> None:
        self._data = b""

    def take(self, part: bytes) -> None:
        self._data = (self._data + part)[:4096]

    def end(self, fields: dict[str, str]) -> None:
        pass

    def named(self) -> str:
        found = NAMED.search(self._data)
        return found[1].decode() if found else ""
