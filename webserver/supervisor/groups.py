"""All groups: by name, with the numbers that are never used twice, and what front ends say handed to the right one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from webserver.config import Group
from webserver.supervisor.frontends import FrontEnd
from webserver.supervisor.generation import Generation
from webserver.supervisor.group import Answer, GroupRole
from webserver.supervisor.identity import Identity, IdentityError, resolve
from webserver.supervisor.parts import Parts
from webserver.supervisor.states import State

RESERVED = 1 << 30  # generation numbers of a program whose follower numbers on; they have 32 bits
WaitFor = Callable[[Sequence[str], Callable[[], None], Callable[[str], None]], None]


class Groups:
    """Is the `GroupsSide` of the front ends."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._ids: dict[str, int] = {}  # by group name; kept when a group is removed
        self._counters: dict[str, int] = {}  # generations so far, likewise: a name may come back
        self._kept: dict[str, int] = {}  # what they were when the next server program was told of them
        self.roles: dict[str, GroupRole] = {}
        # Who says when companions are ready; that of a server without companions.
        self.wait_for: WaitFor = lambda names, ready, hindered: ready()
        self.gone: list[GroupRole] = []  # removed from the configuration, still finishing
        self.on_outdated: Callable[[str, str], None] = lambda name, file: None

    def continue_from(self, ids: Mapping[str, int], generations: Mapping[str, int]) -> None:
        """Number groups and generations on from those of the server program before."""
        self._ids.update(ids)
        self._counters.update(generations)

    def ids(self) -> dict[str, int]:
        return dict(self._ids)

    def generation_numbers(self) -> dict[str, int]:
        return dict(self._kept)

    def reserve(self) -> None:
        """The next server program numbers generations on from here; ours are far above until it has failed to."""
        self._kept = dict(self._counters)
        self._counters = {name: RESERVED + number for name, number in self._kept.items()}

    def unreserve(self) -> None:
        # Whatever it has used: nothing of it is left, and each of its groups has begun once at least.
        self._counters = {name: number + 1 for name, number in self._kept.items()}
        self._parts.run.remove_strangers()

    def start(self, config: Group, answer: Answer) -> None:
        """A group that is new. `answer` learns how its first start ends."""
        try:
            identity = resolve(config.user, config.group, f"group {config.name}", config.groups)
        except IdentityError as error:
            role = self._role(config, None)
            role.refuse(str(error))
            answer(str(error))
            return
        role = self._role(config, identity)
        if not config.after:
            role.start(answer)
            return
        role.message = f"waits for {', '.join(config.after)}"
        answers = [answer]

        def ready() -> None:
            if role.state is State.NEW:
                role.start(answers.pop() if answers else None)

        def hindered(message: str) -> None:
            if role.state is State.NEW:
                role.hinder(message)
                answers.pop()(message)

        self.wait_for(config.after, ready, hindered)

    def replace(self, config: Group, answer: Answer) -> None:
        """A new generation of a group that is there; to be rolled, committed or abandoned after the answer.

        One that is coming already is given up.
        """
        try:
            identity = resolve(config.user, config.group, f"group {config.name}", config.groups)
        except IdentityError as error:
            answer(str(error))
            return
        answers = [answer]

        def ready() -> None:
            role = self.roles.get(config.name)
            if answers and role is not None:
                if role.coming is not None:
                    role.cancel("a reload came in between, with another configuration of the group")
                role.replace(config, identity, answers.pop())

        def hindered(message: str) -> None:
            answers.pop()(message)

        if config.after:
            self.wait_for(config.after, ready, hindered)
        else:
            ready()

    def retry_failed(self, names: Iterable[str]) -> None:
        """Try those again that were given up."""
        for name in names:
            role = self.roles[name]
            if role.state is State.FAILED and role.identity is not None and role.coming is None:
                role.start()

    def remove(self, name: str, done: Callable[[], None]) -> None:
        role = self.roles.pop(name)
        self.gone.append(role)

        def finished() -> None:
            self.gone.remove(role)
            done()

        role.drain(finished)

    def leave(self, done: Callable[[], None]) -> None:
        """The end of the server, when no front end is left."""
        roles = self._all()
        left = len(roles)
        if not left:
            self._parts.loop.soon(done)

        def one() -> None:
            nonlocal left
            left -= 1
            if not left:
                done()

        for role in roles:
            role.leave(one)

    def stop_now(self, why: str) -> None:
        for role in self._all():
            role.stop_now(why)

    def named(self, name: str) -> list[Generation] | None:
        """The generations of a group; None: there is none of this name."""
        roles = [role for role in self._all() if role.name == name]
        return [generation for role in roles for generation in role.generations()] if roles else None

    def generations(self) -> list[Generation]:
        return [generation for role in self._all() for generation in role.generations()]

    def orphan_reaped(self, pid: int, cause: str) -> Generation | None:
        return next((one for one in self.generations() if one.orphan_reaped(pid, cause)), None)

    # GroupsSide

    def records(self) -> list[dict[str, Any]]:
        return [generation.record() for role in self._all() for generation in role.announced()]

    def frontend_started(self, frontend: FrontEnd) -> None:
        for role in self._all():
            for generation in role.announced():
                generation.crew.announce(frontend)

    def frontend_gone(self, frontend: FrontEnd) -> None:
        for generation in self.generations():
            generation.frontend_gone(frontend)

    def frontend_says(self, frontend: FrontEnd, message: dict[str, Any]) -> None:
        op = message["op"]
        if op in ("suspect", "cleared"):
            # Of requests that end workers: what one front end has seen counts in all of them.
            told = {"op": op, "group": str(message["group"]), "name": str(message["name"])}
            for other in self._parts.frontends.alive():
                if other is not frontend:
                    self._parts.frontends.send(other, told)
            return
        if op == "wanted":
            self._wanted(message["groups"])
            return
        generation = self._find(str(message["group"]), int(message["generation"]))
        if op not in ("bound", "serving", "drained", "broken", "silent", "overdue"):
            raise ValueError(f"unknown op {op!r}")
        if generation is None:
            return  # it was closed while the message was on its way
        if op == "bound":
            generation.bound(frontend, str(message["path"]))
        elif op == "serving":
            generation.served(frontend, int(message["worker"]))
        elif op == "drained":
            generation.drained(frontend)
        elif op == "silent":
            generation.silent(frontend, int(message["worker"]))
        elif op == "overdue":
            generation.watch()
        else:
            generation.broken(frontend, str(message["reason"])[:500])

    def _wanted(self, groups: dict[str, int]) -> None:
        """Requests wait for these groups, so many for each."""
        for role in self._all():
            if role.name in groups:
                role.wanted(int(groups[role.name]))

    def _find(self, name: str, number: int) -> Generation | None:
        for role in self._all():
            if role.name == name and (found := role.find(number)) is not None:
                return found
        return None

    def _all(self) -> list[GroupRole]:
        return [*self.roles.values(), *self.gone]

    def _role(self, config: Group, identity: Identity | None) -> GroupRole:
        number = self._ids.setdefault(config.name, max(self._ids.values(), default=0) + 1)

        def next_generation() -> int:
            self._counters[config.name] = self._counters.get(config.name, 0) + 1
            return self._counters[config.name]

        role = self.roles[config.name] = GroupRole(self._parts, number, config, identity, next_generation)
        role.on_outdated = lambda role, file: self.on_outdated(role.name, file)
        return role
