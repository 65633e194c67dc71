"""Requests that do not end, all of a group's at once, in workers of many slots; one beside workers that are well; and
programs (language = exec) that hang as a whole.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from exec_groups import configuration, group, lay_out, programs
from serving import Answer, Server, alive, directory, wait_until
from test_deadlines import LANGUAGES, ROOM, SOURCES, TIMEOUT, asked, deaf, line_of, logged


@dataclass(frozen=True)
class Many:
    """A group whose workers have many slots, and how each of them gets stuck."""

    name: str
    threads: int
    ways: tuple[str, ...]  # in turn


MANY = {
    one.name: one
    for one in (
        Many("python", 4, ("sleep", "lock", "loop", "sleep")),
        Many("ruby", 4, ("sleep", "lock", "loop", "sleep")),
        Many("asgi", 4, ("stubborn",)),
    )
}
PROCESSES = 2


@pytest.fixture(scope="module")
def wide() -> Iterator[Server]:
    with directory() as path:
        server = Server(path)
        groups = routes = ""
        for one in MANY.values():
            language = LANGUAGES[one.name]
            server.file(f"work/{language.file}", (SOURCES / language.file).read_text())
            groups += (
                f"[[{one.name}]]\nlanguage = {language.language}\napplication = work/{language.file}\n"
                f"processes = {PROCESSES}\nthreads = {one.threads}\nrequest_timeout = {TIMEOUT}s\n{language.more}\n"
            )
            routes += f"/{one.name} = group:{one.name}\n"
        server.write(
            f"[groups]\n{groups}[[calm]]\nlanguage = echo\n"
            f"[sites]\n[[all]]\nhosts = *\n[[[routes]]]\n/ = group:calm\n{routes}"
        )
        server.allow(".")
        server.start()
        yield server
        server.stop()


@pytest.mark.parametrize("name", MANY)
def test_all_slots_of_all_workers(wide: Server, name: str) -> None:
    """Each request is shown where it is, each worker is ended in time, and the group goes on with new ones."""
    one = MANY[name]
    count = PROCESSES * one.threads
    before, calm = wide.pids("worker", name), wide.pids("worker", "calm")
    assert len(before) == PROCESSES
    ends: list[float] = []

    def hang(number: int) -> Answer:
        answer = wide.get(f"/{name}/{one.ways[number % len(one.ways)]}?{number}")
        ends.append(time.monotonic())
        return answer

    with asked(wide, "/calm") as statuses, ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(hang, range(count)))
        wait_until(lambda: not any(map(alive, before)), "a worker does not end", (1 + ROOM) * 4)
        over = time.monotonic()
    # From the last 504 on, as the requests did not all begin at one time.
    assert over - max(ends) < 1.0 + ROOM
    assert {answer.status for answer in answers} == {504}
    assert set(statuses) == {200}
    assert wide.pids("worker", "calm") == calm
    for number in range(count):
        way = one.ways[number % len(one.ways)]
        said = logged(wide, rf"group {name} (\d+) .*: GET /{name}/{way}\?{number} has run for [\d.]+ s, longer than")
        assert int(said[1]) in before
        mine = "\n".join(line for line in wide.log().splitlines() if f"group {name} {said[1]} " in line)
        assert re.search(line_of(LANGUAGES[name], way), mine), (way, mine)
    wait_until(lambda: len(wide.pids("worker", name)) == PROCESSES, "not all workers came back")
    assert not set(before) & set(wide.pids("worker", name))
    assert wide.get(f"/{name}/ok").status == 200


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_worker_beside_it_is_left_alone(server: Server, name: str) -> None:
    """It is the stuck request's worker that is ended, and no other of its group."""
    language = LANGUAGES[name]
    server.file(f"work/{language.file}", (SOURCES / language.file).read_text())
    deaf(server)
    server.write(
        f"[groups]\n[[one]]\nlanguage = {language.language}\napplication = work/{language.file}\nprocesses = 2\n"
        f"request_timeout = {TIMEOUT}s\n{language.more}\n{language.last}\n"
        "[sites]\n[[all]]\nhosts = *\n[[[routes]]]\n/ = group:one\n"
    )
    server.allow(".")
    server.start()
    before = set(server.pids("worker", "one"))
    with ThreadPoolExecutor(1) as pool, asked(server, "/ok") as statuses:
        stuck = pool.submit(server.get, "/sleep")
        assert stuck.result().status == 504
        said = logged(server, r"group one (\d+) site=all request=\w+: GET /sleep has run for")
        wait_until(lambda: not alive(int(said[1])), "it is not ended")
        wait_until(lambda: len(server.pids("worker", "one")) == 2, "it is not replaced")
    assert set(statuses) == {200}
    (other,) = before - {int(said[1])}
    assert other in server.pids("worker", "one")


# ---- programs


@pytest.fixture
def upstream(server: Server) -> Server:
    lay_out(server)
    text = group("one", threads=2, request_timeout=f"{TIMEOUT}s")
    server.write(configuration(text).replace("@", str(server.directory)))
    server.allow("exec: ", "its program", "504", "502", "request_timeout")
    return server.start()


def test_a_program_that_hangs_as_a_whole(upstream: Server) -> None:
    """Ended in time once it has left unanswered as much as it can be given: asked, and then killed."""
    (worker,), (program,) = upstream.pids("worker", "one"), programs(upstream, "one")
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(upstream.get, ["/one/hang"] * 2))
    over = time.monotonic()
    wait_until(lambda: not alive(program), "it lives on", (1 + ROOM) * 4)
    assert time.monotonic() - over < 1.0 + ROOM
    assert [answer.status for answer in answers] == [504, 504]
    told = rf"\(process {program}\) has answered none of the last 2 requests within request_timeout"
    logged(upstream, rf"group one {worker}: exec: .*{told}")
    cause = r"was killed by SIGKILL, as it had answered none of the last 2 requests within request_timeout"
    logged(upstream, rf"worker 0 of group one \(process {worker}\): its program .* {cause}")
    wait_until(lambda: upstream.get("/one/status-200").status == 200, "nobody takes its place")
    assert programs(upstream, "one") != [program]


def test_a_program_that_answers_others(upstream: Server) -> None:
    """Some of its requests do not end, and others do: that is its own business."""
    (program,) = programs(upstream, "one")
    for _ in range(3):
        assert upstream.get("/one/silent").status == 504
        assert upstream.get("/one/status-200").status == 200
    assert programs(upstream, "one") == [program]
    assert "has answered none" not in upstream.log()
