"""The plugin interface seen from outside: what plugins are linked to, who owns the main loop, versions."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import zmq
from serving import KEPT_KB, SANITIZED, TREE, Server, anonymous, wait_until
from webserver.engine._engine import ffi, lib

PLUGINS = ("echo", "exec", "python", "php", "lua")
ECHO = """
[groups]
[[plain]]
language = echo
processes = 1
threads = 1
[sites]
[[all]]
hosts = *
[[[routes]]]
/ = group:plain
"""


@pytest.mark.parametrize("name", PLUGINS)
def test_plugins_link_to_nothing_of_the_server(name: str) -> None:
    """S9, S10: one exported symbol of ours, no ZeroMQ, no library of the server."""
    path = TREE / f"build/lib/{name}.so"
    needed = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"NEEDED.*(zmq|webserver)", needed)
    symbols = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    # A sanitizer marks each with one more of its own.
    defined = {line.split()[2] for line in symbols.splitlines()}
    assert defined - ({"__odr_asan.langplugin"} if SANITIZED else set()) == {"langplugin"}


def test_the_main_loop_is_the_host_s(server: Server) -> None:
    """S19: an idle worker waits in the worker host, not in its language."""
    server.file(
        "app.wsgi", "def application(environ, start_response):\n    start_response('200 OK', [])\n    return []\n"
    )
    server.write(ECHO.replace("language = echo", "language = python\napplication = app.wsgi"))
    server.start()
    server.get("/")
    (worker,) = server.pids("worker", "plain")
    main = Path(f"/proc/{worker}/task/{worker}")
    wait_until(lambda: "poll" in (main / "wchan").read_text() or "S" in (main / "stat").read_text(), "it is not idle")
    result = subprocess.run(
        ["gdb", "-p", str(worker), "-batch", "-nx", "-ex", "set debuginfod enabled off", "-ex", "bt"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert re.search(r"\bslot_sleep\b", result.stdout), result.stdout + result.stderr
    assert "python.so" not in result.stdout


def test_version_of_the_channel_is_checked_at_hello(server: Server) -> None:
    """S25, S28: a peer of another version, or a stranger, is not spoken to."""
    server.allow("protocol", "version", "dropped")
    server.write(ECHO)
    server.start()
    assert server.get("/").body == b"hello, world"
    (path,) = [p for p in (server.directory / "run/ipc").rglob("f*") if p.is_socket()][:1]
    context = zmq.Context()
    stranger = context.socket(zmq.ROUTER)
    identity = ffi.new("struct wire_identity *")
    identity.role, identity.version, identity.generation, identity.worker = b"S"[0], lib.WIRE_VERSION + 1, 1, 999
    stranger.setsockopt(zmq.ROUTING_ID, bytes(ffi.buffer(identity)))
    stranger.setsockopt(zmq.CONNECT_ROUTING_ID, b"frontend")
    stranger.setsockopt(zmq.LINGER, 0)
    stranger.connect(f"ipc://{path}")
    hello = ffi.new("struct wire_hello *")
    hello.head.kind, hello.head.size = lib.WIRE_HELLO, ffi.sizeof("struct wire_hello")
    hello.magic, hello.version, hello.slots = lib.WIRE_MAGIC, lib.WIRE_VERSION + 1, 1
    stranger.send_multipart([b"frontend", bytes(ffi.buffer(hello))])
    assert not stranger.poll(500)  # no probe comes: it is not taken for a worker
    assert server.get("/").body == b"hello, world"
    stranger.close()
    context.term()


GROWTH = """
[groups]
[[echo]]
language = echo
processes = 1
[[python]]
language = python
application = app.wsgi
processes = 1
[[php]]
language = php
processes = 1
[sites]
[[all]]
hosts = *
root = public
[[[routes]]]
/echo = group:echo
/python = group:python
.php = group:php
"""
GROWTH_APPLICATION = """
def application(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Query", environ["QUERY_STRING"])])
    return iter([b"hello, ", body])
"""


def test_no_memory_is_lost_per_request(server: Server) -> None:
    """Three rounds, each request another one; a leak of 10 bytes a request would show in the long run."""
    rounds = 1000 if os.environ.get("WEBSERVER_LONG") else 40
    server.write(GROWTH)
    server.file("app.wsgi", GROWTH_APPLICATION)
    server.file("public/a.php", "<?php header('X-Query: ' . $_GET['q']); echo 'hello, ', $_POST['b'] ?? '';")
    server.start()
    for group, path in (("echo", "/echo"), ("python", "/python"), ("php", "/a.php")):
        (pid,) = server.pids("worker", group)

        def run(count: int, path: str = path) -> None:
            with server.connect() as sock, sock.makefile("rb") as answers:
                for number in range(count):
                    field = b"Content-Type: application/x-www-form-urlencoded\r\n"
                    sock.sendall(
                        b"".join(
                            b"POST %s?q=%d-%d HTTP/1.1\r\nHost: h\r\nX-Own: %d\r\n%sContent-Length: 5\r\n\r\nb=abc"
                            % (path.encode(), number, i, i, field)
                            for i in range(50)
                        )
                    )
                    for _ in range(50):
                        assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
                        size = None
                        while (line := answers.readline()) != b"\r\n":
                            if line.lower().startswith(b"content-length:"):
                                size = int(line.split()[1])
                        if size is not None:
                            answers.read(size)
                            continue
                        while (chunk := int(answers.readline(), 16)) or True:
                            answers.read(chunk + 2)
                            if not chunk:
                                break

        run(rounds)
        before = anonymous(pid)
        run(rounds * 2)
        assert anonymous(pid) - before < 500 + KEPT_KB, f"{group}: {before} KB, then {anonymous(pid)} KB"
        assert server.pids("worker", group) == [pid]


def test_what_a_large_body_took_is_given_back(server: Server) -> None:
    """A slot keeps the memory of two pieces for the next ones; one that has nothing to do keeps none."""
    server.write(ECHO)
    server.start()
    (pid,) = server.pids("worker", "plain")

    def post(size: int) -> None:
        with server.connect() as sock:
            sock.sendall(b"POST /length HTTP/1.0\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
            assert sock.makefile("rb").read().endswith(b"\r\n\r\n%d" % size)

    post(1)
    before = anonymous(pid)
    post(4_000_000)
    wait_until(lambda: anonymous(pid) - before < 200, "the memory is the worker's still")
