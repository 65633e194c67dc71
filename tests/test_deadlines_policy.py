"""What is done about requests that run for too long, as decisions about a page, limits and a time that is only a number."""

from __future__ import annotations

import itertools
import math

from hypothesis import example, given
from hypothesis import strategies as st

from webserver.manager import host
from webserver.supervisor.policy import (
    IDLE_WAIT,
    NOTICE,
    SHOW_MORE,
    SHOW_SIGNAL,
    SHOW_WAIT,
    SLOW_EVERY,
    STUCK_STOP,
    WATCH_EVERY,
    Course,
    Limits,
    Step,
    Told,
    course,
    look_every,
)
from webserver.wire.page import TUNNEL, Page, Slot

words = st.integers(0, 2**64 - 1)
small = st.integers(0, 2**32 - 1)
slots = st.builds(Slot, words, words, small, small, words, words, words, words)
pages = st.builds(Page, *[small] * 4, words, words, small, small, small, st.lists(slots, max_size=5).map(tuple))
limits = st.builds(Limits, st.just(0.0) | st.floats(0.1, 86400), st.just(0.0) | st.floats(0.1, 86400))
times = st.floats(0, 1e9)


def slot(since: float, serial: int = 1, deadline: float = 0.0, phase: int = 1) -> Slot:
    """A slot that has run request `serial` since then; 0: none."""
    return Slot(serial, int(since * 1e9), phase, 0, 0, 0, 0, int(deadline * 1e9))


def page(*running: Slot, shown: int = 0) -> Page:
    return Page(0, 0, 1, len(running), 1, 0, 1, 0, shown, running)


@given(pages, limits, times)
def test_any_page_has_a_course(any_page: Page, any_limits: Limits, now: float) -> None:
    """Whatever a worker writes there; and nobody is asked to look again at once."""
    told = Told()
    for _ in range(3):
        found = course(any_page, any_limits, told, now)
        assert found.again > now
        if found.step is Step.NONE:
            break
        told = found.told
    assert not (any_limits.request == 0 and found.step in (Step.LEAVE, Step.KILL))


@given(st.floats(0.1, 1000), st.floats(1, 1e6), st.lists(st.floats(0, 2), max_size=30), st.booleans(), st.booleans())
@example(2.0, 10.0, [], True, True)
def test_a_stuck_request_is_ended_in_time(
    limit: float, since: float, more: list[float], waited: bool, shows: bool
) -> None:
    """Whenever else it is looked at: shown NOTICE after its deadline, killed STUCK_STOP after it; or a little later."""
    own = since + limit / 2 if waited else since + limit  # it has waited in a front end's queue
    running = slot(since, deadline=own)
    times = sorted(own + one for one in more)
    told, now, shown, stopped = Told(), since, 0, math.inf
    left = math.inf
    while now < own + 10:
        found = course(page(running, shown=shown), Limits(limit, 0), told, now)
        told = found.told
        if found.step is Step.LEAVE:
            assert left == math.inf, "asked twice"
            left, shown = now, shown + shows
        if found.step is Step.KILL:
            stopped = now
            break
        now = min([found.again, *[one for one in times if one > now]])
    assert abs(left - (own + NOTICE)) < 1e-3
    assert abs(stopped - (own + STUCK_STOP + (0 if shows else SHOW_MORE))) < 0.15
    assert stopped - own < 1.0 or not shows


def test_an_order_that_was_late_leaves_time_for_the_stack() -> None:
    late = course(page(slot(1.0)), Limits(5, 0), Told(), 20.0)
    assert late.step is Step.LEAVE
    soon = course(page(slot(1.0), shown=1), Limits(5, 0), late.told, 20.0 + SHOW_WAIT - 0.01)
    assert soon.step is Step.NONE
    assert course(page(slot(1.0), shown=1), Limits(5, 0), late.told, 20.0 + SHOW_WAIT).step is Step.KILL


