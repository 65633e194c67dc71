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
    served: set[int] = field(default_factory=set)  # ordinals of the front ends that had its answer to a probe
    retiring: bool = False  # it alone was asked to go
    asked: float | None = None  # when that was
    deadline: float | None = None  # until when it may take then

    def proven(self, ordinals: set[int]) -> bool:
        """`ordinals`: of all front ends."""
        return self.ready and not self.retiring and ordinals <= self.served

    def retire(self, now: float, deadline: float) -> None:
        self.retiring = True
        self.asked, self.deadline = now, deadline

    def look(
        self, limit: float, grace: float, leaving: float | None, deadline: float | None, now: float
    ) -> tuple[Stuck, str]:
        """What is to be done about it, and why if that is known here.

        `limit`: request_timeout, 0 for none. `grace`: tunnel_grace, the same. `leaving`: when all workers were asked to
        end, if they were; `deadline`: when they have to have ended.
        """
        if self.asked is not None:
            leaving, deadline = self.asked, self.deadline
        page = self.page.read()
        reacted = page.state_name in ("draining", "gone")
        if self.told is not None and self.heard is None and reacted:
            self.heard = now
        since = [slot.since_ns for slot in page.slot if slot.running and slot.phase != TUNNEL]
        tunnels = page.tunnels > 0 and tunnels_wait(self.told, grace, now)
        decision = stuck(since, limit, int(now * 1e9), self.told is not None, tunnels)
        if decision is Stuck.KILL and self.told is not None and not stacks_written(self.told, self.heard, now):
            decision = Stuck.NO
        if decision is not Stuck.KILL and leaving is not None:
            why = overstays(reacted, now - leaving, deadline is not None and now >= deadline)
            if why:
                return Stuck.KILL, why
        return decision, ""


class Roster(dict[int, Worker]):
    """The workers of a generation, by incarnation."""

    @property
    def staying(self) -> int:
        """How many take requests."""
        return sum(one.ready and not one.retiring for one in self.values())

    @property
    def leaving(self) -> int:
        return sum(one.retiring for one in self.values())

    def proven(self, ordinals: set[int]) -> int:
        """`ordinals`: of all front ends."""
        return sum(bool(ordinals) and one.proven(ordinals) for one in self.values())

    def next_to_go(self) -> Worker:
        """One that runs nothing, if there is any, and of those the oldest. One must be staying."""
        staying = (one for one in self.values() if one.ready and not one.retiring)
        return min(staying, key=lambda one: (one.page.read().busy, one.incarnation))
