"""The workers of one generation: granted to its manager, announced to front ends, forgotten once they are gone.

While one generation takes over from another its manager's questions are held here: takeover.py answers them.

What the manager says of them are claims of the group's user: numbers are checked, texts are cut, pids are only shown.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from webserver.config import Group
from webserver.supervisor.frontends import FrontEnd
from webserver.supervisor.pages import SharedPage
from webserver.supervisor.policy import Allowance
from webserver.supervisor.process import Child
from webserver.supervisor.workers import Worker

if TYPE_CHECKING:
    from webserver.supervisor.parts import Parts

GRANT_RATE = 20.0  # workers in a second that a group may start for long
_TEXT = 500  # characters of what a manager says about a worker


class Crew:
    def __init__(self, parts: Parts, config: Group, number: int, manager: Child) -> None:
        self._parts = parts
        self._config = config
        self._named = {"group": config.name, "generation": number}
        self._label = f"group {config.name} generation {number}"
        self._manager = manager
        self._log_pipes: dict[int, int] = {}  # by worker incarnation
        self._allowance = Allowance.full(2.0 * config.processes + 20, GRANT_RATE, parts.loop.now())
        self.workers: dict[int, Worker] = {}  # by incarnation
        self.requests = 0  # finished by workers that are gone
        self.pending = 0  # granted and not made yet: too many at a time, or something was missing
        self.holding = self._refuses = False
        self._held: deque[tuple[int, int]] = deque()

    # How many do what

    @property
    def staying(self) -> int:
        """Those that take requests."""
        return sum(one.ready and not one.leaves for one in self.workers.values())

    @property
    def leaving(self) -> int:
        return sum(one.leaves for one in self.workers.values())

    @property
    def proven(self) -> int:
        """Those from which every front end has had an answer."""
        return sum(one.proven and not one.leaves for one in self.workers.values())

    @property
    def working(self) -> int:
        """Those that run anything, as their pages say."""
        return sum(one.ready and not one.leaves and one.page.read().busy > 0 for one in self.workers.values())

    @property
    def held(self) -> int:
        """How many the manager wants to fork and may not yet."""
        return len(self._held)

    # Leave to fork

    def hold(self) -> None:
        self.holding = True

    def release(self) -> None:
        """What was held is granted, and what comes is."""
        self.holding = False
        while self._held:
            self.grant_next()

    def refuse(self) -> None:
        """What was held is forgotten, and what comes is not answered: no more are started."""
        self._refuses = True
        self._held.clear()

    def grant_next(self) -> None:
        self._allow(*self._held.popleft())

    def grant(self, number: int, slots: int) -> None:
        """The manager wants to fork one more. ValueError if it has no right to."""
        if not 0 <= number < self._config.processes or slots != self._config.threads:
            raise ValueError(f"grant of worker {number} with {slots} slots")
        # Each may have a successor beside it.
        most = 2 * self._config.processes
        if len(self.workers) > most or len(self._held) > most:
            raise ValueError(f"{len(self.workers)} workers are there already, and {len(self._held)} asked for")
        if self._refuses:
            return
        if self.holding:
            self._held.append((number, slots))
        else:
            self._allow(number, slots)

    def _allow(self, number: int, slots: int) -> None:
        self.pending += 1
        self._allowance, wait = self._allowance.take(self._parts.loop.now())
        if wait:
            self._parts.loop.after(wait, lambda: self._granted(number, slots))
        else:
            self._granted(number, slots)

    def _granted(self, number: int, slots: int) -> None:
        if not self._manager.alive or self._manager.link is None:
            self.pending -= 1
            return
        parts = self._parts
        try:
            page = SharedPage(slots)
            try:
                pipe, log = parts.logs.new_pipe("error", f"group {self._config.name}", True, self._config.name)
            except OSError:
                page.close()
                raise
        except OSError as error:
            parts.journal.error(f"{self._label}: no page or log pipe for worker {number}: {error.strerror}")
            parts.loop.after(1.0, lambda: self._granted(number, slots))
            return
        self.pending -= 1
        worker = Worker(number, parts.next_worker(), page, parts.loop.now())
        self.workers[worker.incarnation] = worker
        self._log_pipes[worker.incarnation] = pipe
        # Front ends first: the worker may connect before this function is left.
        self._announce(worker, parts.frontends.alive())
        message = {"op": "granted", "number": number, "worker": worker.incarnation}
        parts.nursery.send(self._manager, message, {"page": page.writable, "loans": page.loans, "log": log})
        os.close(log)
        page.forget_writable()

    def announce(self, frontend: FrontEnd) -> None:
        """Tell a new front end, whose record has this generation in it, of all workers."""
        for worker in self.workers.values():
            self._announce(worker, [frontend])

    def _announce(self, worker: Worker, frontends: Iterable[FrontEnd]) -> None:
        message = {"op": "worker", **self._named, "worker": worker.incarnation, "slots": worker.page.slots}
        for frontend in frontends:
            self._parts.frontends.send(frontend, message, {"page": worker.page.readable, "loans": worker.page.loans})

    # An end

    def retire_one(self) -> None:
        """Ask one to go: one that runs nothing, if there is any, and of those the oldest. One must be staying."""
        staying = (one for one in self.workers.values() if one.ready and not one.leaves)
        worker = min(staying, key=lambda one: (one.page.read().busy, one.incarnation))
        worker.told_to_retire = True
        self._parts.nursery.send(self._manager, {"op": "retire", "worker": worker.incarnation})

    # What the manager says

    def up(self, incarnation: int, pid: int) -> None:
        worker = self.workers.get(incarnation)
        if worker is not None:
            worker.pid = pid
            self._parts.logs.name(self._log_pipes[worker.incarnation], pid)

    def ready(self, incarnation: int) -> bool:
        """It has entered its loop. False: there is no such worker."""
        worker = self.workers.get(incarnation)
        if worker is None:
            return False
        worker.ready = True
        self._prove(worker)
        return True

    def going(self, incarnation: int, cause: str) -> None:
        """It will be replaced, and why."""
        worker = self.workers.get(incarnation)
        if worker is not None and not worker.going:
            worker.going = cause[:_TEXT]
            self._note(worker, "is replaced")

    def retiring(self, incarnation: int, cause: str) -> None:
        """It has been asked for its orderly end: what is in it may finish."""
        worker = self.workers.get(incarnation)
        if worker is None or worker.asked is not None:
            return
        worker.asked = self._parts.loop.now()
        message = {"op": "worker-leaves", **self._named, "worker": incarnation}
        self._parts.frontends.send_all(message)
        if not worker.going and not worker.why:
            worker.going = cause[:_TEXT]
            self._note(worker, "ends")

    def _note(self, worker: Worker, what: str) -> None:
        self._parts.journal.notice(
            f"worker {worker.number} of group {self._config.name} (process {worker.pid}) {what}: {worker.going}"
        )

    # What front ends say

    def served(self, frontend: FrontEnd, incarnation: int) -> None:
        worker = self.workers.get(incarnation)
        if worker is not None:
            worker.reached.add(frontend.ordinal)
            self._prove(worker)

    def frontend_gone(self, frontend: FrontEnd) -> None:
        for worker in self.workers.values():
            worker.reached.discard(frontend.ordinal)
            self._prove(worker)

    def _prove(self, worker: Worker) -> None:
        """Once every front end has reached it, the one that it replaces may go."""
        alive = self._parts.frontends.alive()
        if worker.ready and not worker.proven and alive and all(one.ordinal in worker.reached for one in alive):
            worker.proven = True
            self._parts.nursery.send(self._manager, {"op": "serving", "worker": worker.incarnation})

    def forget(self, worker: Worker, cause: str, excused: bool = True) -> None:
        """`excused`: what it was running has not ended it."""
        message = {
            "op": "worker-gone",
            **self._named,
            "worker": worker.incarnation,
            "cause": cause,
            "excused": excused,
        }
        self._parts.frontends.send_all(message)
        self.requests += worker.page.read().requests
        del self.workers[worker.incarnation]
        self._log_pipes.pop(worker.incarnation, None)
        worker.page.close()
