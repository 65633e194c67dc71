"""Kills a front end, and says whose connections it held at that moment. A program of its own.

While the front end is stopped so that this can be read, what clients send it is lost with it: on a thread among those
of the load that took a tenth of a second, and cost all of them. Here it takes one or two milliseconds.

One line for each: PID PORT SIGNAL; the answer is one line of JSON: {"ports": [...], "at": time of its death}, or
{"error": text}. Ends at end of file.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from pathlib import Path

PIDFD_GETFD = 438  # the same on all machines
STOP_WAIT = 1.0  # seconds

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    for line in sys.stdin:
        pid, port, number = (int(word) for word in line.split())
        try:
            answer: dict[str, object] = strike(pid, port, signal.Signals(number))
        except OSError as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def strike(pid: int, port: int, number: signal.Signals) -> dict[str, object]:
    handle = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGSTOP)
        try:
            _wait_until_stopped(pid)
            ports = _held(pid, handle, port)
        finally:
            os.kill(pid, number)
            if number != signal.SIGKILL:
                os.kill(pid, signal.SIGCONT)
        # Not before it is gone: a fault's handler takes its time, and the other threads go on meanwhile.
        select.select([handle], [], [], STOP_WAIT)
        at = time.time()
    finally:
        os.close(handle)
    return {"ports": sorted(ports), "at": at}


def _wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + STOP_WAIT
    while time.monotonic() < deadline:
        states = [
            (task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()
        ]
        if all(state in "Tt" for state in states):
            return


def _held(pid: int, handle: int, port: int) -> set[int]:
    """The clients' ports of the connections to 127.0.0.1:`port` that the process holds."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        number = _libc.syscall(PIDFD_GETFD, handle, int(name), 0)
        if number < 0:
            if ctypes.get_errno() == 9:  # EBADF: it is gone
                continue
            return _held_by_name(pid, port)
        try:
            with socket.socket(fileno=number) as sock:
                if sock.family == socket.AF_INET and sock.getsockname() == ("127.0.0.1", port):
                    found.add(int(sock.getpeername()[1]))
        except OSError:  # no socket, or not connected
            with contextlib.suppress(OSError):
                os.close(number)
    return found


def _held_by_name(pid: int, port: int) -> set[int]:
    """The same where a descriptor cannot be had: slower."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            link = os.readlink(f"/proc/{pid}/fd/{name}")
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    address = f"{struct.unpack('=I', socket.inet_aton('127.0.0.1'))[0]:08X}:{port:04X}"
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1] == address and words[9] in inodes:
            found.add(int(words[2].partition(":")[2], 16))
    return found


if __name__ == "__main__":
    main()
