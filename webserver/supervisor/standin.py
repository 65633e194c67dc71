"""What is left of the process that was started in the foreground, once another program serves in its place.

Whoever started it waits for it and sends it signals: it hands those on, and ends as the server does. It looks after
what is left to it besides, as it may be the first process of a container.
"""

from __future__ import annotations

import os
import signal

from webserver.wire.title import set_title

FORWARDED = frozenset(
    {signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
)
UNKNOWN = 1 << 8  # a wait status: of a program whose end nobody saw
TO_BOTH = frozenset({signal.SIGTERM, signal.SIGQUIT, signal.SIGINT})


def block() -> None:
    """From here on signals wait: for `stand_in`, or for ever."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED | {signal.SIGCHLD})


def stand_in(pid: int, pid_file: str) -> int:
    """Returns the exit status of the last server program when none is left. `pid`: the one that serves."""
    block()
    set_title("webserver: stand-in")
    last = UNKNOWN
    while True:
        last = next((status for ended, status in _reap() if ended == pid), last)
        children = _children()
        if pid not in children:
            # Its own follower is left to us when it ends.
            following = _named(pid_file)
            if following not in children:
                _end_children()
                code = os.waitstatus_to_exitcode(last)
                return code if code >= 0 else 128 - code
            pid, last = following, UNKNOWN
            continue
        number = signal.sigwait(FORWARDED | {signal.SIGCHLD})
        if number != signal.SIGCHLD:
            forward(number, pid, _named(pid_file))


def forward(number: int, pid: int, newest: int) -> None:
    """To the program that the pid file names; to end, also to the one before it that may still be finishing."""
    for target in {newest or pid} | ({pid} if number in TO_BOTH else set()):
        try:
            os.kill(target, number)
        except OSError:
            pass


def _reap() -> list[tuple[int, int]]:
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, status))


def _named(pid_file: str) -> int:
    """The pid in the pid file, which nobody but this server writes; 0 if there is none."""
    try:
        with open(pid_file, "rb") as file:
            text = file.read(32).strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def _children() -> set[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return {int(word) for word in file.read().split()}
    except (OSError, ValueError):
        return set()


def _end_children() -> None:
    """Nothing that was left to us outlives us."""
    while children := _children():
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
