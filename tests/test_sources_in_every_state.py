"""No source of a script is served while the server starts, loses processes, is upgraded, drains or is killed (S13).

Clients ask all the time, from before the first socket listens until after the last one is closed, for a script of each
language, a copy and a link of it; each byte that they get is looked through.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections import Counter

import pytest
from serving import SLOWNESS, Server, wait_until
from test_upgrade import named, upgraded

MARKER = b"do-not-show-this-line"
M = MARKER.decode()
SCRIPTS = {
    "a.php": f"<?php // {M}\nusleep(1000); echo 'ran php';",
    "b.wsgi": f"# {M}\ndef application(e, s):\n    s('200 OK', [])\n    return [b'ran python']\n",
    "c.psgi": f"# {M}\nsub {{ [200, ['Content-Type' => 'text/plain'], ['ran perl']] }}\n",
    "d.ru": f"# {M}\nrun ->(_) {{ [200, {{}}, ['ran ruby']] }}\n",
    "e.lua": f"-- {M}\nreturn function() return 200, nil, 'ran lua' end\n",
}
LANGUAGES = {"php": "php", "wsgi": "python", "psgi": "perl", "ru": "ruby", "lua": "lua"}
CONFIG = (
    "[groups]\n"
    + "".join(f"[[{language}]]\nlanguage = {language}\nprocesses = 1\n" for language in LANGUAGES.values())
    + "[sites]\n[[all]]\nhosts = *\nroot = public\nindex = a.php, b.wsgi\nsymlinks = allow\n[[[routes]]]\n/ = files\n"
    + "".join(f".{extension} = group:{language}\n" for extension, language in LANGUAGES.items())
)
TARGETS = ["/", *(f"/{name}{more}" for name in SCRIPTS for more in ("", "/x", "~", ".bak", "?x", ".html"))]


class Asker:
    """Asks for one target after the other, on a new connection each time, or on one for as long as that lasts."""

    def __init__(self, server: Server, keeps: bool) -> None:
        self._server, self._keeps = server, keeps
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: Counter[bytes] = Counter()  # what ran
        self.refused = 0
        self.shown: list[bytes] = []

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._end.is_set():
            try:
                with self._server.connect(5 * SLOWNESS) as sock:
                    number = self._ask(sock, number)
            except OSError:
                self.refused += 1
                self._end.wait(0.002)

    def _ask(self, sock: socket.socket, number: int) -> int:
        while not self._end.is_set():
            target = TARGETS[number % len(TARGETS)]
            number += 1
            end = "" if self._keeps else "Connection: close\r\n"
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n{end}\r\n".encode())
            data = self._answer(sock)
            if MARKER in data:
                self.shown.append(target.encode() + b": " + data)
            self.answers[data.rpartition(b"ran ")[2] if b"ran " in data else b"none"] += 1
            if not self._keeps or not data or b"connection: close" in data.lower():
                break
        return number

    def _answer(self, sock: socket.socket) -> bytes:
        """One answer; to the end of the connection where it says no more."""
        data = b""
        while True:
            head, _, body = data.partition(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if self._keeps and _ and ((length and len(body) >= int(length[0][15:])) or data.endswith(b"0\r\n\r\n")):
                return data
            piece = sock.recv(65536)
            if not piece:
                return data
            data += piece


def prepare(server: Server) -> None:
    for name, text in SCRIPTS.items():
        for suffix in ("", "~", ".bak"):
            server.file(f"public/{name}{suffix}", text)
        link = server.directory / f"public/{name}.html"
        link.symlink_to(name)
    server.allow(".")
    server.write(CONFIG)


def all_ran(askers: list[Asker]) -> None:
    """From now on, each language has run for each asker."""
    before = [Counter(one.answers) for one in askers]
    wanted = [language.encode() for language in LANGUAGES.values()]
    wait_until(
        lambda: all(
            one.shown or all(one.answers[word] > seen[word] for word in wanted)
            for one, seen in zip(askers, before, strict=True)
        ),
        "not all languages run",
        60 * SLOWNESS,
    )


def kill(server: Server, kind: str, group: str | None = None) -> None:
    before = [pid for pid in server.pids(kind, group) if pid]
    for pid in before:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        now = server.pids(kind, group)
        return len(now) == len(before) and all(now) and not set(now) & set(before)

    wait_until(replaced, f"{kind} {group} is not replaced", 40 * SLOWNESS)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=["TERM", "INT", "KILL"])
def test_from_before_its_start_to_after_its_end(server: Server, end: signal.Signals) -> None:
    prepare(server)
    with Asker(server, False) as one, Asker(server, True) as two:
        askers = [one, two]
        wait_until(lambda: one.refused > 5, "nobody asks")
        server.start()
        all_ran(askers)
        if end == signal.SIGTERM:
            through_all_states(server, askers)
        assert server.process is not None
        server.look()
        if named(server) != server.process.pid or end != signal.SIGKILL:
            server.process.send_signal(end)
        else:
            server.process.kill()
        server.wait_for_end()
        wait_until(lambda: not server.left(), "processes are left")
        refused = one.refused
        wait_until(lambda: one.refused > refused + 5, "somebody still answers")
    assert not one.shown + two.shown, (one.shown + two.shown)[0]
    assert server.process.stderr is not None
    server.process.stderr.close()
    server.process = None


def through_all_states(server: Server, askers: list[Asker]) -> None:
    for group in LANGUAGES.values():
        kill(server, "worker", group)
    for group in LANGUAGES.values():
        kill(server, "manager", group)
    all_ran(askers)
    kill(server, "front end")
    kill(server, "logger")
    all_ran(askers)
    server.ctl("reload")
    for group in LANGUAGES.values():
        server.ctl("restart", group)
    all_ran(askers)
    before = named(server)
    server.ctl("upgrade")
    upgraded(server, before)
    all_ran(askers)
