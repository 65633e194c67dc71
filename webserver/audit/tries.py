"""Trying things that should not work, so that nothing is changed if they do.

A try is a function that raises OSError if it was refused. What could leave a mark on this process is done in a fork of
it. Several tries of one thing become one row: a reader wants to know what is open, not how often nothing was.
"""

import errno
import os
from typing import Callable, Iterable, List, NamedTuple, Tuple

OK, NOTE, REACHABLE = "ok", "note", "REACHABLE"

Try = Callable[[], object]


class Row(NamedTuple):
    area: str
    what: str
    tried: str
    result: str
    verdict: str


class Refused(OSError):
    """Not possible, for a reason that is no errno."""


def row(area: str, what: str, tries: Iterable[Tuple[str, Try]], allowed: str = "") -> Row:
    """`allowed`: why it may be possible, where it may."""
    names: List[str] = []
    open_: List[str] = []
    refusals: List[str] = []
    for name, function in tries:
        names.append(name)
        try:
            function()
        except OSError as error:
            text = os.strerror(error.errno) if error.errno else str(error)
            if text not in refusals:
                refusals.append(text)
        else:
            open_.append(name)
    tried = ", ".join(names)
    if not open_:
        return Row(area, what, tried, "refused: " + ", ".join(refusals), OK)
    if allowed:
        return Row(area, what, tried, "possible: %s; %s" % (", ".join(open_), allowed), NOTE)
    return Row(area, what, tried, "possible: " + ", ".join(open_), REACHABLE)


def compared(area: str, what: str, expected: object, found: object) -> Row:
    """Something that must be as the configuration says."""
    if expected == found:
        return Row(area, what, "read", str(found), OK)
    return Row(area, what, "read", "found %s, expected %s" % (found, expected), REACHABLE)


def apart(function: Try) -> Try:
    """The same in a child, whose end takes every trace of it away."""

    def run() -> None:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 255
            try:
                os.close(reader)
                function()
                code = 0
            except OSError as error:
                code = error.errno or errno.EPERM
            finally:
                os.write(writer, b"%d" % code)
                os._exit(0)
        os.close(writer)
        answer = b""
        while True:
            piece = os.read(reader, 16)
            if not piece:
                break
            answer += piece
        os.close(reader)
        os.waitpid(pid, 0)
        # A child that was killed for trying has not got through.
        code = int(answer) if answer else errno.EPERM
        if code:
            raise OSError(code, os.strerror(code) if code < 255 else "it failed")

    return run
