"""Requests that run for too long: when the workers of a generation are looked at, and what their manager is asked for.

policy.course decides, from the workers' pages. The overseer has everything looked at every WATCH_EVERY seconds; what
is due before the next time has a timer of its own here, and a front end that has answered 504 for a request says so at
once. So nothing wakes up more often because of a deadline that is far away.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from webserver.config.units import seconds_text
from webserver.supervisor.loop import Timer
from webserver.supervisor.policy import WATCH_EVERY, Limits, Step, look_every

if TYPE_CHECKING:
    from webserver.supervisor.generation import Generation
    from webserver.supervisor.workers import Worker


class Deadlines:
    """Those of one generation."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._limits = self._in_force()
        self._timer: Timer | None = None

    def _in_force(self) -> Limits:
        config, server = self._generation.config, self._generation.parts.frontends.config.server
        return Limits(config.request_timeout, config.slow_request, server.tunnel_grace)

    def look(self, leaving: float | None, deadline: float | None) -> None:
        """Look at every worker. `leaving`: when all of them were asked to end, if they were; `deadline`: until when."""
        self._limits = self._in_force()  # a reload may have changed them
        loop, workers = self._generation.parts.loop, self._generation.workers
        now = loop.now()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        again = now + look_every(self._limits) if workers else math.inf
        for worker in workers.values():
            again = min(again, self._look_at(worker, leaving, deadline, now))
        if again < now + WATCH_EVERY:
            self._timer = loop.after(again - now, self._generation.watch)

    def _look_at(self, worker: Worker, leaving: float | None, deadline: float | None, now: float) -> float:
        if worker.asked is not None:
            deadline = min(deadline or math.inf, worker.asked + self._generation.config.drain_timeout)
        course, why = worker.look(self._limits, leaving, deadline, now)
        worker.told = course.told
        limit = self._limits.request
        if course.step is Step.SLOW:
            self._order(worker, "slow", after=self._limits.slow)
        elif course.step is Step.LEAVE:
            text = seconds_text(limit)
            worker.why = f"a request ran longer than request_timeout = {text}; its stack is in its site's log"
            self._order(worker, "leave", cause=worker.why, after=limit)
        elif course.step is Step.KILL:
            self._order(worker, "kill", cause=why or worker.why)
        return course.again

    def _order(self, worker: Worker, op: str, **more: object) -> None:
        parts = self._generation.parts
        parts.nursery.send(self._generation.manager, {"op": op, "worker": worker.incarnation, **more})
