"""The run directory: pid file, control socket's place, and one socket directory for each group generation.

RUN and RUN/ipc are ours, mode 0711 where we make them: groups pass through, and cannot list RUN/ipc. A generation's
directory belongs to the front ends' user and the group's gid, mode 2710: front ends make sockets there, workers reach
them, nobody else does. As root nothing is opened or searched here that a group can write: groups write nothing below
RUN, and the way to RUN was looked at when the configuration was checked. Front ends write in generations' directories:
there only names are removed, through a descriptor of the directory itself, so no link leads anywhere.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import stat

from webserver.supervisor.identity import Identity

PID_FILE = "webserverd.pid"
CONTROL = "control.sock"
SOCKET_PATH_LIMIT = 107  # bytes of sun_path
LONGEST_NAME = "/ipc/4294967295.4294967295/f16777215"


class RunError(Exception):
    """The run directory cannot be used; the text says why."""


class RunDirectory:
    """Owns RUN, with a lock on the pid file for as long as it lives.

    While one server program follows another both are there: they share the lock, and each has directories of its own
    below RUN/ipc. The names are those of one of them.
    """

    def __init__(self, path: str, lock: int = -1) -> None:
        """Make it if needed and lock it. `lock`: it is there, and this is its lock; `take` follows. Raises RunError."""
        self._unremoved: list[str] = []
        self._strangers = False  # some are there still
        self.path = path
        self._lock = lock
        self._named = lock < 0  # the pid file and the control socket are ours
        self._made: set[str] = set()
        if lock >= 0:
            if not _same_file(lock, os.path.join(path, PID_FILE)):
                raise RunError(f"run = {path}: the server that is to be followed runs somewhere else")
            return
        if len(os.fsencode(path + LONGEST_NAME)) > SOCKET_PATH_LIMIT:
            most = SOCKET_PATH_LIMIT - len(LONGEST_NAME)
            raise RunError(f"run = {path}: the path is too long for sockets below it; at most {most} bytes")
        try:
            _make(path)
            self._lock = self._take_pid_file()
            try:
                _make(self.ipc)
                os.chmod(self.ipc, 0o711)  # whatever it was: which groups there are is not for everybody to read
                for name in os.listdir(self.ipc):
                    self._bury(name)  # of a server that was killed
            except BaseException:
                os.close(self._lock)
                raise
        except OSError as error:
            raise RunError(f"run = {path}: {error.filename or ''}: {error.strerror}") from None

    @property
    def ipc(self) -> str:
        return os.path.join(self.path, "ipc")

    @property
    def control(self) -> str:
        return os.path.join(self.path, CONTROL)

    @property
    def lock(self) -> int:
        return self._lock

    @property
    def mark(self) -> str:
        """Known to no other server program; while one follows another both use this directory."""
        return self.path if self._named else f"{self.path} {os.getpid()}"

    @property
    def pid_file(self) -> str:
        return os.path.join(self.path, PID_FILE)

    def take(self) -> None:
        """The names are ours now (again): the pid file says so."""
        self._named = True
        _write_pid(self._lock)

    def give_up(self) -> None:
        """The names are somebody else's now."""
        self._named = False

    def remove_strangers(self) -> None:
        """Remove the socket directories of a server program that has ended beside this one."""
        try:
            names = set(os.listdir(self.ipc)) - self._made
        except OSError:
            self._strangers = True  # no descriptor, for instance
            return
        self._strangers = False
        for name in names:
            self.remove_generation(os.path.join(self.ipc, name))

    def make_generation(self, number: int, generation: int, frontend: Identity, group: Identity) -> str:
        """Make the socket directory of a group's generation and return its path. Raises OSError."""
        path = os.path.join(self.ipc, f"{number}.{generation}")
        os.mkdir(path, 0o700)
        try:
            if frontend.is_change:
                os.chown(path, frontend.uid, group.gid, follow_symlinks=False)
            os.chmod(path, 0o2710)  # after chown, which may clear the setgid bit
        except BaseException:
            os.rmdir(path)
            raise
        self._made.add(os.path.basename(path))
        return path

    def remove_generation(self, path: str) -> None:
        """What cannot be removed now, for want of a descriptor for instance, is with the next one."""
        if self._strangers:
            self.remove_strangers()
        self._unremoved.append(path)
        for one in list(self._unremoved):
            try:
                _remove_directory(one)
            except FileNotFoundError:
                pass
            except OSError:
                continue
            self._unremoved.remove(one)
            self._made.discard(os.path.basename(one))

    def remove_socket(self, path: str, incarnation: int) -> None:
        """Of a front end that has ended without removing it. If that fails it goes with its directory."""
        try:
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.unlink(f"f{incarnation}", dir_fd=directory)
        except OSError:
            pass  # not there: it had not come so far, or has gone in order
        finally:
            os.close(directory)

    def close(self) -> None:
        """Remove what is ours and give the lock back."""
        if self._lock < 0:
            return
        for name in list(self._made):
            self.remove_generation(os.path.join(self.ipc, name))
        if self._named:
            self.remove_strangers()
            for name in (CONTROL, PID_FILE):
                try:
                    os.unlink(os.path.join(self.path, name))
                except OSError:
                    pass
            try:
                os.rmdir(self.ipc)
            except OSError:
                pass
        os.close(self._lock)
        self._lock = -1

    def _bury(self, name: str) -> None:
        """Remove a directory of sockets. One that a front end has put directories into is not searched but moved."""
        path = os.path.join(self.ipc, name)
        try:
            _remove_directory(path)
        except NotADirectoryError:
            os.unlink(path)
        except OSError:
            for number in itertools.count(1):
                aside = os.path.join(self.path, f"left-behind.{number}")
                if not os.path.lexists(aside):
                    os.rename(path, aside)
                    return

    def _take_pid_file(self) -> int:
        path = os.path.join(self.path, PID_FILE)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        while True:
            lock = os.open(path, flags, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The one before may have removed the name between our open and our lock.
                if _same_file(lock, path):
                    _write_pid(lock)
                    return lock
            except BlockingIOError:
                pid = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
                os.close(lock)
                raise RunError(f"run = {self.path}: a server is running there already, as process {pid}") from None
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)


def _write_pid(lock: int) -> None:
    # Never empty: who reads it meanwhile finds a number.
    text = b"%d\n" % os.getpid()
    os.pwrite(lock, text, 0)
    os.ftruncate(lock, len(text))


def _same_file(number: int, path: str) -> bool:
    here = os.fstat(number)
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _make(path: str) -> None:
    """A directory that is ours alone to write."""
    try:
        os.mkdir(path, 0o711)
        os.chmod(path, 0o711)
    except FileExistsError:
        pass
    found = os.stat(path, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        raise RunError(f"run: {path} is not a directory")
    if found.st_uid != os.geteuid():
        raise RunError(f"run: {path} belongs to another user (uid {found.st_uid})")
    if found.st_mode & 0o022:
        raise RunError(f"run: others may write to {path} (mode {stat.S_IMODE(found.st_mode):04o})")
    if not found.st_mode & 0o001:
        os.chmod(path, stat.S_IMODE(found.st_mode) | 0o011)


def _remove_directory(path: str) -> None:
    """Remove a directory of sockets. Never follows a link, never goes deeper."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in os.listdir(directory):
            try:
                os.unlink(name, dir_fd=directory)
            except IsADirectoryError:
                os.rmdir(name, dir_fd=directory)
    finally:
        os.close(directory)
    os.rmdir(path)
