"""A restart of one group: a new generation is proven and takes over worker by worker, or all is as it was before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from webserver.supervisor.commands import Answer
from webserver.supervisor.group import GroupRole
from webserver.supervisor.groups import Groups
from webserver.supervisor.journal import Journal
from webserver.supervisor.loop import Loop, Timer
from webserver.supervisor.waiting import Waiting

TELL_EVERY = 0.5  # seconds between two looks at how far it is


class Restart:
    """`done` is called once. `tell` gets a line whenever it is further than before."""

    def __init__(
        self, loop: Loop, journal: Journal, groups: Groups, role: GroupRole, tell: Callable[[str], None], done: Answer
    ) -> None:
        self._loop = loop
        self._journal = journal
        self._groups = groups
        self._role = role
        self._tell = tell
        self._done = done
        self._told = ""
        self._timer: Timer | None = None

    def run(self) -> None:
        self._say("a new generation is started")
        self._timer = self._loop.after(TELL_EVERY, self._look)
        self._groups.replace(self._role.config, self._started)

    def _started(self, message: str) -> None:
        if message:
            self._failed(message)
        else:
            self._progress()
            self._loop.soon(lambda: self._role.roll(self._rolled))

    def _rolled(self, message: str) -> None:
        if message:
            self._failed(message)
            return
        self._say("all work goes to the new generation; the old one finishes what it has")
        self._loop.soon(lambda: self._role.commit(Waiting(self._loop, 1, self._finished).one))

    def _failed(self, message: str) -> None:
        self._end()
        tell = self._journal.notice if self._role.ends else self._journal.error
        tell(f"group {self._role.name} was not restarted: {message}; nothing was changed")
        error = f"group {self._role.name}: {message}; nothing was changed"
        self._done({"ok": False, "errors": [error], "notes": []})

    def _finished(self, left: int) -> None:
        self._end()
        role = self._role
        generation = role.current.number if role.current is not None else 0
        notes = ["the generation before still finishes its requests"] if left else []
        self._journal.notice(f"group {role.name} was restarted: generation {generation}")
        self._done({"ok": True, "errors": [], "notes": notes, "generation": generation})

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._loop.after(TELL_EVERY, self._look)
        self._progress()

    def _progress(self) -> None:
        now: dict[str, Any] | None = self._role.progress()
        if now is not None:
            self._say(
                f"generation {now['to']}: {now['proven']} of {now['processes']} workers serve;"
                f" of the generation before {now['old']} serve and {now['leaving']} finish what they have"
            )

    def _say(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._tell(f"group {self._role.name}: {text}")
