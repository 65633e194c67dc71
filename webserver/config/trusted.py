"""Paths that root takes orders from: who besides root could put something else in their place.

A path is walked from the top, a directory at a time, and the next name is looked up only in a directory that has been
found safe. What is safe cannot be changed by those who are not trusted, so nothing here is a race: a symbolic link, its
target and every directory on the way were put there by somebody trusted, and still are when the path is used.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from webserver.config.machine import User

_LINKS = 40  # as the kernel's limit in one path, path_resolution(7)

# (directory's name, its status, the status of the entry that was looked up there, None before): what is wrong, or ""
Judge = Callable[[str, os.stat_result, os.stat_result | None], str]


def open_file(path: str, follow: bool = True) -> int:
    """A regular file, opened for reading. Raises OSError.

    Whatever else has this name is not opened at all: O_PATH wakes no device, waits for no pipe and takes no terminal.
    """
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(0, "it is not a file")
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(handle)


class Untrusted(Exception):
    """The text says which directory is the reason."""


class Absent(Untrusted):
    """Everything on the way is safe, but there is nothing of this name."""


@dataclass(frozen=True)
class Found:
    path: str  # without symbolic links
    status: os.stat_result


def walk(path: str, judge: Judge) -> Found:
    """What an absolute path leads to. Raises Untrusted with what `judge` says of a directory on the way, or Absent."""
    todo = path.split("/")[::-1]
    here, status = "/", os.lstat("/")
    links = 0
    while todo:
        name = todo.pop()
        if name in ("", "."):
            continue
        if name == "..":
            here = os.path.dirname(here)
            status = os.lstat(here)
            continue
        if not stat.S_ISDIR(status.st_mode):
            raise Untrusted(f"{here} is not a directory")
        entry = os.path.join(here, name)
        if problem := judge(here, status, None):
            raise Untrusted(problem)
        try:
            found = os.lstat(entry)
        except FileNotFoundError:
            raise Absent(f"{entry} does not exist") from None
        except OSError as error:
            raise Untrusted(f"{entry}: {error.strerror}") from None
        if problem := judge(here, status, found):
            raise Untrusted(problem)
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _LINKS:
                raise Untrusted(f"{path}: too many symbolic links")
            target = os.readlink(entry)
            todo += target.split("/")[::-1]
            if target.startswith("/"):
                here, status = "/", os.lstat("/")
        else:
            here, status = entry, found
    return Found(here, status)


def trusted(path: str, uids: Collection[int]) -> Found:
    """What a path leads to, if nobody but `uids` can change that. Raises Untrusted.

    A sticky directory, such as /tmp, is good enough for an entry that belongs to one of them.
    """

    def judge(directory: str, status: os.stat_result, entry: os.stat_result | None) -> str:
        if status.st_uid not in uids:
            return f"its directory {directory} belongs to user id {status.st_uid}"
        # What root's own group may write is root's.
        writable = status.st_mode & (0o002 if status.st_gid == 0 else 0o022)
        if not writable:
            return ""
        if status.st_mode & stat.S_ISVTX:
            if entry is None or entry.st_uid in uids:
                return ""
            return f"an entry of {directory}, where everybody may write, belongs to user id {entry.st_uid}"
        return f"its directory {directory} can be written by others (mode {stat.S_IMODE(status.st_mode):03o})"

    return walk(path, judge)


def may_write(user: User, status: os.stat_result) -> bool:
    bits = (status.st_mode >> 6 if status.st_uid == user.uid else
            status.st_mode >> 3 if status.st_gid in user.gids else status.st_mode)  # fmt: skip
    # Who owns it can give himself what the mode does not say.
    return bool(bits & 2) or status.st_uid == user.uid


class Writers:
    """Finds which of some users could change what a path leads to. Remembers what it has seen, for thousands of paths
    below the same directories."""

    def __init__(self, users: Iterable[tuple[str, User]]) -> None:
        """`users`: ("group shop", its user)."""
        self._users = list(users)
        self._uids = {user.uid for _, user in self._users}
        self._known: dict[tuple[int, int], str] = {}

    def of(self, path: str) -> tuple[str, str] | None:
        """(what can be written, by whom) for the first place on the way to `path` that a group can write."""
        if not self._users:
            return None
        try:
            found = walk(path, self._judge)
        except Absent:
            return None
        except Untrusted as problem:
            what, _, whom = str(problem).partition("\0")
            return (what, whom) if whom else None
        whom = self._whom(found.status)
        return (found.path, whom) if whom else None

    def _judge(self, directory: str, status: os.stat_result, entry: os.stat_result | None) -> str:
        whom = self._whom(status)
        if not whom:
            return ""
        sticky = status.st_mode & stat.S_ISVTX and status.st_uid not in self._uids
        if sticky and (entry is None or entry.st_uid not in self._uids):
            return ""
        return f"{directory}\0{whom}"

    def _whom(self, status: os.stat_result) -> str:
        if status.st_uid not in self._uids and not status.st_mode & 0o022:
            return ""
        key = (status.st_dev, status.st_ino)
        if key not in self._known:
            self._known[key] = next(
                (f"{name} (user {user.name})" for name, user in self._users if may_write(user, status)), ""
            )
        return self._known[key]
