"""The front ends as the supervisor sees them: started, given what they need, watched, started again.

What a front end says about generations of groups is handed on to whoever `groups` is.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from webserver.config import Config, Group
from webserver.supervisor.crashes import Crashes, sentence
from webserver.supervisor.identity import Identity
from webserver.supervisor.journal import Journal
from webserver.supervisor.listeners import Listeners, Socket
from webserver.supervisor.logs import Logs
from webserver.supervisor.loop import Loop
from webserver.supervisor.nursery import Ending, Nursery
from webserver.supervisor.policy import (
    STACK_WAIT,
    STOPPED_STACK_WAIT,
    GiveUp,
    Restart,
    after_end,
    hung,
    late,
)
from webserver.supervisor.process import Child
from webserver.supervisor.records import frontend_process, frontend_record, public
from webserver.supervisor.states import State
from webserver.wire.control import FD_LIMIT, close_all

INCARNATIONS = 1000  # of the program before, for what may still be started of it
LAST_INCARNATION = 1 << 24  # wire.h


@dataclass(eq=False)
class FrontEnd(Child):
    ordinal: int = 0
    incarnation: int = 0
    stats: dict[str, Any] = field(default_factory=dict)
    configured: int = 0  # the newest configuration it has confirmed
    late: bool = False  # its beat is overdue: its neighbour accepts for it as well


class GroupsSide(Protocol):
    """What the front ends tell of groups."""

    def records(self) -> list[dict[str, Any]]: ...
    def frontend_started(self, frontend: FrontEnd) -> None: ...
    def frontend_gone(self, frontend: FrontEnd) -> None: ...
    def frontend_says(self, frontend: FrontEnd, message: dict[str, Any]) -> None: ...


class FrontEnds:
    def __init__(
        self, loop: Loop, nursery: Nursery, journal: Journal, logs: Logs, listeners: Listeners, identity: Identity,
        config: Config, null: int,
    ) -> None:  # fmt: skip
        self._loop = loop
        self._nursery = nursery
        self._journal = journal
        self._logs = logs
        self._listeners = listeners
        self._identity = identity
        self._null = null
        self._incarnation = 0
        self._ending = False
        self._crashes = Crashes()
        self._holds = False  # nobody accepts yet
        self._drained: Callable[[], None] = lambda: None
        self._config_number = 0
        self._config_waiting: list[tuple[int, Callable[[], None]]] = []
        self._guests: list[Group] = []  # groups that are known besides: not yet, or no longer, in the configuration
        self.config = config  # in force
        self.all = [FrontEnd("frontend", str(ordinal), ordinal=ordinal) for ordinal in range(config.server.frontends)]
        self.groups: GroupsSide
        self.on_change: Callable[[], None] = lambda: None

    @property
    def incarnation(self) -> int:
        """The newest."""
        return self._incarnation

    def hold(self, incarnation: int) -> None:
        """Another server program serves until `open`: nobody accepts. Incarnations go on from that one's."""
        self._holds = True
        self._incarnation = (incarnation + INCARNATIONS) % LAST_INCARNATION

    def open(self) -> None:
        """Accept from now on."""
        self._holds = False
        self._share_out()

    @property
    def connections(self) -> int:
        """That clients have, as far as the front ends have said."""
        engines = [one.stats.get("engine") for one in self.alive()]
        counts = [engine.get("connections", 0) for engine in engines if isinstance(engine, dict)]
        return sum(count for count in counts if isinstance(count, int))

    def alive(self) -> list[FrontEnd]:
        """Those that can be spoken to and count for groups: started and not told to go."""
        return [one for one in self.all if one.state in (State.STARTING, State.RUNNING, State.DRAINING)]

    def start(self) -> None:
        for frontend in self.all:
            self._start(frontend)

    def send_all(self, message: dict[str, Any], fds: dict[str, int] | None = None) -> None:
        for frontend in self.alive():
            self._nursery.send(frontend, message, fds)

    def send(self, frontend: FrontEnd, message: dict[str, Any], fds: dict[str, int] | None = None) -> None:
        self._nursery.send(frontend, message, fds)

    def configure(
        self, config: Config, done: Callable[[], None], welcome: Iterable[Group] = (), dismiss: Iterable[Group] = ()
    ) -> None:
        """Put a configuration into force; `done` when each front end has taken it or is gone.

        Groups to `welcome` become known though no site uses them: before their first generation, or until their last
        has gone and they are dismissed.
        """
        gone = list(dismiss)
        self._guests = [one for one in self._guests if not any(one is other for other in gone)] + list(welcome)
        self.config = config
        self._config_number += 1
        self._config_waiting.append((self._config_number, done))
        self.send_all({"op": "config", "generation": self._config_number, "record": public(self._with_guests())})
        self._loop.soon(self._check_configured)

    def _with_guests(self) -> Config:
        """What front ends are to know."""
        groups = {group.name: group for group in (*self._guests, *self.config.groups)}
        return replace(self.config, groups=tuple(groups.values()))

    def listen(self, add: list[Socket], remove: list[int]) -> None:
        """New listening sockets, and ids of old ones. Ours are closed by the caller afterwards."""
        for at in range(0, len(add), FD_LIMIT) or (0,):
            some = add[at : at + FD_LIMIT]
            message = {"op": "listeners", "add": [one.to_record() for one in some], "remove": remove if at == 0 else []}
            self.send_all(message, {one.fd_name: one.sock.fileno() for one in some})
        self._share_out()

    def vacate(self, ids: list[int]) -> None:
        """These sockets will let nobody new in."""
        self.send_all({"op": "listeners", "add": [], "remove": [], "vacate": ids})

    def drain(self, done: Callable[[], None]) -> None:
        """All finish what they have and go; `done` when none is left."""
        self._ending = True
        for frontend in self.all:
            if frontend.state in (State.STARTING, State.RUNNING):
                self._nursery.door.change(frontend, State.DRAINING, "asked to")
                self._nursery.send(frontend, {"op": "drain"})
            elif frontend.state in (State.BACKOFF, State.FAILED, State.NEW):
                self._nursery.door.change(frontend, State.GONE, "the server ends")
        self._drained = done
        if not any(frontend.alive for frontend in self.all):
            self._loop.soon(done)

    def _start(self, frontend: FrontEnd) -> None:
        self._incarnation += 1
        frontend.incarnation = self._incarnation
        frontend.stats = {}
        frontend.late = False
        frontend.configured = self._config_number
        source = f"front end {frontend.ordinal}"
        try:
            error_pipe, error = self._logs.new_pipe("error", source, True, None)
            try:
                access = self._logs.new_pipe("access", source)[1] if self.config.logs.access_log != "off" else -1
            except OSError:
                os.close(error)
                raise
        except OSError as problem:
            self._journal.error(f"{source}: no pipe to the logger: {problem.strerror}")
            self._nursery.door.change(frontend, State.STARTING, "started")
            self._nursery.door.change(frontend, State.BACKOFF, "no pipe to the logger")
            self._loop.after(1.0, lambda: self._again(frontend))
            return
        sockets = self._listeners.sockets()
        record = frontend_record(
            frontend.ordinal,
            frontend.incarnation,
            self._with_guests(),
            [one.to_record() for one in sockets[: FD_LIMIT - 1]],
            [] if self._holds else self._listeners.accepted_by(frontend.ordinal, self._accepting()),
            self.groups.records(),
        )
        fds = {one.fd_name: one.sock.fileno() for one in sockets[: FD_LIMIT - 1]}
        if access >= 0:
            fds["access"] = access
        first: list[tuple[dict[str, Any], dict[str, int]]] = [({"op": "record", "record": record}, fds)]
        for at in range(FD_LIMIT - 1, len(sockets), FD_LIMIT):
            some = sockets[at : at + FD_LIMIT]
            message = {"op": "listeners", "add": [one.to_record() for one in some], "remove": []}
            first.append((message, {one.fd_name: one.sock.fileno() for one in some}))
        process = frontend_process(frontend.ordinal, self._identity, self.config.server.open_files, self._null, error)
        self._nursery.start(frontend, process, first, self._packet, self._ended)
        close_all([error, access])
        if frontend.pid:
            self._logs.name(error_pipe, frontend.pid)
        self.groups.frontend_started(frontend)
        self._share_out()

    def _again(self, frontend: FrontEnd) -> None:
        if frontend.state is State.BACKOFF and not self._ending:
            self._start(frontend)

    def _accepting(self) -> set[int]:
        """Ordinals of those that take connections now; the others' neighbours accept for them."""
        return {one.ordinal for one in self.all if one.state is State.RUNNING and not one.late}

    def _share_out(self) -> None:
        """Tell each which sockets it accepts from, now that another has come or gone."""
        if self._ending:
            return
        accepting = self._accepting()
        for frontend in self.alive():
            ids = [] if self._holds else self._listeners.accepted_by(frontend.ordinal, accepting)
            self._nursery.send(frontend, {"op": "accept", "listeners": ids})

    def _packet(self, child: Child, message: dict[str, Any], fds: dict[str, int]) -> None:
        assert isinstance(child, FrontEnd)
        op = message["op"]
        if op == "beat":
            stats = message.get("stats")
            child.stats = stats if isinstance(stats, dict) else {}
            if child.late:
                child.late = False
                self._share_out()
        elif op == "ready":
            if child.state is State.STARTING:
                self._nursery.door.change(child, State.RUNNING, "ready")
                self._share_out()
                self.on_change()
        elif op == "configured":
            child.configured = int(message["generation"])
            self._check_configured()
        else:
            self.groups.frontend_says(child, message)

    def _check_configured(self) -> None:
        taken = min((one.configured for one in self.alive()), default=self._config_number)
        done = [entry for entry in self._config_waiting if entry[0] <= taken]
        self._config_waiting = [entry for entry in self._config_waiting if entry[0] > taken]
        for _, waiting in done:
            waiting()

    def _ended(self, child: Child, ending: Ending) -> None:
        assert isinstance(child, FrontEnd)
        now = self._loop.now()
        decision = after_end(ending.state, ending.event, not self._ending, child.backoff, child.started, now)
        if isinstance(decision, Restart):
            self._journal.error(f"{child.label} {ending.cause}; started again in {decision.at - now:.1f} s")
            child.backoff = decision.backoff
            self._crashes, count = self._crashes.after(now)
            if count:
                self._journal.error(sentence(count, "front ends", ending.cause))
            self._nursery.door.change(child, State.BACKOFF, ending.cause)
            self._loop.after(decision.at - now, lambda: self._again(child))
        elif isinstance(decision, GiveUp):
            self._journal.error(f"{child.label} {ending.cause}; it is not tried again")
            self._nursery.door.change(child, State.FAILED, ending.cause)
        else:
            if ending.state is not State.STOPPING and (ending.code or ending.signal):
                self._journal.error(f"{child.label} {ending.cause} while it was {ending.state.value}")
            self._nursery.door.change(child, State.GONE, ending.cause)
        child.why = ending.cause
        self.groups.frontend_gone(child)
        self._share_out()
        self._check_configured()
        self.on_change()
        if self._ending and not any(frontend.alive for frontend in self.all):
            self._drained()

    def watch(self) -> None:
        """Look at the heartbeats; called again and again."""
        now = self._loop.now()
        for frontend in self.all:
            if late(frontend.state, frontend.last_beat, now) and not frontend.late:
                frontend.late = True
                self._share_out()
            if not hung(frontend.state, frontend.last_beat, now) or frontend.stack_asked:
                continue
            frontend.stack_asked = True
            self._journal.error(
                f"{frontend.label} (process {frontend.pid}) hangs: no beat for {now - frontend.last_beat:.0f} s;"
                " its stack follows, then it is killed"
            )
            stopped = self._nursery.is_stopped(frontend)
            self._nursery.kill(frontend, signal.SIGUSR2)
            if stopped:
                self._nursery.kill(frontend, signal.SIGCONT)
            wait = STOPPED_STACK_WAIT if stopped else STACK_WAIT
            self._loop.after(wait, partial(self._kill_hung, frontend, frontend.pid))

    def _kill_hung(self, frontend: FrontEnd, pid: int) -> None:
        if frontend.pid == pid and frontend.state in (State.STARTING, State.RUNNING, State.DRAINING):
            self._nursery.kill_now(frontend, "it hung")
