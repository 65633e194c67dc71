"""What webserverctl and signals ask for, one operation after another: a reload or restart never meets another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from webserver.supervisor.commands import Answer
from webserver.supervisor.companions import Companions
from webserver.supervisor.frontends import FrontEnds
from webserver.supervisor.groups import Groups
from webserver.supervisor.journal import Journal
from webserver.supervisor.listeners import Listeners
from webserver.supervisor.logs import Logs
from webserver.supervisor.loop import Loop
from webserver.supervisor.reload import Reload, Waiting

WAITING_LIMIT = 16

Operation = Callable[[Answer], None]


class Operations:
    def __init__(
        self, loop: Loop, journal: Journal, logs: Logs, listeners: Listeners, frontends: FrontEnds, groups: Groups,
        companions: Companions, path: str,
    ) -> None:  # fmt: skip
        self._loop = loop
        self._journal = journal
        self._logs = logs
        self._listeners = listeners
        self._frontends = frontends
        self._groups = groups
        self._companions = companions
        self._path = path
        self._queue: deque[tuple[Operation, Answer]] = deque()
        self._busy = False
        self._ending = False

    def reload(self, answer: Answer) -> None:
        self._add(self._reload, answer)

    def restart(self, name: Any, answer: Answer) -> None:
        self._add(lambda done: self._restart(name, done), answer)

    def end(self) -> None:
        """The server ends: what waits is refused."""
        self._ending = True
        while self._queue:
            self._queue.popleft()[1](refusal("the server is ending"))

    def _add(self, operation: Operation, answer: Answer) -> None:
        if self._ending:
            answer(refusal("the server is ending"))
        elif len(self._queue) >= WAITING_LIMIT:
            answer(refusal("too many operations are waiting"))
        else:
            self._queue.append((operation, answer))
            self._next()

    def _next(self) -> None:
        if self._busy or not self._queue:
            return
        self._busy = True
        operation, answer = self._queue.popleft()

        def done(message: dict[str, Any]) -> None:
            self._busy = False
            answer(message)
            self._loop.soon(self._next)

        try:
            operation(done)
        except Exception as error:
            self._journal.bug(error)
            done(refusal(f"it failed: {error!r}; the error log has more"))

    def _reload(self, done: Answer) -> None:
        def reloaded(errors: list[str], notes: list[str]) -> None:
            for error in errors:
                self._journal.error(f"reload: {error}")
            if errors:
                self._journal.error("reload: nothing was changed")
            else:
                self._journal.notice("reloaded" + "".join(f"; {note}" for note in notes))
            done({"ok": not errors, "errors": errors, "notes": notes})

        reload = Reload(
            self._loop, self._journal, self._logs, self._listeners, self._frontends, self._groups, self._companions,
            reloaded,
        )  # fmt: skip
        reload.run(self._path)

    def _restart(self, name: Any, done: Answer) -> None:
        role = self._groups.roles.get(name) if isinstance(name, str) else None
        if role is None:
            known = ", ".join(sorted(self._groups.roles)) or "none"
            done(refusal(f"there is no group {name!r}; there are: {known}"))
            return

        def finished(left: int) -> None:
            generation = role.current.number if role.current is not None else 0
            notes = ["the generation before still finishes its requests"] if left else []
            self._journal.notice(f"group {role.name} was restarted: generation {generation}")
            done({"ok": True, "errors": [], "notes": notes, "generation": generation})

        def started(message: str) -> None:
            if message:
                done(refusal(f"group {role.name}: {message}; nothing was changed"))
            else:
                self._loop.soon(lambda: role.commit(Waiting(self._loop, 1, finished).one))

        self._groups.replace(role.config, started)


def refusal(message: str) -> dict[str, Any]:
    return {"ok": False, "errors": [message], "notes": []}
