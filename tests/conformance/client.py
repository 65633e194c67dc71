"""An HTTP/1.1 client that looks at every byte: interim answers, framing, trailers, and how a connection ends."""

from __future__ import annotations

import select
import socket
from dataclasses import dataclass, field


class Cut(Exception):
    """The connection ended before the answer was whole; `got` is the body so far."""

    def __init__(self, got: bytes) -> None:
        super().__init__(f"the connection was cut after {len(got)} bytes of the body")
        self.got = got


@dataclass
class Head:
    status: int
    reason: str
    fields: list[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def field(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    def words(self, name: str) -> list[str]:
        return [word.strip().lower() for value in self.all(name) for word in value.split(",")]


@dataclass
class Answer(Head):
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[Head] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.body.decode("latin-1")


class Connection:
    """One connection; requests follow each other on it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reset = False  # the other side has ended the connection by a reset
        self._data = b""
        self._method = "GET"

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *unused: object) -> None:
        self.sock.close()

    # ---- sending

    def head(self, method: str, target: str, *fields: str, version: str = "1.1") -> None:
        """A request's head; each of `fields` is a line."""
        self.sock.sendall(self._head(method, target, fields, version))

    def _head(self, method: str, target: str, fields: tuple[str, ...], version: str) -> bytes:
        lines = [f"{method} {target} HTTP/{version}", "Host: conformance", *fields, "", ""]
        self._method = method
        return "\r\n".join(lines).encode("latin-1")

    def request(self, method: str, target: str, body: bytes | None = None, *fields: str) -> None:
        if body is not None:
            fields = (*fields, f"Content-Length: {len(body)}")
        self.sock.sendall(self._head(method, target, fields, "1.1") + (body or b""))

    # ---- receiving

    def _more(self) -> bool:
        try:
            piece = self.sock.recv(262144)
        except ConnectionResetError:
            self.reset = True
            return False
        self._data += piece
        return bool(piece)

    def _take(self, size: int) -> bytes:
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def line(self) -> bytes:
        while b"\r\n" not in self._data:
            if not self._more():
                raise Cut(b"")
        return self._take(self._data.index(b"\r\n") + 2)[:-2]

    def quiet(self, seconds: float = 0.03) -> bool:
        """Nothing has come, and for a moment nothing comes."""
        return not self._data and not select.select([self.sock], [], [], seconds)[0]

    def ended(self) -> bool:
        """The other side has closed, and nothing is left to read."""
        return not self._data and not self._more()

    def usable_or_closed(self) -> None:
        """A next request is answered, or the connection ends in order. A reset could have taken the last answer along."""
        try:
            self.head("GET", "/hello")
            assert self.answer().body == b"hello, world"
        except (BrokenPipeError, Cut):
            assert not self.reset, "the connection was reset"

    def next_head(self) -> Head:
        """A final or interim answer's head."""
        version, _, rest = self.line().decode("latin-1").partition(" ")
        assert version == "HTTP/1.1", f"found {version!r}, expected the beginning of an answer"
        status, _, reason = rest.partition(" ")
        return Head(int(status), reason, self._fields())

    def _fields(self) -> list[tuple[str, str]]:
        found = []
        while text := self.line().decode("latin-1"):
            name, colon, value = text.partition(":")
            assert colon, f"found {text!r}, expected a field"
            found.append((name, value.strip(" \t")))
        return found

    def answer(self) -> Answer:
        """The next answer, whole. Raises Cut."""
        interim = []
        while (head := self.next_head()).status < 200 and head.status != 101:
            interim.append(head)
        answer = Answer(head.status, head.reason, head.fields, interim=interim)
        if head.status != 101:
            self._body(answer)
        return answer

    def _body(self, answer: Answer) -> None:
        lengths = answer.all("Content-Length")
        assert len(lengths) < 2, "two Content-Length fields"
        if self._method == "HEAD" or answer.status in (204, 304):
            return
        if answer.words("Transfer-Encoding") == ["chunked"]:
            assert not lengths, "Content-Length and Transfer-Encoding together"
            parts = []
            try:
                while (part := self.chunk()) is not None:
                    parts.append(part)
                answer.trailers = self._fields()
            except Cut as cut:
                raise Cut(b"".join(parts) + cut.got) from None
            answer.body = b"".join(parts)
        elif lengths:
            answer.body = self.exactly(int(lengths[0]))
        else:
            assert "close" in answer.words("Connection"), "neither a length nor the end of the connection ends the body"
            while self._more():
                pass
            answer.body = self._take(len(self._data))

    def exactly(self, size: int) -> bytes:
        parts = [self._take(size)]
        size -= len(parts[0])
        while size:
            if not self._more():
                raise Cut(b"".join(parts))
            parts.append(self._take(size))
            size -= len(parts[-1])
        return b"".join(parts)

    def chunk(self) -> bytes | None:
        """One chunk; None: the last one."""
        size = int(self.line().partition(b";")[0], 16)
        if size == 0:
            return None
        data = self.exactly(size)
        assert self.exactly(2) == b"\r\n"
        return data

    def next_trailers(self) -> list[tuple[str, str]]:
        """The end of a chunked body."""
        assert self.chunk() is None
        return self._fields()

    def lines(self, count: int) -> list[str]:
        """The first lines of a chunked body, as many as asked for."""
        data = b""
        while data.count(b"\n") < count:
            part = self.chunk()
            if part is None:
                raise Cut(data)
            data += part
        return data.decode("latin-1").splitlines()
