"""PEP 3333 clause by clause through the real server: an application of many small ones, spoken to over HTTP."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess

import pytest
from serving import TREE, Server, interpreter, read_all, wait_until

CONFIG = """
[groups]
[[app]]
language = python
application = work/app.wsgi
processes = {processes}
threads = {threads}
arguments = first, --second
umask = 027
python_path = work/lib
[[[environment]]]
COLOUR = green
[sites]
[[all]]
hosts = *
root = public
[[[routes]]]
/ = group:app
/mount/point = group:app
"""


def prepare(server: Server, processes: int = 1, threads: int = 1) -> Server:
    server.write(CONFIG.format(processes=processes, threads=threads))
    server.file("work/app.wsgi", (TREE / "tests/wsgi_application.py").read_text())
    server.file("work/lib/lent.py", "word = 'found'\n")
    content = bytes(range(250)) * 40
    server.file("work/data", content)
    server.file("work/data.gz", gzip.compress(content))
    # The application writes here; root reads nothing here.
    (server.directory / "work").chmod(0o777)
    server.start()
    return server


@pytest.fixture
def app(server: Server) -> Server:
    return prepare(server)


@pytest.fixture(params=[(1, 1), (2, 4)], ids=["1x1", "2x4"])
def each(server: Server, request: pytest.FixtureRequest) -> Server:
    return prepare(server, *request.param)


def seen_environ(server: Server, target: str, **fields: str) -> dict[str, object]:
    found: dict[str, object] = eval(server.get(target, **fields).body.decode("latin-1"))
    return found


def test_environ(each: Server) -> None:
    threads = each.status()["processes"]
    multi = sum(one["kind"] == "worker" for one in threads) > 1
    seen = seen_environ(each, "/valid-environ_of/caf%C3%A9%2Fx?q=%20&r", X_Word="t")
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/valid-environ_of/caf\xc3\xa9/x",
        "QUERY_STRING": "q=%20&r",
        "REQUEST_URI": "/valid-environ_of/caf%C3%A9%2Fx?q=%20&r",
        "SERVER_PORT": str(each.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_X_WORD": "t",
        "HTTP_HOST": f"127.0.0.1:{each.port}",
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
        "wsgi.multithread": multi,
        "wsgi.multiprocess": multi,
        "wsgi.run_once": False,
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert int(str(seen["REMOTE_PORT"])) > 0
    assert "HTTPS" not in seen
    assert not {"HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "CONTENT_LENGTH"} & set(seen)
    mounted = seen_environ(each, "/mount/point/environ_of")
    assert (mounted["SCRIPT_NAME"], mounted["PATH_INFO"]) == ("/mount/point", "/environ_of")


def test_body_in_every_way_of_reading(app: Server) -> None:
    body = b"one\ntwo\n\nfour and no end"
    asked = {
        "read": [body],
        "read:3,read:0,read:-1,read,read:5": [body[:3], b"", body[3:], b"", b""],
        "readline,readline:2,readline:0,readline:-1,read": [b"one\n", b"tw", b"", b"o\n", b"\nfour and no end"],
        "readline:100,readlines": [b"one\n", [b"two\n", b"\n", b"four and no end"]],
        "readlines:1,readlines:5,iter": [[b"one\n"], [b"two\n", b"\n"], [b"four and no end"]],
        "iter,readline,readlines,read": [[b"one\n", b"two\n", b"\n", b"four and no end"], b"", [], b""],
        "read:1,iter": [b"o", [b"ne\n", b"two\n", b"\n", b"four and no end"]],
    }
    for query, expected in asked.items():
        target = f"/read?{query}"
        assert eval(app.request("POST", target, body).body) == expected, query
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:2], body[2:9], body[9:]))
        raw = b"POST %s HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n%s0\r\n\r\n" % (
            target.encode(),
            chunks,
        )
        answer = app.raw(raw)
        assert repr(expected).encode() in answer, (query, answer)
    assert eval(app.get("/read?read,readline,readlines,iter,read:10").body) == [b"", b"", [], [], b""]
    # wsgiref's own rules: sizes must be given to read(), never to readlines().
    for target in ("/valid-read?read:100", "/valid-read?readline", "/valid-read?iter"):
        assert app.request("POST", target, body).status == 200, app.log()


def test_lines_that_end_anywhere_in_a_block(app: Server) -> None:
    """Where a block of the body ends, one byte of a line may be all that is there of it."""
    for size in range(8188, 8196):
        body = b"x" * (size - 1) + b"\n" + b"y" * 9000 + b"\n"
        answer = app.request("POST", "/read?readline,readline,readline", body)
        assert answer.status == 200, size
        assert eval(answer.body) == [body[:size], body[size:], b""], size


def test_large_bodies(app: Server) -> None:
    content = os.urandom(5_000_001)
    assert app.request("POST", "/count", content).body == b"5000001"
    assert app.request("POST", "/whole", content).body == b"5000001 %d" % sum(content[::4096])
    with app.connect() as sock:
        sock.sendall(b"PUT /whole HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        for at in range(0, len(content), 100_000):
            part = content[at : at + 100_000]
            sock.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        sock.sendall(b"0\r\n\r\n")
        assert read_all(sock).endswith(b"5000001 %d" % sum(content[::4096]))


def test_a_body_that_ends_too_soon_is_no_mistake_of_the_application(app: Server) -> None:
    with app.connect() as sock:
        # More than is gathered before a worker is taken, so that the application is in its read().
        sock.sendall(b"POST /whole HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 3_000_000)
        wait_until(lambda: any_reading(app), "no worker reads the body")
    wait_until(lambda: "the client went away" in app.log(), "nothing says why the request ended")
    assert app.request("POST", "/whole", b"after").status == 200
    assert "Traceback" not in app.log()


def any_reading(app: Server) -> bool:
    """The worker's main thread waits in the host, in the middle of a request: a profiler's view of it."""
    (worker,) = app.pids("worker", "app")
    text = subprocess.run(
        ["gdb", "-p", str(worker), "-batch", "-nx", "-ex", "set debuginfod enabled off", "-ex", "bt"],
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    return "body_read" in text


def test_answers(app: Server) -> None:
    app.allow("Error", "Traceback", "error: ")
    answer = app.get("/changed_mind")
    assert (answer.status, answer.body, answer.field("X-First")) == (404, b"second thoughts", None)
    assert app.get("/valid-Application").body == b"a class is an application"
    assert app.get("/Application").body == b"a class is an application"
    answer = app.get("/sizes")
    assert (answer.body, answer.field("Content-Length")) == (b"onetwo", "6")
    head = app.request("HEAD", "/sizes")
    assert (head.body, head.field("Content-Length")) == (b"", "6")
    answer = app.get("/latin/caf%C3%A9", X_Latin="caf\xe9")
    assert answer.body == b"caf\xe9|/latin/caf\xc3\xa9"
    assert answer.field("X-Latin") == "caf\xe9"
    assert [value for name, value in answer.fields if name == "Set-Cookie"] == ["a=1", "b=2"]


def test_what_breaks_a_rule_is_500_and_named(app: Server) -> None:
    app.allow("Error", "Traceback", "error: ", r"\[error\]", "Exit", "Interrupt")
    told = {
        "text": "must be bytes, not str",
        "nothing": "'NoneType' object is not iterable",
        "number_value": "a header's value must be str, not int",
        "euro": "beyond latin-1",
        "newline": "a control character",
        "bad_name": "not a valid answer",
        "bad_reason": "not a valid answer",
        "bad_status": "the status must be like '200 OK'",
        "transfer": "belongs to the connection",
        "not_bytes": "must be bytes, not str",
        "interrupts": "KeyboardInterrupt",
        "no_such_application": "KeyError: 'no_such_application'",
    }
    for name, text in told.items():
        answer = app.get(f"/{name}")
        assert (answer.status, answer.field("Set-Cookie"), b"Traceback" in answer.body) == (500, None, False), name
        wait_until(lambda text=text: text in app.log(), f"{name}: the log does not say {text!r}")
    pids = app.pids("worker", "app")
    # The answer had begun: it must not look complete.
    for name in ("late_error", "odd_error", "broken", "exits_late", "short"):
        answer = app.raw(b"GET /%s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % name.encode())
        assert not answer.endswith(b"0\r\n\r\n"), name
        assert b"500" not in answer.split(b"\r\n")[0], name
    for text in ("too late for a page", "sys.exc_info()", "in the middle of it", "SystemExit: 7", "of the 40 bytes"):
        wait_until(lambda text=text: text in app.log(), f"the log does not say {text!r}")
    assert app.pids("worker", "app") == pids


def test_close_is_always_called(app: Server) -> None:
    app.allow("Error", "Traceback", r"\[error\]")
    closed = app.directory / "work/closed"

    def was_closed(name: str) -> None:
        wait_until(lambda: closed.exists() and name in closed.read_text().split(), f"{name} was not closed")

    with app.connect() as sock:
        sock.sendall(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
        assert sock.recv(1000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    was_closed("endless")
    for name in ("broken", "not_bytes", "short", "surplus"):
        app.raw(b"GET /%s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % name.encode())
        was_closed(name)
    with app.connect() as sock:
        sock.sendall(b"GET /exact HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert read_all(sock).endswith(b"\r\n\r\nfourfives")
    wait_until((app.directory / "work/waiting").exists, "the application did not go on")
    assert "exact" not in closed.read_text().split()
    (app.directory / "work/go").touch()
    was_closed("exact")
    answer = app.raw(b"GET /surplus HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nfour")
    wait_until(lambda: "longer than its Content-Length" in app.log(), "nothing says that it was cut")


def test_files(app: Server) -> None:
    content = (app.directory / "work/data").read_bytes()
    assert app.get("/whole_file").body == content
    assert app.get("/valid-whole_file").body == content
    answer = app.get("/part_of_file")
    assert (answer.status, answer.body, answer.field("Content-Length")) == (206, content[100:150], "50")
    assert app.get("/packed_file").body == content
    assert app.get("/temporary_file").body == b"temporary" * 999
    assert app.get("/pipe_file").body == b"from a pipe\n"
    assert app.request("HEAD", "/whole_file").body == b""


def test_threads_of_the_application(each: Server) -> None:
    for _ in range(5):
        assert each.request("POST", "/in_thread", b"hello, world").body == b"hello" * 20 + b"."
    with each.connect() as sock:
        sock.sendall(b"POST /at_once HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        data = sock.recv(10_000)
        sock.sendall(b"line\n")
        while b"line\n" not in data:
            data += sock.recv(10_000)
        assert data.count(b"x") >= 5000


def test_signals(each: Server) -> None:
    """What the application starts has nobody's mask; its own handlers stay; TERM is the server's."""
    for _ in range(8):
        assert each.get("/child").body == b"[True, True, True]"
    pids = each.pids("worker", "app")
    if len(pids) == 1:
        assert each.get("/own_signals").body == b"['HUP', 'USR2']"
    for pid in pids:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGPIPE):
            os.kill(pid, number)
    assert each.get("/sizes").body == b"onetwo"
    assert each.pids("worker", "app") == pids
    os.kill(pids[0], signal.SIGTERM)
    wait_until(lambda: pids[0] not in each.pids("worker", "app"), "TERM did not retire the worker")
    assert each.get("/sizes").body == b"onetwo"


def test_the_process_is_the_group_s(app: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = json.loads(app.get("/process").body)
    file = str(app.directory / "work/app.wsgi")
    assert seen["argv"] == [file, "first", "--second"]
    assert seen["cwd"] == str(app.directory / "work")
    assert (seen["file"], seen["mode"], seen["lent"]) == (file, "0o640", "found")
    assert seen["environment"] == {
        "COLOUR": "green",
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    assert seen["path"] == [str(app.directory / "work/lib"), str(app.directory / "work")]
    # Pickles name it: the same in every process.
    assert seen["name"] == json.loads(app.get("/process").body)["name"]
    wait_until(lambda: "a line on standard output" in app.log(), "what the application printed is not in the log")


def test_virtual_environment(server: Server) -> None:
    """interpreter = VENV/bin/python: its packages are there, and sys.prefix is its own."""
    venv = server.directory / "venv"
    subprocess.run([interpreter(), "-m", "venv", "--without-pip", venv], check=True)
    (packages,) = venv.glob("lib/python3*/site-packages")
    (packages / "only_here.py").write_text("word = 'from the environment'\n")
    server.file(
        "app.wsgi",
        "import sys, only_here\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [(only_here.word + ' ' + sys.prefix).encode()]\n",
    )
    server.write(
        "[groups]\n[[app]]\nlanguage = python\napplication = app.wsgi\n"
        f"interpreter = {venv}/bin/python\n[sites]\n[[all]]\nhosts = *\n[[[routes]]]\n/ = group:app\n"
    )
    server.start()
    assert server.get("/").text == f"from the environment {venv}"
