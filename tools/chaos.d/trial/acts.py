"""The faults that are done to processes, disks and descriptors. Each returns what has to be undone, and what it hit.

An act chooses among what is there at that moment; if nothing is, it says so and counts as not done.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from trial import killer, slow
from trial.disks import limit_descriptors, lowest_free
from trial.faults import Planned
from trial.place import CONNECTIONS, OPEN_FILES, Place, Process

Undo = Callable[[], None]
SIGNALS = {"kill": signal.SIGKILL, "segv": signal.SIGSEGV, "term": signal.SIGTERM}
# What a terminal, or a service manager, may send to all of a server's processes: the supervisor alone heeds them.
IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGWINCH, signal.SIGPIPE)
SPARE = OPEN_FILES // 8  # descriptors that a front end keeps for its workers


@dataclass(frozen=True)
class Hit:
    """What an act has done. `undo` is called once its time is over."""

    target: str
    group: str = ""
    ports: frozenset[int] = frozenset()
    undo: Undo | None = None
    note: str = ""
    at: float = 0.0  # when it was over, where that is known better than by the return


class Missed(Exception):
    """Nothing was there to be hit."""


class Acts:
    def __init__(self, place: Place) -> None:
        self.place = place
        self.rotations = 0
        self._killer = subprocess.Popen(
            [sys.executable, "-I", killer.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def close(self) -> None:
        self._killer.communicate()

    def act(self, planned: Planned) -> Hit:
        """Carry it out. Raises Missed."""
        what, _, how = planned.kind.partition("-")
        try:
            if how in SIGNALS:
                return self._end(self._choose(what, planned), SIGNALS[how])
            if how == "stop":
                return self._stop(self._choose(what, planned))
            if how == "slow":
                return self._slow(what, planned)
            if what == "descriptors":
                return self._descriptors(self._choose(how, planned))
            if what == "signal":
                return self._ignored(planned)
            return {
                "log-full": self._log_full,
                "spool-full": self._spool_full,
                "log-rotate": self._rotate,
                "connections-held": self._hold,
            }[planned.kind]()
        except (ProcessLookupError, FileNotFoundError) as error:
            raise Missed(f"it has just ended: {error}") from None

    def _choose(self, kind: str, planned: Planned) -> Process:
        found = self.place.processes(kind)
        if not found:
            raise Missed(f"no {kind} is there")
        return found[int(planned.pick * len(found))]

    # Processes

    def _end(self, process: Process, number: signal.Signals) -> Hit:
        if process.kind == "frontend":
            return self._strike(process, number)
        os.kill(process.pid, number)
        return Hit(str(process), process.group)

    def _strike(self, process: Process, number: signal.Signals) -> Hit:
        assert self._killer.stdin is not None
        assert self._killer.stdout is not None
        self._killer.stdin.write(f"{process.pid} {self.place.port} {int(number)}\n")
        self._killer.stdin.flush()
        answer = json.loads(self._killer.stdout.readline())
        if "error" in answer:
            raise ProcessLookupError(answer["error"])
        ports = frozenset(answer["ports"])
        return Hit(str(process), process.group, ports, note=f"{len(ports)} connections", at=answer["at"])

    def _ignored(self, planned: Planned) -> Hit:
        """To the supervisor only the one that it ignores; to any of the others all of them."""
        found = [one for one in self.place.processes() if one.kind in ("worker", "manager", "frontend", "logger")]
        if planned.other < 0.2:
            os.kill(self.place.pid, signal.SIGWINCH)
            return Hit("supervisor", note="WINCH")
        if not found:
            raise Missed("no process is there")
        process = found[int(planned.pick * len(found))]
        for number in IGNORED:
            os.kill(process.pid, number)
        return Hit(str(process), note=f"{len(IGNORED)} signals")

    def _stop(self, process: Process) -> Hit:
        os.kill(process.pid, signal.SIGSTOP)
        return Hit(str(process), process.group, undo=lambda: _signal(process.pid, signal.SIGCONT))

    def _descriptors(self, process: Process) -> Hit:
        """None is left; to a front end those that it keeps for workers, as without them libzmq ends it."""
        number = lowest_free(process.pid) + (SPARE if process.kind == "frontend" else 0)
        limit_descriptors(process.pid, number)
        return Hit(str(process), process.group, undo=lambda: limit_descriptors(process.pid, None), note=f"at {number}")

    def _slow(self, what: str, planned: Planned) -> Hit:
        """Each of its system calls on files waits: for logs the logger's, else a front end's."""
        process = self._choose("logger" if what == "log" else "frontend", planned)
        tracer = slow.Tracer(process.pid, what)
        return Hit(str(process), undo=tracer.end, note=tracer.how)

    # Disks and connections

    def _log_full(self) -> Hit:
        return self._fill("logs", "logger")

    def _spool_full(self) -> Hit:
        return self._fill("spool", "frontend")

    def _fill(self, name: str, kind: str) -> Hit:
        disk = getattr(self.place, name)
        pids = [] if disk.mounted else self.place.pids(kind)
        disk.full(pids)
        return Hit(name, undo=lambda: disk.free(pids), note="" if disk.mounted else "by a limit of file size")

    def _rotate(self) -> Hit:
        """A missing name was rotated before, and not opened again for want of a descriptor: it is asked again."""
        self.rotations += 1
        there = [path for path in (self.place.error_log, self.place.access_log) if path.exists()]
        for path in there:
            os.rename(path, f"{path}.{self.rotations}")
        self.place.signal(signal.SIGUSR1)
        return Hit("logs", note="" if len(there) == 2 else "one was missing")

    def _hold(self) -> Hit:
        """As many connections as all front ends may have, and some more."""
        held: list[socket.socket] = []
        for _ in range(2 * CONNECTIONS + 20):
            sock = socket.socket()
            sock.setblocking(False)
            held.append(sock)
            try:
                sock.connect(("127.0.0.1", self.place.port))
            except BlockingIOError:
                pass
        return Hit("listener", undo=lambda: _close_all(held), note=f"{len(held)}")


def _close_all(held: list[socket.socket]) -> None:
    for sock in held:
        sock.close()


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def own_descriptors() -> None:
    """As many as may be: the client holds more connections than all front ends take."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
