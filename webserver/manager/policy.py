"""How many workers there should be and which must go: pure functions of what is known and the time. No processes here.

A worker's record begins when the supervisor is asked for its page and log, and ends when it has been reaped. Its state
changes only through `change`; EDGES are all there are. `decide` says what is to be done now, `next_time` when to ask
again. Nobody has to be woken for a group whose options ask for nothing.
"""

import math
from typing import Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Sequence, Tuple

GRANTING = "granting"  # the supervisor has been asked for page and log
STARTING = "starting"  # forked, loads its application
LOADED = "loaded"  # has entered its loop; some front end has not had its answer yet
READY = "ready"  # every front end has
RETIRING = "retiring"  # asked for its orderly end

EDGES: Dict[str, FrozenSet[str]] = {
    GRANTING: frozenset({STARTING}),
    STARTING: frozenset({LOADED, RETIRING}),
    LOADED: frozenset({READY, RETIRING}),
    READY: frozenset({RETIRING}),
    RETIRING: frozenset(),
}

FIRST_DELAY = 0.1  # seconds after the first failure
LONGEST_DELAY = 30.0
SHOW_WAIT = 0.4  # for a worker to show where it hangs, before it is killed
LONG_ENOUGH = 10.0  # a worker that ran this long ends a series of failures
JITTER = 0.1  # of max_requests and max_age: so much earlier a worker may go, or all would go at once
SPARE_LOOK = 1.0  # seconds between looks for workers that are free
HARD_LOOK = 0.25  # for memory that must not be, while anything runs
SOFT_LOOK = 1.0
QUIET_LOOK = 2.0  # both, while nothing runs
SHORTEST_LOOK = 0.05
CPU_LOOK = 1.0
START = "its application did not load within %g s, which is its start_timeout"
UNREACHED = "not every front end could reach it within %g s"


class Options(NamedTuple):
    """Of the group. 0 is "none" for all but `most`, `least` and `threads`."""

    most: int  # workers
    least: int
    threads: int = 1
    spare: int = 0  # workers
    idle_after: float = 60.0
    max_requests: int = 0
    max_age: float = 0.0
    max_cpu: float = 0.0  # seconds of processor time
    soft_memory: int = 0  # private bytes
    hard_memory: int = 0
    start_timeout: float = 60.0
    cores: int = 1  # as fast as this a worker can use up its max_cpu

    @property
    def elastic(self) -> bool:
        return self.least < self.most

    @property
    def weighs(self) -> bool:
        return bool(self.soft_memory or self.hard_memory)


class Seen(NamedTuple):
    """What a worker was seen to do and take. Its own account: it can only cost the worker, or keep it."""

    at: float = 0.0  # when
    busy: int = 0  # slots
    requests: int = 0  # finished
    active: float = 0.0  # when it last ran anything
    ran: float = 0.0  # seconds in requests
    cpu: float = 0.0
    private: int = 0


class Worker(NamedTuple):
    key: int  # of this record; an incarnation is known only when it has been granted
    number: int  # what ps shows; its successor has the same
    state: str = GRANTING
    since: float = 0.0  # when the state began
    follows: int = 0  # key of the worker that it is to take over from; 0: none
    worker: int = 0  # incarnation
    pid: int = 0
    loaded: float = 0.0  # when it entered its loop
    going: str = ""  # why it is to go
    failed: bool = False  # though it ends in order
    seen: Seen = Seen()
    shown: float = 0.0  # when it was asked to show why it does not come up


class Trouble(NamedTuple):
    """What has gone wrong with one number's workers."""

    failures: int = 0  # in a row
    not_before: float = 0.0


class Start(NamedTuple):
    number: int
    follows: int = 0


class One(NamedTuple):
    """A worker, and why something is to happen to it."""

    key: int
    why: str


class Decision(NamedTuple):
    start: Tuple[Start, ...] = ()
    going: Tuple[One, ...] = ()  # to go once another has taken over
    retire: Tuple[One, ...] = ()
    failed: Tuple[One, ...] = ()  # to retire as well, and their number's trouble
    kill: Tuple[One, ...] = ()
    show: Tuple[One, ...] = ()  # do not come up: to write where they are, and to be killed soon after


