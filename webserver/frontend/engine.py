"""The engine seen from Python: one object, its turns in gevent's hub, and events as calls.

Owns the native engine and the watcher that runs it. The watcher's callback catches everything, since gevent stops a
watcher whose callback raised. Handlers run in the hub and must not block: what takes time spawns a green thread.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gevent import get_hub

from ..config.model import Server
from ..engine._engine import ffi, lib
from .decide import Decision

EVENTS = 128  # told to Python in one turn; the rest comes in the next
NANOSECONDS = 1_000_000_000
DECISIONS = 65536  # remembered at most; an entry costs some 200 bytes
FILES = 16384  # files kept at most, open or in memory; of open ones no more than an eighth of what may be open
GATHER = 65536 - 16384  # bytes of a body that fit a block beside the largest usual head


class EngineError(Exception):
    """The engine refused a call; the text says which and why."""


class Stale(Exception):
    """The request of this token is over."""


class Engine:
    """struct engine and its watcher. `on` maps EVENT_* numbers to functions of one event."""

    def __init__(
        self, ordinal: int, incarnation: int, frontends: int, server: Server, access_fd: int, access_json: bool
    ) -> None:
        self._keep: list[Any] = []
        options = ffi.new("struct engine_options *")
        options.ordinal = ordinal
        options.incarnation = incarnation
        options.frontends = frontends
        options.access_fd = access_fd
        options.access_json = access_json
        options.spool_directory = self._string(server.spool)
        options.server = self._string("webserver")
        _fill_limits(options.limits, server)
        message = ffi.new("char[]", 512)
        self.native = lib.engine_new(options, message, 512)
        self._keep.clear()  # the engine has copied the strings
        if self.native == ffi.NULL:
            raise EngineError(f"engine: {ffi.string(message).decode(errors='replace')}")
        self._events = ffi.new("struct engine_event[]", EVENTS)
        self.on: dict[int, Callable[[Any], None]] = {}
        self._watcher = get_hub().loop.io(lib.engine_fd(self.native), 1)

    def _string(self, text: str) -> Any:
        value = ffi.new("char[]", text.encode("utf-8", "surrogateescape"))
        self._keep.append(value)
        return value

    def start(self) -> None:
        self._watcher.start(self._turn)
        # What was set up before has queued work that no descriptor announces.
        get_hub().loop.run_callback(self._turn)

    def close(self) -> None:
        """At the end: what waits for the logs is written. Nothing here may be called afterwards."""
        self._watcher.stop()
        self._watcher.close()
        lib.engine_free(self.native)
        self.native = ffi.NULL

    def _turn(self) -> None:
        try:
            events = self._events
            count = lib.engine_run(self.native, events, EVENTS)
            for index in range(count):
                event = events[index]
                handler = self.on.get(event.kind)
                if handler is not None:
                    try:
                        handler(event)
                    except Exception:
                        traceback.print_exc(file=sys.stderr)
        except Exception:
            traceback.print_exc(file=sys.stderr)

    def use_zmq(self, library: str) -> None:
        """Take libzmq's functions from what this shared object is linked to: the one that pyzmq loaded."""
        message = ffi.new("char[]", 512)
        if lib.engine_zmq(self.native, library.encode(), message, 512) != 0:
            raise EngineError(f"libzmq: {ffi.string(message).decode(errors='replace')}")

    def limits(self, server: Server) -> None:
        limits = ffi.new("struct engine_limits *")
        _fill_limits(limits, server)
        lib.engine_limits(self.native, limits)

    def listen(self, number: int, fd: int, family: int, port: int) -> None:
        self._check("engine_listen", lib.engine_listen(self.native, number, fd, family, port))

    def vacate(self, number: int) -> None:
        lib.engine_vacate(self.native, number)

    def unlisten(self, number: int) -> None:
        lib.engine_unlisten(self.native, number)

    def site(self, number: int, name: str, root: str, max_body: int) -> None:
        result = lib.engine_site(self.native, number, _bytes(name), _bytes(root), max_body)
        self._check(f"site {name}", result)

    def root(self, number: int, path: str, flags: int, index: Sequence[str], scripts: Sequence[str]) -> None:
        index_texts, keep_index = texts(_bytes(name) for name in index)
        script_texts, keep_scripts = texts(_bytes(name) for name in scripts)
        result = lib.engine_root(
            self.native, number, _bytes(path), flags, index_texts, len(index), script_texts, len(scripts)
        )
        del keep_index, keep_scripts
        self._check(f"root {path}", result)

    def sendfile(self, number: int, roots: Sequence[int]) -> None:
        """The roots of which the site's groups may name files."""
        native = ffi.new("uint32_t[]", list(roots) or 1)
        self._check(f"sendfile of site {number}", lib.engine_sendfile(self.native, number, native, len(roots)))

    def mime(self, extension: str, kind: str) -> None:
        self._check(f"MIME type {extension}", lib.engine_mime(self.native, extension.encode(), kind.encode()))

    def request_text(self, token: int, which: int) -> bytes:
        """One of REQUEST_*. Raises Stale."""
        text = lib.engine_request(self.native, token, which)
        if text.data == ffi.NULL:
            raise Stale
        return bytes(ffi.buffer(text.data, text.size))

    def request_field(self, token: int, name: str) -> bytes:
        text = lib.engine_request_field(self.native, token, name.encode())
        return b"" if text.data == ffi.NULL else bytes(ffi.buffer(text.data, text.size))

    def decide(self, token: int, decision: Decision) -> None:
        """Answer EVENT_DECIDE. A request that is over meanwhile is not an error."""
        native = ffi.new("struct engine_decision *")
        keep: list[Any] = []
        native.site = decision.site
        native.scope = decision.scope
        native.method_only = decision.method_only
        native.gather = decision.gather
        set_text(native.prefix, decision.prefix, keep)
        set_text(native.extension, decision.extension, keep)
        # The arrays themselves must be held too: a struct's field does not own what it points to.
        prefixes, kept = texts(decision.except_prefixes)
        native.except_prefixes = prefixes
        keep += [prefixes, kept]
        native.except_prefix_count = len(decision.except_prefixes)
        extensions, kept = texts(decision.except_extensions)
        native.except_extensions = extensions
        keep += [extensions, kept]
        native.except_extension_count = len(decision.except_extensions)
        choices = ffi.new("struct engine_choice[]", len(decision.choices))
        for place, choice in zip(choices, decision.choices, strict=True):
            place.kind = choice.kind
            place.target = choice.target
            place.strip = choice.strip
            place.flags = lib.CHOICE_DOTFILES if choice.dotfiles else 0
            set_text(place.script, choice.script, keep)
        native.choices = choices
        native.choice_count = len(decision.choices)
        result = lib.engine_decide(self.native, token, native)
        if result != lib.ENGINE_STALE:
            self._check(f"decision {decision}", result)

    def group(
        self, number: int, name: str, length: int, queue_timeout: float, request_timeout: float, quarantine: int,
        elastic: bool = False,
    ) -> None:  # fmt: skip
        """`elastic`: it may get more workers when requests wait, and is to ask for them."""
        options = ffi.new("struct engine_group_options *")
        text = ffi.new("char[]", _bytes(name))
        options.name = text
        options.queue_length = length
        options.queue_timeout_ns = int(queue_timeout * NANOSECONDS)
        options.request_timeout_ns = int(request_timeout * NANOSECONDS)
        options.elastic = elastic
        options.quarantine = quarantine
        self._check(f"group {name}", lib.engine_group(self.native, number, options))

    def suspect(self, token: int) -> bytes:
        """What a suspected request is called: site, method and target; b"" if it has been forgotten."""
        text = lib.engine_suspect(self.native, token)
        return bytes(ffi.buffer(text.data, text.size))

    def suspected(self, group: int, name: bytes) -> None:
        """Another front end has seen a worker die while it ran this request."""
        keep: list[Any] = []
        text = ffi.new("struct engine_text *")
        set_text(text, name, keep)
        lib.engine_suspected(self.native, group, text[0])

    def cleared(self, group: int, name: bytes) -> None:
        """Another front end has seen this request end well."""
        keep: list[Any] = []
        text = ffi.new("struct engine_text *")
        set_text(text, name, keep)
        lib.engine_cleared(self.native, group, text[0])

    def stats(self) -> dict[str, int]:
        stats = ffi.new("struct engine_stats *")
        lib.engine_stats(self.native, stats)
        return {name: int(getattr(stats, name)) for name, _ in ffi.typeof("struct engine_stats").fields}

    def group_stats(self, number: int) -> dict[str, int]:
        stats = ffi.new("struct engine_group_stats *")
        if lib.engine_group_stats(self.native, number, stats) != 0:
            return {}
        return {name: int(getattr(stats, name)) for name, _ in ffi.typeof("struct engine_group_stats").fields}

    @staticmethod
    def _check(what: str, result: int) -> None:
        if result != 0:
            reasons = {-1: "the request is over", -2: "not valid", -3: "full", -4: f"errno {ffi.errno}"}
            raise EngineError(f"{what}: {reasons.get(result, result)}")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def set_text(place: Any, value: bytes, keep: list[Any]) -> None:
    """Point a struct engine_text at a copy of value that `keep` holds."""
    data = ffi.new("char[]", value)
    keep.append(data)
    place.data = data
    place.size = len(value)


def texts(values: Iterable[bytes]) -> tuple[Any, list[Any]]:
    """An array of struct engine_text and what keeps its bytes alive."""
    listed = list(values)
    keep: list[Any] = []
    array = ffi.new("struct engine_text[]", max(1, len(listed)))
    for place, value in zip(array, listed, strict=False):
        set_text(place, value, keep)
    return array, keep


def _fill_limits(limits: Any, server: Server) -> None:
    for name in ("head_timeout", "body_timeout", "idle_timeout", "send_timeout", "tunnel_timeout", "tunnel_grace"):
        setattr(limits, f"{name}_ns", int(getattr(server, name) * NANOSECONDS))
    for name in ("connections", "max_head", "max_line", "max_fields", "spool_memory", "spool_limit"):
        setattr(limits, name, getattr(server, name))
    limits.decisions = DECISIONS
    limits.files = min(FILES, server.open_files // 8)
    limits.gather = GATHER
