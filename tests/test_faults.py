"""DESIGN's table of faults, process by process and moment by moment: who dies when, and what its client, other requests and
the next command see of it. A request that application code has seen is never run twice, one that it has not seen is run
elsewhere; every other group goes on.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import SLOWNESS, Server, alive, directory, program, wait_until

APPLICATION = """
import os, time

SCRATCH = os.environ["SCRATCH"]

def note(name, line):
    fd = os.open(os.path.join(SCRATCH, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(fd, (line + "\\n").encode())
    os.close(fd)

def gate(name):
    while not os.path.exists(os.path.join(SCRATCH, name)):
        time.sleep(0.005)

note("loads", str(os.getpid()))
if os.path.exists(os.path.join(SCRATCH, "slowly")):
    gate("load")

def application(environ, start_response):
    name, token = environ["PATH_INFO"].rpartition("/")[2], environ["QUERY_STRING"]
    note("begun", token)
    if name == "reads":
        environ["wsgi.input"].read()
    if name == "runs":
        gate("go")
    start_response("200 OK", [("Content-Type", "text/plain")])
    if name == "answers":
        return pieces()
    return [b"VERSION done\\n"]

def pieces():
    yield b"first\\n"
    gate("go")
    yield b"last\\n"
"""
CONFIG = """
[groups]
[[app]]
language = python
application = app.wsgi
processes = 1
[[[environment]]]
SCRATCH = {scratch}
{more}[[calm]]
language = echo
processes = 1
[sites]
[[all]]
hosts = *
[[[routes]]]
/ = group:calm
/app = group:app
"""


def prepare(server: Server) -> Path:
    scratch = server.directory / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    server.file("app.wsgi", APPLICATION.replace("VERSION", "one"))
    server.write(CONFIG.format(scratch=scratch, more=""))
    server.allow(".")
    return scratch


def noted(server: Server, name: str) -> list[str]:
    path = server.directory / "scratch" / name
    return path.read_text().split() if path.exists() else []


def open_gate(server: Server, name: str) -> None:
    server.file(f"scratch/{name}", "")


def ask(server: Server, opened: contextlib.ExitStack, target: str, more: str = "") -> socket.socket:
    sock = opened.enter_context(server.connect())
    method = "POST" if more else "GET"
    sock.sendall(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n".encode())
    return sock


def outcome(sock: socket.socket) -> str:
    """The answer's status; or "cut", if it has none or does not look whole."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            data += piece
    head, found, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    whole = found and (len(body) == int(length[1]) if length else body.endswith(b"0\r\n\r\n"))
    return head.split(b" ", 2)[1].decode() if whole else "cut"


def front_end_of(server: Server, sock: socket.socket) -> int | None:
    """Which front end has the other end of a connection; None: nobody has accepted it yet."""
    mine = sock.getsockname()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        ports = [int(word.rpartition(":")[2], 16) for word in words[1:3]]
        if ports == [server.port, mine]:
            for pid in server.pids("front end"):
                for fd in Path(f"/proc/{pid}/fd").iterdir():
                    with contextlib.suppress(OSError):
                        if os.readlink(fd) == f"socket:[{words[9]}]":
                            return pid
    return None


def victim_of(server: Server, victim: str, sock: socket.socket) -> int:
    if victim == "front end":
        found: int = wait_until(lambda: front_end_of(server, sock), "no front end has it")
        return found
    (pid,) = server.pids(victim, "app" if victim in ("worker", "manager") else None)
    return pid


def settled(server: Server, processes: int = 1) -> bool:
    """The group has one generation, all of its workers, and nothing under way; everybody else is there."""
    status = server.status()
    (group,) = (one for one in status["groups"] if one["name"] == "app")
    workers = [one for one in status["processes"] if one["kind"] == "worker" and one["group"] == "app"]
    others = [one for one in status["processes"] if one["kind"] in ("front end", "logger")]
    return (
        group["state"] == "running"
        and group["takeover"] is None
        and len(group["generations"]) == 1
        and len(workers) == processes
        and all(one["state"] == "ready" for one in workers)
        and len(others) == 3
        and all(one["pid"] and one["state"] == "running" for one in others)
    )


@contextlib.contextmanager
def another(server: Server) -> Iterator[list[int]]:
    """The statuses of another group's requests, asked for all the while; 0: the connection was cut or refused."""
    statuses: list[int] = []
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.02):
            try:
                statuses.append(server.get("/").status)
            except (OSError, http.client.HTTPException):
                statuses.append(0)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join()


def ends(server: Server) -> None:
    wait_until(lambda: settled(server), "it does not come back", 40 * SLOWNESS)


# ---- while requests run

# What the client of a request gets whose process is killed at that moment; and the one whose request waits meanwhile.
SEEN = {
    "worker": {"reads": "502", "runs": "502", "answers": "cut", "waits": "200"},
    "manager": {"reads": "502", "runs": "502", "answers": "cut", "waits": "200"},
    "front end": {"reads": "cut", "runs": "cut", "answers": "cut", "waits": "cut"},
    "logger": {"reads": "200", "runs": "200", "answers": "200", "waits": "200"},
}
CAUSES = {
    "worker": r"worker 0 of group app \(process {pid}\): killed by SIGKILL",
    "manager": r"manager of group app generation \d+ .*killed by SIGKILL",
    "front end": r"front end \d killed by SIGKILL",
    "logger": r"the logger killed by SIGKILL|logger.*killed by SIGKILL",
}


PART = 300_000  # of a body: a small one is complete before its request is placed


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with directory() as path:
        server = Server(path)
        prepare(server)
        server.start()
        yield server
        server.stop()


@pytest.mark.parametrize("moment", ["reads", "runs", "answers"])
@pytest.mark.parametrize("victim", SEEN)
def test_a_process_dies_while_requests_are_under_way(shared: Server, victim: str, moment: str) -> None:
    ends(shared)
    (shared.directory / "scratch/go").unlink(missing_ok=True)
    run, wait = f"{victim.replace(' ', '-')}.{moment}.run", f"{victim.replace(' ', '-')}.{moment}.wait"
    before = len(shared.log())
    with contextlib.ExitStack() as opened, another(shared) as statuses:
        one = ask(
            shared, opened, f"/app/{moment}?{run}", f"Content-Length: {2 * PART}\r\n" if moment == "reads" else ""
        )
        if moment == "reads":
            one.sendall(b"x" * PART)
        wait_until(lambda: run in noted(shared, "begun"), "it does not begin")
        if moment == "answers":
            assert b"first" in wait_for(one, b"first\n")
        other = ask(shared, opened, f"/app/quick?{wait}")
        pid = victim_of(shared, victim, other if victim == "front end" else one)
        victims = {pid, victim_of(shared, victim, one)}
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(alive, victims)), "it lives on")
        if victim == "logger":
            one.sendall(b"x" * PART if moment == "reads" else b"")
        open_gate(shared, "go")
        expected = SEEN[victim]
        assert (outcome(one), outcome(other)) == (expected[moment], expected["waits"])
        ends(shared)
        assert shared.get("/app/quick?after").status == 200
    assert set(statuses) - {0} == {200}, "another group was harmed"
    if victim != "front end":
        assert 0 not in statuses
    # Seen once, and what nobody wants any more not at all.
    begun = noted(shared, "begun")
    assert begun.count(run) == 1
    assert begun.count(wait) == (0 if victim == "front end" else 1)
    # The front ends die together here, so that nobody could be told of what they had.
    wait_until(lambda: re.search(CAUSES[victim].format(pid=pid), shared.log()[before:]), "the log does not say so")
    if "502" in (expected[moment], expected["waits"]):
        refusals = re.findall(r"request=(\w+): 502: group \"app\": .*", shared.log()[before:])
        assert len(refusals) == 1


