"""The supervisor: makes everything once, starts it in order, ends it in order.

Start: run directory and its lock, listeners, logger, front ends, companions, groups, "ready". End: front ends finish
what they have, then the groups, then the companions, then the logger, then the run directory. Nothing here decides
about single processes.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from typing import Any

import prctl

from webserver.config import Config
from webserver.supervisor.audit import Audits
from webserver.supervisor.cgroups import Cgroups
from webserver.supervisor.commands import Answer, Commands, Tell
from webserver.supervisor.companion import CompanionParts
from webserver.supervisor.companions import Companions
from webserver.supervisor.drain import Drain
from webserver.supervisor.frontends import FrontEnds
from webserver.supervisor.groups import Groups
from webserver.supervisor.handover import Inheritance, Program
from webserver.supervisor.identity import IdentityError, resolve
from webserver.supervisor.journal import Journal
from webserver.supervisor.listeners import ListenError, Listeners, backlog_warning
from webserver.supervisor.logs import Logs
from webserver.supervisor.loop import Loop, Signals
from webserver.supervisor.nursery import Nursery
from webserver.supervisor.open_files import raise_limit
from webserver.supervisor.operations import Operations, refusal
from webserver.supervisor.overseer import Overseer
from webserver.supervisor.parts import Parts
from webserver.supervisor.policy import STOP_WAIT, Phase, Wish, on_signal
from webserver.supervisor.rundir import RunDirectory, RunError
from webserver.supervisor.stacks import Stacks
from webserver.supervisor.standin import block, stand_in
from webserver.supervisor.states import Door, State
from webserver.supervisor.status import status
from webserver.supervisor.succession import Succession
from webserver.supervisor.upgrade import Server as Handed

SIGNALS = (
    signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
    signal.SIGCHLD,
)  # fmt: skip
ORPHAN_TURNS = 50  # looks, 10 ms apart, for the last orphans' ends


class StartError(Exception):
    """The server cannot start; the text is one line for each reason."""


class Supervisor:
    """`run` returns the exit status. `on_ready` is called once, when every group has started or failed."""

    def __init__(
        self, config: Config, path: str, program: Program, on_ready: Callable[[], None], stream: int,
        error_log_is_ours: bool, inheritance: Inheritance | None = None,
    ) -> None:  # fmt: skip
        """`stream`: where the start is told; `error_log_is_ours`: the error log leads to the same place;
        `inheritance`: of the server program that this one is to follow."""
        self._config = config
        self._path = path
        self._on_ready = on_ready
        self.journal = Journal(stream)
        self.journal.pipe_too = not error_log_is_ours
        self._loop = Loop(self.journal.bug)
        self._door = Door()
        self._phase = Phase.SERVING
        self._started = self._loop.now()
        self._is_ready = False
        self._exit = 0
        self._stopping: list[tuple[Answer, Tell]] = []
        self._program = program
        self._inheritance = inheritance
        self._worker = inheritance.worker if inheritance is not None else 0
        self._open_files = resource.getrlimit(resource.RLIMIT_NOFILE)  # as we were started; what groups get

    def run(self) -> int:
        try:
            self._prepare()
        except StartError as error:
            for line in str(error).splitlines():
                self.journal.plain(f"webserverd: error: {line}")
            return 1
        self._loop.run()
        follower = self._succession.follower
        if follower and self._program.foreground and self._inheritance is None:
            block()
            self._close()
            return stand_in(follower, self._run.pid_file)
        self._close()
        return self._exit

    def _prepare(self) -> None:
        server = self._config.server
        try:
            identity = resolve(server.user, server.group, "[server]")
            self._run = RunDirectory(server.run, self._inheritance.lock if self._inheritance is not None else -1)
        except (IdentityError, RunError) as error:
            raise StartError(str(error)) from None
        if problem := raise_limit(self._open_files, server.open_files):
            self._run.close()
            raise StartError(f"{self._path}: {problem}")
        self._listeners = Listeners(server.frontends)
        problems = []
        for listen in server.listen:
            try:
                found = self._inheritance.take(listen) if self._inheritance is not None else []
                if self._inheritance is not None and found:
                    self._listeners.adopt(listen, found)
                else:
                    self._listeners.open(listen)
            except ListenError as error:
                problems.append(f"{self._path}: [server]: listen: {error}")
        if problems:
            self._listeners.close_all()
            self._run.close()
            raise StartError("\n".join(problems))
        if warning := backlog_warning():
            self.journal.warning(warning)
        prctl.set_child_subreaper(1)
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._signals = Signals(self._loop, SIGNALS, self._signal)
        self._nursery = Nursery(self._loop, self._door, self.journal)
        self._nursery.on_orphan = self._orphan
        self._logs = Logs(
            self._loop, self._nursery, self.journal, identity, self._config, server.open_files, self._null
        )
        self._logs.on_end = self._finish
        self.journal.use_pipe(self._logs.new_pipe("error", "supervisor")[1])
        self._frontends = FrontEnds(
            self._loop, self._nursery, self.journal, self._logs, self._listeners, identity, self._config, self._null
        )
        self._cgroups = Cgroups(self._loop, self.journal, self._run.mark)
        parts = Parts(
            self._loop, self._nursery, self.journal, self._logs, self._frontends, self._run, identity, self._null,
            self._open_files, self._cgroups, self._next_worker,
        )  # fmt: skip
        self._groups = Groups(parts)
        self._audits = Audits(parts, self._groups, self._listeners.names)
        self._companions = Companions(
            CompanionParts(
                self._loop, self._nursery, self.journal, self._logs, self._null, self._open_files, self._cgroups
            )
        )
        self._companions.on_change = self._check_ready
        self._groups.wait_for = self._companions.wait_for
        self._frontends.groups = self._groups
        self._drain = Drain(self._loop, self.journal, self._frontends, self._stop_now, self._tell_drain)
        self._succession = Succession(
            Handed(
                self._loop, self._nursery, self.journal, self._listeners, self._frontends, self._groups,
                self._companions, self._run, self._program, self._open_files, lambda: self._worker,
            ),
            self._inheritance,
            self._followed,
        )  # fmt: skip
        self._frontends.on_change = self._check_ready
        self._operations = Operations(
            self._loop, self.journal, self._logs, self._listeners, self._frontends, self._groups,
            self._companions, self._path,
        )  # fmt: skip
        self._stacks = Stacks(self._loop, self._nursery, self._groups.named)
        try:
            named = self._inheritance is None
            self._commands = Commands(self._loop, self.journal, self._run.control, self._command, named)
            self._succession.commands = self._commands
        except OSError as error:
            self._listeners.close_all()
            self._run.close()
            raise StartError(f"cannot listen on {self._run.control}: {error.strerror}") from None
        # All at once: they wait for each other only where they must.
        self._logs.start(self._logger_answered)
        self._frontends.start()
        Overseer(
            self._loop, self._nursery, self.journal, self._logs, self._frontends, self._groups, self._operations
        ).start()
        self._companions.start(self._config.companions)
        for group in self._config.groups:
            self._groups.start(group, self._group_answered)

    def _next_worker(self) -> int:
        self._worker += 1
        return self._worker

    def _logger_answered(self, problem: str) -> None:
        if problem:
            self.journal.plain(f"webserverd: error: {problem}")
            self._exit = 1
            self._stop_now()

    def _group_answered(self, message: str) -> None:
        self._loop.soon(self._check_ready)

    def _check_ready(self) -> None:
        if self._is_ready or self._phase is not Phase.SERVING:
            return
        frontends = self._frontends.all
        if any(one.state is State.FAILED for one in frontends) or any(one.backoff.failures >= 5 for one in frontends):
            self.journal.error("the front ends do not start; see above for the reason")
            self._exit = 1
            self._stop_now()
            return
        groups = self._groups.roles.values()
        if (
            all(one.state is State.RUNNING for one in frontends)
            and all(role.settled for role in groups)
            and self._companions.settled()
        ):
            if problem := self._succession.take_over():
                self.journal.plain(f"webserverd: error: {problem}")
                self._exit = 1
                self._stop_now()
                return
            self._is_ready = True
            for role in self._groups.roles.values():
                if role.message:
                    self.journal.error(f"group {role.name} has failed to start: {role.message}")
            self.journal.notice("listening on " + ", ".join(map(str, self._listeners.addresses.values())))
            self.journal.plain("ready")
            self.journal.echo = False
            self.journal.pipe_too = True
            self._on_ready()

    def _signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._nursery.reap()
            return
        if self._succession.follower and self._program.foreground and self._inheritance is None:
            if self._succession.hand_on(number):
                self._stop_now()
            return
        wish = on_signal(self._phase, number)
        if wish is not Wish.NOTHING:
            self.journal.notice(f"{signal.Signals(number).name}: {wish.value}")
        self._wish(wish)

    def _wish(self, wish: Wish) -> None:
        if wish is Wish.DRAIN:
            self._end()
        elif wish is Wish.STOP:
            self._stop_now()
        elif wish is Wish.RELOAD:
            self._operations.reload(lambda message: None)
        elif wish is Wish.REOPEN:
            self._logs.reopen()
        elif wish is Wish.UPGRADE:
            self._operations.exclusive(self._succession.upgrade, lambda message: None)

    def _command(self, message: dict[str, Any], answer: Answer, tell: Tell) -> None:
        op = message["op"]
        if op == "status":
            now = self._loop.now()
            found = status(
                self._phase.value, self._started, now, self._frontends, self._groups, self._companions, self._logs,
                self._listeners,
            )  # fmt: skip
            found["processes"] += self._succession.processes()
            answer({"ok": True, "errors": [], **found, "draining": self._drain.progress()})
        elif op == "reload":
            self._operations.reload(answer)
        elif op in ("start", "stop", "restart") and message.get("group") in self._companions.roles:
            self._companions.command(op, message["group"], answer)
        elif op == "start" or (op == "stop" and "group" in message):
            self._companions.command(op, message.get("group"), answer)
        elif op == "restart":
            self._operations.restart(message.get("group"), answer, tell)
        elif op == "upgrade":
            tell("the new program is started")
            self._operations.exclusive(self._succession.upgrade, answer)
        elif op == "stack":
            self._stacks.ask(message.get("group"), answer)
        elif op == "audit":
            self._audits.start(message.get("group"), message.get("files"), answer)
        elif op == "reopen":
            self._logs.reopen()
            answer({"ok": True, "errors": []})
        elif op == "stop":
            self._stopping.append((answer, tell))
            if self._phase is Phase.SERVING:
                self._end()
        else:
            answer(refusal(f"unknown command {op!r}"))

    def _orphan(self, pid: int, cause: str) -> None:
        generation = self._groups.orphan_reaped(pid, cause)
        # What an application started and left behind is its own business when it ends well.
        if generation is None and cause != "exited with status 0":
            self.journal.notice(f"process {pid}, left behind by another, {cause}")

    def _end(self) -> None:
        if self._succession.waits:
            # The sockets are another program's still, and nothing has come to us.
            self._stop_now()
            return
        self._succession.cancel("the server ends")
        # The front ends take what is in the queues and close them; ours must not keep them open.
        self._listeners.vacate_all()
        self._finish_requests()

    def _followed(self) -> None:
        """Another program serves now, at the addresses that it has taken."""
        self._commands.leave_name()
        self._finish_requests()

    def _finish_requests(self) -> None:
        self._phase = Phase.DRAINING
        self._operations.end()
        self._audits.end()
        self._companions.end()
        self._drain.begin()
        self._frontends.drain(self._frontends_gone)
        self._listeners.close_all()

    def _tell_drain(self, connections: int, text: str) -> None:
        self._succession.tell(connections)
        for _, tell in self._stopping:
            tell(text)

    def _frontends_gone(self) -> None:
        if self._phase is Phase.DRAINING:
            self._groups.leave(self._groups_gone)

    def _groups_gone(self) -> None:
        if self._phase is Phase.DRAINING:
            self._companions.drain(self._companions_gone)

    def _companions_gone(self) -> None:
        if self._phase is Phase.DRAINING:
            self.journal.notice("stopped")
            self.journal.close()
            self._nursery.kill_orphans()
            self._logs.drain()

    def _stop_now(self) -> None:
        if self._phase is Phase.STOPPING:
            return
        self._phase = Phase.STOPPING
        self._drain.end()
        self._succession.cancel("the server stops now")
        self._operations.end()
        self._frontends.drain(lambda: None)
        self._listeners.close_all()
        self.journal.notice("stopped at once")
        self._groups.stop_now("the server stops now")
        self._companions.stop_now("the server stops now")
        for child in self._nursery.children():
            if child.kind != "logger":
                self._nursery.stop_now(child, "the server stops now")
        self._wait_for_last(self._loop.now() + 2 * STOP_WAIT)

    def _wait_for_last(self, limit: float) -> None:
        if self._loop.now() < limit and any(child.kind != "logger" for child in self._nursery.children()):
            self._loop.after(0.01, lambda: self._wait_for_last(limit))
        else:
            self._last()

    def _last(self) -> None:
        """All are dead or have been killed; the logger takes what they said last."""
        for child in self._nursery.children():
            if child.kind != "logger":
                self._nursery.kill_now(child, "it did not end")
        self._nursery.kill_orphans()
        self.journal.close()
        self._logs.drain()
        logger = self._logs.child
        self._loop.after(STOP_WAIT, lambda: self._nursery.kill_now(logger, "the server stops now"))

    def _finish(self) -> None:
        self._bury(ORPHAN_TURNS)

    def _bury(self, turns: int) -> None:
        """Nothing that was left to us outlives us."""
        self._nursery.reap()
        if turns and self._nursery.kill_orphans():
            self._loop.after(0.01, lambda: self._bury(turns - 1))
        else:
            self._loop.stop()

    def _close(self) -> None:
        # Whoever asks again for the end has it already: our exit status is not to be "killed by SIGTERM".
        block()
        self._succession.close()
        self._companions.close()
        self._cgroups.close()
        self._run.close()
        for answer, _ in self._stopping:
            answer({"ok": True, "errors": []})
        self._commands.flush()
        self._commands.close()
        self._signals.close()
        self._logs.close()
        os.close(self._null)
        self._loop.close()
