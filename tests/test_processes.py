"""What each process has and may: descriptors, privileges, signals, wake-ups. Seen through /proc, with all languages."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import select
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from serving import GROUP_USER, ROOT, SERVER_USER, Server, wait_until

WSGI = """
import json, os, signal, subprocess, sys

def application(environ, start_response):
    print("printed by", os.getpid())
    script = "grep Sig /proc/self/status; ls -1 /proc/self/fd"
    out = subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout
    start_response("200 OK", [])
    return [out.encode()]
"""
CONFIG = """
[groups]
  [[shop]]
  language = python
  application = app.wsgi
  threads = 2
  [[blog]]
  language = php
  processes = 1
  [[plain]]
  language = echo
  processes = 1
[sites]
  [[all]]
  hosts = *
  root = public
    [[[routes]]]
    / = files
    /shop/ = group:shop
    /plain/ = group:plain
    .php = group:blog
"""


@pytest.fixture
def running(server: Server) -> Server:
    server.file("app.wsgi", WSGI)
    server.file("public/index.html", "static")
    server.file("public/a.php", "<?php echo 1;")
    server.write(CONFIG)
    server.start()
    for path in ("/", "/shop/", "/plain/", "/a.php"):
        assert server.get(path).status == 200
    return server


def descriptors(pid: int) -> dict[int, str]:
    """What each descriptor leads to: a path, or its kind with the number that tells one from another."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def listening() -> set[str]:
    """Sockets of this machine that listen on TCP, as /proc/PID/fd shows them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}


def kind(target: str) -> str:
    return re.sub(r":?\[?\d*\]?$", "", target) if target.startswith(("pipe:", "socket:")) else target


KINDS = {
    "front end": {"/dev/null", "pipe", "socket", "anon_inode:[eventpoll]", "anon_inode:[eventfd]",
                  "anon_inode:[timerfd]"},
    "manager": {"/dev/null", "pipe", "socket"},
    "worker": {"/dev/null", "pipe", "socket", "anon_inode:[eventpoll]", "anon_inode:[eventfd]"},
    # The memfd: entries that are not written yet, for the logger that follows.
    "logger": {"/dev/null", "pipe", "socket", "anon_inode:[eventpoll]", "/memfd:log (deleted)"},
}  # fmt: skip


def test_each_process_has_the_descriptors_that_it_needs(running: Server) -> None:
    listeners = listening()
    supervisor = descriptors(running.pids("supervisor")[0])
    logs = {str(running.error_log), str(running.access_log)}
    for process in running.status()["processes"]:
        if process["kind"] == "supervisor":
            continue
        found = descriptors(process["pid"])
        if process["kind"] == "logger":
            # A log may be "stderr" or "stdout", also from the next reload on: those of webserverd.
            found = {number: target for number, target in found.items() if number > 2}
        paths = {target for target in found.values() if kind(target) not in KINDS[process["kind"]]}
        # opcache's lock file is its own; sites' directories are opened as such, for what lies below them.
        paths = {path for path in paths if not re.match(r"/tmp/\.ZendSem\.\w+ \(deleted\)", path)}
        allowed = {"logger": logs, "front end": {str(running.directory / "public")}}.get(process["kind"], set())
        assert paths <= allowed, f"{process['kind']} {process['name']}: {paths}"
        held = set(found.values())
        if process["kind"] != "front end":
            assert not held & listeners
        # The supervisor's own sockets (control, signals, its ends of connections) are nobody else's.
        shared = {target for target in held & set(supervisor.values()) if target.startswith("socket:")}
        assert shared <= listeners, f"{process['kind']} {process['name']} shares {shared} with the supervisor"
        if process["kind"] == "worker":
            assert found[1] == found[2]
            assert len({target for target in held if target.startswith("pipe:")}) == 1


def test_what_an_application_starts_gets_nothing(running: Server) -> None:
    """No descriptor but the standard ones (and that of the listing), and no signal that is ignored or blocked."""
    lines = running.get("/shop/").text.splitlines()
    signals = {
        line.split(":")[0]: int(line.split(":")[1], 16) for line in lines if line.startswith(("SigIgn", "SigBlk"))
    }
    # 32 and 33 are the C library's own: ignored by whoever was started with posix_spawn, as by make, and nobody can set
    # them back.
    assert (signals["SigIgn"] & ~(3 << 31), signals["SigBlk"]) == (0, 0)
    assert [line for line in lines if line.isdigit()] == ["0", "1", "2", "3"]


def test_what_an_application_prints_is_its_worker_s(running: Server) -> None:
    """At once, and under the worker's own process id."""
    running.get("/shop/")
    wait_until(lambda: re.search(r"group shop (\d+): printed by \1\n", running.log()), "it is not in the log")


