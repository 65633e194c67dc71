"""Stacks on demand: what each worker of a group does now, for `webserverctl stack`.

Each worker gets a pipe of its own, through its manager, and writes into it. Everything that comes is a claim of the
group's user: it is bounded in size and in time, and only shown.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from webserver.supervisor.commands import Answer
from webserver.supervisor.generation import Generation
from webserver.supervisor.loop import Loop
from webserver.supervisor.nursery import Nursery
from webserver.supervisor.workers import Worker

WAIT = 1.0  # seconds for a worker to answer
TEXT_LIMIT = 64 * 1024  # bytes of one worker's stacks
ALL_LIMIT = 1024 * 1024  # bytes of a group's
TEXT_LEAST = 4096

Find = Callable[[str], list[Generation] | None]


@dataclass(eq=False)
class Reading:
    """One worker's answer, as far as it has come."""

    generation: Generation
    worker: Worker
    reader: int
    text: bytearray = field(default_factory=bytearray)
    problem: str = ""
    over: bool = False


class Stacks:
    """One group after the other. `find`: the generations of the group of this name; None: there is none."""

    def __init__(self, loop: Loop, nursery: Nursery, find: Find) -> None:
        self._loop = loop
        self._nursery = nursery
        self._find = find
        self._waiting: deque[tuple[str, Answer]] = deque()  # the first is being asked for
        self._readings: list[Reading] = []
        self._limit = TEXT_LIMIT

    def ask(self, name: Any, answer: Answer) -> None:
        """`answer` gets every worker's stacks, and an error for each that does not tell."""
        if not isinstance(name, str) or self._find(name) is None:
            answer({"ok": False, "errors": [f"there is no group {name!r}"]})
            return
        self._waiting.append((name, answer))
        if len(self._waiting) == 1:
            self._begin()

    def _begin(self) -> None:
        generations = self._find(self._waiting[0][0]) or []
        workers = [(one, worker) for one in generations for worker in one.workers.values()]
        self._limit = max(TEXT_LEAST, min(TEXT_LIMIT, ALL_LIMIT // max(1, len(workers))))
        self._readings = [self._open(generation, worker) for generation, worker in workers]
        round_of = self._readings
        self._loop.after(WAIT, lambda: self._time_is_over(round_of))
        self._loop.soon(self._check)

    def _open(self, generation: Generation, worker: Worker) -> Reading:
        try:
            # Neither end waits: a worker must not hang because we are slow.
            reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            return Reading(generation, worker, -1, problem=f"no pipe for it: {error.strerror}", over=True)
        reading = Reading(generation, worker, reader)
        self._loop.watch(reader, lambda readable, writable: self._read(reading))
        self._nursery.send(generation.manager, {"op": "stack", "worker": worker.incarnation}, {"stack": writer})
        os.close(writer)
        return reading

    def _read(self, reading: Reading) -> None:
        try:
            data = os.read(reading.reader, 65536)
        except BlockingIOError:
            return
        except OSError as error:
            reading.problem = f"its stacks cannot be read: {error.strerror}"
            data = b""
        reading.text += data
        if len(reading.text) > self._limit:
            reading.problem = f"its stacks are cut after {self._limit // 1024} KB"
            del reading.text[self._limit :]
            data = b""
        if not data:
            if not reading.text:
                reading.problem = reading.problem or "it has said nothing"
            self._end(reading)
            self._check()

    def _end(self, reading: Reading) -> None:
        if not reading.over:
            reading.over = True
            self._loop.unwatch(reading.reader)
            os.close(reading.reader)

    def _time_is_over(self, round_of: list[Reading]) -> None:
        if round_of is not self._readings:
            return
        for reading in round_of:
            if not reading.over:
                reading.problem = f"it did not answer within {WAIT:g} s"
                self._end(reading)
        self._check()

    def _check(self) -> None:
        """Answer, if all have."""
        if not self._waiting or not all(reading.over for reading in self._readings):
            return
        _, answer = self._waiting.popleft()
        readings, self._readings = self._readings, []
        problems = [f"{_label(reading)}: {reading.problem}" for reading in readings if reading.problem]
        answer({"ok": not problems, "errors": problems, "workers": [_entry(reading) for reading in readings]})
        if self._waiting:
            self._begin()


def _label(reading: Reading) -> str:
    worker, generation = reading.worker, reading.generation
    return f"worker {worker.number} of group {generation.config.name} (process {worker.pid or 'unknown'})"


def _entry(reading: Reading) -> dict[str, Any]:
    worker, generation = reading.worker, reading.generation
    return {
        "name": str(worker.number),
        "group": generation.config.name,
        "generation": generation.number,
        "pid": worker.pid or None,
        "stack": reading.text.decode("utf-8", "replace"),
        "problem": reading.problem,
    }
