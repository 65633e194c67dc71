"""The real supervisor and logger, with front ends and managers that only pretend: starts, ends, failures, liars.

What they pretend is in supervisor_fakes/. Everything is seen from outside: exit statuses, processes, log lines, files.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import ROOT, TREE, Server, alive, free_port, tree, wait_until

FAKES = Path(__file__).resolve().parent / "supervisor_fakes"
GROUP = """
  [[{name}]]
  language = echo
  processes = {processes}
  start_timeout = 5s
    [[[environment]]]
    MODE = "{mode}"
"""
START = """
import sys
sys.path.insert(0, {tree!r})
from webserver.supervisor import overseer, policy
overseer.WATCH_EVERY = 0.25
policy.BEAT_LIMIT = 2.5
policy.BEAT_LATE = 0.7
policy.SLOW_BEAT_LIMIT = 6.0
from webserver.cli.{name} import main
sys.exit(main())
"""


class Fake(Server):
    """A server whose front ends and managers are those of supervisor_fakes."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        package = directory / "tree" / "webserver"
        for name in ("supervisor", "logger", "config", "wire", "cli"):
            shutil.copytree(TREE / "webserver" / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(TREE / "webserver" / "__init__.py", package)
        for name in ("frontend", "manager"):
            (package / name).mkdir()
            shutil.copy(FAKES / f"{name}.py", package / name / "__main__.py")
        (directory / "bin").mkdir()
        for name in ("webserverd", "webserverctl"):
            program = directory / "bin" / name
            program.write_text(
                f"#!{tree()}/.venv/bin/python -I\n" + START.format(tree=str(directory / "tree"), name=name)
            )
            program.chmod(0o755)
        (directory / "plugin.so").touch()

    def groups(self, *names: str, server: str = "", processes: int = 1, logs: str | None = None, **modes: str) -> None:
        text = "[groups]\n" + "".join(
            GROUP.format(name=name, processes=processes, mode=modes.get(name, "").replace('"', "'")) for name in names
        )
        text = text.replace("language = echo\n", f"language = echo\n  plugin = {self.directory}/plugin.so\n")
        more = {} if logs is None else {"logs": logs}
        self.write(text + "[sites]\n  [[all]]\n  hosts = *\n  root = public\n", server, **more)

    def pid(self, kind: str, group: str | None = None) -> int:
        return next(iter(self.pids(kind, group)), 0)

    def group(self, name: str) -> dict[str, object]:
        return next(one for one in self.status()["groups"] if one["name"] == name)

    def logged(self, text: str) -> None:
        wait_until(lambda: text in self.log(), f"not logged: {text}\n{self.log()}")

    def tell(self, ordinal: int, message: object) -> None:
        """Have a front end say something to the supervisor."""
        path = self.directory / f".tell-{ordinal}"
        path.write_text(json.dumps(message) + "\n")
        path.rename(self.directory / f"tell-{ordinal}")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    from serving import directory

    with directory() as path:
        one = Fake(path)
        monkeypatch.setenv("WEBSERVER_BIN", str(path / "bin"))
        try:
            yield one
        finally:
            (path / "stay").unlink(missing_ok=True)
            one.stop()


def test_everything_starts_and_is_shown(fake: Fake) -> None:
    fake.groups("blog", "shop", processes=2)
    fake.start()
    processes = fake.status()["processes"]
    kinds = [process["kind"] for process in processes]
    assert [kinds.count(kind) for kind in ("supervisor", "logger", "front end", "manager", "worker")] == [1, 1, 2, 2, 4]
    assert {process["pid"] for process in processes} == {fake.process.pid, *fake.seen} & {
        process["pid"] for process in processes
    }
    assert all(process["state"] in ("running", "serving", "starting") for process in processes)
    titles = {Path(f"/proc/{process['pid']}/cmdline").read_bytes().rstrip(b"\0") for process in processes}
    assert {b"webserver: supervisor", b"webserver: logger", b"webserver: front end 1"} <= titles
    table = fake.ctl("status").stdout
    assert "front end 0" in table
    assert "manager blog" in table
    assert int((fake.directory / "run/webserverd.pid").read_text()) == fake.process.pid


def test_children_start_confined(fake: Fake) -> None:
    """Users, capabilities, no_new_privs, descriptors and environment, as the kernel shows them."""
    fake.groups("blog")
    os.environ["WEBSERVER_TEST_SECRET"] = "must not leak"
    try:
        fake.start()
    finally:
        del os.environ["WEBSERVER_TEST_SECRET"]
    wanted = {"logger": "www-data", "front end": "www-data", "manager": "nobody"}
    for kind, user in wanted.items():
        pid = fake.pid(kind)
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        uid = pwd.getpwnam(user).pw_uid if ROOT else os.getuid()
        assert status["Uid"].split() == [str(uid)] * 4
        assert status["NoNewPrivs"] == "1"
        assert status["SigBlk"] == "0" * 16
        if ROOT:
            assert {status[name] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd")} == {"0" * 16}
        assert os.getpgid(pid) == pid
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"SECRET" not in environment
        assert {item.partition(b"=")[0] for item in environment.split(b"\0") if item} == {b"PATH", b"LANG"}
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
    manager = fake.pid("manager")
    targets = {int(fd): os.readlink(f"/proc/{manager}/fd/{fd}") for fd in os.listdir(f"/proc/{manager}/fd")}
    assert targets[0] == "/dev/null"
    assert targets[1] == targets[2]
    assert targets[2].startswith("pipe:")
    assert targets[3].startswith("socket:")
    assert len(targets) == 4
    generation = next((fake.directory / "run/ipc").iterdir()).stat()
    assert stat.S_IMODE(generation.st_mode) == 0o2710
    if ROOT:
        assert generation.st_uid == pwd.getpwnam("www-data").pw_uid
        assert generation.st_gid == pwd.getpwnam("nobody").pw_gid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGINT])
