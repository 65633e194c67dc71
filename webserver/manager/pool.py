"""The group's workers as processes: fork, orders, reports, reaping. policy.py decides, this does.

Owns each worker's socket, and a mapping of its page. A worker inherits from here: its page, its loans, its log pipe as
descriptor 2, its end of the socket.
"""

import array
import os
import signal
import socket
from typing import Any, Callable, Dict, List, Sequence, Tuple

from webserver.manager import policy
from webserver.manager.causes import cause_of
from webserver.manager.host import (
    EXIT_GAVE_UP,
    EXIT_LOAD,
    EXIT_ORPHAN,
    EXIT_SYSTEM,
    FAILED,
    REPORT_SIZE,
    STACK_SIGNAL,
    WARNING,
    WORN,
    FrontEnd,
    Host,
    Place,
    order_frontends,
    order_retire,
    order_slow,
    order_stack,
    order_stuck,
    read_report,
)
from webserver.manager.mapping import Mapping
from webserver.manager.policy import Options, Trouble, Worker
from webserver.manager.usage import Scale
from webserver.wire.page import activity, page_size

Tell = Callable[[Dict[str, Any]], None]
EXITS = {
    EXIT_LOAD: "its application did not load",
    EXIT_SYSTEM: "the system refused it something it needs",
    EXIT_ORPHAN: "it took its manager for dead",
    EXIT_GAVE_UP: "it could do no more",
}
NEVER = float("inf")


