"""Requests that do not end: shown, interrupted, and their workers stopped within a second, in every language.

The applications in deadlines/ get stuck in four ways: in a loop, asleep, at a lock (a coroutine's loop in Lua, which has
no locks), and in C with the interpreter's lock held; and their processes ignore SIGTERM then. A statement that hangs has
its way's name as a comment.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from serving import SLOWNESS, Server, alive, directory, wait_until

SOURCES = Path(__file__).resolve().parent / "deadlines"
WAYS = ("loop", "sleep", "lock", "c")
TIMEOUT = 1.5 * SLOWNESS
SLOW = 0.4 * SLOWNESS
ROOM = 1.0 * SLOWNESS  # on top of the second that is allowed, for a machine that has other things to do


@dataclass(frozen=True)
class Language:
    name: str
    language: str
    file: str
    place: str  # where a line is in a stack
    interrupts: str = ""  # what its loop is ended with
    more: str = ""
    last: str = ""  # subsections, which come after all else


LANGUAGES = {
    one.name: one
    for one in (
        Language("python", "python", "stuck.wsgi", r'stuck\.wsgi", line {line}\b', "RequestTimeout"),
        Language("asgi", "python", "stuck_asgi.py", r'stuck_asgi\.py", line {line}\b', more="interface = asgi"),
        Language("perl", "perl", "stuck.psgi", r"stuck\.psgi:{line}\b", "longer than its request_timeout at "),
        Language("ruby", "ruby", "stuck.ru", r"stuck\.ru:{line}\b", "RequestTimeout"),
        Language(
            "php",
            "php",
            "stuck.php",
            r"stuck\.php:{line}\b",
            "PHP Fatal error: +The request has run for",
            last="[[[ini]]]\nffi.enable = 1",
        ),
        Language("lua", "lua", "stuck.lua", r"stuck\.lua:{line}\b", "the request has run for longer than"),
    )
}


def line_of(language: Language, way: str) -> str:
    """The pattern of the place where it hangs."""
    lines = (SOURCES / language.file).read_text().splitlines()
    (number,) = [at for at, text in enumerate(lines, 1) if re.search(rf"(#|--) {way}$", text)]
    return language.place.format(line=number)


def deaf(server: Server) -> None:
    """The module with which Lua ignores a signal."""
    words = ["gcc", "-shared", "-fPIC", "-fvisibility=hidden"]
    flags = subprocess.run(["pkg-config", "--cflags", "lua5.4"], capture_output=True, text=True, check=True).stdout
    target = server.directory / "work/deaf.so"
    subprocess.run([*words, *flags.split(), SOURCES / "deaf.c", "-o", target], check=True)
    target.chmod(0o755)


def write(server: Server, lines: str, processes: int) -> None:
    """A group of each language, and a calm one."""
    fifo = server.directory / "fifo"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    groups, routes = "", ""
    for one in LANGUAGES.values():
        server.file(f"work/{one.file}", (SOURCES / one.file).read_text())
        groups += (
            f"[[{one.name}]]\nlanguage = {one.language}\napplication = work/{one.file}\nprocesses = {processes}\n"
            f"threads = 1\n{lines}\n{one.more}\n[[[environment]]]\nFIFO = {fifo}\n{one.last}\n"
        )
        routes += f"/{one.name} = group:{one.name}\n"
    deaf(server)
    server.write(
        f"[groups]\n{groups}[[calm]]\nlanguage = echo\n[sites]\n[[all]]\nhosts = *\n[[[routes]]]\n/ = group:calm\n{routes}"
    )


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    """Four workers in each group, so that one is there for each way to hang."""
    with directory() as path:
        server = Server(path)
        write(server, f"request_timeout = {TIMEOUT}s\nslow_request = {SLOW}s", 4)
        server.allow(".")
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="module")
def patient() -> Iterator[Server]:
    with directory() as path:
        server = Server(path)
        write(server, "request_timeout = 1m", 3)
        server.start()
        yield server
        server.stop()


# ---- what is stuck


@dataclass
class Hung:
    """One request that hung, as it looked from outside."""

    status: int
    pid: int
    request: str
    took: float  # seconds from the client's 504 to the end of its worker
    entry: list[str]  # lines of the log for its stack
    ignored: bool = False  # its worker ignored SIGTERM


def ignores_term(pid: int) -> bool:
    with contextlib.suppress(OSError):
        found = re.search(r"^SigIgn:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)
        return bool(found and int(found[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def logged(server: Server, pattern: str) -> re.Match[str]:
    found: re.Match[str] = wait_until(lambda: re.search(pattern, server.log(), re.M), f"not logged: {pattern}")
    return found


def hang(server: Server, name: str, way: str) -> Hung:
    answer = server.get(f"/{name}/{way}")
    over = time.monotonic()
    head = logged(
        server,
        rf"group {name} (\d+) site=all request=(\w+): GET /{name}/{way} has run for [\d.]+ s, longer than request",
    )
    pid, request = int(head[1]), head[2]
    wait_until(lambda: not alive(pid), f"process {pid} does not end")
    took = time.monotonic() - over
    mark = f"group {name} {pid} site=all request={request}: "
    lines = server.log()[head.start() :].splitlines()
    return Hung(answer.status, pid, request, took, [one.partition(mark)[2] for one in lines if mark in one])


@contextlib.contextmanager
def asked(server: Server, target: str) -> Iterator[list[int]]:
    """The statuses of requests that are sent all the while."""
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.02):
            statuses.append(server.get(target).status)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def watched_for_term(pids: list[int]) -> Iterator[set[int]]:
    """Those that ignore SIGTERM at any time."""
    found: set[int] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            found.update(pid for pid in pids if ignores_term(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def hung(impatient: Server) -> Callable[[str], dict[str, Hung]]:
    """All slots of a language's group at once, each in another way; done once for each language."""
    known: dict[str, dict[str, Hung]] = {}

    def get(name: str) -> dict[str, Hung]:
        if name not in known:
            calm = impatient.pids("worker", "calm")
            workers = impatient.pids("worker", name)
            with (
                asked(impatient, "/calm") as statuses,
                watched_for_term(workers) as ignoring,
                ThreadPoolExecutor(len(WAYS)) as pool,
            ):
                known[name] = dict(zip(WAYS, pool.map(lambda way: hang(impatient, name, way), WAYS), strict=True))
            for one in known[name].values():
                one.ignored = one.pid in ignoring
            assert set(statuses) == {200}, "another group was harmed"
            assert impatient.pids("worker", "calm") == calm
        return known[name]

    return get


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LANGUAGES)
def test_what_hangs_is_shown_and_stopped(
    impatient: Server, hung: Callable[[str], dict[str, Hung]], name: str, way: str
) -> None:
    """Within a second after its deadline, with all slots stuck at once, and with SIGTERM ignored."""
    found = hung(name)[way]
    assert found.status == 504
    assert found.took < 1.0 + ROOM
    text = "\n".join(found.entry)
    assert re.search(line_of(LANGUAGES[name], way), text), text
    # The front end speaks of the same request.
    logged(impatient, rf"request={found.request}: 504: group \"{name}\": not answered within")
    logged(impatient, rf"worker \d of group {name} \(process {found.pid}\): a request ran longer than request_timeout")
    assert found.ignored


