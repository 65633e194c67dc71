"""A worker as the supervisor knows it: its page, what its manager says of it, and whether it is to go."""

from __future__ import annotations

from dataclasses import dataclass

from webserver.supervisor.pages import SharedPage
from webserver.supervisor.policy import Stuck, overstays, stuck


@dataclass(eq=False)
class Worker:
    number: int
    incarnation: int
    page: SharedPage
    started: float
    pid: int = 0  # as the manager says
    ready: bool = False
    told: bool = False  # to leave, as a request in it does not end

    def look(self, limit: float, leaving: float | None, now: float) -> tuple[Stuck, str]:
        """What is to be done about it, and why if that is known here.

        `limit`: request_timeout, 0 for none. `leaving`: when all workers were asked to end, if they were.
        """
        page = self.page.read()
        since = [slot.since_ns for slot in page.slot if slot.running]
        decision = stuck(since, limit, int(now * 1e9), self.told)
        if decision is not Stuck.KILL and leaving is not None:
            why = overstays(page.state_name in ("draining", "gone"), now - leaving, limit)
            if why:
                return Stuck.KILL, why
        return decision, ""
