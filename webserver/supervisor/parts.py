"""What every generation of a group works with, and whom it tells of what happens to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from webserver.supervisor.cgroups import Cgroups
from webserver.supervisor.frontends import FrontEnds
from webserver.supervisor.identity import Identity
from webserver.supervisor.journal import Journal
from webserver.supervisor.logs import Logs
from webserver.supervisor.loop import Loop
from webserver.supervisor.nursery import Ending, Nursery
from webserver.supervisor.rundir import RunDirectory

if TYPE_CHECKING:
    from webserver.supervisor.generation import Generation
    from webserver.supervisor.workers import Worker


@dataclass(frozen=True)
class Parts:
    """What every generation works with."""

    loop: Loop
    nursery: Nursery
    journal: Journal
    logs: Logs
    frontends: FrontEnds
    run: RunDirectory
    frontend_identity: Identity
    null: int
    open_files: tuple[int, int]  # limits of groups
    cgroups: Cgroups
    next_worker: Callable[[], int]


class Owner(Protocol):
    def generation_serves(self, generation: Generation) -> None: ...
    def generation_failed(self, generation: Generation, message: str) -> None: ...
    def generation_ended(self, generation: Generation, ending: Ending | None) -> None: ...
    def generation_closed(self, generation: Generation) -> None: ...
    def worker_died(self, worker: Worker, cause: str) -> None: ...
    def generation_moved(self, generation: Generation) -> None:
        """A worker has come, proved itself or gone, or one more is asked for."""

    def generation_outdated(self, generation: Generation, file: str) -> None:
        """A file that it is made of has changed."""
