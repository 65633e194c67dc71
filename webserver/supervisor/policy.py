"""Supervision as decisions: pure functions of (state, event, now). They look at nothing else and do nothing.

Another file asks them and carries out what they say.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from webserver.supervisor.states import State
from webserver.wire.page import TUNNEL, Page

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
WATCH_EVERY = 2.0  # between two looks at everything that might hang
NOTICE = 0.25  # after a request's deadline, for an application that notices that nobody waits any more
SHOW_SIGNAL = signal.SIGRTMAX - 3  # HOST_STACK_SIGNAL: what hangs while it starts writes where
STUCK_STOP = 0.9  # after it, until its worker is killed
SHOW_WAIT = 0.6  # for a worker to show its stacks, and for what has been interrupted to end
SHOW_MORE = 0.6  # on top, for one that does not say that it has shown them: the machine is slow, or it is stopped
SHOW_POLL = 0.1  # then its page is looked at so often
IDLE_WAIT = 0.5  # for it to end in order once nothing runs in it any more
SLOW_EVERY = 1.0  # between two orders to one worker to show slow requests
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


@dataclass(frozen=True)
class Limits:
    """Of a group's requests, in seconds; 0: none."""

    request: float  # request_timeout
    slow: float  # slow_request
    tunnels: float = 0.0  # tunnel_grace


@dataclass(frozen=True)
class Told:
    """What a worker has been asked for, by its requests' serials."""

    stuck: Mapping[int, float] = field(default_factory=dict)  # to show and end them, and to leave; when that was
    orders: int = 0  # how often: what its page's `shown` comes to
    first: float = math.inf  # when that was first
    idle: float = math.inf  # since when nothing runs in it, after that
    slow: frozenset[int] = frozenset()  # to show them
    slow_at: float = -math.inf  # when that was last


class Step(Enum):
    NONE = "none"
    SLOW = "slow"  # show the stacks of requests that take long; nothing else happens to them
    LEAVE = "leave"  # show the stacks of those that are stuck, and end them if the language can; it takes no more
    KILL = "kill"


@dataclass(frozen=True)
class Course:
    """What is to be done about a worker now, what it will then have been told, and when to look at it again."""

    step: Step
    told: Told
    again: float = math.inf


def course(page: Page, limits: Limits, told: Told, now: float) -> Course:
    """What becomes of a worker whose requests run for too long. Nothing is known of it but its page.

    A request that is still there NOTICE after its deadline is stuck. Its stack is asked for, and its worker is killed
    STUCK_STOP after the deadline, whatever else runs in it: later only if the order was late, or if its page does not
    say yet that the stack is in the log.
    """
    over = _ends(page, limits.request)
    stuck = {serial for serial, end in over.items() if end + NOTICE <= now}
    kill = min((max(over[one] + STUCK_STOP, told.stuck[one] + SHOW_WAIT) for one in stuck & told.stuck.keys()),
               default=math.inf)  # fmt: skip
    shown = page.shown >= told.orders
    if kill <= now and (shown or kill + SHOW_MORE <= now):
        return Course(Step.KILL, told)
    again = min((over[one] + NOTICE for one in over.keys() - stuck), default=math.inf)
    again = min(again, kill if now < kill else now + SHOW_POLL)
    if told.orders:
        told, end = _leaving(page, limits, told, now)
        if end <= now:
            return Course(Step.KILL, told)
        again = min(again, end, now + SHOW_POLL if now < told.first + SHOW_WAIT else math.inf)
    if stuck - told.stuck.keys():
        asked = {one: told.stuck.get(one, now) for one in stuck}
        first = min(max(over[one] + STUCK_STOP, asked[one] + SHOW_WAIT) for one in stuck)
        more = replace(told, stuck=asked, orders=told.orders + 1, first=min(told.first, now))
        return Course(Step.LEAVE, more, min(again, first, now + SHOW_POLL))
    return _slow(page, limits.slow, told, now, again)


def _leaving(page: Page, limits: Limits, told: Told, now: float) -> tuple[Told, float]:
    """When a worker that was told to leave is to be killed though nothing is stuck in it any more.

    Its orderly end may hang as well; and tunnels would keep it for ever.
    """
    running = [slot.phase for slot in page.slot if slot.running]
    told = replace(told, idle=math.inf if running else min(told.idle, now))
    grace = limits.tunnels if running and all(phase == TUNNEL for phase in running) else 0.0
    return told, min(told.idle + IDLE_WAIT, told.first + grace if grace else math.inf)


def _slow(page: Page, limit: float, told: Told, now: float, again: float) -> Course:
    """The same for requests that only take long: each is shown once."""
    over = _ends(page, limit, own=False)
    due = {one: max(over[one], told.slow_at + SLOW_EVERY) for one in over.keys() - told.slow - told.stuck.keys()}
    if not any(at <= now for at in due.values()):
        return Course(Step.NONE, told, min([again, *due.values()]))
    shown = frozenset(one for one, end in over.items() if end <= now)
    rest = [max(over[one], now + SLOW_EVERY) for one in due.keys() - shown]
    return Course(Step.SLOW, replace(told, slow=shown, slow_at=now), min([again, *rest]))


def _ends(page: Page, limit: float, own: bool = True) -> dict[int, float]:
    """When each request that the page tells of has run for `limit`, by its serial. A tunnel has no such time.

    `own`: or when its own deadline is over, if that is sooner. The front end counts from when it had the request.
    """
    found: dict[int, float] = {}
    for slot in page.slot if limit else ():
        if slot.running and slot.phase != TUNNEL and slot.since_ns:
            end = slot.since_ns / 1e9 + limit
            found[slot.running] = min(end, slot.deadline_ns / 1e9) if own and slot.deadline_ns else end
    return found


def look_every(limits: Limits) -> float:
    """How often a worker is looked at, so that no request that has begun in between is seen too late."""
    wait = WATCH_EVERY
    if limits.request:
        wait = min(wait, limits.request + NOTICE)
    return min(wait, limits.slow) if limits.slow else wait


REACT_WAIT = 5.0  # seconds in which a worker takes note that it is to end, whatever its application does


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
