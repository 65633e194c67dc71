"""HTTP through the real server with small limits: what tests/engine shows of the engine alone, seen from outside.

Limits and time limits come from a configuration file here, and requests go through workers.
"""

from __future__ import annotations

import re
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Server, directory, read_all, wait_until
from small_site import END, JSON_LOG, SITES, WSGI, causes, head, prepare, records, status_of

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))
import test_http_corpus as corpus


@pytest.fixture
def small(server: Server) -> Server:
    return prepare(server)


# ---- the corpus


@pytest.fixture(scope="module")
def whole() -> Iterator[Server]:
    with directory() as path:
        one = Server(path)
        one.file("app.wsgi", WSGI)
        one.write(
            "[groups]\n[[python]]\nlanguage = python\napplication = app.wsgi\n[sites]\n"
            "[[all]]\nhosts = *\nmax_body = 100000\n[[[routes]]]\n/ = group:python\n",
            "max_head = 16k\nmax_line = 8191\nmax_fields = 100",
        )
        one.allow(".")
        one.start()
        yield one
        one.stop()


# It is about a body that nobody reads, and the application here reads all.
OTHERS = [name for name in corpus.CASES if name != "unread-chunked-pipelined"]


@pytest.mark.parametrize("name", OTHERS)
def test_corpus(whole: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statuses, and who closes, are the same with workers behind the engine."""
    monkeypatch.setenv("WEBSERVER_HTTP_ADDRESS", "named")  # the bodies are not http_server.py's
    raw = (corpus.CORPUS / f"{name}.raw").read_bytes()
    corpus.check(("127.0.0.1", whole.port), name, [raw])
    corpus.check(("127.0.0.1", whole.port), name, [raw[: len(raw) // 2], raw[len(raw) // 2 :]])


# ---- what an application sees


def test_target_s_authority_is_the_host(small: Server) -> None:
    """RFC 9112, section 3.2.2: who asks for Host in an application hears what the request was routed by."""
    small.start()
    for target, fields, version in [
        ("http://Example.org:81/echo/variables", "Host: evil.example\r\n", "1.1"),
        ("http://Example.org:81/echo/variables", "", "1.0"),
    ]:
        answer = small.raw(f"GET {target} HTTP/{version}\r\n{fields}".encode() + END)
        assert answer.count(b"HTTP_HOST: Example.org:81\n") == 1
        assert b"evil" not in answer


def test_spoofed_fields_reach_nobody(small: Server) -> None:
    small.start()
    fields = ["X_Forwarded_For: s", "X-Forwarded_For: s", "Proxy: s", "PROXY: s", "Content_Length: 5", "X-Seen: s"]
    fields += ["X-Sendfile-Type: s", "X-ACCEL-Mapping: s"]
    for path in ("/echo/variables", "/echo/fields"):
        answer = small.raw(head(path, *fields))
        assert [line for line in answer.split(b"\n") if line.endswith(b": s")] == [
            b"HTTP_X_SEEN: s" if path.endswith("variables") else b"X-Seen: s"
        ]
        assert b"5" not in answer.partition(b"\r\n\r\n")[2]


def test_trailers_are_not_fields(small: Server) -> None:
    small.start()
    body = b"3\r\nabc\r\n0\r\nX-Late: s\r\nHost: evil.example\r\n\r\n"
    answer = small.raw(
        head("/echo/fields", "Transfer-Encoding: chunked", "Trailer: X-Late", method="POST", end=END + body)
    )
    assert status_of(answer) == 200
    assert b"X-Late: s" not in answer
    assert b"evil" not in answer


def test_interim_answers(small: Server) -> None:
    small.start()
    answer = small.raw(head("/echo/early"))
    assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert small.raw(head("/echo/early", version="1.0")).startswith(b"HTTP/1.1 200 OK\r\n")


def test_http_1_0(small: Server) -> None:
    small.start()
    kept = head("/a.txt", "Connection: keep-alive", version="1.0", end=b"\r\n")
    answer = small.raw(kept * 2 + head("/a.txt", version="1.0", end=b"\r\n"))
    assert answer.count(b"\r\nConnection: keep-alive\r\n") == 2
    assert answer.count(b"\r\n\r\n0123456789") == 3
    assert answer.count(b"\r\nConnection: close\r\n") == 1
    # Of unknown length: the end of the connection is the end of the answer, whatever the client wished.
    answer = small.raw(head("/echo/stream/2000000", "Connection: keep-alive", version="1.0", end=b"\r\n"))
    start, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in start
    assert b"\r\nContent-Length" not in start
    assert body == b"x" * 2_000_000


# ---- limits


def test_too_large_a_body_is_not_asked_for(small: Server) -> None:
    """413 before a byte of the body has come, for files and groups, and never after 100 Continue."""
    small.start()
    for path in ("/a.txt", "/echo/length", "/python"):
        for expect in ([], ["Expect: 100-continue"]):
            with small.connect() as sock:
                sock.sendall(head(path, "Content-Length: 1001", *expect, method="POST"))
                assert read_all(sock).startswith(b"HTTP/1.1 413 Content Too Large\r\n")
    assert small.raw(head("/echo/length", "Content-Length: 1000", method="POST", end=END + b"x" * 1000)).endswith(
        b"\r\n\r\n1000"
    )
    chunks = b"1f4\r\n" + b"x" * 500 + b"\r\n"
    answer = small.raw(
        head("/echo/length", "Transfer-Encoding: chunked", method="POST", end=END + chunks * 3 + b"0\r\n\r\n")
    )
    assert status_of(answer) == 413


def test_limits_of_the_head(small: Server) -> None:
    """Each limit as configured, the largest that fits and one more."""
    small.start()
    name = "X: "
    table = [
        (head("/" + "x" * 1023), 404),
        (head("/" + "x" * 1024), 414),
        (head("/a.txt", name + "x" * (1024 - len(name))), 200),
        (head("/a.txt", name + "x" * (1025 - len(name))), 431),
        (head("/a.txt", *["X: 1"] * 8), 200),
        (head("/a.txt", *["X: 1"] * 9), 431),
    ]
    rest = 4096 - len(head("/a.txt", *[name + "x" * 900] * 4, name))
    table += [
        (head("/a.txt", *[name + "x" * 900] * 4, name + "x" * rest), 200),
        (head("/a.txt", *[name + "x" * 900] * 4, name + "x" * (rest + 1)), 431),
    ]
    for request, status in table:
        assert status_of(small.raw(request)) == status, request[:200]


def test_time_limits(small: Server) -> None:
    """Each from outside: not before its time, and not long after it. All at once, so that it takes no longer."""
    limits = {"head": 1.0, "body": 1.5, "idle": 2.0, "send": 2.5}
    times = "".join(f"\n{name}_timeout = {seconds}s" for name, seconds in limits.items())
    text = SITES.replace("processes = 1", "processes = 4")  # none waits for a worker
    small.write(text, "frontends = 1" + times, JSON_LOG)
    small.start()
    keep = b"\r\n"
    post = head("/echo/length", "Content-Length: 10", method="POST", end=keep)
    cases = [  # what is sent, which limit ends it, the last answer's status
        ("nothing", b"", "head", 0),
        ("empty lines", b"\r\n\r\n", "head", 0),
        ("part of a line", b"GET / HT", "head", 408),
        ("part of a head", b"GET / HTTP/1.1\r\nHost: example.org\r\n", "head", 408),
        ("a second head", head("/a.txt", end=keep) + b"GET /b", "head", 408),
        ("after a file", head("/a.txt", end=keep), "idle", 200),
        ("after a worker's answer", head("/echo/", end=keep), "idle", 200),
        ("no body", post, "body", 408),
        ("part of a body", post + b"123", "body", 408),
        ("part of a chunk", head("/echo/", "Transfer-Encoding: chunked", method="POST", end=keep) + b"5\r\nab", "body", 0),
    ]  # fmt: skip
    waiting: dict[socket.socket, tuple[str, str, int, float, bytearray]] = {}
    for what, sent, limit, status in cases:
        sock = small.connect()
        begin = time.monotonic()
        sock.sendall(sent)
        waiting[sock] = (what, limit, status, begin, bytearray())
    slow = {}
    for path in ("/big.bin", "/echo/stream/8000000", "/python/drip"):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", small.port))
        sock.sendall(head(path, end=keep))
        slow[path] = (sock, time.monotonic())
    while waiting:
        ready, _, _ = select.select(waiting, [], [], 10)
        assert ready, [what for what, *_ in waiting.values()]
        for sock in ready:
            what, limit, status, begin, answer = waiting[sock]
            data = sock.recv(65536)
            answer += data
            if data:
                continue
            took = time.monotonic() - begin
            assert limits[limit] - 0.05 < took < limits[limit] + 1.5, (what, took)
            statuses = re.findall(rb"HTTP/1\.1 (\d+) ", bytes(answer))
            if what != "part of a chunk":  # 408, or cut off: echo may have begun to answer
                assert int(statuses[-1] if statuses else 0) == status, what
            del waiting[sock]
            sock.close()
    for path, (sock, begin) in slow.items():
        poll = select.poll()
        poll.register(sock, 0)  # POLLHUP and POLLERR come unasked: a reset gets through though the client reads nothing
        assert poll.poll(10_000), path
        assert limits["send"] - 0.05 < time.monotonic() - begin < limits["send"] + 1.5, path
        sock.close()
    found = records(small, 12)
    for record in found:
        said = causes(small, record["id"])
        if record["status"] == 408 or not record["complete"]:
            assert len(said) == 1, record
            assert re.search(r"within (head|body|send)_timeout", said[0])
        else:
            assert said == []
    wait_until(lambda: sum("send_timeout" in line for line in small.log().splitlines()) == 3, "not three times")


def test_limit_of_connections(small: Server) -> None:
    small.write(SITES, "frontends = 1\nconnections = 3")
    small.start()
    held = [small.connect() for _ in range(3)]
    for sock in held:
        sock.sendall(head("/a.txt", end=b"\r\n"))
        assert sock.recv(65536)
    with small.connect(0.3) as sock:
        sock.sendall(head("/a.txt"))
        with pytest.raises(TimeoutError):
            sock.recv(100)
        held.pop().close()
        sock.settimeout(20)
        assert read_all(sock).endswith(b"0123456789")
    for sock in held:
        sock.close()
    small.allow("limit of connections is reached")
    assert small.logged("the limit of connections is reached").count("the limit of connections is reached") == 1