def test_signals_end_it(fake: Fake, number: int) -> None:
    fake.groups("blog")
    fake.start().process.send_signal(number)
    assert fake.wait_for_end(10) == 0
    assert not (fake.directory / "run/control.sock").exists()
    assert not (fake.directory / "run/webserverd.pid").exists()
    assert not (fake.directory / "run/ipc").exists()


def test_a_second_term_does_not_wait(fake: Fake) -> None:
    """S6: there is no time limit on finishing, but whoever asks twice gets the end at once."""
    fake.groups("blog")
    fake.start()
    (fake.directory / "stay").touch()
    fake.process.send_signal(signal.SIGTERM)
    fake.logged("SIGTERM: drain")
    frontends = fake.pids("front end")
    assert len(frontends) == 2
    fake.process.send_signal(signal.SIGTERM)
    assert fake.wait_for_end(5) == 0


def test_stop_returns_when_it_is_done(fake: Fake) -> None:
    fake.groups("blog")
    fake.start()
    fake.ctl("stop")
    assert fake.wait_for_end(5) == 0
    assert not fake.left()
    assert fake.ctl("status", check=False).returncode == 1


def test_in_the_background_it_returns_when_ready(fake: Fake) -> None:
    fake.groups("blog")
    program = [str(fake.directory / "bin/webserverd"), "--config", str(fake.config_file)]
    result = subprocess.run(program, capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stderr
    assert result.stderr.endswith("ready\n")
    pid = int((fake.directory / "run/webserverd.pid").read_text())
    assert fake.status()["processes"][0]["pid"] == pid
    again = subprocess.run(program, capture_output=True, text=True, timeout=30)
    assert again.returncode == 1
    assert "in use" in again.stderr or "running there already" in again.stderr
    fake.ctl("stop")
    wait_until(lambda: not alive(pid), "it did not end")


def test_the_supervisors_death_ends_all(fake: Fake) -> None:
    fake.groups("blog", "shop")
    fake.start()
    fake.process.kill()
    fake.process.wait()
    wait_until(lambda: not fake.left(), "processes outlive the supervisor")
    # A new one takes the place over, whatever was left behind.
    fake.process.stderr.close()
    fake.stderr = b""
    fake.start()


def test_a_group_that_fails_does_not_stop_the_others(fake: Fake) -> None:
    fake.groups("blog", "shop", shop="broken")
    fake.allow("it is broken", "Traceback of the application", "of its managers have ended unasked")
    fake.start()
    assert b"it is broken" in fake.stderr
    assert fake.group("blog")["state"] == "running"
    assert fake.group("shop")["state"] in ("backoff", "starting")
    assert "it is broken" in str(fake.group("shop")["message"])
    fake.logged("Traceback of the application")
    wait_until(lambda: fake.log().count("it is broken; started again") >= 3, "it is not tried again")
    assert "in 0.1 s" in fake.log()
    assert "in 0.2 s" in fake.log()


def test_a_group_that_cannot_be_started_is_given_up(fake: Fake) -> None:
    fake.groups("blog", "shop")
    text = fake.config_file.read_text()
    head, tail = text.split("[[shop]]")
    program = fake.file("interpreter", "this is no program")
    program.chmod(0o755)
    fake.configure(head + "[[shop]]\n  interpreter = " + str(program) + tail)
    fake.allow("shop")
    fake.start()
    shop = fake.group("shop")
    assert shop["state"] == "failed"
    assert "exec:" in str(shop["message"])
    assert str(program) in str(shop["message"])


def test_a_managers_death_is_its_own_groups_matter(fake: Fake) -> None:
    fake.groups("blog", "shop", processes=2)
    fake.allow("manager of group shop", "group shop: its manager", "after its manager had died", "its manager had died")
    fake.start()
    blog = fake.pids("worker", "blog")
    manager = fake.pid("manager", "shop")
    workers = fake.pids("worker", "shop")
    os.kill(manager, signal.SIGKILL)
    wait_until(lambda: fake.group("shop")["generation"] == 2 and fake.group("shop")["state"] == "running", "no new one")
    assert fake.pids("worker", "blog") == blog
    assert fake.group("blog")["generation"] == 1
    assert "killed by SIGKILL" in fake.log()
    wait_until(lambda: not set(workers) & set(fake.pids("worker", "shop")), "its workers are still shown")
    assert not [pid for pid in workers if alive(pid)]


def test_a_workers_death_is_told_to_front_ends(fake: Fake) -> None:
    fake.groups("blog")
    fake.allow("worker 0 of group blog")
    fake.start()
    os.kill(fake.pid("worker", "blog"), signal.SIGSEGV)
    fake.logged("front end 1: worker gone: killed by signal 11")
    wait_until(lambda: fake.pid("worker", "blog"), "no new worker")


def test_a_front_ends_death(fake: Fake) -> None:
    """It is started again with a new incarnation, its neighbour takes its socket meanwhile, managers are told."""
    fake.groups("blog")
    fake.allow("front end 0")
    fake.start()
    before = fake.status()["processes"]
    os.kill(fake.pids("front end")[0], signal.SIGKILL)
    fake.logged("front ends now [2]")
    fake.logged("front ends now [3, 2]")
    assert "front end 0 killed by SIGKILL" in fake.log()
    after = {process["name"]: process for process in fake.status()["processes"] if process["kind"] == "front end"}
    assert after["0"]["incarnation"] == 3
    assert after["1"]["pid"] in [process["pid"] for process in before]


def test_a_front_end_that_hangs(fake: Fake) -> None:
    fake.groups("blog")
    fake.allow("front end 1")
    fake.start()
    pid = fake.pids("front end")[1]
    (fake.directory / "hang-1").touch()
    fake.logged(f"front end 1 (process {pid}) hangs")
    (fake.directory / "hang-1").unlink()
    fake.logged("front end 1 killed by SIGKILL")
    fake.logged("in main")
    wait_until(lambda: pid not in fake.pids("front end") and len(fake.pids("front end")) == 2, "it is not replaced")


def test_a_stopped_front_end_still_shows_its_stack(fake: Fake) -> None:
    """Its neighbour accepts for it before it is given up, and until the next one is ready."""
    fake.groups("blog")
    fake.allow("front end 1")
    fake.start()
    pid = fake.pids("front end")[1]
    wait_until(lambda: accepted(fake) == [[1], [2]], "each has one socket")
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: accepted(fake)[0] == [1, 2], "its neighbour does not accept for it")
    fake.logged("front end 1 killed by SIGKILL")
    fake.logged("in main")
    wait_until(lambda: accepted(fake) == [[1], [2]], "it is not replaced")