Workers = Mapping[int, Worker]  # by key
Troubles = Mapping[int, Trouble]  # by number


def change(worker: Worker, state: str, now: float) -> Worker:
    """The worker in a new state. Raises ValueError for a step that EDGES does not have."""
    if state not in EDGES[worker.state]:
        raise ValueError("worker %d cannot go from %s to %s" % (worker.number, worker.state, state))
    return worker._replace(state=state, since=now)


def delay(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return float(min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 20))) if failures > 0 else 0.0


def after_end(trouble: Trouble, worker: Worker, orderly: bool, now: float) -> Trouble:
    """What is known of its number after a worker's end."""
    if orderly:
        failures = 0
    elif worker.loaded and now - worker.loaded >= LONG_ENOUGH:
        failures = 1
    else:
        failures = trouble.failures + 1
    return Trouble(failures, now + delay(failures))


def failures(workers: Workers, troubles: Troubles, failed: Sequence[One], now: float) -> Dict[int, Trouble]:
    """What is known of the numbers of those that are `failed` in a decision. How long they were there is no merit."""
    some = [workers[one.key] for one in failed]
    return {one.number: after_end(_trouble(troubles, one.number), one._replace(loaded=0.0), False, now) for one in some}


def fraction(incarnation: int) -> float:
    """From 0 up to 1, spread over workers that follow each other; the same at each asking."""
    return (incarnation * 2654435761 % (1 << 32)) / float(1 << 32)


def request_limit(options: Options, incarnation: int) -> int:
    """Requests after which this worker is to go: max_requests or somewhat fewer; 0: never."""
    return options.max_requests - int(options.max_requests * JITTER * fraction(incarnation))


def age_limit(options: Options, incarnation: int) -> float:
    return options.max_age * (1.0 - JITTER * fraction(incarnation))


def worn(worker: Worker, options: Options, now: float) -> str:
    """Why a worker is to go, in words; "" if it is not. Of a worker that is in its loop."""
    seen = worker.seen
    if options.soft_memory and seen.private > options.soft_memory:
        return "it takes %s of private memory (soft_memory = %s)" % (_size(seen.private), _size(options.soft_memory))
    if options.max_requests and seen.requests >= request_limit(options, worker.worker):
        return "it has run %d requests (max_requests = %d)" % (seen.requests, options.max_requests)
    if options.max_cpu and seen.cpu >= options.max_cpu:
        return "it has used %.0f s of processor time (max_cpu = %g s)" % (seen.cpu, options.max_cpu)
    if options.max_age and now - worker.loaded >= age_limit(options, worker.worker):
        return "it has run for %.0f s (max_age = %g s)" % (now - worker.loaded, options.max_age)
    return ""


def decide(workers: Workers, troubles: Troubles, options: Options, wanted: int, now: float) -> Decision:
    """What is to be done now. `wanted`: requests that a front end has just said to wait for a slot."""
    kill = _kill(workers, options, now)
    dead = {one.key for one in kill}
    after = dict(workers)
    retire = [one for one in _relieved(workers) if one.key not in dead]
    failed = [one for one in _unreached(workers, options, now) if one.key not in dead]
    troubles = {**troubles, **failures(workers, troubles, failed, now)}
    for one in retire + failed:
        after[one.key] = after[one.key]._replace(state=RETIRING)
    alive = {key: worker for key, worker in after.items() if key not in dead}
    surplus = [] if wanted else _surplus(alive, options, now)
    for one in surplus:
        after[one.key] = alive[one.key] = after[one.key]._replace(state=RETIRING)
    going = _going(alive, options, now)
    for mark in going:
        after[mark.key] = after[mark.key]._replace(going=mark.why)
    for key in dead:
        after[key] = after[key]._replace(going="")
    # What is killed now counts until it has ended: its place and its memory are not free before.
    room = 2 * options.most - len(workers)
    start = _start(after, troubles, options, wanted, room, now)
    start += _replacements(after, troubles, options, room - len(start), now)
    show = [One(one.key, START % options.start_timeout) for one in workers.values() if one.state == STARTING]
    show = [one for one in show if not workers[one.key].shown and _limit(workers[one.key], options) <= now]
    return Decision(tuple(start), tuple(going), tuple(retire + surplus), tuple(failed), tuple(kill), tuple(show))


