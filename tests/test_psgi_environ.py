"""PSGI 1.102, the environment and the streams in it, through the real server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from psgi_clauses import prepare, started, table
from serving import Server, read_all, wait_until


@pytest.fixture(scope="module")
def app() -> Iterator[Server]:
    """One server for the tests that leave it as it was."""
    with started() as one:
        yield one


def test_environ(app: Server) -> None:
    seen = table(app.get("/env/caf%C3%A9%2Fx?q=%20&r", X_Word="t", Cookie="a=1"))
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/env/caf\xc3\xa9/x",
        "REQUEST_URI": "/env/caf%C3%A9%2Fx?q=%20&r",
        "QUERY_STRING": "q=%20&r",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(app.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "DOCUMENT_ROOT": str(app.directory / "public"),
        "HTTP_HOST": f"127.0.0.1:{app.port}",
        "HTTP_X_WORD": "t",
        "HTTP_COOKIE": "a=1",
        "psgi.version": "1.1",
        "psgi.url_scheme": "http",
        "psgi.input": "GLOB",
        "psgi.errors": "GLOB",
        "psgi.multithread": "0",
        "psgi.multiprocess": "0",
        "psgi.run_once": "0",
        "psgi.nonblocking": "0",
        "psgi.streaming": "1",
        "psgix.input.buffered": "1",
        "psgix.harakiri": "1",
        "psgix.cleanup": "1",
        "psgix.cleanup.handlers": "ARRAY",
        "psgix.logger": "CODE",
        "psgix.informational": "CODE",
        "webserver.cancelled": "CODE",
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert int(seen["REMOTE_PORT"]) > 0
    assert re.fullmatch(r"[0-9a-f]{16}", seen["webserver.request_id"])
    assert float(seen["webserver.deadline"]) > 0
    assert not {"CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTPS"} & set(seen)


def test_environ_at_a_mount_and_of_a_post(server: Server) -> None:
    prepare(server, processes=2).start()
    seen = table(server.request("POST", "/mount/point/env/x", b"12345", {"Content-Type": "text/x"}))
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/mount/point", "/env/x")
    assert (seen["CONTENT_LENGTH"], seen["CONTENT_TYPE"], seen["psgi.multiprocess"]) == ("5", "text/x", "1")
    assert "HTTP_CONTENT_LENGTH" not in seen
    joined = server.raw(
        b"GET /env HTTP/1.0\r\nFoo: bar\r\nFoo: baz\r\nCookie: a=1\r\nCookie: b=2\r\nFooBar: x\r\n\r\n"
    ).decode("latin-1")
    for line in ("HTTP_FOO=bar, baz\n", "HTTP_COOKIE=a=1; b=2\n", "SERVER_PROTOCOL=HTTP/1.0\n", "HTTP_FOOBAR=x\n"):
        assert line in joined
    assert "SERVER_NAME=\n" not in joined


@pytest.mark.parametrize(
    ("target", "info"),
    [("//env//x", "//env//x"), ("/env//%2Fx?a//b", "/env///x"), ("/env/x?a//b", "/env/x"), ("/a/..//env", "/env"),
     ("/mount/point//env", "//env"), ("//mount/point/env", "/env")],
)  # fmt: skip
def test_slashes(app: Server, target: str, info: str) -> None:
    answer = app.raw(f"GET {target} HTTP/1.0\r\n\r\n".encode()).decode("latin-1")
    if info.startswith("//"):
        assert answer.endswith("no such clause: ")
    else:
        assert f"\nPATH_INFO={info}\n" in answer


def test_what_one_request_changes_no_other_sees(app: Server) -> None:
    before = table(app.get("/env"))
    for _ in range(3):
        assert app.get("/changes").status == 200
    after = table(app.get("/env"))
    different = {"REMOTE_PORT", "webserver.request_id", "webserver.deadline"}
    assert {k: v for k, v in after.items() if k not in different} == {
        k: v for k, v in before.items() if k not in different
    }


def test_process(app: Server) -> None:
    seen = table(app.get("/process"))
    path = str(app.directory / "work/clauses.psgi")
    assert (seen["file"], seen["zero"], seen["argv"]) == (path, path, "first --second")
    assert seen["package"].startswith("Plack::Sandbox::_2f")
    assert seen["package"].endswith("_2fwork_2fclauses_2epsgi")
    assert (seen["colour"], seen["plack"], seen["lent"]) == ("green", "deployment", "found")
    assert (seen["inc"], seen["cwd"]) == (str(app.directory / "work/lib"), str(app.directory / "work"))
    assert [int(seen["pid"])] == app.pids("worker")
    assert [int(seen["parent"])] == app.pids("manager")
    assert seen["phase"] == "RUN"
    assert app.logged("a line on standard output")
    # The title is the server's, whatever an application makes of $0.
    title = Path(f"/proc/{seen['pid']}/cmdline").read_text().rstrip("\0")
    assert title == "webserver: worker app 0"


def read(server: Server, words: str, body: bytes | None, **fields: str) -> list[str]:
    answer = server.request("POST", f"/read?{words}", body, fields)
    assert answer.status == 200
    return answer.body.decode("latin-1").split("|")[:-1]


LINES = b"one\ntwo\nthree"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("read:3,read:100,read:5", ["3=one", "10=\ntwo\nthree", "0="]),
        ("read:0,read:4:0", ["0=", "4=one\n"]),
        ("offset:3", ["3=begun:one"]),
        ("read:3:5", ["3=\0\0\0\0\0one"]),
        ("builtin:5,builtin:100", ["5=one\nt", "8=wo\nthree"]),
        ("readline,getline,readline,getline", ["one\n", "two\n", "three", "undef"]),
        ("lines,eof", ["one\n+two\n+three", "eof"]),
        ("getc,getc,ungetc:X,getc,read:2", ["o", "n", "ok", "X", "2=e\n"]),
        ("eof,read:13,eof,read:1", ["more", "13=one\ntwo\nthree", "eof", "0="]),
        ("read:5,seek:0:0,read:3,tell", ["5=one\nt", "ok", "3=one", "3"]),
        ("seek:4:0,readline,seek:-4:1,readline,seek:-5:2,slurp", ["ok", "two\n", "ok", "two\n", "ok", "three"]),
        ("seek:13:0,read:1,seek:14:0,seek:-1:0", ["ok", "0=", "no", "no"]),
        ("slurp,read:5,seek:0:0,slurp", ["one\ntwo\nthree", "0=", "ok", "one\ntwo\nthree"]),
        ("fileno,length", ["-1", "13"]),
        ("close,closed", ["ok", "undef"]),
    ],
)
def test_input(app: Server, words: str, expected: list[str]) -> None:
    assert read(app, words, LINES) == expected
    # And so on the handle that is used again.
    assert read(app, words, LINES) == expected


def test_input_is_bytes_again_after_a_layer(app: Server) -> None:
    assert read(app, "binmode:utf8,read:1", "\u20acx".encode()) == ["ok", "1=\xe2\x82\xac"]
    assert read(app, "read:1", "\u20acx".encode()) == ["1=\xe2"]


def test_input_of_a_request_that_is_over(app: Server) -> None:
    assert read(app, "keep", b"first body") == []
    assert read(app, "kept,read:100", b"second body") == ["undef", "11=second body"]


def test_no_body(app: Server) -> None:
    assert app.get("/read?eof,read:5,readline,length,seek:0:0").body == b"eof|0=|undef|undef|ok|"


@pytest.mark.parametrize("size", [1, 16384, 65536, 65537, 1_000_003, 9_000_000])
@pytest.mark.parametrize("block", ["", "1000", "300000"])
def test_large_bodies(app: Server, size: int, block: str) -> None:
    body = bytes(range(251)) * (size // 251 + 1)
    answer = app.request("POST", f"/count?{block}", body[:size])
    buffered = int(size <= 65536)
    assert answer.text == f"{size} {sum(body[:size])} {buffered}"


def test_a_large_body_is_no_file(app: Server) -> None:
    body = b"0123456789\n" * 20_000
    assert read(app, "read:5,seek:0:0,tell,readline,read:70000,seek:0:0,seek:3:1,tell", body)[:4] == [
        "5=01234", "ok", "0", "0123456789\n",
    ]  # fmt: skip
    assert read(app, "read:70000,seek:0:0", body)[1:] == ["no"]


def chunked(server: Server, target: str, pieces: list[bytes]) -> str:
    with server.connect() as sock:
        sock.sendall(
            f"POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
        )
        for piece in [*pieces, b""]:
            sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        return read_all(sock).partition(b"\r\n\r\n")[2].decode("latin-1")


def test_chunked_body_gets_a_length_when_it_is_looked_at(app: Server) -> None:
    pieces = [b"one\n", b"two\n", b"three"]
    assert "|0=|" in chunked(app, "/read?read:100,read:1", pieces)
    assert chunked(app, "/read?length,read:100,length", pieces).endswith("13|13=one\ntwo\nthree|13|\r\n0\r\n\r\n") or (
        "13|13=one\ntwo\nthree|13|" in chunked(app, "/read?length,read:100,length", pieces)
    )
    assert "4=one\n|13|9=two\nthree|no|ok|" in chunked(app, "/read?read:4,length,read:99,seek:-1:0,seek:4:0", pieces)
    assert "13|ok|three|ok|one\n|" in chunked(app, "/read?length,seek:-5:2,slurp,seek:0:0,readline", pieces)
    assert "99|13=" in chunked(app, "/read?setlength:99,length,read:99", pieces)
    assert chunked(app, "/count", [b"x" * 50_000] * 40).startswith("2000000 240000000 0")
    body = chunked(app, "/read?length,seek:1999990:0,slurp,eof", [b"0123456789" * 20_000] * 10)
    assert "2000000|ok|0123456789|eof|" in body


def test_chunked_body_of_a_route_that_gathers(server: Server) -> None:
    prepare(server, site="gather = /").start()
    assert "13|ok|13=one\ntwo\nthree|ok|3=one|" in chunked(
        server, "/read?length,seek:0:0,read:100,seek:0:0,read:3", [b"one\n", b"two\nthree"]
    )


def test_nothing_is_asked_for_before_the_first_read(app: Server) -> None:
    """The client waits for 100: it comes with the first read, and never if the application answers first."""
    head = "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    with app.connect() as sock:
        sock.sendall(head.format("/env").encode())
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 200")
    with app.connect() as sock:
        sock.sendall(head.format("/read?read:9").encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 100")
        sock.sendall(b"hello")
        assert read_all(sock).endswith(b"5=hello|")


def test_a_client_that_goes_in_the_middle_of_its_body(app: Server) -> None:
    path = app.directory / "work/gone"
    with app.connect() as sock:
        sock.sendall(b"POST /gone HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100_000)
        wait_until(path.exists, "it is not run")
    wait_until(lambda: path.read_text().count("\n") == 2, "the application was not told")
    assert path.read_text() == "begun\nerror reset\n"
    assert app.get("/hello").body == b"hello, world"


def test_errors_go_to_the_log_with_the_request_s_id(app: Server) -> None:
    assert app.get("/errors?token1").text == "true"
    wait_until(lambda: "and no end token1" in app.log(), "the last line is not in the log")
    log = app.log()
    said = [line for line in log.splitlines() if "token1" in line]
    for text in (
        "printed token1", "formatted token1 5", "a line in pieces token1", "said token1", "two lines token1,",
        "the second one token1", "and no end token1", "warned token1", "on fd two token1",
    ):  # fmt: skip
        assert len([line for line in said if text in line]) == 1, (text, log)
    ids = {found[0] for line in said if (found := re.search(r"[0-9a-f]{16}", line))}
    assert len(ids) == 1


def test_logger(app: Server) -> None:
    app.allow("logged error", "logged fatal")
    assert "level is one of" in app.get("/logger?token2").text
    levels = {"debug": "notice", "info": "notice", "warn": "warning", "error": "error", "fatal": "error"}
    for word, level in levels.items():
        line = rf"\[{level}\].*logged {word} token2"
        wait_until(lambda line=line: re.search(line, app.log()), f"not in the log: {line}")


def test_standard_error_that_the_application_has_sent_elsewhere(app: Server) -> None:
    assert app.get("/redirected?token3").text == "into a file\nfrom a program\n"
    wait_until(lambda: re.search(r"[0-9a-f]{16}.*back in the log token3", app.log()), "the log does not have it")
    assert "into a file" not in app.log()
