"""The real server, started and seen from outside: a directory of its own, a configuration, raw HTTP, processes, logs.

As root the front ends run as www-data and groups as nobody, as on a real machine; otherwise all as the one user.
Nothing here imports the server.

In a tree made by tools/variant sanitized, every process of the server must have the sanitizers' run time in it, and what
they report fails the test that provoked it (conftest.py).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parent.parent
SANITIZE_FLAGS = os.environ.get("WEBSERVER_SANITIZE", "").split()
SANITIZED = bool(SANITIZE_FLAGS)
# How much longer than usual things may take in this build. Scales what is allowed for, never what is asserted.
SLOWNESS = 4 if SANITIZED else 1
# What this build's allocator keeps of memory that has been freed: a quarantine of 16 MB (tools/sanitized_python.c), its
# shadow and its red zones. Where memory is measured, so much comes on top.
KEPT_KB = 24 * 1024 if SANITIZED else 0
START_SECONDS = 60 * SLOWNESS
STOP_SECONDS = 30 * SLOWNESS
ROOT = os.geteuid() == 0
SERVER_USER = "www-data"
GROUP_USER = "nobody"


def tree() -> Path:
    """Where the server is run from: this tree, or a copy that other users can read."""
    global _tree
    if _tree is None:
        _tree = TREE if not ROOT or _readable(TREE) else _copy(TREE)
    return _tree


def interpreter() -> str:
    """The Python that groups run in by default: a sanitized build has its own, and its libraries load into no other."""
    return str(tree() / "bin/python") if SANITIZED else "/usr/bin/python3"


def group_lines() -> list[str]:
    """What every group's section needs here, whoever it is."""
    return [f"user = {GROUP_USER}"] if ROOT else []


def take_reports() -> list[str]:
    """What sanitizers have reported since the last call, in this process or any that ran from these trees."""
    found = []
    for folder in {TREE / "reports", tree() / "reports"}:
        for path in sorted(folder.glob("*")):
            found.append(f"{path.name}:\n{path.read_text(errors='replace')}")
            path.unlink()
    return found


def remove_copy() -> None:
    """Remove the copy of the tree, if one had to be made."""
    global _tree
    if _tree is not None and _tree != TREE:
        shutil.rmtree(_tree)
    _tree = None


_tree: Path | None = None


def _readable(path: Path) -> bool:
    return all(os.stat(parent).st_mode & 0o005 == 0o005 for parent in [path, *path.parents])


