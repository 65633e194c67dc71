"""Programs that are HTTP servers themselves (language = exec): what they see, and what their clients get."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from exec_groups import ARGUMENTS, group, memory, programs, running
from serving import KEPT_KB, Server, read_all, wait_until

PATTERN = bytes(range(256)) * 256


@pytest.fixture(scope="module")
def one() -> Iterator[Server]:
    groups = (
        group("plain"),
        group("trusting", forwarded="append", strip_prefix="yes", keepalive="no"),
        group("patient", continue_timeout="none"),
        group("quick", continue_timeout="300ms", threads=1),
        group("descriptor", listens_on="descriptor"),
        group("port", listens_on="port", processes=2),
    )
    with running(*groups) as server:
        yield server


def head_of(text: str) -> tuple[str, dict[str, str]]:
    line, *lines = text.rstrip("\r\n").split("\r\n")
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    assert len(dict(fields)) == len(fields), text
    return line, dict(fields)


def said(sock: socket.socket, end: bytes, so_far: bytes = b"") -> bytes:
    """What comes up to and with `end`."""
    while not so_far.endswith(end):
        piece = sock.recv(65536)
        assert piece, so_far
        so_far += piece
    return so_far


LIES = {
    "X-Forwarded-For": "1.2.3.4",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "443",
    "X-Forwarded-Prefix": "/evil",
    "X-Request-ID": "mine",
    "Forwarded": "for=1.2.3.4",
    "X-Real-IP": "1.2.3.4",
}


def test_what_the_program_sees(one: Server) -> None:
    fields = {
        "Host": "example.org:8080", "Connection": "close, x-hop", "X-Hop": "1", "Keep-Alive": "300", "TE": "gzip",
        "Proxy-Connection": "close", "Accept": "a/b", "Cookie": "a=b", **LIES,
    }  # fmt: skip
    line, got = head_of(one.request("GET", "/plain/a%2Fb/head?q=%20&r", fields=fields).text)
    assert line == "GET /plain/a%2Fb/head?q=%20&r HTTP/1.1"
    assert len(got.pop("x-request-id")) == 16
    got.pop("accept-encoding")
    assert got == {
        "host": "example.org:8080",
        "accept": "a/b",
        "cookie": "a=b",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "example.org:8080",
        "x-forwarded-port": str(one.port),
    }


def test_what_a_program_behind_a_trusted_proxy_sees(one: Server) -> None:
    """forwarded = append, strip_prefix = yes, keepalive = no."""
    line, got = head_of(one.request("GET", "/trusting/head?x", fields={"Host": "inner", **LIES}).text)
    assert line == "GET /head?x HTTP/1.1"
    got.pop("accept-encoding")
    assert got == {
        "host": "inner",
        "connection": "close",
        "x-forwarded-for": "1.2.3.4, 127.0.0.1",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "evil.example",
        "x-forwarded-port": "443",
        "x-forwarded-prefix": "/trusting",
        "x-request-id": "mine",
        "x-real-ip": "1.2.3.4",
        "forwarded": "for=1.2.3.4, for=127.0.0.1;proto=http",
    }
    assert len({one.get("/trusting/connection").body for _ in range(3)}) == 3
    _, got = head_of(one.get("/trusting/head").text)
    assert (got["x-forwarded-for"], "forwarded" in got) == ("127.0.0.1", False)


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/plain/x/../head", "/plain/head"),
        ("/other/../plain/%2e%2e/plain/head?a/../b", "/plain/head?a/../b"),
        ("/plain/%68ead", None),
        ("http://example.net/plain/head?x", "/plain/head?x"),
        ("/trusting/x/../%68ead", "/head"),
        ("/%74rusting/head", "/head"),
    ],
)
def test_paths_mean_what_they_were_routed_by(one: Server, target: str, seen: str | None) -> None:
    answer = one.raw(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    if seen is None:  # as it came: this program does not know the word
        assert answer.startswith(b"HTTP/1.1 404")
    else:
        assert f"\r\n\r\nGET {seen} HTTP/1.1\r\n" in answer.decode()


@pytest.mark.parametrize("name", ["plain", "descriptor", "port"])
def test_bodies_of_both_framings(one: Server, name: str) -> None:
    for size in (0, 1, 1000, 300000):
        body = (PATTERN * 5)[:size]
        expected = {"length": size, "sha256": hashlib.sha256(body).hexdigest(), "trailers": []}
        assert json.loads(one.request("POST", f"/{name}/body", body).body) == expected
        chunked = b"".join(
            b"%x\r\n%s\r\n" % (len(body[i : i + 7000]), body[i : i + 7000]) for i in range(0, size, 7000)
        )
        answer = one.raw(
            f"POST /{name}/body HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            + chunked + b"0\r\n\r\n"
        )  # fmt: skip
        assert json.dumps(expected).encode() in answer


def test_both_directions_at_once(one: Server) -> None:
    """Each piece of the body comes back before the next one is sent."""
    with one.connect() as sock:
        sock.sendall(b"POST /plain/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        said(sock, b"\r\n\r\n")
        for i in range(20):
            text = b"piece %02d" % i
            sock.sendall(b"8\r\n%s\r\n" % text)
            said(sock, text + b"\r\n")
        sock.sendall(b"0\r\n\r\n")
        said(sock, b"0\r\n\r\n")


def test_a_large_echo_deadlocks_nobody(one: Server) -> None:
    """More than all buffers between client and program hold, in both directions, by a client that only writes first."""
    size = 6 << 20
    with one.connect() as sock:
        sock.sendall(b"POST /plain/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
        sender = threading.Thread(target=sock.sendall, args=(PATTERN * (size // len(PATTERN)),))
        sender.start()
        data = read_all(sock)
        sender.join()
    assert data.endswith(b"0\r\n\r\n")
    assert len(data) > size


UPLOAD = b"POST /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize("name", ["plain", "patient"])
def test_the_body_is_asked_for_by_the_program(one: Server, name: str) -> None:
    with one.connect() as sock:
        sock.sendall(UPLOAD % f"{name}/body".encode())
        assert said(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert b'"length": 5' in read_all(sock)


@pytest.mark.parametrize("name", ["plain", "patient"])
def test_a_program_that_answers_first_asks_for_nothing(one: Server, name: str) -> None:
    answer = one.raw(UPLOAD % f"{name}/refuse".encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"too large")


def test_a_program_that_does_not_know_100(one: Server) -> None:
    """continue_timeout: the body goes without having been asked for; never, if it says so."""
    with one.connect() as sock, one.connect(1) as other:
        sock.sendall(UPLOAD % b"quick/body-silent")
        other.sendall(UPLOAD % b"patient/body-silent")
        assert said(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert b'"length": 5' in read_all(sock)
        with pytest.raises(TimeoutError):
            other.recv(1)
    # A client that does not wait to be asked any more frees its slot.
    wait_until(lambda: not any(process.get("busy") for process in one.status()["processes"]), "a slot is busy")


def test_interim_answers_and_trailers(one: Server) -> None:
    answer = one.raw(b"GET /plain/hints HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    hints, final = answer.split(b"\r\n\r\n", 1)
    assert hints.startswith(b"HTTP/1.1 103 ")
    assert b"Link: </a.css>; rel=preload" in hints
    assert b"onnection" not in hints
    assert final.startswith(b"HTTP/1.1 200 OK\r\n")
    assert final.endswith(b"after hints")
    assert one.get("/plain/trailers").body == b"hello"
    asked = b"GET /plain/trailers HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n"
    assert one.raw(asked).endswith(b"hello\r\n0\r\nX-Sum: 42\r\n\r\n")
    # And those of a request, but for what only a head may say.
    answer = one.raw(
        b"POST /plain/body HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\nX-Sum: 42\r\nX-Forwarded-For: 1.2.3.4\r\nX-More: b\r\n\r\n"
    )
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["trailers"] == ["X-Sum: 42", "X-More: b"]


def test_answers_without_a_length_or_a_body(one: Server) -> None:
    answer = one.get("/plain/close")
    assert (answer.body, answer.field("X-From")) == (b"until the end", "old")
    for status, body in ((204, b""), (304, b""), (299, b"content"), (500, b"content"), (599, b"content")):
        answer = one.get(f"/plain/status-{status}")
        assert (answer.status, answer.body) == (status, body)
    answer = one.request("HEAD", "/plain/stream-12345")
    assert (answer.status, answer.field("Content-Length"), answer.body) == (200, "12345", b"")
    # The connection to the program has stayed usable.
    assert one.get("/plain/stream-10").body == PATTERN[:10]


def test_connections_are_kept(one: Server) -> None:
    """quick has one slot: one connection to it, until the program closes it."""
    first = one.get("/quick/connection").body
    assert {one.get("/quick/connection").body for _ in range(5)} == {first}
    assert {one.request("POST", "/quick/connection").body for _ in range(5)} == {first}
    assert one.get("/quick/hangup").body == first
    # It may be seen to be closed, or only once it is used.
    assert {one.get("/quick/connection").body for _ in range(5)} == {b"%d" % (int(first) + 1)}


def test_nothing_is_run_twice(one: Server) -> None:
    """A program that closes without a word after each answer: every request reaches it, each POST once."""
    one.allow("closed the connection before it had answered")
    statuses = []
    for i in range(40):
        statuses.append(one.request("POST", f"/quick/count?n={i}", b"x" * 10).status)
        assert one.get("/quick/hangup").status == 200
    seen = json.loads(one.get("/quick/count").body)
    for i, status in enumerate(statuses):
        assert seen.count(f"POST /quick/count?n={i}") in ((1,) if status == 200 else (0, 1))
    assert statuses.count(200) > 30


def test_large_bodies_need_no_memory(one: Server) -> None:
    """20 MB each way, to a slow reader too."""
    size = 20 << 20
    (worker,) = one.pids("worker", "plain")
    one.get("/plain/stream-1000000")
    before = memory(worker)
    answer = one.request("POST", "/plain/body", PATTERN * (size // len(PATTERN)), timeout=60)
    assert json.loads(answer.body)["length"] == size
    assert one.get(f"/plain/stream-{size}").body == PATTERN * (size // len(PATTERN))
    with one.connect() as sock:
        sock.sendall(b"GET /plain/stream-%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % size)
        left = size - len(said(sock, b"", sock.recv(100)))
        while left > 0:  # the rest is made while this reads on
            piece = sock.recv(65536)
            assert piece
            left -= len(piece)
    assert memory(worker) - before < 8192 + KEPT_KB


def test_a_hundred_slow_requests_at_once() -> None:
    with running(group("slow", threads=100)) as one, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(one.connect()) for _ in range(100)]
        for sock in socks:
            sock.sendall(b"GET /slow/meet-100 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        # The program answers the first when it has the last.
        for sock in socks:
            assert read_all(sock).endswith(b"met")


def words(pid: int, name: str) -> list[str]:
    return Path(f"/proc/{pid}/{name}").read_text().rstrip("\0").split("\0")


def test_environment_of_a_program(one: Server) -> None:
    """Where it is to listen, and nothing of the server's: no descriptor, no blocked signal."""
    found = {}
    for name in ("plain", "descriptor", "port"):
        pid = programs(one, name)[0]
        found[name] = dict(entry.split("=", 1) for entry in words(pid, "environ"))
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)]
        assert links[0] == "/dev/null"
        assert links[1].startswith("pipe:")
        assert links[1] == links[2]
        assert words(pid, "cmdline")[2] == ARGUMENTS[name if name in ARGUMENTS else "socket"].split(", ")[0]
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert int(status["SigBlk"], 16) == 0
        assert os.getpgid(pid) == pid
    assert found["plain"]["PORT"].startswith(f"{one.directory}/scratch/webserver-exec-")
    assert found["port"]["PORT"].isdigit()
    assert (found["descriptor"]["LISTEN_FDS"], "PORT" in found["descriptor"]) == ("1", False)
    assert len({*programs(one, "port")}) == 2


