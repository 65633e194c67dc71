"""Log files: opened by name, written in batches, opened again when they have been moved away.

A file that cannot be written (a full disk, a terminal that hangs) makes nobody wait: its lines are kept up to a bound,
then dropped and counted, and the count is written when writing works again.
"""

from __future__ import annotations

import os

KEPT = 1024 * 1024  # bytes of lines kept while a file cannot be written
_STANDARD = {"stderr": 2, "stdout": 1}


class OutputError(Exception):
    """A log file cannot be opened; the text names it and says why."""


class Output:
    """One log file, or a standard stream of the server's, or nothing ("off")."""

    def __init__(self, name: str) -> None:
        """Raises OutputError."""
        self.name = name
        self._fd = -1 if name == "off" else _open(name)
        self._lines: list[bytes] = []
        self._size = 0
        self._dropped = 0
        self.stuck = False

    def put(self, lines: bytes) -> None:
        """Whole lines, written at the next `flush`."""
        if self._fd < 0:
            return
        if self._size + len(lines) > KEPT and self.stuck:
            self._dropped += lines.count(b"\n")
            return
        self._lines.append(lines)
        self._size += len(lines)

    def flush(self) -> None:
        if self._fd < 0 or not self._lines:
            return
        if self._dropped:
            self._lines.append(f"{self._dropped} lines could not be written to this log and were dropped\n".encode())
            self._dropped = 0
        data = b"".join(self._lines)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
            self.stuck = False
            self._lines, self._size = [], 0
        except OSError:
            self.stuck = True
            self._lines, self._size = [bytes(view)], len(view)

    def reopen(self) -> None:
        """Open the file again by its name. Raises OutputError; then the old one stays in use."""
        if self.name in _STANDARD or self._fd < 0:
            return
        self.flush()
        fd = _open(self.name)
        os.close(self._fd)
        self._fd = fd

    def close(self) -> None:
        self.flush()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open(name: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
    if name in _STANDARD:
        number = _STANDARD[name]
        try:
            # A description of its own, so that not waiting is ours alone.
            return os.open(f"/proc/self/fd/{number}", flags | os.O_NONBLOCK)
        except OSError:
            return os.dup(number)
    try:
        return os.open(name, flags | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        raise OutputError(f"cannot open the log file {name}: {error.strerror}") from None
