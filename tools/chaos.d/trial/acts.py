"""The faults that are done to processes, disks and descriptors. Each returns what has to be undone, and what it hit.

An act chooses among what is there at that moment; if nothing is, it says so and counts as not done.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trial.disks import limit_descriptors, lowest_free
from trial.faults import Planned
from trial.place import CONNECTIONS, Place, Process

Undo = Callable[[], None]
SIGNALS = {"kill": signal.SIGKILL, "segv": signal.SIGSEGV}


@dataclass(frozen=True)
class Hit:
    """What an act has done. `undo` is called once its time is over."""

    target: str
    group: str = ""
    ports: frozenset[int] = frozenset()
    undo: Undo | None = None
    note: str = ""


class Missed(Exception):
    """Nothing was there to be hit."""


@dataclass
class Acts:
    place: Place
    rotations: int = 0

    def act(self, planned: Planned) -> Hit:
        """Carry it out. Raises Missed."""
        what, _, how = planned.kind.partition("-")
        try:
            if how in SIGNALS:
                return self._end(self._choose(what, planned), SIGNALS[how])
            if how == "stop":
                return self._stop(self._choose(what, planned))
            if what == "descriptors":
                return self._descriptors(self._choose(how, planned))
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
        ports: frozenset[int] = frozenset()
        if process.kind == "frontend":
            # Stopped first, so that what it holds when it dies is known exactly.
            os.kill(process.pid, signal.SIGSTOP)
            _wait_until_stopped(process.pid)
            ports = clients_of(process.pid, self.place.port)
        os.kill(process.pid, number)
        if number is not signal.SIGKILL:
            os.kill(process.pid, signal.SIGCONT)
        return Hit(str(process), process.group, ports, note=f"{len(ports)} connections" if ports else "")

    def _stop(self, process: Process) -> Hit:
        os.kill(process.pid, signal.SIGSTOP)
        return Hit(str(process), process.group, undo=lambda: _signal(process.pid, signal.SIGCONT))

    def _descriptors(self, process: Process) -> Hit:
        number = lowest_free(process.pid)
        limit_descriptors(process.pid, number)
        return Hit(str(process), process.group, undo=lambda: limit_descriptors(process.pid, None), note=f"at {number}")

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


def _wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        states = [
            (task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()
        ]
        if all(state in "Tt" for state in states):
            return
        time.sleep(0.0005)


def clients_of(pid: int, port: int) -> frozenset[int]:
    """The clients' ports of the TCP connections to 127.0.0.1:`port` that a process holds."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if link.startswith("socket:["):
            inodes.add(link[8:-1])
    address = f"{struct.unpack('=I', socket.inet_aton('127.0.0.1'))[0]:08X}:{port:04X}"
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1] == address and words[9] in inodes:
            found.add(int(words[2].partition(":")[2], 16))
    return frozenset(found)


def own_descriptors() -> None:
    """As many as may be: the client holds more connections than all front ends take."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
