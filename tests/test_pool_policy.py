"""How many workers there should be and which must go: decisions with a clock that only exists as a number.

Random histories: workers load, fail, are proven, run requests, bloat, crash and end, in any order; after each event the
decision is carried out, and what must always hold is looked at.
"""

from __future__ import annotations

import dataclasses
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webserver.manager import policy
from webserver.manager.policy import (
    GRANTING,
    LOADED,
    LONGEST_DELAY,
    READY,
    RETIRING,
    STARTING,
    Options,
    Seen,
    Trouble,
    Worker,
    age_limit,
    decide,
    next_look,
    next_time,
    request_limit,
)
from webserver.manager.usage import cpu_seconds, family, private, upper_bound

MB = 1 << 20


@st.composite
def options(draw: st.DrawFn) -> Options:
    most = draw(st.integers(1, 6))
    least = draw(st.integers(0, most))
    return Options(
        most,
        least,
        threads=draw(st.integers(1, 3)),
        spare=draw(st.integers(0, most)) if least < most else 0,
        idle_after=draw(st.sampled_from((0.5, 10.0, 60.0))),
        max_requests=draw(st.sampled_from((0, 1, 100))),
        max_age=draw(st.sampled_from((0.0, 30.0, 1000.0))),
        max_cpu=draw(st.sampled_from((0.0, 20.0))),
        soft_memory=draw(st.sampled_from((0, 100 * MB))),
        hard_memory=draw(st.sampled_from((0, 200 * MB))),
        start_timeout=20.0,
        cores=2,
    )


@dataclasses.dataclass
class Group:
    """What pool.py does, without processes."""

    options: Options
    now: float = 1000.0
    looked: float = 1000.0
    keys: int = 0
    started: int = 0
    workers: dict[int, Worker] = dataclasses.field(default_factory=dict)
    troubles: dict[int, Trouble] = dataclasses.field(default_factory=dict)

    def decide(self, wanted: int = 0) -> policy.Decision:
        """Carry out one decision, which has to be sound."""
        decision = decide(self.workers, self.troubles, self.options, wanted, self.now)
        self.check(decision)
        for end in decision.kill:
            self.end(end.key, orderly=False)
        for late in decision.show:
            self.workers[late.key] = self.workers[late.key]._replace(shown=self.now)
        for mark in decision.going:
            self.workers[mark.key] = self.workers[mark.key]._replace(going=mark.why)
        self.troubles |= policy.failures(self.workers, self.troubles, decision.failed, self.now)
        for one in decision.failed:
            self.workers[one.key] = self.workers[one.key]._replace(failed=True)
        for one in decision.retire + decision.failed:
            retired = policy.change(self.workers[one.key], RETIRING, self.now)
            self.workers[one.key] = retired._replace(going=one.why)
        for start in decision.start:
            self.keys += 1
            self.started += 1
            self.workers[self.keys] = Worker(self.keys, start.number, since=self.now, follows=start.follows)
        self.hold()
        return decision

    def staying(self) -> list[Worker]:
        found = []
        for worker in self.workers.values():
            before = self.workers.get(worker.follows)
            if worker.state != RETIRING and (before is None or before.state == RETIRING):
                found.append(worker)
        return found

    def check(self, decision: policy.Decision) -> None:
        ready = [worker for worker in self.workers.values() if worker.state == READY]
        for end in decision.kill:
            worker = self.workers[end.key]
            if worker.state == STARTING:
                assert worker.shown
                assert self.now - worker.since >= self.options.start_timeout
            else:
                assert self.options.hard_memory < worker.seen.private
            assert end.why
        surplus = 0
        for one in decision.retire:
            worker = self.workers[one.key]
            assert one.why
            if any(heir.follows == worker.key for heir in ready):
                continue
            # Nobody takes over, so nobody may be needed.
            surplus += 1
            assert worker.state == READY
            assert not worker.seen.busy
            assert self.now - worker.seen.active >= self.options.idle_after
        for one in decision.failed:
            worker = self.workers[one.key]
            assert worker.state == LOADED
            assert self.workers[worker.follows].state != RETIRING
            assert self.now - worker.since >= self.options.start_timeout
        if surplus:
            assert len(self.staying()) - surplus >= self.options.least
        for start in decision.start:
            assert self.troubles.get(start.number, Trouble()).not_before <= self.now
            if start.follows:
                before = self.workers[start.follows]
                marked = before.going or any(mark.key == before.key for mark in decision.going)
                assert marked
                assert before.number == start.number
                assert before.state in (LOADED, READY)

    def hold(self) -> None:
        staying = self.staying()
        assert len(self.workers) <= 2 * self.options.most
        assert len(staying) <= self.options.most
        numbers = [worker.number for worker in staying]
        assert len(set(numbers)) == len(numbers)
        assert all(0 <= number < self.options.most for number in numbers)
        follow = [worker for worker in self.workers.values() if worker.state != RETIRING]
        heirs = [worker.follows for worker in follow if worker.follows in self.workers]
        assert len(set(heirs)) == len(heirs)

    def look(self) -> None:
        self.looked = self.now
        for key, worker in self.workers.items():
            if worker.loaded:
                self.workers[key] = worker._replace(seen=worker.seen._replace(at=self.now))

    def step(self, key: int) -> None:
        """The worker's next step, as it should be."""
        worker = self.workers[key]
        if worker.state == GRANTING:
            self.workers[key] = policy.change(worker, STARTING, self.now)._replace(worker=key, pid=key)
        elif worker.state == STARTING:
            loaded = policy.change(worker, LOADED, self.now)._replace(shown=0.0)
            self.workers[key] = loaded._replace(loaded=self.now, seen=Seen(active=self.now))
        elif worker.state == LOADED:
            self.workers[key] = policy.change(worker, READY, self.now)
        elif worker.state == RETIRING:
            self.end(key, orderly=True)

    def end(self, key: int, orderly: bool) -> None:
        worker = self.workers.pop(key)
        if worker.failed:
            return
        trouble = self.troubles.get(worker.number, Trouble())
        self.troubles[worker.number] = policy.after_end(trouble, worker, orderly and bool(worker.loaded), self.now)

    def rest(self, seconds: float) -> None:
        """Everybody does what they should, and nothing is asked of them."""
        until = self.now + seconds
        while True:
            for key in list(self.workers):
                if key in self.workers:
                    self.step(key)
            self.workers = {
                key: worker._replace(seen=worker.seen._replace(busy=0, private=0))
                for key, worker in self.workers.items()
            }
            before = len(self.workers)
            decision = self.decide()
            if any(decision) or len(self.workers) != before:
                continue
            if any(worker.state not in (READY,) for worker in self.workers.values()):
                continue
            times = [next_time(self.workers, self.troubles, self.options, self.now)]
            look = next_look(self.workers, self.options, self.looked)
            if look is not None and look <= self.now:
                self.look()
                continue
            soon = [at for at in (*times, look) if at is not None and at <= until]
            if not soon:
                self.now = until
                return
            self.now = max(self.now, min(soon))


