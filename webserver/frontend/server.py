"""One front end: its record, its listeners, its groups' generations, and what it and the supervisor tell each other.

Everything is made in `run` and handed down. The order matters: the engine before the sockets it uses, the generations
before the listeners, so that the first request finds its group.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import zmq
from gevent import get_hub, sleep, spawn, spawn_later
from gevent.event import Event
from gevent.socket import wait_read

from ..config.model import Config
from ..engine._engine import ffi, lib
from ..wire.control import Control, ControlClosed, ControlError, ControlFull, ControlStarved, close_all
from .channels import Channels, library
from .engine import Engine, EngineError
from .green import Closed, Exchange, Handler
from .routing import Routing
from .sites import HANDLERS
from .status import status_handler

BEAT_SECONDS = 1.0
LAST_SECONDS = 0.05  # between looks at a group that is to go
WANTED_SECONDS = 0.02  # between two packets that say which groups have requests waiting
WANTED_GROUPS = 500  # in one of them; with the longest names it is half as large as a packet may be
STARVED_SECONDS = 0.1  # until descriptors may be free again
TOLD_AGAIN = 60.0  # seconds between two lines about that
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}

Fds = dict[str, int]


class FrontEnd:
    """See the module. `run` returns when the supervisor said drain and the last connection is gone."""

    def __init__(self, control: Control, record: dict[str, Any], fds: Fds) -> None:
        self._control = control
        config = Config.from_record(record["config"])
        access = fds.get("access", -1)
        if access >= 0:
            os.set_blocking(access, False)
        self._engine = Engine(
            record["ordinal"],
            record["incarnation"],
            record["frontends"],
            config.server,
            access,
            config.logs.access_format == "json",
        )
        self._engine.use_zmq(library())
        self._channels = Channels(self._engine, record["incarnation"], self._broke)
        self._routing = Routing(self._engine)
        self._routing.use(config)
        self._exchanges: dict[int, Exchange] = {}
        self._handlers: dict[int, Handler] = {HANDLERS["status"]: status_handler(self._stats)}
        self._empty = Event()
        self._accepting: dict[int, int] = {}
        self._listeners: dict[int, tuple[int, str, int]] = {}
        self._vacated: set[int] = set()
        self._waiting: dict[int, int] = {}  # by group: requests that wait, as it has not been said yet
        self._saying = False  # it was said a moment ago
        self._told_starved = float("-inf")
        self._engine.on = {
            lib.EVENT_DECIDE: self._routing.wanted,
            lib.EVENT_GREEN: self._green,
            lib.EVENT_BODY: self._moved,
            lib.EVENT_WRITABLE: self._moved,
            lib.EVENT_CLOSED: self._closed,
            lib.EVENT_SERVING: self._serving,
            lib.EVENT_DRAINED: self._drained,
            lib.EVENT_WANTED: self._wanted,
            lib.EVENT_SILENT: self._silent,
            lib.EVENT_OVERDUE: self._overdue,
            lib.EVENT_BROKEN: self._broken_event,
            lib.EVENT_SUSPECT: lambda event: self._tell_others("suspect", event),
            lib.EVENT_CLEARED: lambda event: self._tell_others("cleared", event),
            lib.EVENT_EMPTY: lambda event: self._empty.set(),
        }
        self._orders: dict[str, Callable[[dict[str, Any], Fds], None]] = {
            "generation": self._order_generation,
            "worker": self._order_worker,
            "worker-leaves": self._order_worker_leaves,
            "worker-gone": self._order_worker_gone,
            "suspect": self._order_suspect,
            "cleared": self._order_cleared,
            "drain-generation": self._order_drain_generation,
            "close-generation": self._order_close_generation,
            "config": self._order_config,
            "listeners": self._order_listeners,
            "accept": self._order_accept,
            "drain": self._order_drain,
        }
        for generation in record.get("groups", []):
            self._order_generation(generation, {})
        self._add_listeners(record["listeners"], fds)
        self._order_accept({"listeners": record.get("accept", list(self._listeners))}, {})

    def run(self) -> None:
        self._engine.start()
        spawn(self._listen_to_supervisor)
        beat = get_hub().loop.timer(BEAT_SECONDS, BEAT_SECONDS)
        beat.start(self._beat)
        self._tell({"op": "ready"})
        self._empty.wait()
        beat.stop()
        self._channels.close_all()
        # After the sockets, which it is told to forget; its access log still holds the last second's records.
        self._engine.close()

    # What the supervisor says

    def _listen_to_supervisor(self) -> None:
        while True:
            wait_read(self._control.fileno())
            try:
                received = self._control.receive()
            except BlockingIOError:
                continue
            except ControlStarved as error:
                self._starved(error)
                continue
            except ControlError:
                # What it said is lost, and with it the agreement on what there is. The next one begins anew.
                traceback.print_exc(file=sys.stderr)
                os._exit(1)
            if received is None:
                # The supervisor is dead; so is everything it held together.
                os._exit(1)
            message, fds = received
            order = self._orders.get(message["op"])
            try:
                if order is None:
                    raise ValueError(f"unknown order {message['op']!r}")
                order(message, fds)
            except Exception:
                traceback.print_exc(file=sys.stderr)
                close_all(fds.values())

    def _starved(self, error: ControlStarved) -> None:
        """Descriptors are missing for what the supervisor sends. Requests go on meanwhile, and free some."""
        now = time.monotonic()
        if now - self._told_starved >= TOLD_AGAIN:
            self._told_starved = now
            sys.stderr.write(f"{error}; raise open_files, or lower connections (said once a minute at most)\n")
        sleep(STARVED_SECONDS)

    def _order_generation(self, message: dict[str, Any], fds: Fds) -> None:
        group = self._routing.group_number(message["group"])
        try:
            path = self._channels.open(
                group,
                message["generation"],
                message["directory"],
                message["uid"],
                message["processes"],
                message["threads"],
            )
        except (OSError, zmq.ZMQError, EngineError) as error:
            reason = f"cannot bind in {message['directory']}: {error}"
            self._tell({"op": "broken", **_named(message), "reason": reason})
            return
        self._tell({"op": "bound", **_named(message), "path": path})

    def _order_worker(self, message: dict[str, Any], fds: Fds) -> None:
        page, loans = fds.pop("page"), fds.pop("loans")
        group = self._routing.groups.of(message["group"])
        result = lib.engine_worker(
            self._engine.native, group, message["generation"], message["worker"], message["slots"], page, loans
        )
        if result != 0:
            sys.stderr.write(f"worker {message['worker']} of group {message['group']}: engine_worker said {result}\n")

    def _order_worker_leaves(self, message: dict[str, Any], fds: Fds) -> None:
        group = self._routing.groups.of(message["group"])
        lib.engine_worker_leaves(self._engine.native, group, message["generation"], message["worker"])

    def _order_worker_gone(self, message: dict[str, Any], fds: Fds) -> None:
        group = self._routing.groups.of(message["group"])
        cause = ffi.new("char[]", message["cause"].encode())
        if message.get("excused"):
            lib.engine_worker_excused(self._engine.native, group, message["generation"], message["worker"])
        lib.engine_worker_gone(self._engine.native, group, message["generation"], message["worker"], cause)

    def _order_suspect(self, message: dict[str, Any], fds: Fds) -> None:
        self._engine.suspected(self._routing.groups.of(message["group"]), message["name"].encode("latin-1"))

    def _order_cleared(self, message: dict[str, Any], fds: Fds) -> None:
        self._engine.cleared(self._routing.groups.of(message["group"]), message["name"].encode("latin-1"))

    def _order_drain_generation(self, message: dict[str, Any], fds: Fds) -> None:
        if message.get("last"):
            spawn(self._drain_last, message)
        else:
            self._drain_generation(message)

    def _drain_last(self, message: dict[str, Any]) -> None:
        """No route leads to the group any more and no generation follows: what waits for a place still gets one."""
        group = self._routing.groups.of(message["group"])
        # Unless the group has come back meanwhile.
        while len(self._channels.of_group(group)) == 1 and self._waits(group):
            sleep(LAST_SECONDS)
        self._drain_generation(message)

    def _waits(self, group: int) -> bool:
        """Whether the group has a request that is not a tunnel: those end with their generation."""
        stats = self._engine.group_stats(group)
        return stats.get("exchanges", 0) > stats.get("tunnels", 0)

    def _drain_generation(self, message: dict[str, Any]) -> None:
        group = self._routing.groups.of(message["group"])
        if lib.engine_generation_drain(self._engine.native, group, message["generation"]) != 0:
            # Not known here, so nothing of it is in flight here.
            self._tell({"op": "drained", **_named(message)})

    def _order_close_generation(self, message: dict[str, Any], fds: Fds) -> None:
        number = self._routing.groups.of(message["group"])
        self._channels.close(number, message["generation"])
        if not self._channels.of_group(number):
            self._routing.forget_group(message["group"])

    def _order_config(self, message: dict[str, Any], fds: Fds) -> None:
        config = Config.from_record(message["record"])
        self._engine.limits(config.server)
        self._routing.use(config)
        self._tell({"op": "configured", "generation": message["generation"]})

    def _order_listeners(self, message: dict[str, Any], fds: Fds) -> None:
        for number in message.get("vacate", []):
            self._vacated.add(number)
            if number in self._accepting:
                self._engine.vacate(number)
        for number in message.get("remove", []):
            self._close_listener(number)
        self._add_listeners(message.get("add", []), fds)

    def _add_listeners(self, listeners: list[dict[str, Any]], fds: Fds) -> None:
        for listener in listeners:
            fd = fds.pop(listener["fd"])
            os.set_blocking(fd, False)
            self._listeners[listener["id"]] = (fd, listener["family"], listener["port"])

    def _order_accept(self, message: dict[str, Any], fds: Fds) -> None:
        """Accept from exactly these listeners: one's own, and those of a neighbour that is down."""
        wanted = set(message["listeners"]) & set(self._listeners)
        for number in set(self._accepting) - wanted:
            self._stop_accepting(number)
        for number in wanted - set(self._accepting):
            fd, family, port = self._listeners[number]
            self._engine.listen(number, fd, _FAMILIES[family], port)
            self._accepting[number] = fd
            if number in self._vacated:
                self._engine.vacate(number)

    def _stop_accepting(self, number: int) -> None:
        if self._accepting.pop(number, None) is not None:
            self._engine.unlisten(number)

    def _close_listener(self, number: int) -> None:
        """Take what waits in its queue, and close it."""
        self._stop_accepting(number)
        self._vacated.discard(number)
        known = self._listeners.pop(number, None)
        if known is not None:
            os.close(known[0])

    def _order_drain(self, message: dict[str, Any], fds: Fds) -> None:
        # Closed, or who comes now would wait for our end instead of being refused.
        for number in list(self._listeners):
            self._close_listener(number)
        lib.engine_drain(self._engine.native)

    # What the engine says

    def _green(self, event: Any) -> None:
        handler = self._handlers.get(event.number)
        exchange = Exchange(self._engine, event.token)
        if handler is None:
            exchange.abort()
            return
        self._exchanges[event.token] = exchange
        spawn(self._answer, handler, exchange)

    def _answer(self, handler: Handler, exchange: Exchange) -> None:
        try:
            handler(exchange)
        except Closed:
            pass
        except Exception:
            traceback.print_exc(file=sys.stderr)
            exchange.abort()
        finally:
            self._exchanges.pop(exchange.token, None)

    def _moved(self, event: Any) -> None:
        exchange = self._exchanges.get(event.token)
        if exchange is not None:
            exchange.wake()

    def _closed(self, event: Any) -> None:
        exchange = self._exchanges.pop(event.token, None)
        if exchange is not None:
            exchange.wake(closed=True)

    def _serving(self, event: Any) -> None:
        self._tell({"op": "serving", **self._of(event), "worker": event.worker})

    def _silent(self, event: Any) -> None:
        self._tell({"op": "silent", **self._of(event), "worker": event.worker})

    def _overdue(self, event: Any) -> None:
        self._tell({"op": "overdue", **self._of(event), "worker": event.worker})

    def _drained(self, event: Any) -> None:
        self._tell({"op": "drained", **self._of(event)})

    def _wanted(self, event: Any) -> None:
        """At once, unless it is soon after the last time: many groups may want workers at the same time."""
        self._waiting[event.group] = event.number
        if not self._saying:
            self._say_wanted()

    def _say_wanted(self) -> None:
        some = list(self._waiting.items())[:WANTED_GROUPS]
        self._saying = bool(some)
        if not some:
            return
        for group, _ in some:
            del self._waiting[group]
        spawn_later(WANTED_SECONDS, self._say_wanted)
        self._tell({"op": "wanted", "groups": {self._routing.groups.name(group): queued for group, queued in some}})

    def _tell_others(self, op: str, event: Any) -> None:
        """The other front ends are to know what this one has seen of a request that ends workers, or does not."""
        name = self._engine.suspect(event.token)
        if name:
            group = self._routing.groups.name(event.group)
            self._tell({"op": op, "group": group, "name": name.decode("latin-1")})

    def _broken_event(self, event: Any) -> None:
        self._broke(event.group, event.generation, ffi.string(event.text).decode(errors="replace"))

    def _broke(self, group: int, generation: int, reason: str) -> None:
        self._channels.close(group, generation)
        name = self._routing.groups.name(group)
        self._tell({"op": "broken", "group": name, "generation": generation, "reason": reason})

    def _of(self, event: Any) -> dict[str, Any]:
        return {"group": self._routing.groups.name(event.group), "generation": event.generation}

    # Reports

    def _stats(self) -> dict[str, Any]:
        groups = {name: self._engine.group_stats(self._routing.groups.of(name)) for name in self._routing.group_names()}
        return {"pid": os.getpid(), "engine": self._engine.stats(), "groups": groups}

    def _beat(self) -> None:
        try:
            self._tell({"op": "beat", "stats": self._stats()})
        except Exception:
            traceback.print_exc(file=sys.stderr)

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._control.send(message)
        except ControlFull:
            # Only what is said again may be lost. For all else the supervisor is dead in all but name: it will see us
            # end.
            if message["op"] not in ("beat", "wanted"):
                raise
        except ControlClosed:
            os._exit(1)


def _named(message: dict[str, Any]) -> dict[str, Any]:
    return {"group": message["group"], "generation": message["generation"]}
