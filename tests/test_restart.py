"""Restart, reload and crashes under load: nothing that was accepted is lost, and a broken change changes nothing."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import time

import pytest
from serving import Server, free_port, group_lines, read_all, wait_until
from under_load import GROUPS, SITES, WSGI, Caller, Load, all_serve, busy, write_files
from under_load import PATHS as SOME

CONFIG = (GROUPS.format(more="") + SITES).replace("processes = 4", "processes = 2")
CONFIG = CONFIG.replace("language = echo\n", "language = echo\n  threads = 2\n")
PATHS = [*SOME, "/plain/length"]


@pytest.fixture
def loaded(server: Server) -> Server:
    write_files(server)
    server.write(CONFIG)
    return all_serve(server.start())


def test_restart_of_groups_under_load(loaded: Server) -> None:
    """S5, S6: new workers answer before the old ones leave."""
    with Load(loaded, PATHS) as load:
        for _ in range(3):
            for group in ("plain", "shop"):
                before = set(loaded.pids("worker", group))
                loaded.ctl("restart", group)
                assert not before & set(loaded.pids("worker", group))
                load.progress()
    assert load.lost == []
    assert load.answers == {200: load.asked}


def test_restart_takes_new_code(loaded: Server) -> None:
    assert loaded.get("/shop/").body == b"first"
    loaded.file("app.wsgi", WSGI % "second")
    assert loaded.get("/shop/").body == b"first"
    loaded.ctl("restart", "shop")
    assert loaded.get("/shop/").body == b"second"


def test_broken_code_changes_nothing(loaded: Server) -> None:
    loaded.allow("app.wsgi", "SyntaxError", "shop", "Traceback", "error")
    loaded.file("app.wsgi", "def application(:\n")
    with Load(loaded, PATHS) as load:
        result = loaded.ctl("restart", "shop", check=False)
        assert result.returncode != 0
        assert "app.wsgi" in result.stderr + result.stdout
        load.progress()
    assert load.lost == []
    assert load.answers == {200: load.asked}
    assert loaded.get("/shop/").body == b"first"


def test_reload_under_load(loaded: Server) -> None:
    """A reload that changes nothing keeps every process; a changed site is served new at once."""
    (loaded.directory / "other").mkdir()
    loaded.file("other/index.html", "other")
    text = loaded.config_file.read_text()
    with Load(loaded, PATHS) as load:
        workers = set(loaded.pids("worker"))
        for root in ("other", "public", "other"):
            loaded.configure(text.replace("root = public", f"root = {root}"))
            loaded.ctl("reload")
            assert loaded.get("/index.html").text == {"public": "static"}.get(root, root)
            load.progress()
        assert set(loaded.pids("worker")) == workers
    assert load.lost == []
    assert load.answers == {200: load.asked}


def test_reload_adds_and_removes_groups_and_listeners(loaded: Server) -> None:
    text = loaded.config_file.read_text()
    port = free_port()
    more = "\n  ".join(["[[more]]", "language = echo", "processes = 1", *group_lines()])
    added = text.replace("[sites]", f"  {more}\n[sites]").replace(
        "/plain/ = group:plain", "/plain/ = group:plain\n    /more/ = group:more"
    )
    added = added.replace(f"listen = 127.0.0.1:{loaded.port}", f"listen = 127.0.0.1:{loaded.port}, 127.0.0.1:{port}")
    loaded.configure(added)
    loaded.ctl("reload")
    assert loaded.get("/more/").body == b"hello, world"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/more/")
    assert connection.getresponse().read() == b"hello, world"
    connection.close()
    loaded.configure(text)
    loaded.ctl("reload")
    assert loaded.get("/more/").status == 404
    wait_until(lambda: not loaded.pids("manager", "more"), "the removed group still runs")
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", port, timeout=20).connect()


def test_broken_configuration_changes_nothing(loaded: Server) -> None:
    loaded.allow("reload", "webserver.conf")
    text = loaded.config_file.read_text()
    loaded.configure(text.replace("processes = 2", "processors = 2"))
    result = loaded.ctl("reload", check=False)
    assert result.returncode != 0
    assert "webserver.conf:" in result.stderr
    assert "processes" in result.stderr  # the suggestion
    assert loaded.get("/shop/").status == 200
    # Not even the sections can be told apart: the running server is found all the same, and says so.
    loaded.configure(text + "\nnot an option\n")
    result = loaded.ctl("reload", check=False)
    assert result.returncode == 1
    line = len(text.splitlines()) + 2
    assert f"webserver.conf:{line}" in result.stderr
    assert loaded.ctl("status").returncode == 0


def test_hangup_reloads(loaded: Server) -> None:
    (loaded.directory / "other").mkdir()
    loaded.file("other/index.html", "other")
    loaded.configure(loaded.config_file.read_text().replace("root = public", "root = other"))
    assert loaded.process is not None
    loaded.process.send_signal(signal.SIGHUP)
    wait_until(lambda: loaded.get("/index.html").text == "other", "HUP did not reload")


def test_crashed_worker_is_replaced_and_named(loaded: Server) -> None:
    loaded.allow("SIGABRT", "502", "crash")
    assert loaded.get("/plain/crash").status == 502
    wait_until(lambda: len(loaded.pids("worker", "plain")) == 2, "the worker was not replaced")
    assert loaded.get("/plain/x").status == 200
    wait_until(lambda: "SIGABRT" in loaded.log(), "the log does not name the cause")


def test_request_that_was_not_started_is_run_elsewhere(loaded: Server) -> None:
    """A worker that dies takes only the request that it ran."""
    loaded.allow("SIGKILL", "502", "killed")
    sleepers = [loaded.connect() for _ in range(4)]
    for sock in sleepers:
        sock.sendall(b"GET /plain/sleep/3000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    wait_until(lambda: busy(loaded, "plain") == 4, "the sleepers do not run")
    waiting = [loaded.connect() for _ in range(8)]
    for sock in waiting:
        sock.sendall(b"GET /plain/quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    victim = loaded.pids("worker", "plain")[0]
    os.kill(victim, signal.SIGKILL)
    statuses = []
    for sock in waiting:
        statuses.append(sock.recv(12))
        sock.close()
    assert set(statuses) == {b"HTTP/1.1 200"}
    ends = [sock.recv(12) for sock in sleepers]
    for sock in sleepers:
        sock.close()
    assert sorted(ends) == [b"HTTP/1.1 200"] * 2 + [b"HTTP/1.1 502"] * 2


def test_dead_front_end_is_replaced(loaded: Server) -> None:
    loaded.allow("front end", "SIGKILL")
    victim = loaded.pids("front end")[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(set(loaded.pids("front end")) - {victim}) == 2, "the front end was not replaced")
    for _ in range(40):
        assert loaded.get("/shop/").status == 200
        assert loaded.get("/plain/").status == 200


def test_dead_manager_harms_only_its_group(loaded: Server) -> None:
    loaded.allow("manager", "SIGKILL", "502", "503")
    victim = loaded.pids("manager", "shop")[0]
    os.kill(victim, signal.SIGKILL)
    assert loaded.get("/plain/").status == 200
    wait_until(lambda: loaded.get("/shop/").status == 200, "the group did not come back", 40)


def test_supervisor_death_ends_everything(loaded: Server) -> None:
    assert loaded.process is not None
    loaded.look()
    loaded.process.kill()
    loaded.wait_for_end()
    wait_until(lambda: not loaded.left(), "processes outlive the supervisor")
    assert loaded.process.stderr is not None
    loaded.process.stderr.close()
    loaded.process = None


def test_term_drains(loaded: Server) -> None:
    """A request that runs when TERM comes is answered."""
    slow = loaded.connect()
    slow.sendall(b"GET /plain/sleep/700 HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(lambda: busy(loaded, "plain") == 1, "the sleeper does not run")
    assert loaded.process is not None
    loaded.process.send_signal(signal.SIGTERM)
    answer = slow.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200")
    slow.close()


def test_whoever_goes_on_asking_for_the_end(loaded: Server) -> None:
    """TERM until it is gone, also while it ends: it has ended in order all the same."""
    process = loaded.process
    assert process is not None
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.0005)
    assert loaded.wait_for_end() == 0


@pytest.mark.parametrize("requests", [1, 40])
def test_the_access_log_is_whole_when_it_ends(server: Server, requests: int) -> None:
    """Front ends write records in batches, once a second: those of the last second are not lost."""
    server.file("public/page.html", "a page")
    server.write("[sites]\n  [[one]]\n  hosts = *\n  root = public\n")
    server.start()
    for number in range(requests):
        assert server.get(f"/page.html?{number}").status == 200
    server.ctl("stop")
    assert server.wait_for_end() == 0
    found = re.findall(r'"GET /page\.html\?(\d+) ', server.access_log.read_text())
    assert sorted(map(int, found)) == list(range(requests))


def test_a_stopped_worker_is_replaced(loaded: Server) -> None:
    """What was placed there and not begun is run elsewhere."""
    loaded.allow("did not answer a front end", "502")
    victim = loaded.pids("worker", "plain")[0]
    os.kill(victim, signal.SIGSTOP)
    with Load(loaded, ["/plain/x"]) as load:
        wait_until(lambda: victim not in loaded.pids("worker", "plain"), "it is not replaced", 40)
        wait_until(lambda: len(loaded.pids("worker", "plain")) == 2, "nobody took its place")
        load.progress(20)
    assert load.lost == []
    assert load.answers == {200: load.asked}


def test_the_end_waits_for_no_stopped_worker(loaded: Server) -> None:
    loaded.allow("did not react")
    os.kill(loaded.pids("worker", "shop")[0], signal.SIGSTOP)
    begun = time.monotonic()
    loaded.stop()
    assert time.monotonic() - begun < 15


def test_removed_listeners_lose_nobody(server: Server) -> None:
    """Who was let in is answered; who comes later is refused, and never reset."""
    server.write(PLAIN)
    alone = server.config_file.read_text()
    port = free_port()
    path = str(server.directory / "run/web.sock")
    both = alone.replace(f":{server.port}", f":{server.port}, 127.0.0.1:{port}, [::1]:{port}, unix:run/web.sock")
    server.configure(both)
    server.start()
    addresses = ((socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port)), (socket.AF_UNIX, path))
    callers = [Caller(family, address) for family, address in addresses for _ in range(2)]
    try:
        for _ in range(3):
            server.configure(alone)
            server.ctl("reload")
            wait_until(lambda: all(caller.refused for caller in callers), "the addresses still listen")
            server.configure(both)
            server.ctl("reload")
            answered = [caller.answered for caller in callers]
            wait_until(
                lambda answered=answered: all(c.answered > a for c, a in zip(callers, answered, strict=True)),
                "the addresses do not listen again",
            )
            for caller in callers:
                caller.refused = 0
    finally:
        for caller in callers:
            caller.end()
    assert [caller.lost for caller in callers] == [[]] * 6


PLAIN = """
[groups]
  [[plain]]
  language = echo
