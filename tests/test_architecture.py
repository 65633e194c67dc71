"""The acceptance rows that are about which process does what, seen from outside through /proc and status."""

from __future__ import annotations

import concurrent.futures
import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from serving import SANITIZED, Server, program, wait_until

WSGI = """
import json, os, sys, threading, time

def application(environ, start_response):
    if environ["PATH_INFO"].endswith("/sleep"):
        time.sleep(0.3)
    body = json.dumps({
        "pid": os.getpid(), "ppid": os.getppid(), "thread": threading.get_ident(), "environment": dict(os.environ),
        "directory": os.getcwd(), "multithread": environ["wsgi.multithread"],
        "multiprocess": environ["wsgi.multiprocess"], "argv": sys.argv, "uid": os.getuid(),
    }).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]
"""

CONFIG = """
[groups]
  [[shop]]
  language = python
  application = app.wsgi
  processes = 2
  threads = 4
    [[[environment]]]
    COLOUR = green
  [[blog]]
  language = php
  processes = 1
  [[plain]]
  language = echo
  processes = 1
  threads = 2
[sites]
  [[all]]
  hosts = *
  root = public
    [[[routes]]]
    / = files
    /shop/ = group:shop
    /plain/ = group:plain
    .php = group:blog
"""

LANGUAGES = ("libphp", "/php.so", "/python.so", "/echo.so", "libperl", "libruby")


@pytest.fixture
def all_kinds(server: Server) -> Server:
    server.file("app.wsgi", WSGI)
    server.file("public/index.html", "static")
    server.file("public/pid.php", "<?php echo getmypid();")
    server.write(CONFIG)
    return server.start()


def maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_front_ends_and_supervisor_load_no_language(all_kinds: Server) -> None:
    """S2, S24: no application code and no language where the network is."""
    accepting = [*all_kinds.pids("front end"), *all_kinds.pids("supervisor"), *all_kinds.pids("logger")]
    assert len(accepting) == 4
    all_kinds.get("/shop/")
    all_kinds.get("/pid.php")
    for pid in accepting:
        assert not [name for name in LANGUAGES if name in maps(pid)]
    ran_in = {json.loads(all_kinds.get("/shop/").body)["pid"] for _ in range(8)} | {int(all_kinds.get("/pid.php").text)}
    assert ran_in <= set(all_kinds.pids("worker"))


def test_a_worker_maps_its_own_language_only(all_kinds: Server) -> None:
    """S10, S15, S16: the plugin is opened in the group's own processes, after exec."""
    own = {"shop": "/python.so", "blog": "/php.so", "plain": "/echo.so"}
    for group, plugin in own.items():
        for pid in [*all_kinds.pids("manager", group), *all_kinds.pids("worker", group)]:
            text = maps(pid)
            assert plugin in text
            assert "libwebserver_host.so" in text
            assert not [other for other in own.values() if other != plugin and other in text]


def test_one_libzmq_in_each_process(all_kinds: Server) -> None:
    """The front end's is the very library that pyzmq loads; no other process has one."""
    look = "import zmq; print(open('/proc/self/maps').read())"
    python = Path(program("webserverd")).parent / "python"
    pyzmq = libraries(subprocess.run([python, "-I", "-c", look], capture_output=True, text=True, check=True).stdout)
    assert len(pyzmq) == 1
    processes = all_kinds.status()["processes"]
    assert {process["kind"] for process in processes} == {"supervisor", "logger", "front end", "manager", "worker"}
    for process in processes:
        assert libraries(maps(process["pid"])) == (pyzmq if process["kind"] == "front end" else set()), process["kind"]


def libraries(text: str) -> set[str]:
    return {os.path.realpath(line.split()[5]) for line in text.splitlines() if "/libzmq" in line}


def test_one_manager_for_each_group_and_workers_are_its_children(all_kinds: Server) -> None:
    """S4, S14, S17: managers hang on the supervisor, workers on their manager."""
    (supervisor,) = all_kinds.pids("supervisor")
    counts = {"shop": 2, "blog": 1, "plain": 1}
    for group, count in counts.items():
        (manager,) = all_kinds.pids("manager", group)
        assert parent(manager) == supervisor
        workers = all_kinds.pids("worker", group)
        assert len(workers) == count
        assert {parent(pid) for pid in workers} == {manager}
        assert title(manager) == f"webserver: manager {group}"
        assert {title(pid) for pid in workers} == {f"webserver: worker {group} {n}" for n in range(count)}
    assert title(supervisor) == "webserver: supervisor"
    assert {title(pid) for pid in all_kinds.pids("front end")} == {"webserver: front end 0", "webserver: front end 1"}


