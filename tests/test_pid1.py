"""As the first process of a container: orphans, signals, logs on standard output and error, no file but below run."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import SERVER_USER, SLOWNESS, Server, children, descendants, program, wait_until
from under_load import Load, busy

CONFIG = """
[groups]
  [[plain]]
  language = echo
  [[shop]]
  language = python
  application = app.wsgi
[sites]
  [[all]]
  hosts = *
    [[[routes]]]
    /plain/ = group:plain
    / = group:shop
"""
WSGI = """
import os, subprocess, sys
def application(environ, start_response):
    if environ["PATH_INFO"] == "/orphan":
        # Its parent ends at once: nobody of the application waits for it.
        subprocess.run(["/bin/sh", "-c", "(sleep 0.2; exit 0) & :"], check=True)
    if environ["PATH_INFO"] == "/pid":
        start_response("200 OK", [])
        return [str(os.getppid()).encode()]
    print("said by the application", file=sys.stderr)
    start_response("200 OK", [])
    return [b"shop"]
"""


class Contained(Server):
    """A server that is process 1 of a pid namespace of its own."""

    stdout: Path

    def start(self, expect_ready: bool = True) -> Server:
        self.stdout = self.directory / "stdout"
        with open(self.stdout, "wb") as stdout:
            self.process = subprocess.Popen(
                ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child", program("webserverd"),
                 "--config", str(self.config_file), *self.options],
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, cwd="/", start_new_session=True,
            )  # fmt: skip
        if expect_ready:
            self.wait_for_ready()
        return self

    options = ("--foreground",)

    @property
    def first(self) -> int:
        """The pid, out here, of what is process 1 in there."""
        assert self.process is not None
        return next(iter(children(self.process.pid)))

    def log(self) -> str:
        while self.process is not None and self._read_stderr(time.monotonic()):
            pass
        return self.stderr.decode(errors="replace")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.first, signal.SIGTERM)
        if self.process is None:
            return
        try:
            assert self.wait_for_end() == 0, self.log()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            assert self.process.stderr is not None
            self.process.stderr.close()
            self.process = None


@pytest.fixture
def contained(server: Server) -> Iterator[Contained]:
    one = Contained(server.directory)
    one.file("app.wsgi", WSGI)
    spool = one.directory / "run/spool"
    spool.mkdir()
    os.chown(spool, pwd.getpwnam(SERVER_USER).pw_uid, -1)
    one.write(CONFIG, "spool = run/spool", "access_log = stdout")
    text = one.config_file.read_text().replace("error_log = logs/error.log", "error_log = stderr")
    one.configure(text)
    os.chmod(one.directory / "run", 0o711)
    yield one
    one.stop()


pytestmark = pytest.mark.root


def test_it_serves_and_logs(contained: Contained) -> None:
    contained.start()
    with Load(contained, ["/", "/plain/x"]) as load:
        load.progress()
    assert load.lost == []
    wait_until(lambda: "said by the application" in contained.log(), "nothing on standard error")
    wait_until(lambda: "GET /plain/x" in contained.stdout.read_text(), "nothing on standard output")
    assert len(descendants(contained.first)) >= 6


def test_orphans_are_reaped(contained: Contained) -> None:
    contained.start()
    for _ in range(20):
        assert contained.get("/orphan").status == 200
    wait_until(lambda: not zombies(contained.first), "zombies are left")
    wait_until(lambda: not left(contained.first), "orphans are left")


def zombies(first: int) -> list[int]:
    return [pid for pid in descendants(first) if state(pid) == "Z"]


def left(first: int) -> list[str]:
    return [name for pid in descendants(first) if (name := command(pid)).startswith("sleep")]


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.parametrize("options", [("--foreground",), ()])
def test_term_drains(contained: Contained, options: tuple[str, ...]) -> None:
    """Also without --foreground: its first process is all that a container waits for."""
    contained.options = options
    contained.start()
    with contained.connect() as slow:
        slow.sendall(b"GET /plain/sleep/700 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: busy(contained, "plain") == 1, "the sleeper does not run")
        os.kill(contained.first, signal.SIGTERM)
        assert slow.recv(12) == b"HTTP/1.1 200"
    assert contained.wait_for_end() == 0


def test_an_upgrade_keeps_the_container(contained: Contained) -> None:
    contained.start()
    pid_file = contained.directory / "run/webserverd.pid"
    assert pid_file.read_text() == "1\n"
    with Load(contained, ["/", "/plain/x"]) as load:
        contained.ctl("upgrade")
        wait_until(lambda: len(supervisors(contained)) == 1, "the program before does not end", 60 * SLOWNESS)
        assert pid_file.read_text() != "1\n"
        load.progress()
    assert load.lost == []
    assert load.answers == {200: load.asked}
    # What the old program's groups leave behind is still process 1's.
    for _ in range(5):
        assert contained.get("/orphan").status == 200
    wait_until(lambda: not zombies(contained.first), "zombies are left")
    with contained.connect() as slow:
        slow.sendall(b"GET /plain/sleep/700 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: busy(contained, "plain") == 1, "the sleeper does not run")
        os.kill(contained.first, signal.SIGTERM)
        assert slow.recv(12) == b"HTTP/1.1 200"
    assert contained.wait_for_end() == 0


def supervisors(server: Server) -> list[int]:
    return [one["pid"] for one in server.status()["processes"] if one["kind"] == "supervisor"]


def test_no_file_but_below_run(contained: Contained) -> None:
    """Whatever is open for writing, and whatever was made, is below run, or was handed in."""
    before = everything(contained.directory)
    contained.start()
    body = b"x" * 3_000_000
    assert contained.request("POST", "/plain/length", body).status == 200
    assert contained.get("/").text == "shop"
    open_files = {name for pid in (contained.first, *descendants(contained.first)) for name in written(pid)}
    run = str(contained.directory / "run")
    outside = [name for name in open_files if not name.startswith((run, str(contained.stdout)))]
    assert not outside
    contained.stop()
    made = {name for name in everything(contained.directory) - before if not name.startswith(run)}
    assert made <= {str(contained.stdout)}


def everything(directory: Path) -> set[str]:
    return {str(path) for path in directory.rglob("*") if "__pycache__" not in str(path)}


def written(pid: int) -> list[str]:
    """Regular files that a process has open for writing."""
    found = []
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                name = os.readlink(entry)
                flags = re.search(r"flags:\s*(\d+)", Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text())
            except OSError:
                continue
            writes = flags is not None and int(flags[1], 8) & os.O_ACCMODE
            if writes and name.startswith("/") and not name.startswith(("/dev/", "/memfd:", "/proc/")):
                found.append(name)
    except OSError:
        pass
    return found
