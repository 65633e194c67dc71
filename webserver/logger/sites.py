"""The sites' own error logs: very many files, of which few are open, and one ring for what waits for any of them.

An entry lies in the ring as a record, its path and its lines, until it has been written. A file that does not take it,
because its directory is gone or its disk full, makes no other one wait: the lines go to the server's error log, with
the reason, until the file can be written again.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from webserver.logger.output import APPEND, BATCH, RETRY, OpenError, Output, close, file_of_log, reached
from webserver.logger.store import Store

OPEN = 128  # files at one time, and no more than a quarter of what may be open
NOTES = 20  # of an answer
NOTE_LIMIT = 400  # letters of one; all of them fit into a packet
_HEAD = struct.Struct("=II")  # bytes of the path, bytes of the lines


class Failing:
    """A file that was not to be written when it was last tried."""

    def __init__(self) -> None:
        self.retry_at = 0.0
        self.elsewhere = 0  # lines that went to the server's error log meanwhile


class SiteLogs:
    """Owns the descriptors, and the ring's records."""

    def __init__(self, store: Store, report: Callable[[str], None]) -> None:
        self._store = store
        self._ring = store.sites
        self._report = report
        self._paths: dict[str, str] = {}  # by site
        self._groups: dict[str, frozenset[str]] = {}  # by site: whose word is taken
        self._most = max(1, min(OPEN, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
        self._open: OrderedDict[str, int] = OrderedDict()  # by path; who was used last is last
        self._failing: dict[str, Failing] = {}  # by path
        self._end_unfinished()

    def __len__(self) -> int:
        """Bytes that wait."""
        return len(self._ring)

    def use(self, sites: Mapping[str, Any]) -> list[str]:
        """These sites have logs of their own: {name: {"path", "groups"}}. Returns what is wrong with new ones."""
        known = set(self._paths.values())
        problems = []
        for name, site in sites.items():
            if site["path"] in known:
                continue
            known.add(site["path"])
            try:
                self._descriptor(site["path"])
            except OpenError as problem:
                problems.append(f"site {name}: {problem}; until it can be, its lines are in error_log")
                self._report(problems[-1])
                self._failing.setdefault(site["path"], Failing())
        self._paths = {name: str(site["path"]) for name, site in sites.items()}
        self._groups = {name: frozenset(site["groups"]) for name, site in sites.items()}
        wanted = set(self._paths.values())
        self._failing = {path: failing for path, failing in self._failing.items() if path in wanted}
        for path in [path for path in self._open if path not in wanted]:
            close(self._open.pop(path))
        notes = [problem[:NOTE_LIMIT] for problem in problems[:NOTES]]
        if len(problems) > NOTES:
            notes.append(f"{len(problems) - NOTES} more logs of sites cannot be written; error_log names them")
        return notes

    def path(self, site: str, group: str | None) -> str:
        """Where an entry for `site` goes, that came from a process of `group`; "": to the server's error log.

        A group's processes can write anything: only for sites that send them requests is their word taken. None: a
        front end, whose word always is.
        """
        if not site or site not in self._paths:
            return ""
        return self._paths[site] if group is None or group in self._groups[site] else ""

    def write(self, path: str, lines: bytes) -> bool:
        """False: there is no room for it."""
        name = os.fsencode(path)
        return self._ring.append(_HEAD.pack(len(name), len(lines)) + name + lines)

    def flush(self, error: Output, now: float) -> None:
        """Write all that waits, each to its file or else to `error`."""
        while len(self._ring):
            path, lines, size = self._first()
            if not size:
                self._report("what waited for logs of sites cannot be read")
                self._ring.advance(len(self._ring))
                return
            failing = self._failing.get(path)
            if failing is not None and now < failing.retry_at:
                self._elsewhere(failing, lines, size, error, now)
                continue
            written, why = self._write(path, lines)
            if not why:
                self._ring.advance(size)
                if failing is not None:
                    del self._failing[path]
                    self._report(f"{path} can be written again; {failing.elsewhere} lines for it are in this log")
            else:
                # Whole lines: one without its head could pass for another process's.
                end = lines.rfind(b"\n", 0, written) + 1
                self._elsewhere(self._fail(path, why, now), lines[end:], size, error, now)
            self._ring.writing = None

    def close(self) -> None:
        """All files. They are opened again when they are needed, by their names."""
        while self._open:
            close(self._open.popitem()[1])
        for failing in self._failing.values():
            failing.retry_at = 0.0

    # The ring

    def _records(self) -> Iterator[tuple[str, int, int, int]]:
        """(path, where its lines begin, how many bytes they are, size of the record), from the first on."""
        at = 0
        while at + _HEAD.size <= len(self._ring):
            name, lines = _HEAD.unpack(self._ring.peek(at, _HEAD.size))
            size = _HEAD.size + name + lines
            if not name or not lines or at + size > len(self._ring):
                return
            path = os.fsdecode(self._ring.peek(at + _HEAD.size, name))
            yield path, at + _HEAD.size + name, lines, size
            at += size

    def _first(self) -> tuple[str, bytes, int]:
        """The path of what waits longest, its lines with those for the same file right behind, the records' size."""
        first, parts, total = "", [], 0
        for path, begin, lines, size in self._records():
            if first not in ("", path) or (total and total + size > BATCH):
                break
            first = path
            parts.append(self._ring.peek(begin, lines))
            total += size
        return first, b"".join(parts), total

    def _end_unfinished(self) -> None:
        """What the logger before was writing when it died: what has reached the file is not written again."""
        size = self._ring.writing
        path, lines, _ = self._first()
        there = self._reached(path, size, lines) if size is not None else 0
        done = 0
        for _, begin, count, record in list(self._records()):
            if not there:
                break
            if there < count:
                whole = self._ring.peek(begin, count)
                there += self._end_line(path, whole[there:])
                if there < count:
                    self._store.move(done + record, whole[whole.rfind(b"\n", 0, there) + 1 :])
                    done = 0
                    break
            done, there = done + record, there - count
        self._ring.advance(done)
        self._ring.writing = None

    def _end_line(self, path: str, rest: bytes) -> int:
        """Of a record a part is in the file. How much of the rest could be added to it."""
        written = 0
        try:
            file = open_beneath(path)
            try:
                while written < len(rest):
                    written += os.write(file, rest[written:])
            finally:
                close(file)
        except (OpenError, OSError):
            pass  # what is written next to this file will fail too, and that is told
        return written

    def _reached(self, path: str, size: int, lines: bytes) -> int:
        try:
            file = open_beneath(path, os.O_RDONLY)
        except OpenError:
            return 0
        try:
            return reached(file, size, lines)
        finally:
            close(file)

    # Files

    def _descriptor(self, path: str) -> int:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        descriptor = open_beneath(path)
        while len(self._open) >= self._most:
            close(self._open.popitem(last=False)[1])
        self._open[path] = descriptor
        try:
            if not ends_with_a_line(descriptor):
                os.write(descriptor, b"\n")
        except OSError as error:
            close(self._open.pop(path))
            raise OpenError(f"cannot write {path}: {error.strerror}") from None
        return descriptor

    def _write(self, path: str, lines: bytes) -> tuple[int, str]:
        """How many bytes of it are in the file, and why not all."""
        written = 0
        try:
            descriptor = self._descriptor(path)
            self._ring.writing = os.fstat(descriptor).st_size
            while written < len(lines):
                written += os.write(descriptor, lines[written:])
        except OpenError as problem:
            return written, str(problem)
        except OSError as error:
            return written, f"cannot write {path}: {error.strerror}"
        return written, ""

    def _fail(self, path: str, why: str, now: float) -> Failing:
        if path not in self._failing:
            self._failing[path] = Failing()
            self._report(f"{why}; until it can be, its lines are in this log")
        self._failing[path].retry_at = now + RETRY
        descriptor = self._open.pop(path, -1)
        if descriptor >= 0:
            close(descriptor)  # another file may have the name by then
        return self._failing[path]

    def _elsewhere(self, failing: Failing, lines: bytes, size: int, error: Output, now: float) -> None:
        if not self._store.room(lines):
            error.flush(now)
        if self._store.move(size, lines):
            failing.elsewhere += lines.count(b"\n")


def ends_with_a_line(descriptor: int) -> bool:
    """False for a file whose last write was cut. What is no file, or may not be read, is taken for whole."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return True
        reader = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return os.pread(reader, 1, status.st_size - 1) == b"\n"
    except OSError:
        return True
    finally:
        close(reader)


def open_beneath(path: str, flags: int = APPEND) -> int:
    """Open a log without following any symbolic link. Raises OpenError.

    Its directory may be a group's user's, who could have it lead to another log.
    """
    here, walked = -1, "/"
    try:
        here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        *directories, name = path.strip("/").split("/")
        for directory in directories:
            walked = os.path.join(walked, directory)
            below = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            close(here)
            here = below
        walked = path
        return file_of_log(name, here, flags)
    except OSError as error:
        why = error.strerror
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and os.path.islink(walked):
            why = "it is a symbolic link, and a site's log follows none"
        where = "" if walked == path else f"{walked}: "
        raise OpenError(f"cannot write {path}: {where}{why}") from None
    finally:
        if here >= 0:
            close(here)
