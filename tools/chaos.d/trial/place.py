"""The server: its directory, configuration and applications, and its processes as /proc shows them.

As root the front ends run as www-data and the groups as two other users, and logs and spool are small file systems of
their own; without root all are the one user.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import serving

from trial.disks import Disk
from trial.mix import STATIC, static

APPLICATIONS = Path(__file__).resolve().parent.parent / "applications"
USERS = {"python": "nobody", "perl": "games", "ruby": "nobody", "php": "games", "seldom": "games"}
CONNECTIONS = 200  # of each front end
OPEN_FILES = 1024
CONFIG = """
[server]
listen = 127.0.0.1:{port}
{user}frontends = 2
run = run
connections = {connections}
open_files = {open_files}
spool = spool
spool_memory = 64k
[logs]
error_log = logs/error.log
access_log = logs/access.log
access_format = json
[companions]
  [[clock]]
  {companion}command = /bin/sleep, 1000000
[groups]
{groups}
[sites]
  [[all]]
  hosts = *
  root = public
  gather = /python/gather, /perl/gather, /ruby/gather
    [[[routes]]]
    / = files
    /python/ = group:python
    /python/gather = group:python
    /perl/ = group:perl
    /perl/gather = group:perl
    /ruby/ = group:ruby
    /ruby/gather = group:ruby
    .php = group:php
    /seldom/ = group:seldom
"""
GROUP = """  [[{name}]]
  language = {language}
  {user}{application}processes = {processes}
  threads = {threads}
  {pool}
  touch = app/touched-{name}
  request_timeout = 60s
  queue_timeout = 40s
    [[[environment]]]
    LEDGER = {ledger}
    EDITION = 0
"""


@dataclass(frozen=True)
class Hosted:
    """One group. `pool`: what it does with its workers besides; `ends`: the word of the log that shows it at that,
    where it is sure to come: whether one of many is ever idle is the load's to say."""

    application: str
    processes: int
    threads: int
    pool: str
    ends: str
    language: str = ""  # "": the group's name

    @property
    def grows(self) -> bool:
        """The number of its workers follows its work."""
        return "processes_min" in self.pool


GROUPS = {
    "python": Hosted("application = app/app.wsgi\n  ", 2, 4, "max_requests = 500", "max_requests"),
    "perl": Hosted("application = app/app.psgi\n  ", 3, 1, "max_requests = 400", "max_requests"),
    "ruby": Hosted("application = app/config.ru\n  ", 2, 3, "max_age = 20s", "max_age"),
    "php": Hosted("", 4, 1, "processes_min = 2\n  spare = 1\n  idle_after = 1s", ""),
    "seldom": Hosted(
        "application = app/app.wsgi\n  ", 1, 2, "processes_min = 0\n  idle_after = 1s", "idle_after", "python"
    ),
}
FILES = {"python": "app/app.wsgi", "perl": "app/app.psgi", "ruby": "app/config.ru"}  # that can be deployed broken


@dataclass(frozen=True)
class Process:
    """One process of the server, by its title."""

    pid: int
    kind: str  # worker, manager, frontend, logger, supervisor, companion, stand-in
    name: str  # "python 0"

    @property
    def group(self) -> str:
        return self.name.partition(" ")[0] if self.kind in ("worker", "manager") else ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name} ({self.pid})".replace("  ", " ")