def wait_for(sock: socket.socket, what: bytes) -> bytes:
    data = b""
    while what not in data:
        piece = sock.recv(65536, socket.MSG_PEEK)
        if what in piece:
            return piece
        assert piece
    return data


# ---- while something is changed


@contextlib.contextmanager
def command(server: Server, *words: str) -> Iterator[subprocess.Popen[str]]:
    """webserverctl, while it has not ended yet."""
    line = [program("webserverctl"), "--config", str(server.config_file), *words]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process


def processes_of(server: Server, kind: str, new: bool) -> list[int]:
    """Those of the group's old or new generation."""
    found = [one for one in server.status()["processes"] if one["kind"] == kind and one.get("group") == "app"]
    newest = max(one["generation"] for one in found)
    return [one["pid"] for one in found if (one["generation"] == newest) is new]


def version(server: Server) -> str:
    answer = server.get("/app/quick?version")
    return answer.text.split()[0] if answer.status == 200 else str(answer.status)


# Who dies while the new generation loads; whether the command succeeds; whose code serves in the end.
RESTARTS = {
    "old worker": (0, "two"),
    "new worker": (1, "one"),
    "new manager": (1, "one"),
    "front end": (0, "two"),
    "logger": (0, "two"),
}


@pytest.mark.parametrize("victim", [*RESTARTS, "old manager"])
def test_a_process_dies_in_a_restart(server: Server, victim: str) -> None:
    prepare(server)
    server.start()
    server.file("app.wsgi", APPLICATION.replace("VERSION", "two"))
    open_gate(server, "slowly")
    loads = len(noted(server, "loads"))
    with command(server, "restart", "app") as restart:
        wait_until(lambda: len(noted(server, "loads")) > loads, "the new generation does not load")
        age, _, kind = victim.partition(" ")
        pids = processes_of(server, kind, age == "new") if kind in ("worker", "manager") else server.pids(victim)[:1]
        (pid,) = pids
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid), "it lives on")
        open_gate(server, "load")
        said = restart.communicate(timeout=60 * SLOWNESS)
    ends(server)
    if victim == "old manager":
        # Nobody is left who could go on with the old code; what is said of the restart is true in any case.
        assert (version(server), restart.returncode in (0, 1)) == ("two", True), said
        return
    code, serves = RESTARTS[victim]
    assert (restart.returncode, version(server)) == (code, serves), said
    if code:
        assert "SIGKILL" in said[1]
        assert server.ctl("restart", "app").returncode == 0
        assert version(server) == "two"


