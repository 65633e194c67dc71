"""Workers that were taken over, against the running server.

Whatever they send: the front end goes on, nobody gets an answer to another's request, other groups lose nothing, and a
group whose workers break the rules too often is started again.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import GROUP_USER, ROOT, Answer, Server, wait_until
from tunnels import Tunnel
from under_load import Load

PROGRAM = (Path(__file__).resolve().parent / "hostile_worker.py").read_text()
CONFIG = """
[groups]
  [[evil]]
  language = {language}
  processes = 1
  threads = 1
  [[good]]
  language = echo
  processes = 1
  threads = 2
[sites]
  [[all]]
  hosts = *
  root = public
    [[[routes]]]
    / = files
    /evil/ = group:evil
    /good/ = group:good
"""
# Writes all over its own page, found among its mappings, for as long as a request lasts.
SCRIBBLE = """
import ctypes, os, random, re, time

def page():
    for line in open('/proc/self/maps'):
        if 'memfd:page' in line and ' rw-s ' in line:
            begin, end = re.match('([0-9a-f]+)-([0-9a-f]+)', line).groups()
            return int(begin, 16), int(end, 16) - int(begin, 16)

def application(environ, start_response):
    at, size = page()
    noise = random.Random(environ['QUERY_STRING'])
    words = (0, 1, 2**32, 2**40, 2**41 + 1, 2**63, 2**64 - 1)
    page_words = (ctypes.c_uint64 * (size // 8)).from_address(at)
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        for i in range(40):
            page_words[noise.randrange(60)] = noise.choice(words) + noise.randrange(-3, 4) & 2**64 - 1
    start_response('200 OK', [])
    return [b'evil:' + environ['PATH_INFO'].encode()]
"""

# The same to the loans: their words, and what lies at the beginning of the first.
SCRIBBLE_LOANS = """
import ctypes, random, re, time

def loans():
    for line in open('/proc/self/maps'):
        if 'memfd:loans' in line and ' rw-s ' in line:
            begin, end = re.match('([0-9a-f]+)-([0-9a-f]+)', line).groups()
            return int(begin, 16), int(end, 16) - int(begin, 16)

def application(environ, start_response):
    at, size = loans()
    noise = random.Random(environ['QUERY_STRING'])
    words = (ctypes.c_uint32 * (size // 4)).from_address(at)
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        for i in range(40):
            words[noise.randrange(96)] = noise.choice((0, 1, 3, 2**31, 2**32 - 1, noise.randrange(2**32)))
            words[1024 + noise.randrange(40)] = noise.choice((0, 17, 100, 65536, 2**32 - 1))
    start_response('200 OK', [])
    return [b'evil:' + environ['PATH_INFO'].encode()]
"""


@pytest.fixture
def attacked(server: Server) -> Iterator[Server]:
    """Started; while the test runs, clients of the other group are answered without a miss."""
    server.allow(r"\bevil\b")
    server.file("public/index.html", "static")
    server.write(CONFIG.format(language="echo"), "frontends = 1")
    yield from watched(server)


def watched(server: Server) -> Iterator[Server]:
    server.start()
    before = [server.pids("front end"), server.pids("worker", "good"), server.pids("manager", "good")]
    with Load(server, ["/good/x", "/index.html", "/good/length"], clients=2) as load:
        yield server
        load.progress(50)
    assert load.lost == []
    assert load.answers == {200: load.asked}
    assert [server.pids("front end"), server.pids("worker", "good"), server.pids("manager", "good")] == before


def endpoint(server: Server) -> Path:
    """Where the newest generation of "evil", the first group, is listened to."""
    paths = [path for path in (server.directory / "run/ipc").glob("1.*/f*") if path.is_socket()]
    return max(paths, key=lambda path: int(path.parent.name.partition(".")[2]))


def workers(server: Server, group: str | None = None) -> list[int]:
    return [
        int(process["worker"])
        for process in server.status()["processes"]
        if process["kind"] == "worker" and process.get("worker") and group in (None, process["group"])
    ]


@contextlib.contextmanager
def hostile(server: Server, do: str, **order: Any) -> Iterator[None]:
    """Run the program as the group's user; inside, it has done what it does, or goes on with it."""
    path = endpoint(server)
    order |= {"do": do, "path": str(path), "generation": int(path.parent.name.partition(".")[2])}
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", PROGRAM, json.dumps(order)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        **({"user": GROUP_USER, "group": "nogroup", "extra_groups": []} if ROOT else {}),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        yield
    finally:
        try:
            process.communicate("end\n", timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise


def come_back(server: Server, generation: int) -> None:
    """The group answers, by workers of a later generation."""
    wait_until(lambda: endpoint_number(server) > generation, f"the group is not started again:\n{server.log()}", 60)

    def answers() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return server.get("/evil/x").body == b"hello, world"
        return False

    wait_until(answers, f"the group does not answer again:\n{server.log()}", 60)


def endpoint_number(server: Server) -> int:
    with contextlib.suppress(ValueError):
        return int(endpoint(server).parent.name.partition(".")[2])
    return 0


def test_strangers_are_not_spoken_to(attacked: Server) -> None:
    """Identities, versions and generations that are not right; one that somebody has already."""
    for seed in range(2):
        (worker,) = workers(attacked, "evil")
        with hostile(attacked, "strangers", worker=worker, seed=seed):
            pass
        assert attacked.get("/evil/x").body == b"hello, world"
    wait_until(lambda: "broke the channel's rules" in attacked.log(), "the log says nothing of it")
    assert endpoint_number(attacked) == 1


def test_connections_that_do_not_speak_the_protocol(attacked: Server) -> None:
    for _ in range(5):
        with hostile(attacked, "raw"):
            assert attacked.get("/evil/x").body == b"hello, world"
    assert endpoint_number(attacked) == 1


def test_messages_that_are_too_large_cost_their_connection(attacked: Server) -> None:
    (worker,) = workers(attacked, "evil")
    with hostile(attacked, "large", worker=worker):
        assert attacked.get("/evil/x").body == b"hello, world"


def test_too_many_connections_cost_the_generation(attacked: Server) -> None:
    with hostile(attacked, "many", count=100):
        wait_until(lambda: "closed its connections" in attacked.log(), f"nobody minds:\n{attacked.log()}")
        come_back(attacked, 1)


def ask(server: Server, path: str) -> Answer | None:
    """None: the connection was cut, which a client can tell from an answer."""
    try:
        return server.get(path)
    except (OSError, http.client.HTTPException):
        return None


@pytest.mark.parametrize("seed", range(3))
def test_a_worker_that_lies_harms_its_own_group_only(attacked: Server, seed: int) -> None:
    """It has a slot's identity, as a worker has that was taken over, and breaks each rule of the channel in turn."""
    (pid,) = attacked.pids("worker", "evil")
    # It is there before the worker whose name it bears: that one comes when this one is gone.
    with hostile(attacked, "lie", worker=max(workers(attacked)) + 1, seed=seed):
        os.kill(pid, signal.SIGKILL)
        own = 0
        for number in range(500):
            path = f"/evil/{number}/x"
            answer = ask(attacked, path)
            if "closed its connections" in attacked.log():
                break
            if answer is None:
                continue
            assert b"WRONG" not in answer.body
            assert answer.status in (200, 502, 503), answer
            if answer.body.startswith(b"evil:"):
                assert answer.body == b"evil:" + path.encode()
                own += 1
        else:
            raise AssertionError(f"nobody minds:\n{attacked.log()}")
        assert own > 0, attacked.log()
        come_back(attacked, 1)
    assert attacked.logged_like(r"broke the channel's rules")


@pytest.mark.parametrize("seed", range(2))
def test_tunnels_of_a_worker_that_lies(attacked: Server, seed: int) -> None:
    """It says 101 where that was asked for, and then breaks the rules of tunnels: its client is cut off."""
    (pid,) = attacked.pids("worker", "evil")
    with hostile(attacked, "lie", worker=max(workers(attacked)) + 1, seed=seed):
        os.kill(pid, signal.SIGKILL)
        opened = 0
        for number in range(200):
            if "closed its connections" in attacked.log():
                break
            try:
                with Tunnel(attacked, f"/evil/{number}") as tunnel:
                    if tunnel.status != 101:
                        continue
                    opened += 1
                    assert tunnel.hear(4) == b"good"
                    got = tunnel.rest()
                    assert b"WRONG" not in got
                    assert len(got) <= 2 << 20
            except (OSError, AssertionError) as error:
                assert "WRONG" not in str(error)
        assert opened > 0, attacked.log()
        come_back(attacked, 1)


def test_a_page_that_lies(server: Server) -> None:
    """A worker that writes what it likes into its page may be slow to get work; nobody else is.

    If it says there that a request has run for longer than request_timeout it is taken at its word, and replaced.
    """
    server.allow(r"\bevil\b")
    server.file("app.wsgi", SCRIBBLE)
    server.file("public/index.html", "static")
    server.write(CONFIG.format(language="python\n  application = app.wsgi"), "frontends = 2")
    one = contextlib.contextmanager(watched)(server)
    with one, Load(server, [f"/evil/{number}" for number in range(5)], clients=4) as load:
        load.progress(40)
        ended = 0
        for number in range(10):
            answer = server.get(f"/evil/own/{number}?{number}")
            assert answer.status == 502 or answer.body == f"evil:/own/{number}".encode()
            ended += answer.status == 502
            server.status()
    assert load.lost == []
    assert load.answers.keys() <= {200, 502}
    ended += load.answers.get(502, 0)
    assert len(re.findall(r'502: group "evil": .* ran longer than request_timeout', server.log())) == ended


def test_loans_that_lie(server: Server) -> None:
    """What a worker posts is a frame like any other, however often it changes. Its own group may wait for answers in vain."""
    server.allow(r"\bevil\b")
    server.file("app.wsgi", SCRIBBLE_LOANS)
    server.file("public/index.html", "static")
    server.write(CONFIG.format(language="python\n  application = app.wsgi\n  request_timeout = 2s"), "frontends = 2")
    one = contextlib.contextmanager(watched)(server)
    with one, Load(server, [f"/evil/{number}" for number in range(5)], clients=4) as load:
        load.progress(20)
        for number in range(5):
            answer = server.get(f"/evil/own/{number}?{number}")
            assert answer.status in (502, 503, 504) or answer.body == f"evil:/own/{number}".encode()
            server.status()
    assert load.lost == []
    assert load.answers.keys() <= {200, 502, 503, 504}
    assert server.logged("is no answer")
