"""Rack through the real server: status, headers, every kind of body, and what happens when they are wrong."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from rack_server import lines, logged, prepare
from serving import Server, directory, read_all


@pytest.fixture(scope="module", params=[1, 8], ids=["1-thread", "8-threads"])
def app(request: pytest.FixtureRequest) -> Iterator[Server]:
    with directory() as path:
        server = prepare(Server(path), threads=request.param)
        server.start()
        yield server
        server.stop()


@pytest.fixture(autouse=True)
def scratch(app: Server) -> Iterator[None]:
    yield
    for path in (app.directory / "scratch").iterdir():
        path.unlink()


def values(app: Server, target: str, name: str) -> list[str]:
    return [value for key, value in app.get(target).fields if key.lower() == name]


def test_an_array_has_a_length(app: Server) -> None:
    answer = app.get("/hello")
    assert (answer.status, answer.body, answer.field("content-length")) == (200, b"hello, world", "12")
    assert app.request("HEAD", "/hello").field("content-length") is None
    assert len(app.get("/large?5000000").body) == 5_000_000


def test_status_and_headers_in_every_form(app: Server) -> None:
    assert app.get("/status-string").status == 201
    assert values(app, "/lines", "set-cookie") == ["a=1", "b=2", "c=3"]
    assert values(app, "/lines", "x-empty") == [""]
    assert values(app, "/lines", "x-nothing") == []
    assert values(app, "/arrays", "set-cookie") == ["a=1", "b=2", "c=3"]
    assert (values(app, "/arrays", "x-number"), values(app, "/arrays", "x-own")) == (["12"], ["own"])
    assert values(app, "/pairs", "x-pair") == ["1"]


def test_the_connection_is_the_server_s(app: Server) -> None:
    answer = app.get("/connection")
    assert answer.text == "kept"
    assert not {"keep-alive", "upgrade", "rack.own", "status"} & {name.lower() for name, _ in answer.fields}


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/bad-value", "a control character in the header"),
        ("/bad-name", "not a header's name"),
        ("/bad-status", "the status must be a number"),
        ("/bad-length", "not a length"),
        ("/no-array", "must return an array of status, headers and body"),
        ("/two-parts", "must return an array of status, headers and body"),
        ("/not-strings", "must yield strings"),
        ("/no-body", "must respond to each or call"),
        ("/raise", "config.ru:"),
        ("/exit", "SystemExit"),
        ("/abort", "from abort (SystemExit)"),
        ("/interrupt", "Interrupt"),
        ("/thread-exit", "a thread was ended by its own hand"),
        ("/throw", "UncaughtThrowError"),
        ("/overflow", "SystemStackError"),
        ("/no-memory", "none left"),
    ],
)
def test_mistakes_are_500_once_and_in_the_log(app: Server, target: str, reason: str) -> None:
    app.allow("error")
    answer = app.get(target)
    assert (answer.status, answer.text) == (500, "Internal Server Error\n")
    assert "request=" in logged(app, reason)
    assert app.get("/hello").text == "hello, world"


def test_a_thread_that_was_ended_goes_on(app: Server) -> None:
    app.allow("error")
    for _ in range(16):
        assert app.get("/thread-exit").status == 500
    for _ in range(16):
        assert app.get("/sleep?0.001").text == "slept"
    assert app.request("POST", "/thread", b"read elsewhere").text.startswith("read elsewhere")
    assert app.get("/told").text == "abc"
    assert lines(app, "closed", 1) == ["told"]


def test_killing_every_thread_harms_no_later_request(app: Server) -> None:
    assert app.get("/kills").text == "killed"
    for _ in range(32):
        assert app.get("/hello").text == "hello, world"


def test_a_body_that_yields(app: Server) -> None:
    answer = app.get("/told")
    assert (answer.text, answer.field("transfer-encoding")) == ("abc", "chunked")
    assert lines(app, "closed", 1) == ["told"]


def test_to_ary_is_the_whole_body_and_closes_it(app: Server) -> None:
    answer = app.get("/to-ary")
    assert (answer.text, answer.field("content-length")) == ("fromto_ary", "10")
    assert lines(app, "closed", 1) == ["to-ary"]


def test_no_body_is_not_asked_for_and_closed(app: Server) -> None:
    assert app.get("/no-content").body == b""
    assert app.get("/not-modified").status == 304
    assert app.request("HEAD", "/told").body == b""
    assert lines(app, "closed", 2) == ["no-content", "told"]


def cut(app: Server, target: str) -> bytes:
    return app.raw(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


def test_an_error_in_the_middle_cuts_the_answer_and_closes_the_body(app: Server) -> None:
    app.allow("error", "in the middle")
    assert not cut(app, "/broken").endswith(b"0\r\n\r\n")
    assert lines(app, "closed", 1) == ["broken"]
    logged(app, "in the middle (RuntimeError)")


def test_the_last_byte_of_the_length_ends_the_answer(app: Server) -> None:
    with app.connect() as sock:
        sock.sendall(b"GET /exact HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_all(sock).endswith(b"fourfives")
        assert lines(app, "waiting", 1)
        assert not (app.directory / "scratch" / "closed").exists()
        (app.directory / "scratch" / "go").touch()
    assert lines(app, "closed", 1) == ["exact"]


def test_close_keeps_nobody_waiting(app: Server) -> None:
    assert app.get("/slow-close").text == "done"
    lines(app, "waiting", 1)
    (app.directory / "scratch" / "go").touch()
    lines(app, "closed", 1)


def test_lengths_that_are_wrong(app: Server) -> None:
    app.allow("error", "Content-Length")
    assert app.get("/surplus").text == "four"
    assert len(cut(app, "/short").partition(b"\r\n\r\n")[2]) <= 4
    assert sorted(lines(app, "closed", 2)) == ["short", "surplus"]


def test_a_client_that_goes_ends_the_iteration(app: Server) -> None:
    for _ in range(3):
        with app.connect() as sock:
            sock.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(1000)
            sock.shutdown(socket.SHUT_RDWR)
    assert lines(app, "closed", 3) == ["endless"] * 3
    logged(app, "the client went away before its request or its answer was complete")


def test_files(app: Server) -> None:
    content = os.urandom(300_000)
    (app.directory / "scratch" / "file").write_bytes(content)
    answer = app.get("/path-body")
    assert (answer.body, answer.field("content-length")) == (content, "300000")
    assert app.request("HEAD", "/path-body").body == b""
    assert app.get("/path-part").body == content[:10]
    assert app.get("/path-gone").text == "from each"
    assert app.get("/files/file").body == content
    ranged = app.get("/files/file", Range="bytes=100-199")
    assert (ranged.status, ranged.body) == (206, content[100:200])


def test_a_body_that_is_chunked_already(app: Server) -> None:
    app.allow("error", "before its last chunk")
    assert app.get("/chunked").text == "hello, world!"
    assert not cut(app, "/chunked-short").endswith(b"0\r\n\r\n")


def test_a_streaming_body(app: Server) -> None:
    app.allow("error", "in the stream")
    assert app.get("/stream").text == "one two three "
    assert lines(app, "stream", 2) == ["not writable", "true"]
    assert app.request("POST", "/stream-echo", b"hello, world").text == "[hello][, wor][ld]"
    assert app.request("POST", "/lint3/stream-echo", b"hello").text == "[hello]"
    assert not cut(app, "/stream-fails").endswith(b"0\r\n\r\n")


def test_early_hints(app: Server) -> None:
    answer = app.raw(b"GET /hints HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 103")
    assert head.lower().count(b"link: ") == 2
    assert rest.startswith(b"HTTP/1.1 103")
    assert answer.endswith(b"hinted")


def test_after_the_answer(app: Server) -> None:
    app.allow("error", "after the reply")
    assert app.get("/after").text == "replied"
    assert lines(app, "after", 2) == ["one", "two"]
    assert lines(app, "finished", 2) == ["second", 'first [200, {"content-type"=>"text/plain"}, nil] true']
    logged(app, "after the reply (RuntimeError)")
    assert app.get("/after?fail").status == 500
    assert lines(app, "finished", 4)[3] == "first [nil, nil, #<RuntimeError: before>] true"


def test_nobody_waits_for_what_is_done_after_the_answer(app: Server) -> None:
    assert app.get("/after-slow").text == "replied"
    (app.directory / "scratch" / "go").touch()
    lines(app, "after", 1)


def test_errors_go_to_the_log_line_by_line(app: Server) -> None:
    assert app.get("/errors").text == "logged"
    found = logged(app, "half a line")
    request = found.partition("request=")[2].partition(":")[0]
    for text in ("and the rest", "from puts", "42", "007", "without an end"):
        logged(app, f"request={request}: {text}")
    assert "request" not in logged(app, "from another thread")
    logged(app, "a line on standard output")
    logged(app, "a line on standard error")


def test_deadline_and_cancellation(app: Server) -> None:
    assert 290 < float(app.get("/deadline").text) <= 300
    with app.connect() as sock:
        sock.sendall(b"GET /cancelled HTTP/1.1\r\nHost: x\r\n\r\n")
        lines(app, "waiting", 1)
        sock.shutdown(socket.SHUT_RDWR)
    assert lines(app, "cancelled", 1) == ["true"]
