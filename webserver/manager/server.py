"""One manager: its record, its plugin, and what it and the supervisor tell each other.

Order matters: environment, directory and umask before the plugin is opened, everything that is loaded before the first
fork, so that workers share it.
"""

import gc
import os
import select
import signal
import sys
import time
from typing import Any, Dict, List

from webserver.manager import left, watch
from webserver.manager.host import ERROR, WARNING, Host, HostError
from webserver.manager.plugins import NoPlugin, choose
from webserver.manager.pool import Pool
from webserver.wire.control import STARVED_WAIT, Control, ControlClosed, ControlError, ControlStarved, close_all

BEAT_SECONDS = 5.0
THREADS = (
    "preloading left threads that no worker will have: %s; start them after the fork: webserver-groups(5), Preloading"
)
SHARED = (
    "preloading left open what all workers now share: %s; what one of them does there, another meets. Close it before"
    " preloading ends, or open it after the fork: webserver-groups(5), Preloading"
)


class Manager:
    """See the module. `run` returns the exit status."""

    def __init__(self, control: Control, record: Dict[str, Any]) -> None:
        self._control = control
        self._record = record
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def run(self) -> int:
        record = self._record
        os.environ.clear()
        os.environ.update(record["environment"])
        try:
            os.umask(record["umask"])
            os.chdir(record["directory"])
        except OSError as error:
            return self._failed(None, "directory %s: %s" % (record["directory"], error.strerror))
        try:
            host = Host(record["host"])
        except OSError as error:
            return self._failed(None, str(error))
        host.title("webserver: manager %s" % record["group"], "manager")
        if not host.tie(os.getppid()):
            return 1
        # Before anything is loaded: what changes while it is loaded has changed.
        self._watch = watch.of(record, lambda file: self._control.send({"op": "outdated", "file": file}))
        settings = [(name, value) for name, value in record["settings"]]
        try:
            plugin = choose(record["plugin"], record["language"])
            host.open(plugin, settings, record["processes"], record["threads"])
            tasks, descriptors = left.tasks(), left.descriptors()
            host.preload()
        except (HostError, NoPlugin) as error:
            return self._failed(host, str(error))
        threads, shared = left.threads(tasks), left.shared(descriptors)
        if threads:
            host.log(WARNING, THREADS % ", ".join(threads))
        if shared:
            host.log(WARNING, SHARED % ", ".join(shared))
        # What is here now is shared with every worker; a collection there would only copy its pages.
        gc.collect()
        gc.freeze()
        loaded = {"op": "loaded", "language_version": host.version, "threads_left": threads, "shared": shared}
        self._control.send(loaded)
        self._pool = Pool(host, record, self._control.send, self._own_descriptors)
        return self._loop()

    def _failed(self, host: "Host | None", message: str) -> int:
        if host is not None:
            host.log(ERROR, message)
        else:
            sys.stderr.write(message + "\n")
        self._control.send({"op": "failed", "message": message})
        return 1

    def _own_descriptors(self) -> List[int]:
        """What a worker must not keep."""
        watched = [self._watch.reader] if self._watch.reader >= 0 else []
        return [self._control.fileno(), self._wake_read, self._wake_write, *watched]

    def _loop(self) -> int:
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _only_wake)
        signal.signal(signal.SIGTERM, _only_wake)
        pool = self._pool
        beat = time.monotonic() + BEAT_SECONDS
        pool.tick(time.monotonic())
        while True:
            now = time.monotonic()
            poll = select.poll()
            poll.register(self._control, select.POLLIN)
            poll.register(self._wake_read, select.POLLIN)
            sockets = {sock.fileno(): sock for sock in pool.sockets()}
            for fd in sockets:
                poll.register(fd, select.POLLIN)
            if self._watch.reader >= 0:
                poll.register(self._watch.reader, select.POLLIN)
            wait = max(0.0, min(beat, pool.next_time(now), self._watch.next_time()) - now)
            events = poll.poll(wait * 1000 + 1 if wait else 0)
            now = time.monotonic()
            for fd, _ in events:
                if fd in sockets:
                    pool.report(sockets[fd], now)
                elif fd == self._wake_read:
                    if signal.SIGTERM in self._signals() and not pool.draining:
                        pool.drain(now)
                elif fd == self._watch.reader:
                    self._watch.hear()
                elif not self._obey(now):
                    # End of file: the supervisor is dead, and so are we. Workers see our end in turn.
                    return 1
            pool.reap(now)
            pool.tick(now)
            try:
                self._watch.tick(now)
            except ControlError:
                pass  # the supervisor is gone, or does not read
            if now >= beat:
                beat = now + BEAT_SECONDS
                try:
                    self._control.send({"op": "beat"})
                except ControlClosed:
                    return 1
                except ControlError:
                    pass  # it is slow; the next beat will do
            if pool.draining and pool.empty:
                return 0

    def _signals(self) -> bytes:
        try:
            return os.read(self._wake_read, 4096)
        except BlockingIOError:
            return b""

    def _obey(self, now: float) -> bool:
        """Carry out one order; False at the end of the connection."""
        try:
            received = self._control.receive()
        except BlockingIOError:
            return True
        except ControlStarved:
            time.sleep(STARVED_WAIT)  # it keeps; workers' ends do too
            return True
        if received is None:
            return False
        message, fds = received
        op = message["op"]
        if op == "granted":
            self._pool.granted(message["number"], message["worker"], fds, now)
        elif op == "frontends":
            self._pool.frontends(message["frontends"])
        elif op == "wanted":
            self._pool.wanted(message["queued"], now)
        elif op == "serving":
            self._pool.serving(message["worker"], now)
        elif op == "retire":
            self._pool.retire(message["worker"], now)
        elif op == "leave":
            self._pool.leave(message["worker"], message["cause"], message["after"], now)
        elif op == "slow":
            self._pool.slow(message["worker"], message["after"])
        elif op == "stack":
            self._pool.stack(message["worker"], fds["stack"])
        elif op == "kill":
            self._pool.kill(message["worker"], message["cause"])
        elif op == "drain":
            self._pool.drain(now)
        else:
            sys.stderr.write("unknown order %r\n" % op)
        close_all(fds.values())
        return True


def _only_wake(number: int, frame: Any) -> None:
    """Signals only queue: the wake-up descriptor has the number."""
