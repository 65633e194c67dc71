"""What preloading left behind: threads, which no worker will have, and descriptors, which all workers share.

A fork copies one thread and every descriptor. So a connection that preloaded code has opened is the same connection in
each worker, and what one asks there another may read the answer to. Nothing is closed here: a library that still
believes in its descriptor would next use whatever has got that number.
"""

import os
import socket
import stat
import sys
from typing import Dict, FrozenSet, List

_NAMED = 20  # of each; the rest is counted
_TEXT = 200  # characters of one
_ANONYMOUS = {
    "[eventpoll]": "epoll set",
    "[eventfd]": "eventfd",
    "inotify": "inotify watch",
    "[signalfd]": "signalfd",
    "[timerfd]": "timer",
    "[io_uring]": "io_uring",
    "[fanotify]": "fanotify watch",
    "[userfaultfd]": "userfaultfd",
}


def tasks() -> FrozenSet[int]:
    """The threads that are there now; those that a language has made for itself are its own business."""
    return frozenset(map(int, os.listdir("/proc/self/task")))


def threads(before: FrozenSet[int]) -> List[str]:
    """Names of the threads that were not there `before`: Python's own name for it, or the kernel's."""
    known: Dict[int, str] = {}
    threading = sys.modules.get("threading")
    if threading is not None:
        known = {thread.native_id: thread.name for thread in threading.enumerate()}
    names = []
    for task in tasks() - before:
        try:
            with open("/proc/self/task/%d/comm" % task) as comm:
                name = comm.read().strip()
        except OSError:
            continue
        names.append(known.get(task, name)[:_TEXT])
    return _cut(sorted(names))


def descriptors() -> FrozenSet[int]:
    """The numbers that are open now."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue  # the directory's own, by which this list was read
        found.append(int(name))
    return frozenset(found)


def shared(before: FrozenSet[int]) -> List[str]:
    """What has been opened since `before` and must not be used by two processes, each with its descriptor."""
    found = []
    for number in sorted(descriptors() - before):
        try:
            what = _describe(number)
        except OSError:
            continue
        if what:
            found.append("%s (descriptor %d)" % (what[:_TEXT], number))
    return _cut(found)


def _cut(names: List[str]) -> List[str]:
    more = len(names) - _NAMED
    return names if more <= 0 else [*names[:_NAMED], "%d more" % more]


def _describe(number: int) -> str:
    """In words; "" for what many processes may have open: files that are read or appended to, shared memory."""
    mode = os.fstat(number).st_mode
    target = os.readlink("/proc/self/fd/%d" % number)
    if stat.S_ISSOCK(mode):
        return _socket(number)
    if stat.S_ISFIFO(mode):
        return "pipe" if target.startswith("pipe:") else "pipe %s" % target
    if target.startswith("anon_inode:"):
        kind = target[len("anon_inode:") :]
        return _ANONYMOUS.get(kind, "")
    if stat.S_ISREG(mode) and not target.startswith(("/memfd:", "/dev/shm/")):
        flags = _flags(number)
        if flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_APPEND:
            return "file %s open for writing" % target
    return ""


def _flags(number: int) -> int:
    with open("/proc/self/fdinfo/%d" % number) as lines:
        for line in lines:
            if line.startswith("flags:"):
                return int(line.split()[1], 8)
    return 0


def _socket(number: int) -> str:
    # A duplicate, since this object closes what it has.
    with socket.socket(fileno=os.dup(number)) as one:
        if one.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            return "socket of address family %d" % one.family
        try:
            peer = _address(one.family, one.getpeername())
        except OSError:
            peer = None
        name = _address(one.family, one.getsockname())
        if peer:
            return "connection to %s" % peer
        if peer is not None:
            # Of a unix socket whose other end has no name: somebody connected to us, or socketpair(2) made both.
            return "connection at %s" % name if name else "one of a pair of sockets"
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return "listening socket %s" % name
        return "socket bound to %s" % name if name else "unconnected socket"


def _address(family: int, address: object) -> str:
    """As it would be written in a configuration; "" if it has none."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return "" if not port else "[%s]:%d" % (host, port) if family == socket.AF_INET6 else "%s:%d" % (host, port)
    if isinstance(address, bytes):
        return os.fsdecode(address.replace(b"\0", b"@"))
    return str(address)
