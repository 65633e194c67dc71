"""S36: what is loaded in the manager before the fork, what workers share by it, and what must not be shared."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest
from serving import KEPT_KB, SANITIZED, Server, free_port, wait_until
from under_load import all_serve

from webserver.cli.memory import added

# 48 MB that nothing writes to afterwards.
SIZE = 768 << 16
APPLICATION = """
import json, multiprocessing.util, os, random, time

LOADED_BY = os.getpid()
forks = []
os.register_at_fork(before=lambda: forks.append("before"), after_in_parent=lambda: forks.append("parent"),
                    after_in_child=lambda: forks.append("child"))
class Queue: pass
queue = Queue()
multiprocessing.util.register_after_fork(queue, lambda found: setattr(found, "renewed_by", os.getpid()))
large = os.urandom(1 << 16) * 768
random.seed(1)

def make():
    return application

def application(environ, start_response):
    time.sleep(0.02)  # so that eight at once need both workers
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({
        "pid": os.getpid(), "manager": os.getppid(), "loaded": LOADED_BY, "forks": forks, "large": len(large),
        "renewed": getattr(queue, "renewed_by", None), "random": random.random(), "version": 1,
    }).encode()]
"""

CONFIG = """
[groups]
[[app]]
language = python
application = {application}
{preload}
directory = work
processes = 2
threads = 2
[sites]
[[all]]
hosts = *
root = public
[[[routes]]]
/ = group:app
"""


HOOKED = """
import faulthandler, os, signal, threading

handled, masks = [], []
signal.signal(signal.SIGHUP, lambda *_: handled.append("HUP"))
faulthandler.register(signal.SIGUSR1)  # in C: what Python knows of this signal stays as it was
os.register_at_fork(
    after_in_child=lambda: threading.Thread(
        target=lambda: masks.append([int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])])
    ).start()
)

def application(environ, start_response):
    start_response("200 OK", [])
    return [repr((handled, masks)).encode()]
