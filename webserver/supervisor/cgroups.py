"""Control groups of version 2, for who asks for memory_max, cpu_weight or pids_max: one for each generation of a group,
and for each start of an instance of a companion.

Made and removed here. They lie below one directory of this server's, which is below the cgroup that the server was
started in: no other place is ours to change. Where the kernel, or who owns that cgroup, does not let us, it is started
without, and one warning says why.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from webserver.config.model import Companion, Confined
from webserver.config.units import UNLIMITED
from webserver.supervisor.journal import Journal
from webserver.supervisor.loop import Loop

_TOP = "webserver-"
OWN_WEIGHT = 100  # cpu.weight of who says nothing
BUSY_AGAIN = 1.0  # seconds between two tries to remove one in which something still runs
_DELEGATED = ("trusted.delegate", "user.delegate")  # systemd's mark on a cgroup that it has given away


class NoCgroup(Exception):
    """There can be none; the text says why."""


@dataclass(frozen=True)
class Setting:
    option: str
    controller: str
    file: str
    value: str


def settings(group: Confined) -> list[Setting]:
    """What a group or companion asks for, beyond what everybody has."""
    found = []
    if group.memory_max != UNLIMITED:
        found.append(Setting("memory_max", "memory", "memory.max", str(group.memory_max)))
    if group.cpu_weight != OWN_WEIGHT:
        found.append(Setting("cpu_weight", "cpu", "cpu.weight", str(group.cpu_weight)))
    if group.pids_max != UNLIMITED:
        found.append(Setting("pids_max", "pids", "pids.max", str(group.pids_max)))
    return found


@dataclass(frozen=True)
class Place:
    """Where cgroups are on this machine, and which this process is in."""

    mount: str  # of the hierarchy of version 2
    own: str  # directory

    @classmethod
    def find(cls, proc: str = "/proc") -> Place:
        """Raises NoCgroup."""
        own = _own_cgroup(proc)
        mount, root = _mount(proc)
        if not (own + "/").startswith(root.rstrip("/") + "/"):
            raise NoCgroup(f"the cgroup of this process, {own}, is outside of what is mounted at {mount}")
        place = os.path.join(mount, own[len(root.rstrip("/")) :].strip("/")).rstrip("/")
        # The server program before this one may have moved into a leaf of its own, and so this one was born there.
        above, leaf = os.path.split(place)
        if leaf == _LEAF and os.path.basename(above).startswith(_TOP):
            place = os.path.dirname(above)
        return cls(mount, place)


class Cgroups:
    """Owns this server's directory of cgroups and all in it."""

    def __init__(self, loop: Loop, journal: Journal, run: str, place: Place | None = None) -> None:
        """`run`: the run directory, which no other server has: its number is our directory's name."""
        self._loop = loop
        self._journal = journal
        self._name = f"{_TOP}{zlib.crc32(os.fsencode(run)):08x}"
        self._place = place
        self._top = ""
        self._controllers: set[str] = set()  # that ours have
        self._base_changed: list[str] = []  # controllers that were not there below our own cgroup before
        self._moved = False  # this process lives in a leaf of ours
        self._said: set[str] = set()
        self._given: set[str] = set()  # directories
        self._leaving: set[str] = set()  # directories that something still runs in

    def make(self, group: Confined, number: int | str) -> str:
        """The directory of a new cgroup with all that is asked for, or "" where there can be none.

        `number`: of the generation, or of a companion's instance and start; with the name it is used once.
        """
        wanted = settings(group)
        if not wanted:
            return ""
        try:
            self._prepare({setting.controller for setting in wanted})
        except NoCgroup as why:
            self._warn(group, wanted, str(why))
            return ""
        lacking = [setting for setting in wanted if setting.controller not in self._controllers]
        if lacking:
            self._warn(group, lacking, self._why_lacking(lacking[0].controller))
        if len(lacking) == len(wanted):
            return ""
        mark = "companion:" if isinstance(group, Companion) else ""  # which stands in no name of a group
        path = os.path.join(self._top, f"{mark}{group.name}.{number}")
        try:
            os.mkdir(path)
        except OSError as error:
            self._warn(group, wanted, f"{path}: {error.strerror}")
            return ""
        for setting in wanted:
            if setting not in lacking:
                try:
                    _write(os.path.join(path, setting.file), setting.value)
                except OSError as error:
                    self._warn(group, [setting], f"{path}/{setting.file}: {error.strerror}")
        return path

    def remove(self, path: str, kill: bool = False) -> None:
        """After its last start's end. What has been left running there keeps it for as long; `kill`: or is killed."""
        if path and kill:
            _kill(path)
        if path and not _remove(path):
            self._leaving.add(path)
            if len(self._leaving) == 1:
                self._loop.after(BUSY_AGAIN, self._again)

    def give_away(self, path: str) -> None:
        """What is in there is another program's now, which moves it away."""
        self._given.add(path)

    def adopt(self, group: Confined, number: str, path: str) -> str:
        """Move what another program has put into `path` into one of our own. Returns where it is now."""
        own = self.make(group, number) if path else ""
        if not own:
            return path
        try:
            for _ in range(_TURNS):  # what forks meanwhile is in the next
                pids = _words(os.path.join(path, "cgroup.procs"))
                for pid in pids:
                    _write(os.path.join(own, "cgroup.procs"), pid)
                if not pids:
                    break
        except OSError as error:
            # Where it was its limits hold as well.
            self._journal.warning(f"companion {group.name}: it stays in {path}: {error.strerror}")
            if _remove(own):
                return path
        if _remove(path):
            _remove(os.path.dirname(path))  # if it is the last in there
        return own

    def close(self) -> None:
        """The end of the server: nothing of it outlives us."""
        if not self._top:
            return
        for name in _directories(self._top):
            path = os.path.join(self._top, name)
            if name != _LEAF:
                if path not in self._given:
                    _kill(path)
                _remove(path)
        try:
            if self._moved:
                # The order matters: a cgroup that hands controllers down may hold no process.
                for controller in self._base_changed:
                    _write(os.path.join(self._top, "cgroup.subtree_control"), f"-{controller}")
                for controller in self._base_changed:
                    _write(os.path.join(os.path.dirname(self._top), "cgroup.subtree_control"), f"-{controller}")
                _write(os.path.join(os.path.dirname(self._top), "cgroup.procs"), "0")
                _remove(os.path.join(self._top, _LEAF))
        except OSError:
            pass  # who manages the cgroup that we were started in removes what is in it
        _remove(self._top)
        self._top = ""

    def _prepare(self, controllers: set[str]) -> None:
        """Have our directory, with these controllers where the kernel has them. Raises NoCgroup."""
        if self._place is None:
            self._place = Place.find()
        base = self._place.own
        if not self._top:
            _check_delegated(self._place)
            top = os.path.join(base, self._name)
            try:
                os.makedirs(top, exist_ok=True)
                for name in _directories(top):  # of a server that was killed
                    _kill(os.path.join(top, name))
                    _remove(os.path.join(top, name))
            except OSError as error:
                raise NoCgroup(f"{top}: {error.strerror}") from None
            self._top = top
        for controller in sorted(controllers - self._controllers):
            if controller in _words(os.path.join(base, "cgroup.controllers")):
                self._hand_down(base, controller)

    def _hand_down(self, base: str, controller: str) -> None:
        try:
            if controller not in _words(os.path.join(base, "cgroup.subtree_control")):
                self._move_out_of(base)
                _write(os.path.join(base, "cgroup.subtree_control"), f"+{controller}")
                self._base_changed.append(controller)
            _write(os.path.join(self._top, "cgroup.subtree_control"), f"+{controller}")
        except OSError as error:
            hint = "; other processes are in it" if error.errno == errno.EBUSY else ""
            raise NoCgroup(f"{base}/cgroup.subtree_control: {error.strerror}{hint}") from None
        self._controllers.add(controller)

    def _move_out_of(self, base: str) -> None:
        """A cgroup that hands controllers down may hold no process, unless it is the machine's own root."""
        if self._moved or not os.path.exists(os.path.join(base, "cgroup.type")):
            return
        leaf = os.path.join(self._top, _LEAF)
        os.makedirs(leaf, exist_ok=True)
        # Children that are there already, such as the logger and front ends, go with us.
        for pid in _words(os.path.join(base, "cgroup.procs")):
            if pid == str(os.getpid()) or _parent(pid) == os.getpid():
                _write(os.path.join(leaf, "cgroup.procs"), pid)
        self._moved = True

    def _why_lacking(self, controller: str) -> str:
        assert self._place is not None
        if controller in _v1_controllers():
            return f"the kernel's {controller} controller is in use by cgroup version 1 on this machine"
        if controller in _words(os.path.join(self._place.mount, "cgroup.controllers")):
            return f"the {controller} controller is not handed down to {self._place.own}"
        return f"this kernel has no {controller} controller"

    def _warn(self, group: Confined, lacking: Iterable[Setting], why: str) -> None:
        names = ", ".join(setting.option for setting in lacking)
        what = "companion" if isinstance(group, Companion) else "group"
        text = f"{what} {group.name}: {names} not in force: {why}"
        if text not in self._said:
            self._said.add(text)
            self._journal.warning(text)

    def _again(self) -> None:
        for path in list(self._leaving):
            if _remove(path):
                self._leaving.discard(path)
        if self._leaving:
            self._loop.after(BUSY_AGAIN, self._again)


