"""A slow disk, for one process: each of its system calls on files waits before it is done.

By strace(1), which delays them where they are made, so that what waits is what waits for a disk: the thread that made
the call, in the middle of it. A machine without the right to trace has the whole process stopped and continued in
turns instead, which is the same for a process of one thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable

CALLS = {"log": "write,openat", "files": "pwrite64,pread64,sendfile,openat,fallocate"}
DELAYS = {"log": 0.25, "files": 0.02}  # seconds for each call
ATTACH = 3.0  # seconds
DETACH = 10.0
RUNS = 0.02  # seconds of each turn, where it is stopped and continued


class Tracer:
    def __init__(self, pid: int, what: str) -> None:
        self._pid = pid
        self._delay = DELAYS[what]
        self._over = threading.Event()
        self._pulse: threading.Thread | None = None
        self._strace = self._attach(CALLS[what])
        self.how = f"{self._delay:g} s a call"
        if self._strace is None:
            self.how += ", stopped"
            self._pulse = threading.Thread(target=self._stop_and_go, name="slow")
            self._pulse.start()

    def _attach(self, calls: str) -> subprocess.Popen[bytes] | None:
        microseconds = int(self._delay * 1e6)
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", "signal=none"]
        command += ["-e", f"inject={calls}:delay_enter={microseconds}", "-p", str(self._pid)]
        try:
            tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        except FileNotFoundError:
            return None
        with contextlib.suppress(OSError):
            if _wait_for(lambda: _traced(self._pid), tracer, ATTACH):
                return tracer
        tracer.kill()
        tracer.wait()
        assert tracer.stderr is not None
        tracer.stderr.close()
        return None

    def end(self) -> None:
        self._over.set()
        if self._pulse is not None:
            self._pulse.join()
        if self._strace is None:
            return
        self._strace.send_signal(signal.SIGINT)
        try:
            self._strace.wait(DETACH)
        except subprocess.TimeoutExpired:
            self._strace.kill()
            self._strace.wait()
        assert self._strace.stderr is not None
        self._strace.stderr.close()

    def _stop_and_go(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            while not self._over.wait(RUNS):
                os.kill(self._pid, signal.SIGSTOP)
                self._over.wait(self._delay)
                os.kill(self._pid, signal.SIGCONT)


def _traced(pid: int) -> bool:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in file)


def _wait_for(condition: Callable[[], bool], tracer: subprocess.Popen[bytes], seconds: float) -> bool:
    for _ in range(int(seconds / 0.01)):
        if condition():
            return True
        if tracer.poll() is not None:
            return False
        select.select([], [], [], 0.01)
    return False
