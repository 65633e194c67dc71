"""A WebSocket client by hand, RFC 6455: it can say what no honest client would."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct

from serving import Server

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(opcode: int, data: bytes = b"", final: bool = True, mask: bytes | None = None, reserved: int = 0) -> bytes:
    """A frame as a client sends it. `mask`: b"" for none."""
    if mask is None:
        mask = os.urandom(4)
    head = bytes([(0x80 if final else 0) | reserved | opcode])
    bit = 0x80 if mask else 0
    if len(data) < 126:
        head += bytes([bit | len(data)])
    elif len(data) < 65536:
        head += struct.pack("!BH", bit | 126, len(data))
    else:
        head += struct.pack("!BQ", bit | 127, len(data))
    return head + mask + (masked(data, mask) if mask else data)


def masked(data: bytes, mask: bytes) -> bytes:
    whole = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(whole, "big")).to_bytes(len(data), "big")


class WebSocket:
    def __init__(self, server: Server, path: str, *fields: str, accepted: bool = True) -> None:
        self.sock = server.connect()
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", "Host: h", "Connection: Upgrade", "Upgrade: websocket"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *fields]
        self.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        self.data = b""
        self.head = b""
        while b"\r\n\r\n" not in self.data:
            if not self._more():
                break
        self.head, _, self.data = self.data.partition(b"\r\n\r\n")
        guid = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        if accepted:
            assert self.head.startswith(b"HTTP/1.1 101 "), self.head
            assert self.field("Sec-WebSocket-Accept") == base64.b64encode(hashlib.sha1(guid.encode()).digest()).decode()
            assert self.field("Upgrade") == "websocket"

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def field(self, name: str) -> str | None:
        for line in self.head.decode().split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key.lower() == name.lower():
                return value
        return None

    def _more(self) -> bool:
        piece = self.sock.recv(65536)
        self.data += piece
        return bool(piece)

    def _take(self, size: int) -> bytes:
        while len(self.data) < size:
            if not self._more():
                raise EOFError
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def say(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def hear(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload. It is whole, and not masked."""
        first, second = self._take(2)
        assert first & 0x70 == 0
        assert not second & 0x80
        assert first & 0x80
        size = second
        if second == 126:
            (size,) = struct.unpack("!H", self._take(2))
            assert size > 125
        elif second == 127:
            (size,) = struct.unpack("!Q", self._take(8))
            assert size > 65535
        return first & 15, self._take(size)

    def closed(self) -> tuple[int, str]:
        """The close frame that comes, and then the end of the connection. 0: it had no code."""
        opcode, data = self.hear()
        assert opcode == CLOSE, (opcode, data)
        self.end()
        return (struct.unpack("!H", data[:2])[0], data[2:].decode()) if data else (0, "")

    def end(self) -> None:
        """Nothing more comes."""
        try:
            while self._more():
                pass
        except ConnectionResetError:
            pass
        assert self.data == b"", self.data

    def close(self, code: int = 1000, reason: str = "") -> tuple[int, str]:
        self.say(frame(CLOSE, struct.pack("!H", code) + reason.encode()))
        return self.closed()

    def close_answered(self) -> tuple[int, str]:
        """The close frame that comes, which is answered."""
        opcode, data = self.hear()
        assert opcode == CLOSE, (opcode, data)
        self.say(frame(CLOSE, data[:2]))
        self.end()
        return struct.unpack("!H", data[:2])[0], data[2:].decode()

    def drop(self) -> None:
        """As a client that loses its network: no close frame, and a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
