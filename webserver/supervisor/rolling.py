"""One generation takes over from another worker by worker: what to do next, as a pure function of what is there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Step(Enum):
    GRANT = "grant"  # let the new generation fork one more worker
    RETIRE = "retire"  # ask one of the old generation's workers to go
    MORE = "more"  # have the new generation's manager ask for more: it has fewer than the work takes
    WAIT = "wait"
    DONE = "done"  # the new generation has what it asks for; what is left of the old one can go


@dataclass(frozen=True)
class Rolling:
    """The workers of both generations, counted."""

    processes: int  # of the new generation
    extra: int  # restart_extra; 0: as many as there are
    began: int  # workers that were there when it began
    needed: int  # workers that it took when it began: never fewer shall be there
    old: int  # of the old generation, taking requests
    leaving: int  # of the old generation, asked to go and still there
    proven: int  # of the new generation, and every front end has had its answer
    unproven: int  # of the new generation, not yet so
    asked: int  # that the new generation wants besides

    @property
    def most(self) -> int:
        """Workers of both generations that may be there."""
        whole = max(self.processes, self.began)
        return whole + (self.extra or whole)

    @property
    def there(self) -> int:
        return self.old + self.leaving + self.proven + self.unproven


def step(now: Rolling, retiring: bool = True) -> Step:
    """`retiring`: old workers may be asked to go already.

    Nobody goes before somebody is proven, and none while that would leave fewer than `needed`. Whoever leaves takes the
    place of one that comes until its last request is answered: memory is what extra bounds.
    """
    if now.asked and now.there < now.most:
        return Step.GRANT
    if now.unproven or not now.proven:
        return Step.WAIT
    if not (now.old or now.leaving):
        return Step.DONE
    if not now.asked:
        return Step.DONE if now.proven >= now.needed else Step.MORE
    if retiring and now.old and now.leaving < now.asked and now.old + now.proven > now.needed:
        return Step.RETIRE
    return Step.WAIT
