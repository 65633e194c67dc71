"""The group's workers as processes: fork, orders, reports, reaping. policy.py decides, this does.

Owns each worker's socket. A worker inherits from here: its page, its log pipe as descriptor 2, its end of the socket.
"""

import array
import os
import signal
import socket
from typing import Any, Callable, Dict, List, Sequence, Tuple

from webserver.manager import policy
from webserver.manager.host import (
    EXIT_GAVE_UP,
    EXIT_LOAD,
    EXIT_ORPHAN,
    EXIT_SYSTEM,
    REPORT_SIZE,
    STACK_SIGNAL,
    FrontEnd,
    Host,
    order_frontends,
    order_retire,
    order_slow,
    order_stack,
    order_stuck,
    read_report,
)
from webserver.manager.policy import Place

Tell = Callable[[Dict[str, Any]], None]
EXITS = {
    EXIT_LOAD: "its application did not load",
    EXIT_SYSTEM: "the system refused it something it needs",
    EXIT_ORPHAN: "it took its manager for dead",
    EXIT_GAVE_UP: "it could do no more",
}


START = "its application did not load within %g s, which is its start_timeout"


class Pool:
    """Places 0 to processes - 1 and the workers in them."""

    def __init__(self, host: Host, record: Dict[str, Any], tell: Tell, inherited: Callable[[], List[int]]) -> None:
        self._host = host
        self._group: str = record["group"]
        self._generation: int = record["generation"]
        self._threads: int = record["threads"]
        self._start_timeout: float = record["start_timeout"]
        self._tell = tell
        self._inherited = inherited
        self._frontends = [FrontEnd(**frontend) for frontend in record["frontends"]]
        self._places: Dict[int, Place] = {number: Place(number) for number in range(record["processes"])}
        self._sockets: Dict[int, socket.socket] = {}
        self._told: Dict[int, str] = {}
        self.draining = False

    @property
    def empty(self) -> bool:
        """No worker is left."""
        return not any(place.pid for place in self._places.values())

    def sockets(self) -> List[socket.socket]:
        return list(self._sockets.values())

    def next_time(self) -> float:
        """When `tick` has something to do next; infinite if nothing waits for time to pass."""
        at = policy.next_time(list(self._places.values()), self._start_timeout)
        return float("inf") if at is None else at

    def tick(self, now: float) -> None:
        """Ask for workers that are due; end those that do not come up, once they have shown where they are."""
        places = list(self._places.values())
        for place in policy.due(places, now):
            self._places[place.number] = policy.change(place, policy.GRANTING, now)
            self._tell({"op": "grant", "number": place.number, "slots": self._threads})
        for place in policy.overdue(places, self._start_timeout, now):
            self._told[place.pid] = START % self._start_timeout
            if place.shown:
                os.kill(place.pid, signal.SIGKILL)
            else:
                self._places[place.number] = place._replace(shown=now)
                os.kill(place.pid, STACK_SIGNAL)

    def granted(self, number: int, worker: int, page: int, log: int, now: float) -> None:
        """Fork the worker. page and log are closed here."""
        try:
            place = self._places.get(number)
            if place is None or place.state != policy.GRANTING:
                self._tell({"op": "gone", **_who(number, worker, 0), **_why("it was no longer wanted", 0, 0, False)})
                return
            manager = os.getpid()
            ends: Tuple[socket.socket, ...] = ()
            try:
                ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                pid = self._host.fork()
            except OSError as error:
                for end in ends:
                    end.close()
                cause = "it could not be forked: %s" % error.strerror
                self._places[number] = policy.ended(place, False, now)
                self._tell({"op": "gone", **_who(number, worker, 0), **_why(cause, -1, 0, False)})
                return
            ours, theirs = ends
            if pid == 0:
                self._run(number, worker, page, log, theirs, ours, manager)
            theirs.close()
            ours.setblocking(False)
            self._sockets[pid] = ours
            self._places[number] = policy.change(place, policy.STARTING, now, worker=worker, pid=pid)
            self._tell({"op": "up", **_who(number, worker, pid)})
        finally:
            os.close(page)
            os.close(log)

    def _run(
        self, number: int, worker: int, page: int, log: int, control: socket.socket, ours: socket.socket, manager: int
    ) -> None:
        """In the child: become the worker. Never returns."""
        code = EXIT_SYSTEM
        try:
            signal.set_wakeup_fd(-1)
            # What an application prints belongs to its worker as much as what it reports.
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            ours.close()
            for sock in self._sockets.values():
                sock.close()
            for fd in self._inherited():
                os.close(fd)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            title = "webserver: worker %s %d" % (self._group, number)
            code = self._host.worker(page, control.fileno(), manager, self._generation, worker, title, self._frontends)
        finally:
            # Not sys.exit: nothing of the manager's may run here, such as its handlers for the end of the interpreter.
            os._exit(code)

    def report(self, sock: socket.socket, now: float) -> None:
        """A worker has said something, or its end of the socket is closed."""
        try:
            data = sock.recv(REPORT_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        for pid, known in list(self._sockets.items()):
            if known is not sock:
                continue
            if not data:
                del self._sockets[pid]
                sock.close()
                return
            place = self._place(pid)
            ready, text = read_report(data)
            if not ready:
                self._told[pid] = text
            elif place is not None and place.state == policy.STARTING:
                self._told.pop(pid, None)  # it was about to be late
                self._places[place.number] = policy.change(place, policy.READY, now)
                self._tell({"op": "ready", "number": place.number, "worker": place.worker})

    def reap(self, now: float) -> None:
        """Collect every child that has ended. Children of preloaded code are collected too, and forgotten."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            sock = self._sockets.get(pid)
            if sock is not None:
                # What it said last may still be in its socket.
                self.report(sock, now)
                sock = self._sockets.pop(pid, None)
                if sock is not None:
                    sock.close()
            place = self._place(pid)
            if place is not None:
                self._ended(place, status, now)

    def _ended(self, place: Place, status: int, now: float) -> None:
        cause, code, number = policy.cause_of(status, place.state, self._told.pop(place.pid, ""), EXITS)
        loaded = place.state in (policy.READY, policy.RETIRING)
        # Also one that was not asked by us: by SIGTERM, or by its application.
        orderly = loaded and code == 0
        self._tell({"op": "gone", **_who(place.number, place.worker, place.pid), **_why(cause, code, number, loaded)})
        if self.draining:
            self._places[place.number] = policy.change(place, policy.CLOSED, now, pid=0)
        else:
            self._places[place.number] = policy.ended(place, orderly, now)

    def frontends(self, frontends: Sequence[Dict[str, Any]]) -> None:
        """The front ends are now these."""
        self._frontends = [FrontEnd(**frontend) for frontend in frontends]
        packet = order_frontends(self._frontends)
        for pid in list(self._sockets):
            self._order(pid, packet)

    def retire(self, worker: int, now: float) -> None:
        """Ask one worker for its orderly end."""
        for place in list(self._places.values()):
            if place.worker == worker and place.pid:
                self._retire(place, now)

    def leave(self, worker: int, cause: str, after: float, now: float) -> None:
        """A request in this worker does not end: show where it is, end it if that can be, and let it take no more."""
        for place in list(self._places.values()):
            if place.worker == worker and place.pid:
                self._told[place.pid] = cause
                self._order(place.pid, order_stuck(after))
                self._retire(place, now)

    def slow(self, worker: int, after: float) -> None:
        """Have a worker show the requests that have run for so long."""
        for place in self._places.values():
            if place.worker == worker and place.pid:
                self._order(place.pid, order_slow(after))

    def stack(self, worker: int, fd: int) -> None:
        """Have a worker write all its stacks to fd, which stays the caller's."""
        for place in self._places.values():
            if place.worker == worker and place.pid:
                self._order(place.pid, order_stack(), fd)

    def kill(self, worker: int, cause: str) -> None:
        """End this worker at once."""
        for place in self._places.values():
            if place.worker == worker and place.pid:
                self._told[place.pid] = cause
                os.kill(place.pid, signal.SIGKILL)

    def drain(self, now: float) -> None:
        """Ask all for their orderly end; nobody follows."""
        self.draining = True
        for place in list(self._places.values()):
            if place.pid:
                self._retire(place, now)
            elif place.state != policy.CLOSED:
                self._places[place.number] = policy.change(place, policy.CLOSED, now)

    def _retire(self, place: Place, now: float) -> None:
        if place.state in (policy.READY, policy.STARTING):
            self._places[place.number] = policy.change(place, policy.RETIRING, now)
            self._order(place.pid, order_retire())

    def _order(self, pid: int, packet: bytes, fd: int = -1) -> None:
        sock = self._sockets.get(pid)
        if sock is None:
            return
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
            sock.sendmsg([packet], rights)
        except BlockingIOError:
            # It has not read some hundred orders: it hangs, and must not go on with front ends that are gone.
            self._told[pid] = "it did not read its orders"
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass  # dead; it will be reaped

    def _place(self, pid: int) -> "Place | None":
        for place in self._places.values():
            if place.pid == pid:
                return place
        return None


def _who(number: int, worker: int, pid: int) -> Dict[str, Any]:
    return {"number": number, "worker": worker, "pid": pid}


def _why(cause: str, code: int, number: int, loaded: bool) -> Dict[str, Any]:
    return {"cause": cause, "code": code, "signal": number, "loaded": loaded}
