"""What the checker asks of the machine it runs on.

Only questions that open nothing: root reads no directory and opens no file that belongs to a group (stat(2) and
getxattr(2) alone; the one file that has to be opened is opened by a child that has given up root's rights). Tests
answer in its place, so the rules for root can be tried by anyone.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import resource
import signal
import stat
from dataclasses import dataclass
from typing import NoReturn

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
        held = _status("CapEff", 16)
        return self.root if held is None else bool(held >> capability & 1)

    def no_new_privs(self) -> bool:
        """Whether this process, and all that it starts, can gain no privileges by exec."""
        return _status("NoNewPrivs", 10) == 1

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

    def unnamed(self, directory: str, user: User | None) -> str:
        """Why `user` (None: this process) cannot make files without a name in a directory, or ""."""
        # Blocked, as a signal that the child gets would be told to us: it has our handlers and our wake-up pipe.
        before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                _try_unnamed(directory, user)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return ""  # started with SIGCHLD ignored; the front end will log it
        return f"{directory} takes no files without a name (O_TMPFILE): {os.strerror(abs(code))}" if code else ""


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


def _try_unnamed(directory: str, user: User | None) -> NoReturn:
    """In a child: exit with 0 or an errno, whatever happens."""
    code = errno.EPERM
    try:
        if user is not None:
            os.setgroups(sorted(user.gids))
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC | os.O_EXCL, 0o600)
        code = 0
    except OSError as error:
        code = error.errno or code
    finally:
        os._exit(code)