@pytest.mark.parametrize("name", LANGUAGES)
def test_its_group_goes_on(impatient: Server, hung: Callable[[str], dict[str, Hung]], name: str) -> None:
    gone = {one.pid for one in hung(name).values()}
    assert len(gone) == len(WAYS)
    wait_until(lambda: len(impatient.pids("worker", name)) == 4, "not all workers came back")
    assert not gone & set(impatient.pids("worker", name))
    assert impatient.get(f"/{name}/ok").status == 200


@pytest.mark.parametrize("name", [one.name for one in LANGUAGES.values() if one.interrupts])
def test_a_loop_is_interrupted(impatient: Server, hung: Callable[[str], dict[str, Hung]], name: str) -> None:
    """By an exception, or what the language has in its place, so that it can clean up."""
    pid = hung(name)["loop"].pid
    mine = rf"group {name} {pid}\b.*: "
    logged(impatient, rf"{mine}.*{LANGUAGES[name].interrupts}")
    logged(impatient, rf"{mine}.*cleaned up after loop")


def test_c_is_shown_in_c(impatient: Server, hung: Callable[[str], dict[str, Hung]]) -> None:
    for name in LANGUAGES:
        text = "\n".join(hung(name)["c"].entry)
        assert re.search(r"slot 0 in C \(innermost first\):\n.*\.so", text), text
        assert re.search(r"its thread \(\d+\) (computes|waits)", text), text


# ---- what is slow, and what somebody asks for


