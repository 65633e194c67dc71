"""What becomes of companions, as decisions: pure functions of what is known. companion.py asks them and does it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from webserver.config import Companion
from webserver.config.model import Confined
from webserver.supervisor.policy import Backoff, Event, Forget, GiveUp, Restart, after_end
from webserver.supervisor.states import State

SAY_EVERY = 60.0  # seconds between two lines about a companion that ends again and again
SAID_FREELY = 5  # ends in a row of which each has its line
FORGOTTEN = 600.0  # seconds without an end after which the next one is the first again
PROGRESS_EVERY = 60.0  # seconds between two lines about one that is being waited for

# A change of one of these needs another process; the others are taken as they are.
PROCESS = ("command", "directory", "ready", *(field.name for field in fields(Confined) if field.name != "name"))


@dataclass(frozen=True)
class Rest:
    """Its work is done, or has been given up by its own rules: it stays so until its time comes or somebody asks."""


After = Restart | GiveUp | Forget | Rest


def after_run(
    restart: str, state: State, event: Event, well: bool, wanted: bool, backoff: Backoff, started: float, now: float
) -> After:
    """What follows the end of a program that was in `state`. `well`: it ended with status 0."""
    if not wanted or state is State.DRAINING:
        return Forget()
    if event is not Event.REFUSED and (restart == "never" or (restart == "failure" and well)):
        return Rest()
    decision = after_end(state, event, wanted, backoff, started, now)
    assert isinstance(decision, Restart | GiveUp | Forget)
    return decision


def differs(before: Companion, after: Companion) -> bool:
    """True if what runs has to be replaced to become what is wanted."""
    return any(getattr(before, name) != getattr(after, name) for name in PROCESS)


@dataclass(frozen=True)
class Voice:
    """Says of what happens again and again the first few times each, and then once a minute how often it was."""

    times: int = 0
    last: float = 0.0
    said_at: float = 0.0
    silent: int = 0  # times since something was said

    def again(self, now: float) -> tuple[Voice, bool, int]:
        """(the next voice, whether to say it, how many times nothing was said before)."""
        times = 1 if now - self.last >= FORGOTTEN else self.times + 1
        if times <= SAID_FREELY or now - self.said_at >= SAY_EVERY:
            return Voice(times, now, now), True, self.silent
        return replace(self, times=times, last=now, silent=self.silent + 1), False, 0
