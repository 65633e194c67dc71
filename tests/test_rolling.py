"""Restarts worker by worker, restarts by files, restarts that fail, and drains that have to come to an end.

Under load, with a client that never asks again: what was accepted is answered, by the old processes or the new.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import SLOWNESS, Server, program, wait_until
from under_load import GROUPS, PATHS, SITES, WSGI, Load, all_serve, busy, write_files

from webserver.supervisor.rolling import Rolling, Step, step

# Loads as often as the file "left" has lines, then never again.
COUNTED = """
import fcntl
with open(%r, "r+") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    lines = file.read().splitlines()
    if not lines:
        raise RuntimeError("no more of it can be loaded")
    file.seek(0)
    file.truncate()
    file.write("".join(line + "\\n" for line in lines[1:]))
""" + WSGI.replace("%s", "counted")


# The policy alone


@dataclass
class World:
    """What a takeover meets: workers come up, prove themselves and leave when they like."""

    processes: int
    extra: int
    old: int
    wanted: int
    leaving: int = 0
    proven: int = 0
    unproven: int = 0

    def rolling(self, began: int, needed: int) -> Rolling:
        asked = self.wanted - self.proven - self.unproven
        return Rolling(
            self.processes, self.extra, began, needed, self.old, self.leaving, self.proven, self.unproven, max(0, asked)
        )


@given(st.integers(1, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 2**32))
def test_a_takeover_keeps_its_promises(processes: int, extra: int, old: int, seed: int) -> None:
    """Never fewer that take requests than there were, never more than are allowed, and it comes to an end."""
    chance = random.Random(seed)
    world = World(processes, extra, old, processes)
    began, needed, proven_before_first_left = old, min(old, processes), 0
    for _ in range(10000):
        now = world.rolling(began, needed)
        what = step(now)
        if what is Step.DONE:
            break
        if what is Step.GRANT:
            world.unproven += 1
        elif what is Step.RETIRE:
            if not world.leaving and world.old == began:
                proven_before_first_left = world.proven
                assert proven_before_first_left >= 1
            world.old -= 1
            world.leaving += 1
        elif world.unproven and (not world.leaving or chance.random() < 0.5):
            world.unproven -= 1
            world.proven += 1
        else:
            assert world.leaving, f"it waits for nothing: {now}"
            world.leaving -= 1
        there = world.old + world.leaving + world.proven + world.unproven
        assert there <= max(processes, began) + (extra or max(processes, began))
        assert world.old + world.proven >= needed
    else:
        raise AssertionError("it has no end")
    assert world.proven == processes


def test_nothing_goes_before_it_is_accepted() -> None:
    now = Rolling(2, 1, 2, 2, old=2, leaving=0, proven=1, unproven=0, asked=1)
    assert step(now, retiring=False) is Step.WAIT
    assert step(now) is Step.RETIRE


# The real server


@pytest.fixture
def place(server: Server) -> Server:
    write_files(server)
    return server


def start(server: Server, more: str = "", groups: str = GROUPS) -> Server:
    server.write(groups.format(more=more) + SITES)
    return all_serve(server.start())


class Watcher:
    """Counts, again and again, the workers of a group."""

    def __init__(self, server: Server, group: str) -> None:
        self._server, self._group = server, group
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.counts: list[int] = []

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            self.counts.append(len(self._server.pids("worker", self._group)))


@pytest.mark.parametrize(("extra", "most"), [("1", 5), ("2", 6), ("all", 8)])
def test_a_restart_takes_no_more_workers_than_it_may(place: Server, extra: str, most: int) -> None:
    """S40, and S6: none is missing meanwhile. Nor does it take fewer, where loading takes long enough to be seen."""
    start(place, f"restart_extra = {extra}")
    loads = "import time\ntime.sleep(1)\n" if most > 5 else ""
    before = set(place.pids("worker", "shop"))
    with Load(place, PATHS) as load, Watcher(place, "shop") as watcher:
        for number in range(2):
            place.file("app.wsgi", loads + WSGI % number)
            place.ctl("restart", "shop")
            assert place.get("/shop/").text == str(number)
        load.progress()
    assert load.lost == []
    assert load.answers == {200: load.asked}
    assert min(watcher.counts) >= 4
    assert max(watcher.counts) == most if loads else max(watcher.counts) <= most
    assert not before & set(place.pids("worker", "shop"))


def test_a_reload_is_as_careful(place: Server) -> None:
    start(place)
    text = place.config_file.read_text()
    with Load(place, PATHS) as load, Watcher(place, "shop") as watcher:
        for number in range(2):
            place.configure(text.replace("processes = 4", f"processes = 4\n  umask = 03{number}"))
            place.ctl("reload")
            assert len(place.pids("worker", "shop")) == 4
        load.progress()
    assert load.lost == []
    assert load.answers == {200: load.asked}
    assert min(watcher.counts) >= 4
    assert max(watcher.counts) <= 5


def test_other_groups_keep_their_processes(place: Server) -> None:
    start(place)
    text = place.config_file.read_text()
    kept = set(place.pids("worker", "plain")) | set(place.pids("manager", "plain")) | set(place.pids("front end"))
    place.configure(text.replace("processes = 4", "processes = 3"))
    place.ctl("reload")
    place.ctl("restart", "shop")
    assert kept == set(place.pids("worker", "plain")) | set(place.pids("manager", "plain")) | set(
        place.pids("front end")
    )
    assert len(place.pids("worker", "shop")) == 3


@pytest.mark.parametrize("least", [0, 1])
def test_a_group_whose_workers_follow_its_work(place: Server, least: int) -> None:
    """With nothing to do one new worker shows that the code runs; under load none is missing afterwards."""
    place.file("app.wsgi", "import time\n" + (WSGI % "first").replace("    start", "    time.sleep(0.05)\n    start"))
    start(place, f"processes_min = {least}\n  idle_after = 60s")
    place.ctl("restart", "shop")
    assert place.get("/shop/").status == 200
    with Load(place, ["/shop/x"], clients=8) as load:
        wait_until(lambda: len(place.pids("worker", "shop")) == 4, "it does not grow")
        before = set(place.pids("worker", "shop"))
        place.ctl("restart", "shop")
        after = set(place.pids("worker", "shop"))
        assert not before & after
        assert len(after) >= 3
        load.progress(50)
    assert load.lost == []
    assert load.answers == {200: load.asked}


def test_limits_of_a_group_need_no_restart(place: Server) -> None:
    """What front ends and the supervisor go by is put into force in the processes that there are."""
    start(place)
    text = place.config_file.read_text()
    pids = {one["pid"] for one in place.status()["processes"]}
    place.configure(text.replace("processes = 4", "processes = 4\n  request_timeout = 200ms"))
    place.file("app.wsgi", WSGI % "second")
    place.ctl("reload")
    assert {one["pid"] for one in place.status()["processes"]} == pids
    assert place.get("/shop/").text == "first"
    place.configure(text.replace("language = echo\n", "language = echo\n  request_timeout = 200ms\n"))
    place.ctl("reload")
    place.allow("request_timeout", "504")
    assert place.get("/plain/sleep/1000").status == 504


def writable(server: Server, name: str, content: str) -> str:
    path = server.file(name, content)
    os.chmod(path, 0o666)
    return str(path)


def test_a_restart_that_fails_in_the_middle_is_undone(place: Server) -> None:
    """The third new worker does not start: the old ones are all there again, and serve."""
    place.allow(r"group shop \d+: ", "no more of it", "was not restarted", "did not load")
    left = writable(place, "left", "one\n" * 20)
    place.file("app.wsgi", COUNTED % left)
    start(place)
    # A group serves with its first worker; the others load what is there now as well.
    wait_until(lambda: Path(left).read_text().count("one") == 16, "they have not all loaded it")
    writable(place, "left", "one\n" * 2)
    # The old manager has to fork again what had gone: it finds an application that loads.
    place.file("app.wsgi", (COUNTED % left).replace("counted", "second"))
    with Load(place, PATHS) as load:
        result = place.ctl("restart", "shop", check=False)
        assert result.returncode == 1
        assert "no more of it can be loaded" in result.stderr
        assert "nothing was changed" in result.stderr
        # At once: somebody may be reading it.
        os.replace(place.file("app.new", WSGI % "counted"), place.directory / "app.wsgi")
        wait_until(
            lambda: settled(place, "shop") and len(place.pids("worker", "shop")) == 4, "the old ones are not all there"
        )
        load.progress()
    assert load.lost == []
    assert load.answers == {200: load.asked}
    assert place.get("/shop/").text == "counted"
    generations = {one["generation"] for one in place.status()["processes"] if one.get("group") == "shop"}
    assert generations == {1}
    assert place.logged("was not restarted").count("was not restarted") == 1


def test_progress_is_told_as_it_goes(place: Server) -> None:
    start(place)
    said = place.ctl("restart", "shop").stdout.splitlines()
    assert all(line.startswith("group shop: ") for line in said)
    assert any("of 4 workers serve" in line for line in said)
    assert "the old one finishes" in said[-1]
    result = place.ctl("restart", "shop", "--json")
    assert json.loads(result.stdout)["generation"] == 3
    assert [json.loads(line)["progress"] for line in result.stderr.splitlines()][-1].startswith("group shop: ")


class Slow:
    """Requests that take long."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._socks: list[socket.socket] = []

    def ask(self, *paths: str, group: str = "plain") -> None:
        """Returns when all of them run."""
        for path in paths:
            sock = self._server.connect()
            self._socks.append(sock)
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(lambda: busy(self._server, group) >= len(self._socks), "they do not run")

    def answers(self) -> list[bytes]:
        return [self._answer(sock) for sock in self._socks]

    def _answer(self, sock: socket.socket) -> bytes:
        try:
            return sock.recv(12)
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        for sock in self._socks:
            sock.close()


