"""The control socket: webserverctl's requests, one JSON line each, and their answers.

An answer is one JSON line too. Before it, if the request has "progress": true, come lines {"progress": text}.

Who may ask is decided by SO_PEERCRED: root and the user that the server runs as; nobody else gets an answer but a
refusal. What is asked is done elsewhere (`Handler`); long operations answer when they are done.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from webserver.supervisor.journal import Journal
from webserver.supervisor.loop import Loop

CLIENTS = 16
LINE_LIMIT = 65536
IDLE = 30.0  # seconds for a request to arrive
BACKLOG = 16
STARVED_WAIT = 0.1  # seconds until there may be a descriptor for the next client

Answer = Callable[[dict[str, Any]], None]
Tell = Callable[[str], None]  # a line of progress, before the answer
Handler = Callable[[dict[str, Any], Answer, Tell], None]


class Commands:
    """Owns the listening socket and its clients."""

    def __init__(self, loop: Loop, journal: Journal, path: str, handler: Handler, named: bool = True) -> None:
        """Raises OSError. The caller holds the run directory's lock, so a name that is there is stale.

        Without `named` there is no socket yet: the name is that of the program before, until `take_name`.
        """
        self._loop = loop
        self._journal = journal
        self._handler = handler
        self._clients: set[Client] = set()
        self._path = path
        self._listener: socket.socket | None = None
        if named:
            self.take_name()

    def take_name(self) -> None:
        """Listen, and be who is found by the name. Raises OSError."""
        self.leave_name()
        temporary = f"{self._path}.{os.getpid()}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            try:
                os.unlink(temporary)
            except FileNotFoundError:
                pass
            before = os.umask(0o177)
            try:
                listener.bind(temporary)
            finally:
                os.umask(before)
            listener.listen(BACKLOG)
            os.rename(temporary, self._path)  # so that the name is never without a listener
        except BaseException:
            listener.close()
            raise
        self._listener = listener
        self._loop.watch(listener.fileno(), self._accept)

    def leave_name(self) -> None:
        """The name is somebody else's: who comes by it will not come here."""
        if self._listener is not None:
            self._loop.unwatch(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        self.leave_name()
        for client in list(self._clients):
            client.close()

    def flush(self) -> None:
        """Last chance for answers, before the process ends."""
        for client in list(self._clients):
            client.write_out()

    def _accept(self, readable: bool, writable: bool) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                # It stays readable: looked at again when there may be a descriptor for it.
                self._loop.unwatch(self._listener.fileno())
                self._loop.after(STARVED_WAIT, self._listen_again)
            return
        sock.setblocking(False)
        if len(self._clients) >= CLIENTS:
            sock.close()
            return
        self._clients.add(Client(self._loop, sock, self._request, self._clients.discard))

    def _listen_again(self) -> None:
        if self._listener is not None:
            self._loop.watch(self._listener.fileno(), self._accept)

    def _request(self, client: Client, line: bytes) -> None:
        uid = client.uid()
        if uid not in (0, os.geteuid()):
            self._journal.warning(f"uid {uid} asked for control and was refused")
            client.answer({"ok": False, "errors": ["only root and the server's own user may control it"]})
            return
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or not isinstance(message.get("op"), str):
            client.answer({"ok": False, "errors": ["not a request"]})
            return
        self._handler(message, client.answer, client.tell if message.get("progress") is True else _silent)


def _silent(text: str) -> None:
    """Nobody wants to know how far it is."""


class Client:
    """One connection: one request, its answer, and the end."""

    def __init__(
        self, loop: Loop, sock: socket.socket, request: Callable[[Client, bytes], None],
        gone: Callable[[Client], None],
    ) -> None:  # fmt: skip
        self._loop = loop
        self._sock = sock
        self._request = request
        self._gone = gone
        self._input = b""
        self._output = b""
        self._open = True
        self._asked = False
        self._answered = False
        self._idle = loop.after(IDLE, self.close)
        loop.watch(sock.fileno(), self._turn)

    def uid(self) -> int:
        credentials = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[1])

    def answer(self, message: dict[str, Any]) -> None:
        if self._open:
            self._answered = True
            self._output += json.dumps(message).encode("ascii") + b"\n"
            self.write_out()

    def tell(self, text: str) -> None:
        """A line of progress; one that its reader has no room for is left out."""
        if self._open and not self._answered and len(self._output) < LINE_LIMIT:
            self._output += json.dumps({"progress": text}).encode("ascii") + b"\n"
            self.write_out()

    def write_out(self) -> None:
        if not self._open:
            return
        try:
            while self._output:
                self._output = self._output[self._sock.send(self._output) :]
        except BlockingIOError:
            self._loop.watch(self._sock.fileno(), self._turn, write=True)
            return
        except OSError:
            pass
        self._loop.watch(self._sock.fileno(), self._turn)
        if self._asked and self._answered:
            self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._idle.cancel()
            self._loop.unwatch(self._sock.fileno())
            self._sock.close()
            self._gone(self)

    def _turn(self, readable: bool, writable: bool) -> None:
        if writable and self._output:
            self.write_out()
        if readable and self._open:
            self._read()

    def _read(self) -> None:
        try:
            data = self._sock.recv(LINE_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self._input) + len(data) > LINE_LIMIT:
            # The caller has gone. What it asked for goes on.
            self.close()
            return
        if self._asked:
            return
        self._input += data
        line, end, _ = self._input.partition(b"\n")
        if end:
            self._asked = True
            self._idle.cancel()
            self._request(self, line)
