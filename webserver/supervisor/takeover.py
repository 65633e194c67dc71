"""One generation takes over from another: counts their workers, asks rolling.py, and carries out what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from webserver.supervisor.generation import Generation
from webserver.supervisor.loop import Loop, Timer
from webserver.supervisor.policy import START_MARGIN, slow_beat_stopped
from webserver.supervisor.rolling import Rolling, Step, step

AGAIN = 0.1  # seconds until a manager is asked once more to ask for workers


class Takeover:
    """`done` is called once, when the old generation can be drained as a whole; not from inside a call of ours."""

    def __init__(
        self, loop: Loop, before: Generation | None, after: Generation, extra: int, done: Callable[[], None]
    ) -> None:
        self.before = before
        self.after = after
        self.retiring = False  # whether old workers may be asked to go: `after` has been accepted
        self._loop = loop
        self._extra = extra
        self._done = done
        self._over = False
        self._soon: Timer | None = None
        self._began = before.crew.staying if before is not None else 0
        self._needed = _needed(before)
        self._seen: Rolling | None = None  # what was counted last, and since when it is so
        self._moved_at = 0.0
        after.crew.hold()

    @property
    def over(self) -> bool:
        return self._over

    def concerns(self, generation: Generation) -> bool:
        return generation is self.before or generation is self.after

    def moved(self) -> None:
        """Something has changed: look at it, once, in the next turn."""
        if not self._over:
            if self._soon is not None:
                self._soon.cancel()
            self._soon = self._loop.soon(self._look)

    def accept(self) -> None:
        """The new generation works: old workers go, and none of those that end for other reasons is replaced."""
        self.retiring = True
        if self.before is not None:
            self.before.crew.hold()
        self.moved()

    def undo(self) -> None:
        """The new generation is given up: the old one fills the places of those that had gone."""
        self._stop()
        if self.before is not None and self.before.live:
            self.before.crew.release()

    def hasten(self) -> None:
        """Something else comes: the new generation takes what it needs at once, whatever is there besides."""
        self._stop()
        if self.after.live:
            self.after.crew.release()

    def progress(self) -> dict[str, Any]:
        """How far it is, for status and for whoever waits."""
        return {
            "from": self.before.number if self.before is not None else None,
            "to": self.after.number,
            "proven": self.after.crew.proven,
            "processes": self.after.config.processes,
            "old": self.before.crew.staying if self.before is not None else 0,
            "leaving": self.before.crew.leaving if self.before is not None else 0,
        }

    def _look(self) -> None:
        self._soon = None
        while not self._over:
            now = self._count()
            if problem := self._stuck(now):
                self.after.owner.generation_failed(self.after, problem)
                return
            what = step(now, self.retiring)
            if self.retiring and now.proven and _hangs(self.before, self._loop.now()):
                what = Step.DONE  # it would ask nobody to go: as a whole it can be ended
            if what is Step.GRANT:
                self.after.crew.grant_next()
            elif what is Step.RETIRE and self.before is not None:
                self.before.crew.retire_one()
            elif what is Step.MORE and self.retiring:
                self.after.wanted((now.needed - now.proven) * self.after.config.threads)
                self._soon = self._loop.after(AGAIN, self._look)
                return
            elif what is Step.DONE and self.retiring:
                self._stop()
                self.after.crew.release()
                self._done()
            else:
                return

    def _count(self) -> Rolling:
        before, after = self.before, self.after
        return Rolling(
            processes=after.config.processes,
            extra=self._extra,
            began=self._began,
            needed=min(self._needed, after.config.processes),
            old=before.crew.staying if before is not None else 0,
            leaving=before.crew.leaving if before is not None else 0,
            proven=after.crew.proven,
            unproven=len(after.workers) + after.crew.pending - after.crew.proven,
            asked=after.crew.held,
        )

    def _stuck(self, now: Rolling) -> str:
        """Why the new generation will come no further; "" while it may."""
        time = self._loop.now()
        if now != self._seen:
            self._seen, self._moved_at = now, time
        if _hangs(self.after, time):
            return "its manager hangs"
        limit = 2 * self.after.config.start_timeout + START_MARGIN
        if now.unproven and not now.leaving and time - self._moved_at > limit:
            return f"a worker did not serve within {limit:g} s"
        return ""

    def _stop(self) -> None:
        self._over = True
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None


def _hangs(generation: Generation | None, now: float) -> bool:
    """Whether its manager says nothing any more."""
    manager = generation.manager if generation is not None else None
    return manager is not None and slow_beat_stopped(manager.state, manager.last_beat, now)


def _needed(before: Generation | None) -> int:
    """Workers that the group's work takes: all that there are, or, where their number follows it, those that work."""
    if before is None:
        return 0
    elastic = before.config.processes_min < before.config.processes
    return before.crew.working if elastic else before.crew.staying
