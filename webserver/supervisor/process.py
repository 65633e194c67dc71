"""A process as a declarative record, and a child as what the supervisor knows about it.

The same for every kind of child: logger, front end, manager, companion. spawn.py makes a process from the record.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

from webserver.supervisor.identity import Identity
from webserver.supervisor.link import Link
from webserver.supervisor.policy import Backoff
from webserver.supervisor.states import ALIVE, State

Limit = tuple[int, int, int]  # resource, soft, hard


@dataclass(frozen=True)
class ProcessRecord:
    kind: str  # frontend, manager, logger, companion
    name: str  # "0", "shop"; "" where there is one
    argv: tuple[str, ...]  # argv[0] is the absolute path of the program
    identity: Identity
    descriptors: Mapping[int, int]  # number in the child -> number here; all others are closed
    umask: int = 0o022
    limits: tuple[Limit, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)  # besides PATH and LANG, which all have
    directory: str = "/"
    death_signal: int = signal.SIGKILL  # sent to it when the supervisor dies; 0: none, it sees that itself
    no_new_privs: bool = True
    nice: int | None = None  # None: as the server's
    capabilities: tuple[str, ...] = ()  # kept, by name
    namespaces: tuple[str, ...] = ()  # ipc, uts, net
    private_tmp: int = 0  # bytes; 0: the machine's /tmp
    jail: str = ""  # its root directory; the three that follow have a meaning with it only
    shown: tuple[str, ...] = ()  # directories that it sees there under their own names, read-only
    sockets: str = ""  # the socket directory, likewise
    cgroup: str = ""  # directory of the cgroup that it joins


@dataclass(frozen=True)
class Room:
    """What is made for one generation of a group and is gone with it."""

    sockets: str  # directory
    cgroup: str  # directory, or ""


NOWHERE = Room("", "")


@dataclass(frozen=True)
class Plan:
    """What a child works by between fork and exec. Made before the fork: later the child could not tell any more."""

    record: ProcessRecord
    parent: int  # pid
    change: bool  # there are rights to give up
    locks: bool  # the bounding set and securebits can be locked, and are to be


@dataclass(eq=False)
class Child:
    """One role that a process fills, and the process that fills it now."""

    kind: str
    name: str
    state: State = State.NEW
    pid: int = 0
    started: float = 0.0  # monotonic, of the present process
    last_beat: float = 0.0
    backoff: Backoff = field(default_factory=Backoff)
    link: Link | None = None
    why: str = ""  # of the last change of state
    stack_asked: bool = False  # it is hung and has been asked for its stack

    @property
    def label(self) -> str:
        words = {"frontend": "front end"}
        return f"{words.get(self.kind, self.kind)} {self.name}".rstrip()

    @property
    def alive(self) -> bool:
        return self.state in ALIVE
