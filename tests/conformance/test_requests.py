"""What an application is told: variables, paths, cookies, the log, deadlines; and that no request leaves traces in the next."""

from __future__ import annotations

import contextlib
import re

import pytest

from .client import Connection, Cut
from .server import BRIEF, Server


def variables(server: Server, target: str, *fields: str, body: bytes | None = None) -> dict[str, str]:
    text = server.ask(target, body, *fields).text
    return {name: value for name, _, value in (line.partition("=") for line in text.split("\n")) if name}


def test_variables(server: Server) -> None:
    seen = variables(server, "/fields?q=%20&r=a+b", "X-Word: one", "X-Word: two", "Accept: */*", "User-Agent: suite")
    expected = {
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "q=%20&r=a+b",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_PORT": str(server.port),
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_X_WORD": "one, two",
        "HTTP_ACCEPT": "*/*",
        "HTTP_USER_AGENT": "suite",
        "HTTP_HOST": "conformance",
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert seen["SERVER_NAME"]
    assert not {"CONTENT_LENGTH", "CONTENT_TYPE"} & {name for name, value in seen.items() if value}


def test_variables_of_a_body(server: Server) -> None:
    seen = variables(server, "/fields", "Content-Type: text/x-test; a=b", body=b"12345")
    assert (seen["REQUEST_METHOD"], seen["CONTENT_TYPE"], seen["CONTENT_LENGTH"]) == ("POST", "text/x-test; a=b", "5")
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & {name for name, value in seen.items() if value}


@pytest.mark.clause("mount")
def test_a_mount_divides_the_path(server: Server) -> None:
    seen = variables(server, "/mount/point/fields/more?x")
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/mount/point", "/fields/more")
    seen = variables(server, "/fields/more")
    assert (seen.get("SCRIPT_NAME", ""), seen["PATH_INFO"]) == ("", "/fields/more")


def test_a_field_cannot_pass_for_a_variable(server: Server) -> None:
    """httpoxy, and names that differ only by what CGI makes of them."""
    seen = variables(server, "/fields", "Proxy: evil:8080", "X_Word: evil", "Content_Length: 99")
    assert not seen.get("HTTP_PROXY")
    assert "evil" not in seen.get("HTTP_X_WORD", "")
    assert not seen.get("CONTENT_LENGTH")


@pytest.mark.parametrize("count", [0, 1, 80])
def test_many_fields(server: Server, count: int) -> None:
    seen = variables(server, "/fields", *(f"X-Field-{number}: {'v' * number}" for number in range(count)))
    assert [seen.get(f"HTTP_X_FIELD_{number}") for number in range(count)] == ["v" * number for number in range(count)]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/path_info/plain", b"/path_info/plain"),
        ("/path_info/caf%C3%A9", b"/path_info/caf\xc3\xa9"),
        ("/path_info/%FF%FE%80", b"/path_info/\xff\xfe\x80"),
        ("/path_info/a%20b%2Bc+d%25", b"/path_info/a b+c+d%"),
        ("/path_info/%3Fnot%23query", b"/path_info/?not#query"),
        ("/path_info/a;b=c,d", b"/path_info/a;b=c,d"),
    ],
)
def test_bytes_of_a_path(server: Server, target: str, path: bytes) -> None:
    assert server.ask(target).body == path


@pytest.mark.parametrize("query", ["", "a=1&b=2", "%00%ff", "?", "x" * 4000])
def test_a_query_stays_as_it_came(server: Server, query: str) -> None:
    assert variables(server, f"/fields?{query}").get("QUERY_STRING", "") == query


def test_cookies(server: Server) -> None:
    assert server.ask("/cookies").body == b""
    assert server.ask("/cookies", None, "Cookie: a=1; b=2").body == b"a=1; b=2"
    assert server.ask("/cookies", None, "Cookie: a=1", "Cookie: b=2").body == b"a=1; b=2"


def test_an_unknown_path(server: Server) -> None:
    answer = server.ask("/nothing/here")
    assert (answer.status, answer.body) == (404, b"no such path")


@pytest.mark.clause("request-id")
def test_log_lines_have_the_request_s_id(server: Server) -> None:
    ids = []
    for _ in range(2):
        token, before = server.token(), len(server.log())
        assert server.ask(f"/log?watch={token}").body == b"logged"
        server.wait_for_log(before, f"conformance log {token}")
        (line,) = [line for line in server.log().splitlines() if f"conformance log {token}" in line]
        assert re.search(r"\bapp\b", line)
        found = re.search(r"request=(\S+?):", line)
        assert found, f"no request's id in {line!r}"
        ids.append(found[1])
    assert ids[0] != ids[1]