@pytest.mark.parametrize("name", LANGUAGES)
def test_slow_request(impatient: Server, name: str) -> None:
    """Shown once, with its line and id; it goes on."""
    answer = impatient.get(f"/{name}/pause/{SLOW * 2.2:.2f}")
    assert answer.status == 200
    head = logged(
        impatient,
        rf"group {name} {answer.text} site=all request=(\w+): GET /{name}/pause\S* has run for [\d.]+ s, longer than slow",
    )
    mine = [one for one in impatient.log().splitlines() if f"request={head[1]}: " in one]
    assert any(re.search(line_of(LANGUAGES[name], "pause"), one) for one in mine), mine
    assert sum("longer than slow_request" in one for one in mine) == 1
    assert int(answer.text) in impatient.pids("worker", name)


@contextlib.contextmanager
def running(server: Server, *targets: str) -> Iterator[None]:
    """Requests that have begun, and are to be answered in order."""
    with ThreadPoolExecutor(len(targets)) as pool:
        answers = [pool.submit(server.get, target) for target in targets]
        wait_until(lambda: sum(one["busy"] for one in server.status()["groups"]) == len(targets), "they do not begin")
        yield
        assert [answer.result().status for answer in answers] == [200] * len(targets)


@pytest.mark.parametrize("name", LANGUAGES)
def test_stacks_of_a_group(patient: Server, name: str) -> None:
    """On the caller's terminal, without harm to the workers: of one that waits, one that computes, one that is idle."""
    before = patient.pids("worker", name)
    with running(patient, *(f"/{name}/{way}/{3 * SLOWNESS}" for way in ("pause", "spin"))):
        text = patient.ctl("stack", name).stdout
    for way in ("pause", "spin"):
        assert re.search(rf"GET /{name}/{way}/\S+ has run for [\d.]+ s \(slot 0, request \w+\)", text), text
        assert re.search(line_of(LANGUAGES[name], way), text), text
    assert len(re.findall(rf"^worker \d of group {name} generation 1 \(process \d+\)$", text, re.M)) == 3
    assert text.count("it runs no request") == 1
    assert patient.pids("worker", name) == before


def test_a_worker_that_does_not_answer_is_named(patient: Server) -> None:
    stopped, *others = patient.pids("worker", "python")
    os.kill(stopped, signal.SIGSTOP)
    try:
        told = patient.ctl("stack", "python", "--json", check=False)
    finally:
        os.kill(stopped, signal.SIGCONT)
    answer = json.loads(told.stdout)
    assert told.returncode == 1
    (problem,) = answer["errors"]
    assert f"(process {stopped}): it did not answer within 1 s" in problem
    assert {one["pid"]: bool(one["stack"]) for one in answer["workers"]} == {
        stopped: False,
        **dict.fromkeys(others, True),
    }
    assert patient.ctl("stack", "python").returncode == 0


def test_stacks_of_no_group(patient: Server) -> None:
    told = patient.ctl("stack", "nobody", check=False)
    assert told.returncode == 1
    assert "there is no group 'nobody'" in told.stderr
    assert patient.ctl("stack", check=False).returncode == 2


# ---- what does not come up

LOADING = {
    "python": ("a.wsgi", "def deep():\n    while True: pass\ndeep()\n", r'a\.wsgi", line 2\b'),
    "perl": ("a.psgi", "sub deep {\n    1 while 1;\n}\ndeep();\n", r"a\.psgi:2\b"),
    "ruby": ("a.ru", "def deep\n  loop { }\nend\ndeep\n", r"a\.ru:2\b"),
    "lua": ("a.lua", "local function deep()\n  while true do end\nend\ndeep()\n", r"a\.lua:2\b"),
}


def test_what_does_not_come_up_is_shown(server: Server) -> None:
    groups = ""
    for name, (file, text, _) in LOADING.items():
        server.file(f"work/{file}", text)
        groups += f"[[{name}]]\nlanguage = {name}\napplication = work/{file}\nprocesses = 1\nstart_timeout = 1s\n"
    server.write(
        f"[groups]\n{groups}[[calm]]\nlanguage = echo\n[sites]\n[[all]]\nhosts = *\n[[[routes]]]\n/ = group:calm\n"
    )
    server.allow(".")
    server.start()
    for name, (_, _, place) in LOADING.items():
        pid = logged(server, rf"group {name} (\d+): where it is while it starts")[1]
        logged(server, rf"group {name} {pid}: .*{place}")
        logged(server, rf"\(process {pid}\): its application did not load within 1 s, which is its start_timeout")
    assert server.get("/").status == 200
