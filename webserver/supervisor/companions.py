"""All companions: who may start, who may end, and who waits for whom.

Nothing is remembered of what is under way: after each change everybody is looked at once, and what can be done next is
done (`_look`). So the order of events has no meaning, and an event that never comes keeps nobody else waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from webserver.config import Companion
from webserver.config.companion_order import startable, stoppable
from webserver.supervisor.companion import CompanionParts
from webserver.supervisor.companion_handover import Before, HandOver, Send, hear, there
from webserver.supervisor.companion_role import CompanionRole
from webserver.supervisor.identity import Identity, IdentityError, resolve
from webserver.supervisor.loop import Timer
from webserver.supervisor.states import State
from webserver.wire.control import close_all

Reply = Callable[[dict[str, Any]], None]

REPORT_AFTER = 10.0  # seconds that a reload waits for what it has restarted


@dataclass(eq=False)
class _Waiter:
    """Somebody who waits until companions are ready; `hindered` is told once, if that will not be soon."""

    names: Sequence[str]
    ready: Callable[[], None]
    hindered: Callable[[str], None]
    told: bool = False


@dataclass(eq=False)
class _Watch:
    """Somebody who waits for `outcome`: None as long as it is open, "" or what went wrong."""

    outcome: Callable[[], str | None]
    answer: Callable[[str], None]


@dataclass(eq=False)
class Companions:
    parts: CompanionParts
    roles: dict[str, CompanionRole] = field(default_factory=dict)
    gone: list[CompanionRole] = field(default_factory=list)  # removed from the configuration, still finishing
    on_change: Callable[[], None] = lambda: None
    before: Before | None = None  # another program serves still, or has not ended: what it has is not ours to start
    proving: bool = False  # that program serves still: nothing is started but what groups wait for

    def __post_init__(self) -> None:
        self._waiters: list[_Waiter] = []
        self._watches: list[_Watch] = []
        self._soon: Timer | None = None
        self._ending = False
        self._needed: set[str] = set()  # by groups
        self._hand_over: HandOver | None = None
        self._drained: Callable[[], None] | None = None

    def start(self, configs: Iterable[Companion]) -> None:
        for config in configs:
            identity, problem = None, ""
            try:
                identity = _identity(config)
            except IdentityError as error:
                problem = str(error)
                self.parts.journal.error(problem)
            if config.name in self.roles:  # it was to go, but had not yet
                self.roles[config.name].become(config, identity, problem, lambda message: None)
            else:
                self.roles[config.name] = CompanionRole(self.parts, config, identity, problem, self.moved)
        self.moved()

    # From one server program to the next

    def inherit(self, before: Before, needed: Iterable[str]) -> None:
        """Another program serves. `needed`: names of those that groups wait for, and of all that these wait for."""
        self.before, self.proving = before, True
        self._needed = set(needed)

    def take_over(self) -> list[str]:
        """This program serves now. Returns the names of those that it goes on with as they are."""
        self.proving = False
        self.moved()
        if self.before is None:
            return []
        return [name for name, role in self.roles.items() if self.before.same(role.config, role.identity)]

    def hear(self, message: dict[str, Any], fds: dict[str, int]) -> None:
        """From the program before. Owns the descriptors."""
        if self.before is None:
            close_all(fds.values())
            return
        hear(message, fds, self.before, [*self.roles.values(), *self.gone])

    def hand_over(self, take: Iterable[str], send: Send) -> None:
        """Another program serves now, and takes these."""
        for message, fds in there(self.roles.values(), self.gone):
            send(message, fds)
            close_all(fds.values())
        leaving = {role.name for role in self.gone if role.active}
        self._hand_over = HandOver([*self.roles.values(), *self.gone], take, leaving, send)
        self.moved()

    def _elsewhere(self, role: CompanionRole) -> str:
        """Why it is not ours to start yet, or ""."""
        if self.before is not None and self.before.has(role.name):
            return "the program before has it still"
        if self.proving and (role.name not in self._needed or role.config.timed):
            return "waits until this program serves"
        return ""

    # Starts

    def settled(self) -> bool:
        """True once each is ready, or is known not to become so soon."""
        return all(self._outcome(name) is not None for name in self.roles)

    def wait_for(self, names: Sequence[str], ready: Callable[[], None], hindered: Callable[[str], None]) -> None:
        """Call `ready`, never from here, when all of `names` are. `hindered` is called at most once, before that."""
        self._waiters.append(_Waiter(names, ready, hindered))
        self.moved()

    # What webserverctl asks for

    def command(self, op: str, name: Any, answer: Reply) -> None:
        role = self.roles.get(name) if isinstance(name, str) else None

        def reply(message: str, *notes: str) -> None:
            errors = [f"companion {name}: {message}"] if message else []
            answer({"ok": not message, "errors": errors, "notes": list(notes)})

        if role is None:
            known = ", ".join(sorted(self.roles)) or "none"
            answer({"ok": False, "errors": [f"there is no companion {name!r}; there are: {known}"], "notes": []})
        elif self._ending:
            reply("the server is ending")
        elif role.problem:
            reply(role.problem)
        elif op == "stop":
            role.stop("it was told to by webserverctl")
            self._watch(lambda: None if role.active else "", reply)
        elif op == "start":
            self._start(role, reply)
        elif role.wanted and role.begun and not role.config.timed:
            role.roll(reply)
        else:
            role.stop("it is restarted by webserverctl")
            self._watch(lambda: None if role.active else "", lambda message: self._start(role, reply))

    def _start(self, role: CompanionRole, reply: Callable[..., None]) -> None:
        if role.config.timed:
            if any(one.alive for one in role.instances):
                reply("", "it runs already, and there are never two of it at once")
                return
            if not role.begun:
                role.begin()
            role.run_now()
            self._watch(lambda: self._run_outcome(role), reply)
            return
        if role.ready:
            reply("", "it runs already")
            return
        role.wanted = True
        for one in role.instances:
            if role.begun and not one.alive:
                one.start()
        self._watch(lambda: self._outcome(role.name), reply)

    def _run_outcome(self, role: CompanionRole) -> str | None:
        """Of a start of what else runs at times: whether it could be started, not how it will end."""
        if any(one.child.state in (State.BACKOFF, State.FAILED) for one in role.instances):
            return role.message
        return None if role.state is State.STARTING else role.message

    # A reload

    def add(self, configs: Iterable[Companion], answer: Callable[[list[str]], None]) -> None:
        """Start new ones; `answer` learns what is wrong with them once each is ready or is known not to become so."""
        new = list(configs)
        self.start(new)
        open_ones = {config.name for config in new}
        problems: list[str] = []
        if not new:
            self.parts.loop.soon(lambda: answer(problems))

        def one(name: str, message: str) -> None:
            open_ones.discard(name)
            if message:
                problems.append(f"companion {name}: {message}")
            if not open_ones:
                answer(problems)

        for config in new:
            self._watch(partial(self._outcome, config.name), partial(one, config.name))

    def remove(self, names: Iterable[str]) -> None:
        """They finish, each when nobody stands on it any more, and are forgotten."""
        for name in list(names):
            if name in self.roles:
                role = self.roles.pop(name)
                role.wanted = False
                self.gone.append(role)
        self.moved()

    def commit(self, configs: Iterable[Companion], done: Callable[[list[str]], None]) -> None:
        """Put a configuration into force, but for the removals. `done` learns, soon, what is to be noted about it."""
        notes: list[str] = []
        left = 1
        timer: Timer | None = None
        over = False

        def one(name: str, message: str) -> None:
            nonlocal left
            left -= 1
            if message:
                self.parts.journal.error(f"companion {name}: {message}")
                notes.append(f"companion {name}: {message}")
            if not left:
                finish()

        def finish() -> None:
            nonlocal over
            if not over:
                over = True
                if timer is not None:
                    timer.cancel()
                done([*notes, f"{left} companions are still being restarted"] if left else notes)

        new = []
        for config in configs:
            role = self.roles.get(config.name)
            if role is None:
                new.append(config)
            elif role.config != config:
                left += 1
                identity, problem = None, ""
                try:
                    identity = _identity(config)
                except IdentityError as error:
                    problem = str(error)
                role.become(config, identity, problem, partial(one, config.name))
            else:
                role.retry()
        if new:
            left += len(new)
            self.start(new)
            for config in new:
                self._watch(partial(self._outcome, config.name), partial(one, config.name))
        timer = self.parts.loop.after(REPORT_AFTER, finish)
        self.parts.loop.soon(lambda: one("", ""))
        self.moved()

    # The end of the server

    def end(self) -> None:
        """Nothing more is begun; what runs goes on, as groups that finish may need it."""
        self._ending = True
        self._waiters.clear()
        for role in (*self.roles.values(), *self.gone):
            role.hold()

    def drain(self, done: Callable[[], None]) -> None:
        """All end, each when none of those that wait for it is left. `done` when nothing is."""
        self.end()
        self._drained = done
        for role in (*self.roles.values(), *self.gone):
            if role.active and not role.handing:
                self.parts.journal.notice(f"{role.label} is to end: SIG{role.config.stop_signal}")
        self.moved()

    def close(self) -> None:
        if self.before is not None:
            self.before.close()

    def stop_now(self, why: str) -> None:
        self.end()
        self._drained = None
        for role in (*self.roles.values(), *self.gone):
            role.stop_now(why)

    # Inside

    def moved(self) -> None:
        """Something has changed: look at all of them, once, in the next turn."""
        if self._soon is None:
            self._soon = self.parts.loop.soon(self._look)

    def _watch(self, outcome: Callable[[], str | None], answer: Callable[[str], None]) -> None:
        self._watches.append(_Watch(outcome, answer))
        self.moved()

    def _look(self) -> None:
        self._soon = None
        if not self._ending:
            self._begin()
        self._end_gone()
        if self._hand_over is not None:
            self._hand_over.look()
        if self._drained is not None:
            self._drain_next()
        for watch in list(self._watches):
            outcome = watch.outcome()
            if outcome is not None and watch in self._watches:
                self._watches.remove(watch)
                watch.answer(outcome)
        for waiter in list(self._waiters):
            self._tell(waiter)
        self.on_change()

    def _begin(self) -> None:
        after = {name: role.config.after for name, role in self.roles.items()}
        leaving = {role.name for role in self.gone if role.active}
        pending = [
            name for name, role in self.roles.items() if role.wanted and not role.begun and not role.problem
        ]  # fmt: skip
        elsewhere = {name: why for name in pending if (why := self._elsewhere(self.roles[name]))}
        able = startable(after, pending, {name for name, role in self.roles.items() if role.ready} | elsewhere.keys())
        for name in pending:
            role = self.roles[name]
            if name in elsewhere:
                if not role.taking:
                    role.wait(elsewhere[name])
            elif name in able and name not in leaving:
                role.begin()
            else:
                others = [other for other in role.config.after if other in self.roles and not self.roles[other].ready]
                role.wait(f"waits for {', '.join(others) or 'the one before it'}")

    def _end_gone(self) -> None:
        """Those that are removed, as soon as nobody stands on them."""
        users = {name: role.config.after for name, role in self.roles.items() if role.active and role.wanted}
        for role in list(self.gone):
            if not role.active:
                self.gone.remove(role)
            elif role.begun and not any(role.name in after for name, after in users.items() if name != role.name):
                role.stop("it is not in the configuration any more")

    def _drain_next(self) -> None:
        roles = [role for role in (*self.roles.values(), *self.gone) if not role.handing]
        after = {role.name: role.config.after for role in roles if role.active}
        able = stoppable(after, list(after))
        for role in roles:
            if (role.wanted or role.begun) and (not role.active or role.name in able):
                role.stop("the server ends")
        if not any(role.active or role.handing for role in (*self.roles.values(), *self.gone)):
            done, self._drained = self._drained, None
            if done is not None:
                done()

    def _outcome(self, name: str) -> str | None:
        """None as long as it may become ready; "" when it is, or is run at times; else what hinders it."""
        role = self.roles.get(name)
        if role is None:
            return "it is not there any more"
        if role.trouble:
            return role.trouble
        if role.ready or (role.begun and role.config.timed) or (not role.begun and self._elsewhere(role)):
            return ""
        if not role.begun:
            for other in role.config.after:
                if other in self.roles and (trouble := self._outcome(other)):
                    return f"it waits for companion {other}: {trouble}"
        return None

    def _tell(self, waiter: _Waiter) -> None:
        outcomes = {name: self._outcome(name) for name in waiter.names}
        if all(outcome == "" for outcome in outcomes.values()):
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                waiter.ready()
            return
        trouble = next(((name, outcome) for name, outcome in outcomes.items() if outcome), None)
        if trouble is not None and not waiter.told:
            waiter.told = True
            waiter.hindered(f"it waits for companion {trouble[0]}: {trouble[1]}")


def _identity(config: Companion) -> Identity:
    """Raises IdentityError."""
    return resolve(config.user, config.group, f"companion {config.name}", config.groups)
