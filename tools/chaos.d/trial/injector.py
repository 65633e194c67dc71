"""Carries out a plan: each fault at its time, and its end at the end of its time. Owns the history of what was done."""

from __future__ import annotations

import heapq
import itertools
import threading
import time

from trial.acts import Acts, Hit, Missed
from trial.faults import Done, Planned
from trial.operations import KINDS as OPERATIONS
from trial.operations import Operator
from trial.place import Place

AGAIN, AGAIN_AFTER = 5, 0.1  # times, seconds


class Injector:
    def __init__(self, place: Place, plan: list[Planned]) -> None:
        self._plan = plan
        self._acts = Acts(place)
        self._operator = Operator(place, self._told)
        self._lock = threading.Lock()
        self._history: list[Done] = []
        self._running: dict[int, tuple[Planned, float, Hit]] = {}
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="injector", daemon=True)
        self.missed: list[str] = []

    def start(self) -> None:
        self._operator.start()
        self._thread.start()

    def finish(self) -> list[str]:
        """Wait for the end of the plan and of everything that was begun; what does not work afterwards."""
        self._thread.join()
        self._operator.finish()
        self._acts.close()
        if self._failure is not None:
            raise self._failure
        return self._operator.settle()

    def history(self) -> list[Done]:
        """What was done, in the order of its beginning; what still lasts is in it, as ending now."""
        with self._lock:
            lasting = [
                Done(planned, began, time.time(), hit.target, hit.group, hit.ports, hit.note)
                for planned, began, hit in self._running.values()
            ]
            return sorted([*self._history, *lasting], key=lambda done: done.began)

    def died_with(self, port: int, sent: float) -> bool:
        """Whether the front end that held this connection was dead before `sent`."""
        with self._lock:
            return any(port in done.ports and done.ended <= sent for done in self._history[-50:])

    def _told(self, done: Done) -> None:
        with self._lock:
            self._history.append(done)

    def _run(self) -> None:
        ends: list[tuple[float, int, Planned]] = []
        count = itertools.count()
        try:
            origin = time.monotonic()
            for planned in [*self._plan, None]:
                due = origin + planned.at if planned is not None else float("inf")
                while ends and ends[0][0] <= due:
                    at, _, lasting = heapq.heappop(ends)
                    time.sleep(max(0.0, at - time.monotonic()))
                    self._undo(lasting)
                if planned is None:
                    return
                time.sleep(max(0.0, due - time.monotonic()))
                if planned.kind in OPERATIONS:
                    self._operator.give(planned)
                elif self._begin(planned):
                    heapq.heappush(ends, (origin + planned.at + planned.length, next(count), planned))
        except BaseException as error:  # told by finish(), and nothing stays stopped, full or held
            self._failure = error
        finally:
            for _, _, lasting in ends:
                self._undo(lasting)

    def _begin(self, planned: Planned) -> bool:
        """True if it lasts."""
        began = time.time()
        try:
            hit = self._act(planned)
        except Missed as error:
            self.missed.append(f"{planned.kind}: {error}")
            return False
        if hit.undo is None:
            self._told(Done(planned, began, hit.at or time.time(), hit.target, hit.group, hit.ports, hit.note))
            return False
        with self._lock:
            self._running[planned.number] = (planned, began, hit)
        return True

    def _act(self, planned: Planned) -> Hit:
        """What is to be hit may be on its way back from the fault before."""
        for _ in range(AGAIN):
            try:
                return self._acts.act(planned)
            except Missed:
                time.sleep(AGAIN_AFTER)
        return self._acts.act(planned)

    def _undo(self, planned: Planned) -> None:
        _, began, hit = self._running[planned.number]
        assert hit.undo is not None
        hit.undo()
        with self._lock:
            del self._running[planned.number]
            self._history.append(Done(planned, began, time.time(), hit.target, hit.group, hit.ports, hit.note))
