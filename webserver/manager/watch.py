"""Files whose change makes a restart: those of `touch`, and with `watch` those that the application was loaded from.

The manager looks, not the supervisor: it is the group's own process, and root opens no path that a group can write. It
looks at intervals, as inotify(7) tells nothing of what happens behind a mount of a network, a container's host or an
overlay; and it looks for as short a part of the time as `SHARE` says, however many files there are.
"""

import os
import time
from typing import Callable, Dict, Iterable, Optional, Tuple

EVERY = 1.0  # seconds between two looks
SETTLE = 0.2  # the same, from a change until nothing changes any more: a deployment changes many files
UNSETTLED = 5.0  # after which it is told all the same
SHARE = 0.01  # of the time that goes into looking
SELDOM = 10.0  # seconds between two looks at most
FILES = 20000
TEXT = 65536  # bytes of names taken at a time

Mark = Optional[Tuple[int, int, int, int]]


class Watch:
    """`tell` gets the name of a file that has changed, once for all that change together."""

    def __init__(self, files: Iterable[str], tell: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._tell = tell
        self._clock = clock
        self._begun = time.time_ns()
        self._marks: Dict[str, Mark] = {}
        self._text = b""
        self._changed = ""
        self._since = 0.0
        self._at = float("inf")
        self.reader = self.writer = -1
        for path in files:
            self._add(path)

    def listen(self) -> int:
        """Make a pipe for names of files, each ended by a zero byte, and return its writing end.

        It never holds up who writes: what does not fit is not watched.
        """
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self.writer, False)
        return self.writer

    def hear(self) -> None:
        """Take names from the pipe."""
        try:
            data = os.read(self.reader, TEXT)
        except BlockingIOError:
            return
        # A worker that was killed may have written half a name; no file has it, and it stays that way.
        *names, self._text = (self._text + data).split(b"\0")
        self._text = self._text[-TEXT:]
        for name in names:
            self._add(os.fsdecode(name), heard=True)

    def next_time(self) -> float:
        return self._at

    def tick(self, now: float) -> None:
        """Look, if it is time to."""
        if now < self._at:
            return
        changed, begun = "", self._clock()
        for path, before in self._marks.items():
            mark = _mark(path)
            if mark != before:
                self._marks[path] = mark
                changed = path
        if changed and not self._changed:
            self._changed, self._since = changed, now
        elif self._changed and (not changed or now - self._since >= UNSETTLED):
            told, self._changed = self._changed, ""
            self._tell(told)
        done = self._clock()
        self._at = done + max(SETTLE if self._changed else EVERY, min(SELDOM, (done - begun) / SHARE))

    def _add(self, path: str, heard: bool = False) -> None:
        if path.startswith("/") and path not in self._marks and len(self._marks) < FILES:
            mark = _mark(path)
            if heard and mark is not None and self._begun < mark[3] <= time.time_ns():
                # Changed since we began, and nobody knows whether it was loaded before that or after: it has changed.
                mark = None
            self._marks[path] = mark
            self._at = min(self._at, self._clock() + EVERY)


def of(record: Dict[str, object], tell: Callable[[str], None]) -> Watch:
    """As a manager's record says."""
    touch, settings = record["touch"], record["settings"]
    assert isinstance(touch, list)
    assert isinstance(settings, list)
    files = list(touch)
    if record["watch"]:
        files += [value for name, value in settings if name in ("application", "preload")]
    watch = Watch(files, tell, time.monotonic)
    if record["watch"]:
        settings.append(["watch", str(watch.listen())])
    return watch


def _mark(path: str) -> Mark:
    """What changes when a file does; None: it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
