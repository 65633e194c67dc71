"""Clients under way: many connections, at a pace that is half of what the server could do just before.

A client never asks twice, but for one case: a connection that it had used before, and that a front end took with it
when it died while nothing was under way on it, is reset before a byte of the answer has come. Then the same request,
with the same id, is sent on a new connection, and that is counted apart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from trial.client import Connection, Outcome
from trial.ledger import Ledger
from trial.mix import Ask, Mix

CLIENTS = 24
SLOW = 3
VANISHING = 2
SLOW_EVERY = 1.0  # seconds between two slow streams of one client
VANISH_EVERY = 0.4
SELDOM = 1
SELDOM_EVERY = 2.5  # longer than its group keeps a worker that has nothing to do
HISTORY_WAIT = 0.5  # for the injector to say what it has just done


class Pace:
    """When the next request is due: evenly, for all clients together. Without a rate: at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0
        self.rate = 0.0  # requests in a second; 0: no limit

    def wait(self) -> None:
        if not self.rate:
            return
        now = time.monotonic()
        with self._lock:
            # What a fault has held up is not made up for by a burst.
            self._next = max(self._next, now - 0.2) + 1.0 / self.rate
            due = self._next
        time.sleep(max(0.0, due - now))


class Load:
    """`died_with(port, sent)`: whether the front end of that connection was dead when the request was sent."""

    def __init__(self, port: int, seed: int, ledger: Ledger, died_with: Callable[[int, float], bool]) -> None:
        self._port = port
        self._ledger = ledger
        self._died_with = died_with
        self._pace = Pace()
        self._end = threading.Event()
        self._failures: list[BaseException] = []
        kinds = [("c", CLIENTS, self._steady), ("s", SLOW, self._slow), ("v", VANISHING, self._vanishing)]
        kinds.append(("w", SELDOM, self._seldom))
        self._threads = [
            threading.Thread(target=self._guarded, args=(run, Mix(seed, f"{letter}{number}")), daemon=True)
            for letter, count, run in kinds
            for number in range(count)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def measure(self, seconds: float) -> float:
        """Requests in a second with no pace at all, from now on for so long; half of that is the pace afterwards."""
        before = self._ledger.count
        began = time.monotonic()
        time.sleep(seconds)
        capacity = (self._ledger.count - before) / (time.monotonic() - began)
        self._pace.rate = capacity / 2
        return capacity

    def stop(self) -> None:
        self._end.set()

    def finish(self) -> None:
        self.stop()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _guarded(self, run: Callable[[Mix], None], mix: Mix) -> None:
        try:
            run(mix)
        except BaseException as error:  # raised again by finish()
            self._failures.append(error)

    def _steady(self, mix: Mix) -> None:
        asks = mix.plain()
        while not self._end.is_set():
            connection = Connection(self._port)
            for _ in range(mix.keeps()):
                self._pace.wait()
                if self._end.is_set():
                    break
                if not self._one(connection, asks):
                    break
            connection.close()

    def _one(self, connection: Connection, asks: Iterator[Ask]) -> bool:
        """False: the connection is gone."""
        ask = next(asks)
        outcome = connection.ask(ask)
        if outcome.kind == "reset" and self._was_idle(outcome):
            self._ledger.reset_while_idle(outcome)
            outcome = Connection(self._port).ask(ask)
            self._ledger.add(outcome)
            return False
        self._ledger.add(outcome)
        return connection.used > 0

    def _was_idle(self, outcome: Outcome) -> bool:
        until = time.monotonic() + HISTORY_WAIT
        while True:
            if self._died_with(outcome.port, outcome.sent):
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)

    def _slow(self, mix: Mix) -> None:
        self._apart(mix.slow(), SLOW_EVERY, True)

    def _seldom(self, mix: Mix) -> None:
        self._apart(mix.seldom(), SELDOM_EVERY, False)

    def _vanishing(self, mix: Mix) -> None:
        self._apart(mix.vanishing(), VANISH_EVERY, False)

    def _apart(self, asks: Iterator[Ask], every: float, slow: bool) -> None:
        """Each request on a connection of its own."""
        while not self._end.wait(every):
            connection = Connection(self._port, slow)
            self._ledger.add(connection.ask(next(asks)))
            connection.close()