def test_nobody_can_get_privileges(running: Server) -> None:
    """Every process but the supervisor: no capability, none to be had, no way to root, and its own user."""
    for process in running.status()["processes"]:
        if process["kind"] == "supervisor":
            continue
        found = status_of(process["pid"])
        assert found["NoNewPrivs"] == "1"
        capabilities = {name: int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd")}
        if not ROOT:
            del capabilities["CapBnd"]
        else:
            assert "0" not in found["Uid"].split() + found["Gid"].split() + found["Groups"].split()
        assert set(capabilities.values()) == {0}, process


def test_signals_by_hand_harm_nobody(running: Server) -> None:
    """What a terminal or a service manager sends to all is the supervisor's business."""
    before = [process["pid"] for process in running.status()["processes"]]
    for process in running.status()["processes"]:
        if process["kind"] != "supervisor":
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGWINCH):
                os.kill(process["pid"], number)
    for path in ("/", "/shop/", "/plain/", "/a.php"):
        assert running.get(path).status == 200
    assert [process["pid"] for process in running.status()["processes"]] == before


def wake_ups(pid: int) -> int:
    return sum(
        int(re.findall(r"^voluntary_ctxt_switches:\s*(\d+)", (task / "status").read_text(), re.M)[0])
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


def test_nobody_spins_when_there_is_nothing_to_do(running: Server) -> None:
    """Under five wake-ups a second each, with idle connections open; workers sleep altogether."""
    seconds = 4
    idle = [running.connect() for _ in range(20)]
    try:
        processes = running.status()["processes"]
        select.select([], [], [], 0.5)  # what the start and the status command have stirred up
        before = {process["pid"]: wake_ups(process["pid"]) for process in processes}
        select.select([], [], [], seconds)
        for process in processes:
            count = wake_ups(process["pid"]) - before[process["pid"]]
            most = 2 if process["kind"] == "worker" else 5 * seconds
            assert count <= most, f"{json.dumps(process)}: {count} wake-ups in {seconds} s"
    finally:
        for sock in idle:
            sock.close()


CONNECT = "import socket, sys\nsocket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"


def connects(user: str, group: str, path: Path) -> bool:
    """Whether a process of this user can connect to the socket."""
    program = ["/usr/bin/python3", "-I", "-S", "-c", CONNECT, str(path)]
    result = subprocess.run(program, user=user, group=group, extra_groups=[], capture_output=True, text=True)
    assert result.returncode == 0 or "PermissionError" in result.stderr, result.stderr
    return result.returncode == 0


def test_the_wall_between_groups(server: Server) -> None:
    """One group's user cannot even reach the sockets of another; without root there is no wall, and status says so."""
    server.write(
        "[groups]\n[[one]]\nlanguage = echo\nprocesses = 1\n[[two]]\nlanguage = echo\nprocesses = 1\n"
        "[sites]\n[[all]]\nhosts = *\n[[[routes]]]\n/ = group:one\n/two/ = group:two\n"
    )
    if ROOT:
        text = server.config_file.read_text()
        server.configure(text.replace("[[two]]\nlanguage = echo\nuser = nobody", OTHER))
    server.start()
    assert server.get("/").status == server.get("/two/").status == 200
    assert server.status()["separated"] is ROOT
    users = {"one": GROUP_USER, "two": "games"} if ROOT else {}
    for group, user in users.items():
        account, front_end = pwd.getpwnam(user), pwd.getpwnam(SERVER_USER)
        directories = [
            path for path in (server.directory / "run/ipc").iterdir() if path.stat().st_gid == account.pw_gid
        ]
        assert len(directories) == 1, f"{group} has {directories}"
        found = directories[0].stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o2710, front_end.pw_uid)
        for path in directories[0].iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert path.stat().st_gid == account.pw_gid
            others = [other for other in users.values() if other != user]
            assert not any(connects(other, grp.getgrgid(pwd.getpwnam(other).pw_gid).gr_name, path) for other in others)
            assert connects(user, grp.getgrgid(account.pw_gid).gr_name, path), "its own user may"
    server.allow("broke the channel", "connections are closed")


OTHER = "[[two]]\nlanguage = echo\nuser = games"
DYING = """
import os, sys
os.write(2, b"raw, while it loads\\n")
sys.stderr.write("while it dies")
sys.stderr.flush()
os.abort()
"""


def test_what_is_said_while_an_application_loads_and_dies(server: Server) -> None:
    """S48: under its process id, though no request and no plugin's channel was there yet; other groups go on."""
    server.file("app.wsgi", DYING)
    server.write(CONFIG)
    server.allow("SIGABRT", "group shop")
    server.start()
    said = wait_until(
        lambda: re.search(r"group shop (\d+): raw, while it loads\n.*group shop \1: while it dies\n", server.log()),
        "it is not in the log",
    )
    wait_until(lambda: f"(process {said[1]}): killed by SIGABRT" in server.log(), "nor how it ended")
    assert "group shop: " not in server.log().replace("group shop: worker", "").replace("group shop: its manager", "")
    assert server.get("/plain/").status == 200
