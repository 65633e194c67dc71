"""ASGI 3 clause by clause through the real server: an application of many small ones, spoken to over HTTP."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from asgi_site import DATA, prepare
from serving import KEPT_KB, SLOWNESS, Server, anonymous, read_all, wait_until


@pytest.fixture
def app(server: Server) -> Server:
    return prepare(server)


def happened(app: Server) -> list[str]:
    return app.get("/happened").text.split("\n")


def scope_of(app: Server, target: str, **fields: str) -> dict[str, object]:
    found: dict[str, object] = eval(app.get(target, **fields).text)
    return found


def test_scope(app: Server) -> None:
    seen = scope_of(app, "/scope_of/caf%C3%A9%2Fx%FF?q=%20&r", X_Word="T")
    headers = dict(seen["headers"])
    expected = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/scope_of/café/x\ufffd",
        "raw_path": b"/scope_of/caf%C3%A9%2Fx%FF",
        "query_string": b"q=%20&r",
        "root_path": "",
        "server": ("127.0.0.1", app.port),
        "state": {"made": ["at startup"]},
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert headers[b"host"] == b"127.0.0.1:%d" % app.port
    assert headers[b"x-word"] == b"T"
    assert all(isinstance(part, bytes) and name == name.lower() for name, part in seen["headers"])
    assert seen["client"][0] == "127.0.0.1"
    assert isinstance(seen["client"][1], int)
    assert {"http.response.trailers", "http.response.early_hint", "http.response.pathsend"} <= set(seen["extensions"])
    assert re.fullmatch("[0-9a-f]{16}", seen["webserver"]["request_id"])
    assert isinstance(seen["webserver"]["deadline"], float)
    request = seen["webserver"]["request_id"]
    wait_until(lambda: f"request={request}: a line of {request}" in app.log(), "its line is not in the log")
    mounted = scope_of(app, "/mount/point/scope_of")
    # Frameworks take root_path off the path themselves.
    assert (mounted["root_path"], mounted["path"]) == ("/mount/point", "/mount/point/scope_of")
    old = app.raw(b"GET http://other/scope_of?x HTTP/1.0\r\n\r\n")
    assert b"'http_version': '1.0'" in old
    assert b"'raw_path': b'/scope_of'" in old


def test_a_scope_is_the_request_s_own(app: Server) -> None:
    seen = app.get("/change_scope").text
    assert seen == repr(({"made": ["at startup"]}, ["spec_version", "version"], False, "nobody's"))
    assert app.get("/change_scope").text == seen


def chunked(target: str, *parts: bytes) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    head = f"POST {target} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    return head.encode() + body + b"0\r\n\r\n"


def test_bodies(app: Server) -> None:
    content = os.urandom(1_000_001)
    for body in (b"", b"x", content):
        assert app.request("POST", "/echo", body).body == body
        assert app.request("POST", "/stream_back", body).body == body
    assert b"onetwothree" in app.raw(chunked("/echo", b"one", b"two", b"three"))
    assert app.raw(chunked("/stream_back", b"one")).endswith(b"one")
    total, largest, _ = app.request("POST", "/count", content).text.split()
    assert int(total) == len(content)
    assert int(largest) <= 65536
    assert app.get("/echo").body == b""
    assert app.request("POST", "/unread", content).status == 403
    assert app.get("/pieces").body == b"one two three four"
    for size in (0, 1, 65536, 65537, 262144, 5_000_003):
        body = app.get(f"/large?{size}").body
        assert body == bytes(range(256)) * (size // 256) + b"x" * (size % 256), size


def test_body_in_both_directions_at_once(app: Server) -> None:
    """More than the windows hold goes through and back, while neither side waits for the other's end."""
    total, got = 8_000_000, []
    with app.connect() as sock:
        sock.sendall(
            b"POST /stream_back HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % total
        )
        reader = threading.Thread(target=lambda: got.append(read_all(sock)))
        reader.start()
        for _ in range(total // 100_000):
            sock.sendall(b"y" * 100_000)
        reader.join()
    assert got[0].partition(b"\r\n\r\n")[2].count(b"y") == total


def test_not_a_byte_is_asked_for_before_receive(app: Server) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
    assert app.raw(head % b"/unread").startswith(b"HTTP/1.1 403 ")
    with app.connect() as sock:
        sock.sendall(head % b"/echo")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"fives")
        assert read_all(sock).endswith(b"fives")


def test_answers(app: Server) -> None:
    answer = app.get("/ignored_headers")
    assert (answer.body, answer.field("X-Kept"), answer.field("Transfer-Encoding")) == (b"ignored", "1", None)
    head = app.request("HEAD", "/head")
    assert (head.field("Content-Length"), head.body) == ("10", b"")
    assert app.get("/loop_kind").text.endswith(" True")
    assert app.get("/timeout").body == b"cancelled"
    assert app.get("/subprocess").body == b"from a program\n"
    assert app.get("/half_sent").body == b"a" * 4000000 + b"b" * 4000000
    assert app.get("/fork").body == b"child: 0"
    assert app.get("/").body == b"hello, world"


