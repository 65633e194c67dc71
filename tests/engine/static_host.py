"""The engine in the test's own process, with roots and rules of the test: for files, decisions and the access log.

Everything runs on one thread: whenever the test waits for its client socket, the engine takes a turn. Nothing sleeps.
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Callable
from typing import Any

from http_client import Answer, Stream
from webserver.engine._engine import ffi, lib

WAIT_SECONDS = 10
Rule = dict[str, Any]


class Pumped:
    """A client socket that lets the engine run while it waits."""

    def __init__(self, host: EngineHost, sock: socket.socket) -> None:
        self.host = host
        self.sock = sock
        sock.setblocking(False)

    def recv(self, size: int) -> bytes:
        while True:
            self.host.turn(self.sock)
            try:
                return self.sock.recv(size)
            except BlockingIOError:
                continue

    def sendall(self, data: bytes) -> None:
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                self.host.turn(self.sock, write=True)


class EngineHost:
    """One engine that listens on 127.0.0.1. `decide` maps (method, host, path) to the arguments of a decision."""

    def __init__(
        self, decide: Callable[[bytes, bytes, bytes], Rule], access_fd: int = -1, json_log: bool = False
    ) -> None:
        self.keep: list[Any] = []
        self.rule = decide
        self.asked: list[tuple[bytes, bytes, bytes]] = []
        self.refused = 0
        settings = ffi.new("struct engine_options *")
        settings.access_fd = access_fd
        settings.access_json = json_log
        settings.frontends = settings.incarnation = 1
        settings.server = self.string(b"test")
        settings.spool_directory = self.string(b"/tmp")
        limits = settings.limits
        limits.head_timeout_ns = limits.body_timeout_ns = limits.idle_timeout_ns = limits.send_timeout_ns = 20 * 10**9
        limits.connections, limits.max_head, limits.max_line, limits.max_fields = 100, 65536, 16384, 100
        limits.decisions, limits.files, limits.gather = 100, 10, 65536
        limits.spool_memory = limits.spool_limit = 1 << 20
        message = ffi.new("char[]", 200)
        self.engine = lib.engine_new(settings, message, 200)
        assert self.engine != ffi.NULL, ffi.string(message)
        assert lib.engine_site(self.engine, 1, b"site", b"/nowhere", 1000) == 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        assert lib.engine_listen(self.engine, 1, self.listener.fileno(), socket.AF_INET, self.port) == 0
        self.events = ffi.new("struct engine_event[]", 64)
        self.clients: list[socket.socket] = []

    def close(self) -> None:
        for client in self.clients:
            client.close()
        lib.engine_free(self.engine)
        self.listener.close()

    def string(self, text: bytes) -> Any:
        self.keep.append(ffi.new("char[]", text))
        return self.keep[-1]

    def text(self, place: Any, value: bytes) -> None:
        place.data, place.size = self.string(value), len(value)

    def texts(self, values: list[bytes]) -> Any:
        array = ffi.new("struct engine_text[]", max(1, len(values)))
        self.keep.append(array)
        for place, value in zip(array, values, strict=False):
            self.text(place, value)
        return array

    def root(self, number: int, path: os.PathLike[str] | str, flags: int = 0, index: tuple[bytes, ...] = (),
             scripts: tuple[bytes, ...] = ()) -> None:  # fmt: skip
        result = lib.engine_root(
            self.engine, number, os.fsencode(path), flags, self.texts(list(index)), len(index),
            self.texts(list(scripts)), len(scripts),
        )  # fmt: skip
        assert result == 0

    def turn(self, sock: socket.socket, write: bool = False) -> None:
        """Wait until the engine or the client can go on, then let the engine run."""
        ready, writable, _ = select.select(
            [lib.engine_fd(self.engine), sock], [sock] if write else [], [], WAIT_SECONDS
        )
        assert ready or writable, "nothing happened"
        if lib.engine_fd(self.engine) not in [r if isinstance(r, int) else -1 for r in ready]:
            return
        for i in range(lib.engine_run(self.engine, self.events, 64)):
            if self.events[i].kind == lib.EVENT_DECIDE:
                self.decide(self.events[i].token)

    def request_text(self, token: int, which: int) -> bytes:
        text = lib.engine_request(self.engine, token, which)
        return bytes(ffi.buffer(text.data, text.size))

    def decide(self, token: int) -> None:
        method, host, path = (self.request_text(token, which) for which in (0, 4, 2))
        self.asked.append((method, host, path))
        if self.give(token, self.rule(method, host, path)) != 0:
            self.refused += 1
            assert self.give(token, {"choices": [(lib.CHOICE_STATUS, 500)]}) == 0
        self.keep.clear()

    def give(self, token: int, rule: Rule) -> int:
        decision = ffi.new("struct engine_decision *")
        decision.site = rule.get("site", 1)
        decision.scope = rule.get("scope", lib.SCOPE_ONCE)
        decision.method_only = rule.get("method_only", 0)
        self.text(decision.prefix, rule.get("prefix", b""))
        self.text(decision.extension, rule.get("extension", b""))
        prefixes, extensions = rule.get("except_prefixes", []), rule.get("except_extensions", [])
        decision.except_prefixes, decision.except_prefix_count = self.texts(prefixes), len(prefixes)
        decision.except_extensions, decision.except_extension_count = self.texts(extensions), len(extensions)
        choices = ffi.new("struct engine_choice[]", max(1, len(rule["choices"])))
        for place, choice in zip(choices, rule["choices"], strict=False):
            place.kind, place.target = choice[0], choice[1]
            place.strip = choice[2] if len(choice) > 2 else 0
            self.text(place.script, choice[3] if len(choice) > 3 else b"")
        decision.choices, decision.choice_count = choices, len(rule["choices"])
        return int(lib.engine_decide(self.engine, token, decision))

    def connect(self) -> Stream:
        client = socket.create_connection(("127.0.0.1", self.port))
        self.clients.append(client)
        return Stream(Pumped(self, client))  # type: ignore[arg-type]

    def ask(self, path: str, method: str = "GET", fields: str = "", body: str = "", host: str = "h") -> Answer:
        """One request on a connection of its own."""
        stream = self.connect()
        stream.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n{body}".encode("latin-1"))
        answer = stream.answer(head=method == "HEAD")
        assert answer is not None
        self.clients.pop().close()
        return answer

    def stat(self, name: str) -> int:
        stats = ffi.new("struct engine_stats *")
        lib.engine_stats(self.engine, stats)
        return int(getattr(stats, name))

    def drain_turns(self) -> None:
        """Let the engine see what happened to closed connections."""
        while select.select([lib.engine_fd(self.engine)], [], [], 0)[0]:
            lib.engine_run(self.engine, self.events, 64)


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