def accepted(fake: Fake) -> list[list[int]]:
    """Which listeners each front end accepts from, as they say."""
    frontends = [one for one in fake.status()["processes"] if one["kind"] == "front end"]
    return [one["stats"].get("accept", []) for one in sorted(frontends, key=lambda one: str(one["name"]))]


def test_managers_and_a_logger_that_hang(fake: Fake) -> None:
    """A new generation takes over from the one, another logger from the other; the rest goes on."""
    fake.groups("blog", "shop")
    fake.allow("manager of group blog", "the logger")
    fake.start()
    manager, shop, logger = fake.pid("manager", "blog"), fake.pid("manager", "shop"), fake.pid("logger")
    for pid in (manager, logger):
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: fake.pid("logger") not in (0, logger), "the logger is not replaced", 30)
    wait_until(lambda: fake.group("blog")["generation"] == 2, "the group is not replaced", 30)
    wait_until(lambda: not alive(manager), "the manager that hung is still there")
    fake.logged("hangs: no beat for")
    assert fake.pid("manager", "shop") == shop
    # The end does not wait for one that hangs either.
    os.kill(fake.pid("manager", "shop"), signal.SIGSTOP)
    fake.allow("manager of group shop")


def test_restart_of_a_group(fake: Fake) -> None:
    fake.groups("blog", "shop", processes=2)
    fake.start()
    shop, blog = set(fake.pids("worker", "shop")), fake.pids("worker", "blog")
    answer = json.loads(fake.ctl("restart", "shop", "--json").stdout)
    assert answer["generation"] == 2
    assert not shop & set(fake.pids("worker", "shop"))
    assert len(fake.pids("worker", "shop")) == 2
    assert fake.pids("worker", "blog") == blog
    assert [path.name.split(".")[1] for path in (fake.directory / "run/ipc").iterdir()].count("2") == 1
    assert len(list((fake.directory / "run/ipc").iterdir())) == 2
    assert fake.ctl("restart", "shop").returncode == 0
    missing = fake.ctl("restart", "nothing", check=False)
    assert missing.returncode == 1
    assert "blog, shop" in missing.stderr