def test_nothing_of_a_request_is_left_for_the_next(connection: Connection) -> None:
    """The same process, one request after the other on one connection: each has its own status, fields and body."""
    for _ in range(3):
        connection.request(
            "POST", "/length?a=1", b"x" * 1000, "Cookie: a=1", "X-Own: mine", "Content-Type: text/x-test"
        )
        assert connection.answer().text.startswith("1000 ")
        connection.head("GET", "/headers")
        assert len(connection.answer().all("Set-Cookie")) == 3
        connection.head("GET", "/status/404")
        assert connection.answer().status == 404
        connection.head("GET", "/fields")
        answer = connection.answer()
        assert (answer.status, answer.all("Set-Cookie"), answer.field("X-Long")) == (200, [], None)
        for word in ("HTTP_COOKIE=a", "HTTP_X_OWN=", "text/x-test", "QUERY_STRING=a", "CONTENT_LENGTH=1"):
            assert word not in answer.text
        connection.head("GET", "/cookies")
        assert connection.answer().body == b""
        connection.head("GET", "/error")
        assert connection.answer().status == 500
        connection.head("GET", "/hello")
        answer = connection.answer()
        assert (answer.status, answer.reason, answer.body) == (200, "OK", b"hello, world")


def test_pipelined_requests_are_answered_in_order(connection: Connection) -> None:
    for number in range(20):
        connection.head("GET", f"/large/{number}" if number % 2 else "/hello")
    for number in range(20):
        assert len(connection.answer().body) == (number if number % 2 else 12)


def test_requests_at_once(server: Server) -> None:
    """Both are in the application at the same time: neither gate is opened before both have begun."""
    tokens = [server.token(), server.token()]
    connections = [server.connect() for _ in tokens]
    try:
        for connection, token in zip(connections, tokens, strict=True):
            connection.head("GET", f"/many/steps?watch={token}")
        for connection, token in zip(connections, tokens, strict=True):
            server.wait_for("begun", token)
            connection.next_head()
            assert connection.lines(1) == ["one"]
        for token in tokens:
            server.open_gate(token)
        for connection in connections:
            assert connection.lines(1) == ["two"]
    finally:
        for connection in connections:
            connection.sock.close()
    for token in tokens:
        server.wait_for("closed", token)


@pytest.mark.clause("pid")
def test_threads_of_one_process(server: Server) -> None:
    """A group with threads has one process here, one without has two."""
    found = {server.ask("/many/pid").body for _ in range(8)}
    workers = {str(pid).encode() for pid in server.pids("worker many")}
    assert found <= workers
    assert len(workers) == (1 if server.language.threads > 1 else 2)


# ---- ends


def test_clean_up_comes_once_for_each_request(server: Server) -> None:
    for path in ("/hello", "/stream/3", "/large/100000", "/error", "/error-late", "/empty", "/nobody", "/nothing"):
        token = server.token()
        with server.connect() as connection:
            connection.head("GET", f"{path}?watch={token}")
            with contextlib.suppress(Cut):  # an error that comes late
                connection.answer()
        if path != "/nothing":
            server.wait_for("closed", token)
            assert server.noted("begun").count(token) == server.noted("closed").count(token) == 1, path


@pytest.mark.clause("after")
def test_work_after_the_answer(server: Server, connection: Connection) -> None:
    token = server.token()
    connection.head("GET", f"/after?watch={token}")
    assert connection.answer().body == b"after"
    assert token not in server.noted("after")
    server.open_gate(token)
    server.wait_for("after", token)
    server.wait_for("closed", token)


@pytest.mark.clause("deadline")
def test_deadline(server: Server) -> None:
    left = float(server.ask("/brief/deadline").text)
    assert 0 < left <= BRIEF * server.slowness
    assert 10 < float(server.ask("/deadline").text) <= 300


@pytest.mark.clause("cancelled")
def test_an_application_sees_that_its_client_has_gone(server: Server) -> None:
    token = server.token()
    with server.connect() as connection:
        connection.head("GET", f"/cancelled?watch={token}")
        server.wait_for("begun", token)
        assert token not in server.noted("cancelled")
    server.wait_for("cancelled", token)
    server.wait_for("closed", token)


@pytest.mark.clause("upgrade")
def test_upgrade(server: Server) -> None:
    token = server.token()
    with server.connect() as connection:
        connection.head("GET", f"/upgrade?watch={token}", "Connection: Upgrade", "Upgrade: conformance")
        answer = connection.answer()
        assert (answer.status, answer.field("Upgrade"), answer.words("Connection")) == (101, "conformance", ["upgrade"])
        for size in (1, 100, 100_000):
            connection.sock.sendall(b"x" * size)
            assert connection.exactly(size) == b"x" * size
        connection.sock.shutdown(1)
        assert connection.ended()
    server.wait_for("closed", token)


@pytest.mark.clause("upgrade")
def test_upgrade_that_was_not_asked_for(server: Server) -> None:
    assert server.ask("/upgrade").status == 426
    assert server.ask("/upgrade", None, "Connection: Upgrade", "Upgrade: other").status == 426