def test_mistakes_are_explained(app: Server) -> None:
    app.allow(".")
    for name, words in (
        ("raises", r"KeyError: 'nobody caught this: \\udc80'"),
        ("raises_after_start", "KeyError: 'nothing was sent yet'"),
        ("exits", "SystemExit: 3"),
        ("silent", "without an answer"),
        ("not_awaitable", "TypeError"),
        ("not_a_dict", "an event must be a dict, not list"),
        ("no_start", "found the event 'http.response.body', expected http.response.start"),
        ("unknown", "found the event 'http.response.pushed', expected http.response.start"),
        ("bad_header", "HTTP does not allow these headers"),
        ("text_header", "must be pairs of bytes"),
        ("bad_status", "status must be a number"),
        ("twice", "found the event 'http.response.start', expected http.response.body"),
        ("text_body", "body must be bytes, not str"),
        ("pathsend_missing", "FileNotFoundError"),
    ):
        answer = app.get(f"/{name}")
        assert (answer.status, answer.body) == (500, b"Internal Server Error\n"), name
        wait_until(lambda words=words: re.search(words, app.log()), f"{name}: {words} is not in the log")
    # The traceback is of the request that the access log has.
    entry = re.search(r"^.*KeyError: 'nobody caught this.*$", app.log(), re.M)
    assert entry, app.log()
    for name, words in (("raises_late", "in the middle of it"), ("unfinished", "before its response was complete")):
        with app.connect() as sock:
            sock.sendall(b"GET /%s HTTP/1.1\r\nHost: h\r\n\r\n" % name.encode())
            whole = read_all(sock)
        assert not whole.endswith(b"0\r\n\r\n"), name
        wait_until(lambda words=words: words in app.log(), f"{words} is not in the log")
    assert app.get("/raises_after").body == b"complete"
    wait_until(lambda: "after the answer" in app.log(), "it is not in the log")
    assert app.get("/too_long").body == b"01234"
    assert app.get("/too_short").status == 502
    assert app.get("/").body == b"hello, world"


def leave(app: Server, target: str, until: str) -> None:
    """Ask for it, and go away once the application says that it has got there."""
    sock = app.connect()
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    if until:
        wait_until(lambda: until in happened(app), f"{until!r} does not happen")
    else:
        assert sock.recv(1000)
    sock.close()


def test_a_client_that_goes_away(app: Server) -> None:
    leave(app, "/listen", "listening")
    wait_until(lambda: "listen: http.disconnect" in happened(app), "it does not hear of it")
    leave(app, "/listens_twice", "both")
    wait_until(lambda: "both: ['http.disconnect', 'http.disconnect']" in happened(app), "one does not hear of it")
    leave(app, "/endless", "")
    wait_until(lambda: "endless: ClientDisconnected" in app.get("/happened").text, "send() does not raise")
    leave(app, "/framework", "")
    wait_until(lambda: app.log().count("the client went away before") == 2, "it is not said in the log")
    assert "Traceback" not in app.log()
    assert app.get("/after_answer").body == b"done"
    wait_until(lambda: {"after: http.disconnect", "after: RuntimeError"} <= set(happened(app)), "the end is not told")