[sites]
  [[all]]
  hosts = *
    [[[routes]]]
    / = group:plain
"""


def test_an_address_may_become_wider(server: Server) -> None:
    """From one address to all of them at the same port: it is ourselves who have it."""
    server.write(PLAIN)
    server.start()
    server.configure(server.config_file.read_text().replace("127.0.0.1:", "0.0.0.0:"))
    server.ctl("reload")
    assert server.get("/").status == 200


def test_a_group_that_goes_takes_its_queue_with_it(server: Server) -> None:
    """What waits for its only slot when the group is removed is answered by it all the same."""
    server.write(ONE_SLOT)
    server.start()
    clients = [server.connect() for _ in range(5)]
    for sock in clients:
        sock.sendall(b"GET /plain/sleep/200 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    wait_until(lambda: busy(server, "plain") == 1, "nothing runs")
    server.configure(re.sub(r"\[groups\].*?\[sites\]", "[sites]", without_route(server), flags=re.S))
    server.ctl("reload")
    assert server.get("/plain/x").status == 404
    answers = [read_all(sock)[:12] for sock in clients]
    for sock in clients:
        sock.close()
    assert answers == [b"HTTP/1.1 200"] * 5
    wait_until(lambda: not server.pids("manager"), "the removed group still runs")


def without_route(server: Server) -> str:
    return server.config_file.read_text().replace("/plain/ = group:plain", "/ = files")


ONE_SLOT = """
[groups]
  [[plain]]
  language = echo
  processes = 1
[sites]
  [[all]]
  hosts = *
  root = public
    [[[routes]]]
    /plain/ = group:plain
"""
