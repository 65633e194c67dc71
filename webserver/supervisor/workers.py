"""A worker as the supervisor knows it: its page, what its manager says of it, and whether it is to go."""

from __future__ import annotations

from dataclasses import dataclass, field

from webserver.supervisor.pages import SharedPage
from webserver.supervisor.policy import Course, Limits, Step, Told, course, overstays


@dataclass(eq=False)
class Worker:
    number: int
    incarnation: int
    page: SharedPage
    started: float
    pid: int = 0  # as the manager says
    ready: bool = False
    told: Told = field(default_factory=Told)
    why: str = ""  # it was told to leave
    going: str = ""  # why it is to go, as its manager says
    asked: float | None = None  # when its manager asked it for its orderly end
    told_to_retire: bool = False  # by us; its manager will ask it
    reached: set[int] = field(default_factory=set)  # ordinals of front ends that it has answered
    proven: bool = False  # all of them have said so, once

    @property
    def leaves(self) -> bool:
        """Whether it is to take no more."""
        return self.told_to_retire or self.asked is not None

    def look(self, limits: Limits, leaving: float | None, deadline: float | None, now: float) -> tuple[Course, str]:
        """What is to be done about it, and why if that is known here.

        `leaving`: when all workers were asked to end; `deadline`: when those that were asked have to have ended.
        """
        page = self.page.read()
        found = course(page, limits, self.told, now)
        leaving = self.asked if leaving is None else leaving
        # Of a worker that is replaced the tunnels may go on for a while.
        waits = page.tunnels > 0 and leaving is not None and (not limits.tunnels or now - leaving < limits.tunnels)
        late = deadline is not None and now >= deadline
        if found.step is not Step.KILL and leaving is not None and (late or not waits):
            why = overstays(page.state_name in ("draining", "gone"), now - leaving, late)
            if why:
                return Course(Step.KILL, self.told), why
        return found, ""
