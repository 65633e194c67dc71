"""Files, directories and sockets: the server's own, those of other groups, logs and configuration."""

import errno
import os
import socket
import stat
from functools import partial
from typing import Any, Dict, Iterator, List, Tuple

from webserver.audit.tries import NOTE, OK, REACHABLE, Row, Try, row

_FILES = 20000  # looked at in one tree


def places(record: Dict[str, Any]) -> Iterator[Row]:
    for entry in record["sockets"]:
        names = [] if entry["own"] else entry["names"]
        yield row("sockets", "socket directory of " + entry["what"], _socket_directory(entry["directory"], names))
    yield row("control", "control socket", [("connect", lambda: _connect(record["control"]))])
    # That it can be listed, where somebody else has made it, tells nothing; what is in it is not to be changed.
    yield row("control", "run directory", [
        ("create", lambda: _create(record["run"])), ("write the pid file", lambda: _write(record["pid_file"])),
    ])  # fmt: skip
    yield row("sockets", "place of all socket directories", [
        ("list", lambda: os.listdir(record["ipc"])), ("create", lambda: _create(record["ipc"])),
    ])  # fmt: skip
    for path in record["listeners"]:
        directory = os.path.dirname(path)
        yield row("control", "directory of the socket " + path, [("create", partial(_create, directory))])
    for path in record["logs"]:
        yield row("logs", path, [
            ("read", partial(_read, path)), ("write", partial(_write, path)),
            ("create beside it", partial(_create, os.path.dirname(path))),
        ])  # fmt: skip
    # Nobody else may take lines out of the pipe before the logger does, not even who writes them.
    yield row("logs", "own log pipe", [("read", lambda: _read("/proc/self/fd/2"))])
    for entry in record["files"]:
        yield from _file("configuration", entry["what"], entry["path"], entry["secret"])
    for entry in record["trees"]:
        yield _tree(entry["what"], entry["path"])
    for entry in record["others"]:
        yield from _file("other groups", entry["what"], entry["path"], False)
    yield row("machine", "the kernel's and devices", [
        ("/proc/kcore", lambda: _read("/proc/kcore")), ("/dev/mem", lambda: _read("/dev/mem")),
        ("/proc/sysrq-trigger", lambda: _write("/proc/sysrq-trigger")),
        ("/proc/sys/kernel/core_pattern", lambda: _write("/proc/sys/kernel/core_pattern")),
    ])  # fmt: skip


def _socket_directory(path: str, names: List[str]) -> List[Tuple[str, Try]]:
    """Connecting itself is not tried: a front end may take it amiss, if the group has the same user."""
    tries: List[Tuple[str, Try]] = [("list", partial(os.listdir, path)), ("create", partial(_create, path))]
    return tries + [("connect to " + name, partial(_may, os.path.join(path, name), os.W_OK)) for name in names]


def _file(area: str, what: str, path: str, secret: bool) -> Iterator[Row]:
    """Something that must not be written and, if it is secret, not be read. What everybody may read is a note."""
    name = "%s: %s" % (what, path)
    try:
        found = os.stat(path)
    except OSError as error:
        yield Row(area, name, "find", "refused: " + (error.strerror or ""), OK)
        return
    tries: List[Tuple[str, Try]] = [("replace", lambda: _replace(path))]
    if stat.S_ISDIR(found.st_mode):
        tries.append(("create in it", lambda: _create(path)))
    else:
        tries.append(("write", lambda: _write(path)))
    if secret:
        tries.append(("read", lambda: _read(path)))
    written = row(area, name, tries)
    if written.verdict == OK and not secret:
        tried = written.tried + ", read"
        try:
            _look(path, stat.S_ISDIR(found.st_mode))
        except OSError:
            written = Row(area, name, tried, written.result, OK)
        else:
            everybody = found.st_mode & 0o004
            result = "%s may read it (mode %03o)" % ("everybody" if everybody else "this group", found.st_mode & 0o7777)
            written = Row(area, name, tried, "not written; " + result, NOTE if everybody else REACHABLE)
    yield written


def _tree(what: str, top: str) -> Row:
    """A directory with all in it: is there anything that could be written?"""
    count = 0
    found: List[str] = []
    for directory, _, files in os.walk(top):
        for path in [directory, *(os.path.join(directory, name) for name in files)]:
            count += 1
            if not os.path.islink(path) and os.access(path, os.W_OK):
                found.append(path)
        if count > _FILES:
            break
    tried = "write each of %d files and directories" % count
    if found:
        return Row("server", "%s: %s" % (what, top), tried, "possible: %s" % ", ".join(found[:5]), REACHABLE)
    return Row("server", "%s: %s" % (what, top), tried, "refused", OK)


def _read(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY))


def _write(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY))


def _create(directory: str) -> None:
    """A file without a name: nothing of it is left."""
    try:
        os.close(os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        _may(directory, os.W_OK | os.X_OK)


def _look(path: str, directory: bool) -> None:
    if directory:
        os.listdir(path)
    else:
        _read(path)


def _replace(path: str) -> None:
    """Put another file in its place, or take it away."""
    directory = os.path.dirname(path)
    _may(directory, os.W_OK | os.X_OK)
    found = os.stat(directory)
    if found.st_mode & stat.S_ISVTX and os.geteuid() not in (found.st_uid, os.lstat(path).st_uid):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _may(path: str, mode: int) -> None:
    if not os.access(path, mode):
        os.stat(path)  # it may not even be there
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(path)
