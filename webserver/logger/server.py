"""The logger: reads every pipe that the supervisor hands over and writes the log files, which it alone owns.

One loop. A turn takes a bounded amount from each pipe that has something, so that a loud group does not silence the
others, and then writes what came in batches. It makes no writer wait: what the disk does not take is dropped and
counted. When the supervisor asks it to, or is dead, it reads every pipe to its end and goes.
"""

from __future__ import annotations

import binascii
import os
import selectors
import signal
import socket
import time
from collections.abc import Iterable
from typing import Any

from webserver.logger.lines import Entry, Splitter, formatted
from webserver.logger.output import BATCH, OpenError, Output, open_log
from webserver.logger.pipe import Pipe
from webserver.logger.sites import SiteLogs
from webserver.logger.stamp import Stamp
from webserver.logger.store import Ring, Store
from webserver.wire.control import (
    STARVED_WAIT,
    Control,
    ControlClosed,
    ControlError,
    ControlFull,
    ControlStarved,
    close_all,
)

BEAT_SECONDS = 5.0
NAME_WAIT = 1.0  # seconds to wait for the process id behind a pipe before its lines are written without
DRAIN_WAIT = 1.0  # seconds without a byte for pipes whose writers should be dead
UNREAD_WAIT = 5.0  # seconds for a pipe to be handed over that the logger before had read from when it died
REST_LIMIT = 16 * 1024  # bytes of a line without an end that are told to the next logger
ACCESS_CARRY = 1024 * 1024  # bytes of an access line without an end; then it is written as it is


