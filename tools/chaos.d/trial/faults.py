"""Kinds of faults, what each of them may cost, and the plan of a run: pure, from a seed.

COSTS is the whole of what a client may notice. What is not in it costs nothing: no refusal, no cut connection.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

GAP = (0.55, 0.95)  # seconds from one fault to the next
QUIET = 3.0  # seconds at the end, for what was begun


@dataclass(frozen=True)
class Kind:
    """`weight`: how often in one deck. `length`: seconds that it lasts, from and to; 0: at once. `apart`: kinds that
    are not begun while it lasts, since together they cost more than each by itself."""

    name: str
    weight: int
    length: tuple[float, float] = (0.0, 0.0)
    apart: frozenset[str] = frozenset()
    costs: str = ""  # in words, for the table that is printed; "": nothing


# One number of descriptors is set for a process at a time, and one tracer slows it down.
_LOGGER_SLOW = frozenset({"log-slow"})
_FRONTEND_SLOW = frozenset({"files-slow"})
_FRONTEND_DESCRIPTORS = frozenset({"descriptors-frontend"})
OWN = "its own connections"
RUNNING = "requests that its workers run"
ONE = "requests that it runs: 502, or cut off"

KINDS = {
    kind.name: kind
    for kind in (
        Kind("worker-kill", 1, costs=ONE),
        Kind("worker-segv", 1, costs=ONE),
        Kind("worker-stop", 4, (0.1, 1.5)),
        Kind("worker-term", 3),
        Kind("manager-kill", 1, costs=RUNNING),
        Kind("manager-segv", 1, costs=RUNNING),
        Kind("manager-stop", 4, (0.1, 1.5)),
        Kind("manager-term", 1),
        Kind("frontend-kill", 1, costs=OWN),
        Kind("frontend-segv", 1, costs=OWN),
        Kind("frontend-stop", 4, (0.1, 1.0)),
        Kind("logger-kill", 2),
        Kind("logger-segv", 1),
        Kind("logger-stop", 4, (0.1, 1.5)),
        Kind("logger-term", 1),
        Kind("companion-kill", 1),
        Kind("signal-ignored", 4),
        Kind("log-full", 3, (0.5, 2.0)),
        Kind("log-slow", 3, (0.5, 1.5), _LOGGER_SLOW),
        Kind("log-rotate", 4),
        Kind("spool-full", 2, (0.5, 2.0)),
        Kind("files-slow", 3, (0.5, 1.5), _FRONTEND_SLOW),
        Kind("connections-held", 3, (0.5, 1.5)),
        Kind("descriptors-frontend", 3, (0.3, 1.0), _FRONTEND_DESCRIPTORS),
        Kind("descriptors-supervisor", 2, (0.3, 1.0)),
        Kind("descriptors-manager", 2, (0.3, 1.0)),
        Kind("descriptors-logger", 2, (0.3, 1.0)),
        Kind("reload", 4),
        Kind("restart", 3),
        Kind("restart-touch", 1),
        Kind("upgrade", 1),
        Kind("config-good", 3),
        Kind("config-broken", 4),
        Kind("deploy-broken", 2),
    )
}


@dataclass(frozen=True)
class Planned:
    """One fault: `at` seconds after the beginning. `pick` and `other`, from 0 to 1, choose among what is there then."""

    number: int
    at: float
    kind: str
    length: float
    pick: float
    other: float


def plan(seed: int, seconds: float, only: tuple[str, ...] = ()) -> list[Planned]:
    """The faults of a run. Each deck holds each kind as often as its weight says, so that none is left out for long."""
    draw = random.Random(seed)
    found: list[Planned] = []
    cards = _decks(draw, only)
    put_off: list[str] = []
    at = 0.0
    while (at := at + draw.uniform(*GAP)) < seconds - QUIET:
        kind = next((name for name in put_off if _may(name, at, found)), "")
        if kind:
            put_off.remove(kind)
        while not kind:
            kind = next(cards)
            if not _may(kind, at, found):
                put_off.append(kind)
                kind = ""
                if len(put_off) > 10:  # nothing else is asked for: some time without
                    break
        if kind:
            length = draw.uniform(*KINDS[kind].length)
            found.append(Planned(len(found), at, kind, length, draw.random(), draw.random()))
    return found


def _decks(draw: random.Random, only: tuple[str, ...]) -> Iterator[str]:
    deck = [name for name, kind in KINDS.items() for _ in range(kind.weight) if not only or name in only]
    while True:
        draw.shuffle(deck)
        yield from deck


APART = 1.5  # seconds after the end of one until its effects are over: the logger tries once a second


def _may(kind: str, at: float, found: list[Planned]) -> bool:
    """Whether it may begin now, beside what has begun in the last seconds."""
    for one in found[-20:]:
        if at <= one.at + one.length + APART and (kind in KINDS[one.kind].apart or one.kind in KINDS[kind].apart):
            return False
    return True


@dataclass(frozen=True)
class Done:
    """A fault as it was carried out. Times are time.time(); `ended` is when it was over, not its effects."""

    planned: Planned
    began: float
    ended: float
    target: str  # "worker python 0 (123)"
    group: str = ""
    ports: frozenset[int] = frozenset()  # clients' ends of the connections that a front end had when it died
    note: str = ""  # what came of it, where that is worth telling
    wrong: str = ""  # what should not have come of it

    @property
    def kind(self) -> str:
        return self.planned.kind

    def text(self, origin: float) -> str:
        parts = [f"{self.began - origin:9.3f}s {self.kind}", self.target]
        if self.ended - self.began > 0.01:
            parts.append(f"for {self.ended - self.began:.2f}s")
        return " ".join(parts + [f"({text})" for text in (self.note, self.wrong) if text])
