"""Programs that answer wrongly, hang, die or never start: what the client gets, what the log says, what is left."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from exec_groups import configuration, group, lay_out, programs, running, wardens
from serving import SLOWNESS, Server, alive, descendants, directory, read_all, wait_until


@pytest.fixture(scope="module")
def one() -> Iterator[Server]:
    groups = (
        group("hostile", threads=2),
        group("stuck", request_timeout="1s"),
    )
    with running(*groups) as server:
        server.allow("exec: ", "request_timeout", "ended its answer before it was whole")
        yield server


def lines_after(one: Server, before: str) -> list[str]:
    return [line for line in one.log()[len(before) :].splitlines() if " exec: " in line]


RAW = {
    "garbage": "not valid: ",
    "two-lengths": "not valid: ",
    "length-and-chunked": "not valid: ",
    "negative-length": "not valid: ",
    "no-status": "not valid: ",
    "control-in-value": "not valid: ",
    "many-fields": "not valid: it has too many fields",
    "large-head": "not valid: its head is too large",
    "switch-unasked": "not valid: 101 to a request that asked for no upgrade",
    "chunk-size": "not valid: ",
    "nothing": "closed the connection before it had answered",
    "half-a-head": "closed the connection before it had answered",
}


@pytest.mark.parametrize("name", RAW)
def test_an_answer_that_is_none(one: Server, name: str) -> None:
    """502, and one line that says what was wrong with it."""
    before = one.log()
    assert one.request("POST", f"/hostile/raw-{name}").status == 502
    wait_until(lambda: lines_after(one, before), "nothing is logged")
    (line,) = lines_after(one, before)
    assert RAW[name] in line
    assert "group hostile" in line


@pytest.mark.parametrize("name", ["endless", "interims"])
def test_an_answer_that_never_begins(one: Server, name: str) -> None:
    before = one.log()
    assert b"HTTP/1.1 502 " in one.raw(f"GET /hostile/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    wait_until(lambda: any("not valid: " in line for line in lines_after(one, before)), "nothing is logged")


@pytest.mark.parametrize("name", ["length", "chunk", "chunks"])
def test_an_answer_that_is_cut_off_does_not_look_whole(one: Server, name: str) -> None:
    before = one.log()
    with one.connect() as sock:
        sock.sendall(f"POST /hostile/cut-{name} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        first = sock.recv(65536)
        assert first.startswith(b"HTTP/1.1 200 ")
        sock.sendall(b"1\r\nx\r\n")
        rest = b""
        with contextlib.suppress(ConnectionResetError):
            rest = read_all(sock)
    assert not (first + rest).endswith(b"0\r\n\r\n")
    assert len(first + rest) < 1000
    wait_until(lambda: lines_after(one, before), "nothing is logged")
    assert all("middle of its answer" in line or "not valid" in line for line in lines_after(one, before))


def test_a_program_that_does_not_answer(one: Server) -> None:
    """504 after request_timeout; the connection to it is closed, its worker stays and has the slot free again."""
    pids = one.pids("worker", "stuck"), programs(one, "stuck")
    assert one.get("/stuck/silent").status == 504
    assert one.get("/stuck/status-200").status == 200
    wait_until(lambda: not any(process.get("busy") for process in one.status()["processes"]), "a slot is busy")
    assert (one.pids("worker", "stuck"), programs(one, "stuck")) == pids


@pytest.mark.parametrize("seconds", [1.2, 2])
def test_a_late_answer_does_not_hold_its_program(one: Server, seconds: float) -> None:
    """Whether it comes before the connection is closed or afterwards, and without any other request."""
    before = one.log().count("the late answer is over")
    assert one.get(f"/stuck/late-{seconds}").status == 504
    wait_until(lambda: one.log().count("the late answer is over") > before, "the program still writes")


def test_a_client_that_goes_away(one: Server) -> None:
    """The program's connection is closed: it hears of it, and its slot is free."""
    for _ in range(4):
        with one.connect() as sock:
            sock.sendall(b"GET /stuck/stream-1000000000 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(1000)
    wait_until(lambda: not any(process.get("busy") for process in one.status()["processes"]), "a slot is busy")


# ---- deaths


@pytest.mark.parametrize("word", ["die", "exit-3"])
def test_a_program_that_dies_with_a_request(word: str) -> None:
    """502 and one line with the cause; another worker, another program."""
    with running(group("frail")) as one:
        one.allow("its program")
        before = programs(one, "frail")
        answer = one.get(f"/frail/{word}")
        assert answer.status == 502
        cause = "was killed by SIGKILL" if word == "die" else "exited with status 3"
        wait_until(lambda: one.log().count(cause) >= 2, "the cause is not logged")
        (request,) = [line for line in one.log().splitlines() if "before it had answered" in line]
        assert f"exec: its program /usr/bin/python3 (process {before[0]}) {cause} before" in request
        assert one.logged_like(rf"worker 0 of group frail \(process \d+\): its program .* {cause}")
        if word != "die":
            assert one.logged("told to exit")
        after = wait_until(lambda: set(programs(one, "frail")) - set(before), "no program follows")
        assert len(after) == 1
        assert one.get("/frail/status-200").status == 200


@pytest.mark.parametrize("word", ["die-answering", "die-close"])
def test_a_program_that_dies_in_its_answer(word: str) -> None:
    """Not even an answer that has no length looks whole."""
    with running(group("frail")) as one:
        one.allow("its program", "ended its answer before it was whole")
        with one.connect() as sock:
            sock.sendall(f"POST /frail/{word} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            first = sock.recv(65536)
            sock.sendall(b"1\r\nx\r\n")
            rest = b""
            with contextlib.suppress(ConnectionResetError):
                rest = read_all(sock)
        assert not (first + rest).endswith(b"0\r\n\r\n")
        assert len(first + rest) < 1000
        wait_until(lambda: "SIGKILL in the middle of its answer" in one.log(), "the cause is not logged")


def test_programs_that_are_killed_under_load() -> None:
    """Each request gets its answer, or 502 with one line that names the cause; what was not begun is run elsewhere."""
    with running(group("frail", threads=4, processes=2)) as one:
        one.allow("its program")
        stop = threading.Event()
        statuses: list[int] = []

        def ask() -> None:
            while not stop.is_set():
                statuses.append(one.get("/frail/sleep-5").status)

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            futures = [pool.submit(ask) for _ in range(16)]
            for _ in range(4):
                one.look()
                (victim, *_) = wait_until(lambda: programs(one, "frail"), "no program runs")
                done = len(statuses)
                wait_until(lambda done=done: len(statuses) > done + 100, "no request is answered")
                os.kill(victim, signal.SIGKILL)
                wait_until(lambda victim=victim: len(set(programs(one, "frail")) - {victim}) == 2, "none follows")
            stop.set()
            for future in futures:
                future.result()
        one.look()
        failed = [status for status in statuses if status != 200]
        assert set(failed) <= {502}
        assert len(failed) <= 4 * 4  # what one program ran, each time
        causes = [line for line in one.log().splitlines() if "exec: " in line]
        assert len(causes) == len(failed)
        assert all("was killed by SIGKILL" in line for line in causes)


@pytest.mark.parametrize("victim", ["program", "warden", "worker", "manager"])
def test_nobody_is_left_behind(victim: str) -> None:
    """Whoever is killed: all below it end, with what the program has forked and forgotten, and come again."""
    with running(group("frail")) as one:
        one.allow("its program", "manager of group", "worker 0 of group frail", "killed by SIGKILL")
        forgotten = int(one.get("/frail/fork").body)
        worker, warden = one.pids("worker", "frail"), wardens(one, "frail")
        assert forgotten in descendants(warden[0])
        assert os.getsid(forgotten) != os.getsid(warden[0])
        (program,) = [pid for pid in programs(one, "frail") if pid != forgotten]
        victims = {
            "program": program,
            "warden": warden[0],
            "worker": worker[0],
            "manager": one.pids("manager", "frail")[0],
        }
        os.kill(victims[victim], signal.SIGKILL)
        for pid in (forgotten, program, warden[0], worker[0]):
            wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), f"{pid} of {victims}, {forgotten} is left")
        wait_until(lambda: one.get("/frail/pid").status == 200, "it does not come again")
        wait_until(lambda: len(list((one.directory / "scratch").iterdir())) == 1, "an old socket is left")


