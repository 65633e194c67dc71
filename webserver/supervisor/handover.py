"""What one server program hands to the next: listening sockets, the run directory's lock, and where its counters stand.

It travels over a control connection that the new program finds by an environment variable: packets of listeners, then
one "handover". The only thing that two versions of this program ever say to each other, hence the number in it.

    to the new program      listeners {add} + fds, handover {version, pid, run, serving, ids, generations, incarnation,
                            worker, addresses} + fds "lock" and "stderr", draining {connections} once it serves
    from the new program    serving {addresses}: it has taken the names and accepts at these addresses

What it says of companions stands in companion_handover.py. A program that knows nothing of that is told in vain, and
one that says nothing of it keeps its companions until it ends.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from webserver.config.model import Listen
from webserver.wire.control import Control, ControlError, close_all

VARIABLE = "WEBSERVERD_HANDOVER"  # the descriptor's number
VERSION = 1
WAIT = 10.0  # seconds for it all to arrive


class HandoverError(Exception):
    """It cannot be taken over; the text says why."""


@dataclass(frozen=True)
class Program:
    """How this program was started."""

    argv: tuple[str, ...]  # argv[0] is the absolute path of the program
    directory: str
    environment: dict[str, str]
    foreground: bool


@dataclass
class Inheritance:
    """The new program's side. The descriptors are its own."""

    control: Control
    pid: int  # of the program that serves until now
    lock: int
    stderr: int
    run: str
    serving: tuple[str, ...]  # groups that work now, and must work then
    ids: Mapping[str, int]
    generations: Mapping[str, int]
    incarnation: int
    worker: int
    inodes: Mapping[Listen, tuple[int, int]]  # of unix sockets
    sockets: list[tuple[Listen, dict[str, Any], socket.socket]] = field(default_factory=list)
    companions: list[tuple[dict[str, Any], dict[str, int]]] | None = None  # packets; None: it does not tell

    def take(self, listen: Listen) -> list[tuple[dict[str, Any], socket.socket]]:
        """The sockets of an address, which are the caller's now."""
        found = [(record, sock) for address, record, sock in self.sockets if address == listen]
        self.sockets = [entry for entry in self.sockets if entry[0] != listen]
        return found

    def close_rest(self) -> None:
        for _, _, sock in self.sockets:
            sock.close()
        self.sockets.clear()


def descriptor() -> int | None:
    """Where the handover comes from, if there is one. No child is to see the variable."""
    value = os.environ.pop(VARIABLE, "")
    return int(value) if value.isascii() and value.isdigit() else None


def receive(number: int) -> Inheritance:
    """All of it. Raises HandoverError."""
    try:
        control = Control.from_descriptor(number, blocking=False)
    except (OSError, ControlError) as error:
        raise HandoverError(f"{VARIABLE}: {error}") from None
    sockets: list[tuple[Listen, dict[str, Any], socket.socket]] = []
    companions: list[tuple[dict[str, Any], dict[str, int]]] = []
    try:
        while True:
            if not select.select([control], [], [], WAIT)[0]:
                raise HandoverError("nothing was handed over")
            packet = control.receive()
            if packet is None:
                raise HandoverError("the program that serves has ended")
            message, fds = packet
            if message["op"] == "listeners":
                for record in message["add"]:
                    sockets.append((listen_of(record["listen"]), record, socket.socket(fileno=fds.pop(record["fd"]))))
            elif message["op"] == "companion-there":
                companions.append((message, dict(fds)))
                fds.clear()
            elif message["op"] == "handover":
                inheritance = _inheritance(control, message, fds, sockets)
                if message.get("companions"):
                    inheritance.companions = companions
                return inheritance
            close_all(fds.values())
    except (HandoverError, ControlError, OSError, KeyError, TypeError, ValueError) as error:
        for _, _, sock in sockets:
            sock.close()
        for _, processes in companions:
            close_all(processes.values())
        control.close()
        text = str(error) if isinstance(error, HandoverError) else f"it is not a handover: {error!r}"
        raise HandoverError(text) from None


def _inheritance(
    control: Control, message: dict[str, Any], fds: dict[str, int],
    sockets: list[tuple[Listen, dict[str, Any], socket.socket]],
) -> Inheritance:  # fmt: skip
    if message["version"] != VERSION:
        close_all(fds.values())
        raise HandoverError(f"it is of version {message['version']}, and this program knows version {VERSION} only")
    inodes = {listen_of(one["listen"]): one["inode"] for one in message["addresses"] if one["inode"] is not None}
    return Inheritance(
        control, int(message["pid"]), fds["lock"], fds["stderr"], str(message["run"]), tuple(message["serving"]),
        dict(message["ids"]), dict(message["generations"]), int(message["incarnation"]), int(message["worker"]),
        {listen: (inode[0], inode[1]) for listen, inode in inodes.items()}, sockets,
    )  # fmt: skip


def listen_of(record: list[Any]) -> Listen:
    family, address, port = record
    return Listen(str(family), str(address), int(port))


def listen_record(listen: Listen) -> list[Any]:
    return [listen.family, listen.address, listen.port]
