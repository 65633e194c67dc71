"""What this process can see and do with paths, asked of the kernel and told in words.

The answers are this process's own. For a group's paths a child that has become the group's user is asked (witness.py).
"""

from __future__ import annotations

import errno
import os
import stat

READ, WRITE, SEARCH = 4, 2, 1  # bits of a mode

_VERBS = {
    READ: "read",
    WRITE: "write",
    SEARCH: "search",
    READ | SEARCH: "read and search",
    WRITE | SEARCH: "write in",
}


def missing(who: str, path: str, kind: str) -> str:
    """Why there is no file ("file"), directory ("directory") or device ("device") of this name, or ""."""
    try:
        found = os.stat(path)
    except OSError as error:
        return _why(who, path, error)
    right = {
        "file": stat.S_ISREG(found.st_mode),
        "directory": stat.S_ISDIR(found.st_mode),
        "device": stat.S_ISCHR(found.st_mode) or stat.S_ISFIFO(found.st_mode),
    }
    return "" if right[kind] else f"{path} is not a {kind}"


def denied(who: str, path: str, bits: int) -> str:
    """Why `who`, this process, could not use an existing path (any of READ, WRITE, SEARCH), or ""."""
    names = [path]
    while names[-1] != "/" and os.path.dirname(names[-1]) != names[-1]:
        names.append(os.path.dirname(names[-1]))
    for name in reversed(names):
        wanted = bits if name == path else SEARCH
        # access(2) knows of control lists, capabilities and read-only file systems, as mode bits do not.
        if os.access(name, wanted, effective_ids=True):
            continue
        try:
            found = os.stat(name)
        except OSError as error:
            return f"{name}: {os.strerror(error.errno or 0)}"
        verb = "execute" if wanted == SEARCH and stat.S_ISREG(found.st_mode) else _VERBS[wanted]
        return f"user {who} may not {verb} {name} (mode {stat.S_IMODE(found.st_mode):03o})"
    return ""


def unnamed(directory: str) -> str:
    """Why this process cannot make files without a name in a directory, or ""."""
    try:
        os.close(os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC | os.O_EXCL, 0o600))
    except OSError as error:
        return f"{directory} takes no files without a name (O_TMPFILE): {os.strerror(error.errno or 0)}"
    return ""


def _why(who: str, path: str, error: OSError) -> str:
    parent = os.path.dirname(path)
    if error.errno == errno.EACCES and parent != path:
        return denied(who, parent, SEARCH) or f"{path}: {os.strerror(errno.EACCES)}"
    if error.errno != errno.ENOENT:
        return f"{path}: {os.strerror(error.errno or 0)}"
    try:
        os.stat(parent)
    except OSError as above:
        if above.errno == errno.ENOENT and parent != path:
            return _why(who, parent, above)
    return f"{path} does not exist"
