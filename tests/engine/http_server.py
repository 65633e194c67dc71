"""The engine alone, behind a socket, with a few green handlers: what the tests of HTTP speak to.

Run as a program: `http_server.py OPTIONS`, JSON on the command line: limits of the engine, times in seconds;
"descriptors": RLIMIT_NOFILE; "unix": a path to listen on as well. Prints its port; drains when it reads a line; ends
when its standard input does.
The engine is driven as the front end drives it, from one readable descriptor, but by an epoll set instead of a hub.

    any path    reads the body, says "METHOD PATH QUERY HOST BODY-SIZE", and " seen" if it sees a field it must not
    /ignore     answers without reading the body
    /hang       never answers; /closed says how many of these were cut off
    /stream     10 MB without a length, as fast as they are taken; /stream-length with one
    /short      fewer bytes than declared; /long more; /abort gives up in the middle; /abort-before before the answer
    /read-late  answers, then reads the body
    /hints      20,000 interim answers of 200 bytes at once, then an answer
"""

from __future__ import annotations

import json
import resource
import select
import socket
import sys
from collections.abc import Generator
from typing import Any

from webserver.engine._engine import ffi, lib

MIB = 1 << 20
HIDDEN = ("X-Seen", "X_Seen", "Proxy")
Handler = Generator[int, None, None]


