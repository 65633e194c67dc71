"""Supervision as decisions: pure functions of (state, event, now). They look at nothing else and do nothing.

Another file asks them and carries out what they say.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from webserver.supervisor.states import State

BACKOFF_FIRST = 0.1  # seconds
BACKOFF_MOST = 30.0
BACKOFF_RESET = 10.0  # a process that ran as long as this has not failed to start
BEAT_LIMIT = 10.0  # seconds without a beat after which a front end is hung
START_LIMIT = 30.0  # the same for one that has never said it is ready
BEAT_LATE = 3.0  # the same after which its neighbour accepts for it as well
SLOW_BEAT_LIMIT = 15.0  # the same for managers and the logger, which beat every 5 s
HUNG_AGAIN = 60.0  # between two tries to replace a manager that hangs
STACK_WAIT = 1.0  # for the hung process to write its stack
STOPPED_STACK_WAIT = 0.1  # the same for one that was stopped by a signal, and could do harm if it went on
START_MARGIN = 5.0  # added to a group's start_timeout: the manager is the first to act on it
STUCK_MARGIN = 1.0  # after request_timeout, for an application that notices that nobody waits any more
WANTED_EVERY = 0.01  # between two notes to a manager that requests wait
STOP_WAIT = 0.3  # between asking a process to end now and killing it


@dataclass(frozen=True)
class Backoff:
    """How long to wait before the next start: 0.1 s, doubling up to 30 s."""

    failures: int = 0

    def delay(self) -> float:
        if not self.failures:
            return 0.0
        # The exponent is bounded first: 2.0 ** 1100 is an error.
        return min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(self.failures - 1, 30))

    def after(self, ran: float) -> Backoff:
        """The back-off after a process that ran for `ran` seconds has ended unasked."""
        return Backoff(1) if ran >= BACKOFF_RESET else replace(self, failures=self.failures + 1)


class Event(Enum):
    """What can happen to a child."""

    EXITED = "exited"  # reaped, however it ended
    REFUSED = "refused"  # it never was: a step between fork and exec failed, so trying again cannot help


@dataclass(frozen=True)
class Restart:
    """Start it again at `at`."""

    at: float
    backoff: Backoff


@dataclass(frozen=True)
class GiveUp:
    """Leave it until somebody asks."""


@dataclass(frozen=True)
class Forget:
    """It was to end, and has."""


Decision = Restart | GiveUp | Forget


def after_end(state: State, event: Event, wanted: bool, backoff: Backoff, started: float, now: float) -> Decision:
    """What follows the end of a child that was in `state`. `wanted`: its role still has to be filled."""
    if not wanted or state is State.DRAINING:
        return Forget()
    if event is Event.REFUSED:
        return GiveUp()
    later = backoff.after(now - started)
    return Restart(now + later.delay(), later)


def hung(state: State, last_beat: float, now: float) -> bool:
    """True if a process that should beat has not done so for too long."""
    limit = START_LIMIT if state is State.STARTING else BEAT_LIMIT
    return state in (State.STARTING, State.RUNNING, State.DRAINING) and now - last_beat >= limit


class Stuck(Enum):
    """What is to be done about a worker whose requests do not end."""

    NO = "no"
    LEAVE = "leave"  # show its stacks; it takes no more
    KILL = "kill"  # nothing else runs in it


def stuck(since_ns: Sequence[int], limit: float, now_ns: int, told: bool, tunnels: bool = False) -> Stuck:
    """`since_ns`: when each request began that a worker runs (CLOCK_MONOTONIC, as its page says), without tunnels;
    `limit`: its group's request_timeout, 0 for none; `told`: it has been told to leave; `tunnels`: it has some that are
    worth waiting for."""
    last = now_ns - int((limit + STUCK_MARGIN) * 1e9)
    over = [since for since in since_ns if 0 < since < last]
    if not limit or not over:
        return Stuck.NO
    if not told:
        return Stuck.LEAVE
    return Stuck.KILL if len(over) == len(since_ns) and not tunnels else Stuck.NO


def tunnels_wait(told: float | None, grace: float, now: float) -> bool:
    """Whether tunnels still keep a worker that was told at `told` to leave. `grace`: tunnel_grace, 0 for none."""
    return told is None or not grace or now - told < grace


REACT_WAIT = 5.0  # seconds in which a worker takes note that it is to end, whatever its application does
STACKS_WAIT = 1.5  # after that, to write its stacks: Ruby's are there after a second (LOCK_SECONDS) at the latest


def stacks_written(told: float, heard: float | None, now: float) -> bool:
    """Whether a worker that was told at `told` to leave has had the time to write its stacks.

    `heard`: when its page was seen to say that it knows, None if it was not. It takes its orders one after the other,
    so that its stacks were asked for before.
    """
    return now - told >= REACT_WAIT if heard is None else now - heard >= STACKS_WAIT


def overstays(reacted: bool, waited: float, late: bool) -> str:
    """Why a worker is to be killed that was asked to end `waited` seconds ago; "" if it is not.

    `reacted`: its page says that it knows; `late`: its group's drain_timeout is over.
    """
    if not reacted and waited >= REACT_WAIT:
        return "it did not react when it was asked to end"
    return "it did not end within drain_timeout" if late else ""


def late(state: State, last_beat: float, now: float) -> bool:
    """True if a front end might be about to hang: somebody else should accept for it too."""
    return state is State.RUNNING and now - last_beat >= BEAT_LATE


def slow_beat_stopped(state: State, last_beat: float, now: float) -> bool:
    """`hung` for managers and the logger. While they start they have other limits."""
    return state in (State.RUNNING, State.DRAINING) and now - last_beat >= SLOW_BEAT_LIMIT


class Wish(Enum):
    """What a signal asks of the whole server."""

    NOTHING = "nothing"
    DRAIN = "drain"
    STOP = "stop"
    RELOAD = "reload"
    REOPEN = "reopen"
    UPGRADE = "upgrade"


class Phase(Enum):
    """Where the whole server is."""

    SERVING = "serving"
    DRAINING = "draining"
    STOPPING = "stopping"


SIGNALS: dict[tuple[Phase, int], Wish] = {
    (Phase.SERVING, signal.SIGTERM): Wish.DRAIN,
    (Phase.SERVING, signal.SIGQUIT): Wish.DRAIN,
    (Phase.SERVING, signal.SIGINT): Wish.STOP,
    (Phase.SERVING, signal.SIGHUP): Wish.RELOAD,
    (Phase.SERVING, signal.SIGUSR1): Wish.REOPEN,
    (Phase.SERVING, signal.SIGUSR2): Wish.UPGRADE,
    (Phase.DRAINING, signal.SIGTERM): Wish.STOP,
    (Phase.DRAINING, signal.SIGINT): Wish.STOP,
    (Phase.DRAINING, signal.SIGUSR1): Wish.REOPEN,
}


def on_signal(phase: Phase, number: int) -> Wish:
    """What a signal means now; one that is not in the table (WINCH, a second QUIT) means nothing."""
    return SIGNALS.get((phase, number), Wish.NOTHING)


@dataclass(frozen=True)
class Allowance:
    """A bucket of tokens: what a peer may ask for in a burst, and how fast it is allowed more."""

    burst: float
    rate: float  # tokens in a second
    level: float
    at: float

    @classmethod
    def full(cls, burst: float, rate: float, now: float) -> Allowance:
        return cls(burst, rate, burst, now)

    def take(self, now: float) -> tuple[Allowance, float]:
        """Take one token; returns the rest and the seconds to wait until it is really there (0: at once)."""
        level = min(self.burst, self.level + max(0.0, now - self.at) * self.rate) - 1.0
        return replace(self, level=level, at=now), max(0.0, -level / self.rate)


def cause(status: int) -> tuple[str, int, int]:
    """A wait status as a sentence, and as (exit code, signal), one of which is 0 unless it exited with 0."""
    if status & 0x7F:
        number = status & 0x7F
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"killed by {name}" + (" (core dumped)" if status & 0x80 else ""), 0, number
    return f"exited with status {status >> 8 & 0xFF}", status >> 8 & 0xFF, 0
