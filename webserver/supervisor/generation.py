"""One generation of a group: its socket directory, its manager, its workers' pages, from first bind to the last end.

Decides nothing about when generations come and go; its owner (group.py) is told of what it must know by the calls of
`Owner`. Everything the manager says is a claim of the group's user: numbers are checked, pids are never signalled.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from webserver.config import Group
from webserver.config.units import seconds_text
from webserver.supervisor.crew import Crew
from webserver.supervisor.deadlines import Deadlines
from webserver.supervisor.frontends import FrontEnd
from webserver.supervisor.identity import Identity
from webserver.supervisor.loaded import NOTHING_YET, Loaded
from webserver.supervisor.nursery import Ending
from webserver.supervisor.parts import Owner, Parts
from webserver.supervisor.policy import SHOW_SIGNAL, SHOW_WAIT, START_MARGIN, WANTED_EVERY, Event
from webserver.supervisor.process import NOWHERE, Child, Room
from webserver.supervisor.records import generation_record, manager_process, manager_record
from webserver.supervisor.states import Stage, State, next_stage
from webserver.supervisor.workers import Worker

ORPHAN_WAIT = 1.0  # seconds for a dead manager's workers to follow it; their death signal does it
WAITING = 1 << 20  # requests of which a manager is told at most


@dataclass(eq=False)
class Generation:
    parts: Parts
    owner: Owner
    config: Group
    identity: Identity
    group_id: int
    number: int
    prove: bool = False  # it is to replace another one: on demand or not, a worker shows first that it can
    stage: Stage = Stage.BINDING
    directory: str = ""
    room: Room = NOWHERE
    paths: dict[int, str] = field(default_factory=dict)  # by front-end ordinal
    serving: set[int] = field(default_factory=set)  # ordinals
    failure: str = ""  # what was said last about why it does not start
    loaded: Loaded = NOTHING_YET
    asked_to_leave: bool = False

    def __post_init__(self) -> None:
        self.manager = Child("manager", self.config.name)
        self.crew = Crew(self.parts, self.config, self.number, self.manager)
        self._wanted = 0.0  # when the manager was last told that requests wait
        self._spoke = False  # the manager has sent anything
        self.hung_again = 0.0  # not to be replaced for a hung manager before this time
        self._leaving: float | None = None  # when its workers were asked to end
        self._deadline: float | None = None  # when those that have not ended by then are killed
        self.outdated = ""  # a file that it is made of and that has changed
        self._undrained: set[int] = set()
        self._deadlines = Deadlines(self)

    @property
    def label(self) -> str:
        return f"group {self.config.name} generation {self.number}"

    @property
    def workers(self) -> dict[int, Worker]:
        """By incarnation."""
        return self.crew.workers

    @property
    def live(self) -> bool:
        return self.stage not in (Stage.CLOSING, Stage.CLOSED)

    def begin(self) -> None:
        """Make the directory and have front ends bind there. Raises OSError."""
        parts = self.parts
        self.directory = parts.run.make_generation(self.group_id, self.number, parts.frontend_identity, self.identity)
        self.room = Room(self.directory, parts.cgroups.make(self.config, self.number))
        parts.frontends.send_all({"op": "generation", **self.record()})

    def record(self) -> dict[str, Any]:
        return generation_record(self.config, self.group_id, self.number, self.directory, self.identity)

    def drain(self, last: bool = False) -> None:
        """Let front ends finish what is here, then the workers. `last`: and what waits, as no generation follows."""
        if last:
            self.crew.release()
        else:
            self.crew.refuse()
        if self.stage in (Stage.SERVING, Stage.PROBING):
            self.stage = next_stage(self.stage, Stage.DRAINING)
            self._undrained = {one.ordinal for one in self.parts.frontends.alive()}
            self._deadline = self.parts.loop.now() + self.config.drain_timeout
            self.parts.loop.after(self.config.drain_timeout, self._drained_too_long)
            self.parts.frontends.send_all({"op": "drain-generation", **self._named(), "last": last})
            self._check_drained()
        elif self.live and self.stage is not Stage.DRAINING:
            self.leave()

    def leave(self) -> None:
        """End the workers in order and then the manager; front ends have nothing here any more."""
        if self.stage is Stage.BINDING:
            self._close("dropped before it started")
        elif self.live and self.stage is not Stage.LEAVING:
            self.stage = next_stage(self.stage, Stage.LEAVING)
            self.asked_to_leave = True
            self._leaving = self.parts.loop.now()
            self._deadline = self._deadline or self._leaving + self.config.drain_timeout
            if self.manager.state in (State.STARTING, State.RUNNING):
                self.parts.nursery.door.change(self.manager, State.DRAINING, "asked to")
                self.parts.nursery.send(self.manager, {"op": "drain"})

    def stop_now(self, why: str) -> None:
        self.asked_to_leave = True
        if self.stage is Stage.BINDING:
            self._close(why)
        else:
            self.parts.nursery.stop_now(self.manager, why)

    def watch(self) -> None:
        """Look at the workers' pages for requests that do not end, and for workers that do not."""
        self._deadlines.look(self._leaving, self._deadline)
        self.owner.generation_moved(self)

    # What front ends say

    def silent(self, frontend: FrontEnd, incarnation: int) -> None:
        worker = self.workers.get(incarnation)
        if worker is not None:
            cause = "it did not answer a front end: stopped, or out of control"
            self.parts.nursery.send(self.manager, {"op": "kill", "worker": incarnation, "cause": cause})

    def bound(self, frontend: FrontEnd, path: str) -> None:
        # Managers pass it on to workers, which connect there: it must be where we said.
        if os.path.dirname(path) != self.directory:
            raise ValueError(f"bound in {path}")
        self.paths[frontend.ordinal] = path
        if self.stage is Stage.BINDING:
            self._check_bound()
        elif self.live:
            self._tell_frontends()

    def served(self, frontend: FrontEnd, incarnation: int) -> None:
        self.serving.add(frontend.ordinal)
        self.crew.served(frontend, incarnation)
        self.check_serving()
        self.owner.generation_moved(self)

    def wanted(self, queued: int) -> None:
        """So many requests wait in a front end. Said again for as long as they do, so that one may be passed over."""
        now = self.parts.loop.now()
        if self.manager.state is State.RUNNING and now - self._wanted >= WANTED_EVERY:
            self._wanted = now
            self.parts.nursery.send(self.manager, {"op": "wanted", "queued": min(max(1, queued), WAITING)})

    def drained(self, frontend: FrontEnd) -> None:
        self._undrained.discard(frontend.ordinal)
        self._check_drained()

    def broken(self, frontend: FrontEnd, reason: str) -> None:
        self.parts.journal.error(f"{self.label}: {frontend.label} closed its connections: {reason}")
        if self.stage is Stage.BINDING:
            self.failure = reason
            self._close(reason)
            return
        # It does not come back by itself: the front end has closed its socket of this generation.
        self.parts.nursery.stop_now(self.manager, "it broke the protocol")

    def frontend_gone(self, frontend: FrontEnd) -> None:
        if self.directory:
            self.parts.run.remove_socket(self.directory, frontend.incarnation)
        self.paths.pop(frontend.ordinal, None)
        self.serving.discard(frontend.ordinal)
        self._undrained.discard(frontend.ordinal)
        if self.stage is Stage.BINDING:
            self._check_bound()
        elif self.live:
            self.crew.frontend_gone(frontend)
            self._tell_frontends()
            self.check_serving()
            self._check_drained()
            self.owner.generation_moved(self)

    # What the manager says

    def _packet(self, child: Child, message: dict[str, Any], fds: dict[str, int]) -> None:
        self._spoke = True
        op = message["op"]
        if op == "grant":
            self.crew.grant(int(message["number"]), int(message["slots"]))
            self.owner.generation_moved(self)
        elif op == "up":
            self.crew.up(int(message["worker"]), int(message["pid"]))
        elif op == "ready":
            self._ready(int(message["worker"]))
        elif op == "gone":
            self._gone(message)
        elif op == "going":
            self.crew.going(int(message["worker"]), str(message["cause"]))
        elif op == "retiring":
            self.crew.retiring(int(message["worker"]), str(message["cause"]))
        elif op == "loaded":
            self.loaded = Loaded.claimed(message)
            self._check_asleep()
        elif op == "failed":
            self.failure = str(message["message"])[:4000]
        elif op == "outdated":
            self.outdated = str(message["file"])[:1000]
            self.owner.generation_outdated(self, self.outdated)
        elif op != "beat":
            raise ValueError(f"unknown op {op!r}")

    def _ready(self, incarnation: int) -> None:
        if not self.crew.ready(incarnation):
            return
        self.watch()  # with a short request_timeout it is to be looked at soon
        if self.stage is Stage.LOADING:
            self.stage = next_stage(self.stage, Stage.PROBING)
            self.check_serving()
        self.owner.generation_moved(self)

    def _gone(self, message: dict[str, Any]) -> None:
        worker = self.workers.get(message["worker"])
        if worker is None:
            return
        cause = str(message["cause"])[:500]
        orderly = message.get("code") == 0 and not message.get("signal")
        if orderly and worker.why:
            cause = worker.why  # its language has ended the request that was stuck
        if not orderly or worker.why:
            self.owner.worker_died(worker, cause)
        was_ready = worker.ready
        self.crew.forget(worker, cause, excused=bool(worker.why) or worker.asked is not None)
        self.owner.generation_moved(self)
        if self.stage is Stage.PROBING and not any(one.ready for one in self.workers.values()):
            self.stage = next_stage(self.stage, Stage.LOADING)
        # One of many is tried again, but not while it has to show that the whole generation starts.
        matters = self.stage is Stage.LOADING or (self.stage in (Stage.PROBING, Stage.SERVING) and self.crew.holding)
        if matters and not was_ready and not orderly:
            self.failure = self.failure or f"worker {worker.number}: {cause}; the error log has what it said"
            self.owner.generation_failed(self, self.failure)

    # Its own course

    def _check_bound(self) -> None:
        alive = self.parts.frontends.alive()
        if alive and all(one.ordinal in self.paths for one in alive):
            self.stage = next_stage(self.stage, Stage.LOADING)
            self._spawn()

    def _spawn(self) -> None:
        parts = self.parts
        try:
            pipe, log = parts.logs.new_pipe("error", f"group {self.config.name}", True, self.config.name)
        except OSError as error:
            self.failure = f"no pipe to the logger: {error.strerror}"
            self._manager_ended(self.manager, Ending(Event.EXITED, self.failure, 0, 0, State.NEW))
            return
        record = manager_record(self.config, self.number, self._frontend_list(), self.prove)
        process = manager_process(self.config, self.identity, parts.open_files, parts.null, log, self.room)
        first: list[tuple[dict[str, Any], dict[str, int]]] = [({"op": "record", "record": record}, {})]
        parts.nursery.start(self.manager, process, first, self._packet, self._manager_ended)
        os.close(log)
        if self.manager.pid:
            parts.logs.name(pipe, self.manager.pid)
        parts.loop.after(2 * self.config.start_timeout + START_MARGIN, self._overdue)

    def _overdue(self) -> None:
        if self.stage in (Stage.LOADING, Stage.PROBING):
            limit = self.config.start_timeout
            self.failure = self.failure or f"it did not start within start_timeout = {limit:g} s, twice over"
            self.parts.journal.error(f"{self.label}: {self.failure}; it is stopped")
            wait = 0.0
            if self.loaded is NOTHING_YET:  # what hangs while it is loaded in the manager writes where that is
                self.parts.nursery.kill(self.manager, SHOW_SIGNAL)
                wait = SHOW_WAIT
            self.parts.loop.after(wait, lambda: self.parts.nursery.stop_now(self.manager, self.failure))

    def check_serving(self) -> None:
        alive = self.parts.frontends.alive()
        if self.stage is Stage.PROBING and alive and all(one.ordinal in self.serving for one in alive):
            self._serves("its first worker serves")

    def _check_asleep(self) -> None:
        """A group whose workers are made on demand serves without one: what comes waits until one is there."""
        if self.stage is Stage.LOADING and not self.config.processes_min and not self.prove:
            self._serves("it is loaded, and its workers are started on demand")

    def _serves(self, why: str) -> None:
        self.stage = next_stage(self.stage, Stage.SERVING)
        if self.manager.state is State.STARTING:
            self.parts.nursery.door.change(self.manager, State.RUNNING, why)
        self.owner.generation_serves(self)

    def _check_drained(self) -> None:
        if self.stage is Stage.DRAINING and not self._undrained:
            self.leave()

    def _drained_too_long(self) -> None:
        if self.stage is Stage.DRAINING:
            limit = seconds_text(self.config.drain_timeout)
            self.parts.journal.error(f"{self.label}: requests are left after drain_timeout = {limit}; they are cut off")
            self.leave()

    def _tell_frontends(self) -> None:
        self.parts.nursery.send(self.manager, {"op": "frontends", "frontends": self._frontend_list()})

    def _frontend_list(self) -> list[dict[str, Any]]:
        return [
            {"ordinal": one.ordinal, "incarnation": one.incarnation, "path": self.paths[one.ordinal]}
            for one in self.parts.frontends.all
            if one.ordinal in self.paths
        ]

    def _manager_ended(self, child: Child, ending: Ending) -> None:
        parts = self.parts
        parts.nursery.door.change(child, State.GONE, ending.cause)
        child.why = ending.cause
        self.stage = next_stage(self.stage, Stage.CLOSING)
        if not self.asked_to_leave:
            if ending.event is Event.EXITED and not self._spoke:
                self.failure = self.failure or (
                    f"interpreter {self.config.interpreter} {ending.cause} before it ran anything of the server;"
                    " expected a Python program of version 3.9 or newer; the error log has what it said"
                )
            said = f": {self.failure}" if self.failure else ""
            parts.journal.error(f"manager of {self.label} {ending.cause}{said}")
        self.owner.generation_ended(self, ending)
        if self.workers:
            parts.loop.after(ORPHAN_WAIT, self._forget_orphans)
        else:
            self._close("")

    def orphan_reaped(self, pid: int, cause: str) -> bool:
        """A process that was left to us has ended; True if it was a worker of this generation's dead manager."""
        for worker in list(self.workers.values()):
            if self.stage is Stage.CLOSING and worker.pid == pid:
                self.crew.forget(worker, f"{cause} after its manager had died")
                if not self.workers:
                    self._close("")
                return True
        return False

    def _forget_orphans(self) -> None:
        for worker in list(self.workers.values()):
            self.crew.forget(worker, "its manager had died")
        self._close("")

    def _close(self, why: str) -> None:
        if self.stage is Stage.CLOSED:
            return
        if self.stage is not Stage.CLOSING:
            self.stage = next_stage(self.stage, Stage.CLOSING)
        self.stage = next_stage(self.stage, Stage.CLOSED)
        if self.manager.state is State.NEW:
            self.parts.nursery.door.change(self.manager, State.GONE, why)
        self.parts.frontends.send_all({"op": "close-generation", **self._named()})
        self.parts.run.remove_generation(self.directory)
        self.parts.cgroups.remove(self.room.cgroup)
        self.owner.generation_closed(self)

    def _named(self) -> dict[str, Any]:
        return {"group": self.config.name, "generation": self.number}
