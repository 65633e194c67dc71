"""An answer that waits for a number of things, but not for ever."""

from __future__ import annotations

from collections.abc import Callable

from webserver.supervisor.loop import Loop

REPORT_AFTER = 10.0  # seconds that an answer waits for old generations; they have all the time they need


class Waiting:
    """Waits for a number of things, but with its answer no longer than REPORT_AFTER."""

    def __init__(self, loop: Loop, number: int, done: Callable[[int], None]) -> None:
        self._number = number
        self._done: Callable[[int], None] | None = done
        self._timer = loop.after(REPORT_AFTER, self._answer)

    def one(self) -> None:
        self._number -= 1
        if not self._number:
            self._answer()

    def _answer(self) -> None:
        self._timer.cancel()
        done, self._done = self._done, None
        if done is not None:
            done(self._number)
