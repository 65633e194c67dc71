"""When which worker is started: pure functions of what is known and the time. No processes here.

A place is one worker's number in its group, from 0. Its state changes only through `change`; EDGES are all there are.
"""

import os
import signal
from typing import Any, Dict, FrozenSet, List, NamedTuple, Optional, Tuple

WAITING = "waiting"  # until `not_before`
GRANTING = "granting"  # the supervisor has been asked for page and log
STARTING = "starting"  # forked, loads its application
READY = "ready"
RETIRING = "retiring"  # asked for its orderly end
CLOSED = "closed"  # the group is draining: nobody follows

EDGES: Dict[str, FrozenSet[str]] = {
    WAITING: frozenset({GRANTING, CLOSED}),
    GRANTING: frozenset({STARTING, WAITING, CLOSED}),
    STARTING: frozenset({READY, WAITING, RETIRING, CLOSED}),
    READY: frozenset({RETIRING, WAITING, CLOSED}),
    RETIRING: frozenset({WAITING, CLOSED}),
    CLOSED: frozenset(),
}

FIRST_DELAY = 0.1  # seconds after the first failure
LONGEST_DELAY = 30.0
SHOW_WAIT = 0.4  # for a worker to show where it hangs, before it is killed
LONG_ENOUGH = 10.0  # a worker that ran this long ends a series of failures


class Place(NamedTuple):
    """One worker's place."""

    number: int
    state: str = WAITING
    worker: int = 0  # incarnation, 0: none
    pid: int = 0
    since: float = 0.0  # when the state began
    failures: int = 0  # in a row
    not_before: float = 0.0
    shown: float = 0.0  # when it was asked to show why it does not come up


def change(place: Place, state: str, now: float, **values: Any) -> Place:
    """The place in a new state. Raises ValueError for a step that EDGES does not have."""
    if state not in EDGES[place.state]:
        raise ValueError("worker %d cannot go from %s to %s" % (place.number, place.state, state))
    return place._replace(state=state, since=now, **values)


def delay(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    if failures <= 0:
        return 0.0
    return float(min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 20)))


def ended(place: Place, orderly: bool, now: float) -> Place:
    """The place after its worker's end."""
    lasted = now - place.since if place.state == READY else 0.0
    if orderly:
        failures = 0
    elif lasted >= LONG_ENOUGH:
        failures = 1
    else:
        failures = place.failures + 1
    return change(place, WAITING, now, worker=0, pid=0, shown=0.0, failures=failures, not_before=now + delay(failures))


def due(places: List[Place], now: float) -> List[Place]:
    """Places whose worker should be started now."""
    return [place for place in places if place.state == WAITING and place.not_before <= now]


def overdue(places: List[Place], start_timeout: float, now: float) -> List[Place]:
    """Places whose worker has not loaded its application in time: to be shown first, and then to be killed."""
    return [place for place in places if place.state == STARTING and now >= _limit(place, start_timeout)]


def _limit(place: Place, start_timeout: float) -> float:
    return place.shown + SHOW_WAIT if place.shown else place.since + start_timeout


def next_time(places: List[Place], start_timeout: float) -> Optional[float]:
    """When something is due or overdue next; None: nothing waits for time to pass."""
    times = [place.not_before for place in places if place.state == WAITING]
    times += [_limit(place, start_timeout) for place in places if place.state == STARTING]
    return min(times) if times else None


def cause_of(status: int, state: str, told: str, exits: Dict[int, str]) -> Tuple[str, int, int]:
    """(a sentence, exit code or -1, signal or 0) for a wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "signal %d" % number
        core = " (core dumped)" if os.WCOREDUMP(status) else ""
        return told or "killed by %s%s" % (name, core), -1, number
    code = os.WEXITSTATUS(status)
    if code == 0 and state in (RETIRING, CLOSED):
        return "retired", 0, 0
    return told or exits.get(code, "exited with status %d" % code), code, 0