class Program:
    """One engine, its handlers that wait (by token), and what they wait for."""

    def __init__(self, options: dict[str, Any]) -> None:
        limits = {
            "head_timeout_ns": 20, "body_timeout_ns": 20, "idle_timeout_ns": 20, "send_timeout_ns": 20,
            "connections": 1000, "max_head": 16384, "max_line": 8191, "max_fields": 100, "decisions": 100, "files": 10,
            "spool_memory": MIB, "spool_limit": MIB, "gather": 65536,
        } | options  # fmt: skip
        self.server_name = ffi.new("char[]", b"test")
        self.spool = ffi.new("char[]", b"/tmp")
        settings = ffi.new("struct engine_options *")
        settings.access_fd = -1
        settings.frontends = settings.incarnation = 1
        settings.server = self.server_name
        settings.spool_directory = self.spool
        for name, value in limits.items():
            setattr(settings.limits, name, int(value * 1e9) if name.endswith("_ns") else value)
        message = ffi.new("char[]", 200)
        self.engine = lib.engine_new(settings, message, 200)
        if self.engine == ffi.NULL:
            raise SystemExit(ffi.string(message).decode())
        lib.engine_site(self.engine, 1, b"site", b"/nonexistent", 100_000)
        self.waiting: dict[int, tuple[Handler, int]] = {}
        self.closed = 0
        self.buffer = ffi.new("char[]", 65536)

    def text(self, token: int, which: int) -> bytes:
        text = lib.engine_request(self.engine, token, which)
        return bytes(ffi.buffer(text.data, text.size))

    def field(self, token: int, name: str) -> bytes:
        text = lib.engine_request_field(self.engine, token, name.encode())
        return bytes(ffi.buffer(text.data, text.size))

    def decide(self, token: int) -> None:
        choice = ffi.new("struct engine_choice *", {"kind": lib.CHOICE_GREEN, "target": 1})
        decision = ffi.new("struct engine_decision *")
        decision.site = 1
        decision.scope = lib.SCOPE_EXACT
        decision.choices = choice
        decision.choice_count = 1
        lib.engine_decide(self.engine, token, decision)

    def respond(self, token: int, status: int, length: int, kind: bytes = b"text/plain") -> None:
        name, value = ffi.new("char[]", b"Content-Type"), ffi.new("char[]", kind)
        field = ffi.new("struct engine_field *")
        field.name.data, field.name.size, field.value.data, field.value.size = name, 12, value, len(kind)
        lib.engine_respond(self.engine, token, status, field, 1, length)

    def write(self, token: int, data: bytes) -> Handler:
        while (result := lib.engine_write(self.engine, token, data, len(data))) == lib.ENGINE_FULL:
            yield lib.EVENT_WRITABLE
        if result != lib.ENGINE_OK:
            raise BrokenPipeError

    def read(self, token: int) -> Generator[int, None, int]:
        total = 0
        while (got := lib.engine_read(self.engine, token, self.buffer, 65536)) != 0:
            if got == lib.ENGINE_FULL:
                yield lib.EVENT_BODY
            elif got < 0:
                raise BrokenPipeError
            else:
                total += got
        return total

    def say(self, token: int, text: bytes) -> Handler:
        self.respond(token, 200, len(text))
        yield from self.write(token, text)
        lib.engine_finish(self.engine, token)

    def handle(self, token: int) -> Handler:
        path = self.text(token, lib.REQUEST_PATH)
        if path == b"/ignore":
            yield from self.say(token, b"ignored")
        elif path == b"/hang":
            while True:
                yield lib.EVENT_NONE
        elif path == b"/closed":
            yield from self.say(token, b"%d" % self.closed)
        elif path in (b"/stream", b"/stream-length"):
            self.respond(token, 200, -1 if path == b"/stream" else 10 * MIB)
            for _ in range(160):
                yield from self.write(token, b"s" * 65536)
            lib.engine_finish(self.engine, token)
        elif path in (b"/short", b"/long", b"/abort"):
            self.respond(token, 200, 7 if path == b"/long" else 1000)
            yield from self.write(token, b"0123456789")
            (lib.engine_abort if path == b"/abort" else lib.engine_finish)(self.engine, token)
        elif path == b"/abort-unknown":
            self.respond(token, 200, -1)
            yield from self.write(token, b"0123456789")
            lib.engine_abort(self.engine, token)
        elif path == b"/abort-before":
            lib.engine_abort(self.engine, token)
        elif path == b"/hints":
            for _ in range(20_000):
                self.respond(token, 103, -1, b"x" * 150)
            yield from self.say(token, b"hinted")
        elif path == b"/read-late":
            self.respond(token, 200, -1)
            yield from self.write(token, b"begin ")
            yield from self.write(token, b"%d" % (yield from self.read(token)))
            lib.engine_finish(self.engine, token)
        else:
            size = yield from self.read(token)
            words = [self.text(token, which) or b"-" for which in (0, 2, 3, 4)]
            seen = b" seen" if any(self.field(token, name) for name in HIDDEN) else b""
            yield from self.say(token, b" ".join(words) + b" %d" % size + seen)

    def go(self, token: int, handler: Handler) -> None:
        try:
            self.waiting[token] = (handler, next(handler))
        except (StopIteration, BrokenPipeError):
            self.waiting.pop(token, None)

    def happened(self, kind: int, token: int) -> None:
        if kind == lib.EVENT_DECIDE:
            self.decide(token)
        elif kind == lib.EVENT_GREEN:
            self.go(token, self.handle(token))
        elif kind == lib.EVENT_CLOSED:
            self.closed += 1
            self.waiting.pop(token, None)
        elif kind in (lib.EVENT_BODY, lib.EVENT_WRITABLE):
            handler, wanted = self.waiting.get(token, (None, None))
            if handler is not None and wanted == kind:
                self.go(token, handler)
        elif kind == lib.EVENT_EMPTY:
            raise SystemExit(0)

    def serve(self) -> None:
        events = ffi.new("struct engine_event[]", 64)
        poll = select.epoll()
        poll.register(lib.engine_fd(self.engine), select.EPOLLIN)
        poll.register(0, select.EPOLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == 0:
                    command = sys.stdin.readline()
                    if not command:
                        return
                    lib.engine_drain(self.engine)
                    print("draining", flush=True)
                    continue
                for i in range(lib.engine_run(self.engine, events, 64)):
                    self.happened(events[i].kind, events[i].token)


def main() -> None:
    options = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    descriptors, path = options.pop("descriptors", 0), options.pop("unix", "")
    program = Program(options)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    if lib.engine_listen(program.engine, 1, listener.fileno(), socket.AF_INET, listener.getsockname()[1]) != 0:
        raise SystemExit("engine_listen")
    if path:
        local = socket.socket(socket.AF_UNIX)
        local.bind(path)
        local.listen(64)
        if lib.engine_listen(program.engine, 2, local.fileno(), socket.AF_UNIX, 0) != 0:
            raise SystemExit("engine_listen")
    if descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    print(listener.getsockname()[1], flush=True)
    try:
        program.serve()
    finally:
        lib.engine_free(program.engine)


if __name__ == "__main__":
    main()
