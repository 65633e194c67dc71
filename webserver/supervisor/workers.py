"""A worker as the supervisor knows it: its page, what its manager says of it, and whether it is to go."""

from __future__ import annotations

from dataclasses import dataclass, field

from webserver.supervisor.pages import SharedPage
from webserver.supervisor.policy import Stuck, overstays, stacks_written, stuck, tunnels_wait
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
    heard: float | None = None  # when its page was first seen to say so after that
    going: str = ""  # why it is to go, as its manager says
    asked: float | None = None  # when its manager asked it for its orderly end
    told_to_retire: bool = False  # by us; its manager will ask it
    reached: set[int] = field(default_factory=set)  # ordinals of front ends that it has answered
    proven: bool = False  # all of them have said so, once

    @property
    def leaves(self) -> bool:
        """Whether it is to take no more."""
        return self.told_to_retire or self.asked is not None

    def look(
        self, limit: float, grace: float, leaving: float | None, deadline: float | None, now: float
    ) -> tuple[Stuck, str]:
        """What is to be done about it, and why if that is known here.

        `limit`: request_timeout, 0 for none. `grace`: tunnel_grace, the same. `leaving`: when all workers were asked to
        end, if they were; `deadline`: when they have to have ended.
        """
        page = self.page.read()
        reacted = page.state_name in ("draining", "gone")
        if self.told is not None and self.heard is None and reacted:
            self.heard = now
        since = [slot.since_ns for slot in page.slot if slot.running and slot.phase != TUNNEL]
        tunnels = page.tunnels > 0 and tunnels_wait(self.told, grace, now)
        decision = stuck(since, limit, int(now * 1e9), self.told is not None, tunnels)
        if decision is Stuck.KILL and self.told is not None and not stacks_written(self.told, self.heard, now):
            decision = Stuck.NO
        waits = page.tunnels > 0 and tunnels_wait(leaving, grace, now)
        if decision is not Stuck.KILL and leaving is not None and not waits:
            why = overstays(reacted, now - leaving, deadline is not None and now >= deadline)
            if why:
                return Stuck.KILL, why
        return decision, ""
