"""One instance of a companion on its way from one server program to the next, without a break in its life.

Its warden is held by three descriptors: its control connection, its pidfd, and the reading end of the pipe that it
logs into. They are given to the next program, which is then as good as its parent: it is told of the warden's end by
the pidfd, and of how by the warden's last packet; and if it dies, the warden sees the end of its connection.
"""

from __future__ import annotations

import binascii
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from webserver.supervisor.policy import Backoff
from webserver.supervisor.states import State
from webserver.wire.control import close_all

if TYPE_CHECKING:
    from webserver.supervisor.companion import Instance

# What the next program has to know, and descriptors that are closed afterwards. None: it cannot be given away.
Given = Callable[[dict[str, Any] | None, dict[str, int]], None]

ALIVE = (State.STARTING, State.RUNNING)


class Passing:
    """The giving side of one instance."""

    def __init__(self, instance: Instance, given: Given) -> None:
        """`given` is called once, as soon as it neither ends nor begins; not from here."""
        self._instance = instance
        self._given: Given | None = given
        self._asked = False
        instance.parts.loop.soon(self.look)

    def look(self) -> None:
        """The instance may have changed."""
        one = self._instance
        if self._given is None or self._asked:
            return
        if one.child.state in ALIVE:
            self._asked = True
            one.parts.logs.part(one.pipe, self._parted)
        elif not one.alive:
            self._give(told(one), {})

    def _parted(self, reader: int, rest: bytes) -> None:
        """Its log pipe is nobody's now."""
        one = self._instance
        self._asked = False
        if one.child.state in ALIVE and reader >= 0:
            record = {**told(one), "rest": binascii.b2a_base64(rest, newline=False).decode()}
            try:
                control, process = one.parts.nursery.part(one.child)
            except OSError:
                pass
            else:
                one.gave_away()
                self._give(record, {"control": control, "process": process, "log": reader})
                return
        if reader >= 0:  # it is ours after all: it ends, or cannot be given away
            one.pipe = one.parts.logs.adopt(reader, one.child.label, one.pid, rest)
        if one.child.state in ALIVE:
            self._give(None, {})
        else:
            self.look()

    def _give(self, record: dict[str, Any] | None, fds: dict[str, int]) -> None:
        given, self._given = self._given, None
        assert given is not None
        try:
            given(record, fds)
        finally:
            close_all(fds.values())


def told(one: Instance) -> dict[str, Any]:
    """What of an instance outlives the program that has started it."""
    if one.child.state in ALIVE:
        state = one.child.state.value
    else:
        state = "ended" if one.child.state is State.ENDED and not one.again else "none"
    return {
        "number": one.number,
        "state": state,
        "warden": one.child.pid,
        "pid": one.pid,
        "ready": one.ready,
        "finished": one.finished,
        "said": one.said,
        "restarts": one.restarts,
        "failures": one.child.backoff.failures,
        "started": one.child.started,
        "since": one.since,
        "cgroup": one.cgroup,
    }


def take(one: Instance, record: dict[str, Any], fds: dict[str, int]) -> None:
    """The other side: `one` is what `record` tells of. The descriptors are its own now."""
    parts, state = one.parts, str(record["state"])
    one.restarts = int(record["restarts"])
    one.child.backoff = Backoff(int(record["failures"]))
    if state == "none":
        return
    if state == "ended":
        one.finished = bool(record["finished"])
        parts.nursery.door.change(one.child, State.ENDED, "ended before the upgrade")
        return
    one.ready, one.said = bool(record["ready"]), str(record["said"])
    one.pid, one.warden = int(record["pid"]), int(record["warden"])
    one.child.started = float(record["started"])
    one.pipe = parts.logs.adopt(fds.pop("log"), one.child.label, one.pid, binascii.a2b_base64(record["rest"]))
    parts.nursery.door.change(one.child, State.STARTING, "handed over")
    sock, process = socket.socket(fileno=fds.pop("control")), fds.pop("process")
    parts.nursery.adopt(one.child, one.warden, process, sock, one.packet, one.ended)
    one.cgroup = parts.cgroups.adopt(one.config, one.next_start(), str(record["cgroup"]))
    one.go_on(running=state == State.RUNNING.value, since=float(record["since"]))


def pidfds(instances: list[Instance]) -> dict[str, int]:
    """Of those that are alive, by a number; the caller's."""
    found: dict[str, int] = {}
    for one in instances:
        if one.alive and one.child.pid:
            try:
                found[str(len(found))] = one.parts.nursery.process(one.child)
            except OSError:
                continue
    return found
