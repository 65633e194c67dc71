"""What the checker asks of the machine it runs on.

Only questions that open nothing: root reads no directory and opens no file that belongs to a group (stat(2) and
getxattr(2) alone). Tests answer in its place, so the rules for root can be tried by anyone.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import resource
import stat
from dataclasses import dataclass

_NET_BIND_SERVICE, _SYS_RESOURCE = 10, 24  # capabilities(7)
READ, WRITE, SEARCH = 4, 2, 1  # bits of a mode

_VERBS = {
    READ: "read",
    WRITE: "write",
    SEARCH: "search",
    READ | SEARCH: "read and search",
    WRITE | SEARCH: "write in",
}


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

    def stat(self, path: str) -> os.stat_result:
        return os.stat(path)

    def has_acl(self, path: str) -> bool:
        """More people than the mode says may have access."""
        try:
            return bool(os.getxattr(path, "system.posix_acl_access"))
        except OSError:
            return False

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

    def _capable(self, capability: int) -> bool:
        try:
            with open("/proc/self/status", encoding="ascii", errors="replace") as file:
                for line in file:
                    if line.startswith("CapEff:"):
                        return bool(int(line.split()[1], 16) >> capability & 1)
        except (OSError, ValueError):
            pass
        return self.root

    def ipv6(self) -> bool:
        return os.path.exists("/proc/net/if_inet6")

    def missing(self, path: str, kind: str) -> str:
        """Why there is no file ("file") or directory ("directory") of this name, or ""."""
        try:
            found = self.stat(path)
        except OSError as error:
            return self._why(path, error)
        wanted = stat.S_ISDIR if kind == "directory" else stat.S_ISREG
        return "" if wanted(found.st_mode) else f"{path} is not a {kind}"

    def _why(self, path: str, error: OSError) -> str:
        if error.errno != errno.ENOENT:
            return f"{path}: {os.strerror(error.errno or 0)}"
        parent = os.path.dirname(path)
        try:
            self.stat(parent)
        except OSError as above:
            if above.errno == errno.ENOENT and parent != path:
                return self._why(parent, above)
        return f"{path} does not exist"

    def denied(self, path: str, user: User | None, bits: int) -> str:
        """
        Why `user` could not use an existing path (any of READ, WRITE, SEARCH), or "". None is this process itself, if
        it is not root. For another user by mode bits, as root may not try it out; an access control list counts as
        leave, since it may give what the mode does not show.
        """
        if user is None:
            return "" if self.root or self.access(path, bits) else f"{self.own_name()} may not {_VERBS[bits]} {path}"
        names = [path]
        while names[-1] != "/" and os.path.dirname(names[-1]) != names[-1]:
            names.append(os.path.dirname(names[-1]))
        for name in reversed(names):
            wanted = bits if name == path else SEARCH
            try:
                found = self.stat(name)
            except OSError as error:
                return self._why(name, error)
            shift = 6 if found.st_uid == user.uid else 3 if found.st_gid in user.gids else 0
            if (found.st_mode >> shift) & wanted != wanted and not self.has_acl(name):
                verb = "execute" if wanted == SEARCH and stat.S_ISREG(found.st_mode) else _VERBS[wanted]
                return f"user {user.name} may not {verb} {name} (mode {stat.S_IMODE(found.st_mode):03o})"
        return ""

    def access(self, path: str, bits: int) -> bool:
        return os.access(path, bits, effective_ids=True)
