"""Companions as decisions: who waits for whom, when what runs at times, what follows an end. No process, no clock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webserver.config import Companion
from webserver.config.companion_order import circle, needed, startable, stoppable
from webserver.config.companion_times import DAYS, moment, moment_text, next_moment, next_tick
from webserver.config.model import INHERITED, UNLIMITED, Limit
from webserver.supervisor.companion_policy import PROCESS, SAID_FREELY, SAY_EVERY, Rest, Voice, after_run, differs
from webserver.supervisor.loop import Timer
from webserver.supervisor.policy import Backoff, Event, Forget, GiveUp, Restart
from webserver.supervisor.states import ALIVE, State
from webserver.supervisor.timetable import LOOK_EVERY, Timetable

names = st.sampled_from("abcdefgh")
afters = st.dictionaries(names, st.lists(names, max_size=3).map(tuple), max_size=8)
SAME = Limit(INHERITED, INHERITED)
COMPANION = Companion(
    name="one", command=("/bin/true",), directory="/", user="", group="", groups=(), umask=0o022, no_new_privs=True,
    capabilities=(), nice=0, limit_nofile=SAME, limit_nproc=SAME, limit_core=SAME, limit_as=SAME, limit_fsize=SAME,
    limit_stack=SAME, limit_memlock=SAME, private_tmp=0, namespaces=(), chroot="", memory_max=UNLIMITED,
    cpu_weight=100, pids_max=UNLIMITED, environment_file="", environment=(), instances=1, after=(), ready="started", start_timeout=60.0, restart="always",
    stop_signal="TERM", stop_timeout=600.0, every=0.0, at=(), timeout=0.0,
)  # fmt: skip


# Order


@given(afters)
def test_a_circle_is_one_and_is_found_when_nobody_could_be_the_last(after: dict[str, tuple[str, ...]]) -> None:
    found = circle(after)
    for name, following in zip(found, found[1:] + found[:1], strict=True):
        assert following in after[name]
    # The other way to know: start who can be started until nobody is left.
    ready: set[str] = set()
    while able := [name for name in startable(after, after, ready) if name not in ready]:
        ready |= set(able)
    assert bool(found) == (ready != set(after))


@given(afters)
def test_starts_and_ends_keep_the_order(after: dict[str, tuple[str, ...]]) -> None:
    """Whoever starts finds there all it waits for; whoever ends leaves nobody behind that stands on it."""
    if circle(after):
        return
    ready: list[str] = []
    while len(ready) < len(after):
        able = [name for name in startable(after, after, ready) if name not in ready]
        assert able
        for name in able:
            assert {other for other in after[name] if other in after} <= set(ready)
        ready += able
    alive = set(after)
    while alive:
        ending = stoppable(after, alive)
        assert ending
        for name in ending:
            assert not any(name in after[other] for other in alive if other != name)
        alive -= set(ending)


@given(afters, st.lists(names))
def test_what_is_needed_is_closed(after: dict[str, tuple[str, ...]], wanted: list[str]) -> None:
    found = needed(after, wanted)
    assert {name for name in wanted if name in after} <= found <= set(after)
    assert all(other in found for name in found for other in after[name] if other in after)


# Times of day


@pytest.fixture(autouse=True)
def time_zone() -> Iterator[None]:
    """One that has summer time, whatever this machine's is."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def at(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M"))


def text_of(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))


@pytest.mark.parametrize(
    ("texts", "now", "wanted"),
    [
        (["03:15"], "2026-11-27 03:14", "2026-11-27 03:15"),
        (["03:15"], "2026-11-27 03:15", "2026-11-28 03:15"),
        (["03:15", "15:00"], "2026-11-27 03:15", "2026-11-27 15:00"),
        (["fri 03:15"], "2026-11-27 03:15", "2026-12-04 03:15"),  # a Friday
        (["mon-fri 22:00"], "2026-11-27 22:00", "2026-11-30 22:00"),
        (["sat-mon 1:00"], "2026-11-27 12:00", "2026-11-28 01:00"),
        (["thu 00:00"], "2026-12-28 00:00", "2026-12-31 00:00"),
        (["00:00"], "2026-12-31 12:00", "2027-01-01 00:00"),
    ],
)
def test_next_moment(texts: list[str], now: str, wanted: str) -> None:
    assert text_of(next_moment(texts, at(now))) == wanted


def test_the_nights_in_which_clocks_are_changed() -> None:
    """A time that is not there comes an hour beside; one that is there twice comes once."""
    spring = next_moment(["02:30"], at("2026-03-28 12:00"))
    assert text_of(spring) in ("2026-03-29 01:30", "2026-03-29 03:30")
    assert text_of(next_moment(["02:30"], spring)) == "2026-03-30 02:30"
    autumn = next_moment(["02:30"], at("2026-10-24 12:00"))
    assert text_of(autumn) == "2026-10-25 02:30"
    assert text_of(next_moment(["02:30"], autumn)) == "2026-10-26 02:30"


moments = st.builds(
    lambda first, last, hour, minute: (f"{first}-{last} " if first and last else f"{first} " if first else "")
    + f"{hour}:{minute:02d}",
    st.sampled_from(("", *DAYS)), st.sampled_from(("", *DAYS)), st.integers(0, 23), st.integers(0, 59),
)  # fmt: skip