@pytest.mark.parametrize("listens_on", ["socket", "descriptor"])
def test_gunicorn(listens_on: str) -> None:
    """A published server: on a socket by its own option, and as systemd would start it."""
    bind = "--bind, unix:{socket}, " if listens_on == "socket" else ""
    text = group("gunicorn", listens_on=listens_on, threads=2)
    lines = [
        "application = /usr/bin/gunicorn" if line.startswith("application") else
        f"arguments = {bind}--workers, 2, --chdir, @, gunicorn_app:application" if line.startswith("arguments") else line
        for line in text.splitlines()
    ]  # fmt: skip
    with running("\n".join(lines) + "\n") as one:
        answer = one.request("POST", "/gunicorn/", b"x" * 100000)
        assert (answer.body, answer.field("X-For")) == (b"gunicorn " + b"x" * 100000, "127.0.0.1")
        assert len(programs(one, "gunicorn")) == 3


@pytest.fixture(scope="module")
def node() -> Iterator[Server]:
    text = group("node", threads=8).replace("server.py, socket, {socket}", "node_server.js")
    with running(text.replace("/usr/bin/python3", "/usr/bin/node")) as server:
        yield server


def test_node(node: Server) -> None:
    body = PATTERN * 20
    answer = json.loads(node.request("POST", "/node/x?y=z", body, {"Host": "example.org"}).body)
    assert (answer["url"], answer["length"]) == ("/node/x?y=z", len(body))
    assert answer["sha256"] == hashlib.sha256(body).hexdigest()
    assert answer["fields"]["x-forwarded-host"] == "example.org"
    assert node.raw(UPLOAD % b"refuse").startswith(b"HTTP/1.1 413 ")
    with node.connect() as sock:
        sock.sendall(UPLOAD % b"upload")
        assert said(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert b'"length":5' in read_all(sock)


def text_frame(text: bytes) -> bytes:
    """A masked text frame (RFC 6455, section 5.2)."""
    mask = b"\x01\x02\x03\x04"
    return bytes([0x81, 0x80 | len(text)]) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(text))


def test_websocket_of_node(node: Server) -> None:
    key = base64.b64encode(b"0123456789abcdef")
    with node.connect() as sock:
        sock.sendall(
            b"GET /node/chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n" % key
        )
        head = said(sock, b"\r\n\r\n")
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Accept: " + accept in head
        for i in range(50):
            text = b"message %d" % i
            sock.sendall(text_frame(text))
            assert said(sock, text)[:2] == bytes([0x81, len(text)])
        sock.sendall(bytes([0x88, 0x80, 1, 2, 3, 4]))
        assert read_all(sock) == b"\x88\x00"


def test_any_upgrade_is_a_tunnel(one: Server) -> None:
    """Bytes with the head and after it, both ways; the client's end reaches the program, which has the last word."""
    with one.connect() as sock:
        sock.sendall(b"GET /plain/upgrade HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\n")
        head = said(sock, b"HELLO ")
        assert head.startswith(b"HTTP/1.1 101 ")
        sock.sendall(b"quiet")
        said(sock, b"QUIET")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"BYE"
    wait_until(lambda: not any(process.get("busy") for process in one.status()["processes"]), "the slot is not free")
