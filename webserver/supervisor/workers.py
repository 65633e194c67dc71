"""A worker as the supervisor knows it: its page, what its manager says of it, and whether it is to go."""

from __future__ import annotations

from dataclasses import dataclass

from webserver.supervisor.pages import SharedPage
from webserver.supervisor.policy import Stuck, overstays, stuck, tunnels_wait
from webserver.wire.page import TUNNEL


@dataclass(eq=False)
class Worker:
    number: int
    incarnation: int
    page: SharedPage
    started: float
    pid: int = 0  # as the manager says
    ready: bool = False
    told: float | None = None  # when it was told to leave, as a request in it does not end

    def look(self, limit: float, grace: float, leaving: float | None, now: float) -> tuple[Stuck, str]:
        """What is to be done about it, and why if that is known here.

        `limit`: request_timeout, 0 for none. `grace`: tunnel_grace, the same. `leaving`: when all workers were asked to
        end, if they were.
        """
        page = self.page.read()
        since = [slot.since_ns for slot in page.slot if slot.running and slot.phase != TUNNEL]
        tunnels = page.tunnels > 0 and tunnels_wait(self.told, grace, now)
        decision = stuck(since, limit, int(now * 1e9), self.told is not None, tunnels)
        if decision is not Stuck.KILL and leaving is not None:
            why = overstays(page.state_name in ("draining", "gone"), now - leaving, limit)
            if why:
                return Stuck.KILL, why
        return decision, ""