class Logger:
    """See the module. `run` returns the exit status."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._stamp = Stamp()
        self._pipes: dict[int, Pipe] = {}
        self._store = Store()  # until the supervisor has handed over its own
        self._error: Output = Output("", 2, self._note, self._store.error)
        self._access: Output | None = None
        self._sites = SiteLogs(self._store, self._note)
        self._works = False  # it logs where it is to: what waits is not for standard error
        self._unopened: dict[str, Any] | None = None  # a record whose files could not be opened
        self._beat = time.monotonic() + BEAT_SECONDS
        self._draining = False
        self._drain_until = 0.0
        self._unnamed: list[Pipe] = []  # not read yet
        self._closed: list[int] = []  # pipes whose end the supervisor has not been told
        self._rests: dict[int, bytes] = {}  # by pipe: the beginning of a line
        self._unread_until = 0.0  # what the logger before had read waits for its pipe
        self._notes: list[str] = []
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda number, frame: None)  # the wake-up descriptor tells the loop
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._selector.register(control, selectors.EVENT_READ)

    def run(self) -> int:
        while not self._finished():
            for key, _ in self._selector.select(self._wait(time.monotonic())):
                if key.fileobj is self._control:
                    self._orders()
                elif key.fileobj is self._wake:
                    self._wake.recv(4096)
                    self._drain()
                elif isinstance(key.data, Pipe) and self._pipes.get(key.fd) is key.data:
                    self._read(key.data)
            self._read_unnamed(time.monotonic())
            self._write_unread(time.monotonic())
            if self._store.unread is None:
                self._flush()  # before, the rings may have to go back to their marks
            self._tell_closed()
            self._tell_beat(time.monotonic())
        self._write_unread(time.monotonic())  # it drains, so this waits for nothing
        self._read_unnamed(time.monotonic())
        for pipe in list(self._pipes.values()):
            self._make_room()
            self._end(pipe)
        self._sites.flush(self._error, time.monotonic())
        self._write_notes()
        self._sites.close()
        for output in self._outputs():
            output.close(time.monotonic())
        return 0

    def _outputs(self) -> list[Output]:
        return [self._error] if self._access is None else [self._error, self._access]

    def _flush(self) -> None:
        now = time.monotonic()
        # First: what a site's file does not take goes to the error log.
        self._sites.flush(self._error, now)
        self._write_notes()
        self._store.sites.rewind()
        for output in self._outputs():
            output.flush(now)
            output.ring.rewind()

    def _wait(self, now: float) -> float:
        """Seconds until something is to be done without being told."""
        if self._store.unread is not None:
            return max(0.0, min(self._beat, self._unread_until) - now)
        times = [self._beat, *(output.retry_at for output in self._outputs() if output.waits)]
        times += [pipe.unread_until for pipe in self._unnamed]
        if self._draining:
            times.append(self._drain_until)
        if self._closed:
            times.append(now + 0.05)
        return max(0.0, min(times) - now)

    def _finished(self) -> bool:
        return self._draining and (not self._pipes or time.monotonic() >= self._drain_until)

    # Orders

    def _orders(self) -> None:
        while True:
            try:
                received = self._control.receive()
            except BlockingIOError:
                return
            except ControlStarved:
                self._sites.close()  # they are opened again one by one
                time.sleep(STARVED_WAIT)  # what is in the pipes is read between two tries
                return
            except (ControlError, OSError) as error:
                self._note(f"control: {error}")
                received = None
            if received is None:
                # The supervisor is dead and soon all others: what they said last is still to be written.
                self._selector.unregister(self._control)
                self._drain()
                return
            message, fds = received
            try:
                self._order(message, fds)
            except (KeyError, TypeError, ValueError) as error:
                self._note(f"control: wrong packet {message['op']!r}: {error!r}")
            close_all(fds.values())

    def _order(self, message: dict[str, Any], fds: dict[str, int]) -> None:
        op = message["op"]
        if op == "pipe":
            rest = binascii.a2b_base64(message.get("rest", ""))
            self._add_pipe(int(message["id"]), message["label"], fds.pop("pipe"), rest)
        elif op == "part":
            self._part(int(message["id"]))
        elif op == "name":
            for pipe in self._pipes.values():
                if pipe.id == message["id"]:
                    pipe.pid = int(message["pid"])
            self._read_unnamed(time.monotonic())
        elif op == "record":
            if "memory" in fds:
                self._remember(fds["memory"])
            self._use(message["record"])
        elif op == "reopen":
            self._reopen()
        elif op == "drain":
            self._drain()
        else:
            raise ValueError("unknown op")

    def _remember(self, descriptor: int) -> None:
        """The memory of the logger before, if there was one. Nothing is in our own yet."""
        try:
            self._store = Store(descriptor)
        except (OSError, ValueError) as error:
            self._note(f"what it holds will not outlive it: {error}")
            return
        if self._store.spoilt:
            self._note("what the logger before it held cannot be read")
        self._error = Output("", 2, self._note, self._store.error)
        self._sites = SiteLogs(self._store, self._note)
        self._rests = self._store.rests
        self._unread_until = time.monotonic() + UNREAD_WAIT

    def _write_unread(self, now: float) -> None:
        """What the logger before had read and not worked up when it died, once its pipe is here."""
        if self._store.unread is None:
            return
        number, data = self._store.unread
        pipe = next((one for one in self._pipes.values() if one.id == number), None)
        if pipe is None and now < self._unread_until and not self._draining:
            return
        if pipe is not None:
            self._take(pipe, data)
        else:
            splitter = Splitter()
            splitter.rest = self._rests.pop(number, b"")
            self._entries([*splitter.feed(data), *splitter.end()], "unknown", 0)
        self._store.end(len(data), self._rests)

    def _part(self, number: int) -> None:
        """Another logger is to go on with a pipe. A long beginning of a line is written here: nobody else has it."""
        pipe = next((pipe for pipe in self._pipes.values() if pipe.id == number), None)
        if pipe is None:
            return  # it has come to its end, which is told
        rest = pipe.splitter.part(REST_LIMIT)
        self._entries(pipe.splitter.end(), pipe.source, pipe.pid, pipe.group)
        if pipe in self._unnamed:
            self._unnamed.remove(pipe)
        else:
            self._selector.unregister(pipe.fd)
        self._rests.pop(pipe.id, None)
        os.close(pipe.fd)
        del self._pipes[pipe.fd]
        self._tell({"op": "parted", "id": number, "rest": binascii.b2a_base64(rest, newline=False).decode()})

    def _add_pipe(self, number: int, label: dict[str, Any], fd: int, rest: bytes) -> None:
        os.set_blocking(fd, False)
        pipe = Pipe(number, fd, str(label["kind"]), str(label["source"]), int(label.get("pid") or 0))
        pipe.group = label.get("group", "")
        pipe.rest = self._rests.get(number, b"")
        if rest:
            self._take(pipe, rest)
        self._pipes[fd] = pipe
        if self._store.unread is not None:
            self._unnamed.append(pipe)  # what was read before comes first
        elif label.get("waits") and not pipe.pid and not self._draining:
            # Its process may write before its manager has told the process id. What it writes keeps in the pipe.
            pipe.unread_until = time.monotonic() + NAME_WAIT
            self._unnamed.append(pipe)
        else:
            self._selector.register(fd, selectors.EVENT_READ, pipe)

    def _read_unnamed(self, now: float) -> None:
        """Begin to read those pipes that have been named, or have waited long enough for it."""
        if not self._unnamed or self._store.unread is not None:
            return
        ready = [pipe for pipe in self._unnamed if pipe.pid or self._draining or now >= pipe.unread_until]
        self._unnamed = [pipe for pipe in self._unnamed if pipe not in ready]
        for pipe in ready:
            self._selector.register(pipe.fd, selectors.EVENT_READ, pipe)

    def _use(self, record: dict[str, Any]) -> None:
        """Log where the record says; told in the answer if that cannot be done, and then nothing changes.

        What is wrong with a site's file is told as well, but changes nothing: it may be its owner's doing.
        """
        try:
            error = self._open(record["error_log"], {"stderr": 2}, self._store.error)
            try:
                off = record["access_log"] == "off"
                access = None if off else self._open(record["access_log"], {"stdout": 1}, self._store.access)
            except OpenError:
                error.release()
                raise
        except OpenError as problem:
            if self._error.path == "" and record["error_log"] != "stderr":
                self._unopened = record
            self._tell({"op": "failed", "message": f"{problem} (the logger runs as uid {os.geteuid()})"})
            return
        before, now = self._outputs(), time.monotonic()
        self._error, self._access, self._unopened = error, access, None
        for output in before:
            output.close(now) if self._works else output.release()
        self._works = True
        self._tell({"op": "ready", "notes": self._sites.use(record["sites"])})

    def _open(self, where: str, standard: dict[str, int], ring: Ring) -> Output:
        if where in standard:
            return Output("", standard[where], self._note, ring)
        return Output(where, open_log(where), self._note, ring)

    def _reopen(self) -> None:
        self._sites.close()
        if self._unopened is not None:
            self._use(self._unopened)
            return
        for output in self._outputs():
            try:
                output.reopen(time.monotonic())
            except OpenError as problem:
                self._note(f"{problem}; the file that is open is kept")

    def _drain(self) -> None:
        self._draining = True
        self._drain_until = time.monotonic() + DRAIN_WAIT
        self._read_unnamed(time.monotonic())

    # Pipes

    def _read(self, pipe: Pipe) -> None:
        if self._store.unread is not None:
            return  # that comes first
        self._make_room()
        inbox = self._store.begin(pipe.id)
        size = 0
        try:
            size = os.readv(pipe.fd, [inbox])
        except BlockingIOError:
            pass
        except OSError:
            self._end(pipe)
        else:
            if size:
                self._take(pipe, bytes(inbox[:size]))
            else:
                self._end(pipe)
        self._store.end(size, self._rests)
        for output in self._outputs():
            if len(output.ring) >= BATCH:
                output.flush(time.monotonic())
        if len(self._sites) >= BATCH:
            self._sites.flush(self._error, time.monotonic())

    def _make_room(self) -> None:
        for output in self._outputs():
            output.make_room(time.monotonic())

    def _take(self, pipe: Pipe, data: bytes) -> None:
        if self._draining:
            self._drain_until = time.monotonic() + DRAIN_WAIT
        if pipe.kind == "access":
            self._access_lines(pipe, data)
        else:
            self._entries(pipe.splitter.feed(data), pipe.source, pipe.pid, pipe.group)
        if pipe.rest:
            self._rests[pipe.id] = pipe.rest
        else:
            self._rests.pop(pipe.id, None)

    def _end(self, pipe: Pipe) -> None:
        if pipe.kind == "access":
            if pipe.carry:
                self._access_lines(pipe, b"\n")
        else:
            self._entries(pipe.splitter.end(), pipe.source, pipe.pid, pipe.group)
        self._rests.pop(pipe.id, None)
        self._selector.unregister(pipe.fd)
        os.close(pipe.fd)
        del self._pipes[pipe.fd]
        self._closed.append(pipe.id)

    def _access_lines(self, pipe: Pipe, data: bytes) -> None:
        """Whole lines only: several pipes end in one file."""
        end = data.rfind(b"\n") + 1
        if not end and len(pipe.carry) + len(data) < ACCESS_CARRY:
            pipe.carry += data
            return
        end = end or len(data)
        whole, pipe.carry = pipe.carry + data[:end], data[end:]
        if self._access is not None:
            self._access.write(whole, whole.count(b"\n"))

    def _entries(self, entries: Iterable[Entry], source: str, pid: int, group: str | None = "") -> None:
        stamp = self._stamp.text(time.time())
        for entry in entries:
            lines = formatted(entry, stamp, source, pid).encode("utf-8", "backslashreplace")
            path = self._sites.path(entry.site, group)
            if not path or not self._sites.write(path, lines):
                self._error.write(lines, lines.count(b"\n"))

    # What the logger itself has to say

    def _note(self, text: str) -> None:
        # Not written from here: this may be called from within a write.
        self._notes.append(text)

    def _write_notes(self) -> None:
        notes, self._notes = self._notes, []
        self._entries((Entry("error", text) for text in notes), "logger", os.getpid())

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._control.send(message)
        except (ControlClosed, ControlFull):
            pass

    def _tell_beat(self, now: float) -> None:
        if now >= self._beat:
            self._beat = now + BEAT_SECONDS
            self._tell({"op": "beat"})

    def _tell_closed(self) -> None:
        while self._closed:
            try:
                self._control.send({"op": "closed", "id": self._closed[0]})
            except ControlFull:
                return
            except ControlClosed:
                self._closed.clear()
                return
            self._closed.pop(0)
