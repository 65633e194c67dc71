"""Every child process of the supervisor: started from records, reaped, told apart from orphans, killed if it must be.

One door for all kinds; what a child's end means is for its owner, who is told with `on_end`.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from webserver.supervisor.confine import STEPS
from webserver.supervisor.journal import Journal
from webserver.supervisor.link import Link
from webserver.supervisor.loop import Loop
from webserver.supervisor.policy import STOP_WAIT, Event, cause
from webserver.supervisor.process import Child, ProcessRecord
from webserver.supervisor.spawn import Refusal, Steps, read_report, spawn
from webserver.supervisor.states import ALIVE, Door, State
from webserver.wire.control import close_all, pair

CONTROL_NUMBER = 3  # where a child finds its control connection
# What a step between fork and exec may fail of now and not the next time: trying again helps.
PASSING = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
END_WAIT = 5.0  # seconds from a child's end of file on its control connection to its exit


@dataclass(frozen=True)
class Ending:
    """How a child ended."""

    event: Event
    cause: str  # a sentence's end: "killed by SIGSEGV"
    code: int
    signal: int
    state: State  # it was in


OnPacket = Callable[[Child, dict[str, Any], dict[str, int]], None]
OnEnd = Callable[[Child, Ending], None]
OnOrphan = Callable[[int, str], None]


@dataclass(eq=False)
class _Adopted:
    """A process that another program of this server has started: no child of ours, so its end is told by others."""

    process: int  # pidfd; readable once it has ended
    on_end: OnEnd
    status: int | None = None  # as it has said itself, last of all


@dataclass(eq=False)
class _Running:
    child: Child
    on_end: OnEnd
    report: int  # -1 once read
    refusal: Refusal | None = None


class Nursery:
    def __init__(self, loop: Loop, door: Door, journal: Journal) -> None:
        self._loop = loop
        self._journal = journal
        self._running: dict[int, _Running] = {}
        self._adopted: dict[Child, _Adopted] = {}
        self._released: set[int] = set()
        self.door = door
        self.on_orphan: OnOrphan = lambda pid, how: None

    def start(
        self, child: Child, record: ProcessRecord, first: list[tuple[dict[str, Any], dict[str, int]]],
        on_packet: OnPacket, on_end: OnEnd, steps: Steps = STEPS,
    ) -> None:  # fmt: skip
        """Start `child` as `record` says and send it the packets of `first`. `on_end` is called once, never from here.

        The descriptors in the record and in `first` stay the caller's.
        """
        now = self._loop.now()
        child.started = child.last_beat = now
        child.stack_asked = False
        child.why = ""
        self.door.change(child, State.STARTING, "started")
        try:
            ours, theirs = pair()
        except OSError as error:
            self._failed(child, f"no control connection: {error.strerror}", on_end)
            return
        with theirs:
            try:
                descriptors = {**record.descriptors, CONTROL_NUMBER: theirs.fileno()}
                spawned = spawn(replace(record, descriptors=descriptors), steps)
            except OSError as error:
                ours.close()
                self._failed(child, f"fork: {error.strerror}", on_end)
                return
        running = _Running(child, on_end, spawned.report)
        child.pid = spawned.pid
        self._running[spawned.pid] = running
        self._loop.watch(spawned.report, lambda readable, writable: self._read_report(running))
        child.link = Link(
            self._loop,
            ours,
            lambda message, fds: self._packet(child, message, fds, on_packet),
            lambda why: self._lost(child, why),
        )
        for message, fds in first:
            child.link.send(message, fds)

    def send(self, child: Child, message: dict[str, Any], fds: dict[str, int] | None = None) -> None:
        if child.link is not None:
            child.link.send(message, fds)

    def kill(self, child: Child, number: int) -> None:
        """Send a signal. Safe until the child has been reaped, as its pid is not free before."""
        try:
            if child in self._adopted:
                signal.pidfd_send_signal(self._adopted[child].process, number)
            elif child.pid in self._running:
                os.kill(child.pid, number)
        except OSError:
            pass

    def is_stopped(self, child: Child) -> bool:
        """True if a signal has stopped it (SIGSTOP, a debugger)."""
        try:
            with open(f"/proc/{child.pid}/stat", "rb") as stream:
                return stream.read().rpartition(b")")[2].split()[:1] in ([b"T"], [b"t"])
        except OSError:
            return False

    def stop_now(self, child: Child, why: str) -> None:
        """End it: asked first, killed soon after."""
        if not child.alive or child.state is State.STOPPING:
            return
        self.door.change(child, State.STOPPING, why)
        self.kill(child, signal.SIGTERM)
        pid = child.pid
        self._loop.after(STOP_WAIT, lambda: self._kill_pid(child, pid))

    def kill_now(self, child: Child, why: str) -> None:
        if not child.alive:
            return
        if child.state is not State.STOPPING:
            self.door.change(child, State.STOPPING, why)
        self.kill(child, signal.SIGKILL)

    def reap(self) -> None:
        """Take the status of everything that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            running = self._running.pop(pid, None)
            try:
                if running is not None:
                    self._ended(running, status)
                elif pid not in self._released:
                    self.on_orphan(pid, cause(status)[0])
                self._released.discard(pid)
            except Exception as error:
                # One owner's mistake must not keep the others from learning of their children's ends.
                self._journal.bug(error)

    def children(self) -> list[Child]:
        return [*(running.child for running in self._running.values()), *self._adopted]

    def adopt(
        self, child: Child, pid: int, process: int, sock: socket.socket, on_packet: OnPacket, on_end: OnEnd
    ) -> None:  # fmt: skip
        """`child` is a process from now on that another program has started, and whose connection that has given away.

        `process`: its pidfd. Both descriptors are ours now. Its state is the caller's to change.
        """
        adopted = self._adopted[child] = _Adopted(process, on_end)
        child.pid = pid

        def heard(message: dict[str, Any], fds: dict[str, int]) -> None:
            if message["op"] == "ended":
                status = message.get("status")
                adopted.status = status if isinstance(status, int) else None
            else:
                self._packet(child, message, fds, on_packet)

        child.link = Link(self._loop, sock, heard, lambda why: self._lost(child, why))
        self._loop.watch(process, lambda readable, writable: self._adopted_ended(child))

    def part(self, child: Child) -> tuple[int, int]:
        """Another program is to have it: (its control connection, its pidfd), which are the caller's now.

        Raises OSError if that cannot be just now: then nothing has changed.
        """
        running, adopted = self._running.get(child.pid), self._adopted.get(child)
        if running is not None and running.report >= 0:
            self._read_report(running)
        if child.link is None or (running is not None and (running.report >= 0 or running.refusal is not None)):
            raise OSError(errno.EAGAIN, "it is still being started")
        process = os.dup(adopted.process) if adopted is not None else os.pidfd_open(child.pid)
        try:
            control = child.link.detach()
        except OSError:
            os.close(process)
            raise
        child.link = None
        if adopted is not None:
            self._loop.unwatch(adopted.process)
            os.close(adopted.process)
            del self._adopted[child]
        else:
            del self._running[child.pid]
            self._released.add(child.pid)
        child.pid = 0
        return control, process

    def process(self, child: Child) -> int:
        """A pidfd of it, which is the caller's. Raises OSError."""
        adopted = self._adopted.get(child)
        return os.dup(adopted.process) if adopted is not None else os.pidfd_open(child.pid)

    def release(self, child: Child) -> None:
        """It is nobody's child any more, though its connection stays: it lives longer than we do."""
        running = self._running.pop(child.pid)
        if running.report >= 0:
            self._loop.unwatch(running.report)
            os.close(running.report)
        self._released.add(child.pid)
        self.door.change(child, State.GONE, "released")

    def kill_orphans(self) -> int:
        """Kill what others' deaths have left to us (we are the subreaper); returns how many there are."""
        orphans = self._orphans()
        for pid in orphans:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        return len(orphans)

    def _orphans(self) -> list[int]:
        try:
            with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as stream:
                pids = [int(word) for word in stream.read().split()]
        except (OSError, ValueError):
            return []
        return [pid for pid in pids if pid not in self._running and pid not in self._released]

    def kill_left_by(self, warden: int, uid: int = -1) -> None:
        """Kill what a dead warden has left to us: known by its session, or by the environment that it was started with.

        That is little, and only where the warden was killed, as it leaves nobody behind by itself. `uid`: the warden
        was no child of ours, so what it has left may be anywhere; it is a process of this user.
        """
        mark = b"WEBSERVER_WARDEN=%d" % warden
        for pid in (self._orphans() if uid < 0 else _processes_of(uid)) if warden else ():
            try:
                # Held first: so it is the process that has been looked at which is killed.
                process = os.pidfd_open(pid)
            except OSError:
                continue
            try:
                if os.getsid(pid) != warden:
                    with open(f"/proc/{pid}/environ", "rb") as stream:
                        if mark not in stream.read().split(b"\0"):
                            continue
                signal.pidfd_send_signal(process, signal.SIGKILL)
            except OSError:
                pass
            finally:
                os.close(process)

    def _failed(self, child: Child, text: str, on_end: OnEnd) -> None:
        ending = Ending(Event.EXITED, text, 0, 0, child.state)
        self._loop.soon(lambda: on_end(child, ending))

    def _read_report(self, running: _Running) -> None:
        report = read_report(running.report)
        if report is False:
            return
        self._loop.unwatch(running.report)
        os.close(running.report)
        running.report = -1
        if isinstance(report, Refusal):
            running.refusal = report

    def _packet(self, child: Child, message: dict[str, Any], fds: dict[str, int], on_packet: OnPacket) -> None:
        # No child has a reason to send descriptors.
        close_all(fds.values())
        # Whatever it says: who speaks does not hang.
        child.last_beat = self._loop.now()
        try:
            on_packet(child, message, {})
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            self._journal.error(f"{child.label} sent a wrong {message['op'][:40]!r} packet: {error!r}")
            self.kill_now(child, "it broke the control protocol")

    def _lost(self, child: Child, why: str) -> None:
        if why:
            self._journal.error(f"{child.label} (process {child.pid}): {why}; it is killed")
            self.kill_now(child, why)
            return
        pid = child.pid
        self._loop.after(END_WAIT, lambda: self._kill_pid(child, pid))

    def _kill_pid(self, child: Child, pid: int) -> None:
        """Kill it if it is still the process that was meant."""
        if child.pid == pid and child.state in ALIVE:
            self.kill_now(child, "it did not end")

    def _ended(self, running: _Running, status: int) -> None:
        child = running.child
        if running.report >= 0:
            self._read_report(running)
        if running.report >= 0:  # an orphan of it holds the pipe open
            self._loop.unwatch(running.report)
            os.close(running.report)
        if child.link is not None:
            child.link.drain_input()
            child.link.close()
            child.link = None
        text, code, number = cause(status)
        event = Event.EXITED
        if running.refusal is not None:
            text = f"could not be started: {running.refusal}"
            event = Event.EXITED if running.refusal.number in PASSING else Event.REFUSED
        child.pid = 0
        running.on_end(child, Ending(event, text, code, number, child.state))

    def _adopted_ended(self, child: Child) -> None:
        adopted = self._adopted.pop(child)
        self._loop.unwatch(adopted.process)
        os.close(adopted.process)
        if child.link is not None:
            child.link.drain_input()
            child.link.close()
            child.link = None
        child.pid = 0
        if adopted.status is None:
            ending = Ending(Event.EXITED, "ended without a word", 1, 0, child.state)
        else:
            ending = Ending(Event.EXITED, *cause(adopted.status), child.state)
        try:
            adopted.on_end(child, ending)
        except Exception as error:
            self._journal.bug(error)


def _processes_of(uid: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                found.append(int(name))
        except OSError:
            pass
    return found
