"""Companions from one server program to the next: what an upgrade is to them, on both sides.

It is what a reload is: those that are the same go on as they are and only change hands; the others are ended by the old
program, in order and when nothing of it needs them any more, and started by the new one when they have ended. So there
is never two of one, and what is known here is who has which.

    to the new program      companion-there {name, mark} + pidfds of what runs: before it serves, and again when it does
                            companion {name, number, ...} + fds "control", "process", "log": one that is its own now
                            companion-yours {name, ...}: the old program has nothing more of it
    from the new program    serving {companions}: names of those that it goes on with
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from webserver.config import Companion
from webserver.supervisor.companion_passing import pidfds
from webserver.supervisor.companion_policy import PROCESS
from webserver.supervisor.companion_role import CompanionRole
from webserver.supervisor.identity import Identity
from webserver.supervisor.loop import Loop
from webserver.wire.control import FD_LIMIT, close_all

WARDEN = 1  # version of what wardens and supervisors say to each other
OPS = frozenset({"companion-there", "companion", "companion-yours"})

Send = Callable[[dict[str, Any], dict[str, int]], None]


def mark(config: Companion, identity: Identity | None) -> str:
    """The same text means: a process of the one is a process of the other. Secrets cannot be read in it.

    Another version of this program may have more of it; then companions are restarted, which harms nothing.
    """
    if identity is None:
        return ""
    facts = [WARDEN, config.timed, identity.uid, identity.gid, identity.groups]
    facts += [repr(getattr(config, name)) for name in PROCESS]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def there(roles: Iterable[CompanionRole], gone: Iterable[CompanionRole]) -> list[tuple[dict[str, Any], dict[str, int]]]:
    """Packets that tell the next program of all of them. The descriptors are the caller's to close."""
    leaving = {role.name for role in gone if role.active}
    packets = []
    for role in (*roles, *gone):
        text = "" if role.name in leaving else mark(role.config, role.identity)
        fds = dict(list(pidfds(role.all).items())[:FD_LIMIT])
        packets.append(({"op": "companion-there", "name": role.name, "mark": text}, fds))
    return packets


@dataclass(eq=False)
class Before:
    """The new side: what the program before has of companions."""

    loop: Loop
    on_change: Callable[[], None]
    told: bool = True  # else it is of a version that does not tell: it has all of them until it has ended
    marks: dict[str, str] = field(default_factory=dict)
    over: bool = False  # it has ended

    def __post_init__(self) -> None:
        self._has: set[str] = set()
        self._processes: dict[str, set[int]] = {}  # pidfds: also what a program that was killed has left

    def has(self, name: str) -> bool:
        if not self.told:
            return not self.over
        return (name in self._has and not self.over) or bool(self._processes.get(name))

    def same(self, config: Companion, identity: Identity | None) -> bool:
        return bool(self.marks.get(config.name)) and self.marks[config.name] == mark(config, identity)

    def there(self, message: Mapping[str, Any], fds: dict[str, int]) -> None:
        name = str(message["name"])
        self.marks[name] = str(message["mark"])
        self._has.add(name)
        known = {process_id(process) for process in self._processes.get(name, ())}
        for key in list(fds):
            if process_id(fds[key]) not in known:
                process = fds.pop(key)
                self._processes.setdefault(name, set()).add(process)
                self.loop.watch(process, partial(self._ended, name, process))

    def taken(self, name: str, pid: int) -> None:
        """This process of it is ours."""
        for process in list(self._processes.get(name, ())):
            if process_id(process) in (pid, 0):
                self._forget(name, process)

    def yours(self, name: str) -> None:
        self._has.discard(name)
        self.on_change()

    def end(self) -> None:
        """It has ended, and its wardens end with it: who has not yet is waited for."""
        self.over = True
        self.on_change()

    def close(self) -> None:
        for name, processes in self._processes.items():
            for process in list(processes):
                self._forget(name, process)

    def _ended(self, name: str, process: int, readable: bool, writable: bool) -> None:
        self._forget(name, process)
        self.on_change()

    def _forget(self, name: str, process: int) -> None:
        self._processes[name].discard(process)
        self.loop.unwatch(process)
        os.close(process)


def process_id(process: int) -> int:
    """Of a pidfd; 0 if it is not known, or over."""
    try:
        with open(f"/proc/self/fdinfo/{process}", encoding="ascii") as stream:
            found = [line.split()[1] for line in stream if line.startswith("Pid:")]
    except OSError:
        return 0
    return max(0, int(found[0])) if found else 0


class HandOver:
    """The old side, once the new program serves. Nothing is started by us any more."""

    def __init__(self, roles: list[CompanionRole], take: Iterable[str], leaving: set[str], send: Send) -> None:
        self._send = send
        self._kept: list[CompanionRole] = []
        wanted = set(take) - leaving
        for role in roles:
            role.resign()
            if role.name in wanted:
                role.hand_over(partial(self._give, role.name), partial(self._handed, role))
            else:
                self._kept.append(role)

    def look(self) -> None:
        """What has ended is the other program's to start."""
        for role in list(self._kept):
            if not role.active:
                self._kept.remove(role)
                # Of several of one name, of which one was to go, the last one tells.
                if not any(other.name == role.name for other in self._kept):
                    self._send({"op": "companion-yours", "name": role.name, **role.told()}, {})

    def _give(self, name: str, record: dict[str, Any], fds: dict[str, int]) -> None:
        self._send({"op": "companion", "name": name, **record}, fds)

    def _handed(self, role: CompanionRole) -> None:
        self._kept.append(role)
        self.look()


def hear(message: dict[str, Any], fds: dict[str, int], before: Before, roles: Iterable[CompanionRole]) -> None:
    """The new side of what HandOver sends. Owns the descriptors. `roles`: also those that have been removed since."""
    try:
        op, name = message["op"], str(message["name"])
        role = next((role for role in roles if role.name == name), None)
        if op == "companion-there":
            before.there(message, fds)
        elif op == "companion" and role is not None:
            role.adopt(message, fds, before.same(role.config, role.identity))
            before.taken(name, int(message["warden"]))
        elif op == "companion-yours":
            if role is not None:
                role.take_up(message, before.same(role.config, role.identity))
            before.yours(name)
    finally:
        close_all(fds.values())
