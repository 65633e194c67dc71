"""The server that a conformance application runs in: its directory, its configuration, its log and its processes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .client import Answer, Connection
from .languages import Language

ROOT = os.geteuid() == 0
# As root the front ends are one user and the application another; both are on every Debian machine.
SERVER_USER, GROUP_USER = "www-data", "nobody"
AT_ONCE = 5  # requests that the group "brief" can run, at least
BRIEF = 1.0  # seconds that a request of the group "brief" may take
# Nothing here takes longer on a machine that works.
SECONDS = float(os.environ.get("WEBSERVER_CONFORMANCE_SECONDS", "30"))

CONFIG = """
[server]
listen = 127.0.0.1:{port}
frontends = 1
run = run
idle_timeout = 60s
{server_user}
[logs]
error_log = logs/error.log
[groups]
[[app]]
processes = 1
threads = 1
{group}
[[many]]
processes = {processes}
threads = {threads}
{group}
[[brief]]
processes = {brief_processes}
threads = {threads}
request_timeout = {brief}s
{group}
[sites]
[[all]]
hosts = *
max_body = 1g
[[[routes]]]
/ = group:app
/mount/point = group:app
/many = group:many
/brief = group:brief
"""


def until(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Looks every 10 ms, as outside observers of processes must."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        select.select([], [], [], 0.01)


def _end_with_parent() -> None:
    """Whoever kills a test run leaves no server behind (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Server:
    """One webserverd with the groups app (one request at a time), many and brief, all with the same application."""

    def __init__(self, programs: Path, language: Language, slowness: int = 1, kept_kb: int = 0) -> None:
        self.programs = programs
        self.language = language
        self.slowness = slowness  # how much longer than usual things may take
        self.kept_kb = kept_kb  # what this build's allocator keeps of memory that has been freed
        self.directory = Path(tempfile.mkdtemp(prefix="webserver-conformance-", dir="/tmp"))
        self.scratch = self.directory / "scratch"
        self.error_log = self.directory / "logs/error.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._tokens = 0
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        os.chmod(self.directory, 0o755)
        for name, mode in (("logs", 0o777), ("run", 0o755), ("scratch", 0o777)):
            (self.directory / name).mkdir()
            (self.directory / name).chmod(mode)
        # A copy, since the application's own place may be closed to the group's user.
        self.application = self.directory / Path(language.application).name
        shutil.copy(language.path, self.application)
        self.application.chmod(0o644 | self.application.stat().st_mode & 0o111)
        self._configure()

    def _configure(self) -> None:
        one = self.language
        lines = [f"language = {one.language}", f"application = {self.application.name}", one.lines]
        if one.plugin:
            # The same: it need not be readable to others where it was built.
            shutil.copy(one.plugin, self.directory / "plugin.so")
            (self.directory / "plugin.so").chmod(0o755)
            lines.append("plugin = plugin.so")
        if ROOT:
            lines.append(f"user = {GROUP_USER}")
        lines += ["[[[environment]]]", f"SCRATCH = {self.scratch}"]
        text = CONFIG.format(
            port=self.port,
            server_user=f"user = {SERVER_USER}" if ROOT else "",
            group="\n".join(filter(None, lines)),
            processes=1 if one.threads > 1 else 2,
            threads=one.threads,
            brief_processes=2 if one.threads > 1 else AT_ONCE,
            brief=BRIEF * self.slowness,
        )
        (self.directory / "webserver.conf").write_text(text)

    def start(self) -> None:
        command = [self.programs / "webserverd", "--config", self.directory / "webserver.conf", "--foreground"]
        with open(self.directory / "stderr", "wb") as stderr:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=stderr, start_new_session=True, preexec_fn=_end_with_parent
            )
        until(self._ready, "the server is not ready", SECONDS * 2 * self.slowness)
        assert "failed to start" not in self.said(), f"{self.said()}\n{self.log()}"

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the server has ended: {self.said()}\n{self.log()}"
        return "ready\n" in self.said()

    def said(self) -> str:
        return (self.directory / "stderr").read_text(errors="replace")

    def stop(self) -> None:
        """TERM, then everything that was below it must be gone."""
        if self.process is None:
            return
        below = self.below()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(SECONDS * self.slowness)
        except subprocess.TimeoutExpired:
            for pid in below:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end on TERM:\n{self.log()}") from None
        self.process = None
        until(lambda: not [pid for pid in below if alive(pid)], "processes are left behind")

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        return self.error_log.read_text(errors="replace") if self.error_log.exists() else ""

    def wait_for_log(self, before: int, text: str) -> None:
        """Until `text` stands in what was logged after the first `before` characters."""
        until(lambda: text in self.log()[before:], f'"{text}" is not in the log', SECONDS * self.slowness)

    # ---- requests

    def connect(self, timeout: float = SECONDS) -> Connection:
        return Connection(socket.create_connection(("127.0.0.1", self.port), timeout * self.slowness))

    def ask(
        self,
        target: str,
        body: bytes | None = None,
        *fields: str,
        method: str = "",
    ) -> Answer:
        """One request on a connection of its own, which is closed afterwards."""
        with self.connect() as connection:
            connection.request(method or ("GET" if body is None else "POST"), target, body, *fields)
            return connection.answer()

    # ---- what the application notes

    def token(self) -> str:
        self._tokens += 1
        return f"t{os.getpid()}-{self._tokens}"

    def noted(self, name: str) -> list[str]:
        path = self.scratch / name
        return path.read_text().split() if path.exists() else []

    def wait_for(self, name: str, token: str) -> None:
        until(lambda: token in self.noted(name), f"{token} is not in {name}", SECONDS * self.slowness)

    def open_gate(self, token: str) -> None:
        (self.scratch / f"go-{token}").touch()

    # ---- processes

    def below(self) -> list[int]:
        """Every process below the supervisor."""
        assert self.process is not None
        found: list[int] = []
        queue = [self.process.pid]
        while queue:
            for child in children(queue.pop()):
                found.append(child)
                queue.append(child)
        return found

    def pids(self, title: str) -> list[int]:
        """Processes by their title: "front end", "worker app"."""
        return [pid for pid in self.below() if re.match(rf"webserver: {title}\b", title_of(pid))]


def title_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid: int) -> Iterator[int]:
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            yield from map(int, (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        return


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
