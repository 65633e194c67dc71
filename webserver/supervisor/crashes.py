"""Workers of a group that end again and again: when that is worth a line of its own, and how often. Pure.

Each end has its own line with its cause; each start after a failure waits longer than the one before it
(manager/policy.py). What is missing there is the sentence that says what it all amounts to, and that must not be said
at every turn.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOP = 5  # ends that nobody asked for
WITHIN = 60.0  # seconds in which so many make a loop, and from one line about it to the next


@dataclass(frozen=True)
class Crashes:
    """Of one group, over its generations."""

    ends: tuple[float, ...] = ()
    told: float | None = None

    def after(self, now: float) -> tuple[Crashes, int]:
        """One more, at `now`; returns how many there were in the last minute if that is to be said, else 0."""
        ends = (*[end for end in self.ends if now - end < WITHIN][-999:], now)
        if len(ends) < LOOP or (self.told is not None and now - self.told < WITHIN):
            return Crashes(ends, self.told), 0
        return Crashes(ends, now), len(ends)