"""


def start(server: Server, application: str, preload: str = "") -> Server:
    server.file("work/app.wsgi", APPLICATION)
    server.file("work/shop.py", APPLICATION)
    line = f"preload = {preload}" if preload else ""
    server.write(CONFIG.format(application=application, preload=line))
    return server.start()


def each_worker(server: Server) -> dict[int, dict[str, object]]:
    """What each of the two workers says of itself."""
    seen: dict[int, dict[str, object]] = {}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        while len(seen) < 2:
            for answer in pool.map(server.get, ["/"] * 8):
                found = json.loads(answer.body)
                seen.setdefault(found["pid"], found)
    return seen


def memory(server: Server, kind: str) -> list[dict[str, int]]:
    return [entry["memory"] for entry in server.status()["processes"] if entry["kind"] == kind]


@pytest.mark.parametrize(
    ("application", "preload"),
    [
        ("work/app.wsgi", "work/app.wsgi"),
        ("shop:application", "shop:application"),
        ("shop:application", "shop"),
        ("shop:make()", "json, shop:make()"),
    ],
)
def test_the_application_is_loaded_once_in_the_manager(server: Server, application: str, preload: str) -> None:
    start(server, application, preload)
    seen = each_worker(server)
    (manager,) = server.pids("manager", "app")
    for pid, found in seen.items():
        assert (found["loaded"], found["manager"]) == (manager, manager)
        # Its hooks have been run, by the fork and for multiprocessing, and no two workers draw the same numbers.
        assert str(found["forks"]).endswith("'before', 'child']")
        assert found["renewed"] == pid
    assert len({found["random"] for found in seen.values()}) == 2
    # Restarting loads it anew, from the new file.
    for name in ("app.wsgi", "shop.py"):
        server.file(f"work/{name}", APPLICATION.replace('"version": 1', '"version": 2'))
    server.ctl("restart", "app")
    assert {found["version"] for found in each_worker(server).values()} == {2}


def test_memory_that_is_shared_is_told(server: Server) -> None:
    start(server, "work/app.wsgi")
    each_worker(server)
    apart = memory(server, "worker")
    assert min(one["private"] for one in apart) > SIZE
    server.configure(server.config_file.read_text().replace("threads = 2", "preload = work/app.wsgi"))
    server.ctl("reload")
    each_worker(server)
    together = memory(server, "worker")
    assert max(one["private"] for one in together) < SIZE // 2 + KEPT_KB * 1024
    for one in together:
        assert one["shared"] > SIZE
        assert one["rss"] == one["private"] + one["shared"]
        assert one["private"] <= one["pss"] <= one["rss"]
    # Three processes have the 48 MB between them once.
    (group,) = server.status()["groups"]
    if not SANITIZED:
        assert SIZE < group["memory"]["pss"] < 2 * SIZE < group["memory"]["rss"]
    lines = server.ctl("status").stdout.splitlines()
    heads = [line for line in lines if "PRIVATE" in line and "SHARED" in line]
    assert len(heads) == 1
    shown = [line for line in lines if line.startswith("worker")]
    assert len(shown) == 2
    assert all(float(line.split()[-1].rstrip("M")) > SIZE >> 20 for line in shown)


def test_every_process_has_its_memory_in_status(server: Server) -> None:
    start(server, "work/app.wsgi", "work/app.wsgi")
    for entry in server.status()["processes"]:
        text = Path(f"/proc/{entry['pid']}/smaps_rollup").read_text()
        now = added(text)
        assert entry["memory"].keys() == now.keys() == {"rss", "pss", "private", "shared", "swap"}
        assert abs(entry["memory"]["rss"] - now["rss"]) < 8 << 20


LEFT = """
import os, select, socket, sqlite3, threading
listening = socket.create_server(("127.0.0.1", {port}))
client = socket.create_connection(("127.0.0.1", {database}))
pair = socket.socketpair()
database = sqlite3.connect({path!r})
database.execute("create table if not exists t (x)")
poll = select.epoll()
pipe = os.pipe()
log = open({log!r}, "a")
source = open(__file__)
threading.Thread(target=threading.Event().wait, name="poller of prices", daemon=True).start()
"""


def test_threads_and_connections_that_preloading_left_are_named(server: Server) -> None:
    port = free_port()
    data = server.directory / "data"
    data.mkdir()
    data.chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as other:
        database = other.getsockname()[1]
        path, log = str(data / "prices.db"), str(data / "prices.log")
        server.file("work/left.py", LEFT.format(port=port, database=database, path=path, log=log))
        start(server, "work/app.wsgi", "left, work/app.wsgi")
        line = wait_until(
            lambda: [line for line in server.log().splitlines() if "left open what all workers now share" in line],
            "the log does not name what is left open",
        )
        assert len(line) == 1
        for what in (
            f"listening socket 127.0.0.1:{port} (descriptor ",
            f"connection to 127.0.0.1:{database} (descriptor ",
            "one of a pair of sockets (descriptor ",
            f"file {path} open for writing (descriptor ",
            "epoll set (descriptor ",
            "pipe (descriptor ",
            "Close it before preloading ends, or open it after the fork",
        ):
            assert what in line[0], what
        # What is read, or appended to, does not get mixed up.
        assert log not in line[0]
        assert "left.py" not in line[0]
        named = [line for line in server.log().splitlines() if "preloading left threads" in line]
        assert len(named) == 1
        assert "preloading left threads that no worker will have: poller of prices;" in named[0]
        (manager,) = [entry for entry in server.status()["processes"] if entry["kind"] == "manager"]
        assert manager["threads_left"] == ["poller of prices"]
        assert [text for text in manager["shared"] if text.startswith(f"connection to 127.0.0.1:{database} ")]
        text = server.ctl("status").stdout
        assert "group app generation 1: preloading left threads that no worker has: poller of prices\n" in text
        assert f"preloading left open what all workers share: listening socket 127.0.0.1:{port} (" in text
        # It is so: the numbers that are named are the same sockets in each process.
        (number,) = re.findall(rf"connection to 127\.0\.0\.1:{database} \(descriptor (\d+)\)", line[0])
        pids = [*server.pids("manager", "app"), *server.pids("worker", "app")]
        assert len({os.readlink(f"/proc/{pid}/fd/{number}") for pid in pids}) == 1


def test_nothing_is_named_where_nothing_is_left(server: Server) -> None:
    source = LEFT.format(port=free_port(), database=0, path="", log="")
    source = re.sub(r"(?m)^(client|database|log|threading).*\n", "", source)
    source += (
        "listening.close(), pair[0].close(), pair[1].close(), poll.close(), os.close(pipe[0]), os.close(pipe[1])\n"
    )
    server.file("work/tidy.py", source)
    start(server, "work/app.wsgi", "tidy, work/app.wsgi")
    each_worker(server)
    (manager,) = [entry for entry in server.status()["processes"] if entry["kind"] == "manager"]
    assert (manager["threads_left"], manager["shared"]) == ([], [])
    assert "preloading left" not in server.log() + server.ctl("status").stdout


def test_a_requested_file_and_any_other_are_preloaded(server: Server) -> None:
    server.file("work/warm.py", "import os, builtins\nbuiltins.warmed_by = os.getpid()\n")
    page = (
        "import os\nBY = os.getpid()\ndef application(e, s):\n    s('200 OK', [])\n"
        "    return [b'%d %d' % (BY, warmed_by)]\n"
    )
    path = server.file("public/page.py", page)
    server.write(
        "[groups]\n[[app]]\nlanguage = python\npreload = public/page.py, work/warm.py\n"
        "[sites]\n[[all]]\nhosts = *\nroot = public\n[[[routes]]]\n.py = group:app\n"
    )
    server.start()
    (manager,) = server.pids("manager", "app")
    assert server.get("/page.py").text == f"{manager} {manager}"
    # And it is loaded again when it has changed, by whoever is asked.
    path.write_text(page.replace("b'%d %d'", "b'new %d %d'"))
    by, warmed = server.get("/page.py").text.removeprefix("new ").split()
    assert int(by) in server.pids("worker", "app")
    assert int(warmed) == manager


def test_sums() -> None:
    text = (
        "55c0-7ffd ---p 00000000 00:00 0 [rollup]\nRss: 100 kB\nPss: 60 kB\nPss_Dirty: 1 kB\nShared_Clean: 30 kB\n"
        "Shared_Dirty: 20 kB\nPrivate_Clean: 10 kB\nPrivate_Dirty: 40 kB\nAnonymous: 60 kB\nSwap: 4 kB\nSwapPss: 4 kB\n"
    )
    expected = {"rss": 100, "pss": 60, "private": 50, "shared": 50, "swap": 4}
    assert added(text) == {name: number * 1024 for name, number in expected.items()}


CHILDREN = """
import concurrent.futures, counting, multiprocessing