@pytest.fixture
def slow(place: Server) -> Iterator[Slow]:
    one = Slow(place)
    yield one
    one.close()


def test_one_group_s_restart_does_not_hold_up_another_s(place: Server, slow: Slow) -> None:
    """Nor a reload: a long request in one group is that group's business."""
    start(place)
    slow.ask("/plain/sleep/12000")
    command = subprocess.Popen(
        [program("webserverctl"), "--config", str(place.config_file), "restart", "plain"], stdout=subprocess.PIPE
    )
    with command:
        assert command.stdout is not None
        assert b"generation" in command.stdout.readline()
        place.ctl("restart", "shop")
        place.ctl("reload")
        assert command.poll() is None, "it has not waited for the sleeper"
        assert slow.answers() == [b"HTTP/1.1 200"]
        command.stdout.read()
    assert command.returncode == 0


def test_a_reload_overtakes_a_restart_of_a_group_that_it_changes(place: Server, slow: Slow) -> None:
    start(place, "drain_timeout = 20s")
    text = place.config_file.read_text()
    place.allow("was not restarted")
    slow.ask("/plain/sleep/12000", "/plain/sleep/12000")
    command = subprocess.Popen(
        [program("webserverctl"), "--config", str(place.config_file), "restart", "plain"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with command:
        assert command.stdout is not None
        assert command.stderr is not None
        wait_until(lambda: taken_over(place, "plain", 1), "the restart does not get as far as it can")
        place.configure(text.replace("language = echo\n", "language = echo\n  umask = 027\n"))
        place.ctl("reload")
        _, said = command.communicate(timeout=30 * SLOWNESS)
    assert command.returncode == 1
    assert b"a reload came in between" in said
    assert slow.answers() == [b"HTTP/1.1 200"] * 2


def taken_over(server: Server, group: str, proven: int) -> bool:
    takeover = next(one for one in server.status()["groups"] if one["name"] == group)["takeover"]
    return takeover is not None and takeover["proven"] >= proven


@pytest.mark.parametrize("how", ["touch", "rename", "appear"])
def test_a_touched_file_restarts(place: Server, how: str) -> None:
    path = place.directory / "restart.txt"
    if how != "appear":
        place.file("restart.txt", "")
    start(place, "touch = restart.txt")
    before = set(place.pids("worker", "shop"))
    place.file("app.wsgi", WSGI % "second")
    assert place.get("/shop/").text == "first"
    if how == "rename":
        os.replace(place.file("new.txt", ""), path)
    else:
        place.file("restart.txt", "again")
    wait_until(lambda: place.get("/shop/").text == "second", "it is not restarted")
    wait_until(lambda: len(place.pids("worker", "shop")) == 4, "not all are there")
    assert not before & set(place.pids("worker", "shop"))
    assert place.logged(f"{path} has changed")


def test_watched_files_restart_and_a_broken_one_changes_nothing(place: Server) -> None:
    """The application's own file and one that it imports only in its first request."""
    place.allow(r"group shop \d+: ", "was not restarted", "did not load", "part.py")
    lazy = "def application(e, s):\n    import part\n    s('200 OK', [])\n    return [part.text]\n"
    place.file("app.wsgi", lazy)
    place.file("part.py", "text = b'one'\n")
    start(place, f"watch = yes\n  python_path = {place.directory}")
    for _ in range(8):
        assert place.get("/shop/").text == "one"
    place.file("part.py", "text = b'longer'\n")
    wait_until(lambda: "part.py has changed" in place.log(), "the imported file is not watched")
    wait_until(lambda: settled(place, "shop"), "it does not come to an end")
    assert place.get("/shop/").text == "longer"
    place.file("app.wsgi", "import part\n" + lazy)
    wait_until(lambda: "app.wsgi has changed" in place.log(), "the application's file is not watched")
    wait_until(lambda: place.log().count("was restarted") >= 2, "it is not restarted")
    wait_until(lambda: settled(place, "shop"), "it does not come to an end")
    with Load(place, PATHS) as load:
        place.file("part.py", "text = b'broken\n")
        wait_until(lambda: "was not restarted" in place.log(), "the broken file is not tried")
        load.progress(500)
        assert place.get("/shop/").text == "longer"
    assert load.lost == []
    assert load.answers == {200: load.asked}
    assert place.log().count("was not restarted") == 1
    assert "part.py" in next(line for line in place.log().splitlines() if "was not restarted" in line)
    place.file("part.py", "text = b'right again'\n")
    wait_until(lambda: place.get("/shop/").text == "right again", "it does not come back")


def settled(server: Server, group: str) -> bool:
    one = next(one for one in server.status()["groups"] if one["name"] == group)
    return one["takeover"] is None and len(one["generations"]) == 1 and one["state"] == "running"


OTHERS = {
    "perl": ("app.psgi", "use lib '{here}'; require Part; sub {{ [200, [], [Part::text()]] }}\n", "Part.pm",
             "package Part; sub text {{ '{word}' }} 1;\n"),
    "ruby": ("app.ru", "require '{here}/part'\nrun ->(env) {{ [200, {{}}, [Part]] }}\n", "part.rb",
             "Part = '{word}'\n"),
    "lua": ("app.lua", "local part = require('part') return function() return 200, nil, part end\n", "part.lua",
            "return '{word}'\n"),
}  # fmt: skip


@pytest.mark.parametrize("language", OTHERS)
def test_other_languages_tell_what_they_have_loaded(place: Server, language: str) -> None:
    name, application, part, text = OTHERS[language]
    place.file(name, application.format(here=place.directory))
    place.file(part, text.format(word="one"))
    groups = GROUPS.replace("python", language).replace("app.wsgi", name).replace("processes = 4", "processes = 1")
    start(place, "watch = yes", groups)
    assert place.get("/shop/").text == "one"
    place.file(part, text.format(word="another"))
    wait_until(lambda: place.get("/shop/").text == "another", "the file is not watched")
    wait_until(lambda: settled(place, "shop"), "the takeover does not end")


def test_drain_timeout(place: Server, slow: Slow) -> None:
    """What a worker still runs when its time is over ends with it; others are answered."""
    place.allow("did not end within drain_timeout", "502", "requests are left")
    start(place, groups=GROUPS.replace("language = echo\n", "language = echo\n  drain_timeout = 1s\n"))
    slow.ask("/plain/sleep/30000")
    place.ctl("restart", "plain")
    assert slow.answers() == [b"HTTP/1.1 502"]
    wait_until(lambda: settled(place, "plain"), "something is left of it")


def test_shutdown_timeout(place: Server, slow: Slow) -> None:
    place.allow("left after shutdown_timeout", "502")
    place.write(GROUPS.format(more="") + SITES, server="shutdown_timeout = 1s")
    place.start()
    slow.ask("/plain/sleep/30000")
    command = subprocess.Popen(
        [program("webserverctl"), "--config", str(place.config_file), "stop"], stdout=subprocess.PIPE
    )
    with command:
        wait_until(lambda: draining(place), "status does not show how far it is")
        assert command.stdout is not None
        assert b"connections are left" in command.stdout.read()
    assert place.wait_for_end() == 0
    assert place.logged("shutdown_timeout")


def draining(server: Server) -> bool:
    with contextlib.suppress(AssertionError, ValueError):
        state = server.status()["draining"]
        return state is not None and state["connections"] >= 1 and state["left"] <= 1.0
    return False


# Signals: what each does to the supervisor. USR2 has tests of its own: test_upgrade.py.


@pytest.mark.parametrize(
    ("numbers", "drains"),
    [
        ([signal.SIGTERM], True),
        ([signal.SIGQUIT], True),
        ([signal.SIGINT], False),
        ([signal.SIGTERM, signal.SIGTERM], False),
        ([signal.SIGQUIT, signal.SIGTERM], False),
        ([signal.SIGTERM, signal.SIGINT], False),
        ([signal.SIGTERM, signal.SIGQUIT], True),
        ([signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH], True),
    ],
)
def test_signals_that_end_it(place: Server, slow: Slow, numbers: list[signal.Signals], drains: bool) -> None:
    place.allow("502")
    start(place)
    slow.ask("/plain/sleep/1500")
    assert place.process is not None
    for count, number in enumerate(numbers, 1):
        before = place.log()
        place.process.send_signal(number)
        if number in (signal.SIGTERM, signal.SIGINT) and count < len(numbers):
            wait_until(lambda before=before: place.log() != before, "the signal had no effect")
    assert (slow.answers() == [b"HTTP/1.1 200"]) is drains
    assert place.wait_for_end() == 0


def test_signals_that_do_not(place: Server) -> None:
    start(place)
    assert place.process is not None
    pids = {one["pid"] for one in place.status()["processes"]}
    place.process.send_signal(signal.SIGWINCH)
    place.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "reloaded" in place.log(), "HUP does not reload")
    moved = place.error_log.rename(place.error_log.with_suffix(".1"))
    place.process.send_signal(signal.SIGUSR1)
    wait_until(place.error_log.exists, "USR1 does not open the logs again")
    place.ctl("reload")
    wait_until(lambda: "reloaded" in place.log(), "nothing is written to the new file")
    assert "USR1" in moved.read_text() + place.log()
    assert {one["pid"] for one in place.status()["processes"]} == pids


# Many

RUN = int(os.environ.get("WEBSERVER_TIMES", "0"))
COUNTED_SITES = SITES.replace("/shop/ = group:shop", "/shop/ = group:shop\n    /other/ = group:other")
OTHER = "  [[other]]\n  language = echo\n  processes = 1\n"


def order(server: Server, **message: str) -> dict[str, object]:
    """As webserverctl does it, without the time that a program takes to start."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60 * SLOWNESS)
        sock.connect(str(server.directory / "run/control.sock"))
        sock.sendall(json.dumps(message).encode() + b"\n")
        with sock.makefile("rb") as lines:
            answer: dict[str, object] = json.loads(lines.readline())
    assert answer["ok"] is True, f"{message}: {answer}\n{server.log()[-4000:]}"
    return answer


def many(server: Server, restarts: int, reloads: int) -> None:
    """Restarts of one group, each fifth of an application with new code; reloads of sites and of another group."""
    server.write(GROUPS.format(more="").replace("processes = 4", "processes = 2") + OTHER + COUNTED_SITES)
    all_serve(server.start())
    text = server.config_file.read_text()
    with Load(server, [*PATHS, "/other/x"]) as load:
        for number in range(restarts):
            if number % 5:
                order(server, op="restart", group="plain")
            else:
                server.file("app.wsgi", WSGI % number)
                order(server, op="restart", group="shop")
                assert server.get("/shop/x").text == str(number)
            if number % 100 == 99:
                load.progress()
        for number in range(reloads):
            changed = text.replace("root = public", f"root = public{'/.' * (number % 2)}")
            if number % 5 == 0:
                changed = changed.replace("processes = 1", f"processes = {1 + number % 10 // 5}")
            server.configure(changed)
            order(server, op="reload")
            if number % 100 == 99:
                load.progress()
        load.progress()
    assert load.lost == []
    assert load.answers == {200: load.asked}
    for group in ("shop", "plain", "other"):
        wait_until(lambda group=group: settled(server, group), "something is left", 30 * SLOWNESS)


def test_restarts_and_reloads_under_load(place: Server) -> None:
    many(place, RUN or 20, RUN or 20)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_thousand_restarts_and_reloads_under_load(place: Server) -> None:
    """Some ten minutes on two processors."""
    many(place, 1000, 1000)


def test_time_passes_only_where_it_must(place: Server) -> None:
    """A watched group that nobody touches is not restarted."""
    start(place, "watch = yes\n  touch = nothing.txt")
    before = place.pids("worker", "shop")
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 2.5, "")
    assert place.pids("worker", "shop") == before