@pytest.mark.parametrize(
    ("mode", "message"), [("broken", "it is broken"), ("unready", "killed by"), ("crash", "SIGABRT")]
)
def test_a_change_that_does_not_start_changes_nothing(fake: Fake, mode: str, message: str) -> None:
    fake.groups("blog", "shop", processes=2)
    fake.allow("shop", "reload", "Traceback of the application")
    fake.start()
    before = [process["pid"] for process in fake.status()["processes"]]
    fake.groups("blog", "shop", "new", processes=2, shop=mode)
    result = fake.ctl("reload", check=False)
    assert result.returncode == 1
    assert message in result.stderr
    wait_until(lambda: [process["pid"] for process in fake.status()["processes"]] == before, "something has changed")
    assert fake.group("shop")["state"] == "running"
    assert len(fake.status()["groups"]) == 2
    # The right one is taken afterwards.
    fake.groups("blog", "new", processes=3)
    fake.ctl("reload")
    assert [group["name"] for group in fake.status()["groups"]] == ["blog", "new"]
    assert len(fake.pids("worker", "blog")) == 3


def test_reload_adds_and_removes(fake: Fake) -> None:
    fake.groups("blog")
    fake.start()
    blog = fake.pid("manager", "blog")
    ports = [fake.port, free_port()]
    fake.groups("blog", "shop", server=f"listen = 127.0.0.1:{ports[0]}, 127.0.0.1:{ports[1]}, unix:web.sock\n")
    fake.ctl("reload")
    fake.logged("front end 0: listeners 5")
    for port in ports:
        socket.create_connection(("127.0.0.1", port)).close()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(fake.directory / "web.sock"))
    assert fake.pid("manager", "blog") == blog
    assert fake.pid("manager", "shop")
    fake.groups("shop", server=f"listen = 127.0.0.1:{ports[1]}\n")
    fake.ctl("reload")
    fake.logged("front end 0: listeners 2")
    assert not (fake.directory / "web.sock").exists()
    wait_until(lambda: not _accepts(ports[0]), "the removed address still answers")
    assert fake.pids("manager", "blog") == []
    # A name may come back, and then counts on.
    fake.groups("blog", "shop", server=f"listen = 127.0.0.1:{ports[1]}\n")
    fake.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(fake.status()["groups"]) == 2 and fake.group("blog")["generation"] == 2, "HUP did nothing")


def _accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_reload_of_a_wrong_configuration(fake: Fake) -> None:
    fake.groups("blog")
    fake.allow("reload")
    fake.start()
    right = fake.config_file.read_text()
    fake.configure(right.replace("processes = 1", "proceses = 1\n  threads = many"))
    result = fake.ctl("reload", check=False)
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if f"{fake.config_file}:" in line]
    assert len(lines) == 2, result.stderr
    fake.configure(right.replace("frontends = 2", "frontends = 3"))
    result = fake.ctl("reload", check=False)
    assert "needs a new start" in result.stderr
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        fake.groups("blog", server=f"listen = 127.0.0.1:{fake.port}, 127.0.0.1:{port}\n")
        result = fake.ctl("reload", check=False)
        assert f"cannot listen on 127.0.0.1:{port}: the address is in use by another process" in result.stderr
    assert fake.group("blog")["generation"] == 1


