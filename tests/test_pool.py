"""The number of workers, and their replacement, from outside: real workers, real load, and not one request lost."""

from __future__ import annotations

import http.client
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import pytest
from serving import SLOWNESS, Answer, Server, wait_until
from tunnels import Tunnel
from tunnels import write as write_tunnels

APPLICATION = """
import os, time

kept = []

def application(environ, start_response):
    what, _, value = environ["PATH_INFO"].strip("/").partition("/")
    if what == "keep":
        kept.append(os.urandom(1 << 16) * int(value))
    elif what == "burn":
        end = time.process_time() + float(value)
        while time.process_time() < end:
            pass
    elif what == "hold":
        if len(value) > 8:
            kept.append(os.urandom(1 << 16) * 4800)
        while not os.path.exists(os.path.join(os.environ["GATES"], value)):
            time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""
CONFIG = """
[groups]
  [[app]]
  language = python
  application = app.wsgi
  {options}
    [[[environment]]]
    GATES = {gates}
[sites]
  [[all]]
  hosts = *
    [[[routes]]]
    / = group:app
"""


def start(server: Server, *options: str, more: str = "") -> Server:
    server.file("app.wsgi", APPLICATION)
    (server.directory / "gates").mkdir(exist_ok=True)
    text = CONFIG.format(options="\n  ".join(options), gates=server.directory / "gates")
    server.write(text, more)
    return server.start()


def open_gate(server: Server, name: str) -> None:
    server.file(f"gates/{name}", "")


def group(server: Server, name: str = "app") -> dict[str, Any]:
    return next(entry for entry in server.status()["groups"] if entry["name"] == name)


def counts(server: Server) -> dict[str, int]:
    found: dict[str, int] = group(server)["workers"]
    return found


def entries(server: Server) -> list[dict[str, Any]]:
    return [entry for entry in server.status()["processes"] if entry["kind"] == "worker"]


def held(server: Server, pool: ThreadPoolExecutor, name: str) -> Future[Answer]:
    return pool.submit(server.request, "GET", f"/hold/{name}", timeout=60 * SLOWNESS)


class Load:
    """Clients that keep their connections and ask without a pause. What is not answered with 200 fails at the end."""

    def __init__(self, server: Server, target: str = "/", clients: int = 4) -> None:
        self._server = server
        self._target = target
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        self.answers: Counter[int] = Counter()  # by process id
        self.wrong: list[str] = []

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=20 * SLOWNESS)
        try:
            while not self._stop.is_set():
                connection.request("GET", self._target)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 200:
                    self.answers[int(body)] += 1
                else:
                    self.wrong.append(f"{answer.status} {body!r}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.wrong.append(repr(error))
        finally:
            connection.close()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.wrong, self.wrong[:5]

    def workers(self, number: int) -> Callable[[], bool]:
        """Whether so many have answered."""
        return lambda: len(self.answers) >= number or bool(self.wrong)


def test_on_demand(server: Server) -> None:
    start(server, "processes = 3", "processes_min = 0", "idle_after = 1s")
    assert not entries(server)
    assert (group(server)["state"], group(server)["slots"]) == ("running", 0)
    (generation,) = group(server)["generations"]
    assert generation["stage"] == "serving"
    first = server.get("/")
    assert first.status == 200
    assert [entry["pid"] for entry in entries(server)] == [int(first.text)]
    wait_until(lambda: not entries(server), "the idle worker does not end")
    assert server.logged("idle_after")
    # Many at once, while nobody is there.
    with ThreadPoolExecutor(16) as pool:
        assert {answer.status for answer in pool.map(server.get, ["/"] * 64)} == {200}
    assert len(entries(server)) <= 3


def test_on_demand_with_preloading_and_a_front_end_that_dies(server: Server) -> None:
    start(server, "processes = 1", "processes_min = 0", "idle_after = 1s", "preload = app.wsgi")
    server.allow("front end")
    for pid in server.pids("front end"):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(pid for pid in server.pids("front end")), "they do not come back")
    wait_until(lambda: _answers(server), "nobody answers")
    assert server.get("/").status == 200


def _answers(server: Server) -> bool:
    try:
        return server.get("/").status == 200
    except (OSError, http.client.HTTPException):
        return False


def test_many_groups_on_demand_at_once(server: Server) -> None:
    names = [f"g{number}" for number in range(8)]
    groups = "".join(f"  [[{name}]]\n  language = echo\n  processes = 2\n  processes_min = 0\n" for name in names)
    routes = "".join(f"    /{name}/ = group:{name}\n" for name in names)
    server.write(f"[groups]\n{groups}[sites]\n  [[all]]\n  hosts = *\n    [[[routes]]]\n{routes}")
    server.start()
    assert not entries(server)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(server.get, [f"/{name}/" for name in names * 4]))
    assert {answer.status for answer in answers} == {200}
    # Those that are not asked for any more may still have a worker when they are removed, or wait for one.
    server.write("[sites]\n  [[all]]\n  hosts = *\n  root = public\n")
    server.ctl("reload")
    wait_until(lambda: not server.status()["groups"], "groups are left")


def test_more_for_what_waits_and_fewer_for_nothing(server: Server) -> None:
    start(server, "processes = 3", "processes_min = 1", "idle_after = 1s")
    assert len(entries(server)) == 1
    with ThreadPoolExecutor(4) as pool:
        waiting = [held(server, pool, "one") for _ in range(4)]
        wait_until(lambda: counts(server)["busy"] == 3, "no more workers come")
        assert len(entries(server)) == 3
        open_gate(server, "one")
        assert len({one.result().text for one in waiting}) == 3
    wait_until(lambda: len(entries(server)) == 1, "they do not end")
    assert counts(server) == {"starting": 0, "idle": 1, "busy": 0, "leaving": 0}
    assert server.get("/").status == 200


def test_spare(server: Server) -> None:
    start(server, "processes = 3", "processes_min = 1", "spare = 1", "idle_after = 1s")
    with ThreadPoolExecutor(2) as pool:
        for number in (1, 2):
            held(server, pool, "one")
            wait_until(lambda n=number: counts(server)["busy"] == n, "it does not run")
            wait_until(lambda: counts(server)["idle"] == 1, "no worker is free")
        open_gate(server, "one")
    wait_until(lambda: len(entries(server)) == 1, "they do not end")


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("option", "target"),
    [
        ("max_requests = 300", "/"),
        ("max_age = 1s", "/"),
        ("max_cpu = 1s", "/burn/0.05"),
        ("soft_memory = 60m", "/keep/40"),
    ],
)
def test_replaced_under_load(server: Server, processes: int, option: str, target: str) -> None:
    start(server, f"processes = {processes}", option, "preload = app.wsgi")
    with Load(server, target) as load:
        wait_until(load.workers(2 + processes), "nobody is replaced", 60 * SLOWNESS)
    name = option.partition(" ")[0]
    assert server.logged(f"({name} = ")
    wait_until(lambda: counts(server)["leaving"] == 0, "those that were replaced do not end")
    assert counts(server)["idle"] + counts(server)["starting"] >= processes
    if name == "max_requests":
        finished = sorted(load.answers.values())[processes + 1 :]
        assert all(number >= 270 for number in finished), finished


def test_hard_memory(server: Server) -> None:
    """A worker that takes far too much is killed, and both logs say why."""
    server.allow("502: ", "hard_memory")
    start(server, "processes = 1", "hard_memory = 150m")
    first = server.get("/").text
    # 300 MB, and then it would go on.
    assert server.get("/hold/never-opened").status == 502
    log = wait_until(
        lambda: (log := server.log()).count("is above hard_memory") == 2 and log, "the log does not say so"
    )
    assert f"worker 0 of group app (process {first}): its private memory, " in log
    assert re.search(r"502: .*its private memory, .* is above hard_memory = 150\.0 MB", log)
    assert server.get("/").text != first


def test_memory_of_a_program(server: Server) -> None:
    """What a worker of language exec starts counts as its own."""
    server.allow("502: ", "hard_memory")
    server.file(
        "program.py",
        "#!/usr/bin/python3\n"
        "import os, socket, sys, time\n"
        "listener = socket.socket(socket.AF_UNIX)\n"
        "listener.bind(sys.argv[1])\n"
        "listener.listen(8)\n"
        "kept = []\n"
        "while True:\n"
        "    client = listener.accept()[0]\n"
        "    head = client.recv(65536)\n"
        "    if not head:\n"
        "        continue\n"
        "    if b'/bloat' in head:\n"
        "        kept.append(b'x' * 300_000_000)\n"
        "        time.sleep(60)\n"
        "    text = str(os.getpid()).encode()\n"
        "    client.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n' % len(text))\n"
        "    client.sendall(text)\n"
        "    client.close()\n",
    ).chmod(0o755)
    server.write(
        "[groups]\n  [[app]]\n  language = exec\n  application = program.py\n  arguments = {socket},\n  processes = 1\n"
        "  threads = 1\n  keepalive = no\n  hard_memory = 150m\n"
        "[sites]\n  [[all]]\n  hosts = *\n    [[[routes]]]\n    / = group:app\n"
    )
    server.start()
    first = server.get("/").text
    assert server.get("/bloat").status == 502
    wait_until(lambda: "is above hard_memory" in server.log(), "the log does not say so")
    assert server.get("/").text != first


def test_status_says_who_will_go_and_why(server: Server) -> None:
    start(server, "processes = 1", "threads = 2", "max_requests = 5")
    (before,) = entries(server)
    assert (before["going"], before["requests"]) == (None, 0)
    assert before["memory"]["private"] > 0
    assert before["age"] >= 0
    assert {group(server)[name] for name in ("processes", "processes_min")} == {1}
    with ThreadPoolExecutor(1) as pool:
        last = held(server, pool, "one")
        wait_until(lambda: counts(server)["busy"] == 1, "it does not run")
        assert {server.get("/").status for _ in range(5)} == {200}
        wait_until(lambda: counts(server)["leaving"] == 1, "it is not replaced")
        (old,) = (entry for entry in entries(server) if entry["pid"] == before["pid"])
        assert old["going"] == "it has run 5 requests (max_requests = 5)"
        assert f"worker 0 (process {old['pid']}) goes: it has run 5 requests" in server.ctl("status").stdout
        assert server.get("/").text != str(before["pid"])
        open_gate(server, "one")
        assert last.result().text == str(before["pid"])
    wait_until(lambda: [entry["pid"] for entry in entries(server)] != [before["pid"]], "it does not end")
    wait_until(lambda: len(entries(server)) == 1, "it does not end")


def test_a_successor_that_does_not_start(server: Server) -> None:
    """The one that was to go serves on, and is replaced once that is possible."""
    server.allow("group app", "app.wsgi", "Traceback")
    start(server, "processes = 1", "max_requests = 5")
    old = server.get("/").text
    server.file("app.wsgi", "raise RuntimeError('it is broken')\n")
    assert {server.get("/").text for _ in range(10)} == {old}
    wait_until(lambda: "it is broken" in server.log(), "nothing was tried")
    assert {server.get("/").text for _ in range(10)} == {old}
    server.file("app.wsgi", APPLICATION)
    wait_until(lambda: server.get("/").text != old, "it is not replaced")


def test_a_restart_on_demand_is_proven(server: Server) -> None:
    """Nobody waits for a worker, and yet a new generation shows that it can make one."""
    server.allow("group app", "app.wsgi", "Traceback")
    start(server, "processes = 2", "processes_min = 0", "idle_after = 1s")
    assert server.get("/").status == 200
    server.file("app.wsgi", "raise RuntimeError('it is broken')\n")
    refused = server.ctl("restart", "app", check=False)
    assert refused.returncode == 1
    assert "it is broken" in refused.stderr
    server.file("app.wsgi", APPLICATION)
    server.ctl("restart", "app")
    assert group(server)["generation"] == 3
    wait_until(lambda: not entries(server), "it does not fall asleep")
    assert server.get("/").status == 200


def test_a_tunnel_ends_with_its_worker(server: Server) -> None:
    write_tunnels(server, "tunnel_grace = 0.5s", hand="max_requests = 3")
    server.start()
    with Tunnel(server, "/hand/thread") as tunnel:
        tunnel.say(b"still")
        assert tunnel.hear(5) == b"still"
        (old,) = server.pids("worker", "hand")
        assert {server.get("/hand/head").status for _ in range(3)} == {200}
        assert tunnel.rest() == b""
    wait_until(lambda: old not in server.pids("worker", "hand"), "it does not end")


def test_a_page_that_lies(server: Server) -> None:
    """What a worker writes there can keep it, or cost it; nobody else."""
    server.file("app.wsgi", LIAR)
    server.write(CONFIG.format(options="processes = 2\n  processes_min = 0\n  idle_after = 1s\n  spare = 1", gates="/"))
    server.start()
    assert server.get("/").status == 200
    assert server.get("/").status == 200
    assert server.ctl("status").returncode == 0
    assert len(entries(server)) <= 4
    assert server.get("/").status == 200


LIAR = """
import ctypes, os, re

def application(environ, start_response):
    with open("/proc/self/maps") as maps:
        for line in maps:
            if "memfd:page" in line and " rw-s " in line:
                begin, end = (int(word, 16) for word in line.split()[0].split("-"))
                # since, requests, busy_ns: all that is added up or compared with the clock.
                for at in (8, 24, 32):
                    ctypes.c_uint64.from_address(begin + 128 + at).value = (1 << 64) - 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"lied"]
"""
