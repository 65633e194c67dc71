"""Looks at paths with the eyes of the user who will use them.

As root, no path is opened, looked up or searched in a directory that a group can write: a link there could lead
anywhere, and a file system of the group's own (FUSE) could keep root waiting for ever. So a child becomes that user, in
his jail if he has one, and is asked. It gets no descriptor but its own socket, it cannot be traced, and it has a limit
of time for each answer.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import socket
from collections.abc import Callable
from typing import Any, NoReturn

from webserver.config import sight

PATIENCE = 5.0  # seconds for one answer
_PACKET = 65536
_PR_SET_DUMPABLE = 4

QUESTIONS: dict[str, Callable[..., str]] = {
    "missing": sight.missing,
    "denied": sight.denied,
    "unnamed": lambda who, directory: sight.unnamed(directory),
}


class Witness:
    """The child. Owns it and the socket to it."""

    def __init__(self, who: str, uid: int, gid: int, gids: list[int], jail: str = "") -> None:
        """Raises OSError if there can be none."""
        self._who = who
        self._dead = ""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Blocked, as a signal that the child gets would be told to us: it has our handlers and our wake-up pipe.
        before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        try:
            self._pid = os.fork()
            if self._pid == 0:
                _serve(theirs, who, uid, gid, gids, jail)
        except BaseException:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._socket = ours

    def ask(self, question: str, *words: Any) -> str:
        """The answer to one of QUESTIONS, or why there is none."""
        if not self._dead:
            try:
                self._socket.send(json.dumps([question, *words]).encode())
                # Not select(2): our descriptors may have numbers above what it takes.
                poll = select.poll()
                poll.register(self._socket, select.POLLIN)
                if poll.poll(PATIENCE * 1000):
                    answer = self._socket.recv(_PACKET)
                    if answer:
                        return str(json.loads(answer))
                    self._dead = f"nobody could look at it as user {self._who}"
                else:
                    self._dead = f"no answer within {PATIENCE:g} s: its file system hangs"
            except (OSError, ValueError) as error:
                self._dead = f"nobody could look at it as user {self._who}: {error}"
        # What hung once is not asked about the next path, which may be below the same place.
        return f"{words[0]}: {self._dead}"

    def close(self) -> None:
        self._socket.close()
        try:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # started with SIGCHLD ignored


def _serve(sock: socket.socket, who: str, uid: int, gid: int, gids: list[int], jail: str) -> NoReturn:
    """In the child, to its end, whatever happens."""
    try:
        number = sock.fileno()
        os.closerange(0, number)
        os.closerange(number + 1, 0x7FFFFFFF)
        # It holds a copy of our memory. The kernel does this at the change of the user as well, unless
        # fs.suid_dumpable says otherwise.
        if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            os._exit(1)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if jail:
            os.chroot(jail)
            os.chdir("/")
        os.setgroups(gids)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        if os.getresuid() != (uid, uid, uid) or uid == 0:
            os._exit(1)
        while data := sock.recv(_PACKET):
            question, *words = json.loads(data)
            sock.send(json.dumps(QUESTIONS[question](who, *words)).encode())
    finally:
        os._exit(0)
