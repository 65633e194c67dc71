"""A worker that has been taken over, as a program: run with the group's user by tests/test_hostile.py.

Its argument is one JSON object; "do" names what it does. It says "done" on standard output when that is done, or when
it goes on until its standard input ends. Offsets and numbers are those of wire.h. Imports nothing of the server.
"""

from __future__ import annotations

import json
import random
import select
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

import zmq

VERSION, MAGIC = 3, 0x57534831
REQUEST, BODY, CREDIT, PROBE, CLOSED = 1, 2, 3, 5, 6
HELLO, RESPONSE, INFORM, VERDICT, ALIVE, LEAVING, GOODBYE, ABORT = range(16, 24)
LAST, GIVEN_BACK, UPGRADE, SHUT = 1, 4, 32, 128
SLOT, KEEPER = b"S", b"K"
HEAD = struct.Struct("=IIQIHH")
TEXTS = 72  # offset of struct wire_request.text


def identity(role: bytes, generation: int, worker: int, slot: int = 0, version: int = VERSION) -> bytes:
    return struct.pack("=cBHIQ", role, version, slot, generation, worker)


def frame(kind: int, payload: bytes = b"", serial: int = 0, request: int = 0, slot: int = 0, flags: int = 0) -> bytes:
    return HEAD.pack(kind, HEAD.size + len(payload), serial, request, slot, flags) + payload


def hello(slot: int = 0, version: int = VERSION, magic: int = MAGIC) -> bytes:
    return frame(HELLO, struct.pack("=IIII", magic, version, 1, 1), slot=slot)


def response(serial: int, request: int, body: bytes, **more: Any) -> bytes:
    """With one field, which `more` may spoil: name, value, name_at."""
    name, value = more.get("name", b"X-Evil"), more.get("value", b"yes")
    texts = 56 + 16
    payload = struct.pack("=QHHI", (1 << 64) - 1, more.get("status", 200), more.get("count", 1), 56)
    payload += struct.pack("=IIII", 0, 0, more.get("body_at", texts + len(name) + len(value)), len(body))
    payload += struct.pack("=IHHII", more.get("name_at", texts), len(name), 0, texts + len(name), len(value))
    return frame(RESPONSE, payload + name + value + body, serial, request, flags=more.get("flags", LAST))


def body(serial: int, request: int, offset: int, data: bytes, flags: int = 0, trailer: bytes = b"") -> bytes:
    """A piece; with one trailer of this name."""
    at = 24 + 24 + len(trailer and bytes(16))
    fields = struct.pack("=IHHII", at, len(trailer), 0, at, 1) if trailer else b""
    payload = struct.pack("=QIIIHH", offset, at + len(trailer), len(data), 48, 1 if trailer else 0, 0)
    return frame(BODY, payload + fields + trailer + data, serial, request, flags=flags)


class Peer:
    """One connection of the channel, with an identity of its own choosing."""

    def __init__(self, context: Any, path: str, name: bytes) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.ROUTING_ID, name)
        self.socket.setsockopt(zmq.LINGER, 2000)
        self.socket.connect(f"ipc://{path}")

    def say(self, *frames: bytes) -> None:
        for one in frames:
            self.socket.send(one)


def strangers(order: dict[str, Any]) -> None:
    """Each is wrong in one thing, or says what it should not."""
    generation, worker = order["generation"], order["worker"]
    noise = random.Random(order["seed"])
    peers = [
        (identity(SLOT, generation, worker, version=1), [hello(version=1)]),
        (identity(SLOT, generation, 9001), [hello(version=1)]),
        (identity(SLOT, generation, 9002), [hello(magic=1)]),
        (identity(SLOT, generation + 1, worker), [hello()]),
        (identity(b"X", generation, worker), [hello()]),
        (identity(SLOT, generation, worker, slot=7), [hello(slot=7)]),
        (identity(KEEPER, generation, worker, slot=1), [hello()]),
        (identity(SLOT, generation, 9003), [frame(ALIVE), response(1 << 40 | 1, 0, b"WRONG")]),
        (b"short", [hello()]),
        (b"n" * 200, [hello()]),
        # Taken already: whoever has it keeps it.
        (identity(SLOT, generation, worker), [hello(), frame(ALIVE), response(1 << 40 | 1, 0, b"WRONG")]),
        (identity(SLOT, generation, 9004), [noise.randbytes(size) for size in range(1, 40, 3)]),
    ]
    for name, frames in peers:
        # One after another: how many there may be at one time is another test's.
        with zmq.Context() as context:
            peer = Peer(context, order["path"], name)
            peer.say(*frames)
            peer.socket.close()
    print("done", flush=True)


