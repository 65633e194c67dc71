"""Upgrade: a request that is answered with 101 becomes a tunnel, seen from both of its ends."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import KEPT_KB, SLOWNESS, Server, directory, read_all, wait_until
from tunnels import Tunnel, read_head, tunnels, upgrade, write

CLIENT = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(b"GET /echo/upgrade HTTP/1.1\\r\\nHost: a\\r\\nConnection: upgrade\\r\\nUpgrade: chat\\r\\n\\r\\nhello")
data = b""
while not data.endswith(b"hello"):
    data += sock.recv(1000)
print("there", flush=True)
sys.stdin.read()
"""


def resident_kb(pid: int) -> int:
    return int(re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])  # type: ignore[index]


def idle(server: Server) -> bool:
    return tunnels(server) == 0 and all(group["busy"] == 0 for group in server.status()["groups"])


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    """One server for all that changes nothing of it."""
    with directory() as path:
        one = Server(path)
        write(one, "frontends = 1")
        one.start()
        yield one
        one.stop()


def test_upgrade(shared: Server) -> None:
    with Tunnel(shared, "/echo/upgrade", protocol="Chat/2") as tunnel:
        assert tunnel.head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        lines = tunnel.head.split(b"\r\n")[1:]
        assert [line for line in lines if line.startswith((b"Connection", b"Upgrade"))] == [
            b"Upgrade: Chat/2",
            b"Connection: Upgrade",
        ]
        assert not re.search(rb"Content-Length|Transfer-Encoding|Keep-Alive", tunnel.head, re.I)
        for size in (1, 5, 3000, 70000):
            data = random.Random(size).randbytes(size)
            tunnel.say(data)
            assert tunnel.hear(size) == data
        wait_until(lambda: tunnels(shared) == 1, "it is not counted")
        assert "tunnel" in shared.ctl("status", "--json").stdout
        tunnel.end()
        assert tunnel.rest() == b""
    wait_until(lambda: idle(shared), "its slot is not free")
    # One line, when it is over, with what came back.
    wait_until(lambda: "/echo/upgrade" in shared.access_log.read_text(), "it is not in the access log")
    assert re.search(r'"GET /echo/upgrade HTTP/1\.1" 101 73006 ', shared.access_log.read_text())


def test_what_the_client_says_at_once_is_not_lost(shared: Server) -> None:
    """It should wait for the 101, and need not: bytes behind the head are the tunnel's, and no next request."""
    early = b"GET /echo/x HTTP/1.1\r\n\r\n" * 2000
    with Tunnel(shared, "/echo/upgrade", early=early) as tunnel:
        assert tunnel.hear(len(early)) == early


def test_byte_by_byte(shared: Server) -> None:
    with shared.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in upgrade("/echo/upgrade"):
            sock.sendall(bytes([byte]))
        head, rest = read_head(sock)
        assert head.startswith(b"HTTP/1.1 101 ")
        got = rest
        for number in range(200):
            sock.sendall(bytes([number]))
            while len(got) <= number:
                got += sock.recv(100)
        assert got == bytes(range(200))


@pytest.mark.parametrize("path", ["/echo/upgrade", "/hand/inline", "/hand/thread"])
def test_the_client_ends_first(shared: Server, path: str) -> None:
    """What it said before is answered in full."""
    data = random.Random(1).randbytes(300_000)
    with Tunnel(shared, path) as tunnel:
        assert tunnel.status == 101
        sender = threading.Thread(target=lambda: (tunnel.say(data), tunnel.end()))
        sender.start()
        assert tunnel.rest() == data
        sender.join()
    wait_until(lambda: idle(shared), "its slot is not free")


def test_the_application_ends_first(shared: Server) -> None:
    """The client sees the end, and what it says after that still comes through."""
    with Tunnel(shared, "/hand/shut") as tunnel:
        assert tunnel.rest() == b"bye"
        for _ in range(20):
            tunnel.say(b"y" * 50_000)
        tunnel.end()
    wait_until(lambda: "counted 1000000" in shared.log(), f"it did not get all:\n{shared.log()}")
    wait_until(lambda: idle(shared), "its slot is not free")