@given(moments, st.floats(1.5e9, 2e9))
def test_the_next_moment_is_later_and_no_more_than_a_week_away(text: str, now: float) -> None:
    found = next_moment([text], now)
    assert now < found <= now + 8 * 86400 + 3600
    local = time.localtime(found)
    assert local.tm_wday in moment(text).days
    assert local.tm_min == moment(text).minute
    assert moment(moment_text(text)) == moment(text)
    assert moment_text(moment_text(text)) == moment_text(text)


@pytest.mark.parametrize(
    "text", ["", "3", "24:00", "03:60", "funday 03:15", "mon- 03:15", "mon 03:15:00", "mon,tue 3:00"]
)
def test_what_is_no_time_of_day(text: str) -> None:
    with pytest.raises(ValueError):
        moment(text)


@given(st.floats(0, 1e6), st.floats(1, 1e5), st.floats(0, 1e7))
def test_ticks_keep_to_their_grid(origin: float, every: float, later: float) -> None:
    now = origin + later
    found = next_tick(origin, every, now)
    assert now < found <= now + 2 * every
    assert abs((found - origin) / every - round((found - origin) / every)) < 1e-3


class Clock:
    """The part of the loop that a timetable uses, with a wall clock beside it that can be set."""

    def __init__(self) -> None:
        self.monotonic = 1000.0
        self.offset = at("2026-11-27 03:00") - 1000.0
        self.timers: list[Timer] = []

    def now(self) -> float:
        return self.monotonic

    def wall(self) -> float:
        return self.monotonic + self.offset

    def after(self, seconds: float, function: Callable[[], None]) -> Timer:
        timer = Timer(self.monotonic + seconds, function)
        self.timers.append(timer)
        return timer

    def run(self, seconds: float) -> None:
        end = self.monotonic + seconds
        while due := [timer for timer in self.timers if timer.when <= end and not timer.cancelled]:
            timer = min(due, key=lambda one: one.when)
            self.timers.remove(timer)
            self.monotonic = max(self.monotonic, timer.when)
            timer.function()
        self.monotonic = end


def timetable(clock: Clock, **options: object) -> tuple[Timetable, list[str]]:
    runs: list[str] = []
    config = replace(COMPANION, **options)  # type: ignore[arg-type]
    return Timetable(clock, config, lambda: runs.append(text_of(clock.wall())), clock.wall), runs  # type: ignore[arg-type]


def test_every() -> None:
    clock = Clock()
    table, runs = timetable(clock, every=300.0)
    assert table.next_run() == clock.wall() + 300
    clock.run(299)
    assert runs == []
    clock.run(2)
    assert len(runs) == 1
    clock.run(1500)
    assert len(runs) == 6
    clock.offset += 7200  # the wall clock is nothing to it
    clock.run(300)
    assert len(runs) == 7
    table.stop()
    clock.run(3000)
    assert len(runs) == 7
    assert table.next_run() is None


def test_at_a_time_of_day() -> None:
    clock = Clock()
    table, runs = timetable(clock, at=("03:15",))
    assert text_of(table.next_run() or 0) == "2026-11-27 03:15"
    clock.run(14 * 60)
    assert runs == []
    clock.run(3 * 86400)
    assert runs == ["2026-11-27 03:15", "2026-11-28 03:15", "2026-11-29 03:15"]


def test_a_clock_that_is_set() -> None:
    """A little back: nothing is run twice. Forward past the time: it is run within a minute. A day back: it is that day."""
    clock = Clock()
    _, runs = timetable(clock, at=("03:15",))
    clock.run(16 * 60)
    clock.offset -= 600
    clock.run(3600)
    assert runs == ["2026-11-27 03:15"]
    clock.offset += 86400
    clock.run(LOOK_EVERY)
    assert len(runs) == 2
    clock.offset -= 3 * 86400
    clock.run(86400)
    assert len(runs) == 3


# Ends


@given(
    st.sampled_from(("always", "failure", "never")), st.sampled_from(sorted(ALIVE, key=str)), st.sampled_from(Event),
    st.booleans(), st.booleans(), st.floats(0, 100),
)  # fmt: skip
def test_after_a_run(restart: str, state: State, event: Event, well: bool, wanted: bool, ran: float) -> None:
    found = after_run(restart, state, event, well, wanted, Backoff(), 50.0, 50.0 + ran)
    if not wanted or state is State.DRAINING:
        assert found == Forget()
    elif event is Event.REFUSED:
        assert found == GiveUp()
    elif restart == "never" or (restart == "failure" and well):
        assert found == Rest()
    else:
        assert isinstance(found, Restart)
        assert found.at > 50.0 + ran


def test_a_loop_of_ends_is_told_once_a_minute() -> None:
    voice, now, lines, unsaid = Voice(), 0.0, 0, 0
    for _ in range(1000):
        voice, speak, before = voice.again(now)
        lines += speak
        unsaid += before
        now += 1.0
    assert lines == SAID_FREELY + (1000 - SAID_FREELY) // SAY_EVERY
    assert unsaid <= 1000 - lines


def test_what_needs_another_process() -> None:
    others = {"stop_timeout": 1.0, "stop_signal": "INT", "restart": "never", "start_timeout": 1.0, "after": ("b",)}
    for name, value in others.items():
        assert not differs(COMPANION, replace(COMPANION, **{name: value}))  # type: ignore[arg-type]
    values = {"command": ("/bin/false",), "environment": (("A", "b"),), "umask": 0o077, "no_new_privs": False}
    for name in PROCESS:
        assert differs(COMPANION, replace(COMPANION, **{name: values.get(name, "other")}))  # type: ignore[arg-type]
