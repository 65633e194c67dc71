"""Leave for a manager to fork workers: how many, how fast, and with what: a page, a log pipe, an incarnation.

While one generation takes over from another its manager's questions are held here: takeover.py answers them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from webserver.supervisor.pages import SharedPage
from webserver.supervisor.policy import Allowance
from webserver.supervisor.workers import Worker

if TYPE_CHECKING:
    from webserver.supervisor.generation import Generation

GRANT_RATE = 20.0  # workers in a second that a group may start for long


class Grants:
    """Of one generation. `announce` tells front ends of a worker that is about to be forked."""

    def __init__(self, generation: Generation, announce: Callable[[Worker], None]) -> None:
        self._generation = generation
        self._parts = generation.parts
        self._announce = announce
        self._allowance = Allowance.full(2.0 * generation.config.processes + 20, GRANT_RATE, self._parts.loop.now())
        self._holds = self._refuses = False
        self._held: deque[tuple[int, int]] = deque()
        self.pending = 0  # allowed and not forked yet: too fast, or something was missing
        self.log_pipes: dict[int, int] = {}  # by worker incarnation

    @property
    def asked(self) -> int:
        """Workers that the manager wants to fork and may not yet."""
        return len(self._held)

    @property
    def holding(self) -> bool:
        return self._holds

    def hold(self) -> None:
        self._holds = True

    def release(self) -> None:
        """What was held is granted, and what comes is."""
        self._holds = False
        while self._held:
            self.grant_next()

    def refuse(self) -> None:
        """What was held is forgotten, and what comes is not answered: no more are started."""
        self._refuses = True
        self._held.clear()

    def grant_next(self) -> None:
        self._allow(*self._held.popleft())

    def ask(self, number: int, slots: int) -> None:
        """The manager's question. Raises ValueError if it is not one that it may ask."""
        config = self._generation.config
        if not 0 <= number < config.processes or slots != config.threads:
            raise ValueError(f"grant of worker {number} with {slots} slots")
        there = len(self._generation.workers)
        if there >= 2 * config.processes + 1 or len(self._held) > 2 * config.processes:
            raise ValueError(f"{there} workers are there already, and {len(self._held)} asked for")
        if self._refuses:
            return
        if self._holds:
            self._held.append((number, slots))
        else:
            self._allow(number, slots)

    def _allow(self, number: int, slots: int) -> None:
        self.pending += 1
        self._allowance, wait = self._allowance.take(self._parts.loop.now())
        if wait:
            self._parts.loop.after(wait, lambda: self._grant(number, slots))
        else:
            self._grant(number, slots)

    def _grant(self, number: int, slots: int) -> None:
        generation, parts = self._generation, self._parts
        if not generation.manager.alive or generation.manager.link is None:
            self.pending -= 1
            return
        try:
            page = SharedPage(slots)
            try:
                pipe, log = parts.logs.new_pipe("error", f"group {generation.config.name}", waits=True)
            except OSError:
                page.close()
                raise
        except OSError as error:
            parts.journal.error(f"{generation.label}: no page or log pipe for worker {number}: {error.strerror}")
            parts.loop.after(1.0, lambda: self._grant(number, slots))
            return
        self.pending -= 1
        worker = Worker(number, parts.next_worker(), page, parts.loop.now())
        generation.workers[worker.incarnation] = worker
        self.log_pipes[worker.incarnation] = pipe
        # Front ends first: the worker may connect before this function is left.
        self._announce(worker)
        message = {"op": "granted", "number": number, "worker": worker.incarnation}
        parts.nursery.send(generation.manager, message, {"page": page.writable, "log": log})
        os.close(log)
        page.forget_writable()
