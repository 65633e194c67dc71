"""Supervision's decisions, with a clock that only exists as a number."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import directory

from webserver.config import Config, Group, Listen
from webserver.supervisor.plan import plan
from webserver.supervisor.policy import (
    BEAT_LATE,
    BEAT_LIMIT,
    REACT_WAIT,
    SIGNALS,
    SLOW_BEAT_LIMIT,
    Allowance,
    Backoff,
    Event,
    Forget,
    GiveUp,
    Phase,
    Restart,
    Wish,
    after_end,
    cause,
    hung,
    late,
    on_signal,
    overstays,
    slow_beat_stopped,
)
from webserver.supervisor.process import Child
from webserver.supervisor.states import ALIVE, EDGES, STAGES, Door, IllegalChange, Stage, State, next_stage

times = st.floats(0, 1e6)


@pytest.mark.parametrize("table", [EDGES, STAGES])
def test_tables_are_whole(table: dict[State, frozenset[State]] | dict[Stage, frozenset[Stage]]) -> None:
    """Every state is in the table, can be reached, and leads to an end."""
    kind = type(next(iter(table)))
    assert set(table) == set(kind)
    first, last = next(iter(table)), [state for state, following in table.items() if not following]
    assert len(last) == 1
    reached = {first}
    for _ in table:
        reached |= {after for state in reached for after in table[state]}
    assert reached == set(kind)
    for state in table:
        leads = {state}
        for _ in table:
            leads |= {after for one in leads for after in table[one]}
        assert last[0] in leads


@given(st.sampled_from(State), st.sampled_from(State))
def test_only_legal_edges(before: State, after: State) -> None:
    seen = []
    door = Door()
    door.observe(lambda child, old, new, why: seen.append((old, new, why)))
    child = Child("logger", "", state=before)
    if after in EDGES[before]:
        door.change(child, after, "why")
        assert seen == [(before, after, "why")]
        assert child.state is after
    else:
        with pytest.raises(IllegalChange):
            door.change(child, after, "why")
        assert child.state is before
        assert seen == []


def test_no_stage_is_left_against_the_table() -> None:
    with pytest.raises(IllegalChange):
        next_stage(Stage.CLOSED, Stage.SERVING)


def test_back_off_doubles_up_to_its_limit_and_starts_anew() -> None:
    backoff, delays = Backoff(), []
    for _ in range(12):
        backoff = backoff.after(1.0)
        delays.append(round(backoff.delay(), 3))
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0]
    assert backoff.after(10.0).delay() == 0.1


@given(st.integers(0, 10**9))
def test_back_off_is_bounded(failures: int) -> None:
    assert 0 <= Backoff(failures).delay() <= 30


@given(st.sampled_from(sorted(ALIVE, key=str)), st.sampled_from(Event), st.booleans(), times, times)
def test_after_an_end(state: State, event: Event, wanted: bool, started: float, ran: float) -> None:
    """Retrying and having given up are different things, and what was to end does not come back."""
    now = started + ran
    decision = after_end(state, event, wanted, Backoff(), started, now)
    if not wanted or state is State.DRAINING:
        assert decision == Forget()
    elif event is Event.REFUSED:
        assert decision == GiveUp()
    else:
        assert isinstance(decision, Restart)
        assert decision.at == now + 0.1


@given(st.sampled_from(State), times, times)
def test_hung(state: State, last: float, later: float) -> None:
    now = last + later
    if state in (State.RUNNING, State.DRAINING):
        assert hung(state, last, now) == (now - last >= BEAT_LIMIT)
    elif state not in ALIVE:
        assert not hung(state, last, now)


def test_late_comes_before_hung() -> None:
    assert late(State.RUNNING, 0.0, BEAT_LATE)
    assert not hung(State.RUNNING, 0.0, BEAT_LATE)
    assert not late(State.STARTING, 0.0, BEAT_LATE)
    assert slow_beat_stopped(State.RUNNING, 0.0, SLOW_BEAT_LIMIT)
    assert not slow_beat_stopped(State.STARTING, 0.0, SLOW_BEAT_LIMIT)


@pytest.mark.parametrize(
    ("reacted", "waited", "late", "wanted"),
    [
        (True, 29.0, False, False),
        (True, 29.0, True, True),
        (True, 1e6, False, False),
        # It does not run at all.
        (False, REACT_WAIT, False, True),
        (False, REACT_WAIT - 0.1, False, False),
    ],
)
def test_what_overstays(reacted: bool, waited: float, late: bool, wanted: bool) -> None:
    assert bool(overstays(reacted, waited, late)) is wanted


def test_signals() -> None:
    assert on_signal(Phase.SERVING, signal.SIGTERM) is Wish.DRAIN
    assert on_signal(Phase.DRAINING, signal.SIGTERM) is Wish.STOP
    assert on_signal(Phase.SERVING, signal.SIGINT) is Wish.STOP
    assert on_signal(Phase.SERVING, signal.SIGHUP) is Wish.RELOAD
    assert on_signal(Phase.SERVING, signal.SIGUSR2) is Wish.UPGRADE
    assert on_signal(Phase.DRAINING, signal.SIGUSR2) is Wish.NOTHING
    for phase in Phase:
        assert on_signal(phase, signal.SIGWINCH) is Wish.NOTHING
    # Nothing brings a server back that is ending, and nothing stops it from ending.
    assert not {wish for (phase, _), wish in SIGNALS.items() if phase is not Phase.SERVING} & {Wish.RELOAD, Wish.DRAIN}
    assert not [key for key in SIGNALS if key[0] is Phase.STOPPING]


@given(st.lists(st.floats(0, 1), max_size=200), st.integers(1, 20), st.floats(0.5, 100))
def test_an_allowance_is_kept(gaps: list[float], burst: int, rate: float) -> None:
    """Whoever waits as long as it is told never gets more than the burst and the rate."""
    now, allowance = 0.0, Allowance.full(burst, rate, 0.0)
    granted = []
    for gap in gaps:
        now += gap
        allowance, wait = allowance.take(now)
        granted.append(now + wait)
    for number, at in enumerate(granted):
        assert number + 1 <= burst + rate * at + 1e-6


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (0, ("exited with status 0", 0, 0)),
        (3 << 8, ("exited with status 3", 3, 0)),
        (11, ("killed by SIGSEGV", 0, 11)),
        (11 | 0x80, ("killed by SIGSEGV (core dumped)", 0, 11)),
        (63, ("killed by signal 63", 0, 63)),
    ],
)
def test_causes(status: int, wanted: tuple[str, int, int]) -> None:
    assert cause(status) == wanted


def _config(path: object) -> Config:
    from webserver.config import load

    return load(str(path))


@pytest.fixture
def config() -> Iterator[Config]:
    with directory() as path:
        yield _written(path)


def _written(path: Path) -> Config:
    user = ("user = www-data\n", "user = nobody\n") if os.geteuid() == 0 else ("", "")
    (path / "plugin.so").touch()
    file = path / "webserver.conf"
    file.write_text(
        f"[server]\nlisten = 127.0.0.1:8080\n{user[0]}[groups]\n"
        + "".join(f"[[{name}]]\nlanguage = echo\nplugin = plugin.so\n{user[1]}" for name in "abc")
    )
    return _config(file)


def test_no_change_is_no_plan(config: Config) -> None:
    found = plan(config, config)
    assert (found.refused, found.listen, found.unlisten, found.added, found.changed, found.removed) == ((),) * 6
    assert not found.logs


def test_a_plan_has_every_difference(config: Config) -> None:
    a, b, _ = config.groups
    new: tuple[Group, ...] = (a, replace(b, threads=9), replace(a, name="d"))
    other = Listen("inet", "127.0.0.1", 8081)
    after = replace(config, groups=new, server=replace(config.server, listen=(other,)))
    found = plan(config, after)
    assert found.listen == (other,)
    assert found.unlisten == config.server.listen
    assert [group.name for group in found.changed] == ["b"]
    assert [group.name for group in found.added] == ["d"]
    assert found.removed == ("c",)
    for name, value in {"frontends": 31, "run": "/other", "open_files": 257, "spool": "/other"}.items():
        assert plan(config, replace(config, server=replace(config.server, **{name: value}))).refused
    assert not plan(config, replace(config, server=replace(config.server, idle_timeout=1.0))).refused
