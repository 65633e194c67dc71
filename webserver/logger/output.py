"""A log file, or a descriptor that stands for one: bounded memory, batches, and no waiting.

What cannot be written is kept up to a limit; what comes after that is dropped, counted and reported once there is room
again. What waits lies in a ring of the store (store.py), so that it outlives this process: a write whose end the logger
before did not see is looked up in the file, as no line is to be there twice.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable

from webserver.logger.store import MEMORY_LIMIT, Ring

BATCH = 64 * 1024  # bytes; write at once when so much is there
LOOKED_AT = 256 * 1024  # bytes that others may have written to a file before what is looked for there
RETRY = 1.0  # seconds between tries while it fails
_FILE_MODE = 0o640
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT


class OpenError(Exception):
    """A log file cannot be opened; the text says which and why."""


def open_log(path: str) -> int:
    try:
        return file_of_log(path)
    except OSError as error:
        raise OpenError(f"cannot write {path}: {error.strerror}") from None


def file_of_log(path: str, directory: int | None = None, flags: int = APPEND) -> int:
    """Open it, below `directory` if that is given. Raises OSError."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, _FILE_MODE, dir_fd=directory)


def close(descriptor: int) -> None:
    """A file system may say only now that it did not take what was written; nothing could be done about that."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


def reached(descriptor: int, size: int, data: bytes) -> int:
    """How much of `data` is in a file since it had `size` bytes. Others may write there: it is looked for."""
    try:
        there = os.pread(descriptor, LOOKED_AT + len(data), size)
    except OSError:
        return 0  # a device or a pipe
    first = data[: data.find(b"\n") + 1 or len(data)]
    at = there.find(first)
    if at < 0:
        # Only a part of it may be there, at the end.
        end = there[there.rfind(b"\n") + 1 :]
        return len(end) if first.startswith(end) else 0
    pairs = zip(data, there[at:], strict=False)
    same = next((number for number, (one, other) in enumerate(pairs) if one != other), None)
    return min(len(data), len(there) - at) if same is None else same


class Output:
    """Owns the descriptor if it opened it by name."""

    def __init__(self, path: str, descriptor: int, report: Callable[[str], None], ring: Ring) -> None:
        """`path` "" for a descriptor that was inherited."""
        self.ring = ring
        self.path = path
        self._descriptor = descriptor
        self._report = report  # told, as one sentence, what went wrong and when it is right again
        self._failing = ""
        self._retry_at = 0.0
        # Flags of an inherited descriptor are shared with strangers, so it is asked before each small write instead.
        self._poll: select.poll | None = None
        if not path:
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLOUT)
        elif ring.writing is not None:
            self._find_end()

    @property
    def waits(self) -> bool:
        return len(self.ring) > 0

    @property
    def retry_at(self) -> float:
        """When `flush` is worth another try, while something waits."""
        return self._retry_at

    def write(self, data: bytes, lines: int) -> None:
        """Not from here to the file: what was read is not to be there before all of it is in rings. See make_room."""
        if not self.ring.append(data):
            self.ring.dropped += lines

    def make_room(self, now: float) -> None:
        """So that what one turn reads has a place."""
        if len(self.ring) > MEMORY_LIMIT // 2:
            self.flush(now)

    def flush(self, now: float, force: bool = False) -> None:
        """Write what waits, as far as it goes now."""
        if not self.waits or (now < self._retry_at and not force):
            return
        try:
            while self.waits:
                written = self._write_some()
                if not written:
                    self._retry_at = now + 0.05
                    return
        except OSError as error:
            self._retry_at = now + RETRY
            if not self._failing:
                self._failing = error.strerror or str(error)
                self._report(f"cannot write {self.path or 'a log'}: {self._failing}")
            return
        self._retry_at = 0.0
        if self._failing or self.ring.dropped:
            dropped, self.ring.dropped, self._failing = self.ring.dropped, 0, ""
            self._report(f"{self.path or 'the log'} can be written again; {dropped} lines were dropped")

    def _write_some(self) -> int:
        data = self.ring.first()
        if self._poll is None:
            self.ring.writing = os.fstat(self._descriptor).st_size
        elif self._poll.poll(0):
            data = data[: select.PIPE_BUF]
        else:
            return 0
        written = os.write(self._descriptor, data)
        self.ring.advance(written)
        self.ring.writing = None
        return written

    def _find_end(self) -> None:
        """Whether a write of the logger before, which has died in it, has reached the file."""
        size, data = self.ring.writing, bytes(self.ring.first())
        if size is not None and data:
            try:
                file = file_of_log(self.path, flags=os.O_RDONLY)
            except OSError:
                file = -1
            if file >= 0:
                self.ring.advance(reached(file, size, data))
                close(file)
        self.ring.writing = None

    def reopen(self, now: float) -> None:
        """Go on in the file that has the name now. Raises OpenError; then the old one is kept."""
        if not self.path:
            return
        new = open_log(self.path)
        self.flush(now, force=True)
        close(self._descriptor)
        self._descriptor = new
        self._retry_at = 0.0

    def close(self, now: float) -> None:
        """What cannot be written now is left to whoever has the ring next."""
        self.flush(now, force=True)
        self.release()

    def release(self) -> None:
        if self.path:
            close(self._descriptor)
