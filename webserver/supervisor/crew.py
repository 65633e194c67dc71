"""The workers of one generation: granted to its manager, announced to front ends, forgotten once they are gone.

What the manager says of them are claims of the group's user: numbers are checked, texts are cut, pids are only shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from webserver.config import Group
from webserver.supervisor.frontends import FrontEnd
from webserver.supervisor.pages import SharedPage
from webserver.supervisor.policy import Allowance
from webserver.supervisor.process import Child
from webserver.supervisor.workers import Worker

if TYPE_CHECKING:
    from webserver.supervisor.generation import Parts

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

    def grant(self, number: int, slots: int) -> None:
        """The manager wants to fork one more. ValueError if it has no right to."""
        if not 0 <= number < self._config.processes or slots != self._config.threads:
            raise ValueError(f"grant of worker {number} with {slots} slots")
        # Each may have a successor beside it.
        if len(self.workers) >= 2 * self._config.processes + 1:
            raise ValueError(f"{len(self.workers)} workers are there already")
        self._allowance, wait = self._allowance.take(self._parts.loop.now())
        if wait:
            self._parts.loop.after(wait, lambda: self._granted(number, slots))
        else:
            self._granted(number, slots)

    def _granted(self, number: int, slots: int) -> None:
        if not self._manager.alive or self._manager.link is None:
            return
        parts = self._parts
        try:
            page = SharedPage(slots)
            try:
                pipe, log = parts.logs.new_pipe("error", f"group {self._config.name}", waits=True)
            except OSError:
                page.close()
                raise
        except OSError as error:
            parts.journal.error(f"{self._label}: no page or log pipe for worker {number}: {error.strerror}")
            parts.loop.after(1.0, lambda: self._granted(number, slots))
            return
        worker = Worker(number, parts.next_worker(), page, parts.loop.now())
        self.workers[worker.incarnation] = worker
        self._log_pipes[worker.incarnation] = pipe
        # Front ends first: the worker may connect before this function is left.
        self._announce(worker, parts.frontends.alive())
        message = {"op": "granted", "number": number, "worker": worker.incarnation}
        parts.nursery.send(self._manager, message, {"page": page.writable, "log": log})
        os.close(log)
        page.forget_writable()

    def announce(self, frontend: FrontEnd) -> None:
        """Tell a new front end, whose record has this generation in it, of all workers."""
        for worker in self.workers.values():
            self._announce(worker, [frontend])

    def _announce(self, worker: Worker, frontends: Iterable[FrontEnd]) -> None:
        message = {"op": "worker", **self._named, "worker": worker.incarnation, "slots": worker.page.slots}
        for frontend in frontends:
            self._parts.frontends.send(frontend, message, {"page": worker.page.readable})

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
