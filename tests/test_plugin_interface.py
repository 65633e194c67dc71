"""The plugin interface seen from outside: what plugins are linked to, who owns the main loop, versions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import zmq
from serving import TREE, Server, wait_until
from webserver.engine._engine import ffi, lib

PLUGINS = ("echo", "python", "php")
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
    assert [line.split()[2] for line in symbols.splitlines()] == ["langplugin"]


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
