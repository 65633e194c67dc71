"""Requests that a green thread answers itself, through the same engine calls as everything else.

An Exchange parks its green thread until the engine says that bytes have moved. `Closed` is raised in it when the
client is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gevent.event import Event

from ..engine._engine import ffi, lib
from .engine import Engine, set_text


class Closed(Exception):
    """The client is gone, or the request was timed out."""


class Exchange:
    """One request in a green thread's hands, from EVENT_GREEN until `finish` or `abort`."""

    def __init__(self, engine: Engine, token: int) -> None:
        self._engine = engine
        self.token = token
        self._moved = Event()
        self._closed = False

    def wake(self, closed: bool = False) -> None:
        """The engine has something for this request: body, room, or its end."""
        self._closed = self._closed or closed
        self._moved.set()

    def respond(self, status: int, fields: Sequence[tuple[str, str]], length: int = -1) -> None:
        keep: list[object] = []
        array = ffi.new("struct engine_field[]", max(1, len(fields)))
        for place, (name, value) in zip(array, fields, strict=False):
            set_text(place.name, name.encode("ascii"), keep)
            set_text(place.value, value.encode("latin-1"), keep)
        self._answered(lib.engine_respond(self._engine.native, self.token, status, array, len(fields), length))

    def write(self, data: bytes) -> None:
        """Give bytes of the answer; waits while the client is slow."""
        while True:
            self._moved.clear()
            result = lib.engine_write(self._engine.native, self.token, data, len(data))
            if result != lib.ENGINE_FULL:
                self._answered(result)
                return
            self._wait()

    def read(self, size: int = 65536) -> bytes:
        """Bytes of the request's body, b"" at its end; waits for the client."""
        buffer = ffi.new("char[]", size)
        while True:
            self._moved.clear()
            result = lib.engine_read(self._engine.native, self.token, buffer, size)
            if result >= 0:
                return bytes(ffi.buffer(buffer, result))
            if result != lib.ENGINE_FULL:
                self._answered(result)
            self._wait()

    def finish(self) -> None:
        self._answered(lib.engine_finish(self._engine.native, self.token))

    def abort(self) -> None:
        lib.engine_abort(self._engine.native, self.token)

    def _wait(self) -> None:
        if not self._closed:
            self._moved.wait()
        if self._closed:
            raise Closed

    def _answered(self, result: int) -> None:
        if result == lib.ENGINE_STALE:
            raise Closed
        if result != 0:
            raise ValueError(f"the engine refused the answer ({result})")


Handler = Callable[[Exchange], None]
