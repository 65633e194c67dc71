"""One instance of a companion: its program started, watched until it is ready, asked to end, started again.

It owns one Child, whose process is the program's warden (webserver/warden/warden.h). What the warden says is a claim of
the companion's user: the program's pid is shown and never signalled; signals go to the warden, and by it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from webserver.config import Companion
from webserver.config.units import seconds_text
from webserver.supervisor.cgroups import Cgroups
from webserver.supervisor.companion_passing import Given, Passing
from webserver.supervisor.companion_policy import PROGRESS_EVERY, Rest, Voice, after_run
from webserver.supervisor.companion_records import companion_process, label
from webserver.supervisor.identity import Identity
from webserver.supervisor.journal import Journal
from webserver.supervisor.logs import Logs
from webserver.supervisor.loop import Loop, Timer
from webserver.supervisor.nursery import Ending, Nursery
from webserver.supervisor.policy import Backoff, Event, GiveUp, Restart
from webserver.supervisor.process import Child
from webserver.supervisor.states import State

_TEXT = 500  # characters of what a warden says
_IDLE = frozenset({State.NEW, State.WAITING, State.BACKOFF, State.ENDED, State.FAILED})


@dataclass(frozen=True)
class CompanionParts:
    """What every companion works with."""

    loop: Loop
    nursery: Nursery
    journal: Journal
    logs: Logs
    null: int
    open_files: tuple[int, int]
    cgroups: Cgroups


class Instance:
    def __init__(
        self, parts: CompanionParts, config: Companion, identity: Identity, number: int, on_change: Callable[[], None]
    ) -> None:  # fmt: skip
        self.parts = parts
        self._on_change = on_change
        self.config = config
        self.identity = identity
        self.number = number
        self.child = Child("companion", label(config, number))
        self.pid = 0  # of the program, as its warden says
        self.ready = False
        self.finished = False  # its last run ended with status 0
        self.message = ""  # why it does not run, or did not when it was last tried
        self.said = ""  # by the program itself, of what it does
        self.restarts = 0
        self._wanted = False
        self.again = False  # start it once more when it has ended
        self._expired = False  # its end was asked for, as its run took too long
        self._next: tuple[Companion, Identity] | None = None  # from its next start on
        self._failure = ""
        self._voice = Voice()
        self.warden = 0  # its pid, also after its end
        self.pipe = 0
        self.cgroup = ""
        self.since = 0.0  # it runs
        self._starts = 0
        self._foreign = False  # another program of this server has started what runs now
        self._ours = True  # to start; else another program's before long
        self._passing: Passing | None = None
        self._limits: list[Timer] = []  # of the run or of the stop
        self._retry: Timer | None = None

    @property
    def alive(self) -> bool:
        return self.child.alive

    @property
    def active(self) -> bool:
        """It runs, or will do so again by itself before long."""
        return self.child.alive or (self.child.state is State.BACKOFF and self._ours)

    @property
    def is_ready(self) -> bool:
        if self.config.ready == "finished":
            return self.finished and self.child.state is State.ENDED
        return self.ready and self.child.state is State.RUNNING

    @property
    def trouble(self) -> str:
        """Why nobody should wait for it, as far as it is known; "" while it may yet become ready, or is."""
        if self.child.state in (State.BACKOFF, State.FAILED):
            return self.message or self.child.why
        return "it has ended" if self.child.state is State.ENDED and not self.is_ready else ""

    def start(self) -> None:
        """Start it now if it does not run; one that is about to end is started again."""
        self._wanted = True
        if self.child.state in _IDLE:
            self._forget_timers()
            self._spawn()
        elif self.child.state in (State.DRAINING, State.STOPPING):
            self.again = True

    def wait(self, why: str) -> None:
        """It is wanted, but not yet."""
        self._wanted = True
        if self.child.state in (State.NEW, State.WAITING, State.ENDED, State.FAILED):
            self.message = ""
            self._change(State.WAITING, why)

    def stop(self, why: str, again: bool = False) -> None:
        """Ask it to end, as it says how; `again`: and start it once more then."""
        self._wanted = self.again = again
        if self.child.state in (State.STARTING, State.RUNNING):
            self._change(State.DRAINING, why)
            self._ask()
        elif self.child.state in _IDLE:
            self._forget_timers()
            if again:
                self._spawn()
            elif self.child.state is not State.ENDED:
                self._change(State.ENDED, why)

    def stop_now(self, why: str) -> None:
        """Kill it, and everything below it."""
        self._wanted = self.again = False
        if self.alive:
            self.parts.nursery.stop_now(self.child, why)
        elif self.child.state in _IDLE - {State.ENDED}:
            self._forget_timers()
            self._change(State.ENDED, why)

    def expire(self) -> None:
        """A run at a time takes too long: its end is asked for, and counts as a failure."""
        if self.child.state in (State.STARTING, State.RUNNING):
            self._failure = f"it ran longer than timeout = {seconds_text(self.config.timeout)}"
            self._expired = True
            self._change(State.DRAINING, self._failure)
            self._ask()

    def reuse(self, config: Companion) -> None:
        """Other rules for the process that there is."""
        self.config = config
        self.child.name = label(config, self.number)

    def become(self, config: Companion, identity: Identity) -> None:
        """From its next start on. What runs now ends by the rules that it was started with."""
        self._next = (config, identity)

    # From one server program to the next: companion_passing.py

    def resign(self) -> None:
        """It is another program's to start again. What runs goes on."""
        self._ours = False
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def hand_over(self, given: Given) -> None:
        self.resign()
        self._passing = Passing(self, given)

    def gave_away(self) -> None:
        self._forget_timers()
        self.pid = self.warden = 0
        self.parts.cgroups.give_away(self.cgroup)
        self.cgroup = ""
        self._change(State.GONE, "it is another program's now")

    def next_start(self) -> str:
        """A name for its cgroup."""
        self._starts += 1
        return f"{self.number}.{self._starts}"

    def go_on(self, running: bool, since: float) -> None:
        """It has been started by another program."""
        self._wanted = self._foreign = True
        if running:
            self._running("it runs since before the upgrade", since)
        else:
            passed = self.parts.loop.now() - self.child.started
            self._limits.append(self.parts.loop.after(self.config.start_timeout - passed, self._overdue))
            self._on_change()

    # Its process

    def _spawn(self) -> None:
        parts = self.parts
        if self._next is not None:
            self.config, self.identity = self._next
            self.child.name = label(self.config, self.number)
            self._next = None
        self.ready = self.finished = self.again = self._expired = False
        self.said = self._failure = ""
        try:
            pipe, log = parts.logs.new_pipe("error", self.child.label, waits=True)
        except OSError as error:
            self.child.started = parts.loop.now()
            self._change(State.STARTING, "started")
            self._failure = f"no pipe to the logger: {error.strerror}"
            ending = Ending(Event.EXITED, self._failure, 0, 0, self.child.state)
            parts.loop.soon(lambda: self.ended(self.child, ending))
            return
        self.pipe = pipe
        self._foreign = False
        self.cgroup = parts.cgroups.make(self.config, self.next_start())
        process = companion_process(
            self.config, self.number, self.identity, parts.open_files, parts.null, log, self.cgroup
        )
        parts.nursery.start(self.child, process, [], self.packet, self.ended)
        os.close(log)
        self.warden = self.child.pid
        self._limits.append(parts.loop.after(self.config.start_timeout, self._overdue))
        self._on_change()

    def packet(self, child: Child, message: dict[str, Any], fds: dict[str, int]) -> None:
        op = message["op"]
        if op == "up":
            self.pid = int(message["pid"])
            self.parts.logs.name(self.pipe, self.pid)
        elif op == "ready":
            self.ready = True
            if child.state is State.STARTING:
                self._running("ready")
        elif op == "said":
            self.said = str(message["text"])[:_TEXT]
        elif op == "failed":
            self._failure = str(message["text"])[:_TEXT]
        elif op == "ended":
            pass  # its end tells more, and is ours to see
        else:
            raise ValueError(f"unknown op {op!r}")

    def _running(self, why: str, since: float | None = None) -> None:
        now = self.parts.loop.now()
        self._forget_timers()
        self.message = ""
        self.since = now if since is None else since
        self._change(State.RUNNING, why)
        if self.config.timeout and self.config.timed:
            self._limits.append(self.parts.loop.after(self.since + self.config.timeout - now, self.expire))
        self._on_change()

    def _overdue(self) -> None:
        if self.child.state is State.STARTING:
            what = "finished" if self.config.ready == "finished" else "ready"
            self._failure = f"it was not {what} within start_timeout = {seconds_text(self.config.start_timeout)}"
            self.parts.nursery.stop_now(self.child, self._failure)

    def _ask(self) -> None:
        """Send the stop signal, and set the deadline if there is one."""
        self._forget_timers()
        parts, limit = self.parts, self.config.stop_timeout
        # A warden that has been stopped by hand passes nothing on.
        parts.nursery.kill(self.child, signal.SIGCONT)
        number = int(getattr(signal, f"SIG{self.config.stop_signal}"))
        parts.nursery.send(self.child, {"op": "signal", "number": number})
        if limit:
            self._limits.append(parts.loop.after(limit, self._too_late))
        self._limits.append(parts.loop.after(PROGRESS_EVERY, lambda: self._tell_progress(PROGRESS_EVERY)))

    def _too_late(self) -> None:
        if self.child.state is State.DRAINING:
            self.parts.journal.error(
                f"{self.child.label} did not end within stop_timeout = {seconds_text(self.config.stop_timeout)}"
                f" after SIG{self.config.stop_signal}; it is killed"
            )
            self.parts.nursery.stop_now(self.child, "it did not end within stop_timeout")

    def _tell_progress(self, waited: float) -> None:
        if self.child.state is State.DRAINING:
            limit = seconds_text(self.config.stop_timeout) if self.config.stop_timeout else "none"
            said = f"; it says: {self.said}" if self.said else ""
            self.parts.journal.notice(
                f"{self.child.label} was asked to end {seconds_text(waited)} ago, stop_timeout = {limit}{said}"
            )
            more = waited + PROGRESS_EVERY
            self._limits.append(self.parts.loop.after(PROGRESS_EVERY, lambda: self._tell_progress(more)))

    def ended(self, child: Child, ending: Ending) -> None:
        parts, now = self.parts, self.parts.loop.now()
        self._forget_timers()
        parts.nursery.kill_left_by(self.warden, self.identity.uid if self._foreign else -1)
        parts.cgroups.remove(self.cgroup, kill=True)
        self.cgroup = ""
        self.pid = self.warden = 0
        self.ready = False
        state = State.RUNNING if self._expired else ending.state
        asked = state is State.DRAINING
        well = ending.event is Event.EXITED and not (ending.code or ending.signal or self._failure)
        self.finished = well and not asked
        cause = self._failure or ending.cause
        decision = after_run(
            self.config.restart, state, ending.event, well, self._wanted and not self.again, child.backoff,
            child.started, now,
        )  # fmt: skip
        child.why = cause
        if self.finished and child.state is State.STARTING and self.config.ready == "finished":
            self._running("finished")
        early = child.state is State.STARTING and not isinstance(decision, Restart)
        if early and well and not asked:
            cause = f"{cause} before it was ready"
        self.message = "" if asked or (well and not early) else cause
        if isinstance(decision, Restart):
            self._back_off(decision, cause, well, now)
        elif isinstance(decision, GiveUp):
            parts.journal.error(f"{child.label} {cause}; it is not tried again before somebody asks")
            self._change(State.FAILED, cause)
        elif isinstance(decision, Rest):
            self._rest(cause, well and not early)
        else:
            self._gone(ending, cause)
        if self._passing is not None:
            self._passing.look()
        self._on_change()

    def _back_off(self, decision: Restart, cause: str, well: bool, now: float) -> None:
        child = self.child
        child.backoff = decision.backoff
        self._voice, speak, unsaid = self._voice.again(now)
        if speak:
            often = f" ({unsaid} times more since the last line)" if unsaid else ""
            when = f"started again in {decision.at - now:.1f} s" if self._ours else "the next program starts it again"
            text = f"{child.label} {cause}{often}; {when}"
            (self.parts.journal.notice if well else self.parts.journal.error)(text)
        self._change(State.BACKOFF, cause)
        self.restarts += 1
        if self._ours:
            self._retry = self.parts.loop.after(decision.at - now, self._retry_now)

    def _rest(self, cause: str, well: bool) -> None:
        if not well:
            self.parts.journal.error(f"{self.child.label} {cause}")
        elif self.config.timed or self.config.ready == "finished":
            self.parts.journal.notice(f"{self.child.label} has finished")
        if well:
            self.child.backoff = Backoff()
        if self.config.timed:
            self._change(State.WAITING, "until its next time")
        else:
            self._change(State.ENDED if well else State.FAILED, cause)

    def _gone(self, ending: Ending, cause: str) -> None:
        """It was asked to end, and has."""
        if ending.state is not State.STOPPING and (ending.code or ending.signal):
            self.parts.journal.notice(f"{self.child.label} {cause} when it was asked to end")
        self.child.backoff = Backoff()
        self._change(State.ENDED, cause)
        if self.again and self._ours:
            self._wanted = True
            self._spawn()

    def _retry_now(self) -> None:
        self._retry = None
        if self.child.state is State.BACKOFF and self._wanted:
            self._spawn()

    def _forget_timers(self) -> None:
        for timer in self._limits:
            timer.cancel()
        self._limits.clear()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _change(self, state: State, why: str) -> None:
        if self.child.state is not state:
            self.parts.nursery.door.change(self.child, state, why)
        self.child.why = why
