"""When a companion is run that runs at times: the clocks, and nothing of what is run.

`every` counts by the clock that nobody sets. `at` is local time: the wall clock is looked at once a minute, as it may
be set; when it is set back by less than an hour, nothing is run twice for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from webserver.config import Companion
from webserver.config.companion_times import next_moment, next_tick
from webserver.supervisor.loop import Loop, Timer

LOOK_EVERY = 60.0  # seconds
Begun = tuple[float, float]
SET_BACK = 3600.0  # seconds; by more than that, it is another day for all we know


class Timetable:
    def __init__(
        self, loop: Loop, config: Companion, on_due: Callable[[], None], wall: Callable[[], float] = time.time,
        begun: Begun | None = None,
    ) -> None:  # fmt: skip
        """`begun`: of the one that this one is to go on from."""
        self._loop = loop
        self._every = config.every
        self._at = config.at
        self._on_due = on_due
        self._wall = wall
        # Ticks are counted from the first; what was due up to the second, by the clock that counts, is over.
        self._origin, self._over = begun or (loop.now(), loop.now() if config.every else wall())
        self._due = 0.0  # by the loop's clock, or by the wall's
        self._timer: Timer | None = None
        self._plan()

    def begun(self) -> Begun:
        """What another one goes on from, also in another program on this machine."""
        return self._origin, self._over

    def next_run(self) -> float | None:
        """Seconds since 1970; None: it has been stopped."""
        if self._timer is None:
            return None
        return self._wall() + self._due - self._loop.now() if self._every else self._due

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self) -> None:
        if self._every:
            now = self._loop.now()
            self._due = next_tick(self._origin, self._every, self._over)
            wait = max(0.0, self._due - now)
        else:
            now = self._wall()
            if now < self._over - SET_BACK:
                self._over = now
            self._due = next_moment(self._at, self._over)
            wait = max(0.0, min(LOOK_EVERY, self._due - now))
        self._timer = self._loop.after(wait, self._look)

    def _look(self) -> None:
        now = self._loop.now() if self._every else self._wall()
        is_due = now >= self._due
        if is_due:
            self._over = now
        self._plan()
        if is_due:
            self._on_due()
