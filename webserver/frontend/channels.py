"""The front end's ends of the channel: one bound ROUTER for each group generation, and who may connect to it.

pyzmq makes, configures and binds the sockets; the engine alone sends and receives on them. Walls: the socket lies in a
directory that only this group may enter, its peers' uid is checked by libzmq, messages are bounded, identities cannot
be taken over, and a peer that opens more connections than its generation can need is cut off.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq
from gevent import get_hub

from ..engine._engine import ffi, lib
from .engine import Engine, EngineError

# A worker that is being replaced overlaps with the one that follows it.
OVERLAP = 2
SPARE_CONNECTIONS = 8
BACKLOG = 1024
SEND_BUFFER = 1 << 20  # bytes; the kernel allows what wmem_max does
HIGH_WATER = 256  # CHANNEL_HIGH_WATER of engine/channel.h: messages
HANDSHAKE_MS = 10_000

_CONNECTED = zmq.EVENT_ACCEPTED
_DISCONNECTED = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED


def library() -> str:
    """The shared object of pyzmq that is linked to the libzmq in use."""
    for name in ("_zmq", "_device", "socket"):
        try:
            module = __import__(f"zmq.backend.cython.{name}", fromlist=["x"])
        except ImportError:
            continue
        path = getattr(module, "__file__", None)
        if path:
            return str(path)
    raise EngineError("pyzmq's compiled backend was not found (its cffi backend is not supported)")


@dataclass
class Channel:
    """One group generation's socket and how many connections its peers hold."""

    group: int
    generation: int
    path: str
    socket: Any
    monitor: Any
    watcher: Any
    allowed: int
    connections: int = 0


def _start_context() -> Any:
    """A context whose threads are running, and do not preempt: see engine/pace.c for why.

    The policy is inherited from this thread, not given as ZMQ_THREAD_SCHED_POLICY: where a sandbox forbids the call,
    libzmq would abort.
    """
    context = zmq.Context(io_threads=1)
    context.set(zmq.MAX_SOCKETS, 65536)
    normal = os.sched_getscheduler(0) == os.SCHED_OTHER
    with contextlib.suppress(OSError):
        if normal:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    context.socket(zmq.ROUTER).close()  # the first socket starts them
    with contextlib.suppress(OSError):
        if normal:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return context


class Channels:
    """All generations' sockets of this front end. `broken` is called with (group, generation, reason)."""

    def __init__(self, engine: Engine, incarnation: int, broken: Callable[[int, int, str], None]) -> None:
        self._engine = engine
        self._incarnation = incarnation
        self._broken = broken
        self._context = _start_context()
        self._channels: dict[tuple[int, int], Channel] = {}

    def open(self, group: int, generation: int, directory: str, uid: int, workers: int, slots: int) -> str:
        """Bind the generation's socket; returns its path. Raises OSError or zmq.ZMQError."""
        path = os.path.join(directory, f"f{self._incarnation}")
        socket = self._context.socket(zmq.ROUTER)
        options = {
            zmq.LINGER: 0,
            zmq.ROUTER_MANDATORY: 1,
            zmq.ROUTER_HANDOVER: 0,
            zmq.MAXMSGSIZE: lib.WIRE_MESSAGE,
            # For each connection. Credit bounds what a worker may have sent; more fills its own pipe only.
            zmq.RCVHWM: HIGH_WATER,
            zmq.SNDHWM: HIGH_WATER,
            # A piece of a body goes in at once; by default two thirds of it do.
            zmq.SNDBUF: SEND_BUFFER,
            zmq.BACKLOG: BACKLOG,
            zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
        }
        for option, value in options.items():
            socket.setsockopt(option, value)
        socket.setsockopt(_IPC_FILTER_UID, uid)
        before = os.umask(0o117)
        try:
            socket.bind(f"ipc://{path}")
        except BaseException:
            socket.close()
            raise
        finally:
            os.umask(before)
        monitor = socket.get_monitor_socket(_CONNECTED | _DISCONNECTED)
        watcher = get_hub().loop.io(monitor.getsockopt(zmq.FD), 1)
        allowed = (workers * OVERLAP) * (slots + 1) + SPARE_CONNECTIONS
        channel = Channel(group, generation, path, socket, monitor, watcher, allowed)
        self._channels[group, generation] = channel
        watcher.start(self._monitored, channel)
        result = lib.engine_generation(
            self._engine.native,
            group,
            generation,
            ffi.cast("void *", socket.underlying),
            socket.getsockopt(zmq.FD),
            workers,
            slots,
        )
        if result != 0:
            self.close(group, generation)
            raise EngineError(f"generation {generation}: engine_generation said {result}")
        # Whatever arrived before the descriptor was watched shows in no edge.
        self._monitored(channel)
        return path

    def close(self, group: int, generation: int) -> None:
        channel = self._channels.pop((group, generation), None)
        if channel is None:
            return
        lib.engine_generation_close(self._engine.native, group, generation)
        channel.watcher.stop()
        channel.watcher.close()
        channel.socket.disable_monitor()
        channel.monitor.close(0)
        channel.socket.close(0)
        try:
            os.unlink(channel.path)
        except FileNotFoundError:
            pass

    def close_all(self) -> None:
        for group, generation in list(self._channels):
            self.close(group, generation)
        self._context.destroy(0)

    def of_group(self, group: int) -> list[int]:
        return [generation for number, generation in self._channels if number == group]

    def _monitored(self, channel: Channel) -> None:
        """Read every event: the descriptor is edge-triggered."""
        try:
            while True:
                frames = channel.monitor.recv_multipart(zmq.DONTWAIT)
                event = int.from_bytes(frames[0][:2], "little")
                if event & _CONNECTED:
                    channel.connections += 1
                elif event & _DISCONNECTED:
                    channel.connections -= 1
        except zmq.Again:
            pass
        except zmq.ZMQError:
            return
        if channel.connections > channel.allowed:
            reason = f"{channel.connections} connections where {channel.allowed} are allowed"
            self._broken(channel.group, channel.generation, reason)


_IPC_FILTER_UID = 59  # ZMQ_IPC_FILTER_UID of zmq.h; pyzmq does not name it in every version
