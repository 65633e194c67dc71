"""How far the end of the server is, and what is done when it takes too long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from webserver.config.units import seconds_text
from webserver.supervisor.frontends import FrontEnds
from webserver.supervisor.journal import Journal
from webserver.supervisor.loop import Loop

TELL_EVERY = 0.5  # seconds between two looks at how far it is


class Drain:
    """`too_long` is called when shutdown_timeout is over, `tell` again and again: connections, and that in words."""

    def __init__(
        self, loop: Loop, journal: Journal, frontends: FrontEnds, too_long: Callable[[], None],
        tell: Callable[[int, str], None],
    ) -> None:  # fmt: skip
        self._loop = loop
        self._journal = journal
        self._frontends = frontends
        self._too_long = too_long
        self._tell = tell
        self._began: float | None = None
        self._limit = frontends.config.server.shutdown_timeout
        self._over = False

    def begin(self) -> None:
        self._limit = self._frontends.config.server.shutdown_timeout
        self._began = self._loop.now()
        self._loop.after(self._limit, self._expired)
        self._loop.after(TELL_EVERY, self._look)

    def end(self) -> None:
        """The server stops now."""
        self._over = True
        if self._began is None:
            self._began = self._loop.now()

    def progress(self) -> dict[str, Any] | None:
        """For status; None: the server does not end."""
        if self._began is None:
            return None
        passed = self._loop.now() - self._began
        left = max(0.0, self._limit - passed)
        return {"connections": self._frontends.connections, "seconds": round(passed, 1), "left": round(left, 1)}

    def _expired(self) -> None:
        if self._over:
            return
        left = f"{self._frontends.connections} connections are" if self._frontends.alive() else "workers are"
        limit = seconds_text(self._limit)
        self._journal.error(f"{left} left after shutdown_timeout = {limit}; what they have is cut off")
        self._too_long()

    def _look(self) -> None:
        if self._over:
            return
        self._loop.after(TELL_EVERY, self._look)
        connections = self._frontends.connections
        self._tell(connections, f"{connections} connections are left" if self._frontends.alive() else "workers end")
