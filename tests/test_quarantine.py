"""Requests that end the workers that run them, and groups whose workers end again and again."""

from __future__ import annotations

import itertools
import os
import re
import signal
import time

import pytest
from serving import Server, wait_until

from webserver.manager.policy import FIRST_DELAY, LONGEST_DELAY
from webserver.supervisor.crashes import CALM, LOOP, WITHIN, Crashes

CONFIG = """
[groups]
  [[g]]
  language = python
  application = app.wsgi
  processes = {processes}
  threads = {threads}
  {more}
    [[[environment]]]
    SCRATCH = {scratch}
[sites]
  [[all]]
  hosts = *
    [[[routes]]]
    / = group:g
"""
# Each path says what it does; what has begun is written down.
WSGI = """
import os, signal, time

def there(name):
    return os.path.exists(os.path.join(os.environ["SCRATCH"], name))

def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    with open(os.path.join(os.environ["SCRATCH"], "begun"), "a") as file:
        file.write("%s?%s\\n" % (path, query))
    while path == "/wait" and not there("go"):
        time.sleep(0.005)
    if path == "/die" or there("deadly"):
        while query == "later" and not there("go"):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGKILL)
    start_response("200 OK", [])
    return [b"well"]
"""


@pytest.fixture
def deadly(server: Server) -> Server:
    scratch = server.directory / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    server.file("app.wsgi", WSGI)
    server.allow("killed by SIGKILL", "in quarantine", "was running in each of", "have ended unasked")
    return server


def start(server: Server, more: str = "", processes: int = 2, threads: int = 1, frontends: int = 2) -> None:
    scratch = server.directory / "scratch"
    text = CONFIG.format(more=more, processes=processes, threads=threads, scratch=scratch)
    server.write(text, f"frontends = {frontends}")
    server.start()


def begun(server: Server, line: str) -> int:
    path = server.directory / "scratch" / "begun"
    return path.read_text().splitlines().count(line) if path.exists() else 0


def all_there(server: Server, processes: int = 2) -> None:
    """Every worker is replaced; what front ends tell each other has long arrived."""
    wait_until(
        lambda: (
            [one["state"] for one in server.status()["processes"] if one["kind"] == "worker"] == ["ready"] * processes
        ),
        "the workers are not replaced",
    )


def test_a_request_that_ends_workers(deadly: Server) -> None:
    """S1: after so many workers it is refused, by each front end; all else is served."""
    start(deadly, "quarantine = 2")
    for _ in range(2):
        assert deadly.get("/die?x").status == 502
        all_there(deadly)
    workers = deadly.pids("worker")
    for _ in range(8):  # on connections of their own, so of both front ends
        refused = deadly.get("/die?x")
        assert refused.status == 503
        assert 0 < int(refused.field("Retry-After") or 0) <= 60
    assert deadly.get("/?x").body == b"well"
    assert deadly.request("POST", "/?x", b"y").body == b"well"
    assert begun(deadly, "/die?x") == 2
    assert deadly.pids("worker") == workers
    marked = "in quarantine: it was running in 2 workers when they died"
    wait_until(lambda: deadly.log().count(marked) == 8, "not each refusal is logged")
    log = deadly.logged("was running in each of 2 workers that died")
    said = re.findall(r"GET /die\?x of site all was running in each of 2 workers that died.*killed by SIGKILL.*", log)
    assert len(said) == 1, log
    assert "(quarantine = 2)" in said[0]
    # Another request is not punished for it.
    assert deadly.get("/die?y").status == 502


def test_a_success_between_deaths(deadly: Server) -> None:
    """In a row: one that ends well in between begins the row anew."""
    start(deadly, "quarantine = 2", frontends=1)
    mark = deadly.directory / "scratch" / "deadly"
    for _ in range(3):
        mark.touch()
        assert deadly.get("/?z").status == 502
        mark.unlink()
        assert deadly.get("/?z").status == 200
    assert "was running in each of" not in deadly.log()


def test_no_quarantine(deadly: Server) -> None:
    start(deadly, "quarantine = 0")
    for _ in range(4):
        assert deadly.get("/die?x").status == 502
    assert begun(deadly, "/die?x") == 4