EVENTS = ("step", "step", "step", "crash", "time", "run", "idle", "bloat", "wanted", "look")


@settings(deadline=None)
@given(options(), st.integers(0, 1 << 32))
def test_what_must_always_hold(chosen: Options, seed: int) -> None:
    chance = random.Random(seed)
    group = Group(chosen)
    group.decide()
    for _ in range(60):
        event = chance.choice(EVENTS)
        key = chance.choice(list(group.workers)) if group.workers else 0
        wanted = 0
        if event == "time":
            group.now += chance.choice((0.01, 0.2, 3.0, 40.0))
        elif event == "wanted":
            wanted = chance.randint(1, 20)
        elif event == "look":
            group.look()
        elif key and event == "step":
            group.step(key)
        elif key and event == "crash":
            group.end(key, orderly=chance.random() < 0.3)
        elif key and group.workers[key].loaded:
            worker = group.workers[key]
            seen = worker.seen
            if event == "run":
                busy = chance.randint(1, chosen.threads)
                requests = seen.requests + chance.randint(0, 200)
                seen = seen._replace(busy=busy, requests=requests, active=group.now, cpu=seen.cpu + 5.0)
            elif event == "idle":
                seen = seen._replace(busy=0)
            else:
                seen = seen._replace(private=chance.choice((50, 150, 250)) * MB)
            group.workers[key] = worker._replace(seen=seen)
        while group.decide(wanted).kill:
            pass
        # Asked again at the same time it has nothing more to say.
        if not wanted:
            again = decide(group.workers, group.troubles, chosen, 0, group.now)
            assert not any(again), again
        at = next_time(group.workers, group.troubles, chosen, group.now)
        assert at is None or at > group.now
        look = next_look(group.workers, chosen, group.looked)
        assert look is None or look > group.looked
    # In the end all is as the options say.
    patient = chosen._replace(max_age=0.0)
    group.options = patient
    group.workers = {
        key: worker._replace(seen=Seen(active=worker.seen.active)) for key, worker in group.workers.items()
    }
    group.rest(300.0)
    kept = max(chosen.least, min(chosen.most, chosen.spare))
    assert len(group.workers) == kept
    assert all(worker.state == READY for worker in group.workers.values())


