"""Processes of the server that have no descriptor left for a while: they go on afterwards as if nothing had been.

Each is given a limit at its next free number (prlimit), then something happens for which it needs descriptors.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest
from serving import ROOT, Server, free_port, wait_until

CONFIG = """
[groups]
  [[g]]
  language = echo
  processes = 1
  threads = 1
[sites]
  [[all]]
  hosts = *
    [[[routes]]]
    / = group:g
"""


# What tells from outside that the want of descriptors has been met.
SAID = {
    "manager": "killed by SIGKILL",
    "supervisor": "no page or log pipe for worker",
}


@contextlib.contextmanager
def starved(pid: int, at: int | None = None) -> Iterator[None]:
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = next(number for number in range(len(taken) + 1) if number not in taken)
    limit(pid, free if at is None else at)
    try:
        yield
    finally:
        limit(pid, None)


def limit(pid: int, number: int | None) -> None:
    """As the process's own user: root need not have CAP_SYS_RESOURCE."""
    owner = os.stat(f"/proc/{pid}")
    rights = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if ROOT else {}
    command = ["prlimit", f"--pid={pid}", "--nofile"]
    hard = subprocess.check_output([*command, "--output=HARD", "--noheadings", "--raw"], text=True, **rights).strip()
    command[-1] += f"={hard if number is None else number}:{hard}"
    subprocess.run(command, check=True, **rights)


@pytest.fixture
def one(server: Server) -> Server:
    server.allow("killed by SIGKILL", "descriptor", "Too many open files")
    server.write(CONFIG, "frontends = 1")
    return server.start()


def another_worker(one: Server, before: int) -> int:
    """The pid of the worker that has replaced this one."""
    wait_until(lambda: one.pids("worker") not in ([], [before], [0]), "the worker is not replaced")
    return one.pids("worker")[0]


@pytest.mark.parametrize("kind", ["manager", "supervisor"])
def test_a_worker_is_replaced_meanwhile(one: Server, kind: str) -> None:
    """Its page is a descriptor for the manager, and first of all for the supervisor."""
    with one.connect() as kept:
        kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.recv(65536).endswith(b"hello, world")
        worker, same = one.pids("worker")[0], one.pids(kind)
        with starved(same[0]):
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: f"(process {worker}): killed by SIGKILL" in one.log(), "the end is not told")
            wait_until(lambda: SAID[kind] in one.log(), "nothing was tried")
        kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.recv(65536).endswith(b"hello, world")
        assert one.pids(kind) == same
    assert another_worker(one, worker)


def test_a_listener_for_a_front_end(one: Server) -> None:
    """What it cannot take now it takes later; the connection to the supervisor outlives it."""
    (frontend,) = one.pids("front end")
    port = free_port()
    text = one.config_file.read_text()
    one.configure(text.replace(f"127.0.0.1:{one.port}", f"127.0.0.1:{one.port}, 127.0.0.1:{port}"))
    with starved(frontend, 3):
        one.ctl("reload")
        wait_until(lambda: "no descriptor is left for what comes on the control connection" in one.log(), "not told")
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(65536).endswith(b"hello, world")
    assert one.pids("front end") == [frontend]


def test_control_answers_again(one: Server) -> None:
    """The supervisor has no descriptor for a client of its control socket, and neither spins nor forgets it."""
    supervisor = one.pids("supervisor")[0]
    with starved(supervisor):
        before = os.times().elapsed
        spent = _ticks(supervisor)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(one.directory / "run/control.sock"))
            client.sendall(b'{"op": "status"}\n')
            wait_until(lambda: os.times().elapsed - before > 1.0, "")
            assert _ticks(supervisor) - spent < 50  # of a hundred in this second
            limit(supervisor, None)
            assert client.recv(65536).startswith(b"{")


def _ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        words = file.read().rpartition(")")[2].split()
    return int(words[11]) + int(words[12])


def test_the_logger(one: Server) -> None:
    """A pipe that it could not be given is given to it later, and what was written into it is in the log."""
    logger, worker = one.pids("logger")[0], one.pids("worker")[0]
    with starved(logger):
        os.kill(worker, signal.SIGKILL)
        pid = another_worker(one, worker)
        os.kill(pid, signal.SIGKILL)
        last = another_worker(one, pid)
        assert last
    wait_until(lambda: f"(process {pid}): killed by SIGKILL" in one.log(), "a line is missing")
    assert one.pids("logger") == [logger]