def test_clients_that_do_not_wait(deadly: Server) -> None:
    """Going away before the answer is no way round it."""
    start(deadly, "quarantine = 2")
    go = deadly.directory / "scratch" / "go"
    for number in (1, 2):
        with deadly.connect() as sock:
            sock.sendall(b"GET /die?later HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda number=number: begun(deadly, "/die?later") == number, "it has not begun")
        go.touch()
        wait_until(lambda number=number: deadly.log().count("killed by SIGKILL") >= number, "the worker lives")
        all_there(deadly)
        go.unlink()
    assert deadly.get("/die?later").status == 503
    assert begun(deadly, "/die?later") == 2


def test_who_dies_beside_it_is_acquitted(deadly: Server) -> None:
    """Of two requests in one worker only the guilty one is refused, once the other has ended well."""
    start(deadly, "quarantine = 3", processes=1, threads=2, frontends=1)
    go = deadly.directory / "scratch" / "go"
    for number in (1, 2):
        with deadly.connect() as sock:
            sock.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda number=number: begun(deadly, "/wait?") == 2 * number - 1, "it has not begun")
            assert deadly.get("/die").status == 502
            assert sock.recv(65536).startswith(b"HTTP/1.1 502 ")
        go.touch()
        assert deadly.get("/wait").status == 200
        go.unlink()
    assert deadly.get("/die").status == 502
    assert deadly.get("/die").status == 503
    go.touch()
    assert deadly.get("/wait").status == 200


LOOPING = """
import os, signal, threading

def application(environ, start_response):
    start_response("200 OK", [])
    return [b"well"]

threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGKILL)).start()
"""


def test_a_crash_loop_is_told_once(deadly: Server) -> None:
    """Each next start waits longer, and what is going on is said once a minute."""
    deadly.file("app.wsgi", LOOPING)
    start(deadly, "quarantine = 3", processes=1)
    ends = []
    for number in range(1, 7):
        wait_until(
            lambda number=number: deadly.log().count("): killed by SIGKILL") >= number, "the workers do not end", 40
        )
        ends.append(time.monotonic())
    for number, (one, next_) in enumerate(itertools.pairwise(ends), 1):
        assert next_ - one > 0.8 * FIRST_DELAY * 2 ** (number - 1), (number, ends)
    said = re.findall(r"group g: (\d+) workers have ended unasked one after another, the last: killed", deadly.log())
    assert said == [str(LOOP)]


@pytest.mark.parametrize(
    ("kind", "group", "what"),
    [
        ("manager", "g", "group g: 5 of its managers"),
        ("front end", None, "5 front ends"),
        ("logger", None, "5 loggers"),
    ],
)
def test_other_processes_that_end_again_and_again(deadly: Server, kind: str, group: str | None, what: str) -> None:
    deadly.file("app.wsgi", WSGI)
    deadly.allow("error")
    start(deadly, processes=1, frontends=1)
    for _ in range(LOOP):
        [pid] = wait_until(lambda: [one for one in deadly.pids(kind, group) if one], "it does not come back", 40)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: pid not in deadly.pids(kind, group), "it does not end")
    wait_until(lambda: f"{what} have ended unasked one after another, the last: killed" in deadly.log(), "not told", 40)
    wait_until(lambda: deadly.log().count("have ended unasked") == 1, "it is told more than once")
    wait_until(lambda: all(deadly.pids(kind, group)) and well(deadly), "it does not come back", 40)


def well(server: Server) -> bool:
    try:
        return server.get("/").status == 200
    except OSError:
        return False


def test_when_a_loop_is_told() -> None:
    crashes, said = Crashes(), []
    for second in range(0, 200, 4):
        crashes, count = crashes.after(float(second))
        if count:
            said.append((second, count))
    assert said == [(16, LOOP), (76, 20), (136, 35), (196, 50)]
    assert Crashes((0.0,) * 4).after(WITHIN)[1] == 0


def test_a_loop_is_told_of_for_as_long_as_it_lasts() -> None:
    """Once a minute also when starts are half a minute apart; and another loop is another one."""
    crashes, said, now, delay = Crashes(), [], 0.0, FIRST_DELAY
    while now < 600:
        crashes, count = crashes.after(now)
        if count:
            said.append(now)
        delay = min(LONGEST_DELAY, delay * 2)
        now += delay
    assert len(said) >= 9
    assert all(WITHIN <= later - one <= WITHIN + LONGEST_DELAY for one, later in itertools.pairwise(said))
    for _ in range(LOOP - 1):
        now += CALM
        crashes, count = crashes.after(now)
        assert count == 0, "single ends are no loop"