def test_group_has_its_own_environment_and_nothing_of_the_supervisor(all_kinds: Server) -> None:
    """S39: distinct configuration for each group."""
    seen = json.loads(all_kinds.get("/shop/").body)
    assert seen["environment"]["COLOUR"] == "green"
    assert not {"HOME", "SHELL", "PWD", "OLDPWD", "TERM"} & set(seen["environment"])
    assert seen["directory"] == str(all_kinds.directory)
    assert (seen["multithread"], seen["multiprocess"]) == (True, True)
    if os.geteuid() == 0:
        assert seen["uid"] != 0


def test_threads_and_processes_are_as_configured(all_kinds: Server) -> None:
    """S20, S32: eight requests of 0.3 s each run at once in two processes with four threads."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [json.loads(a.body) for a in pool.map(lambda _: all_kinds.get("/shop/sleep"), range(8))]
    places = {(answer["pid"], answer["thread"]) for answer in answers}
    assert len({pid for pid, _ in places}) == 2
    assert len(places) > 4


def test_only_configured_addresses_listen(all_kinds: Server) -> None:
    """S25, S26: the channel is on unix sockets of this machine; nothing else is open to a network."""
    inodes = set()
    for pid in {*all_kinds.seen, all_kinds.pids("supervisor")[0]}:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(fd)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    listening = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in inodes and (words[3] == "0A" or table.startswith("udp")):
                listening.add(int(words[1].rpartition(":")[2], 16))
    assert listening == {all_kinds.port}


def test_front_end_reaches_workers_directly(all_kinds: Server) -> None:
    """S18, S23: with the manager stopped, requests are still answered: it is not on their way."""
    import signal

    (manager,) = all_kinds.pids("manager", "plain")
    os.kill(manager, signal.SIGSTOP)
    try:
        assert all_kinds.get("/plain/x").body == b"hello, world"
    finally:
        os.kill(manager, signal.SIGCONT)


def test_idle_connections_hold_no_process(all_kinds: Server) -> None:
    """S3: three hundred idle clients, and one that sends half a request, beside answers at once."""
    idle = [all_kinds.connect() for _ in range(300)]
    try:
        idle[0].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        assert all_kinds.get("/index.html").body == b"static"
        assert all_kinds.get("/plain/").status == 200
    finally:
        for sock in idle:
            sock.close()


def test_static_files_need_no_group(server: Server) -> None:
    """S22: the front ends serve files with no group at all."""
    server.file("public/index.html", "static")
    server.write("[sites]\n[[all]]\nhosts = *\nroot = public\n[[[routes]]]\n/ = files\n")
    server.start()
    answer = server.get("/")
    assert (answer.status, answer.body, answer.field("Content-Type")) == (200, b"static", "text/html")
    assert {process["kind"] for process in server.status()["processes"]} == {"supervisor", "front end", "logger"}


def test_front_end_knows_no_secrets_of_groups(all_kinds: Server) -> None:
    """S38: front ends have what maps URLs to groups, not the groups' environment."""
    for pid in all_kinds.pids("front end"):
        with open(f"/proc/{pid}/maps") as regions, open(f"/proc/{pid}/mem", "rb") as memory:
            for line in regions:
                words = line.split()
                if "rw" not in words[1] or (len(words) > 5 and words[5].startswith("[v")):
                    continue
                start, end = (int(word, 16) for word in words[0].split("-"))
                if SANITIZED and end - start > 1 << 40:
                    continue  # the sanitizer's own map of memory: states, no data, most of it never touched
                memory.seek(start)
                try:
                    content = memory.read(end - start)
                except OSError:
                    continue
                assert b"COLOUR" not in content


def test_a_request_waits_its_turn_in_a_slot(server: Server) -> None:
    """S29: one slot runs one request at a time, whatever is placed ahead."""
    server.write(
        "[groups]\n[[plain]]\nlanguage = echo\nprocesses = 1\nthreads = 1\n"
        "[sites]\n[[all]]\nhosts = *\n[[[routes]]]\n/ = group:plain\n"
    )
    server.start()
    slow = server.connect()
    slow.sendall(b"GET /sleep/500 HTTP/1.1\r\nHost: x\r\n\r\n")
    quick = [server.connect() for _ in range(4)]
    for sock in quick:
        sock.sendall(b"GET /quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert slow.recv(4096).startswith(b"HTTP/1.1 200")
    for sock in quick:
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
        sock.close()
    slow.close()


def test_unix_socket_listener(server: Server) -> None:
    server.file("public/index.html", "static")
    server.write(
        "[sites]\n[[all]]\nhosts = *\nroot = public\n[[[routes]]]\n/ = files\n",
        server=f"listen = 127.0.0.1:{server.port}, [::1]:{server.port}, unix:run/web.sock",
    )
    server.start()
    for family, address in (
        (socket.AF_INET6, ("::1", server.port)),
        (socket.AF_UNIX, str(server.directory / "run/web.sock")),
    ):
        with socket.socket(family) as sock:
            sock.settimeout(20)
            sock.connect(address)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            wait_until(lambda sock=sock: sock.recv(65536).startswith(b"HTTP/1.1 200"), "no answer")