@pytest.mark.parametrize("path", ["/echo/upgrade", "/hand/thread"])
def test_a_megabyte_each_way_at_once(shared: Server, path: str) -> None:
    found: list[bool] = []

    def talk(seed: int) -> None:
        data = random.Random(seed).randbytes(1 << 20)
        with Tunnel(shared, path) as tunnel:
            sender = threading.Thread(target=lambda: tunnel.say(data))
            sender.start()
            found.append(tunnel.hear(len(data)) == data)
            sender.join()

    threads = [threading.Thread(target=talk, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 3
    wait_until(lambda: idle(shared), "their slots are not free")


def test_who_reads_slowly_makes_nobody_s_memory_grow(shared: Server) -> None:
    """A client that takes nothing, of an application that never stops, and of one that sends back what it gets."""
    pids = [*shared.pids("front end"), *shared.pids("worker", "echo"), *shared.pids("worker", "hand")]
    before = {pid: resident_kb(pid) for pid in pids}
    with Tunnel(shared, "/hand/flood") as flood, Tunnel(shared, "/echo/upgrade") as echo:
        echo.sock.setblocking(False)
        sent, quiet = 0, 0
        while quiet < 20:
            try:
                sent += echo.sock.send(b"z" * 65536)
                quiet = 0
            except BlockingIOError:
                quiet += 1
                time.sleep(0.02)
        assert sent < 40 << 20
        wait_until(lambda: tunnels(shared) == 2, "they are not counted")
        for pid in pids:
            assert resident_kb(pid) - before[pid] < 8192 + KEPT_KB, pid
        # And nothing of it is lost.
        echo.sock.setblocking(True)
        assert echo.hear(sent) == b"z" * sent
        assert flood.hear(1 << 20) == b"x" * (1 << 20)
    wait_until(lambda: "the flood is over" in shared.log(), "the application does not hear that its client is gone")
    wait_until(lambda: idle(shared), "their slots are not free")


def test_kill_of_a_client(shared: Server) -> None:
    for _ in range(10):
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(shared.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert client.stdout is not None
        assert client.stdout.readline() == b"there\n"
        client.kill()
        client.communicate()
    wait_until(lambda: idle(shared), "a slot is not free")
    assert shared.get("/echo/x").body == b"hello, world"


def test_reset_by_a_client(shared: Server) -> None:
    for path in ("/echo/upgrade", "/hand/inline", "/hand/thread", "/hand/flood"):
        with Tunnel(shared, path) as tunnel:
            tunnel.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: idle(shared), "a slot is not free")


@pytest.mark.parametrize("group", ["echo", "hand"])
def test_kill_of_a_worker(server: Server, group: str) -> None:
    """The client can tell it from an orderly end; the next one is served."""
    server.allow("502: ", f"worker . of group {group}")
    write(server)
    server.start()
    path = {"echo": "/echo/upgrade", "hand": "/hand/thread"}[group]
    with Tunnel(server, path) as tunnel:
        tunnel.say(b"x")
        assert tunnel.hear(1) == b"x"
        (worker,) = [one for one in server.status()["processes"] if one.get("tunnels")]
        os.kill(worker["pid"], signal.SIGKILL)
        with pytest.raises(ConnectionResetError):
            tunnel.rest()
    wait_until(lambda: "it was running this request" in server.log(), server.log())
    with Tunnel(server, path) as tunnel:
        assert tunnel.status == 101


def test_kill_of_a_front_end(server: Server) -> None:
    """The worker does not keep what nobody listens to any more."""
    server.allow("front end")
    write(server)
    server.start()
    with Tunnel(server, "/echo/upgrade") as one, Tunnel(server, "/hand/thread") as two:
        for pid in server.pids("front end"):
            os.kill(pid, signal.SIGKILL)
        for tunnel in (one, two):
            with pytest.raises((ConnectionResetError, AssertionError)):
                tunnel.hear(1)
    wait_until(lambda: idle(server), "their slots are not free")


def test_restart_and_reload_under_open_tunnels(server: Server) -> None:
    """A reload that changes nothing leaves them alone. A restart serves new ones at once, and ends old ones in time."""
    write(server, "tunnel_grace = 1s")
    server.start()
    with Tunnel(server, "/echo/upgrade") as old, Tunnel(server, "/hand/thread") as other:
        server.ctl("reload")
        old.say(b"still")
        assert old.hear(5) == b"still"
        begin = time.monotonic()
        server.ctl("restart", "echo")
        assert time.monotonic() - begin < 10 * SLOWNESS
        # It heard the end of its client, and ended in order.
        assert old.rest() == b""
        other.say(b"here")
        assert other.hear(4) == b"here"
    with Tunnel(server, "/echo/upgrade") as new:
        new.say(b"new")
        assert new.hear(3) == b"new"
    assert len(server.pids("worker", "echo")) == 2


def test_an_application_that_does_not_end_is_cut_off(server: Server) -> None:
    write(server, "tunnel_grace = 0.2s\nfrontends = 1")
    server.start()
    with Tunnel(server, "/hand/flood") as tunnel:
        server.ctl("restart", "hand")
        with pytest.raises(ConnectionResetError):
            tunnel.rest()
    wait_until(lambda: "the tunnel did not end within tunnel_grace" in server.log(), "the log says nothing")


def test_the_end_of_the_server(server: Server) -> None:
    write(server, "tunnel_grace = 0.3s")
    server.start()
    with Tunnel(server, "/echo/upgrade") as one, Tunnel(server, "/hand/inline") as two, ThreadPoolExecutor() as pool:
        stopped = pool.submit(server.stop)
        for tunnel in (one, two):
            assert tunnel.rest() == b""
            tunnel.close()
        stopped.result()


def test_tunnel_grace(server: Server) -> None:
    """Without one a restart waits for its tunnels."""
    write(server, "tunnel_grace = none")
    server.start()
    with Tunnel(server, "/echo/upgrade") as tunnel:
        waiting = threading.Thread(target=lambda: server.ctl("restart", "echo"))
        waiting.start()
        wait_until(lambda: len(server.pids("manager", "echo")) == 2, "no new generation comes")
        waiting.join(6)  # what it would have by default, and more
        assert waiting.is_alive()
        tunnel.say(b"still")
        assert tunnel.hear(5) == b"still"
    waiting.join(20 * SLOWNESS)
    assert not waiting.is_alive()


def test_tunnel_timeout(server: Server) -> None:
    write(server, "tunnel_timeout = 1s")
    server.start()
    with Tunnel(server, "/echo/upgrade") as tunnel:
        for _ in range(4):
            time.sleep(0.5)
            tunnel.say(b"x")
            assert tunnel.hear(1) == b"x"
        with pytest.raises(ConnectionResetError):
            tunnel.rest()
    wait_until(lambda: "nothing came through the tunnel for tunnel_timeout" in server.log(), "the log says nothing")
    wait_until(lambda: idle(server), "its slot is not free")


def test_a_tunnel_outlives_the_time_limits_of_requests(server: Server) -> None:
    """request_timeout, in the front end and in the supervisor's eyes, body_timeout and idle_timeout."""
    limits = "body_timeout = 0.5s\nidle_timeout = 0.5s\nhead_timeout = 0.5s"
    write(server, limits, "request_timeout = 0.5s")
    server.start()
    workers = server.pids("worker", "echo")
    with Tunnel(server, "/echo/upgrade") as tunnel:
        time.sleep(4.5)  # the supervisor looks every two seconds, and gives one second more
        tunnel.say(b"still")
        assert tunnel.hear(5) == b"still"
    assert server.pids("worker", "echo") == workers


def test_a_request_that_hangs_beside_a_tunnel(server: Server) -> None:
    """Its worker is replaced, and the tunnel is cut with it."""
    server.allow("502: ", "504: ", "request_timeout", "worker 0 of group hand")
    write(server, "frontends = 1", hand="request_timeout = 0.5s")
    server.start()
    (worker,) = server.pids("worker", "hand")
    with Tunnel(server, "/hand/thread") as tunnel:
        assert server.get("/hand/hang").status == 504
        tunnel.say(b"still")
        assert tunnel.hear(5) == b"still"
        with pytest.raises(ConnectionResetError):
            tunnel.rest()
    wait_until(lambda: worker not in (pids := server.pids("worker", "hand")) and pids, "it is not replaced")
    with Tunnel(server, "/hand/thread") as tunnel:
        assert tunnel.status == 101


def test_nothing_waits_behind_a_tunnel(shared: Server) -> None:
    """Its slot is taken: other requests go to the others, at once."""
    held = [Tunnel(shared, "/echo/upgrade") for _ in range(3)]
    for _ in range(300):
        assert shared.get("/echo/x").body == b"hello, world"
    begin = time.monotonic()
    for _ in range(20):
        assert shared.get("/echo/x").status == 200
    assert time.monotonic() - begin < 5 * SLOWNESS
    for tunnel in held:
        tunnel.say(b"x")
        assert tunnel.hear(1) == b"x"
        tunnel.close()


def test_what_is_no_upgrade(shared: Server) -> None:
    """An ordinary answer, and the connection goes on."""
    ordinary = [
        (upgrade("/echo/status/404"), 404),
        (upgrade("/index.html"), 200),
        (upgrade("/echo/upgrade", protocol="h2c"), 426),
        (upgrade("/echo/upgrade", protocol="chat, other"), 426),  # the plugin says yes to one only
        (upgrade("/echo/upgrade", "Content-Length: 3", method="POST") + b"abc", 426),
        (upgrade("/echo/upgrade", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n0\r\n\r\n", 426),
        (b"GET /echo/upgrade HTTP/1.1\r\nHost: a\r\nUpgrade: chat\r\n\r\n", 426),
        (b"GET /echo/upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n", 426),
    ]
    with shared.connect() as sock:
        for request, status in ordinary:
            sock.sendall(request)
            head, rest = read_head(sock)
            assert int(head.split()[1]) == status, request
            length = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index]
            while len(rest) < length:
                rest += sock.recv(1000)
        # What came behind it is the next request.
        sock.sendall(upgrade("/echo/x") + b"GET /echo/y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert read_all(sock).count(b"hello, world") == 2
    assert shared.raw(upgrade("/echo/upgrade", version="1.0")).startswith(b"HTTP/1.1 426 ")
    assert shared.raw(upgrade("/echo/upgrade", "Connection: close", method="HEAD")).startswith(b"HTTP/1.1 426 ")


def test_variables(shared: Server) -> None:
    """An application that looks itself finds what CGI has."""
    variables = shared.raw(upgrade("/echo/variables", "Connection: close", protocol="chat, other"))
    assert b"\nHTTP_UPGRADE: chat, other\n" in variables
    assert b"HTTP_CONNECTION: Upgrade, close\n" in variables


def test_what_a_plugin_may_not_say(shared: Server) -> None:
    answer = shared.raw(upgrade("/hand/wrong", "Connection: close", "TE: trailers"))
    assert b"refused" in answer
    assert answer.endswith(b"\r\n0\r\nX-Fine: yes\r\n\r\n")