def test_extensions(app: Server) -> None:
    whole = app.raw(b"GET /early_hint HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert whole.startswith(b"HTTP/1.1 103 ")
    assert whole.count(b"rel=preload") == 2
    assert whole.endswith(b"hinted")
    assert app.get("/pathsend").body == DATA
    assert app.get("/zerocopysend").body == DATA[10:30] + DATA[100:]
    assert app.get("/trailers").body == b"body "
    whole = app.raw(b"GET /trailers HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n")
    assert whole.endswith(b"body \r\n0\r\nx-first: 1\r\nx-second: 2\r\n\r\n"), whole


def test_many_slow_requests_in_one_worker(server: Server) -> None:
    app = prepare(server, threads=256)
    sockets = [app.connect() for _ in range(200)]
    for sock in sockets:
        sock.sendall(b"GET /sleep?%d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % (2 * SLOWNESS))
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(read_all, sockets))
    for sock in sockets:
        sock.close()
    assert all(answer.endswith(b"slept") for answer in answers)
    assert int(app.get("/most").body) == 200
    (worker,) = app.pids("worker", "app")
    # The loop's and the keeper's.
    assert len(list(Path(f"/proc/{worker}/task").iterdir())) == 2


def test_a_slow_reader_holds_the_application(app: Server) -> None:
    """send() waits: neither the worker nor the front end takes in what the client does not."""
    with app.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
        sizes: list[int] = []

        def settled() -> bool:
            sizes.append(int(app.get("/sent").body))
            return len(sizes) > 30 and sizes[-1] > 0 and sizes[-1] == sizes[-30]

        server_limit = 5 << 20  # spool_limit and what is before it
        wait_until(settled, "it never waits", 60 * SLOWNESS)
        assert sizes[-1] < server_limit + 8_000_000
    wait_until(lambda: "endless: ClientDisconnected" in app.get("/happened").text, "send() does not raise")


def test_upload_in_constant_memory(app: Server) -> None:
    total = 100_000_000
    _, _, before = app.request("POST", "/count", b"x").text.split()
    with app.connect(60 * SLOWNESS) as sock:
        sock.sendall(b"POST /count HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % total)
        piece = b"z" * 1_000_000
        for _ in range(total // len(piece)):
            sock.sendall(piece)
        got, _, peak = read_all(sock).rpartition(b"\r\n\r\n")[2].split()
    assert int(got) == total
    assert int(peak) - int(before) < 4096 + KEPT_KB


def test_deadline_cancels_the_task(server: Server) -> None:
    """The others in the worker go on; nobody is ended for a request that can be."""
    app = prepare(server, more="request_timeout = 1s")
    app.allow("request_timeout", "cancelled", "504")
    (worker,) = app.pids("worker", "app")
    assert app.get("/sleep?3600").status == 504
    wait_until(lambda: "sleep: cancelled" in happened(app), "it is not cancelled")
    wait_until(lambda: re.search(r"cancelled: it has run for longer[^$]*line \d+, in sleep", app.log()), "not logged")
    assert "went away" not in app.log()
    # Of a client that has gone before nothing is heard any more: it is cancelled at its deadline all the same.
    with app.connect() as sock:
        sock.sendall(b"GET /sleep?3601 HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_until(lambda: int(app.get("/now").text) == 1, "it does not run")
    wait_until(lambda: happened(app).count("sleep: cancelled") == 2, "it is not cancelled")
    assert app.pids("worker", "app") == [worker]
    deadline = scope_of(app, "/scope_of")["webserver"]["deadline"]
    assert isinstance(deadline, float)


@pytest.mark.parametrize("target", ["/block?3600", "/stubborn"])
def test_what_does_not_end_costs_the_worker(server: Server, target: str) -> None:
    app = prepare(server, more="request_timeout = 1s")
    app.allow(".")
    (worker,) = app.pids("worker", "app")
    assert app.get(target).status == 504
    wait_until(lambda: app.pids("worker", "app") not in ([worker], []), "it is not replaced")
    assert app.get("/").body == b"hello, world"
    assert app.logged(f"in {target.strip('/').partition('?')[0]}")


def test_lifespan(server: Server) -> None:
    app = prepare(server, processes=1)
    assert app.get("/lifespan_state").text == repr((1, {"made": ["at startup"]}))
    with app.connect() as sock:
        sock.sendall(b"GET /sleep?%d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % SLOWNESS)
        wait_until(lambda: app.get("/most").body == b"1", "it does not run")
        app.ctl("restart", "app")
        # What runs is finished first.
        assert read_all(sock).endswith(b"slept")
    wait_until(lambda: "shutdown: 0 requests run" in app.log(), "there was no lifespan.shutdown")


def test_restarts_under_load_lose_nothing(server: Server) -> None:
    app = prepare(server, processes=2, threads=8)
    over = threading.Event()

    def ask(number: int) -> list[int]:
        seen = []
        while not over.is_set():
            target = ("/", "/sleep?0.02", "/pieces", "/large?300000")[number % 4]
            seen.append(app.get(target).status)
            seen.append(app.request("POST", "/echo", b"x" * 100_000).status)
        return seen

    with ThreadPoolExecutor(12) as pool:
        results = [pool.submit(ask, number) for number in range(12)]
        for _ in range(3):
            app.ctl("restart", "app")
        for worker in app.pids("worker", "app"):
            os.kill(worker, signal.SIGTERM)
        wait_until(lambda: len(app.pids("worker", "app")) == 2, "they are not replaced")
        over.set()
    statuses = [status for result in results for status in result.result()]
    assert len(statuses) > 50
    assert set(statuses) == {200}


def test_no_memory_is_lost_per_request(app: Server) -> None:
    """Three rounds, each request another one; a leak of 50 bytes a request would show."""
    (worker,) = app.pids("worker", "app")

    def run(count: int) -> None:
        with app.connect() as sock, sock.makefile("rb") as answers:
            for number in range(count):
                lines = [
                    b"POST /stream_back?%d-%d HTTP/1.1\r\nHost: h\r\nX-Own-%d: %d\r\nContent-Length: 3\r\n\r\nabc"
                    % (number, one, one, number)
                    for one in range(50)
                ]
                sock.sendall(b"".join(lines))
                for _ in lines:
                    assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
                    while answers.readline() != b"\r\n":
                        pass
                    assert answers.read(3) == b"abc"

    run(60)
    before = anonymous(worker)
    run(200)
    assert anonymous(worker) - before < 500 + KEPT_KB


def test_what_a_large_body_took_is_given_back(app: Server) -> None:
    """The memory of pieces is kept for the next ones, and not when there is nothing to do."""
    (worker,) = app.pids("worker", "app")

    assert app.request("POST", "/stream_back", bytes(4_000_000)).status == 200
    after = anonymous(worker)
    wait_until(lambda: after - anonymous(worker) > 200, "the memory is the worker's still")
