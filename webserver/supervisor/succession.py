"""One server program after another: both ends of an upgrade, and what is known of the other program.

Order, on the new side: everything is started and proven while the old program serves; then the names (control socket,
pid file), then the listeners, then the old program is told. It ends nothing before that.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from webserver.config import Listen
from webserver.config.companion_order import needed
from webserver.supervisor.commands import Answer, Commands
from webserver.supervisor.companion_handover import OPS, Before
from webserver.supervisor.handover import Inheritance, listen_record
from webserver.supervisor.standin import forward
from webserver.supervisor.upgrade import Server, Upgrade
from webserver.wire.control import ControlError, close_all


class Succession:
    """`followed` is called when another program has taken over from this one."""

    def __init__(self, server: Server, inheritance: Inheritance | None, followed: Callable[[], None]) -> None:
        self._server = server
        self._inheritance = inheritance
        self._followed = followed
        self._upgrade: Upgrade | None = None
        self._before = 0  # pid of the program before, while it finishes
        self._before_connections = 0
        self.commands: Commands
        self.waits = inheritance is not None  # for its turn: another program serves
        self._ending = False  # SIGTERM has been handed on
        self.follower = 0  # pid of the program that serves now
        if inheritance is not None:
            server.groups.continue_from(inheritance.ids, inheritance.generations)
            server.frontends.hold(inheritance.incarnation)
            inheritance.close_rest()  # addresses that this program is not to listen on
            self._before = inheritance.pid
            self._inherit_companions(inheritance)
            server.loop.watch(inheritance.control.fileno(), self._read)

    def upgrade(self, done: Answer) -> None:
        """Start the next program. An operation: `done` is called once."""

        def finished(message: dict[str, Any]) -> None:
            if not message["ok"]:
                self._upgrade = None
                self._restore()
            done(message)

        if self._before:
            done({"ok": False, "errors": [f"process {self._before}, which served before, has not ended yet"]})
            return
        self._upgrade = Upgrade(self._server, self._taken_over, finished)
        self._upgrade.run()

    def cancel(self, why: str) -> None:
        if self._upgrade is not None and not self.follower:
            self._upgrade.cancel(why)

    def tell(self, connections: int) -> None:
        if self._upgrade is not None and self.follower:
            self._upgrade.tell(connections)

    def hand_on(self, number: int) -> bool:
        """A signal is meant for the server, which is another program now. True: this one should not go on finishing."""
        forward(number, self.follower, 0)
        again, self._ending = self._ending, self._ending or number == signal.SIGTERM
        return number == signal.SIGINT or (number == signal.SIGTERM and again)

    def close(self) -> None:
        """The other program takes the end of the connection for our end, though this process may stand in for it."""
        if self._upgrade is not None and self._upgrade.child.link is not None:
            self._upgrade.child.link.close()

    def take_over(self) -> str:
        """This program works: take the place of the one before, if there is one. Returns what is wrong, or ""."""
        inheritance = self._inheritance
        if inheritance is None:
            return ""
        server = self._server
        for name in inheritance.serving:
            role = server.groups.roles.get(name)
            if role is not None and role.message:
                return f"group {name}, which works in the program before, has failed to start: {role.message}"
        try:
            self.commands.take_name()
        except OSError as error:
            return f"cannot listen on {server.run.control}: {error.strerror}"
        server.run.take()
        for listen, inode in inheritance.inodes.items():
            server.listeners.own_name(listen, inode)
        server.frontends.open()
        self.waits = False
        try:
            addresses = [listen_record(listen) for listen in server.listeners.addresses]
            companions = server.companions.take_over()
            inheritance.control.send({"op": "serving", "addresses": addresses, "companions": companions})
        except (ControlError, OSError):
            pass  # it has died: then there is nobody to be told
        return ""

    def processes(self) -> list[dict[str, Any]]:
        """For status: the program before, while it finishes."""
        if not self._before:
            return []
        return [
            {
                "kind": "supervisor", "name": "before", "group": None, "generation": None, "pid": self._before,
                "state": "draining", "age": 0.0, "connections": self._before_connections,
            }
        ]  # fmt: skip

    def _inherit_companions(self, inheritance: Inheritance) -> None:
        server, config = self._server, self._server.frontends.config
        told = inheritance.companions is not None
        before = Before(server.loop, server.companions.moved, told)
        for message, fds in inheritance.companions or ():
            before.there(message, fds)
            close_all(fds.values())
        after = {one.name: one.after for one in config.companions}
        server.companions.inherit(before, needed(after, {name for group in config.groups for name in group.after}))

    def _taken_over(self, addresses: list[Listen], companions: list[str]) -> None:
        server = self._server
        assert self._upgrade is not None
        self.follower = self._upgrade.child.pid
        server.run.give_up()
        # Those that the new program has not taken are vacated as a reload does it; the others are still in use.
        gone = [listen for listen in server.listeners.addresses if listen not in addresses]
        server.frontends.vacate([one.id for listen in gone for one in server.listeners.addresses[listen].sockets])
        for listen in gone:
            server.listeners.vacate(listen)
        server.listeners.forget_names()
        self._followed()
        server.companions.hand_over(companions, self._upgrade.send)

    def _restore(self) -> None:
        """The new program may have taken the names before it died."""
        try:
            self._server.run.take()
            self.commands.take_name()
        except OSError as error:
            self._server.journal.error(f"cannot listen on {self._server.run.control}: {error.strerror}")

    def _read(self, readable: bool, writable: bool) -> None:
        """What the program before says while it finishes; its end of file is its end."""
        assert self._inheritance is not None
        control = self._inheritance.control
        while True:
            try:
                packet = control.receive()
            except BlockingIOError:
                return
            except (ControlError, OSError):
                packet = None
            if packet is None:
                break
            message, fds = packet
            if message["op"] in OPS:
                try:
                    self._server.companions.hear(message, fds)
                except Exception as error:
                    # One of them that cannot be understood must not cost the others, or the server.
                    self._server.journal.bug(error)
                continue
            close_all(fds.values())
            connections = message.get("connections")
            self._before_connections = connections if isinstance(connections, int) else 0
        self._server.loop.unwatch(control.fileno())
        control.close()
        self._server.journal.notice(f"process {self._before}, which served before, has ended")
        self._before = 0
        self._server.run.remove_strangers()
        if self._server.companions.before is not None:
            self._server.companions.before.end()