class Pool:
    """The workers that there are, and what has been decided about them."""

    def __init__(self, host: Host, record: Dict[str, Any], tell: Tell, inherited: Callable[[], List[int]]) -> None:
        self._host = host
        self._group: str = record["group"]
        self._generation: int = record["generation"]
        self._threads: int = record["threads"]
        self._tell = tell
        self._inherited = inherited
        self._frontends = [FrontEnd(**frontend) for frontend in record["frontends"]]
        self._options = options_of(record)
        # Where another generation serves, one worker is tried before this one takes over.
        self._prove: bool = record.get("prove", False)
        self._scale = Scale(self._options, record.get("family", False), lambda text: host.log(WARNING, text))
        self._looked = 0.0
        self._workers: Dict[int, Worker] = {}
        self._troubles: Dict[int, Trouble] = {}
        self._keys = 0
        self._pages: Dict[int, Mapping] = {}  # by key
        self._sockets: Dict[int, socket.socket] = {}  # by pid
        self._told: Dict[int, str] = {}  # by pid
        self.draining = False

    @property
    def empty(self) -> bool:
        """No worker is left."""
        return not any(worker.pid for worker in self._workers.values())

    def sockets(self) -> List[socket.socket]:
        return list(self._sockets.values())

    def next_time(self, now: float) -> float:
        """When `tick` has something to do next; infinite if nothing waits for time to pass."""
        look = policy.next_look(self._workers, self._options, self._looked)
        at = None if self.draining else policy.next_time(self._workers, self._troubles, self._wanted_options(), now)
        return min(NEVER if look is None else look, NEVER if at is None else at)

    def tick(self, now: float) -> None:
        """Look at the workers if that is due, and do what there is to be done."""
        look = policy.next_look(self._workers, self._options, self._looked)
        if look is not None and look <= now:
            self._look(now)
        self._decide(0, now)

    def wanted(self, queued: int, now: float) -> None:
        """So many requests wait in a front end, and no slot is free."""
        for key, worker in self._workers.items():
            page = self._pages.get(key)
            if worker.state == policy.LOADED and page is not None:
                busy = activity(page.memory, self._threads).busy
                self._workers[key] = worker._replace(seen=worker.seen._replace(busy=busy))
        self._decide(queued, now)

    def _wanted_options(self) -> Options:
        options = self._options
        return options._replace(least=max(1, options.least)) if self._prove else options

    def _look(self, now: float) -> None:
        self._looked = now
        for key, worker in self._workers.items():
            if worker.loaded:
                page = self._pages.get(key)
                seen = self._scale.look(worker.pid, page.memory if page else None, worker.seen, now)
                self._workers[key] = worker._replace(seen=seen)

    def _decide(self, queued: int, now: float) -> None:
        decision = policy.decide(self._workers, self._troubles, self._wanted_options(), queued, now)
        for end in decision.kill:
            self._kill(self._workers[end.key], end.why)
        for late in decision.show:
            worker = self._workers[late.key] = self._workers[late.key]._replace(shown=now)
            self._told[worker.pid] = late.why
            os.kill(worker.pid, STACK_SIGNAL)
        if self.draining:
            return
        for mark in decision.going:
            worker = self._workers[mark.key] = self._workers[mark.key]._replace(going=mark.why)
            self._tell({"op": "going", "worker": worker.worker, "cause": mark.why})
        self._troubles.update(policy.failures(self._workers, self._troubles, decision.failed, now))
        for one in decision.failed:
            self._workers[one.key] = self._workers[one.key]._replace(failed=True)
        for one in decision.retire + decision.failed:
            self._retire(self._workers[one.key], one.why, now)
        for start in decision.start:
            self._keys += 1
            self._workers[self._keys] = Worker(self._keys, start.number, since=now, follows=start.follows)
            self._tell({"op": "grant", "number": start.number, "slots": self._threads})

    def granted(self, number: int, incarnation: int, fds: Dict[str, int], now: float) -> None:
        """Fork the worker. Its page, loans and log stay the caller's."""
        worker = next(
            (one for one in self._workers.values() if one.state == policy.GRANTING and one.number == number), None
        )
        if worker is None:
            cause = _why("it was no longer wanted", 0, 0, False)
            self._tell({"op": "gone", **_who(number, incarnation, 0), **cause})
            return
        ends: Tuple[socket.socket, ...] = ()
        try:
            ends = ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            closing = [sock.fileno() for sock in (ours, *self._sockets.values())] + self._inherited()
            limit = policy.request_limit(self._options, incarnation)
            place = Place(number, incarnation, fds["page"], fds["loans"], fds["log"], theirs.fileno(), limit)
            pid = self._host.fork(place, self._group, self._generation, self._frontends, closing)
        except OSError as error:
            for end in ends:
                end.close()
            self._forget(worker, False, now)
            cause = _why("it could not be forked: %s" % error.strerror, -1, 0, False)
            self._tell({"op": "gone", **_who(number, incarnation, 0), **cause})
            return
        theirs.close()
        ours.setblocking(False)
        self._sockets[pid] = ours
        worker = policy.change(worker, policy.STARTING, now)._replace(worker=incarnation, pid=pid)
        self._workers[worker.key] = worker
        self._map(worker.key, fds["page"])
        self._tell({"op": "up", **_who(number, incarnation, pid)})

    def _map(self, key: int, page: int) -> None:
        try:
            self._pages[key] = Mapping(page, page_size(self._threads))
        except OSError as error:
            # It works all the same, and counts as one that never runs anything.
            self._host.log(WARNING, "a worker's page could not be mapped: %s" % error.strerror)

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
            self._reported(pid, data, now)

    def _reported(self, pid: int, data: bytes, now: float) -> None:
        kind, text = read_report(data)
        worker = self._by_pid(pid)
        if kind == FAILED:
            self._told[pid] = text
        elif worker is None:
            return
        elif kind == WORN:
            limit = policy.request_limit(self._options, worker.worker)
            seen = worker.seen._replace(requests=max(worker.seen.requests, limit))
            self._workers[worker.key] = worker._replace(seen=seen)
        elif worker.state == policy.STARTING:
            self._told.pop(pid, None)  # it was about to be late
            worker = policy.change(worker, policy.LOADED, now)._replace(shown=0.0)
            self._workers[worker.key] = worker._replace(loaded=now, seen=worker.seen._replace(active=now))
            self._tell({"op": "ready", "number": worker.number, "worker": worker.worker})

    def serving(self, incarnation: int, now: float) -> None:
        """Every front end has reached this worker."""
        for worker in self._by_incarnation(incarnation):
            if worker.state == policy.LOADED:
                self._workers[worker.key] = policy.change(worker, policy.READY, now)
                self._prove = False

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
            worker = self._by_pid(pid)
            if worker is not None:
                self._ended(worker, status, now)

    def _ended(self, worker: Worker, status: int, now: float) -> None:
        asked = worker.state == policy.RETIRING or self.draining
        cause, code, number = cause_of(status, asked, self._told.pop(worker.pid, ""), EXITS)
        loaded = bool(worker.loaded)
        who = _who(worker.number, worker.worker, worker.pid)
        self._tell({"op": "gone", **who, **_why(cause, code, number, loaded)})
        # Also one that was not asked by us: by SIGTERM, or by its application.
        self._forget(worker, loaded and code == 0, now)

    def _forget(self, worker: Worker, orderly: bool, now: float) -> None:
        if not worker.failed:  # its trouble has been noted already
            trouble = self._troubles.get(worker.number, Trouble())
            self._troubles[worker.number] = policy.after_end(trouble, worker, orderly, now)
        del self._workers[worker.key]
        page = self._pages.pop(worker.key, None)
        if page is not None:
            page.close()

    def frontends(self, frontends: Sequence[Dict[str, Any]]) -> None:
        """The front ends are now these."""
        self._frontends = [FrontEnd(**frontend) for frontend in frontends]
        packet = order_frontends(self._frontends)
        for pid in list(self._sockets):
            self._order(pid, packet)

    def retire(self, incarnation: int, now: float) -> None:
        """Ask one worker for its orderly end."""
        for worker in self._by_incarnation(incarnation):
            self._retire(worker, "it was asked to", now)

    def leave(self, incarnation: int, cause: str, after: float, now: float) -> None:
        """A request in this worker does not end: show where it is, end it if that can be, and let it take no more."""
        for worker in self._by_incarnation(incarnation):
            self._told[worker.pid] = cause
            self._order(worker.pid, order_stuck(after))
            self._retire(worker, cause, now)

    def slow(self, incarnation: int, after: float) -> None:
        """Have a worker show the requests that have run for so long."""
        for worker in self._by_incarnation(incarnation):
            self._order(worker.pid, order_slow(after))

    def stack(self, incarnation: int, fd: int) -> None:
        """Have a worker write all its stacks to fd, which stays the caller's."""
        for worker in self._by_incarnation(incarnation):
            self._order(worker.pid, order_stack(), fd)

    def kill(self, incarnation: int, cause: str) -> None:
        """End this worker at once."""
        for worker in self._by_incarnation(incarnation):
            self._kill(worker, cause)

    def _kill(self, worker: Worker, cause: str) -> None:
        self._told[worker.pid] = cause
        os.kill(worker.pid, signal.SIGKILL)

    def drain(self, now: float) -> None:
        """Ask all for their orderly end; nobody follows."""
        self.draining = True
        for worker in list(self._workers.values()):
            if worker.pid:
                self._retire(worker, "its generation ends", now)
            else:
                del self._workers[worker.key]

    def _retire(self, worker: Worker, why: str, now: float) -> None:
        if worker.state in (policy.STARTING, policy.LOADED, policy.READY):
            self._workers[worker.key] = policy.change(worker, policy.RETIRING, now)._replace(going=why)
            self._order(worker.pid, order_retire())
            self._tell({"op": "retiring", "worker": worker.worker, "cause": why})

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

    def _by_pid(self, pid: int) -> "Worker | None":
        return next((worker for worker in self._workers.values() if worker.pid == pid), None)

    def _by_incarnation(self, incarnation: int) -> List[Worker]:
        return [worker for worker in self._workers.values() if worker.worker == incarnation and worker.pid]


def options_of(record: Dict[str, Any]) -> Options:
    """The group's, from the manager's record. Without "pool" the number of workers is fixed, and none is recycled."""
    return Options(
        record["processes"],
        record["processes"],
        record["threads"],
        start_timeout=record["start_timeout"],
        cores=len(os.sched_getaffinity(0)),
    )._replace(**record.get("pool", {}))


def _who(number: int, worker: int, pid: int) -> Dict[str, Any]:
    return {"number": number, "worker": worker, "pid": pid}


def _why(cause: str, code: int, number: int, loaded: bool) -> Dict[str, Any]:
    return {"cause": cause, "code": code, "signal": number, "loaded": loaded}
