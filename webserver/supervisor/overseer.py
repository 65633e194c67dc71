"""Looks after what does not end by itself: hung front ends, managers and logger, and workers with endless requests.

Every WATCH_EVERY seconds it compares heartbeats and workers' pages with the limits of policy.py. It costs one wake-up,
and none in any other process. What is to be done is done by whoever owns the process.
"""

from __future__ import annotations

from webserver.supervisor.frontends import FrontEnds
from webserver.supervisor.generation import Generation
from webserver.supervisor.groups import Groups
from webserver.supervisor.journal import Journal
from webserver.supervisor.logs import Logs
from webserver.supervisor.loop import Loop
from webserver.supervisor.nursery import Nursery
from webserver.supervisor.operations import Operations
from webserver.supervisor.policy import HUNG_AGAIN, WATCH_EVERY, slow_beat_stopped
from webserver.supervisor.states import Stage


class Overseer:
    def __init__(
        self, loop: Loop, nursery: Nursery, journal: Journal, logs: Logs, frontends: FrontEnds, groups: Groups,
        operations: Operations,
    ) -> None:  # fmt: skip
        self._loop = loop
        self._nursery = nursery
        self._journal = journal
        self._logs = logs
        self._frontends = frontends
        self._groups = groups
        self._operations = operations

    def start(self) -> None:
        self._loop.after(WATCH_EVERY, self._look)

    def _look(self) -> None:
        self._loop.after(WATCH_EVERY, self._look)
        now = self._loop.now()
        self._frontends.watch()
        self._logger(now)
        for generation in self._groups.generations():
            generation.watch()
            self._manager(generation, now)

    def _logger(self, now: float) -> None:
        logger = self._logs.child
        if slow_beat_stopped(logger.state, logger.last_beat, now):
            # What is in the pipes is kept for the next one.
            self._journal.error(f"the logger hangs: no beat for {now - logger.last_beat:.0f} s; it is killed")
            self._nursery.kill_now(logger, "it hung")

    def _manager(self, generation: Generation, now: float) -> None:
        """A manager that hangs harms nobody until a worker has to be replaced or to go."""
        manager = generation.manager
        if not slow_beat_stopped(manager.state, manager.last_beat, now):
            return
        silence = f"no beat for {now - manager.last_beat:.0f} s"
        if generation.stage is Stage.LEAVING:
            self._journal.error(f"manager of {generation.label} (process {manager.pid}) hangs: {silence}; it is killed")
            self._nursery.kill_now(manager, "it hung")
        elif generation.stage is Stage.SERVING and now >= generation.hung_again:
            generation.hung_again = now + HUNG_AGAIN
            self._journal.error(
                f"manager of {generation.label} (process {manager.pid}) hangs: {silence}; a new generation is started"
            )
            self._operations.restart(generation.config.name, lambda message: None)
