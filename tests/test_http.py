"""HTTP through the real server with small limits: what tests/engine shows of the engine alone, seen from outside.

Limits and time limits come from a configuration file here, requests go through workers, and what is refused is looked
for in both logs.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import KEPT_KB, ROOT, Answer, Server, directory, read_all, wait_until

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))
import test_http_corpus as corpus

HOST = b"Host: example.org\r\n"
END = b"Connection: close\r\n\r\n"
WSGI = '''
import time

def application(environ, start_response):
    """Says how long the body is; or 8 MB at once and then a little ten times a second."""
    if environ["PATH_INFO"] == "/drip":
        start_response("200 OK", [])
        return drip()
    body = b"%d" % len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

def drip():
    yield b"x" * (8 << 20)
    for _ in range(100):
        time.sleep(0.1)
        yield b"y" * 100
'''
SITES = """
[groups]
  [[echo]]
  language = echo
  processes = 1
  [[python]]
  language = python
  application = app.wsgi
  processes = 1
[sites]
  [[one]]
  hosts = example.org, 127.0.0.1
  root = public
  max_body = 1000
    [[[routes]]]
    / = files
    /echo = group:echo
    /python = group:python
    /closed = =403
  [[bare]]
  hosts = bare.example.org,
    [[[routes]]]
    /echo = group:echo
"""
JSON_LOG = "access_log = logs/access.log\naccess_format = json"


def head(target: str, *fields: str, method: str = "GET", version: str = "1.1", end: bytes = END) -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: example.org", *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n" + end


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def records(server: Server, count: int) -> list[dict[str, Any]]:
    """The access log's records, once there are so many: they are written a second later."""

    def written() -> list[str]:
        lines = server.access_log.read_text().splitlines() if server.access_log.exists() else []
        return lines if len(lines) >= count else []

    lines = wait_until(written, f"{count} records in the access log")
    assert len(lines) == count
    return [json.loads(line) for line in lines]


def causes(server: Server, request: str) -> list[str]:
    """What front ends say of one request. (A worker may report a mistake of its application besides.)"""
    return re.findall(rf"\] front end \d+ \d+ .*request={request}: (.*)", server.log())


@pytest.fixture
def small(server: Server) -> Server:
    """Small limits, a log in JSON, not started yet."""
    server.file("app.wsgi", WSGI)
    server.file("public/a.txt", "0123456789")
    server.file("public/big.bin", bytes(range(256)) * 16384)
    server.write(SITES, "frontends = 1\nmax_head = 4k\nmax_line = 1k\nmax_fields = 10", JSON_LOG)
    return server


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
    assert sum("send_timeout" in line for line in small.log().splitlines()) == 3


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
    assert small.log().count("the limit of connections is reached") == 1


# ---- refusals and their one line


