"""One group of the configuration: which of its generations gets new work, and what follows when one ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from webserver.config import Group
from webserver.supervisor.crashes import Crashes, sentence
from webserver.supervisor.generation import Generation
from webserver.supervisor.identity import Identity
from webserver.supervisor.loop import Timer
from webserver.supervisor.nursery import Ending
from webserver.supervisor.parts import Parts
from webserver.supervisor.policy import Backoff, GiveUp, Restart, after_end
from webserver.supervisor.states import Stage, State
from webserver.supervisor.takeover import Takeover
from webserver.supervisor.workers import Worker

Answer = Callable[[str], None]  # "" or what went wrong

_ANNOUNCED = frozenset({Stage.BINDING, Stage.LOADING, Stage.PROBING, Stage.SERVING})


class GroupRole:
    """Is the owner of its generations. `current` gets new work; `coming` is to replace it; others finish."""

    def __init__(
        self, parts: Parts, group_id: int, config: Group, identity: Identity | None,
        next_generation: Callable[[], int],
    ) -> None:  # fmt: skip
        self._parts = parts
        self.id = group_id
        self.name = config.name
        self.config = config
        self.identity = identity
        self.state = State.NEW
        self.current: Generation | None = None
        self.coming: Generation | None = None
        self.old: list[Generation] = []
        self.message = ""  # why it does not work, or did not when it was last tried
        self.settled = False  # its first start has come to some end
        self._next_generation = next_generation
        self._replacement = (config, identity)
        self._backoff = Backoff()
        self._crashes = Crashes()  # of its workers
        self._manager_crashes = Crashes()
        self._started = 0.0
        self._retry: Timer | None = None
        self._answer: tuple[Generation, Answer] | None = None  # of start or replace
        self._takeover: Takeover | None = None
        self._rolled: Answer | None = None  # of roll
        self.on_outdated: Callable[[GroupRole, str], None] = lambda role, file: None
        self._waiting: list[tuple[list[Generation], Callable[[], None]]] = []

    @property
    def label(self) -> str:
        return f"group {self.name}"

    def generations(self) -> list[Generation]:
        return [one for one in (*self.old, self.current, self.coming) if one is not None]

    def find(self, number: int) -> Generation | None:
        return next((one for one in self.generations() if one.number == number), None)

    def announced(self) -> list[Generation]:
        """Those that a new front end must know."""
        return [one for one in self.generations() if one.stage in _ANNOUNCED]

    def start(self, answer: Answer | None = None) -> None:
        """Start it where nothing of it runs. `answer` learns whether its first worker serves or what failed."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._parts.nursery.door.change(self, State.STARTING, "started")
        self._started = self._parts.loop.now()
        self.current = self._new(self.config, self.identity)
        if answer is not None:
            self._answer = (self.current, answer)
        self._begin(self.current)

    def replace(self, config: Group, identity: Identity | None, answer: Answer) -> None:
        """Start a generation beside the current one. After `answer("")` it serves: `roll`, `commit` or `abandon` it."""
        self._hasten()
        self._replacement = (config, identity)
        self.coming = self._new(config, identity, prove=True)
        self._takeover = Takeover(self._parts.loop, self.current, self.coming, config.restart_extra, self._taken_over)
        self._answer = (self.coming, answer)
        self._begin(self.coming)

    def adjust(self, config: Group) -> None:
        """Options have changed that no process of the group knows."""
        self.config = config
        self._replacement = (config, self._replacement[1])
        for generation in (self.current, self.coming):
            if generation is not None:
                generation.config = config

    def roll(self, answer: Answer) -> None:
        """Let the coming generation take over worker by worker. After `answer("")` it has all it wants: `commit` it.

        Any other answer: one of its workers did not start, and all is as before.
        """
        if self.coming is None or self._takeover is None:
            self._parts.loop.soon(lambda: answer("it ended as soon as it had started; the error log says why"))
            return
        self._rolled = answer
        self._takeover.accept()

    def cancel(self, why: str) -> None:
        """Give up a generation that is coming, and tell who waits for it."""
        answers = [self._answer[1]] if self._answer is not None else []
        answers += [self._rolled] if self._rolled is not None else []
        self.abandon(why)
        for answer in answers:
            answer(why)

    @property
    def ends(self) -> bool:
        """It has been asked to go for good."""
        return self.state in (State.DRAINING, State.GONE)

    def progress(self) -> dict[str, Any] | None:
        """How far a takeover is; None: there is none."""
        if self._takeover is None or self._takeover.over:
            return None
        return self._takeover.progress()

    def commit(self, done: Callable[[], None]) -> None:
        """The coming generation is the current one from now on: let the old one go. `done` when it is gone.

        Worker by worker, unless it was let roll before.
        """
        self.config, self.identity = self._replacement
        if self.coming is None:
            # It has ended since it served; the next start is with the new configuration.
            if not self.ends:
                self._parts.journal.error(f"{self.label}: the new generation ended at once; the old one is kept")
            self._parts.loop.soon(done)
            return
        door = self._parts.nursery.door
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self.state in (State.NEW, State.BACKOFF, State.FAILED):
            door.change(self, State.STARTING, "a new generation serves")
        if self.state is State.STARTING:
            door.change(self, State.RUNNING, "a new generation serves")
        before, self.current, self.coming = self.current, self.coming, None
        self._started = self._parts.loop.now()
        self.message = ""
        self.settled = True
        if before is not None:
            self.old.append(before)
            if self._takeover is None or self._takeover.over or self._takeover.before is not before:
                before.drain()
        if self._takeover is not None and not self._takeover.over:
            self._takeover.accept()
        if self.current.outdated:
            outdated, generation = self.current.outdated, self.current
            self._parts.loop.soon(lambda: self.generation_outdated(generation, outdated))
        self._when_gone([before] if before is not None else [], done)

    def abandon(self, why: str) -> None:
        """Drop the coming generation; the current one goes on."""
        self._answer = self._rolled = None
        if self._takeover is not None and self._takeover.after is self.coming:
            self._takeover.undo()
            self._takeover = None
        if self.coming is not None:
            coming, self.coming = self.coming, None
            self.old.append(coming)
            if coming.stage in (Stage.PROBING, Stage.SERVING):
                coming.drain()  # it has requests already
            else:
                coming.stop_now(why)

    def drain(self, done: Callable[[], None]) -> None:
        """Finish and go for good. `done` when nothing is left of it."""
        rolled, self._answer, self._rolled = self._rolled, None, None
        if rolled is not None:
            self._parts.loop.soon(lambda: rolled("the group ends"))
        self._hasten()
        door = self._parts.nursery.door
        if self._retry is not None:
            self._retry.cancel()
        self.abandon("the group ends")
        if self.state in (State.STARTING, State.RUNNING):
            door.change(self, State.DRAINING, "asked to")
        elif self.state is not State.GONE and self.state is not State.DRAINING:
            door.change(self, State.GONE, "asked to")
        if self.current is not None:
            before, self.current = self.current, None
            self.old.append(before)
            before.drain(last=True)
        self._when_gone(list(self.old), done)

    def leave(self, done: Callable[[], None]) -> None:
        """As drain, where no front end is left that could have work here."""
        self.drain(done)
        for generation in self.old:
            if generation.live:
                generation.leave()

    def stop_now(self, why: str) -> None:
        self._answer = self._rolled = self._takeover = None
        if self._retry is not None:
            self._retry.cancel()
        if self.state in (State.STARTING, State.RUNNING):
            self._parts.nursery.door.change(self, State.DRAINING, why)
        elif self.state not in (State.DRAINING, State.GONE):
            self._parts.nursery.door.change(self, State.GONE, why)
        self.old = self.generations()
        self.current = self.coming = None
        for generation in list(self.old):
            generation.stop_now(why)

    def wanted(self, queued: int) -> None:
        """Requests wait and no slot is free: whoever would get them may start more workers."""
        finishing = [one for one in self.old if one.stage is Stage.DRAINING]
        generation = self.current or (finishing[-1] if finishing else None)
        if generation is not None:
            generation.wanted(queued)

    def hinder(self, message: str) -> None:
        """It waits for something that will not be there soon. What it waits for may come all the same."""
        if self.state is State.NEW:
            self._parts.journal.error(f"{self.label}: {message}")
            self._settle(message)

    def refuse(self, message: str) -> None:
        """It cannot even be tried: give it up with a message."""
        self._parts.nursery.door.change(self, State.FAILED, message)
        self._settle(message)

    # Owner of generations

    def generation_serves(self, generation: Generation) -> None:
        self._parts.journal.notice(f"{generation.label} serves ({self._language(generation)})")
        if generation is self.current:
            if self.state is State.STARTING:
                self._parts.nursery.door.change(self, State.RUNNING, "its first worker serves")
            self._settle("")
        self._tell(generation, "")
        if generation is self.current:
            # Those that stayed because the one that was to follow them had died.
            for one in self.old:
                if one.stage is Stage.SERVING and (self._takeover is None or not self._takeover.concerns(one)):
                    one.drain()

    def generation_failed(self, generation: Generation, message: str) -> None:
        if generation is self.coming:
            self._parts.journal.error(f"{generation.label} does not start: {message}; it is dropped")
            self.cancel(message)
        elif generation is self.current and not self.settled:
            self._settle(message)
            self._tell(generation, message)

    def generation_ended(self, generation: Generation, ending: Ending | None) -> None:
        cause = ending.cause if ending is not None else "could not be started"
        message = generation.failure or f"its manager {cause}"
        if generation is self.coming:
            rolled = self._rolled
            waiting = self._answer
            self.abandon(message)
            self._answer = waiting
            self._tell(generation, message)
            if rolled is not None:
                rolled(message)
        elif generation is self.current:
            if self._takeover is not None and self._takeover.after is generation:
                self._takeover.undo()
                self._takeover = None
            self.current = None
            self.old.append(generation)
            self._again(ending, message)
            self._tell(generation, message)

    def generation_closed(self, generation: Generation) -> None:
        if generation is self.coming or generation is self.current:
            # It came to its end without a manager: its directory or its sockets could not be made.
            self.generation_ended(generation, None)
        if generation in self.old:
            self.old.remove(generation)
        if not self.generations() and self.state is State.DRAINING:
            self._parts.nursery.door.change(self, State.GONE, "finished")
        for entry in list(self._waiting):
            waited, done = entry
            if generation in waited:
                waited.remove(generation)
                if not waited:
                    self._waiting.remove(entry)
                    done()

    def worker_died(self, worker: Worker, cause: str) -> None:
        journal = self._parts.journal
        journal.error(f"worker {worker.number} of group {self.name} (process {worker.pid}): {cause}")
        self._crashes, count = self._crashes.after(self._parts.loop.now())
        if count:
            journal.error(f"{self.label}: {sentence(count, 'workers', cause)}")

    def generation_moved(self, generation: Generation) -> None:
        if self._takeover is not None and self._takeover.concerns(generation):
            self._takeover.moved()

    def generation_outdated(self, generation: Generation, file: str) -> None:
        if generation is self.current:
            generation.outdated = ""
            self.on_outdated(self, file)

    def _taken_over(self) -> None:
        takeover = self._takeover
        if takeover is None:
            return
        if takeover.after is self.coming:
            rolled, self._rolled = self._rolled, None
            if rolled is not None:
                rolled("")
        elif takeover.before in self.old and takeover.before.stage is Stage.SERVING:
            takeover.before.drain()

    def _hasten(self) -> None:
        """Bring a takeover that has been committed to its end."""
        takeover = self._takeover
        if takeover is not None and takeover.after is self.current and not takeover.over:
            takeover.hasten()
            self._taken_over()
            self._takeover = None

    def _new(self, config: Group, identity: Identity | None, prove: bool = False) -> Generation:
        assert identity is not None, "a group without an identity is refused, not started"
        return Generation(self._parts, self, config, identity, self.id, self._next_generation(), prove)

    def _begin(self, generation: Generation) -> None:
        try:
            generation.begin()
        except OSError as error:
            generation.failure = f"no socket directory: {error.filename or ''}: {error.strerror}"
            self._parts.loop.soon(lambda: generation.stop_now(generation.failure))

    def _again(self, ending: Ending | None, message: str) -> None:
        if self.state not in (State.STARTING, State.RUNNING):
            return
        parts = self._parts
        now = parts.loop.now()
        self.message = message
        if ending is None:
            later = self._backoff.after(now - self._started)
            decision: object = Restart(now + later.delay(), later)
        else:
            decision = after_end(State.RUNNING, ending.event, True, self._backoff, self._started, now)
            self._manager_crashes, count = self._manager_crashes.after(now)
            if count:
                parts.journal.error(f"{self.label}: {sentence(count, 'of its managers', ending.cause)}")
        if isinstance(decision, Restart):
            self._backoff = decision.backoff
            wait = decision.at - now
            parts.nursery.door.change(self, State.BACKOFF, message)
            parts.journal.error(f"{self.label}: {message}; started again in {wait:.1f} s")
            self._retry = parts.loop.after(wait, self._retry_now)
        elif isinstance(decision, GiveUp):
            parts.nursery.door.change(self, State.FAILED, message)
            parts.journal.error(f"{self.label}: {message}; it is not tried again before a reload or restart")
        self._settle(message)

    def _retry_now(self) -> None:
        self._retry = None
        if self.state is State.BACKOFF:
            self.start()

    def _settle(self, message: str) -> None:
        self.message = message
        self.settled = True

    def _tell(self, generation: Generation, message: str) -> None:
        """Answer who waits for this generation, if anybody does."""
        if self._answer is not None and self._answer[0] is generation:
            answer, self._answer = self._answer[1], None
            answer(message)

    def _when_gone(self, generations: list[Generation], done: Callable[[], None]) -> None:
        left = [one for one in generations if one.stage is not Stage.CLOSED]
        if left:
            self._waiting.append((left, done))
        else:
            self._parts.loop.soon(done)

    def _language(self, generation: Generation) -> str:
        return f"{self.config.language} {generation.loaded.language_version}".rstrip()
