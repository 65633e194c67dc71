"""PSGI 1.102, delayed answers and streams, and the extensions, through the real server."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator

import pytest
from psgi_clauses import DATA, noted, prepare, started
from serving import Server, alive, read_all, wait_until
from test_psgi_answers import cut, said


@pytest.fixture(scope="module")
def app() -> Iterator[Server]:
    with started() as one:
        one.allow(r"site=all request=")
        yield one


def last_note(server: Server, text: str) -> None:
    wait_until(lambda: any(text in line for line in noted(server)[-3:]), f"not noted: {text}")


def test_delayed_answers(app: Server) -> None:
    answer = app.get("/delayed")
    assert (answer.body, answer.field("Content-Length")) == (b"delayed", "7")
    assert app.get("/delayed_file").body == DATA


@pytest.mark.parametrize("count", [0, 1, 500])
def test_stream(app: Server, count: int) -> None:
    answer = app.get(f"/stream?{count}")
    assert answer.text == "write,close\n" + "".join(f"piece {number}\n" for number in range(1, count + 1))
    assert (answer.field("X-Class"), answer.field("Content-Length")) == ("stream", None)
    assert app.request("HEAD", f"/stream?{count}").body == b""


def test_each_piece_leaves_at_once(server: Server) -> None:
    prepare(server).start()
    with server.connect() as sock:
        sock.sendall(b"GET /steps HTTP/1.0\r\n\r\n")
        data = b""
        while not data.endswith(b"one\n"):
            data += sock.recv(1000)
        server.file("work/go", "")
        assert read_all(sock) == b"two\n"


def test_the_last_byte_of_the_length_ends_a_stream(server: Server) -> None:
    prepare(server).start()
    with server.connect() as sock:
        sock.sendall(b"GET /answers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_all(sock).endswith(b"fourfives")
    wait_until(lambda: noted(server) == ["has written"], "the application does not go on")
    server.file("work/go", "")
    assert server.get("/hello").body == b"hello, world"


def test_client_that_goes_away_ends_an_endless_stream(server: Server) -> None:
    prepare(server).start()
    for number in range(1, 4):
        with server.connect() as sock:
            sock.sendall(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
            sock.recv(1000)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_until(lambda number=number: noted(server) == ["destroyed"] * number, "it goes on")
    said(server, "[notice]")
    assert "[error]" not in server.log()
    assert server.logged("the client went away before its answer was complete")


@pytest.mark.parametrize(
    ("name", "status", "body", "text"),
    [
        ("never", 500, b"Internal", "the application's function returned without calling the responder"),
        ("again", 200, b"mended: the headers must be an array reference at ", ""),
        ("four", 500, b"Internal", "the answer has 4 elements, expected three, or two for a stream"),
        ("none", 500, b"Internal", "the responder takes one argument, the answer"),
        ("early", 500, b"Internal", "before the first byte"),
        ("late", 200, b"complete", "after the answer"),
        ("wide", 200, b"refused: Wide character in write(): bytes are expected", ""),
        ("closed", 200, b"said", ""),
        ("twice", 200, b"once", ""),
    ],
)
def test_mistakes(app: Server, name: str, status: int, body: bytes, text: str) -> None:
    answer = app.get(f"/stream_wrong/{name}")
    assert (answer.status, answer.body[: len(body)]) == (status, body)
    if text:
        said(app, text)
    if name == "closed":
        last_note(app, "closed: write() was called on a writer that is closed at ")
    if name == "twice":
        last_note(app, "twice: the responder was called a second time at ")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("open", "the application's function returned without closing its writer: the answer is cut off"),
        ("death", "in the middle of a stream"),
        ("length", "ended after 5 of the 40 bytes"),
    ],
)
def test_streams_that_do_not_end(app: Server, name: str, text: str) -> None:
    cut(app, f"/stream_wrong/{name}")
    said(app, text)


def test_responder_and_writer_of_a_request_that_is_over(app: Server) -> None:
    assert app.get("/stream_wrong/keep").status == 200
    text = app.get("/stream_wrong/kept").text
    assert "the responder of a request that is over was called at " in text
    assert "write() of a writer of a request that is over was called at " in text


# ---- extensions


def test_cleanup_handlers(server: Server) -> None:
    prepare(server).start()
    server.allow("a cleanup that dies")
    assert server.get("/cleanup?word").text == "1"
    wait_until(lambda: noted(server) == ["first word seen", "second", "third"], "not all were called")
    said(server, "a cleanup that dies")


def test_cleanup_keeps_no_client_waiting(server: Server) -> None:
    prepare(server).start()
    assert server.get("/cleanup_waits").text == "answered"
    wait_until(lambda: noted(server) == ["waiting"], "it was not called")
    server.file("work/go", "")
    wait_until(lambda: noted(server) == ["waiting", "waited"], "it does not go on")


@pytest.mark.parametrize("how", ["die", "exit", "never"])
def test_cleanup_whatever_happens(server: Server, how: str) -> None:
    prepare(server).start()
    server.allow("site=all request=")
    server.raw(f"GET /cleanup_dies?{how} HTTP/1.0\r\n\r\n".encode())
    wait_until(lambda: noted(server) == ["cleaned"], "it was not called")


@pytest.mark.parametrize("when", ["now", "later"])
def test_harakiri(server: Server, when: str) -> None:
    prepare(server).start()
    seen = []
    for _ in range(4):
        pid, offered = server.get(f"/harakiri?{when}").text.split()
        assert offered == "1"
        seen.append(pid)
        assert server.get("/hello").body == b"hello, world"
        # What came in the moment before it says that it leaves is still its own to answer.
        wait_until(lambda pid=pid: not alive(int(pid)), "the worker does not end")
    assert len(set(seen)) == 4
    assert server.get("/harakiri?not").text == server.get("/harakiri?not").text
    assert "502: " not in server.log(), "a time or a pid may hold the number"


def test_informational(app: Server) -> None:
    answer = app.raw(b"GET /informational HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").decode()
    interim, _, rest = answer.partition("\r\n\r\n")
    assert interim.startswith("HTTP/1.1 103 ")
    links = [line for line in interim.split("\r\n") if line.lower().startswith("link:")]
    assert [line.partition(": ")[2] for line in links] == ["</style.css>; rel=preload", "</more.js>; rel=preload"]
    assert rest.startswith("HTTP/1.1 200 ")
    for text in (
        "sent",
        "psgix.informational: a status and an array of headers are expected",
        "psgix.informational: 200 cannot be sent before the answer",
        'psgix.informational: the header "X-A" has a control character in its value',
        "psgix.informational: the answer itself has begun",
    ):
        assert text in rest


def test_deadline(server: Server) -> None:
    prepare(server, lines="request_timeout = 20s").start()
    assert 15 < float(server.get("/deadline").text) <= 20


def test_no_deadline(server: Server) -> None:
    prepare(server, lines="request_timeout = none").start()
    assert server.get("/deadline").text == "none"


def test_cancelled(server: Server) -> None:
    prepare(server).start()
    with server.connect() as sock:
        sock.sendall(b"GET /cancelled HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: noted(server) == ["not yet"], "it does not run")
    wait_until(lambda: noted(server) == ["not yet", "cancelled"], "it was not told")


def upgrade(server: Server, target: str) -> socket.socket:
    sock = server.connect()
    head = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n"
    sock.sendall(head.encode())
    return sock


def test_a_look_at_the_connection_takes_nothing_over(app: Server) -> None:
    assert app.get("/look").text == "GLOB there defined"


def test_the_connection_itself(server: Server) -> None:
    prepare(server).start()
    with upgrade(server, "/socket") as sock:
        data = b""
        while b"\r\n\r\n" not in data:
            data += sock.recv(1000)
        assert data.startswith(b"HTTP/1.1 101 ")
        assert b"Upgrade: shout\r\n" in data
        for word in (b"one", b"two"):
            sock.sendall(word)
            assert sock.recv(1000) == word.upper()
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    last_note(server, "the client has ended")
    with upgrade(server, "/buffered") as sock:
        sock.sendall(b"one\ntwo\n")
        sock.shutdown(socket.SHUT_WR)
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.endswith(b"\r\n\r\nline one\nline two\n")
    assert server.get("/byhand").body == b"by hand"
    assert server.get("/hello").body == b"hello, world"


def test_signals_of_the_application_while_it_waits_for_the_body(server: Server) -> None:
    prepare(server).start()
    with server.connect() as sock:
        sock.sendall(b"POST /alarm HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nConnection: close\r\n\r\n")
        sock.sendall(b"x" * 200_000)
        assert read_all(sock).endswith(b"died of alarm\n")


def test_term_is_the_orderly_end(server: Server) -> None:
    prepare(server).start()
    assert re.match("USR2 local", server.get("/signals").text)
    [pid] = server.pids("worker")

    # What `local $SIG{TERM}` has left behind is mended within a second.
    def ended() -> bool:
        server.get("/hello")
        if alive(pid):
            os.kill(pid, signal.SIGTERM)
        return f"end of {pid}" in noted(server)

    wait_until(ended, "the worker has not ended in order")
    wait_until(lambda: server.pids("worker") not in ([pid], []), "it was not replaced")
    assert server.get("/hello").body == b"hello, world"
    assert "killed by" not in server.log()