def test_a_server_that_is_killed_leaves_nothing() -> None:
    with directory() as path:
        one = Server(path)
        lay_out(one)
        one.write(configuration(group("frail")).replace("@", str(path)))
        one.start()
        forgotten = int(one.get("/frail/fork").body)
        one.look()
        assert one.process is not None
        assert forgotten in one.seen
        one.process.kill()
        one.wait_for_end()
        if one.process.stderr is not None:
            one.process.stderr.close()
        wait_until(lambda: not one.left(), "processes are left")
        wait_until(lambda: not list((path / "scratch").iterdir()), "a socket is left")


# ---- orderly ends


def test_a_program_is_asked_to_end_and_waited_for() -> None:
    text = group("polite", "SAY_GOODBYE = @/scratch/goodbye")
    with running(text) as one:
        (before,) = programs(one, "polite")
        one.ctl("restart", "polite")
        wait_until(lambda: not alive(before), "the old program is left")
        assert (one.directory / "scratch/goodbye").read_text() == "goodbye\n"
        assert one.get("/polite/status-200").status == 200
        (one.directory / "scratch/goodbye").unlink()
        one.stop()
        assert (one.directory / "scratch/goodbye").read_text() == "goodbye\n"
        (one.directory / "scratch/goodbye").unlink()


DEAF = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[2])
listener.listen()
while True:
    connection, _ = listener.accept()
    connection.close()
