"""One companion of the configuration: its instances, its timetable, and what is wanted of it now.

When its turn has come is said by companions.py; it learns of every change by `on_change`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from webserver.config import Companion
from webserver.supervisor.companion import CompanionParts, Instance
from webserver.supervisor.companion_passing import take
from webserver.supervisor.companion_policy import differs
from webserver.supervisor.identity import Identity
from webserver.supervisor.states import State
from webserver.supervisor.timetable import Begun, Timetable

Answer = Callable[[str], None]  # "" or what went wrong

# The state of several instances is the first of these that one of them is in.
_WORST = (
    State.FAILED, State.BACKOFF, State.STOPPING, State.DRAINING, State.STARTING, State.WAITING, State.ENDED,
    State.RUNNING, State.NEW, State.GONE,
)  # fmt: skip


class CompanionRole:
    def __init__(
        self, parts: CompanionParts, config: Companion, identity: Identity | None, problem: str,
        on_change: Callable[[], None],
    ) -> None:  # fmt: skip
        """`problem`: why it cannot even be tried; then there is no identity."""
        self._parts = parts
        self._on_change = on_change
        self.config = config
        self.identity = identity
        self.problem = problem
        self.wanted = True  # neither stopped by hand nor about to go
        self.begun = False  # what it waits for was there
        self.instances: list[Instance] = []
        self.leaving: list[Instance] = []  # more than are wanted now; they finish
        self.skipped = 0  # runs that were left out, as the one before went on
        self.handing = False  # to the program that follows
        self.taking = False  # from the program before: some of its instances are what they were there
        self._timetable: Timetable | None = None
        self._begun_at: Begun | None = None  # of the timetable before
        self._rolling: deque[Instance] = deque()  # to be restarted after the first of them, which is under way
        self._rolled: list[Answer] = []
        self._told: dict[str, Any] = {}
        self._fill()

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def label(self) -> str:
        return f"companion {self.config.name}"

    @property
    def all(self) -> list[Instance]:
        return [*self.instances, *self.leaving]

    @property
    def active(self) -> bool:
        return any(one.active for one in self.all)

    @property
    def ready(self) -> bool:
        return self.begun and bool(self.instances) and all(one.is_ready for one in self.instances)

    @property
    def state(self) -> State:
        found = {one.child.state for one in self.instances}
        return next((state for state in _WORST if state in found), State.FAILED)

    @property
    def trouble(self) -> str:
        """Why nobody should wait for it, as far as that is its own fault."""
        if self.problem or not self.wanted:
            return self.problem or "it has been stopped"
        if not self.begun:
            return ""
        return next((one.trouble for one in self.instances if one.trouble), "")

    @property
    def message(self) -> str:
        return self.problem or next((one.message for one in self.instances if one.message), "")

    def next_run(self) -> float | None:
        return self._timetable.next_run() if self._timetable is not None else None

    def wait(self, why: str) -> None:
        for one in self.instances:
            one.wait(why)

    def begin(self) -> None:
        """What it waits for is ready."""
        self.begun = self.wanted = True
        if self.config.timed:
            self._keep_time()
            self.wait("until its next time")
        else:
            for one in self.instances:
                one.start()
        self._on_change()

    def hold(self) -> None:
        """Its times do not count any more; what runs goes on."""
        if self._timetable is not None:
            self._begun_at = self._timetable.begun()
            self._timetable.stop()
            self._timetable = None

    def run_now(self) -> None:
        """One run of what else runs at times."""
        for one in self.instances:
            one.start()

    def stop(self, why: str) -> None:
        """In order, and for good, unless somebody asks."""
        self.wanted = self.begun = False
        self.hold()
        if not self._told:  # the next program goes on from it
            self._begun_at = None
        self._end_rolling(why)
        for one in self.all:
            one.stop(why)
        self._on_change()

    def stop_now(self, why: str) -> None:
        self.wanted = self.begun = False
        self.hold()
        self._rolling.clear()
        for one in self.all:
            one.stop_now(why)

    def retry(self) -> None:
        """Try those again that were given up."""
        for one in self.instances:
            if one.child.state is State.FAILED and self.begun and not self.config.timed:
                one.start()

    def roll(self, answer: Answer) -> None:
        """Restart its instances one after the other: the next when the one before is ready.

        If one does not become ready, it is tried again as its rules say, and those after it are left as they are.
        """
        self._rolled.append(answer)
        under_way = list(self._rolling)[:1]
        self._rolling = deque([*under_way, *self.instances])
        if not under_way:
            self._restart_first()

    def become(self, config: Companion, identity: Identity | None, problem: str, answer: Answer) -> None:
        """Another configuration. `answer` learns whether it works by it, as far as something had to be restarted."""
        before, self.config, self.problem = self.config, config, problem
        if identity is None:
            answer(problem)
            return
        self.identity = identity
        replace = differs(before, config) or before.timed != config.timed
        self._fill()
        for one in self.instances:
            if replace:
                one.become(config, identity)
            else:
                one.reuse(config)
        if (before.every, before.at) != (config.every, config.at):
            self.hold()
            self._begun_at = None
        if not self.begun:
            answer("")
        elif config.timed:
            if not before.timed:
                for one in self.instances:
                    one.stop("it is run at times from now on")
            self.wait("until its next time")
            if self._timetable is None:
                self._keep_time()
            answer("")
        elif replace:
            self.roll(answer)
        else:
            for one in self.instances:
                if one.child.state is State.NEW:
                    one.start()
            answer("")

    # From one server program to the next: companion_handover.py

    def resign(self) -> None:
        """Another program is to start it from now on. What runs goes on."""
        self.hold()
        self._end_rolling("another program serves now")
        self._told = {"wanted": self.wanted, "begun": self.begun}
        for one in self.all:
            one.resign()

    def hand_over(self, given: Callable[[dict[str, Any], dict[str, int]], None], done: Callable[[], None]) -> None:
        """`given` for each instance; `done` when that is over. What could not be given away is still active then."""
        self.handing = True
        left = len(self.all)

        def one(record: dict[str, Any] | None, fds: dict[str, int]) -> None:
            nonlocal left
            if record is not None:
                given(record, fds)
            left -= 1
            if not left:
                self.handing = False
                done()
                self._on_change()

        for instance in self.all:
            instance.hand_over(one)

    def told(self) -> dict[str, Any]:
        """What the program that follows goes on from."""
        config = self.config
        return {**self._told, "skipped": self.skipped, "every": config.every, "at": config.at, "clock": self._begun_at}

    def adopt(self, record: dict[str, Any], fds: dict[str, int], same: bool) -> None:
        """One instance, as it runs or has ended. Takes its descriptors out of `fds`.

        `same`: as it should be; else the configuration has changed since it was asked for.
        """
        assert self.identity is not None, "what cannot be started is not asked for"
        self.taking = True
        number = int(record["number"])
        if number < len(self.instances):
            take(self.instances[number], record, fds)
            if not (same and self.wanted):
                self.instances[number].stop("it is not in the configuration any more", again=self.wanted)
            return
        one = Instance(self._parts, self.config, self.identity, number, self._moved)
        self.leaving.append(one)
        take(one, record, fds)
        one.stop("there are to be fewer of it")

    def take_up(self, record: dict[str, Any], same: bool) -> None:
        """It is ours alone. `same`: what has been adopted is what it should be."""
        self.skipped += int(record["skipped"])
        if record["clock"] and (record["every"], tuple(record["at"])) == (self.config.every, self.config.at):
            origin, over = record["clock"]
            self._begun_at = (float(origin), float(over))
        if not record["wanted"]:
            self.stop("it was stopped before the upgrade")
        elif same and record["begun"] and not self.config.timed:
            self.begun = True
            for one in self.instances:
                if one.child.state in (State.NEW, State.WAITING):
                    one.start()
        self._on_change()

    # Inside

    def _fill(self) -> None:
        """As many instances as there should be."""
        if self.identity is None:
            return
        while len(self.instances) < self.config.instances:
            number = len(self.instances)
            self.instances.append(Instance(self._parts, self.config, self.identity, number, self._moved))
        for one in self.instances[self.config.instances :]:
            self.instances.remove(one)
            self.leaving.append(one)
            one.stop("there are to be fewer of it")

    def _keep_time(self) -> None:
        self._timetable = Timetable(self._parts.loop, self.config, self._due, begun=self._begun_at)
        self._begun_at = None

    def _due(self) -> None:
        if any(one.alive for one in self.instances):
            self.skipped += 1
            self._parts.journal.warning(f"{self.label}: its run goes on when the next is due, which is left out")
            return
        self.run_now()

    def _moved(self) -> None:
        """An instance has changed."""
        self.leaving = [one for one in self.leaving if one.active]
        if self._rolling:
            first = self._rolling[0]
            if first.is_ready or first not in self.instances:
                self._rolling.popleft()
                self._restart_first()
            elif first.trouble:
                self._end_rolling(first.trouble)
        self._on_change()

    def _restart_first(self) -> None:
        if self._rolling:
            self._rolling[0].stop("it is restarted", again=True)
        else:
            self._end_rolling("")

    def _end_rolling(self, message: str) -> None:
        self._rolling.clear()
        answers, self._rolled = self._rolled, []
        for answer in answers:
            answer(message)
