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
    BACKOFF = "backoff"  # it ended too soon; will be started again at a known time ("retrying")
    FAILED = "failed"  # it will not be started again unless somebody asks ("gave up")
    GONE = "gone"  # has ended and is not wanted back


EDGES: dict[State, frozenset[State]] = {
    State.NEW: frozenset({State.STARTING, State.FAILED, State.GONE}),
    State.STARTING: frozenset(
        {State.RUNNING, State.DRAINING, State.STOPPING, State.BACKOFF, State.FAILED, State.GONE}
    ),
    State.RUNNING: frozenset({State.DRAINING, State.STOPPING, State.BACKOFF, State.FAILED, State.GONE}),
    State.DRAINING: frozenset({State.STOPPING, State.GONE}),
    State.STOPPING: frozenset({State.BACKOFF, State.FAILED, State.GONE}),
    State.BACKOFF: frozenset({State.STARTING, State.FAILED, State.GONE}),
    State.FAILED: frozenset({State.STARTING, State.GONE}),
    State.GONE: frozenset(),
}

ALIVE = frozenset({State.STARTING, State.RUNNING, State.DRAINING, State.STOPPING})


class IllegalChange(Exception):
    """A state was to be left by an edge that the table does not have."""


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