def test_nobody_is_woken_for_what_nobody_asked() -> None:
    group = Group(Options(4, 4))
    group.decide()
    group.rest(100.0)
    assert group.started == 4
    assert next_time(group.workers, group.troubles, group.options, group.now) is None
    assert next_look(group.workers, group.options, group.looked) is None
    group.end(1, orderly=False)
    assert next_time(group.workers, group.troubles, group.options, group.now) is not None


def test_on_demand() -> None:
    group = Group(Options(8, 0, idle_after=10.0))
    group.decide()
    assert not group.workers
    assert next_time(group.workers, group.troubles, group.options, group.now) is None
    assert next_look(group.workers, group.options, group.looked) is None
    # Twice as many each time, if that many wait; those that are coming are counted.
    for wanted, there in ((100, 1), (100, 2), (100, 4), (6, 6), (6, 6), (7, 7), (100, 8), (100, 8)):
        group.decide(wanted)
        assert len(group.workers) == there
    group.rest(9.0)
    assert len(group.workers) == 8
    group.rest(30.0)
    assert not group.workers


def test_threads_are_places() -> None:
    group = Group(Options(8, 1, threads=4))
    group.decide()
    for key in (1, 1, 1):
        group.step(key)
    group.decide(4)
    assert len(group.workers) == 2
    group.decide(4)
    assert len(group.workers) == 2
    group.decide(9)
    assert len(group.workers) == 4


def test_a_slot_that_runs_something_is_not_on_its_way() -> None:
    """One front end has given a new worker a request before another one knew it: it stays LOADED for that long."""
    group = Group(Options(3, 1))
    group.decide()
    for key in (1, 1, 1):
        group.step(key)
    group.decide(1)
    for key in (2, 2):
        group.step(key)
    assert group.workers[2].state == LOADED
    group.decide(1)
    assert len(group.workers) == 2
    group.workers[2] = group.workers[2]._replace(seen=Seen(busy=1))
    group.decide(1)
    assert len(group.workers) == 3


def test_the_longest_idle_goes_first() -> None:
    group = Group(Options(3, 1, idle_after=10.0))
    group.decide(1)
    for _ in range(3):
        for key in list(group.workers):
            group.step(key)
    group.decide(2)
    group.decide(2)
    for _ in range(3):
        for key in list(group.workers):
            group.step(key)
    assert len(group.workers) == 3
    for key, idle in ((1, 11.0), (2, 15.0), (3, 5.0)):
        seen = group.workers[key].seen._replace(at=group.now, active=group.now - idle)
        group.workers[key] = group.workers[key]._replace(seen=seen)
    decision = group.decide()
    assert [one.key for one in decision.retire] == [2, 1]


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (Seen(requests=100), "max_requests"),
        (Seen(cpu=20.0), "max_cpu"),
        (Seen(private=101 * MB), "soft_memory"),
        (Seen(), "max_age"),
    ],
)
def test_another_is_there_before_one_is_asked_to_go(seen: Seen, why: str) -> None:
    """Also with one process; a successor that cannot start costs nothing."""
    group = Group(Options(1, 1, max_requests=100, max_cpu=20.0, soft_memory=100 * MB, max_age=50.0))
    group.decide()
    for _ in range(3):
        group.step(1)
    group.now += 60.0 if why == "max_age" else 1.0
    group.workers[1] = group.workers[1]._replace(seen=seen._replace(active=group.now))
    decision = group.decide()
    assert why in group.workers[1].going
    assert [(start.number, start.follows) for start in decision.start] == [(0, 1)]
    group.step(2)
    group.end(2, orderly=False)
    assert not any(group.decide())
    group.now = next_time(group.workers, group.troubles, group.options, group.now) or 0.0
    group.decide()
    group.step(3)
    group.step(3)
    assert not group.decide().retire  # not every front end knows it
    group.step(3)
    assert [one.key for one in group.decide().retire] == [1]
    group.step(1)
    assert list(group.workers) == [3]
    assert not any(group.decide())


def worn_out(most: int) -> Group:
    """Its one worker, with the key 1, has to be replaced."""
    group = Group(Options(most, 1, max_requests=100, start_timeout=20.0))
    group.decide()
    for _ in range(3):
        group.step(1)
    group.workers[1] = group.workers[1]._replace(seen=Seen(requests=100))
    return group


def test_a_successor_that_nobody_can_reach() -> None:
    group = worn_out(1)
    group.decide()
    group.step(2)
    group.step(2)
    assert next_time(group.workers, group.troubles, group.options, group.now) == group.now + 20.0
    group.now += 20.0
    decision = group.decide()
    assert [one.key for one in decision.failed] == [2]
    assert not decision.start  # not at once
    assert group.workers[1].state == READY
    # Room for the next one comes with its end, and that was no success.
    group.step(2)
    group.now = next_time(group.workers, group.troubles, group.options, group.now) or 0.0
    assert [start.follows for start in group.decide().start] == [1]
    assert group.troubles[0].failures == 1