_LEAF = "server"
_TURNS = 100


def _own_cgroup(proc: str) -> str:
    try:
        with open(f"{proc}/self/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                if line.startswith("0::"):
                    return line[3:].rstrip("\n")
    except OSError:
        pass
    raise NoCgroup("this kernel has no cgroups of version 2")


def _mount(proc: str) -> tuple[str, str]:
    """(where it is mounted, which part of the hierarchy that is)."""
    try:
        with open(f"{proc}/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                before, _, after = line.partition(" - ")
                if after.split(" ")[0] == "cgroup2":
                    words = before.split(" ")
                    return words[4].replace("\\040", " "), words[3]
    except OSError:
        pass
    raise NoCgroup("no cgroup file system of version 2 is mounted")


def _v1_controllers() -> set[str]:
    try:
        with open("/proc/cgroups", encoding="ascii") as lines:
            rows = [line.split() for line in lines if not line.startswith("#")]
    except OSError:
        return set()
    return {row[0] for row in rows if len(row) > 1 and row[1] != "0"}


def _check_delegated(place: Place) -> None:
    """What systemd manages, and has not given away, it may take apart at any time."""
    name = os.path.basename(place.own)
    if not name.endswith((".service", ".scope")):
        return
    for attribute in _DELEGATED:
        try:
            if os.getxattr(place.own, attribute) == b"1":
                return
        except OSError:
            continue
    raise NoCgroup(f"{place.own} is systemd's; Delegate=yes in the unit gives it to the server")


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as stream:
            return stream.read().split()
    except OSError:
        return []


def _write(path: str, text: str) -> None:
    # One write(2) of all: each is a command, and its error is the answer.
    number = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(number, text.encode("ascii"))
    finally:
        os.close(number)


def _directories(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _kill(path: str) -> None:
    try:
        _write(os.path.join(path, "cgroup.kill"), "1")
    except OSError:
        pass  # a kernel before 5.14; the supervisor kills what was left to it


def _remove(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:
            return int(stream.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
