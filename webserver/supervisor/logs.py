"""The logger as the supervisor sees it: its process, and every pipe that leads to it.

The reading ends stay open here too until the logger says that one has come to its end. So what is in a pipe outlives
the logger, and a new logger goes on reading where the old one stopped. What that had read and not written yet lies in
memory that is kept here as well, and never looked at.
"""

from __future__ import annotations

import binascii
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from webserver.config import Config
from webserver.supervisor.crashes import Crashes, sentence
from webserver.supervisor.identity import Identity
from webserver.supervisor.journal import Journal
from webserver.supervisor.loop import Loop
from webserver.supervisor.nursery import Ending, Nursery
from webserver.supervisor.policy import Restart, after_end
from webserver.supervisor.process import Child
from webserver.supervisor.records import logger_process, logger_record
from webserver.supervisor.states import State

MEMORY = 16 * 1024 * 1024  # bytes: more than it uses, and none is there before it is used
PIPE_SIZE = 256 * 1024  # bytes asked for; an ordinary user may get less
ACCESS_PIPE_SIZE = 1024 * 1024

DRAIN_LIMIT = 10.0  # seconds for the logger to read what is left when all others are gone

Answer = Callable[[str], None]  # "" or what is wrong
Parted = Callable[[int, bytes], None]  # which gets the reading end of a pipe as its own, and the line that was begun


@dataclass(eq=False)
class Pipe:
    reader: int
    label: dict[str, Any]