def test_what_ends_in_time_costs_nothing() -> None:
    at_deadline = course(page(slot(1.0)), Limits(5, 0), Told(), 6.0)
    assert (at_deadline.step, at_deadline.again) == (Step.NONE, 6.0 + NOTICE)
    assert course(page(slot(1.0, serial=0)), Limits(5, 0), Told(), 6.0 + NOTICE).step is Step.NONE
    # Interrupted: its worker has been told to leave, and nothing in it is stuck any more.
    left = course(page(slot(1.0)), Limits(5, 0), Told(), 6.0 + NOTICE)
    assert left.step is Step.LEAVE
    # Once nothing runs it has to end, and tunnels alone do not keep it for ever.
    idle = course(page(slot(1.0, serial=0), shown=1), Limits(5, 0), left.told, 6.5)
    assert idle.step is Step.NONE
    assert course(page(slot(1.0, serial=0), shown=1), Limits(5, 0), idle.told, 6.5 + IDLE_WAIT).step is Step.KILL
    held = page(slot(1.0, phase=TUNNEL), shown=1)
    assert course(held, Limits(5, 0, 3.0), left.told, 8.0).step is Step.NONE
    assert course(held, Limits(5, 0, 3.0), left.told, 9.3).step is Step.KILL
    assert course(held, Limits(5, 0), left.told, 900.0).step is Step.NONE
    assert course(page(slot(6.0, serial=2), shown=1), Limits(5, 0), left.told, 8.0).step is Step.NONE


def test_all_at_once_are_one_order() -> None:
    many = page(*(slot(1.0 + serial / 1000, serial) for serial in range(1, 9)))
    found = course(many, Limits(5, 0), Told(), 6.3)
    assert (found.step, set(found.told.stuck), found.told.orders) == (Step.LEAVE, set(range(1, 9)), 1)


def test_one_more_is_shown_as_well() -> None:
    first = course(page(slot(1.0, 1), slot(1.5, 2)), Limits(5, 0), Told(), 6.3)
    assert set(first.told.stuck) == {1}
    second = course(page(slot(1.0, 1), slot(1.5, 2), shown=1), Limits(5, 0), first.told, 6.8)
    assert (second.step, set(second.told.stuck), second.told.orders) == (Step.LEAVE, {1, 2}, 2)
    assert course(page(slot(1.0, 1), slot(1.5, 2), shown=2), Limits(5, 0), second.told, 6.95).step is Step.KILL


def test_neither_tunnels_nor_groups_without_a_limit() -> None:
    assert course(page(slot(1.0, phase=TUNNEL)), Limits(5, 5), Told(), 100.0) == Course(Step.NONE, Told())
    assert course(page(slot(1.0)), Limits(0, 0), Told(), 100.0) == Course(Step.NONE, Told())


@given(st.lists(st.tuples(st.floats(1, 20), st.floats(0, 30)), max_size=20))
def test_slow_requests_are_shown_once(requests: list[tuple[float, float]]) -> None:
    """Each that runs for longer than the limit when it may be told, and none twice."""
    told, now, orders = Told(), 0.0, []
    shown: list[int] = []
    while now < 60:
        running = [slot(at, n) for n, (at, lasts) in enumerate(requests, 1) if at <= now < at + lasts]
        found = course(page(*running), Limits(0, 2), told, now)
        if found.step is Step.SLOW:
            orders.append(now)
            shown += sorted(found.told.slow - told.slow)
        told = found.told
        now = min(found.again, now + 0.5)
    assert all(later - before > SLOW_EVERY - 1e-6 for before, later in itertools.pairwise(orders))
    assert len(shown) == len(set(shown))
    assert {n for n, (_, lasts) in enumerate(requests, 1) if lasts > 2 + SLOW_EVERY + 0.5} <= set(shown)
    assert all(requests[n - 1][1] > 1.999 for n in shown)


@given(limits)
def test_nothing_is_looked_at_too_seldom(any_limits: Limits) -> None:
    every = look_every(any_limits)
    assert 0 < every <= WATCH_EVERY
    assert not any_limits.request or every <= any_limits.request + NOTICE
    assert not any_limits.slow or every <= any_limits.slow


def test_both_sides_mean_one_signal() -> None:
    assert host.STACK_SIGNAL == SHOW_SIGNAL