def next_time(workers: Workers, troubles: Troubles, options: Options, now: float) -> Optional[float]:
    """When `decide` has to be asked again although nothing has happened; None: not before something does."""
    times = []
    for worker in workers.values():
        if worker.state == STARTING or _is_awaited(worker, workers) or (worker.state == LOADED and not worker.going):
            times.append(_limit(worker, options))
        if options.max_age and not worker.going and worker.state in (LOADED, READY):
            times.append(worker.loaded + age_limit(options, worker.worker))
    staying = _staying(workers)
    if len(staying) < _target(staying, options):
        times += [_not_before(staying, troubles, options, number) for number in _free(staying, options)]
    heirs = _succeeded(workers)
    for worker in staying:
        if worker.going and worker.key not in heirs:
            times.append(_trouble(troubles, worker.number).not_before)
    # A time that has passed means that there is no room for it; whoever ends makes some.
    times = [at for at in times if at > now]
    return min(times) if times else None


def next_look(workers: Workers, options: Options, looked: float) -> Optional[float]:
    """When pages and /proc have to be looked at again after `looked`; None: nothing here asks for that."""
    inside = [worker for worker in workers.values() if worker.state in (LOADED, READY)]
    times = []
    if options.elastic and inside and len(_staying(workers)) > options.least:
        # Those that are kept all the same are not looked at more often than that.
        idle = [worker.seen.active + options.idle_after for worker in inside]
        times.append(min(at if at > looked else looked + options.idle_after for at in idle))
    if options.spare and len(_staying(workers)) < options.most:
        times.append(looked + SPARE_LOOK)
    runs = any(worker.seen.busy or looked - worker.seen.active < QUIET_LOOK for worker in workers.values())
    if options.hard_memory and any(worker.loaded for worker in workers.values()):
        times.append(looked + (HARD_LOOK if runs else QUIET_LOOK))
    if options.soft_memory and inside:
        times.append(looked + (SOFT_LOOK if runs else QUIET_LOOK))
    if options.max_cpu:
        left = [options.max_cpu - worker.seen.cpu for worker in inside if not worker.going]
        times += [looked + max(CPU_LOOK, min(left) / options.cores)] if left else []
    return max(looked + SHORTEST_LOOK, min(times)) if times else None


# Parts of a decision


def _kill(workers: Workers, options: Options, now: float) -> List[One]:
    found = []
    for worker in workers.values():
        if worker.state == STARTING and worker.shown and now >= _limit(worker, options):
            found.append(One(worker.key, START % options.start_timeout))
        elif options.hard_memory and worker.seen.private > options.hard_memory:
            text = "its private memory, %s, is above hard_memory = %s"
            found.append(One(worker.key, text % (_size(worker.seen.private), _size(options.hard_memory))))
    return found


def _limit(worker: Worker, options: Options) -> float:
    """When one that is to come up, or to be reached, is late."""
    return worker.shown + SHOW_WAIT if worker.shown else worker.since + options.start_timeout


def _relieved(workers: Workers) -> List[One]:
    """Those whose successor has been reached by every front end."""
    found = []
    for heir in workers.values():
        before = workers.get(heir.follows) if heir.follows and heir.state == READY else None
        if before is not None and before.state in (LOADED, READY):
            found.append(One(before.key, before.going))
    return found


def _unreached(workers: Workers, options: Options, now: float) -> List[One]:
    """Successors that some front end cannot reach. Others may have given them work, and who they relieve serves on."""
    late = [one for one in workers.values() if _is_awaited(one, workers) and now >= _limit(one, options)]
    return [One(one.key, UNREACHED % options.start_timeout) for one in late]


def _is_awaited(heir: Worker, workers: Workers) -> bool:
    """Every front end is to reach it, so that another one may go."""
    before = workers.get(heir.follows)
    return heir.state == LOADED and before is not None and before.state != RETIRING