def raw(order: dict[str, Any]) -> None:
    """Connections that do not speak ZMTP, or not to its end."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 1000, greeting[:20], greeting + b"\x04\xff" + b"\xff" * 7, b""):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(order["path"])
            try:
                sock.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass
    print("done", flush=True)


def large(order: dict[str, Any]) -> None:
    """Frames as large as may be, and larger: the connection is cut."""
    context = zmq.Context()
    peer = Peer(context, order["path"], identity(SLOT, order["generation"], order["worker"] + 1000))
    monitor = peer.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    peer.say(hello(), frame(RESPONSE, bytes(1048576 - HEAD.size)), frame(RESPONSE, bytes(1048576)))
    cut = monitor.poll(10000)
    peer.socket.disable_monitor()
    monitor.close()
    context.destroy(0)
    print("done" if cut else "not cut", flush=True)


def many(order: dict[str, Any]) -> None:
    """More connections than the generation can need, held open."""
    held = []
    for _ in range(order["count"]):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(order["path"])
        except OSError:
            sock.close()
            break
        held.append(sock)
    print("done", flush=True)
    sys.stdin.read()
    for sock in held:
        sock.close()


class Liar:
    """Has a slot and its keeper's connection, gets requests, and answers them as no honest worker would."""

    def __init__(self, order: dict[str, Any]) -> None:
        context = zmq.Context()
        generation, worker = order["generation"], order["worker"]
        self.random = random.Random(order["seed"])
        self.slot = Peer(context, order["path"], identity(SLOT, generation, worker))
        self.keeper = Peer(context, order["path"], identity(KEEPER, generation, worker))
        self.keeper.say(hello())
        self.slot.say(hello())
        self.context = context
        self.seen: list[tuple[int, int]] = []

    def run(self) -> None:
        print("done", flush=True)
        poller = zmq.Poller()
        for peer in (self.slot, self.keeper):
            poller.register(peer.socket, zmq.POLLIN)
        poller.register(sys.stdin, zmq.POLLIN)
        while not select.select([sys.stdin], [], [], 0)[0]:
            for ready, _ in poller.poll(1000):
                if ready is self.slot.socket:
                    self.take(ready.recv())
                elif ready is self.keeper.socket:
                    ready.recv()
        self.context.destroy(0)

    def take(self, message: bytes) -> None:
        kind, _, serial, request, _, flags = HEAD.unpack_from(message)
        if kind == PROBE:
            self.slot.say(frame(ALIVE))
        if kind != REQUEST:
            return
        at, size = struct.unpack_from("=II", message, TEXTS + 8 * 2)
        if flags & UPGRADE:
            self.tunnel(serial, request)
            return
        lies = [name for name in dir(self) if name.startswith("lie_")]
        lie: Callable[[int, int], None] = getattr(self, self.random.choice(lies))
        lie(serial, request)
        # Then the truth, so that the request has its end if the lie was not believed.
        self.slot.say(response(serial, request, b"evil:" + message[at : at + size]))
        self.seen.append((serial, request))

    def lie_other_serial(self, serial: int, request: int) -> None:
        self.slot.say(response(serial + 1, request, b"WRONG"), response(serial ^ 1 << 41, request, b"WRONG"))

    def lie_other_request(self, serial: int, request: int) -> None:
        self.slot.say(*(response(serial, other, b"WRONG") for other in (request + 1, request ^ 3, 0xFFFFFFFF)))

    def lie_again(self, serial: int, request: int) -> None:
        self.slot.say(*(response(*one, b"WRONG") for one in self.seen[-3:]))

    def lie_noise(self, serial: int, request: int) -> None:
        for size in (1, 23, 24, 25, 100, 5000):
            self.slot.say(self.random.randbytes(size))

    def lie_kinds(self, serial: int, request: int) -> None:
        for kind in (0, REQUEST, PROBE, CLOSED, VERDICT, HELLO, 24, 0xFFFFFFFF):
            self.slot.say(frame(kind, b"WRONG" * 8, serial, request))

    def lie_fields(self, serial: int, request: int) -> None:
        spoiled: list[dict[str, Any]] = [
            {"name_at": 0xFFFFFFF0},
            {"count": 65535},
            {"body_at": 1 << 30},
            {"status": 99},
            {"name": b"X Y"},
            {"value": b"a\r\nContent-Length: 5\r\n\r\nWRONG"},
        ]
        self.slot.say(response(serial, request, b"WRONG", **self.random.choice(spoiled)))

    def tunnel(self, serial: int, request: int) -> None:
        """What was asked for, and then what no tunnel has."""
        self.slot.say(
            response(serial, request, b"", status=101, name=b"Upgrade", value=b"chat", flags=UPGRADE),
            body(serial, request, 0, b"good"),
        )
        lies = [
            [body(serial, request, 4 + 200_000 * i, b"x" * 200_000) for i in range(10)],
            [body(serial, request, 4, b"", SHUT), body(serial, request, 4, b"WRONG")],
            [body(serial, request, 4, b"", SHUT), body(serial, request, 4, b"", SHUT)],
            [body(serial, request, 4, b"", SHUT | LAST)],
            [body(serial, request, 4, b"", LAST, b"X-A")],
            [body(serial, request, 5, b"WRONG")],
            [response(serial, request, b"WRONG")],
            [response(serial, request, b"WRONG", status=101, name=b"Upgrade", value=b"chat", flags=UPGRADE)],
            [body(serial, request, 4, b"", LAST), body(serial, request, 4, b"WRONG")],
        ]
        self.slot.say(*self.random.choice(lies))
        self.slot.say(frame(ABORT, b"", serial, request))

    def lie_upgrade(self, serial: int, request: int) -> None:
        """101 that nobody asked for."""
        for flags in (UPGRADE, 0, UPGRADE | LAST):
            self.slot.say(response(serial, request, b"", status=101, name=b"Upgrade", value=b"chat", flags=flags))

    def lie_trailers(self, serial: int, request: int) -> None:
        """Trailers that frame or route, or that stand where none can be."""
        name = self.random.choice([b"Content-Length", b"Transfer-Encoding", b"Host", b"Set-Cookie", b"X Y", b"X-Early"])
        flags = 0 if name == b"X-Early" else LAST
        self.slot.say(response(serial, request, b"part", flags=0), body(serial, request, 4, b"", flags, name))

    def lie_after_end(self, serial: int, request: int) -> None:
        for one in self.seen[-3:]:
            self.slot.say(body(*one, 0, b"WRONG"), body(*one, 100, b"WRONG", LAST), body(*one, 5, b"", SHUT))

    def lie_shut(self, serial: int, request: int) -> None:
        """An end of one side, where there is no tunnel."""
        self.slot.say(response(serial, request, b"part", flags=0), body(serial, request, 4, b"", SHUT))

    def lie_body_first(self, serial: int, request: int) -> None:
        self.slot.say(frame(BODY, struct.pack("=QIIIHH", 0, 48, 5, 0, 0, 0) + b"WRONG", serial, request))

    def lie_credit(self, serial: int, request: int) -> None:
        self.slot.say(*(frame(CREDIT, struct.pack("=Q", limit), serial, request) for limit in (1 << 63, 0, 5)))

    def lie_slot(self, serial: int, request: int) -> None:
        self.slot.say(*(frame(kind, slot=slot) for slot in (1, 255, 65535) for kind in (LEAVING, GOODBYE, ALIVE)))

    def lie_verdict(self, serial: int, request: int) -> None:
        self.keeper.say(frame(VERDICT, b"", serial, request, flags=GIVEN_BACK))
        self.keeper.say(response(serial, request, b"WRONG"))

    def lie_parts(self, serial: int, request: int) -> None:
        self.slot.socket.send_multipart([response(serial, request, b"WRONG"), b"", b"more"])


def main() -> None:
    order = json.loads(sys.argv[1])
    deeds: dict[str, Callable[[dict[str, Any]], None]] = {
        "strangers": strangers,
        "raw": raw,
        "large": large,
        "many": many,
        "lie": lambda order: Liar(order).run(),
    }
    deeds[order["do"]](order)


if __name__ == "__main__":
    main()