@pytest.mark.parametrize("victim", ["new manager", "front end", "logger"])
def test_a_process_dies_in_a_reload(server: Server, victim: str) -> None:
    """A reload that is to add a group: it is there, or nothing has changed and the next reload adds it."""
    scratch = prepare(server)
    server.start()
    before = server.pids("worker", "app")
    more = (
        f"[[more]]\nlanguage = python\napplication = app.wsgi\nprocesses = 1\n[[[environment]]]\nSCRATCH = {scratch}\n"
    )
    server.write(CONFIG.format(scratch=scratch, more=more).replace("/app = ", "/more = group:more\n/app = "))
    open_gate(server, "slowly")
    loads = len(noted(server, "loads"))
    with command(server, "reload") as reload:
        wait_until(lambda: len(noted(server, "loads")) > loads, "the new group does not load")
        pid = server.pids("manager", "more")[0] if victim == "new manager" else server.pids(victim)[0]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid), "it lives on")
        open_gate(server, "load")
        said = reload.communicate(timeout=60 * SLOWNESS)
    ends(server)
    assert server.pids("worker", "app") == before
    if reload.returncode:
        assert victim == "new manager"
        assert "SIGKILL" in said[1]
        assert not server.pids("manager", "more")
        server.ctl("reload")
    wait_until(lambda: server.get("/more/quick?x").status == 200, "the group is not there")


# ---- while it starts, and while it ends


@pytest.mark.parametrize("victim", ["worker", "manager", "front end", "logger"])
def test_a_process_dies_while_the_server_starts(server: Server, victim: str) -> None:
    prepare(server)
    open_gate(server, "slowly")
    server.start(expect_ready=False)
    wait_until(lambda: noted(server, "loads"), "it does not load")
    if victim == "worker":
        pid = int(noted(server, "loads")[-1])
    else:
        (pid, *_) = server.pids(victim, "app" if victim == "manager" else None)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), "it lives on")
    open_gate(server, "load")
    server.wait_for_ready()
    wait_until(lambda: version(server) == "one", "it does not serve", 40 * SLOWNESS)
    ends(server)


@pytest.mark.parametrize("victim", SEEN)
def test_a_process_dies_while_the_server_ends(server: Server, victim: str) -> None:
    """The end is not held up, and who does not depend on the dead is answered."""
    prepare(server)
    server.start()
    with contextlib.ExitStack() as opened:
        one = ask(server, opened, "/app/runs?run")
        calm = ask(server, opened, "/sleep/1500")
        wait_until(lambda: "run" in noted(server, "begun"), "it does not begin")
        pid = victim_of(server, victim, one)
        same = victim == "front end" and front_end_of(server, calm) == pid
        assert server.process is not None
        server.look()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "TERM" in server.log(), "it does not begin to end")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid), "it lives on")
        open_gate(server, "go")
        assert outcome(one) == SEEN[victim]["runs"]
        assert outcome(calm) == ("cut" if same else "200")
        assert server.wait_for_end() == 0
    wait_until(lambda: not server.left(), "processes are left")
