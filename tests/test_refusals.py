"""What is refused or fails, and the one line in each log that says so."""

from __future__ import annotations

import json
import re
import socket
import struct
import time

import pytest
from serving import ROOT, Server, read_all, wait_until
from small_site import END, HOST, JSON_LOG, SITES, causes, head, prepare, records, special_files, status_of


@pytest.fixture
def small(server: Server) -> Server:
    return prepare(server)


# ---- refusals and their one line


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