def application(environ, start_response):
    context = multiprocessing.get_context(environ["QUERY_STRING"])
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        squares = list(pool.map(counting.square, range(4)))
    queue = context.Queue()
    child = context.Process(target=counting.put, args=(queue,))
    child.start()
    got = queue.get(timeout=60)
    child.join()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr((squares, got, child.exitcode)).encode()]
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_worker_has_child_processes_of_its_own(server: Server, method: str) -> None:
    """multiprocessing was loaded, with its hooks, in another process than the one that uses it."""
    server.file("work/app.wsgi", CHILDREN)
    server.file("work/counting.py", "def square(x):\n    return x * x\ndef put(queue):\n    queue.put('put')\n")
    line = "preload = multiprocessing, concurrent.futures, counting, work/app.wsgi"
    server.write(CONFIG.format(application="work/app.wsgi", preload=line))
    server.start()
    for _ in range(2):
        answer = server.get(f"/?{method}")
        assert (answer.status, answer.text) == (200, "([0, 1, 4, 9], 'put', 0)"), server.log()


def test_signals_over_the_fork(server: Server) -> None:
    """What an application handles is its own, in Python or in C, and its hooks have the mask that it had."""
    server.file("work/app.wsgi", HOOKED)
    text = CONFIG.format(application="work/app.wsgi", preload="preload = work/app.wsgi")
    # Python runs its handlers on the main thread, which is the first slot's: with two, a request might never come to it.
    server.write(text.replace("threads = 2", "threads = 1"))
    all_serve(server.start())
    for pid in server.pids("worker", "app"):
        os.kill(pid, signal.SIGHUP)
        os.kill(pid, signal.SIGUSR1)
    wait_until(lambda: server.log().count("most recent call first") >= 2, "faulthandler's handler is gone")
    wait_until(lambda: server.get("/").body == b"(['HUP'], [[]])", "a handler is gone, or signals are held")
