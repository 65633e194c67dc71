"""A control connection as the supervisor's loop uses it: never blocks, bounded in both directions.

What does not fit into the socket waits here; when too much waits, the peer does not read and is given up. What comes
is handed on packet by packet, a bounded number in one turn and in one second.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from webserver.supervisor.loop import Loop
from webserver.supervisor.policy import Allowance
from webserver.wire.control import Control, ControlClosed, ControlError, ControlFull, close_all

WAITING_LIMIT = 2000  # packets for a peer that does not read
TURN_LIMIT = 64  # packets taken from one peer before the others get their turn
RATE = 2000.0  # packets in a second that a peer may send for long

OnPacket = Callable[[dict[str, Any], dict[str, int]], None]  # owns the descriptors
OnLost = Callable[[str], None]  # why; "" for end of file


class Link:
    """Owns the supervisor's end of one child's control connection."""

    def __init__(self, loop: Loop, sock: socket.socket, on_packet: OnPacket, on_lost: OnLost) -> None:
        self._loop = loop
        self._control = Control(sock, blocking=False)
        self._on_packet = on_packet
        self._on_lost = on_lost
        self._waiting: deque[tuple[dict[str, Any], dict[str, int]]] = deque()
        self._allowance = Allowance.full(2 * RATE, RATE, loop.now())
        self.open = True
        loop.watch(self._control.fileno(), self._turn)

    def send(self, message: dict[str, Any], fds: Mapping[str, int] | None = None) -> None:
        """Send, now or soon. The descriptors stay the caller's. To a peer that is gone: nothing happens."""
        if not self.open:
            return
        if not self._waiting and self._try(message, fds or {}):
            return
        if not self.open:
            return
        if len(self._waiting) >= WAITING_LIMIT:
            self._lose("it does not read its control connection")
            return
        self._waiting.append((message, {name: os.dup(number) for name, number in (fds or {}).items()}))
        self._loop.watch(self._control.fileno(), self._turn, write=True)

    def close(self) -> None:
        if self.open:
            self.open = False
            self._loop.unwatch(self._control.fileno())
            self._control.close()
            for _, fds in self._waiting:
                close_all(fds.values())
            self._waiting.clear()

    def detach(self) -> int:
        """The connection, which is the caller's now. Raises OSError if it is closed or something still waits here."""
        if not self.open or self._waiting:
            raise OSError(errno.EAGAIN, "its control connection is not free")
        self.open = False
        self._loop.unwatch(self._control.fileno())
        number = os.dup(self._control.fileno())
        self._control.close()
        return number

    def _try(self, message: dict[str, Any], fds: Mapping[str, int]) -> bool:
        try:
            self._control.send(message, fds)
        except ControlFull:
            return False
        except ControlClosed:
            pass  # end of file is read next, after what it still had to say
        except (ControlError, OSError) as error:
            self._lose(f"cannot send to it: {error}")
        return True

    def _turn(self, readable: bool, writable: bool) -> None:
        if writable:
            self._flush()
        if readable and self.open:
            self._read()

    def _flush(self) -> None:
        while self._waiting:
            message, fds = self._waiting[0]
            if not self._try(message, fds):
                return
            if not self.open:
                return
            self._waiting.popleft()
            close_all(fds.values())
        self._loop.watch(self._control.fileno(), self._turn)

    def _read(self) -> None:
        for _ in range(TURN_LIMIT):
            try:
                packet = self._control.receive()
            except BlockingIOError:
                return
            except (ControlError, OSError) as error:
                # Also ControlStarved: nobody has descriptors to send here.
                self._lose(f"it broke the control protocol: {error}")
                return
            if packet is None:
                self._lose("")
                return
            self._allowance, wait = self._allowance.take(self._loop.now())
            if wait:
                close_all(packet[1].values())
                self._lose("it sends too many control packets")
                return
            self._on_packet(*packet)
            if not self.open:
                return

    def drain_input(self) -> None:
        """Take what a dead peer had still said. Called when it has been reaped, before its end is told."""
        while self.open:
            try:
                packet = self._control.receive()
            except (BlockingIOError, ControlError, OSError):
                return
            if packet is None:
                return
            self._on_packet(*packet)

    def _lose(self, why: str) -> None:
        if self.open:
            self.close()
            self._on_lost(why)