@pytest.mark.parametrize(
    "lie",
    [
        '{"op": "grant", "number": 99, "slots": 1}',
        '{"op": "grant", "number": 0, "slots": 100000}',
        '{"op": "grant"}',
        '{"op": "nonsense"}',
        '{"op": "failed", "message": {"a": []}}',
    ],
)
def test_a_lying_manager_hurts_only_its_group(fake: Fake, lie: str) -> None:
    fake.groups("blog", "liar")
    text = fake.config_file.read_text()
    head, _, tail = text.rpartition('MODE = ""')
    fake.configure(f"{head}MODE = 'say {lie}'{tail}")
    fake.allow("liar", "blog")
    fake.start()
    assert fake.group("blog")["state"] == "running"
    assert len(fake.pids("front end")) == 2


def test_a_flooding_manager_is_ended(fake: Fake) -> None:
    fake.groups("blog", "liar", liar="flood")
    fake.allow("liar")
    fake.start()
    fake.logged("it sends too many control packets; it is killed")
    assert fake.group("blog")["state"] == "running"


def test_a_broken_protocol_ends_the_generation(fake: Fake) -> None:
    fake.groups("blog")
    fake.allow("blog")
    fake.start()
    fake.tell(1, {"op": "broken", "group": "blog", "generation": 1, "reason": "99 connections"})
    fake.logged("front end 1 closed its connections: 99 connections")
    wait_until(lambda: fake.group("blog")["generation"] == 2 and fake.group("blog")["state"] == "running", "no new one")


def test_the_loggers_death_loses_nothing(fake: Fake) -> None:
    fake.groups("blog")
    fake.allow("the logger")
    fake.start()
    logger = fake.pid("logger")
    os.kill(logger, signal.SIGSTOP)
    os.kill(fake.pid("worker", "blog"), signal.SIGKILL)
    fake.allow("worker 0 of group blog")
    wait_until(lambda: fake.pid("worker", "blog"), "no new worker")
    os.kill(logger, signal.SIGKILL)
    fake.logged("front end 0: worker gone")
    fake.logged("the logger killed by SIGKILL")
    wait_until(lambda: fake.access_log.read_text().count("access line of") == 2, "access lines are lost")


def test_logs_are_opened_again(fake: Fake) -> None:
    fake.groups("blog")
    fake.start()
    fake.logged("supervisor: listening on")
    moved = fake.directory / "logs/error.log.1"
    fake.error_log.rename(moved)
    fake.process.send_signal(signal.SIGUSR1)
    wait_until(fake.error_log.exists, "the log is not opened again")
    fake.ctl("restart", "blog")
    fake.logged("group blog was restarted")
    assert "group blog was restarted" not in moved.read_text()
    os.rename(moved, fake.directory / "logs/old")


def test_a_log_that_cannot_be_written_stops_the_start(fake: Fake) -> None:
    fake.groups("blog")
    text = fake.config_file.read_text().replace("error_log = logs/error.log", "error_log = logs")
    fake.configure(text)
    fake.start(expect_ready=False)
    assert fake.wait_for_end(10) == 1
    assert b"logs" in fake.stderr
    fake.process.stderr.close()
    fake.process = None


def test_two_servers_never_share(fake: Fake) -> None:
    fake.groups("blog")
    fake.start()
    first = fake.process
    other = Fake.__new__(Fake)
    other.__dict__.update(fake.__dict__, process=None, stderr=b"", seen={})
    other.port = free_port()
    other.config_file = fake.directory / "other.conf"
    other.groups("blog")
    other.start(expect_ready=False)
    assert other.wait_for_end(10) == 1
    assert f"a server is running there already, as process {first.pid}".encode() in other.stderr
    other.process.stderr.close()
    other.stderr = b""
    other.port = fake.port
    other.groups("blog")
    other.configure(other.config_file.read_text().replace("run = run", "run = run2"))
    other.start(expect_ready=False)
    assert other.wait_for_end(10) == 1
    assert b"the address is in use by another process" in other.stderr
    other.process.stderr.close()


@pytest.mark.root
def test_others_may_not_control_it(fake: Fake) -> None:
    fake.groups("blog")
    fake.start()
    fake.config_file.chmod(0o644)
    user = pwd.getpwnam("nobody")
    result = subprocess.run(
        [fake.directory / "bin/webserverctl", "--config", fake.config_file, "stop"],
        capture_output=True,
        text=True,
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        timeout=30,
    )
    assert result.returncode == 1
    # Even if the socket's mode let them in, the kernel tells who they are.
    os.chmod(fake.directory / "run/control.sock", 0o666)
    result = subprocess.run(
        [fake.directory / "bin/webserverctl", "--config", fake.config_file, "stop"],
        capture_output=True,
        text=True,
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        timeout=30,
    )
    assert result.returncode == 1
    assert "only root and the server's own user" in result.stderr
    assert fake.process.poll() is None
