"""A reload as a transaction: everything new is made and tried first; only when all of it works does anything change.

The order: check; bind new addresses; let the logger open its new files; start new companions that new or changed groups
wait for; start the generations of those groups. From here on nothing can be refused: front ends get the configuration,
then the listeners; then new work goes to the new generations and the old ones finish. Addresses that go let nobody new
in for a moment, until every handshake that was under way is over, then are emptied and closed. Other companions are
started, restarted and, when nothing old is left that may need them, ended: there can be only one of each, so none is
tried out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from webserver.config import ConfigErrors, Listen, load, where
from webserver.supervisor.companions import Companions
from webserver.supervisor.frontends import FrontEnds
from webserver.supervisor.groups import Groups
from webserver.supervisor.journal import Journal
from webserver.supervisor.listeners import ListenError, Listeners
from webserver.supervisor.logs import Logs
from webserver.supervisor.loop import Loop
from webserver.supervisor.plan import exposed, plan
from webserver.supervisor.waiting import Waiting

VACATE = 0.1  # seconds for front ends to learn that an address is to be vacated
HANDSHAKE = 1.0  # seconds for a client to finish a handshake that it has begun

Done = Callable[[list[str], list[str]], None]  # errors (none: it is done), notes


class Reload:
    """One reload. `run` answers once, by `done`."""

    def __init__(
        self, loop: Loop, journal: Journal, logs: Logs, listeners: Listeners, frontends: FrontEnds, groups: Groups,
        companions: Companions, done: Done,
    ) -> None:  # fmt: skip
        self._loop = loop
        self._journal = journal
        self._logs = logs
        self._listeners = listeners
        self._frontends = frontends
        self._groups = groups
        self._companions = companions
        self._done = done
        self._opened: list[Listen] = []
        self._started: list[str] = []
        self._replaced: list[str] = []
        self._errors: list[str] = []
        self._left = 0
        self._notes: list[str] = []
        self._halves = 2  # groups and companions

    def run(self, path: str) -> None:
        self._before = self._frontends.config
        try:
            self._after = load(path)
        except ConfigErrors as errors:
            self._done([str(error) for error in errors.errors], [])
            return
        except Exception as error:
            # A mistake in the checker must not end the server that is running.
            self._journal.bug(error)
            self._done([f"{path}: {error}"], [])
            return
        self._plan = plan(self._before, self._after)
        self._path = path
        if self._plan.refused:
            self._done([self._refusal(text) for text in self._plan.refused], [])
            return
        if problems := exposed(self._before, self._after):
            self._done([f"{where(path, f'site {site}')}: {text}" for site, text in problems], [])
            return
        self._bind()

    def _refusal(self, text: str) -> str:
        """`text`: "[section] option: before -> after"."""
        section, _, rest = text[1:].partition("] ")
        place = where(self._path, section, rest.partition(":")[0])
        return f"{place}: {text} needs a new start of the server, or an upgrade"

    def _bind(self) -> None:
        for listen in self._plan.listen:
            try:
                self._listeners.open(listen)
                self._opened.append(listen)
            except ListenError as error:
                self._errors.append(f"{where(self._path, 'server', 'listen')}: [server]: listen: {error}")
        if self._errors:
            self._undo()
        elif self._plan.logs:
            self._logs.configure(self._after, self._logs_opened)
        else:
            self._welcome()

    def _logs_opened(self, problem: str) -> None:
        if problem:
            self._errors.append(problem)
            self._undo()
        else:
            self._notes += self._logs.notes
            self._welcome()

    def _welcome(self) -> None:
        if self._plan.added:
            self._frontends.configure(self._before, self._start_companions, welcome=self._plan.added)
        else:
            self._start_companions()

    def _start_companions(self) -> None:
        if self._plan.needed:
            self._companions.add(self._plan.needed, self._companions_started)
        else:
            self._start_groups()

    def _companions_started(self, problems: list[str]) -> None:
        if problems:
            self._errors += problems
            self._loop.soon(self._undo_groups)
        else:
            self._start_groups()

    def _start_groups(self) -> None:
        todo = [(group, self._groups.start, self._started) for group in self._plan.added]
        for group in self._plan.changed:
            todo.append((group, self._groups.replace, self._replaced))
        self._left = len(todo) + 1
        for group, action, names in todo:
            names.append(group.name)
            action(group, partial(self._answered, group.name))
        self._answered("", "")

    def _answered(self, name: str, message: str) -> None:
        if message:
            self._errors.append(f"group {name}: {message}")
        self._left -= 1
        if not self._left:
            # Not from inside a generation's own call.
            self._loop.soon(self._undo_groups if self._errors else self._commit)

    def _undo_groups(self) -> None:
        for name in self._replaced:
            self._groups.roles[name].abandon("the reload failed")
        for name in self._started:
            self._groups.roles[name].stop_now("the reload failed")
            self._groups.remove(name, lambda: None)
        self._companions.remove(companion.name for companion in self._plan.needed)
        if self._plan.added:
            self._frontends.configure(self._before, _nothing, dismiss=self._plan.added)
        if self._plan.logs:
            self._logs.configure(self._before, self._logs_undone, back=True)
        else:
            self._undo()

    def _logs_undone(self, problem: str) -> None:
        if problem:
            self._errors.append(problem)
        self._undo()

    def _undo(self) -> None:
        for listen in self._opened:
            self._listeners.close(listen)
        self._done(self._errors, [])

    def _commit(self) -> None:
        # A group that goes is known to front ends until its last request is answered.
        self._removed = {group.name: group for group in self._before.groups if group.name in self._plan.removed}
        self._frontends.configure(
            self._after, self._configured, welcome=self._removed.values(), dismiss=self._plan.added
        )

    def _configured(self) -> None:
        add = [one for listen in self._plan.listen for one in self._listeners.addresses[listen].sockets]
        if add:
            self._frontends.listen(add, [])
        gone = [listen for listen in self._plan.unlisten if listen in self._listeners.addresses]
        self._left = len(self._replaced) + len(self._plan.removed) + 1 + bool(gone)
        waiting = Waiting(self._loop, self._left, self._finished)
        self._old = 1 + len(self._replaced) + len(self._plan.removed)
        if gone:
            self._frontends.vacate([one.id for listen in gone for one in self._listeners.addresses[listen].sockets])
            self._loop.after(VACATE, partial(self._vacate, gone))
            self._loop.after(VACATE + HANDSHAKE, partial(self._unlisten, gone, waiting))
        for name in self._replaced:
            self._groups.roles[name].commit(partial(self._group_replaced, waiting))
        for name in self._plan.removed:
            self._groups.remove(name, partial(self._group_gone, waiting, name))
        for group in self._plan.adjusted:
            self._groups.roles[group.name].adjust(group)
        changed = {group.name for group in self._plan.changed} | {group.name for group in self._plan.added}
        self._groups.retry_failed(name for name in list(self._groups.roles) if name not in changed)
        self._companions.commit(self._after.companions, self._companions_done)
        self._old_gone()
        waiting.one()

    def _old_gone(self) -> None:
        self._old -= 1
        if not self._old:
            # Another reload may have brought one back meanwhile.
            wanted = {companion.name for companion in self._frontends.config.companions}
            self._companions.remove(name for name in self._plan.dismissed if name not in wanted)

    def _group_replaced(self, waiting: Waiting) -> None:
        self._old_gone()
        waiting.one()

    def _vacate(self, gone: list[Listen]) -> None:
        for listen in gone:
            if listen in self._listeners.addresses:
                self._listeners.vacate(listen)

    def _unlisten(self, gone: list[Listen], waiting: Waiting) -> None:
        # The server may have begun to end meanwhile.
        gone = [listen for listen in gone if listen in self._listeners.addresses]
        self._frontends.listen([], [one.id for listen in gone for one in self._listeners.addresses[listen].sockets])
        for listen in gone:
            self._listeners.close(listen)
        waiting.one()

    def _group_gone(self, waiting: Waiting, name: str) -> None:
        self._frontends.configure(self._frontends.config, _nothing, dismiss=[self._removed[name]])
        self._old_gone()
        waiting.one()

    def _finished(self, left: int) -> None:
        self._answer([f"{left} old group generations still finish their requests"] if left else [])

    def _companions_done(self, notes: list[str]) -> None:
        self._answer(notes)

    def _answer(self, notes: list[str]) -> None:
        """Both halves have come to their end, or will in their own time."""
        self._notes += notes
        self._halves -= 1
        if not self._halves:
            self._done([], self._notes)


def _nothing() -> None:
    """Nobody waits for this."""
