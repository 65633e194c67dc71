"""The next server program, started beside this one: it is handed what it needs, and takes over once it serves.

Until it says so nothing changes here. If it does not come up, what it said is told, and all goes on as before.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from webserver.config.units import seconds_text
from webserver.supervisor.commands import Answer
from webserver.supervisor.companion_handover import there
from webserver.supervisor.companions import Companions
from webserver.supervisor.frontends import FrontEnds
from webserver.supervisor.groups import Groups
from webserver.supervisor.handover import VARIABLE, VERSION, Program, listen_of, listen_record
from webserver.supervisor.identity import own_identity
from webserver.supervisor.journal import Journal
from webserver.supervisor.listeners import Listeners
from webserver.supervisor.loop import Loop
from webserver.supervisor.nursery import CONTROL_NUMBER, Ending, Nursery
from webserver.supervisor.policy import START_MARGIN
from webserver.supervisor.process import Child, Plan, ProcessRecord
from webserver.supervisor.rundir import RunDirectory
from webserver.supervisor.states import State
from webserver.wire.control import FD_LIMIT, close_all

OWN_TIME = 30.0  # seconds that a new program has besides what its groups take to start
SAID_LIMIT = 16384  # bytes of what it says that are kept

Packet = tuple[dict[str, Any], dict[str, int]]


@dataclass(frozen=True)
class Server:
    """What is handed over, and whose it is."""

    loop: Loop
    nursery: Nursery
    journal: Journal
    listeners: Listeners
    frontends: FrontEnds
    groups: Groups
    companions: Companions
    run: RunDirectory
    program: Program
    open_files: tuple[int, int]  # limits, as this program was started with
    worker: Callable[[], int]  # the newest worker's incarnation


class Upgrade:
    """One try. `taken_over` is called when the new program serves, `done` once with how it went."""

    def __init__(self, server: Server, taken_over: Callable[[list[Any], list[str]], None], done: Answer) -> None:
        self._server = server
        self._taken_over = taken_over
        self._done: Answer | None = done
        self._said = b""
        self._reader = -1
        self.child = Child("successor", "")

    def run(self) -> None:
        server = self._server
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        server.loop.watch(self._reader, self._read)
        server.groups.reserve()
        try:
            known = there(server.companions.roles.values(), server.companions.gone)
            first = [*known, *self._first()]
            server.nursery.start(self.child, self._process(writer), first, self._packet, self._ended, STEPS)
            for _, processes in known:
                close_all(processes.values())
        finally:
            os.close(writer)
        limit = OWN_TIME + max(
            (2 * group.start_timeout + START_MARGIN for group in server.frontends.config.groups), default=0.0
        )
        pid = self.child.pid
        server.loop.after(limit, lambda: self._too_late(pid, limit))
        server.journal.notice(f"the new program is started as process {pid}")

    def cancel(self, why: str) -> None:
        """The server ends before the new program serves."""
        self._server.nursery.stop_now(self.child, why)

    def tell(self, connections: int) -> None:
        """The new program shows how far we are."""
        self.send({"op": "draining", "connections": connections}, {})

    def send(self, message: dict[str, Any], fds: dict[str, int]) -> None:
        self._server.nursery.send(self.child, message, fds)

    def _process(self, writer: int) -> ProcessRecord:
        program = self._server.program
        # Its standard error is a pipe to us until it serves: what it says, if only that it cannot be loaded, is told.
        return ProcessRecord(
            "successor", "", program.argv, own_identity(), {0: 0, 1: 1, 2: writer}, directory=program.directory,
            environment={**program.environment, VARIABLE: str(CONTROL_NUMBER)},
            limits=((resource.RLIMIT_NOFILE, *self._server.open_files),),
        )  # fmt: skip

    def _first(self) -> list[Packet]:
        server = self._server
        packets: list[Packet] = []
        sockets = server.listeners.sockets()
        for at in range(0, len(sockets), FD_LIMIT):
            some = sockets[at : at + FD_LIMIT]
            add = [{"fd": one.fd_name, "listen": listen_record(one.listen), **one.to_record()} for one in some]
            packets.append(({"op": "listeners", "add": add}, {one.fd_name: one.sock.fileno() for one in some}))
        roles = server.groups.roles.values()
        handover = {
            "op": "handover",
            "version": VERSION,
            "pid": os.getpid(),
            "companions": True,
            "run": server.run.path,
            "serving": [role.name for role in roles if role.state is State.RUNNING],
            "ids": server.groups.ids(),
            "generations": server.groups.generation_numbers(),
            "incarnation": server.frontends.incarnation,
            "worker": server.worker(),
            "addresses": [
                {"listen": listen_record(one.listen), "inode": one.inode} for one in server.listeners.addresses.values()
            ],
        }
        packets.append((handover, {"lock": server.run.lock, "stderr": 2}))
        return packets

    def _packet(self, child: Child, message: dict[str, Any], fds: dict[str, int]) -> None:
        if message["op"] != "serving" or child.state is not State.STARTING:
            raise ValueError(f"unknown op {message['op']!r}")
        addresses = [listen_of(one) for one in message["addresses"]]
        companions = [str(name) for name in message.get("companions", [])]
        pid = child.pid
        self._server.nursery.door.change(child, State.RUNNING, "it serves")
        self._server.nursery.release(child)
        self._stop_reading()
        self._server.journal.notice(f"process {pid} serves now, with a program of its own; this one finishes and ends")
        self._taken_over(addresses, companions)
        self._answer({"ok": True, "errors": [], "notes": [], "pid": pid})

    def _ended(self, child: Child, ending: Ending) -> None:
        self._read(True, False)
        self._stop_reading()
        self._server.nursery.door.change(child, State.GONE, ending.cause)
        self._server.groups.unreserve()
        said = self._said.decode("utf-8", "replace").strip()
        text = f"the new program {child.why or ending.cause}" + (f": {said}" if said else " and said nothing")
        self._server.journal.error(f"upgrade: {text}; this one goes on")
        self._answer({"ok": False, "errors": [f"{text}; the old program goes on"], "notes": []})

    def _answer(self, message: dict[str, Any]) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(message)

    def _too_late(self, pid: int, limit: float) -> None:
        if self.child.pid == pid and self.child.state is State.STARTING:
            self.child.why = f"did not serve within {seconds_text(round(limit, 3))}"
            self._server.nursery.stop_now(self.child, "it is too late")

    def _read(self, readable: bool, writable: bool) -> None:
        while self._reader >= 0:
            try:
                data = os.read(self._reader, 65536)
            except OSError:
                return
            if not data:
                self._stop_reading()
                return
            self._said = (self._said + data)[-SAID_LIMIT:]

    def _stop_reading(self) -> None:
        if self._reader >= 0:
            self._server.loop.unwatch(self._reader)
            os.close(self._reader)
            self._reader = -1


def _limits(plan: Plan) -> None:
    for number, soft, hard in plan.record.limits:
        resource.setrlimit(number, (soft, hard))


def _exec(plan: Plan) -> None:
    os.execve(plan.record.argv[0], plan.record.argv, dict(plan.record.environment))


# It is to be what this program was at its start: nothing is given up, and our death is not its own.
STEPS: tuple[tuple[str, Callable[[Plan], None]], ...] = (
    ("session", lambda plan: os.setsid()),
    ("resource limits", _limits),
    ("directory", lambda plan: os.chdir(plan.record.directory)),
    ("exec", _exec),
)
