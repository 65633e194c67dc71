"""What webserverctl and signals ask for, in order: what changes the whole server comes one after another.

A restart is its group's own business: those of several groups go on at the same time, as none of them may hold up
another, however long its old workers take. A reload or upgrade waits for no restart: it ends those that it overtakes.
"""

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
from webserver.supervisor.reload import Reload
from webserver.supervisor.restart import Restart

WAITING_LIMIT = 16

Operation = Callable[[Answer], None]
Tell = Callable[[str], None]  # a line of progress


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
        self._restarts: dict[str, deque[tuple[Tell, Answer]]] = {}  # by group; the first of each is under way or next
        self._under_way: set[str] = set()  # groups
        groups.on_outdated = self._outdated

    def reload(self, answer: Answer) -> None:
        self.exclusive(self._reload, answer)

    def restart(self, name: Any, answer: Answer, tell: Tell = lambda text: None) -> None:
        if self._ending:
            answer(refusal("the server is ending"))
        elif not isinstance(name, str) or name not in self._groups.roles:
            known = ", ".join(sorted(self._groups.roles)) or "none"
            answer(refusal(f"there is no group {name!r}; there are: {known}"))
        elif len(self._restarts.get(name, ())) >= WAITING_LIMIT:
            answer(refusal("too many operations are waiting"))
        else:
            self._restarts.setdefault(name, deque()).append((tell, answer))
            self._next_restart(name)

    def end(self) -> None:
        """The server ends: what waits is refused."""
        self._ending = True
        while self._queue:
            self._queue.popleft()[1](refusal("the server is ending"))
        for name, waiting in self._restarts.items():
            while len(waiting) > (name in self._under_way):
                waiting.pop()[1](refusal("the server is ending"))

    def exclusive(self, operation: Operation, answer: Answer) -> None:
        """Something that concerns the whole server: one after another."""
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
            for name in list(self._restarts):
                self._loop.soon(lambda name=name: self._next_restart(name))  # type: ignore[misc]

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

    def _next_restart(self, name: str) -> None:
        waiting = self._restarts.get(name)
        if not waiting or self._busy or name in self._under_way:
            return
        role = self._groups.roles.get(name)
        if role is None or self._ending:
            del self._restarts[name]
            for _, answer in waiting:
                answer(refusal(f"group {name} is not there any more" if role is None else "the server is ending"))
            return
        self._under_way.add(name)
        tell, answer = waiting[0]

        def done(message: dict[str, Any]) -> None:
            self._under_way.discard(name)
            waiting.popleft()
            if not waiting and self._restarts.get(name) is waiting:
                del self._restarts[name]
            answer(message)
            self._loop.soon(lambda: self._next_restart(name))

        try:
            Restart(self._loop, self._journal, self._groups, role, tell, done).run()
        except Exception as error:
            self._journal.bug(error)
            done(refusal(f"it failed: {error!r}; the error log has more"))

    def _outdated(self, name: str, file: str) -> None:
        """A file of the application has changed. Its manager says so: at most one restart is kept waiting for that."""
        if len(self._restarts.get(name, ())) >= 2:
            return
        self._journal.notice(f"group {name} is restarted: {file} has changed")
        self.restart(name, lambda message: None)


def refusal(message: str) -> dict[str, Any]:
    return {"ok": False, "errors": [message], "notes": []}
