"""Another server program in the place of one that runs: by webserverctl upgrade and by USR2, under load, and in vain."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import SLOWNESS, Server, alive, descendants, free_port, program, started, tree, wait_until
from under_load import GROUPS, PATHS, SITES, WSGI, Caller, Load, busy, write_files

CONFIG = GROUPS.format(more="").replace("processes = 4", "processes = 2") + SITES
TIMES = int(os.environ.get("WEBSERVER_TIMES", "0"))


@pytest.fixture
def place(server: Server) -> Iterator[Server]:
    write_files(server)
    server.write(CONFIG)
    yield server
    end_all(server)


def end_all(server: Server) -> None:
    """What a failed test has left: the programs that followed are no children of ours."""
    pid = named(server)
    if pid and server.process is not None and pid != server.process.pid and server.process.poll() is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not alive(pid), "it does not end", 30 * SLOWNESS)


def named(server: Server) -> int:
    """Whom the pid file names."""
    try:
        return int((server.directory / "run/webserverd.pid").read_text())
    except (FileNotFoundError, ValueError):
        return 0


def supervisors(server: Server) -> dict[str, int]:
    return {one["name"]: one["pid"] for one in server.status()["processes"] if one["kind"] == "supervisor"}


def upgraded(server: Server, before: int) -> int:
    """Waits until another program serves and the one before has ended; its pid."""
    wait_until(lambda: named(server) not in (0, before), "no other program serves", 60 * SLOWNESS)
    wait_until(lambda: set(supervisors(server)) == {""}, "the program before does not end", 60 * SLOWNESS)
    server.look()
    return named(server)


def test_upgrade_under_load(place: Server) -> None:
    """S6: everything is new, and nobody has noticed."""
    place.start()
    with Load(place, PATHS) as load:
        for _ in range(TIMES or 2):
            old = {one["pid"] for one in place.status()["processes"]}
            generations = [one["generation"] for one in place.status()["groups"]]
            pid = named(place)
            answer = json.loads(place.ctl("upgrade", "--json").stdout)
            assert answer["pid"] == named(place)
            upgraded(place, pid)
            place.look()
            now = {one["pid"] for one in place.status()["processes"]}
            assert not old & now
            assert [one["generation"] for one in place.status()["groups"]] == [number + 1 for number in generations]
            load.progress()
    assert load.lost == []
    assert load.answers == {200: load.asked}
    # The process that was started stands in for the one that serves.
    assert place.process is not None
    assert place.process.poll() is None
    assert named(place) in descendants(place.process.pid)


def test_new_connections_under_upgrades(server: Server) -> None:
    """Clients that connect for each request, also by a unix socket: none is refused or reset."""
    write_files(server)
    server.write(CONFIG)
    text = server.config_file.read_text()
    path = str(server.directory / "run/web.sock")
    server.configure(text.replace(f":{server.port}", f":{server.port}, unix:run/web.sock"))
    server.start()
    callers = [
        Caller(family, address)
        for family, address in ((socket.AF_INET, ("127.0.0.1", server.port)), (socket.AF_UNIX, path))
        for _ in range(2)
    ]
    try:
        for _ in range(2):
            pid = named(server)
            server.ctl("upgrade")
            upgraded(server, pid)
            answered = [caller.answered for caller in callers]
            wait_until(
                lambda answered=answered: all(c.answered > a + 20 for c, a in zip(callers, answered, strict=True)),
                "nobody is answered",
            )
    finally:
        for caller in callers:
            caller.end()
    assert [caller.lost for caller in callers] == [[]] * 4
    assert [caller.refused for caller in callers] == [0] * 4
    assert os.path.exists(path)
    server.stop()
    assert not os.path.exists(path)


def test_usr2(place: Server) -> None:
    place.start()
    assert place.process is not None
    pid = named(place)
    place.process.send_signal(signal.SIGUSR2)
    second = upgraded(place, pid)
    # Signals to the process that was started reach the one that serves.
    place.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "HUP: reload" in place.log(), "HUP is not handed on")
    place.process.send_signal(signal.SIGUSR2)
    upgraded(place, second)
    assert place.get("/shop/").text == "first"
    place.stop()
    assert not (place.directory / "run/webserverd.pid").exists()
    assert not (place.directory / "run/control.sock").exists()


def test_a_long_request_outlives_its_program(place: Server) -> None:
    """The old program ends when its last request does, and shows meanwhile that it is there."""
    place.start()
    with place.connect() as slow:
        slow.sendall(b"GET /plain/sleep/%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % (5000 * SLOWNESS))
        wait_until(lambda: busy(place, "plain") == 1, "the sleeper does not run")
        pid = named(place)
        place.ctl("upgrade")
        assert supervisors(place) == {"": named(place), "before": pid}
        again = place.ctl("upgrade", check=False)
        assert again.returncode == 1
        assert f"process {pid}" in again.stderr
        assert slow.recv(12) == b"HTTP/1.1 200"
    upgraded(place, pid)


BROKEN = {
    "a configuration with a mistake": ("processes = 2", "processors = 2", "webserver.conf:"),
    "an address of somebody else": ("listen = 127.0.0.1:", "listen = 192.0.2.1:80, 127.0.0.1:", "cannot listen"),
    "a log that cannot be opened": ("error_log = logs/error.log", "error_log = missing/error.log", "missing"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_program_that_cannot_start_changes_nothing(place: Server, case: str) -> None:
    place.allow("upgrade: ", "cannot listen")
    place.start()
    text = place.config_file.read_text()
    pids = {one["pid"] for one in place.status()["processes"]}
    old, new, said = BROKEN[case]
    with Load(place, PATHS) as load:
        place.configure(text.replace(old, new, 1))
        result = place.ctl("upgrade", check=False)
        assert result.returncode == 1
        assert said in result.stderr
        assert "the old program goes on" in result.stderr
        load.progress()
        assert {one["pid"] for one in place.status()["processes"]} == pids
        place.configure(text)
        before = named(place)
        place.ctl("upgrade")
        upgraded(place, before)
    assert load.lost == []
    assert load.answers == {200: load.asked}


def test_an_application_that_does_not_start_keeps_the_old_program(place: Server) -> None:
    place.allow("upgrade: ", "group shop", "supervisor: webserverd: ")  # what the new program has said, line by line
    place.start()
    pids = {one["pid"] for one in place.status()["processes"]}
    place.file("app.wsgi", "def application(:\n")
    with Load(place, PATHS) as load:
        result = place.ctl("upgrade", check=False)
        assert result.returncode == 1
        assert "app.wsgi:1" in result.stderr
        load.progress()
    assert load.lost == []
    assert load.answers == {200: load.asked}
    assert {one["pid"] for one in place.status()["processes"]} == pids
    assert place.get("/shop/").text == "first"
    place.file("app.wsgi", WSGI % "second")
    place.ctl("restart", "shop")
    assert place.get("/shop/").text == "second"


def copy_of_the_program(server: Server) -> Path:
    """A tree of its own, so that the next program can be another one."""
    target = server.directory / "tree"
    for name in ("webserver", "build/lib", "tools", ".venv"):
        shutil.copytree(tree() / name, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([target / "tools/entry-points", target / ".venv"], check=True)
    return target


@pytest.mark.parametrize("how", ["cannot be loaded", "dies", "hangs and is told to end"])
def test_a_broken_program_changes_nothing(place: Server, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    place.allow("supervisor: ")  # what the new program has said, line by line
    target = copy_of_the_program(place)
    monkeypatch.setenv("WEBSERVER_BIN", str(target / ".venv/bin"))
    place.start()
    program_file = target / "webserver/cli/webserverd.py"
    text = program_file.read_text()
    code = {"cannot be loaded": "import nothing_of_this_name\n", "dies": "import os; os.abort()\n"}.get(
        how, "import time; time.sleep(600)\n"
    )
    program_file.write_text(code + text.replace("from __future__ import annotations\n", ""))
    if how.startswith("hangs"):
        pid = named(place)
        with subprocess.Popen(
            [program("webserverctl"), "--config", str(place.config_file), "upgrade"], stderr=subprocess.PIPE
        ) as command:
            child = wait_until(lambda: successor(pid), "no other program is started")
            assert place.get("/shop/").text == "first"
            os.kill(child, signal.SIGTERM)
            _, said = command.communicate(timeout=30 * SLOWNESS)
        assert b"SIGTERM" in said
    else:
        result = place.ctl("upgrade", check=False)
        assert result.returncode == 1
        wanted = {"cannot be loaded": "nothing_of_this_name", "dies": "SIGABRT"}[how]
        assert wanted in result.stderr
    assert place.get("/shop/").text == "first"
    place.ctl("reload")
    program_file.write_text(text)
    before = named(place)
    place.ctl("upgrade")
    upgraded(place, before)
    assert place.get("/shop/").text == "first"


def successor(pid: int) -> int:
    for child in descendants(pid):
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{child}/environ").read_bytes()
            if b"WEBSERVERD_HANDOVER=" in environment:
                return child
    return 0


def test_what_only_a_start_can_change(place: Server) -> None:
    """The number of front ends, addresses, the user's limits: an upgrade takes a new configuration whole."""
    place.start()
    text = place.config_file.read_text()
    port = free_port()
    with Load(place, PATHS) as load:
        for number, listen in ((3, f"127.0.0.1:{place.port}, 127.0.0.1:{port}"), (1, f"127.0.0.1:{place.port}")):
            place.configure(
                text.replace("frontends = 2", f"frontends = {number}").replace(f"127.0.0.1:{place.port}", listen)
            )
            before = named(place)
            place.ctl("upgrade")
            upgraded(place, before)
            assert len(place.pids("front end")) == number
            load.progress()
            with contextlib.closing(socket.socket()) as sock:
                assert (sock.connect_ex(("127.0.0.1", port)) == 0) is (number == 3)
    assert load.lost == []
    assert load.answers == {200: load.asked}


