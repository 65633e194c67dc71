"""The logger's loop: pipes in, files out, and what it and the supervisor tell each other.

Each pipe gets a bounded part of each turn, so that a loud group does not silence the others. When the supervisor asks
it to, or is dead, the logger reads every pipe to its end and goes.
"""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from webserver.logger.lines import Entry, Splitter, formatted
from webserver.logger.outputs import Output, OutputError
from webserver.wire.control import Control, ControlError, close_all

READ = 65536  # bytes of one pipe in one turn
RETRY_MS = 1000  # between attempts to write to a file that could not be written
LAST_WORDS = 10.0  # seconds that pipes may stay open after the supervisor's death


@dataclass
class Pipe:
    number: int
    fd: int
    kind: str  # error, access
    source: str
    pid: int = 0
    splitter: Splitter = field(default_factory=Splitter)
    rest: bytes = b""  # access: a line that has not ended


class Logger:
    """`run` returns the exit status."""

    def __init__(self, control: Control, record: dict[str, Any]) -> None:
        """Raises OutputError."""
        self._control: Control | None = control
        self._errors = Output(record["error_log"])
        self._access = Output(record["access_log"])
        self._pipes: dict[int, Pipe] = {}
        self._draining = False
        self._end = 0.0
        self._poll = select.poll()
        self._poll.register(control.fileno(), select.POLLIN)
        self._wake, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        self._poll.register(self._wake, select.POLLIN)
        self._second = -1
        self._stamp = ""

    def run(self) -> int:
        while not (self._draining and not self._pipes):
            stuck = self._errors.stuck or self._access.stuck
            events = self._poll.poll(RETRY_MS if stuck or self._end else None)
            for fd, _ in events:
                if self._control is not None and fd == self._control.fileno():
                    self._obey()
                elif fd == self._wake:
                    # TERM: the supervisor's death. Its end of the control connection says so too.
                    os.read(self._wake, 4096)
                    self._last_words()
                elif fd in self._pipes:
                    self._read(self._pipes[fd])
            self._errors.flush()
            self._access.flush()
            if self._end and time.monotonic() > self._end:
                break
        self._errors.close()
        self._access.close()
        return 0

    def _last_words(self) -> None:
        self._draining = True
        if not self._end:
            self._end = time.monotonic() + LAST_WORDS

    def _obey(self) -> None:
        assert self._control is not None
        try:
            received = self._control.receive()
        except BlockingIOError:
            return
        except ControlError as error:
            self._say("error", str(error))
            return
        if received is None:
            self._poll.unregister(self._control.fileno())
            self._control.close()
            self._control = None
            self._last_words()
            return
        message, fds = received
        op = message["op"]
        if op == "pipe":
            label = message["label"]
            fd = fds.pop("pipe")
            os.set_blocking(fd, False)
            self._pipes[fd] = Pipe(message["id"], fd, label["kind"], label["source"], label.get("pid", 0))
            self._poll.register(fd, select.POLLIN)
        elif op == "name":
            for pipe in self._pipes.values():
                if pipe.number == message["id"]:
                    pipe.pid = message["pid"]
        elif op == "reopen":
            self._reopen()
        elif op == "record":
            self._use(message["record"])
        elif op == "drain":
            self._draining = True
        else:
            self._say("error", f"the logger was asked for {op!r}, which it does not know")
        close_all(fds.values())

    def _reopen(self) -> None:
        for output in (self._errors, self._access):
            try:
                output.reopen()
            except OutputError as error:
                self._say("error", str(error))

    def _use(self, record: dict[str, Any]) -> None:
        """Other files, all or none."""
        try:
            errors = Output(record["error_log"])
            access = Output(record["access_log"])
        except OutputError as error:
            self._tell({"op": "failed", "message": str(error)})
            return
        self._errors.close()
        self._access.close()
        self._errors, self._access = errors, access
        self._tell({"op": "ready"})

    def _read(self, pipe: Pipe) -> None:
        try:
            data = os.read(pipe.fd, READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if pipe.kind == "access":
            whole, end, rest = (pipe.rest + data).rpartition(b"\n")
            pipe.rest = rest[:READ]
            if not data and rest:
                whole, end = whole + end + rest, b"\n"
            if end:
                self._access.put(whole + end)
        else:
            for entry in pipe.splitter.feed(data) if data else pipe.splitter.end():
                self._put(entry, pipe.source, pipe.pid)
        if not data:
            self._poll.unregister(pipe.fd)
            del self._pipes[pipe.fd]
            os.close(pipe.fd)
            self._tell({"op": "closed", "id": pipe.number})

    def _say(self, level: str, text: str) -> None:
        self._put(Entry(level, text), "logger", os.getpid())

    def _put(self, entry: Entry, source: str, pid: int) -> None:
        line = formatted(entry, self._now(), source, pid)
        self._errors.put(line.encode("utf-8", "backslashreplace"))

    def _now(self) -> str:
        """Local time with milliseconds, as "2026-11-22 23:40:13.123"."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._stamp}.{int((now - second) * 1000):03d}"

    def _tell(self, message: dict[str, Any]) -> None:
        if self._control is None:
            return
        try:
            self._control.send(message)
        except ControlError:
            pass  # it is dead or very slow; "closed" only lets it close its own end sooner
