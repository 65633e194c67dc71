"""Processes that end again and again: when that is worth a line of its own, and how often. Pure.

Each end has its own line with its cause; each start after a failure waits longer than the one before it (policy.py,
manager/policy.py). What is missing there is the sentence that says what it all amounts to, and that must not be said
at every turn. It is said on for as long as the loop lasts: with a back-off of half a minute that is two ends a minute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LOOP = 5  # ends that nobody asked for
WITHIN = 60.0  # seconds in which so many make a loop, and from one line about it to the next
CALM = 120.0  # seconds without an end after which it is over: longer than any back-off


@dataclass(frozen=True)
class Crashes:
    """Of one group, over its generations, or of another kind of process."""

    ends: tuple[float, ...] = ()  # of the last minute, and the latest at least
    loop: int = 0  # ends since a loop began; 0: there is none
    told: float = -math.inf

    def after(self, now: float) -> tuple[Crashes, int]:
        """One more, at `now`; returns how many there were one after another if that is to be said, else 0."""
        goes_on = self.loop and now - self.ends[-1] < CALM
        ends = (*[end for end in self.ends if now - end < WITHIN][-999:], now)
        loop = self.loop + 1 if goes_on else len(ends) if len(ends) >= LOOP else 0
        if not loop or now - self.told < WITHIN:
            return Crashes(ends, loop, self.told), 0
        return Crashes(ends, loop, now), loop


def sentence(count: int, what: str, cause: str) -> str:
    """What is said of a loop: of `what`, in the plural."""
    return (
        f"{count} {what} have ended unasked one after another, the last: {cause}; each is started again later than the"
        " one before it"
    )
