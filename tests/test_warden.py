"""The warden of companions by itself: what it tells, what it passes on, and that nobody outlives it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import KEPT_KB, SLOWNESS, alive, descendants, free_port, tree, wait_until

PROGRAM = Path(__file__).resolve().parent / "companion_program.py"


class Warden:
    def __init__(self, place: Path) -> None:
        self.place = place
        self.control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(20 * SLOWNESS)
        self.log = place / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, ready: str, *command: str) -> Warden:
        def arrange() -> None:
            os.dup2(self._theirs.fileno(), 3)

        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(tree() / "build/lib/warden"), "webserver: companion test", ready, *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(3,), preexec_fn=arrange,
                start_new_session=True,
            )  # fmt: skip
        self._theirs.close()
        return self

    def program(self, ready: str, *options: str) -> Warden:
        return self.start(ready, "/usr/bin/python3", "-I", "-S", str(PROGRAM), str(self.place), "it", *options)

    def hear(self) -> dict[str, object]:
        """The next packet; {} for the end."""
        data = self.control.recv(65536)
        return json.loads(data) if data else {}

    def silent(self) -> bool:
        self.control.settimeout(0.3)
        try:
            return not self.control.recv(65536)
        except TimeoutError:
            return True
        finally:
            self.control.settimeout(20 * SLOWNESS)

    def signal(self, number: int) -> None:
        self.control.send(json.dumps({"op": "signal", "number": number}, separators=(",", ":")).encode())

    def end(self) -> int:
        assert self.process is not None
        return self.process.wait(20 * SLOWNESS)

    def noted(self, text: str) -> None:
        path = self.place / "notes"
        wait_until(lambda: path.exists() and text in path.read_text(), f"not noted: {text}")

    def daemon(self) -> int:
        """The process that `tree=yes` has left behind."""
        path = self.place / "it.daemon"
        wait_until(lambda: path.exists() and path.read_text(), "it has started nobody")
        return int(path.read_text())


@pytest.fixture
def warden(tmp_path: Path) -> Iterator[Warden]:
    one = Warden(tmp_path)
    yield one
    one.control.close()
    if one.process is not None:
        one.process.wait(20 * SLOWNESS)


def test_it_ends_as_its_program_does(warden: Warden) -> None:
    warden.start("started", "/bin/sh", "-c", "echo said; exit 7")
    assert warden.hear()["op"] == "up"
    assert warden.hear() == {"op": "ready"}
    assert warden.hear() == {"op": "ended", "status": 7 << 8}
    assert warden.hear() == {}
    assert warden.end() == 7
    assert warden.log.read_text() == "said\n"


def test_by_a_signal_too(warden: Warden) -> None:
    warden.start("started", "/bin/sh", "-c", "kill -SEGV $$; sleep 10")
    assert [warden.hear() for _ in range(3)][-1] == {"op": "ended", "status": signal.SIGSEGV}
    assert warden.end() == -signal.SIGSEGV


def test_a_program_that_is_none(warden: Warden) -> None:
    warden.start("started", "/nowhere/program")
    assert warden.hear() == {"op": "failed", "text": "/nowhere/program: No such file or directory"}
    assert warden.end() == 127


@pytest.mark.parametrize("way", ["sideways", "inet:nowhere:80", "output:("])
def test_a_way_to_be_ready_that_is_none(warden: Warden, way: str) -> None:
    warden.start(way, "/bin/true")
    assert warden.hear()["op"] == "failed"


@pytest.mark.parametrize("way", ["notify", "output", "file", "tcp", "unix"])
def test_it_tells_when_its_program_is_ready(warden: Warden, way: str) -> None:
    go, place, port = warden.place / "go", warden.place / "made", free_port()
    (warden.place / "old").write_text("of another run")
    ready, show = {
        "notify": ("notify", "notify"),
        "output": (r"output:port [0-9]+, *ready", "output"),
        "file": (f"file:{place}", f"file:{place}"),
        "tcp": (f"inet:127.0.0.1:{port}", f"tcp:{port}"),
        "unix": (f"unix:{place}", f"unix:{place}"),
    }[way]
    warden.program(ready, f"go={go}", f"show={show}")
    up = warden.hear()
    assert up["op"] == "up"
    wait_until(lambda: (warden.place / "notes").exists(), "it does not start")
    assert warden.silent()
    go.touch()
    told = [warden.hear() for _ in range(2 if way == "notify" else 1)]
    assert {"op": "ready"} in told
    if way == "notify":
        assert {"op": "said", "text": "it works"} in told
    assert warden.silent()
    pid = int(str(up["pid"]))
    assert os.getpgid(pid) == pid
    warden.signal(signal.SIGTERM)
    assert warden.end() == 0
    if way == "output":
        assert warden.log.read_text().splitlines() == ["first line", "this is port 4711, ready to serve"]


def test_a_file_that_was_there_before_says_nothing(warden: Warden) -> None:
    made = warden.place / "made"
    made.write_text("of another run")
    warden.program(f"file:{made}")
    assert warden.hear()["op"] == "up"
    assert warden.silent()
    made.write_text("of this one")
    assert warden.hear() == {"op": "ready"}


def test_what_comes_with_the_last_breath_counts(warden: Warden) -> None:
    warden.start("output:^done$", "/bin/sh", "-c", "echo done")
    assert [warden.hear().get("op") for _ in range(3)] == ["up", "ready", "ended"]
    assert warden.end() == 0


def test_all_of_a_large_output_arrives(warden: Warden) -> None:
    """Copied line by line until it is ready, and as it is after that; a line without an end keeps nobody."""
    script = "import sys; sys.stdout.write('x' * 300000); print(); print('now'); sys.stdout.write('y' * 3000000)"
    warden.start("output:^now$", "/usr/bin/python3", "-I", "-S", "-c", script)
    assert warden.end() == 0
    text = warden.log.read_text()
    assert (text.count("x"), text.count("y"), len(text)) == (300000, 3000000, 3300005)
    assert [warden.hear().get("op") for _ in range(3)] == ["up", "ready", "ended"]


def test_messages_of_others_do_not_count(warden: Warden) -> None:
    """The socket of NOTIFY_SOCKET has a name that everybody can send to."""
    warden.start("notify", "/bin/sh", "-c", 'echo "$NOTIFY_SOCKET" >&2; exec sleep 1000')
    assert warden.hear()["op"] == "up"
    name = wait_until(lambda: warden.log.read_text().strip(), "it says nothing")
    script = (
        "import os, socket, sys\n"
        "if len(sys.argv) > 2:\n"
        "    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', sys.argv[1].replace('@', chr(0)).encode())\n"
    )
    if os.geteuid() == 0:
        subprocess.run([sys.executable, "-c", script, name, "nobody"], check=True)
        assert warden.silent()
    subprocess.run([sys.executable, "-c", script, name], check=True)
    assert warden.hear() == {"op": "ready"}


def test_a_program_that_says_too_much_of_itself(warden: Warden) -> None:
    """Its newest word is told, and no more than one in a second; nothing in it breaks the packet."""
    script = (
        "import os, socket, time\n"
        "sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "where = os.environ['NOTIFY_SOCKET'].replace('@', chr(0))\n"
        "for number in range(2000): sock.sendto(b'STATUS=%d' % number, where)\n"
        "sock.sendto('STATUS=\"\\\\ \\u00e4 '.encode() + b'x' * 3000, where)\n"
        "time.sleep(1000)\n"
    )
    warden.start("notify", "/usr/bin/python3", "-I", "-S", "-c", script)
    assert warden.hear()["op"] == "up"
    told = []
    while not told or not str(told[-1]).startswith('"\\'):
        told.append(str(warden.hear()["text"]))
    assert len(told) < 20
    assert told[-1].startswith('"\\ ?? xxx')
    assert len(told[-1]) < 600


@pytest.mark.parametrize("how", ["control", "term", "program", "killed"])
def test_nobody_is_left(warden: Warden, how: str) -> None:
    """Not even who has left session and parent and ignores signals: whoever dies first, and however."""
    warden.program("started", "tree=yes", "term=ignore")
    up = warden.hear()
    daemon = warden.daemon()
    assert warden.process is not None
    everybody = {warden.process.pid, daemon, int(str(up["pid"]))}
    assert everybody - {warden.process.pid} <= descendants(warden.process.pid)
    if how == "control":
        warden.control.close()
    elif how == "term":
        warden.process.send_signal(signal.SIGTERM)
    elif how == "program":
        os.kill(int(str(up["pid"])), signal.SIGKILL)
    else:
        warden.process.kill()  # then it is the supervisor who kills the rest: only the program dies here
        everybody.discard(daemon)
    warden.end()
    wait_until(lambda: not [pid for pid in everybody if alive(pid)], "somebody is left")
    if how == "killed":
        assert os.getsid(daemon) != warden.process.pid
        os.kill(daemon, signal.SIGKILL)


def test_a_stopped_program_hears_of_its_end(warden: Warden) -> None:
    warden.program("started")
    pid = int(str(warden.hear()["pid"]))
    warden.noted("ready it")
    os.kill(pid, signal.SIGSTOP)
    warden.signal(signal.SIGTERM)
    assert warden.end() == 0


def test_signals_by_hand_do_nothing(warden: Warden) -> None:
    warden.program("started")
    warden.hear()
    assert warden.process is not None
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGWINCH):
        warden.process.send_signal(number)
    time.sleep(0.1)
    assert warden.process.poll() is None
    title = Path(f"/proc/{warden.process.pid}/cmdline").read_bytes().rstrip(b"\0")
    assert title == b"webserver: companion test"


def test_orders_that_are_none(warden: Warden) -> None:
    warden.program("started")
    warden.hear()
    warden.noted("ready it")
    for text in ("{}", '{"op":"signal","number":4711}', "x" * 5000):
        warden.control.send(text.encode())
    warden.signal(signal.SIGUSR2)
    assert warden.end() == 0
    assert "an order that is none" in warden.log.read_text()


def test_it_is_small(warden: Warden) -> None:
    """One for each instance of each companion."""
    warden.program("started")
    warden.hear()
    assert warden.process is not None
    text = Path(f"/proc/{warden.process.pid}/smaps_rollup").read_text()
    # The program's own pages, which it has in one piece with its library, are those of all wardens.
    [private] = re.findall(r"^Private_Dirty:\s+(\d+) kB$", text, re.M)
    assert int(private) < 256 + KEPT_KB
