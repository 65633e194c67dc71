"""Rack through the real server: the environment and rack.input, as Rack's SPEC 2 and 3 say."""

from __future__ import annotations

import ast
import http.client
import json
import socket
from collections.abc import Iterator

import pytest
from rack_server import logged, prepare
from serving import Server, directory, read_all


@pytest.fixture(scope="module", params=[1, 8], ids=["1-thread", "8-threads"])
def app(request: pytest.FixtureRequest) -> Iterator[Server]:
    with directory() as path:
        server = prepare(Server(path), threads=request.param)
        server.start()
        yield server
        server.stop()


def seen(app: Server, target: str, **fields: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(app.get(target, **fields).body)
    return found


def test_environment(app: Server) -> None:
    found = seen(app, "/mount/point/env?q=%20&r", X_Word="t", User_Agent="a long name of a client" * 3)
    threads = len(app.status()["processes"])
    assert threads > 0
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/mount/point",
        "PATH_INFO": "/env",
        "QUERY_STRING": "q=%20&r",
        "REQUEST_URI": "/mount/point/env?q=%20&r",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(app.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_VERSION": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_X_WORD": "t",
        "HTTP_USER_AGENT": "a long name of a client" * 3,
        "rack.url_scheme": "http",
        "SERVER_SOFTWARE": "webserver",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "DOCUMENT_ROOT": str(app.directory / "public"),
    }
    assert {name: ast.literal_eval(str(found[name])) for name in expected} == expected
    assert found["rack.version"] == "[1, 3]"
    assert found["rack.run_once"] is False
    assert found["rack.multiprocess"] is False
    assert "HTTPS" not in found
    assert "CONTENT_LENGTH" not in found
    assert str(found["webserver.request_id"]).strip('"')


@pytest.mark.parametrize("lint", ["/lint2", "/lint3"])
def test_lint_has_nothing_to_say(app: Server, lint: str) -> None:
    for target in ("/hello", "/env", "/told", "/large?200000", "/input?read", "/path-body", "/no-such"):
        (app.directory / "scratch" / "file").write_bytes(b"content of the file\n")
        answer = app.get(lint + target)
        assert answer.status in (200, 404), (target, answer.text)
    for target, body in (("/sum", b"x" * 300000), ("/input?gets,each,read:1", b"a\nb\n"), ("/input?read:0", b"")):
        assert app.request("POST", lint + target, body).status == 200
    assert app.request("HEAD", lint + "/hello").status == 200
    assert app.request("OPTIONS", lint + "/hello").status == 200
    assert app.get(lint + "/no-content").status == 204 if lint == "/lint3" else True


def test_strings_are_bytes_and_the_environment_is_one_s_own(app: Server) -> None:
    words = dict(line.split(" ", 1) for line in app.get("/encodings/%C3%A9?%C3%A9", X_Word="\xe9").text.splitlines())
    assert {words[name] for name in ("PATH_INFO", "QUERY_STRING", "HTTP_X_WORD", "HTTP_HOST")} <= {
        "ASCII-8BIT",
        "US-ASCII",
    }
    assert words["HTTP_X_WORD"] == "ASCII-8BIT"


@pytest.mark.parametrize(
    ("path", "info", "decoded"),
    [
        ("/path/caf%C3%A9", "/path/caf%C3%A9", "/path/café"),
        ("/path/a%20b", "/path/a%20b", "/path/a b"),
        ("/path/100%2525", "/path/100%2525", "/path/100%25"),
        ("/path/a%2Fb", "/path/a/b", "/path/a/b"),
        ("/path/x/../y%3Fz", "/path/y%3Fz", "/path/y?z"),
        ("/path/%7e-._!$&'()*+,;=:@", "/path/~-._!$&'()*+,;=:@", "/path/~-._!$&'()*+,;=:@"),
    ],
)
def test_paths_are_encoded_once(app: Server, path: str, info: str, decoded: str) -> None:
    assert app.get(path).text == f"|{info}|{decoded}"


def test_a_version_field_is_not_the_protocol_s(app: Server) -> None:
    assert seen(app, "/env", Version="HTTP/9.9")["HTTP_VERSION"] == '"HTTP/1.1"'


def test_how_files_are_named_is_not_the_client_s_to_say(app: Server) -> None:
    fields = {"X-Sendfile-Type": "X-Accel-Redirect", "X-Accel-Mapping": "/a/=/b/", "X-Accel-Limit": "kept"}
    assert set(seen(app, "/env", **fields)) & {
        "HTTP_X_SENDFILE_TYPE",
        "HTTP_X_ACCEL_MAPPING",
        "HTTP_X_ACCEL_LIMIT",
    } == {"HTTP_X_ACCEL_LIMIT"}


@pytest.mark.parametrize(
    ("calls", "results"),
    [
        ("read", ["line one\nline two\nrest"]),
        ("read,read,read:1,read:0", ["line one\nline two\nrest", "", None, ""]),
        ("read:4,read:100,read:1", ["line", " one\nline two\nrest", None]),
        ("gets,gets,gets,gets", ["line one\n", "line two\n", "rest", None]),
        ("each,gets", [["line one\n", "line two\n", "rest"], None]),
        ("read:3,rewind,read:4", ["lin", 0, "line"]),
        ("read,rewind,gets,rewind,each", ["line one\nline two\nrest", 0, "line one\n", 0, None]),
        ("buffer:4,buffer:100", [["line", "line"], [" one\nline two\nrest"] * 2]),
        ("read:-1,pos,eof?,size", ["ArgumentError", 0, False, 22]),
        (
            "getc,getbyte,readpartial:3,eof?,readline,readlines,eof?,readline",
            [
                "l",
                105,
                "ne ",
                False,
                "one\n",
                ["line two\n", "rest"],
                True,
                "EOFError",
            ],
        ),
        ("gets:4,gets:100,pos,seek:5,read:3", ["line", " one\n", 9, 0, "one"]),
        ("close,closed?,read", [None, True, "IOError"]),
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_input(app: Server, calls: str, results: list[object], chunked: bool) -> None:
    body = b"line one\nline two\nrest"
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=20)
    connection.request(
        "POST",
        f"/input?{calls}",
        iter([body[:7], body[7:]]) if chunked else body,
        encode_chunked=chunked,
        headers={"Transfer-Encoding": "chunked"} if chunked else {},
    )
    text = connection.getresponse().read().decode()
    connection.close()
    found = ast.literal_eval(text.replace("nil", "None").replace("true", "True").replace("false", "False"))
    if results[-1] is None and "each" in calls and "rewind" in calls:
        results = [*results[:-1], ["line one\n", "line two\n", "rest"]]
    assert found == results


def test_no_input(app: Server) -> None:
    found = app.get("/input?read,read:1,read:0,gets,rewind,each,eof?,size,buffer:3").text
    assert found == '["", nil, "", nil, 0, [], true, 0, [nil, ""]]'


@pytest.mark.parametrize("size", [1, 70_000, 1_000_000, 3_000_000])
def test_large_input_in_pieces_and_again(app: Server, size: int) -> None:
    body = bytes(range(251)) * (size // 251 + 1)
    body = body[:size]
    total = sum(body) % (1 << 32)
    assert app.request("POST", "/sum?again", body).text == f"{size} {total} {total}"
    assert app.request("POST", "/whole", body).text == f"{size} {total} {total}"


def test_nothing_is_read_before_it_is_asked_for(app: Server) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    assert app.raw(head % b"/unread").startswith(b"HTTP/1.1 200")
    assert app.raw(head % b"/input?rewind").startswith(b"HTTP/1.1 200")
    with app.connect() as sock:
        sock.sendall(head % b"/input?read")
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(b"hello")
        assert b'["hello"]' in read_all(sock)


def test_a_client_that_goes_in_its_request_is_no_error_of_the_application_s(app: Server) -> None:
    with app.connect() as sock:
        sock.sendall(b"POST /input?read HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(b"only this")
        sock.shutdown(socket.SHUT_RDWR)
    logged(app, "the client went away before its request or its answer was complete")
    assert app.get("/hello").status == 200


def test_what_is_kept_of_a_request_is_worth_nothing_afterwards(app: Server) -> None:
    assert app.request("POST", "/keeps", b"x").text == "first"
    assert app.request("POST", "/keeps", b"y").text == '["IOError", "IOError", "IOError", true]'


def test_input_and_output_from_a_thread_of_the_application_s(app: Server) -> None:
    assert app.request("POST", "/thread", b"x" * 200_000).text.startswith("x" * 200_000)


def test_interrupting_a_read_that_waits(app: Server) -> None:
    with app.connect() as sock:
        sock.sendall(b"POST /timeout HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        assert b"timed out" in sock.recv(4096)
