"""The states of everything the supervisor starts, and the only door through which they change.

A table: every edge that is not in it is a bug and raises IllegalChange. `change` tells each observer, so that nothing
changes its state unseen. Knows nothing of processes, time or policy.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol


class State(Enum):
    NEW = "new"  # never started
    STARTING = "starting"  # forked; has not said that it works
    RUNNING = "running"  # has said so
    DRAINING = "draining"  # asked to finish what it has, without a time limit
    STOPPING = "stopping"  # told to end now; killed if it does not
    WAITING = "waiting"  # its time, or what it depends on, has to come first
    BACKOFF = "backoff"  # it ended too soon; will be started again at a known time ("retrying")
    FAILED = "failed"  # it will not be started again unless somebody asks ("gave up")
    ENDED = "ended"  # its work is done, or it was told to end; started again only if somebody asks
    GONE = "gone"  # has ended and is not wanted back


# Where a process that has ended can be.
_OVER = frozenset({State.WAITING, State.BACKOFF, State.FAILED, State.ENDED, State.GONE})

EDGES: dict[State, frozenset[State]] = {
    State.NEW: frozenset({State.STARTING, State.WAITING, State.FAILED, State.ENDED, State.GONE}),
    State.STARTING: frozenset({State.RUNNING, State.DRAINING, State.STOPPING}) | _OVER,
    State.RUNNING: frozenset({State.DRAINING, State.STOPPING}) | _OVER,
    State.DRAINING: frozenset({State.STOPPING}) | _OVER,
    State.STOPPING: _OVER,
    State.WAITING: frozenset({State.STARTING, State.FAILED, State.ENDED, State.GONE}),
    State.BACKOFF: frozenset({State.STARTING, State.FAILED, State.ENDED, State.GONE}),
    State.FAILED: frozenset({State.STARTING, State.WAITING, State.ENDED, State.GONE}),
    State.ENDED: frozenset({State.STARTING, State.WAITING, State.GONE}),
    State.GONE: frozenset(),
}


class Stage(Enum):
    """Where a generation of a group is on its way. Its manager has a State of its own."""

    BINDING = "binding"  # front ends make their sockets
    LOADING = "loading"  # the manager opens the plugin and forks; no worker is ready
    PROBING = "probing"  # a worker is ready; front ends have not all had its answer
    SERVING = "serving"  # with workers, or without one where they are made on demand
    DRAINING = "draining"  # front ends place nothing more there and finish what is in flight
    LEAVING = "leaving"  # its workers and then its manager end
    CLOSING = "closing"  # the manager is gone; its workers are waited for
    CLOSED = "closed"


STAGES: dict[Stage, frozenset[Stage]] = {
    Stage.BINDING: frozenset({Stage.LOADING, Stage.CLOSING}),
    Stage.LOADING: frozenset({Stage.PROBING, Stage.SERVING, Stage.LEAVING, Stage.CLOSING}),
    Stage.PROBING: frozenset({Stage.SERVING, Stage.LOADING, Stage.DRAINING, Stage.LEAVING, Stage.CLOSING}),
    Stage.SERVING: frozenset({Stage.DRAINING, Stage.LEAVING, Stage.CLOSING}),
    Stage.DRAINING: frozenset({Stage.LEAVING, Stage.CLOSING}),
    Stage.LEAVING: frozenset({Stage.CLOSING}),
    Stage.CLOSING: frozenset({Stage.CLOSED}),
    Stage.CLOSED: frozenset(),
}

ALIVE = frozenset({State.STARTING, State.RUNNING, State.DRAINING, State.STOPPING})


class IllegalChange(Exception):
    """A state was to be left by an edge that the table does not have."""


def next_stage(before: Stage, after: Stage) -> Stage:
    """`after`, if the table has this edge; IllegalChange if not."""
    if after not in STAGES[before]:
        raise IllegalChange(f"generation: {before.value} -> {after.value}")
    return after


class Stateful(Protocol):
    state: State

    @property
    def label(self) -> str: ...


Observer = Callable[[Stateful, State, State, str], None]


class Door:
    """Changes states and tells its observers (child, before, after, why)."""

    def __init__(self) -> None:
        self._observers: list[Observer] = []

    def observe(self, observer: Observer) -> None:
        self._observers.append(observer)

    def change(self, child: Stateful, state: State, why: str) -> None:
        before = child.state
        if state not in EDGES[before]:
            raise IllegalChange(f"{child.label}: {before.value} -> {state.value} ({why})")
        child.state = state
        for observer in self._observers:
            observer(child, before, state, why)
