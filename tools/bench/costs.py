#!/usr/bin/python3
"""What recycling and reloading cost: two figures of one server of ours, seen from outside.

    tools/bench/costs.py [--times N] [--sites N] [--json]

respawn   A Python group with one worker, whose application is preloaded and imports a good part of the standard library,
          replaces it after each five requests. One client asks for one answer after the other, without a pause, on one
          connection; each answer names its worker. Measured: from the fifth answer of one worker to the first of the
          next, which the client gets from a worker that has been forked, proven and taken into use meanwhile.
reload    A site in each of N files of sites-enabled/, with a directory of its own and a route to a group. Before each
          reload one of the files changes. Measured: the whole of `webserverctl reload`, its own start included; and in
          turn with it, what the server itself takes from an order to its answer.

Median, worst and best of --times are printed; nothing is asserted. Everything happens below one temporary directory.
As root, `chrt -f 1 tools/bench/costs.py` measures beside other work as if there were none; keep --times small then.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT = 5  # requests of one worker
APPLICATION = """
import collections, csv, decimal, email.message, html, http.client, json, logging.config, os, random, sqlite3, ssl
import statistics, tarfile, unittest.mock, urllib.request, uuid, xml.dom.minidom, zipfile

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]
"""


class Failed(Exception):
    """It could not be measured; the text says why."""


class Server:
    """One of ours below `place`."""

    def __init__(self, place: Path, program: Path) -> None:
        self.place, self.program = place, program
        self.config = place / "webserver.conf"
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = int(sock.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("run", "logs", "public", "sites-enabled"):
            (place / name).mkdir()
        if os.geteuid() == 0:
            user = pwd.getpwnam("www-data")
            os.chown(place / "logs", user.pw_uid, user.pw_gid)
        (place / "app.wsgi").write_text(APPLICATION)
        (place / "public" / "index.html").write_text("here\n")

    def write(self, more: str) -> None:
        root = os.geteuid() == 0
        self.config.write_text(
            f"[server]\nlisten = 127.0.0.1:{self.port}\nfrontends = 2\nrun = run\n"
            + ("user = www-data\n" if root else "")
            + "include = sites-enabled/*.conf\n"
            "[logs]\nerror_log = logs/error.log\n[groups]\n[[one]]\nlanguage = python\napplication = app.wsgi\n"
            + "preload = app.wsgi\nprocesses = 1\n"
            + ("user = nobody\n" if root else "")
            + more
        )

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [self.program, "--config", self.config, "--foreground"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert self._process.stderr is not None
        said = b""
        for line in self._process.stderr:
            if line == b"ready\n":
                return self
            said += line
        self._process.wait()
        raise Failed(said.decode(errors="replace"))

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.stderr.read()
        self._process.wait()
        self._process.stderr.close()

    def reload(self) -> float:
        """Seconds that the command takes."""
        began = time.perf_counter()
        result = subprocess.run(
            [self.program.with_name("webserverctl"), "--config", self.config, "reload"], capture_output=True, text=True
        )
        whole = time.perf_counter() - began
        if result.returncode:
            raise Failed(result.stderr)
        return whole

    def order_reload(self) -> float:
        """Seconds from the order to its answer, without the command."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(str(self.place / "run/control.sock"))
            began = time.perf_counter()
            sock.sendall(b'{"op": "reload"}\n')
            answer = json.loads(sock.makefile("rb").readline())
        if answer.get("ok") is not True:
            raise Failed(str(answer))
        return time.perf_counter() - began


def respawn(server: Server, times: int) -> list[float]:
    found: list[float] = []
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    pid, answers, last = b"", 0, 0.0
    deadline = time.monotonic() + 10 + times
    while len(found) < times:
        if time.monotonic() > deadline:
            raise Failed(f"only {len(found)} workers have been replaced")
        connection.request("GET", "/")
        answer = connection.getresponse()
        body, now = answer.read(), time.perf_counter()
        if answer.status != 200:
            raise Failed(f"an answer of {answer.status}: {body!r}")
        if body != pid:
            if answers >= LIMIT:
                found.append(now - last)
            pid, answers = body, 0
        answers += 1
        if answers == LIMIT:
            last = now
    connection.close()
    return found[1:]  # the first may have met a server that still starts


def reload(server: Server, times: int, sites: int) -> tuple[list[float], list[float]]:
    whole, own = [], []
    for number in range(times):
        for way, found in ((server.reload, whole), (server.order_reload, own)):
            write_site(server.place, (number * 7) % sites, 1 + number * 2 + len(whole))
            found.append(way())
    return whole, own


def write_site(place: Path, site: int, version: int) -> None:
    (place / f"site{site}").mkdir(exist_ok=True)
    (place / f"sites-enabled/site{site}.conf").write_text(
        f"hosts = site{site}.example, www.site{site}.example\nroot = ../site{site}\nmax_body = {version + 1}m\n"
        "[routes]\n/ = files\n/app/ = group:one\n"
    )


def told(name: str, seconds: list[float]) -> dict[str, object]:
    return {
        "what": name, "times": len(seconds), "median": round(statistics.median(seconds) * 1000, 2),
        "worst": round(max(seconds) * 1000, 2), "best": round(min(seconds) * 1000, 2),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="what recycling and reloading cost")
    parser.add_argument("--times", type=int, default=40, help="how often each is measured (default 40)")
    parser.add_argument("--sites", type=int, default=1000, help="sites of the server that is reloaded (default 1000)")
    parser.add_argument("--webserverd", type=Path, default=ROOT / ".venv/bin/webserverd", help="our server's program")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="webcosts-"))
    place.chmod(0o755)
    load = os.getloadavg()[0]
    try:
        server = Server(place, options.webserverd)
        server.write(f"max_requests = {LIMIT}\n[sites]\n[[all]]\nhosts = *\n[[[routes]]]\n/ = group:one\n")
        with server:
            rows = [told("respawn of a recycled worker, preloaded", respawn(server, options.times + 1))]
        for site in range(options.sites):
            write_site(place, site, 0)
        server.write("")
        with server:
            whole, own = reload(server, options.times, options.sites)
        rows.append(told(f"webserverctl reload, {options.sites} sites, one changed", whole))
        rows.append(told("the same, of the server alone", own))
    except Failed as problem:
        print(f"costs: {problem}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if options.json:
        print(json.dumps({"load": load, "cores": os.cpu_count(), "rows": rows}))
        return 0
    print(f"{os.cpu_count()} processors, load {load:.1f} when it began; milliseconds")
    for row in rows:
        print(f"{row['what']}: median {row['median']}, worst {row['worst']}, best {row['best']} of {row['times']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
