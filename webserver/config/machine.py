"""What the checker asks of the machine it runs on.

About paths root asks a child that has become the user in question (witness.py). Tests answer in its place, so the rules
for root can be tried by anyone.
"""

from __future__ import annotations

import grp
import os
import pwd
import resource
from dataclasses import dataclass
from functools import cached_property

from webserver.config.witness import QUESTIONS, Witness

_NET_BIND_SERVICE, _SYS_NICE, _SYS_RESOURCE = 10, 23, 24  # capabilities(7)


@dataclass(frozen=True)
class User:
    name: str
    uid: int
    gid: int
    gids: frozenset[int]  # gid and the supplementary ones


class Machine:
    @property
    def uid(self) -> int:
        return os.geteuid()

    @property
    def root(self) -> bool:
        return self.uid == 0

    def cores(self) -> int:
        return len(os.sched_getaffinity(0))

    def user(self, name: str) -> User | None:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return None
        return User(name, entry.pw_uid, entry.pw_gid, frozenset(os.getgrouplist(name, entry.pw_gid)))

    def own_name(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    def user_names(self) -> list[str]:
        return [entry.pw_name for entry in pwd.getpwall() if entry.pw_uid]

    def own_group(self) -> str:
        return self.group_name(os.getegid()) or str(os.getegid())

    def gid(self, group: str) -> int | None:
        try:
            return grp.getgrnam(group).gr_gid
        except KeyError:
            return None

    def group_name(self, gid: int) -> str:
        try:
            return grp.getgrgid(gid).gr_name
        except KeyError:
            return ""

    def lowest_port(self) -> int:
        """The lowest port that this process may bind."""
        if self._capable(_NET_BIND_SERVICE):
            return 1
        try:
            with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError):
            return 1024

    def open_files(self) -> int:
        """The highest RLIMIT_NOFILE that this process can have."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if self._capable(_SYS_RESOURCE):
            try:
                with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
                    return max(limit, int(file.read()))
            except (OSError, ValueError):
                pass
        return limit if limit != resource.RLIM_INFINITY else 1 << 20

    def hard_limit(self, name: str) -> int:
        """The highest value that a limit of getrlimit(2), such as "nofile", can have here; -1: any."""
        limit = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
        if name == "nofile":
            return self.open_files()
        return -1 if limit == resource.RLIM_INFINITY or self._capable(_SYS_RESOURCE) else limit

    def lowest_nice(self) -> int:
        """The lowest nice value that this process can give to others."""
        return -20 if self._capable(_SYS_NICE) else os.getpriority(os.PRIO_PROCESS, 0)

    def _capable(self, capability: int) -> bool:
        held = _status("CapEff", 16)
        return self.root if held is None else bool(held >> capability & 1)

    def no_new_privs(self) -> bool:
        """Whether this process, and all that it starts, can gain no privileges by exec."""
        return _status("NoNewPrivs", 10) == 1

    def ipv6(self) -> bool:
        return os.path.exists("/proc/net/if_inet6")

    def missing(self, path: str, kind: str, user: User | None = None, jail: str = "") -> str:
        """
        Why there is no file ("file"), directory ("directory") or device ("device") of this name, or "". As root, it is
        `user` who looks, inside `jail` if that is given; without a user nobody does.
        """
        return self.ask("missing", user, jail, path, kind)

    def denied(self, path: str, user: User | None, bits: int, jail: str = "") -> str:
        """
        Why `user` could not use an existing path (any of READ, WRITE, SEARCH), or "". None is this process itself, if
        it is not root.
        """
        return self.ask("denied", user, jail, path, bits)

    def unnamed(self, directory: str, user: User | None) -> str:
        """Why `user` (None: this process, if it is not root) cannot make files without a name in a directory, or ""."""
        return self.ask("unnamed", user, "", directory)

    def ask(self, question: str, user: User | None, jail: str, *words: object) -> str:
        if not self.root:
            return QUESTIONS[question](self.own_name(), *words)
        if user is None:
            return ""
        key = (user, jail)
        witness = self._witnesses.get(key)
        if witness is None:
            try:
                witness = Witness(user.name, user.uid, user.gid, sorted(user.gids), jail)
            except OSError as error:
                return f"{words[0]}: nobody could look at it as user {user.name}: {error.strerror}"
            self._witnesses[key] = witness
        return witness.ask(question, *words)

    def close(self) -> None:
        """End those who looked for us."""
        while self._witnesses:
            self._witnesses.popitem()[1].close()

    @cached_property
    def _witnesses(self) -> dict[tuple[User, str], Witness]:
        return {}


def _status(name: str, base: int) -> int | None:
    """A number of /proc/self/status; None if it is not there."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(f"{name}:"):
                    return int(line.split()[1], base)
    except (OSError, ValueError):
        pass
    return None
