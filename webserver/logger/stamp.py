"""The time at the beginning of a line."""

from __future__ import annotations

import time


class Stamp:
    """Local time with milliseconds, as "2026-11-22 23:40:13.123"; the seconds' part is made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._text}.{int((now - second) * 1000):03d}"