"""


def test_stop_timeout(server: Server) -> None:
    lay_out(server)
    server.file("deaf.py", DEAF)
    text = group("deaf", stop_timeout="500ms").replace("server.py", "deaf.py")
    server.write(configuration(text).replace("@", str(server.directory)))
    server.start()
    (pid,) = programs(server, "deaf")
    began = time.monotonic()
    server.ctl("restart", "deaf")
    wait_until(lambda: not alive(pid), "it is not killed")
    assert 0.4 < time.monotonic() - began < 10 * SLOWNESS


def test_restarts_under_load_lose_nothing() -> None:
    with running(group("steady", threads=4, processes=2)) as one:
        stop = threading.Event()
        statuses: list[int] = []

        def ask(method: str) -> None:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", one.port, timeout=20 * SLOWNESS)) as client:
                while not stop.is_set():
                    client.request(method, "/steady/sleep-2", b"x" * 10 if method == "POST" else None)
                    answer = client.getresponse()
                    answer.read()
                    statuses.append(answer.status)

        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            futures = [pool.submit(ask, "GET" if i % 2 else "POST") for i in range(12)]
            for _ in range(3):
                done = len(statuses)
                wait_until(lambda done=done: len(statuses) > done + 100, "no request is answered")
                one.ctl("restart", "steady")
            stop.set()
            for future in futures:
                future.result()
        assert set(statuses) == {200}


# ---- programs that do not start


def failing(server: Server, program: str, content: str, **options: object) -> str:
    """Start a server whose group cannot start, and return what it says of it."""
    lay_out(server)
    path = server.file(program, content)
    path.chmod(0o755)
    text = group("bad", **options).replace("/usr/bin/python3", f"@/{program}")
    server.write(configuration(text).replace("@", str(server.directory)))
    server.allow("bad")
    server.start()
    assert b"group bad has failed to start" in server.stderr
    return server.stderr.decode()


def test_a_program_that_exits_at_once(server: Server) -> None:
    said = failing(server, "hasty", "#!/bin/sh\necho there is no database >&2\nexit 7\n")
    assert re.search(r"/hasty \(process \d+\) exited with status 7 before it took a connection", said)
    assert server.logged("there is no database")


def test_a_program_that_never_listens(server: Server) -> None:
    said = failing(server, "idle", "#!/bin/sh\nexec sleep 1000\n", start_timeout="1s")
    assert "/idle runs but made no socket within start_timeout; expected it on /" in said
    assert "/socket, as PORT and {socket} say" in said


@pytest.mark.parametrize(("listens_on", "where"), [("descriptor", "descriptor 3"), ("port", "127.0.0.1:")])
def test_a_program_that_never_accepts(server: Server, listens_on: str, where: str) -> None:
    said = failing(server, "idle", "#!/bin/sh\nexec sleep 1000\n", start_timeout="1s", listens_on=listens_on)
    assert f"within start_timeout; expected it on {where}" in said


def test_a_program_that_is_none(server: Server) -> None:
    said = failing(server, "data", "\0\1\2 no program\n")
    assert "/data cannot be run: it is no program, and does not begin with #!" in said


def test_a_new_program_that_does_not_start_changes_nothing(server: Server) -> None:
    lay_out(server)
    text = group("good")
    server.write(configuration(text).replace("@", str(server.directory)))
    server.start()
    before = programs(server, "good")
    server.file("server.py", "raise SystemExit('broken')")
    server.allow("good")
    result = server.ctl("restart", "good", check=False)
    assert result.returncode != 0
    assert "exited with status 1 before it took a connection" in result.stderr + server.log()
    assert programs(server, "good") == before
    assert server.get("/good/status-200").status == 200


def test_a_program_that_may_not_be_run(server: Server) -> None:
    lay_out(server)
    server.file("locked", "#!/bin/sh\n")
    text = group("bad").replace("/usr/bin/python3", "@/locked")
    server.write(configuration(text).replace("@", str(server.directory)))
    server.start(expect_ready=False)
    assert server.wait_for_end() != 0
    assert b"/locked" in server.stderr
    assert server.process is not None
    if server.process.stderr is not None:
        server.process.stderr.close()
    server.process = None


def test_a_full_queue_of_connections(server: Server) -> None:
    """A program that accepts nothing more: its requests wait, and end at their time."""
    lay_out(server)
    server.file(
        "full.py",
        DEAF.replace("listen()", "listen(1)").replace(
            "while True:", "listener.accept()\nwhile True: signal.pause()\nwhile True:"
        ),
    )
    text = group("full", threads=8, request_timeout="1s", stop_timeout="500ms").replace("server.py", "full.py")
    server.write(configuration(text).replace("@", str(server.directory)))
    server.allow("request_timeout")
    server.start()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert {future.result().status for future in [pool.submit(server.get, "/full/x") for _ in range(8)]} == {504}