def _surplus(workers: Workers, options: Options, now: float) -> List[One]:
    """Those that have run nothing for so long that they are not needed, longest first; rather those that must go."""
    if not options.elastic:
        return []
    staying = _staying(workers)
    heirs = _succeeded(workers)
    many = len(staying) - _kept(staying, options)
    idle = [
        worker
        for worker in staying
        if worker.state == READY
        and not worker.seen.busy
        and worker.seen.at == now  # what was seen before may not be so any more
        and now - worker.seen.active >= options.idle_after
        and worker.key not in heirs
    ]
    idle.sort(key=lambda worker: (not worker.going, worker.seen.active))
    why = "it has run nothing for %g s (idle_after)" % options.idle_after
    return [One(worker.key, worker.going or why) for worker in idle[: max(0, many)]]


def _going(workers: Workers, options: Options, now: float) -> List[One]:
    found = []
    for worker in workers.values():
        if worker.state in (LOADED, READY) and not worker.going:
            why = worn(worker, options, now)
            if not why and worker.state == LOADED and now >= _limit(worker, options):
                why = UNREACHED % options.start_timeout  # and nobody is there whom it relieves
            if why:
                found.append(One(worker.key, why))
    return found


def _start(workers: Workers, troubles: Troubles, options: Options, wanted: int, room: int, now: float) -> List[Start]:
    """Workers that are missing."""
    staying = _staying(workers)
    target = _target(staying, options)
    if wanted and options.elastic:
        # Twice as many at most: what waits now may be over before the first of them is there.
        more = min(-(-(wanted - _coming(staying, options, now)) // options.threads), max(1, len(staying)))
        target = max(target, min(options.most, len(staying) + more))
    numbers = [number for number in _free(staying, options) if _not_before(staying, troubles, options, number) <= now]
    missing = max(0, min(target - len(staying), room))
    return [Start(number) for number in numbers[:missing]]


def _coming(staying: Sequence[Worker], options: Options, now: float) -> int:
    """Slots that will be free, though not every front end knows of them yet. What runs in one is none of these."""
    some = [one for one in staying if one.state in (GRANTING, STARTING, LOADED) and now < _limit(one, options)]
    return sum(max(0, options.threads - worker.seen.busy) for worker in some)


def _replacements(workers: Workers, troubles: Troubles, options: Options, room: int, now: float) -> List[Start]:
    """Successors of those that are to go: few at a time, as each needs memory and a processor beside the others."""
    heirs = _succeeded(workers)
    free = min(room, max(1, options.most // 4) - len(heirs))
    waiting = [
        worker
        for worker in _staying(workers)
        if worker.going and worker.key not in heirs and _trouble(troubles, worker.number).not_before <= now
    ]
    waiting.sort(key=lambda worker: worker.key)
    return [Start(worker.number, worker.key) for worker in waiting[: max(0, free)]]


def _staying(workers: Workers) -> List[Worker]:
    """Those that count: not asked to go, and no successor of one that still counts."""
    succeeded = _succeeded(workers)
    return [worker for worker in workers.values() if worker.state != RETIRING and worker.follows not in succeeded]


def _succeeded(workers: Workers) -> FrozenSet[int]:
    """Keys of those that are to go and whose successor is on its way."""
    return frozenset(
        heir.follows
        for heir in workers.values()
        if heir.follows in workers and heir.state != RETIRING and workers[heir.follows].state != RETIRING
    )


def _kept(staying: Sequence[Worker], options: Options) -> int:
    """How many are not too many."""
    busy = sum(worker.seen.busy for worker in staying)
    return max(options.least, min(options.most, math.ceil(busy / options.threads) + options.spare))


def _target(staying: Sequence[Worker], options: Options) -> int:
    """How many there should be, whatever waits."""
    return _kept(staying, options) if options.spare else options.least


def _free(staying: Sequence[Worker], options: Options) -> List[int]:
    taken = {worker.number for worker in staying}
    return [number for number in range(options.most) if number not in taken]


def _not_before(staying: Sequence[Worker], troubles: Troubles, options: Options, number: int) -> float:
    """When this number may have a worker. If none of an elastic group works, its numbers are not tried in turn."""
    own = _trouble(troubles, number).not_before
    if len(staying) < options.least or any(worker.loaded for worker in staying):
        return own
    return max([own] + [trouble.not_before for trouble in troubles.values()])


def _trouble(troubles: Troubles, number: int) -> Trouble:
    return troubles.get(number, Trouble())


def _size(size: int) -> str:
    return "%.1f MB" % (size / 1048576.0)