def test_a_successor_of_nobody_is_followed_while_it_serves() -> None:
    """The one that it was to relieve has died: it is all there is, and who reaches it needs it."""
    group = worn_out(4)
    group.decide()
    group.step(2)
    group.step(2)
    group.end(1, orderly=False)
    assert next_time(group.workers, group.troubles, group.options, group.now) == group.now + 20.0
    group.now += 20.0
    decision = group.decide()
    assert not decision.failed
    assert not decision.retire
    assert [(start.number, start.follows) for start in decision.start] == [(0, 2)]
    assert group.workers[2].state == LOADED
    # Nor is it waited for any more by whoever wants a slot.
    assert len(group.decide(1).start) == 1


def test_who_is_never_reached_is_tried_less_and_less_often() -> None:
    group = worn_out(1)
    waited = []
    for key in range(2, 8):
        group.decide()
        group.step(key)
        group.step(key)
        group.now += 20.5
        assert [one.key for one in group.decide().failed] == [key]
        group.step(key)
        waited.append(group.troubles[0].not_before - group.now)
        group.now = group.troubles[0].not_before
    assert waited == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2])


def test_few_are_replaced_at_a_time() -> None:
    group = Group(Options(8, 8, max_requests=100))
    group.decide()
    for _ in range(3):
        for key in list(group.workers):
            group.step(key)
    for key, worker in group.workers.items():
        group.workers[key] = worker._replace(seen=Seen(requests=1000))
    assert len(group.decide().start) == 2
    for _ in range(40):
        for key in list(group.workers):
            if key in group.workers:
                group.step(key)
        group.decide()
        assert sum(worker.state == READY for worker in group.workers.values()) >= 8
    assert all(not worker.going for worker in group.workers.values())


def test_what_does_not_start_is_tried_less_and_less_often() -> None:
    for chosen in (Options(2, 2), Options(4, 0)):
        group = Group(chosen)
        begin = group.now
        while group.now < begin + 600.0:
            group.decide(5 if chosen.elastic else 0)
            for key in list(group.workers):
                group.step(key)
                group.end(key, orderly=False)
            at = next_time(group.workers, group.troubles, chosen, group.now)
            group.now = at if at is not None else group.now + 0.02
        each = 600.0 / LONGEST_DELAY + 10
        assert group.started <= each * (chosen.least or 1) + chosen.most


@given(st.integers(1, 1 << 40), st.integers(1, 1 << 30), st.floats(1.0, 1e6))
def test_jitter(incarnation: int, requests: int, age: float) -> None:
    """Somewhat earlier than the option says, never later, never at once, and the same at each asking."""
    chosen = Options(2, 2, max_requests=requests, max_age=age)
    assert 0.9 * requests - 1 <= request_limit(chosen, incarnation) <= requests
    assert request_limit(chosen, incarnation) >= 1
    assert 0.89 * age <= age_limit(chosen, incarnation) <= age
    assert request_limit(chosen, incarnation) == request_limit(chosen, incarnation)


def test_jitter_spreads() -> None:
    chosen = Options(2, 2, max_requests=1000)
    assert len({request_limit(chosen, incarnation) for incarnation in range(1, 9)}) > 4
    assert request_limit(Options(2, 2), 5) == 0


def test_how_often_is_looked() -> None:
    worker = Worker(1, 0, READY, 0.0, worker=1, pid=1, loaded=1.0, seen=Seen(active=100.0))
    looks = {
        Options(2, 2, max_requests=10, max_age=10.0): None,  # the worker says so; the clock says so
        Options(2, 0, idle_after=30.0): 130.0,
        Options(2, 1, idle_after=30.0): None,
        Options(2, 1, idle_after=30.0, spare=1): 102.0,
        Options(2, 2, hard_memory=MB): 101.25,
        Options(2, 2, soft_memory=MB): 102.0,
        Options(2, 2, max_cpu=100.0, cores=2): 151.0,
    }
    for chosen, expected in looks.items():
        assert next_look({1: worker}, chosen, 101.0) == expected, chosen
    quiet = worker._replace(seen=Seen(active=1.0))
    assert next_look({1: quiet}, Options(2, 2, hard_memory=MB), 101.0) == 103.0


def test_what_proc_says_of_this_process() -> None:
    own = private(pid := os.getpid())
    assert own is not None
    assert 0 < own <= upper_bound(pid)
    assert cpu_seconds(pid) > 0
    assert pid in family(pid)
    assert (private(1 << 30), upper_bound(1 << 30), cpu_seconds(1 << 30)) == (None, 0, 0.0)
