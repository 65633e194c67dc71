"""A log file, or a descriptor that stands for one: bounded memory, batches, and no waiting.

What cannot be written is kept up to a limit; what comes after that is dropped, counted and reported once there is room
again.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable

MEMORY_LIMIT = 4 * 1024 * 1024  # bytes that wait for a disk that is full
BATCH = 64 * 1024  # bytes; write at once when so much is there
RETRY = 1.0  # seconds between tries while it fails
_FILE_MODE = 0o640


class OpenError(Exception):
    """A log file cannot be opened; the text says which and why."""


def open_log(path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, flags, _FILE_MODE)
    except OSError as error:
        raise OpenError(f"cannot write {path}: {error.strerror}") from None


class Output:
    """Owns the descriptor if it opened it by name."""

    def __init__(self, path: str, descriptor: int, report: Callable[[str], None]) -> None:
        """`path` "" for a descriptor that was inherited."""
        self.path = path
        self._descriptor = descriptor
        self._report = report  # told, as one sentence, what went wrong and when it is right again
        self._waiting = bytearray()
        self._dropped = 0
        self._failing = ""
        self._retry_at = 0.0
        # Flags of an inherited descriptor are shared with strangers, so it is asked before each small write instead.
        self._poll: select.poll | None = None
        if not path:
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLOUT)

    @property
    def waits(self) -> bool:
        return bool(self._waiting)

    @property
    def retry_at(self) -> float:
        """When `flush` is worth another try, while something waits."""
        return self._retry_at

    def write(self, data: bytes, lines: int, now: float) -> None:
        if len(self._waiting) + len(data) > MEMORY_LIMIT:
            self._dropped += lines
            return
        self._waiting += data
        if len(self._waiting) >= BATCH:
            self.flush(now)

    def flush(self, now: float, force: bool = False) -> None:
        """Write what waits, as far as it goes now."""
        if not self._waiting or (now < self._retry_at and not force):
            return
        try:
            while self._waiting:
                written = self._write_some()
                if not written:
                    self._retry_at = now + 0.05
                    return
                del self._waiting[:written]
        except OSError as error:
            self._retry_at = now + RETRY
            if not self._failing:
                self._failing = error.strerror or str(error)
                self._report(f"cannot write {self.path or 'a log'}: {self._failing}")
            return
        self._retry_at = 0.0
        if self._failing or self._dropped:
            dropped, self._dropped, self._failing = self._dropped, 0, ""
            self._report(f"{self.path or 'the log'} can be written again; {dropped} lines were dropped")

    def _write_some(self) -> int:
        if self._poll is None:
            return os.write(self._descriptor, self._waiting)
        if not self._poll.poll(0):
            return 0
        return os.write(self._descriptor, self._waiting[: select.PIPE_BUF])

    def reopen(self, now: float) -> None:
        """Go on in the file that has the name now. Raises OpenError; then the old one is kept."""
        if not self.path:
            return
        new = open_log(self.path)
        self.flush(now, force=True)
        os.close(self._descriptor)
        self._descriptor = new
        self._retry_at = 0.0

    def close(self, now: float) -> None:
        self.flush(now, force=True)
        if self.path:
            os.close(self._descriptor)
