"""Times of day at which something is run: "03:15", "sun 03:15", "mon-fri 22:00". Pure, but for the local time zone.

When clocks are put forward, a time that the day does not have comes an hour beside; when they are put back, a time that
the day has twice comes once.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = re.compile(r"(?:([a-z]{3})(?:-([a-z]{3}))?\s+)?([01]?[0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True)
class Moment:
    days: frozenset[int]  # as date.weekday() counts
    hour: int
    minute: int


def moment(text: str) -> Moment:
    match = _FORM.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError("")
    first, last = match[1] or "mon", match[2] or match[1] or "sun"
    for day in (first, last):
        if day not in DAYS:
            raise ValueError(f'there is no day "{day}"; days are {", ".join(DAYS)}')
    start, count = DAYS.index(first), (DAYS.index(last) - DAYS.index(first)) % 7 + 1
    return Moment(frozenset((start + number) % 7 for number in range(count)), int(match[3]), int(match[4]))


def moment_text(text: str) -> str:
    """The one way to write it, so that what is the same compares equal. ValueError for what is no time of day."""
    found = moment(text)
    days = text.strip().lower().rpartition(" ")[0].strip()
    if len(found.days) == 7:
        days = ""
    return f"{days} {found.hour:02d}:{found.minute:02d}".strip()


def next_moment(texts: Sequence[str], after: float) -> float:
    """The first of these times that is later than `after`; both are seconds since 1970."""
    today = datetime.date(*time.localtime(after)[:3])
    found = []
    for one in map(moment, texts):
        # Eight days on is the same day of the week again, where today's time is over.
        for distance in range(9):
            day = today + datetime.timedelta(days=distance)
            at = time.mktime((day.year, day.month, day.day, one.hour, one.minute, 0, 0, 0, -1))
            if day.weekday() in one.days and at > after:
                found.append(at)
                break
    return min(found)


def next_tick(origin: float, every: float, now: float) -> float:
    """The first of origin + every, origin + 2 * every, ... that is later than `now`."""
    passed = max(0.0, now - origin) // every
    at = origin + (passed + 1) * every
    # Rounding may have put it at `now` itself.
    return at if at > now else at + every