def _copy(source: Path) -> Path:
    target = Path(tempfile.mkdtemp(prefix="webserver-tree-", dir="/tmp"))
    os.chmod(target, 0o755)
    for name in ("webserver", "langplugins", "build/lib", "etc", "tools", "tests", ".venv"):
        shutil.copytree(source / name, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (target / "reports").mkdir()
    if SANITIZED:  # tools/variant put the path of the tree's Python into these
        shutil.copytree(source / "bin", target / "bin")
        (target / ".venv/bin/python").unlink()
        (target / ".venv/bin/python").symlink_to(target / "bin/python")
        for name in ("webserver/supervisor/records.py", "tools/demo", ".venv/pyvenv.cfg"):
            path = target / name
            path.write_text(path.read_text().replace(f"{source}/", f"{target}/"))
    subprocess.run([target / "tools/entry-points", target / ".venv"], check=True)
    subprocess.run(["chmod", "-R", "a+rX", target], check=True)
    os.chmod(target / "reports", 0o1777)
    return target


def program(name: str) -> str:
    """Path of webserverd or webserverctl."""
    return os.path.join(os.environ.get("WEBSERVER_BIN", str(tree() / ".venv/bin")), name)


def free_port(family: int = socket.AF_INET, address: str = "127.0.0.1") -> int:
    with socket.socket(family) as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, whole."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def field(self, name: str) -> str | None:
        for key, value in self.fields:
            if key.lower() == name.lower():
                return value
        return None

    @property
    def text(self) -> str:
        return self.body.decode()


class Server:
    """One webserverd and its directory. `config` is the text after [server]'s required lines; see `write`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.config_file = directory / "webserver.conf"
        self.error_log = directory / "logs" / "error.log"
        self.access_log = directory / "logs" / "access.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.stderr = b""
        self.seen: dict[int, str] = {}  # when each process of the server was started, by pid
        self.bare: set[str] = set()
        self.allowed: list[str] = []
        (directory / "public").mkdir(exist_ok=True)
        (directory / "logs").mkdir(exist_ok=True)
        (directory / "run").mkdir(exist_ok=True)
        if ROOT:
            user = pwd.getpwnam(SERVER_USER)
            os.chown(directory / "logs", user.pw_uid, user.pw_gid)

    def write(self, text: str, server: str = "", logs: str = "access_log = logs/access.log") -> None:
        """Write the configuration: [groups] and [sites] in `text`, more lines for [server] and [logs]."""
        user = f"user = {SERVER_USER}\n" if ROOT else ""
        listen = "" if re.search(r"^listen\s*=", server, re.M) else f"listen = 127.0.0.1:{self.port}\n"
        frontends = "" if re.search(r"^frontends\s*=", server, re.M) else "frontends = 2\n"
        for line in group_lines():
            text = re.sub(r"^(\s*)(language\s*=.*)$", rf"\1\2\n\1{line}", text, flags=re.M)
        self.configure(
            f"[server]\n{listen}{frontends}{user}run = run\n{server}\n"
            f"[logs]\nerror_log = logs/error.log\n{logs}\n{text}\n"
        )

    def configure(self, text: str) -> None:
        """The whole configuration; somebody may be reading it."""
        replace(self.config_file, text.encode())

    def file(self, name: str, content: str | bytes) -> Path:
        """A file below the server's directory that every user can read."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, content.encode() if isinstance(content, str) else content)
        return path

    def start(self, expect_ready: bool = True) -> Server:
        self.process = subprocess.Popen(
            [program("webserverd"), "--config", str(self.config_file), "--foreground"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )
        if expect_ready:
            self.wait_for_ready()
        return self

    def wait_for_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while b"ready\n" not in self.stderr:
            if not self._read_stderr(deadline):
                raise AssertionError(
                    f"webserverd ended or is not ready:\n{self.stderr.decode(errors='replace')}\n{self.log()}"
                )
        self.look()

    def _read_stderr(self, deadline: float) -> bool:
        assert self.process is not None
        assert self.process.stderr is not None
        ready, _, _ = select.select([self.process.stderr], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        data = os.read(self.process.stderr.fileno(), 65536)
        self.stderr += data
        return bool(data)

    def wait_for_end(self, seconds: float = STOP_SECONDS) -> int:
        """The exit status of a server that ends by itself; collects its stderr."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while self._read_stderr(deadline):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def ctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [program("webserverctl"), "--config", str(self.config_file), *words],
            capture_output=True,
            text=True,
            timeout=60 * SLOWNESS,
        )
        if check:
            assert result.returncode == 0, f"{words}: {result.stdout}{result.stderr}\n{self.log()}"
        self.look()
        return result

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.ctl("status", "--json").stdout)
        return answer

    def pids(self, kind: str, group: str | None = None) -> list[int]:
        """Process ids by kind ("worker", "manager", "front end", "logger") and group."""
        return [
            process["pid"]
            for process in self.status()["processes"]
            if process["kind"] == kind and (group is None or process.get("group") == group)
        ]

    def look(self) -> None:
        """Remember every process that descends from the supervisor, for the checks at the end."""
        if self.process is not None:
            now = {self.process.pid, *descendants(self.process.pid)}
            self.seen |= {pid: start for pid in now if (start := started(pid))}
            if SANITIZED:
                self.bare |= {name for pid in now if (name := without_sanitizer(pid))}

    def left(self) -> list[int]:
        """Which of them are alive. Pids come again: thousands of processes are made while the tests run."""
        return [pid for pid, start in self.seen.items() if alive(pid) and started(pid) == start]

    def log(self) -> str:
        return self.error_log.read_text(errors="replace") if self.error_log.exists() else ""

    def logged(self, text: str) -> str:
        """The error log, once this is in it: another process writes it than says it."""
        return str(wait_until(lambda: text in (log := self.log()) and log, f"not in the log: {text}"))

    def logged_like(self, pattern: str) -> str:
        """The same with a regular expression."""
        return str(wait_until(lambda: re.search(pattern, log := self.log()) and log, f"not in the log: {pattern}"))

    def connect(self, timeout: float = 20 * SLOWNESS) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        fields: dict[str, str] | None = None,
        timeout: float = 20 * SLOWNESS,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, target, body, fields or {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    def get(self, target: str, **fields: str) -> Answer:
        return self.request("GET", target, fields={name.replace("_", "-"): value for name, value in fields.items()})

    def raw(self, data: bytes, timeout: float = 20 * SLOWNESS) -> bytes:
        """Send bytes on a new connection, then read to end of file."""
        with self.connect(timeout) as sock:
            sock.sendall(data)
            return read_all(sock)

    def stop(self) -> None:
        """Stop by TERM and check that nothing is left: processes, sockets, unexpected log lines."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.look()
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.wait_for_end()
        except subprocess.TimeoutExpired:
            for pid in {self.process.pid, *self.left()}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"the server did not stop on TERM:\n{self.log()}") from None
        finally:
            if self.process.stderr is not None:
                self.process.stderr.close()
        self.process = None
        assert code == 0, f"exit status {code}\n{self.stderr.decode(errors='replace')}\n{self.log()}"
        wait_until(lambda: not self.left(), "processes are left behind")
        left = [str(path) for path in (self.directory / "run").rglob("*") if path.is_socket() or path.name == "page"]
        assert not left, f"sockets are left behind: {left}"
        unexpected = [line for line in self.log().splitlines() if self._alarming(line)]
        assert not unexpected, "unexpected lines in the error log:\n" + "\n".join(unexpected)
        assert not self.bare, f"processes without a sanitizer: {sorted(self.bare)}"

    def allow(self, *patterns: str) -> None:
        """Lines of the error log that this test expects (regular expressions)."""
        self.allowed += patterns

    def _alarming(self, line: str) -> bool:
        alarming = re.search(r"\b(error|alert|Traceback|AddressSanitizer|runtime error|ERROR)\b", line)
        return bool(alarming) and not any(re.search(pattern, line) for pattern in self.allowed)


def replace(path: Path, content: bytes) -> None:
    """As an editor does it: somebody may be reading it."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    os.chmod(new, 0o644)
    new.replace(path)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def anonymous(pid: int) -> int:
    """KB of memory that a process has allocated or inherited, whoever else has the same pages.

    What is its own alone grows too when its parent writes to a page that both have.
    """
    return int(re.findall(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)[0])


def started(pid: int) -> str:
    """When a process was started, as the kernel counts; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid: int) -> set[int]:
    found: set[int] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            # A thread may end meanwhile.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found |= {int(word) for word in (task / "children").read_text().split()}
    return found


def without_sanitizer(pid: int) -> str:
    """The title of a process of the server into which no sanitizer is loaded; else ""."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
        maps = Path(f"/proc/{pid}/maps").read_text()
        # A child of the supervisor has its title until exec, and a new program no library at first.
        still = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    bare = title == still and title.startswith("webserver: ") and maps and "/libasan.so" not in maps
    return title if bare else ""


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    queue = [pid]
    while queue:
        for child in children(queue.pop()):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


def wait_until(condition: Any, what: str, seconds: float = 20 * SLOWNESS) -> Any:
    """The first true value of condition(); looks every 10 ms, as outside observers of processes must."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(what)
        select.select([], [], [], 0.01)


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while True:
        piece = sock.recv(65536)
        if not piece:
            return data
        data += piece


@contextlib.contextmanager
def directory(parent: str = "/tmp") -> Iterator[Path]:
    """A directory that other users can enter (pytest's own cannot be)."""
    path = Path(tempfile.mkdtemp(prefix="webserver-test-", dir=parent))
    os.chmod(path, 0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