def test_term_during_an_upgrade_ends_both(place: Server) -> None:
    place.allow("upgrade: ")
    place.file("app.wsgi", "import time; time.sleep(3)\n" + WSGI % "first")
    place.start()
    assert place.process is not None
    pid = named(place)
    place.process.send_signal(signal.SIGUSR2)
    child = wait_until(lambda: successor(pid), "no other program is started")
    place.seen[child] = started(child)
    place.process.send_signal(signal.SIGTERM)
    assert place.wait_for_end() == 0
    wait_until(lambda: not alive(child), "the other program is left")
    with contextlib.closing(socket.socket()) as sock:
        assert sock.connect_ex(("127.0.0.1", place.port)) != 0


def test_in_the_background(place: Server) -> None:
    """Without a terminal, a parent or a process that stands in: the pid file says who serves."""
    subprocess.run([program("webserverd"), "--config", str(place.config_file)], check=True, timeout=60 * SLOWNESS)
    first = named(place)
    try:
        with Load(place, PATHS) as load:
            os.kill(first, signal.SIGUSR2)
            second = upgraded(place, first)
            wait_until(lambda: not alive(first), "the program before is left")
            load.progress()
        assert load.lost == []
        assert load.answers == {200: load.asked}
        before = time.monotonic()
        place.ctl("stop")
        wait_until(lambda: not alive(second), "it does not end")
        assert time.monotonic() - before < 60 * SLOWNESS
        assert not (place.directory / "run/webserverd.pid").exists()
    finally:
        pid = named(place)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_the_stand_in_ends_as_the_server_does(place: Server) -> None:
    place.start()
    pid = named(place)
    place.ctl("upgrade")
    second = upgraded(place, pid)
    assert place.process is not None
    os.kill(second, signal.SIGKILL)
    assert place.wait_for_end() == 128 + signal.SIGKILL
    wait_until(lambda: not place.left(), "processes are left behind")
    assert place.process.stderr is not None
    place.process.stderr.close()
    place.process = None