class Logs:
    def __init__(
        self, loop: Loop, nursery: Nursery, journal: Journal, identity: Identity, config: Config, open_files: int,
        null: int,
    ) -> None:  # fmt: skip
        self._loop = loop
        self._nursery = nursery
        self._journal = journal
        self._identity = identity
        self._open_files = open_files
        self._null = null
        self._config = config
        self._pipes: dict[int, Pipe] = {}
        self._next = 1
        self._parting: dict[int, tuple[int, Parted]] = {}  # reading ends of pipes that another program is to have
        self._waiting: Answer | None = None
        self._works = False  # a logger has opened the files
        self.notes: list[str] = []  # what the last answer said beside: of sites' logs
        self._draining = False
        self._crashes = Crashes()
        self._memory = _memory()
        self.child = Child("logger", "")
        self.on_end: Callable[[], None] = lambda: None  # after drain

    def start(self, answer: Answer | None = None) -> None:
        """Start the logger. `answer` learns whether it could open its files."""
        if answer is not None:
            self._waiting = answer
        record = {"record": logger_record(self._config), "op": "record"}
        memory = {"memory": self._memory} if self._memory >= 0 else {}
        pipes = [
            ({"op": "pipe", "id": number, "label": pipe.label}, {"pipe": pipe.reader})
            for number, pipe in self._pipes.items()
        ]
        process = logger_process(self._identity, self._open_files, self._null)
        self._nursery.start(self.child, process, [(record, memory), *pipes], self._packet, self._ended)

    def new_pipe(self, kind: str, source: str, waits: bool = False, group: str | None = "") -> tuple[int, int]:
        """A pipe to the logger: (its number, its writing end, which is the caller's to close). Raises OSError.

        `waits`: `name` will follow soon, and should come before the first line is written. `group`: whose processes
        write to it, None for a front end; their entries may go to sites' logs.
        """
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        try:
            fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, ACCESS_PIPE_SIZE if kind == "access" else PIPE_SIZE)
        except OSError:
            pass  # above what an ordinary user may have; the default is enough
        number = self._next
        self._next += 1
        pipe = self._pipes[number] = Pipe(reader, {"kind": kind, "source": source, "waits": waits, "group": group})
        self._nursery.send(self.child, {"op": "pipe", "id": number, "label": pipe.label}, {"pipe": reader})
        return number, writer

    def part(self, number: int, answer: Parted) -> None:
        """Another program's logger is to read a pipe. `answer`, never called from here, gets its reading end, and what
        ours has read of a line that has no end yet. The reading end is -1 if the pipe has come to its end."""
        pipe = self._pipes.pop(number, None)
        if pipe is None or self.child.state not in (State.STARTING, State.RUNNING, State.DRAINING):
            self._loop.soon(lambda: answer(-1 if pipe is None else pipe.reader, b""))
            return
        # Whatever becomes of our logger: this pipe is given to none of ours any more, and its end answers as well.
        self._parting[number] = (pipe.reader, answer)
        self._nursery.send(self.child, {"op": "part", "id": number})

    def adopt(self, reader: int, source: str, pid: int, rest: bytes) -> int:
        """A pipe that another program's logger has read until now. Returns its number; `reader` is ours now."""
        number = self._next
        self._next += 1
        label = {"kind": "error", "source": source, "pid": pid, "waits": False}
        self._pipes[number] = Pipe(reader, label)
        text = binascii.b2a_base64(rest, newline=False).decode()
        self._nursery.send(self.child, {"op": "pipe", "id": number, "label": label, "rest": text}, {"pipe": reader})
        return number

    def name(self, number: int, pid: int) -> None:
        """The process that writes into a pipe is known now."""
        pipe = self._pipes.get(number)
        if pipe is not None:
            pipe.label["pid"] = pid
            self._nursery.send(self.child, {"op": "name", "id": number, "source": pipe.label["source"], "pid": pid})

    def reopen(self) -> None:
        self._nursery.send(self.child, {"op": "reopen"})

    def configure(self, config: Config, answer: Answer, back: bool = False) -> None:
        """Log to other files. `answer` learns whether they could be opened; if not, the old ones stay in use.

        `back`: to what it was before, which holds whatever becomes of it: for the next logger as well.
        """
        before, self._config = config if back else self._config, config

        def done(problem: str) -> None:
            if problem:
                self._config = before
            answer(problem)

        if self.child.state is not State.RUNNING or self._waiting is not None:
            done("the logger is not running")
            return
        self._waiting = done
        self._nursery.send(self.child, {"op": "record", "record": logger_record(config)})

    def drain(self) -> None:
        """Read every pipe to its end and go. Our own end of each is closed, so that there is an end."""
        self._draining = True
        if not self.child.alive:
            if self.child.state is State.BACKOFF:
                self._nursery.door.change(self.child, State.GONE, "the server ends")
            self._loop.soon(self.on_end)
            return
        if self.child.state in (State.STARTING, State.RUNNING):
            self._nursery.door.change(self.child, State.DRAINING, "asked to")
            self._nursery.send(self.child, {"op": "drain"})
            self._loop.after(DRAIN_LIMIT, lambda: self._nursery.kill_now(self.child, "it did not end"))

    def close(self) -> None:
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1
        for pipe in self._pipes.values():
            os.close(pipe.reader)
        self._pipes.clear()
        for reader, _ in self._parting.values():
            os.close(reader)
        self._parting.clear()

    def _packet(self, child: Child, message: dict[str, Any], fds: dict[str, int]) -> None:
        op = message["op"]
        if op == "closed":
            pipe = self._pipes.pop(message["id"], None)
            if pipe is not None:
                os.close(pipe.reader)
            parting = self._parting.pop(message["id"], None)
            if parting is not None:
                os.close(parting[0])
                parting[1](-1, b"")
        elif op == "parted":
            parting = self._parting.pop(message["id"], None)
            if parting is not None:
                parting[1](parting[0], binascii.a2b_base64(message["rest"]))
        elif op in ("ready", "failed"):
            if child.state is State.STARTING:
                self._nursery.door.change(child, State.RUNNING, "ready")
            problem = str(message["message"]) if op == "failed" else ""
            self._works |= op == "ready"
            self.notes = [str(note) for note in message.get("notes", [])]
            waiting, self._waiting = self._waiting, None
            if waiting is not None:
                waiting(problem)
            elif problem:
                self._journal.error(problem)

    def _ended(self, child: Child, ending: Ending) -> None:
        now = self._loop.now()
        decision = after_end(ending.state, ending.event, not self._draining, child.backoff, child.started, now)
        waiting, self._waiting = self._waiting, None
        parting, self._parting = self._parting, {}
        for reader, parted in parting.values():
            parted(reader, b"")
        if isinstance(decision, Restart) and (waiting is None or self._works):
            if waiting is not None:
                waiting(f"the logger {ending.cause}")
            self._journal.error(f"the logger {ending.cause}; started again in {decision.at - now:.1f} s")
            child.backoff = decision.backoff
            self._crashes, count = self._crashes.after(now)
            if count:
                self._journal.error(sentence(count, "loggers", ending.cause))
            self._nursery.door.change(child, State.BACKOFF, ending.cause)
            self._loop.after(decision.at - now, self._again)
            return
        self._nursery.door.change(child, State.GONE if self._draining else State.FAILED, ending.cause)
        if waiting is not None:
            waiting(f"the logger {ending.cause}")
        elif not self._draining:
            self._journal.error(f"the logger {ending.cause}; nothing is logged until the server is started again")
        if self._draining:
            self.on_end()

    def _again(self) -> None:
        if self.child.state is State.BACKOFF and not self._draining:
            self.start()


def _memory() -> int:
    """-1: there is none, and what the logger holds dies with it."""
    try:
        memory = os.memfd_create("log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return -1
    try:
        os.ftruncate(memory, MEMORY)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(memory)
        return -1
    return memory