def special_files(server: Server) -> None:
    public = server.directory / "public"
    os.mkfifo(public / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(public / "sock"))
    server.file("public/.env", "secret")
    (public / "empty").mkdir(mode=0o755)
    os.chmod(public / "empty", 0o755)
    (public / "loop").symlink_to("loop")
    (public / "dangling").symlink_to("nothing")
    server.file("public/unreadable", "secret").chmod(0)
    server.file("public/shut/inside", "secret")
    (public / "shut").chmod(0)
    if ROOT:
        os.mknod(public / "device", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
        os.chown(server.file("public/others", "x"), 65534, 65534)
        (public / "foreign").symlink_to("others")


REFUSED = [
    # what is asked, the status, the cause
    (head("/none"), 404, r"/public/none: no such file"),
    (head("/.env"), 404, r"/public/\.env: a name that begins with a dot, and dotfiles = deny"),
    (head("/a.txt/x"), 404, r"/public/a\.txt/x: a part of the path is not a directory"),
    (head("/" + "n" * 300), 404, r"/public/n+: the name is too long"),
    (head("/fifo"), 404, r"/public/fifo: neither a file nor a directory"),
    (head("/sock"), 404, r"/public/sock: neither a file nor a directory"),
    (head("/empty/"), 404, r"/public/empty/: no such directory, or none of the site's index files"),
    (head("/dangling"), 404, r"/public/dangling: no such file"),
    (head("/loop"), 403, r"/public/loop: a symbolic link whose owner"),
    (head("/unreadable"), 403, r"/public/unreadable: the front end's user may not read it"),
    (head("/shut/inside"), 403, r"/public/shut/inside: the front end's user may not read it"),
    (head("/closed/x"), 403, r"the route /closed = =403 says so: example\.org/closed/x"),
    (head("/a.txt", method="DELETE"), 405, r"a\.txt is a file, and the method is DELETE"),
    (head("/a.txt", method="TRACE"), 405, r"TRACE is not answered"),
    (head("/a.txt", 'If-Match: "x"'), 412, r"a\.txt is not as the request's If-Match or If-Unmodified-Since wants it"),
    (head("/a.txt", "Range: bytes=10-"), 416, r"no range of the request lies within the 10 bytes of a\.txt"),
    (head("/a.txt", "Content-Length: 1001", method="POST"), 413, r"larger than max_body"),
    (b"GET / HTTP/1.1\r\nHost: nobody.example\r\n" + END, 421, r"no site has this host: nobody\.example/"),
    (b"GET /x HTTP/1.1\r\nHost: bare.example.org\r\n" + END, 404, r"no route of the site leads here: bare.*org/x"),
    (head("/" + "x" * 1024), 414, r"longer than max_line"),
    (head("/", *["X: 1"] * 10), 431, r"more fields than max_fields"),
    (head("/", *["X: " + "x" * 900] * 5), 431, r"larger than max_head"),
    (head("/", "Content-Length: 1", "Transfer-Encoding: chunked"), 400, r"Content-Length comes .*Transfer-Encoding"),
    (head("/", "Transfer-Encoding: gzip, chunked"), 501, r"a transfer coding other than chunked"),
    (head("/", "Expect: tea", "Content-Length: 1"), 417, r"an expectation other than 100-continue"),
    (head("/", version="2.0"), 505, r"HTTP version is not 1\.0 or 1\.1"),
    (b"GET / HTTP/1.1\r\n" + END, 400, r"Host is missing"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n", 400, r"the client speaks TLS"),
    (b"GET /\x00\" HTTP/1.1\r\n" + HOST + END, 400, r"target has a character that is not allowed"),
    (head("/%2e%2e/x"), 400, r"climbs above the root"),
    (head("/echo/short"), 502, r"worker \d+ ended its answer before it was whole"),
    (head("/echo/crash"), 502, r"worker \d+ .*it was running this request"),
]  # fmt: skip
AS_ROOT = [
    (head("/device"), 404, r"/public/device: neither a file nor a directory"),
    (head("/foreign"), 403, r"/public/foreign: a symbolic link whose owner is not that of its target"),
]


def test_each_refusal_has_one_line_with_its_cause(small: Server) -> None:
    special_files(small)
    small.allow(r"50[0-9]: ", "answer ended after", "worker", "crash")
    small.start()
    table = REFUSED + (AS_ROOT if ROOT else [])
    for request, status, _ in table:
        assert status_of(small.raw(request)) == status, request[:200]
    found = records(small, len(table))
    assert [record["status"] for record in found] == [status for _, status, _ in table]
    for (request, status, cause), record in zip(table, found, strict=True):
        said = causes(small, record["id"])
        assert len(said) == 1, (request[:200], said)
        assert re.search(cause, said[0]), said
        assert status == 200 or said[0].startswith(f"{status}: "), said
        line = request.partition(b"\r\n")[0].decode("latin-1")
        if line.isascii():
            assert record["request"] == line
    (small.directory / "public" / "shut").chmod(0o755)


def test_what_is_not_refused_has_no_line(small: Server) -> None:
    small.start()
    etag = small.get("/a.txt").field("etag")
    for request in [head("/a.txt", f"If-None-Match: {etag}"), head("/python"), head("/echo/status/404"),
                    head("/echo/status/500"), head("*", method="OPTIONS")]:  # fmt: skip
        assert small.raw(request)
    assert [record["status"] for record in records(small, 6)] == [200, 304, 200, 404, 500, 204]
    assert "request=" not in small.log()


@pytest.mark.parametrize("access_format", ["combined", "json"])
def test_log_of_what_was_cut_or_strange(small: Server, access_format: str) -> None:
    small.write(SITES, "frontends = 1", f"access_log = logs/access.log\naccess_format = {access_format}")
    small.start()
    with small.connect() as sock:  # it goes away in its answer
        sock.sendall(head("/big.bin"))
        sock.recv(1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with small.connect() as sock:  # before its answer
        sock.sendall(head("/echo/length", "Content-Length: 10", method="POST", end=b"\r\n") + b"123")
        assert small.get("/a.txt").status == 200
    small.raw(head('/a.txt?"\\x', 'User-Agent: a"b\\c\x80', 'Referer: \t"'))

    def written() -> list[str]:
        lines = small.access_log.read_text().splitlines() if small.access_log.exists() else []
        return lines if len(lines) >= 4 else []

    lines = wait_until(written, "four records")
    assert len(lines) == 4
    by_path = {re.search(r"/(big|echo|a\.txt HTTP|a\.txt\?)", line)[1]: line for line in lines}  # type: ignore[index]
    if access_format == "json":
        cut, before, strange = (json.loads(by_path[name]) for name in ("big", "echo", "a.txt?"))
        assert (cut["status"], cut["bytes"] <= 4 << 20) == (200, True)
        assert (before["status"], before["bytes"], before["complete"]) == (0, 0, False)
        assert strange["request"] == 'GET /a.txt?"\\x HTTP/1.1'
        assert strange["user_agent"] == 'a"b\\c\ufffd'
    else:
        stamp = r"127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
        assert re.fullmatch(stamp + r' "GET /big\.bin HTTP/1\.1" 200 \d+ "-" "-"', by_path["big"])
        assert re.fullmatch(stamp + r' "POST /echo/length HTTP/1\.1" - 0 "-" "-"', by_path["echo"])
        strange_line = r' "GET /a\.txt\?\\x22\\x5cx HTTP/1\.1" 200 10 "\\x22" "a\\x22b\\x5cc\\x80"'
        assert re.fullmatch(stamp + strange_line, by_path["a.txt?"])


def test_no_worker_in_time(small: Server) -> None:
    """503 with Retry-After where the queue is full or took too long, 504 at the deadline; the line says what to raise."""
    group = "processes = 1\n  queue_length = 2\n  queue_timeout = 0.6s\n  request_timeout = 1.5s"
    small.write(SITES.replace("processes = 1", group, 1), "frontends = 1", JSON_LOG)
    small.allow("50[34]: ", "worker")
    small.start()
    begin, done = time.monotonic(), []
    socks = []
    for path in ("/echo/sleep/20000", "/echo/a", "/echo/b", "/echo/c"):
        sock = small.connect()
        sock.sendall(head(path))
        socks.append(sock)
        assert small.get("/a.txt").status == 200  # the engine has taken what came before
    for sock in (socks[3], socks[1], socks[2], socks[0]):
        answer = read_all(sock)
        sock.close()
        done.append((status_of(answer), b"\r\nRetry-After: 1\r\n" in answer, time.monotonic() - begin))
    assert [(status, retry) for status, retry, _ in done] == [(503, True), (503, True), (503, True), (504, False)]
    times = [took for _, _, took in done]
    assert times[0] < 0.5
    assert 0.55 < times[1] < 1.4
    assert 1.45 < times[3] < 3
    said = {record["request"].split()[1]: causes(small, record["id"]) for record in records(small, 8)}
    assert [len(said[f"/echo/{name}"]) for name in ("a", "b", "c", "sleep/20000")] == [1] * 4
    assert "queue_length; raise that, or processes or threads" in said["/echo/c"][0]
    assert "queue_timeout; raise that, or processes or threads" in said["/echo/a"][0]
    assert "request_timeout" in said["/echo/sleep/20000"][0]


# ---- files


def test_file_that_shrinks_is_named(small: Server) -> None:
    path = small.directory / "public" / "shrinks"
    with open(small.file("public/shrinks", ""), "wb") as file:
        file.truncate(64 << 20)
    small.allow("shrinks: the file became shorter while it was sent")
    small.start()
    with small.connect() as sock:
        sock.sendall(head("/shrinks"))
        sock.recv(1)
        os.truncate(path, 1000)
        assert len(read_all(sock)) < 64 << 20
    (record,) = records(small, 1)
    assert (record["status"], record["complete"]) == (200, False)
    assert causes(small, record["id"]) == ["shrinks: the file became shorter while it was sent; the connection is cut"]


def test_disk_that_fails_is_named(small: Server) -> None:
    """strace makes sendfile fail as a broken disk does."""
    small.allow("big.bin: Input/output error")
    small.start()
    (pid,) = small.pids("front end")
    strace = shutil.which("strace")
    assert strace is not None
    tracer = subprocess.Popen(
        [strace, "-f", "-p", str(pid), "-e", "trace=sendfile", "-e", "inject=sendfile:error=EIO", "-o", "/dev/null"],
        stderr=subprocess.PIPE,
    )
    try:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        answer = small.raw(head("/big.bin"))
        assert status_of(answer) == 200
        assert len(answer) < 1000
    finally:
        tracer.terminate()
        tracer.wait()
        assert tracer.stderr is not None
        tracer.stderr.close()
    (record,) = records(small, 1)
    assert (record["bytes"], record["complete"]) == (0, False)
    assert causes(small, record["id"]) == ["big.bin: Input/output error while it was sent; the connection is cut"]


def until(server: Server, path: str, want: tuple[int, bytes]) -> float:
    begin = time.monotonic()

    def as_wanted() -> bool:
        answer = server.get(path)
        return (answer.status, answer.body if want[0] == 200 else b"") == want

    wait_until(as_wanted, f"{path} {want}", 5)
    return time.monotonic() - begin


def test_changes_are_seen_within_a_second(small: Server) -> None:
    small.start()
    for name, size in (("a.txt", 10), ("big.bin", 4 << 20)):
        path = small.directory / "public" / name
        assert small.get(f"/{name}").status == 200
        small.file(f"public/{name}", b"r" * size)  # rewritten, of the same size
        slowest = until(small, f"/{name}", (200, b"r" * size))
        os.rename(small.file("public/next", b"renamed"), path)
        slowest = max(slowest, until(small, f"/{name}", (200, b"renamed")))
        path.unlink()
        slowest = max(slowest, until(small, f"/{name}", (404, b"")))
        assert slowest < 1.5  # one second, and what a busy machine takes


def test_options_of_a_site(small: Server) -> None:
    """symlinks, dotfiles, index, mime_types and max_body: each value has its effect."""
    special_files(small)
    small.file("types", "application/x-note note\ntext/x-mine txt\n")
    small.file("public/a.note", "n")
    small.file("public/empty/start.htm", "start")
    (small.directory / "public" / "inside").symlink_to("a.txt")
    base = "hosts = *\nroot = public\n"

    def answers(options: str, *paths: str) -> list[tuple[int, str | None]]:
        small.write(f"[sites]\n[[one]]\n{base}{options}", "frontends = 1\nmime_types = types")
        if small.process is None:
            small.start()
        else:
            small.ctl("reload")
        return [(a.status, a.field("content-type")) for a in (small.get(path) for path in paths)]

    links = ["/inside"] + (["/foreign"] if ROOT else [])
    note, mine, octets, page = "application/x-note", "text/x-mine", "application/octet-stream", "text/html"
    closed = (403, page + "; charset=utf-8")
    assert answers("", "/a.note", "/a.txt", "/big.bin", *links) == [
        (200, note), (200, mine), (200, octets), (200, octets), *[closed] * (len(links) - 1)
    ]  # fmt: skip
    assert answers("symlinks = deny", *links) == [closed] * len(links)
    assert answers("symlinks = allow", *links) == [(200, octets)] * len(links)
    assert answers("symlinks = allow", "/loop") == [closed]
    assert [status for status, _ in answers("dotfiles = allow", "/.env", "/empty/")] == [200, 404]
    assert [status for status, _ in answers("index = start.htm", "/.env", "/empty/")] == [404, 200]
    for size, status in (("9", 413), ("10", 405)):
        answers(f"max_body = {size}")
        assert small.request("POST", "/a.txt", b"0123456789").status == status
    (small.directory / "public" / "shut").chmod(0o755)


def test_conditions_and_ranges_agree_with_nginx(small: Server) -> None:
    """The same files under both; what differs is in the table below, with the reason."""
    nginx = shutil.which("nginx")
    assert nginx is not None
    small.file("public/empty.txt", "")
    for path in (small.directory / "public").iterdir():
        os.utime(path, (10**9, 10**9))
    small.start()
    port_holder = socket.create_server(("127.0.0.1", 0))
    port = port_holder.getsockname()[1]
    port_holder.close()
    place = small.directory
    temporary = "".join(f"{kind}_temp_path {place}/logs/{kind};" for kind in
                        ("client_body", "proxy", "fastcgi", "scgi", "uwsgi"))  # fmt: skip
    user = "user www-data;" if ROOT else ""
    small.file("nginx.conf", f"""
        daemon off; {user} worker_processes 1; pid {place}/logs/nginx.pid; error_log {place}/logs/nginx.log;
        events {{}}
        http {{ {temporary} access_log off; default_type application/octet-stream; absolute_redirect off;
                server {{ listen 127.0.0.1:{port}; root {place}/public; }} }}
    """)  # fmt: skip
    peer = Server.__new__(Server)
    peer.port = port
    process = subprocess.Popen([nginx, "-c", place / "nginx.conf", "-e", place / "logs" / "nginx.log"])
    try:
        wait_until(lambda: answers_at(port), "nginx answers")
        compare(small, peer)
    finally:
        process.terminate()
        process.wait(20)


def answers_at(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return False
    return True


CHANGED = "Sun, 09 Sep 2001 01:46:40 GMT"
EARLIER = "Sun, 09 Sep 2001 01:46:39 GMT"
LATER = "Sun, 09 Sep 2001 01:46:41 GMT"
RANGES = ("bytes=0-3", "bytes=2-", "bytes=-3", "bytes=-0", "bytes=-99999999", "bytes=99999999999-", "BYTES=0-1",
          "bytes = 0-1", "lines=0-1", "bytes=0-1,4-5", "bytes=0-0,-1", "bytes=0-1,10-", "bytes=0-9999999")  # fmt: skip
CONDITIONS = (
    {"If-None-Match": "ETAG"}, {"If-None-Match": "W/ETAG"}, {"If-None-Match": "*"}, {"If-None-Match": '"x", ETAG'},
    {"If-None-Match": '"x"'}, {"If-Modified-Since": CHANGED}, {"If-Modified-Since": EARLIER},
    {"If-Modified-Since": "junk"}, {"If-None-Match": '"x"', "If-Modified-Since": CHANGED}, {"If-Match": "ETAG"},
    {"If-Match": "*"}, {"If-Match": '"x"'}, {"If-Match": "W/ETAG"}, {"If-Unmodified-Since": CHANGED},
    {"If-Unmodified-Since": EARLIER}, {"If-Unmodified-Since": LATER}, {"Range": "bytes=0-1", "If-Range": "ETAG"},
    {"Range": "bytes=0-1", "If-Range": "W/ETAG"}, {"Range": "bytes=0-1", "If-Range": CHANGED},
    {"Range": "bytes=0-1", "If-Range": EARLIER}, {"Range": "bytes=0-1", "If-Range": '"x"'},
    {"Range": "bytes=0-1", "If-None-Match": "ETAG"}, {"Range": "bytes=20-", "If-Range": '"x"'},
)  # fmt: skip
# Left out above: If-Modified-Since later than the file (nginx wants it exact), malformed dates in If-Unmodified-Since
# (RFC 9110, section 13.1.4: ignored), malformed ranges (14.2: ignored or refused), Range with HEAD (14.2: GET only), a
# range of an empty file (no browser can use a 416), ranges that touch (joined here, 15.3.7.2).


def compare(ours: Server, peer: Server) -> None:
    asked = [("/big.bin", {"Range": value}) for value in RANGES]
    asked += [("/a.txt", {"Range": value}) for value in RANGES if value != "bytes=0-1,10-"]
    asked += [(path, fields) for path in ("/a.txt", "/big.bin") for fields in CONDITIONS]
    asked += [(path, {}) for path in ("/a.txt", "/big.bin", "/empty.txt", "/none", "/a.txt/", "//a.txt", "/%61.txt")]
    for path, fields in asked:
        for method in ("GET",) if "Range" in fields else ("GET", "HEAD"):
            seen = [essence(server, method, path, fields) for server in (ours, peer)]
            assert seen[0] == seen[1], (method, path, fields)


def essence(server: Server, method: str, path: str, fields: dict[str, str]) -> dict[str, Any]:
    """What a client goes by. The entity tag's own text, and how parts are separated, are each server's."""
    etag = str(server.request("GET", "/a.txt" if path == "/none" else path).field("etag"))
    answer = server.request(method, path, None, {name: value.replace("ETAG", etag) for name, value in fields.items()})
    told: dict[str, Any] = {"status": answer.status, "range": answer.field("content-range")}
    if answer.status < 400:
        told["modified"] = answer.field("last-modified")
        told["tag"] = answer.field("etag") == etag
    if answer.status == 200:
        told["length"] = answer.field("content-length")
        told["ranges"] = answer.field("accept-ranges")
    if answer.status < 400:
        told["body"] = parts(answer)
    return told


def parts(answer: Answer) -> list[bytes]:
    kind = str(answer.field("content-type"))
    found = re.fullmatch(r"multipart/byteranges; boundary=(\w+)", kind)
    if found is None:
        return [answer.body]
    pieces = answer.body.split(b"--" + found[1].encode())
    heads = [re.search(rb"content-range: (.*)\r\n", piece, re.I) for piece in pieces[1:-1]]
    return [one[1] if one else b"" for one in heads] + [piece.partition(b"\r\n\r\n")[2] for piece in pieces[1:-1]]


# ---- what costs memory


def resident(pid: int) -> int:
    """Kilobytes."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


# Kilobytes. AddressSanitizer keeps what was freed for a while (quarantine_size_mb=256), and room around each piece.
GROWTH = 400 * 1024 if "WEBSERVER_TREE" in os.environ else 12 * 1024
SLOW = 40  # readers; for each, answers.c says, spool_memory and a window of 1 MB may be in memory


def pipeline_unread(server: Server) -> None:
    """As many requests as the sockets take, and no answer is read."""
    for path in ("/a.txt", "/echo/"):
        with server.connect() as sock:
            sock.setblocking(False)
            many = head(path, end=b"\r\n") * 1000
            for _ in range(300):
                _, writable, _ = select.select([], [sock], [], 0.05)
                if not writable:
                    break
                sock.send(many)


def chunks_of_one_byte(server: Server) -> None:
    """1.5 million, to a worker that reads and to one that sleeps first."""
    for path in ("/echo/length", "/echo/sleep/300"):
        with server.connect() as sock:
            sock.sendall(head(path, "Transfer-Encoding: chunked", method="POST"))
            for _ in range(150):
                sock.sendall(b"1\r\nx\r\n" * 10_000)
            sock.sendall(b"0\r\n\r\n")
            assert status_of(read_all(sock)) == 200


def slow_readers(server: Server) -> None:
    """800 MB of answers of which nothing is read: they go to files."""
    held = []
    for _ in range(SLOW):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(head("/echo/stream/20000000"))
        held.append(sock)
    assert server.raw(head("/echo/")).endswith(b"hello, world")  # it is served after them: no worker is held
    for sock in held:
        sock.close()


def many_hosts_and_paths(server: Server) -> None:
    """Each would be a decision to remember; none may cost what its sender likes."""
    with server.connect() as sock:
        for number in range(3000):
            host = b"x" * 200 + b"%d" % number
            target = b"/" + b"y" * 3000 + b"%d" % number
            sock.sendall(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            sock.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: bare.example.org\r\n\r\n")
            answer = b""
            while answer.count(b"</html>") < 2:
                answer += sock.recv(65536)


@pytest.mark.parametrize(
    ("attack", "growth"),
    [
        (pipeline_unread, GROWTH),
        (chunks_of_one_byte, GROWTH),
        (slow_readers, GROWTH + SLOW * 1100),
        (many_hosts_and_paths, GROWTH),
    ],
)
def test_clients_cannot_make_memory_grow(small: Server, attack: Any, growth: int) -> None:
    text = SITES.replace("max_body = 1000", "max_body = 100m")
    small.write(text, "frontends = 1\nspool_memory = 64k", "access_log = off")
    small.start()
    (pid,) = small.pids("front end")
    small.raw(head("/a.txt") + head("/echo/"))
    before = resident(pid)
    attack(small)
    assert resident(pid) - before < growth + KEPT_KB
    assert small.raw(head("/a.txt")).endswith(b"0123456789")
