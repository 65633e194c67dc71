"""A group's queue from outside: each site has its turn, and who is served where more comes in than can be done."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack

from serving import Server, wait_until

APPLICATION = """
import time

def application(environ, start_response):
    with open("order", "a") as order:
        order.write(environ["QUERY_STRING"] + "\\n")
    time.sleep(0.1)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    return [b"done"]
"""
CONFIG = """
[groups]
[[work]]
language = python
application = work/app.wsgi
processes = 1
{options}
[sites]
[[many]]
hosts = many.example.org
[[[routes]]]
/ = group:work
[[few]]
hosts = few.example.org
[[[routes]]]
/ = group:work
"""


def start(server: Server, options: str = "") -> None:
    server.file("work/app.wsgi", APPLICATION)
    (server.directory / "work").chmod(0o777)  # the application writes there
    server.write(CONFIG.format(options=options), "frontends = 1")
    server.start()


def ask(server: Server, opened: ExitStack, name: str, host: str = "many.example.org") -> socket.socket:
    sock = opened.enter_context(server.connect())
    sock.sendall(f"GET /?{name} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return sock


def waiting(server: Server) -> int:
    return sum(int(group["queued"]) for group in server.status()["groups"])


def order(server: Server) -> list[str]:
    path = server.directory / "work/order"
    return path.read_text().split() if path.exists() else []


def statuses(socks: list[socket.socket]) -> list[bytes]:
    return [sock.recv(65536).split(b" ", 2)[1] for sock in socks]


def test_a_site_with_very_many_requests_keeps_no_other_waiting(server: Server) -> None:
    start(server)
    with ExitStack() as opened:
        socks = [ask(server, opened, f"m{i}") for i in range(20)]
        wait_until(lambda: "m0" in order(server), "nothing runs")
        socks += [ask(server, opened, f"f{i}", "few.example.org") for i in range(2)]
        assert set(statuses(socks)) == {b"200"}
    ran = order(server)
    assert len(ran) == 22
    # Before most of those that came before them.
    assert ran.index("f1") < 15, ran
    assert [name for name in ran if name[0] == "f"] == ["f0", "f1"]


def test_status_says_how_long(server: Server) -> None:
    """How many wait, and how long the one has that has waited longest."""
    start(server)
    with ExitStack() as opened:
        socks = [ask(server, opened, f"m{i}") for i in range(25)]
        [group] = wait_until(
            lambda: [one for one in server.status()["groups"] if one["queued"] and one["waited"] > 1.0], "nobody waits"
        )
        assert group["waited"] < 10
        shown = server.ctl("status").stdout
        assert re.search(r"^GROUP .* QUEUE +WAITED ", shown, re.M)
        assert re.search(r"^work +python .* \d+ +[1-9]\d*\.\ds ", shown, re.M), shown
        assert set(statuses(socks)) == {b"200"}
    wait_until(lambda: server.status()["groups"][0]["waited"] == 0, "it goes on")


def test_in_order_where_nobody_waits_long(server: Server) -> None:
    start(server)
    with ExitStack() as opened:
        names = [f"m{i}" for i in range(5)]
        socks = []
        for i, name in enumerate(names):
            socks.append(ask(server, opened, name))
            wait_until(lambda i=i: len(order(server)) + waiting(server) > i, "it does not wait")
        assert set(statuses(socks)) == {b"200"}
    assert order(server) == names


def test_the_newest_first_once_somebody_has_waited_long(server: Server) -> None:
    start(server, "queue_timeout = 10s")
    with ExitStack() as opened:
        # Two seconds and a half of work: late, from the second second on.
        socks = [ask(server, opened, f"m{i}") for i in range(25)]
        wait_until(lambda: len(order(server)) >= 14, "it is not done")
        socks.append(ask(server, opened, "newest"))
        assert set(statuses(socks)) == {b"200"}
    ran = order(server)
    assert len(ran) == 26
    assert ran.index("newest") < 20, ran


def test_who_has_waited_longest_is_refused_where_the_newest_come_first(server: Server) -> None:
    server.allow("queue_length")
    start(server, "queue_timeout = 10s\nqueue_length = 20")
    with ExitStack() as opened:
        socks = [ask(server, opened, f"m{i}") for i in range(20)]
        wait_until(lambda: len(order(server)) >= 13, "it is not done")
        more = [ask(server, opened, f"n{i}") for i in range(20)]
        wait_until(lambda: "waited longest" in server.log(), "nobody was refused")
        told = statuses(socks)
        assert told.count(b"503") >= 3, told
        assert set(statuses(more)) == {b"200"}