class Place:
    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="webserver-chaos-", dir="/tmp"))
        os.chmod(self.directory, 0o755)
        self.port = serving.free_port()
        self.config_file = self.directory / "webserver.conf"
        self.ledger = self.directory / "ledger"
        self.error_log = self.directory / "logs/error.log"
        self.access_log = self.directory / "logs/access.log"
        self.pid_file = self.directory / "run/webserverd.pid"
        self.process: subprocess.Popen[bytes] | None = None
        self._supervisors: list[int] = []  # that have served, one after another
        for name in ("public/static", "app", "ledger", "logs", "spool", "run"):
            (self.directory / name).mkdir(parents=True)
        os.chmod(self.ledger, 0o1777)
        self.logs = Disk(self.directory / "logs", 48)
        self.spool = Disk(self.directory / "spool", 96)
        if serving.ROOT:
            user = pwd.getpwnam(serving.SERVER_USER)
            for name in ("logs", "spool"):
                os.chown(self.directory / name, user.pw_uid, user.pw_gid)
        self._fill()

    def _fill(self) -> None:
        for name in STATIC:
            (self.directory / "public/static" / name).write_bytes(static(name))
        for path in FILES.values():
            shutil.copy(APPLICATIONS / Path(path).name, self.directory / path)
        (self.directory / "public/php").mkdir()
        shutil.copy(APPLICATIONS / "run.php", self.directory / "public/php")
        groups = "".join(
            GROUP.format(
                name=name,
                language=group.language or name,
                application=group.application,
                processes=group.processes,
                threads=group.threads,
                pool=group.pool,
                ledger=self.ledger,
                user=f"user = {USERS[name]}\n  " if serving.ROOT else "",
            )
            for name, group in GROUPS.items()
        )
        user = f"user = {serving.SERVER_USER}\n" if serving.ROOT else ""
        self.config = CONFIG.format(
            port=self.port,
            user=user,
            groups=groups,
            connections=CONNECTIONS,
            open_files=OPEN_FILES,
            companion="user = nobody\n  " if serving.ROOT else "",
        )
        self.configure(self.config)

    def configure(self, text: str) -> None:
        put(self.config_file, text.encode())

    def start(self) -> None:
        stderr = open(self.directory / "stderr", "wb")  # noqa: SIM115  # the child's
        command = [serving.program("webserverd"), "--config", str(self.config_file), "--foreground"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=stderr, cwd="/", start_new_session=True
        )
        stderr.close()
        deadline = time.monotonic() + serving.START_SECONDS
        while b"ready\n" not in (self.directory / "stderr").read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"webserverd does not start:\n{(self.directory / 'stderr').read_text()}")
            time.sleep(0.02)

    @property
    def started(self) -> int:
        """The process that was started; others follow it, and it stands in for them."""
        assert self.process is not None
        return self.process.pid

    @property
    def pid(self) -> int:
        """The supervisor that serves."""
        try:
            pid = int(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return self.started
        if pid not in self._supervisors:
            self._supervisors.append(pid)
        return pid

    def processes(self, kind: str = "", group: str = "") -> list[Process]:
        """Those that run now, the supervisor too, in the order of their names."""
        serves = self.pid
        found = [one for pid in (self.started, *serving.descendants(self.started)) if (one := _titled(pid)) is not None]
        # A child that has not come to its exec yet still has its parent's title.
        found = [one for one in found if one.kind != "supervisor" or one.pid in (serves, *self._supervisors)]
        chosen = [one for one in found if (not kind or one.kind == kind) and (not group or one.group == group)]
        return sorted(chosen, key=lambda one: (one.kind, one.name, one.pid))

    def pids(self, kind: str) -> list[int]:
        return [one.pid for one in self.processes(kind)]

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [serving.program("webserverctl"), "--config", str(self.config_file), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.ctl("status", "--json").stdout)
        return answer

    def follower(self, pid: int) -> int:
        """The program that a supervisor has started to follow it; 0 if there is none."""
        for child in serving.children(pid):
            try:
                environment = Path(f"/proc/{child}/environ").read_bytes()
            except OSError:
                continue
            if b"WEBSERVERD_HANDOVER=" in environment:
                return int(child)
        return 0

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.started, number)

    def stop(self) -> str:
        """End it by TERM; returns what was wrong with its end, "" if nothing was."""
        if self.process is None:
            return ""
        left = serving.descendants(self.started)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            for pid in (self.started, *serving.descendants(self.started)):
                _kill(pid)
            self.process.wait()
            return "it did not end within 60 s after TERM and had to be killed"
        self.process = None
        deadline = time.monotonic() + 5
        while any(serving.alive(pid) for pid in left) and time.monotonic() < deadline:
            time.sleep(0.02)
        wrong = [f"it ended with status {code}"] if code else []
        wrong += [f"process {pid} is left behind" for pid in sorted(left) if serving.alive(pid)]
        run = self.directory / "run"
        wrong += [f"{path} is left behind" for path in sorted(run.rglob("*")) if path.is_socket()]
        return "; ".join(wrong)

    def remove(self, keep: bool) -> None:
        for disk in (self.spool, self.logs):
            if keep and disk is self.logs and disk.mounted:
                shutil.copytree(disk.directory, self.directory / "logs-kept")
            disk.remove()
        if not keep:
            shutil.rmtree(self.directory, ignore_errors=True)


def put(path: Path, content: bytes) -> None:
    """In one step, as a deployment should do it."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    os.chmod(new, 0o644)
    new.rename(path)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _titled(pid: int) -> Process | None:
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    if not title.startswith("webserver: ") or not serving.alive(pid):
        return None
    words = title.removeprefix("webserver: ").replace("front end", "frontend").partition(" ")
    return Process(pid, words[0], words[2])
