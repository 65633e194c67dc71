"""Companions, seen from outside: programs that the server starts beside its groups, watches, waits for and ends."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from serving import (
    GROUP_USER,
    ROOT,
    SLOWNESS,
    TREE,
    Server,
    alive,
    children,
    free_port,
    group_lines,
    read_all,
    wait_until,
)

PROGRAM = Path(__file__).resolve().parent / "companion_program.py"
SITE = "[sites]\n  [[all]]\n  hosts = *\n  root = public\n    [[[routes]]]\n    / = files\n"


class Place:
    """A server with companions, and the directory in which they leave their notes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.path = server.directory / "notes"
        self.path.mkdir()
        self.path.chmod(0o777)
        self.program = server.file("program.py", PROGRAM.read_text())
        server.file("public/index.html", "from a file")
        server.allow(r"DeprecationWarning")

    def section(self, name: str, *options: str, **settings: object) -> str:
        """A companion that runs the program of the tests with these options."""
        words = ", ".join(["/usr/bin/python3", "-I", "-S", str(self.program), str(self.path), name, *options])
        lines = {"command": words, **settings}
        text = "".join(f"  {key} = {value}\n" for key, value in lines.items())
        return f"  [[{name}]]\n{text}" + "".join(f"  {line}\n" for line in group_lines())

    def write(self, *sections: str, groups: str = "", site: str = SITE) -> None:
        self.server.write(f"{groups}\n[companions]\n{''.join(sections)}\n{site}")

    def start(self, *sections: str, groups: str = "", site: str = SITE, expect_ready: bool = True) -> None:
        self.write(*sections, groups=groups, site=site)
        self.server.start(expect_ready)

    @property
    def notes(self) -> list[str]:
        path = self.path / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def noted(self, text: str, times: int = 1) -> None:
        wait_until(lambda: self.notes.count(text) >= times, f"not noted {times} times: {text}: {self.notes}")

    def entries(self, name: str) -> list[dict[str, Any]]:
        """Of the processes in status: one for each instance."""
        return [one for one in self.server.status()["processes"] if one.get("companion") == name]

    def entry(self, name: str) -> dict[str, Any]:
        [one] = self.entries(name)
        return one

    def role(self, name: str) -> dict[str, Any]:
        return next(one for one in self.server.status()["companions"] if one["name"] == name)

    def state(self, name: str) -> str:
        return str(self.role(name)["state"])

    def until(self, name: str, *states: str) -> None:
        wait_until(lambda: self.state(name) in states, f"{name} does not become {states}")

    def daemon(self, name: str) -> int:
        path = self.path / f"{name}.daemon"
        wait_until(lambda: path.exists() and path.read_text(), "it has started nobody")
        pid = int(path.read_text())
        path.unlink()
        return pid

    def refused(self, *words: str) -> str:
        result = self.server.ctl(*words, check=False)
        assert result.returncode == 1
        return result.stderr


@pytest.fixture
def place(server: Server) -> Place:
    return Place(server)


def test_what_a_companion_is(place: Place) -> None:
    """S4: its user, directory, umask, environment, privileges and descriptors; its log lines; how status shows it."""
    secret = place.server.file("secret.env", "SECRET=from a file\n")
    secret.chmod(0o600)
    other = {"group": "daemon"} if ROOT else {}
    one = place.section(
        "one", "look=yes", "show=output", directory=place.path, umask="027", environment_file=secret,
        no_new_privs="yes", **other,
    )  # fmt: skip
    two = place.section("two", "look=yes", "NUMBER={instance}", no_new_privs="no")
    place.start(one + "    [[[environment]]]\n    WHERE = 'here, {instance}'\n", two)
    wait_until(lambda: (place.path / "one.json").exists() and (place.path / "two.json").exists(), "they do not start")
    found, plain = (json.loads((place.path / f"{name}.json").read_text()) for name in ("one", "two"))
    shown = place.entry("one")
    assert (shown["kind"], shown["name"], shown["state"], shown["pid"]) == ("companion", "one", "running", found["pid"])
    assert found["directory"] == str(place.path)
    assert plain["directory"] == "/"
    assert (found["umask"], plain["umask"]) == (0o027, 0o022)
    assert (found["status"]["NoNewPrivs"], plain["status"]["NoNewPrivs"]) == ("1", "0")
    environment = found["environment"]
    assert (environment["SECRET"], environment["WHERE"]) == ("from a file", "here, 0")
    assert set(plain["environment"]) - {"PATH", "LANG", "WEBSERVER_WARDEN", "LC_CTYPE"} == set()
    assert plain["argv"][-1] == "NUMBER=0"
    assert found["descriptors"] == [0, 1, 2]
    assert found["status"]["SigBlk"] == "0" * 16
    if ROOT:
        user = pwd.getpwnam(GROUP_USER)
        assert (found["uid"], plain["gid"]) == (user.pw_uid, user.pw_gid)
        assert found["gid"] != user.pw_gid
        assert int(found["status"]["CapBnd"], 16) == 0
    else:
        assert found["uid"] == os.getuid()
    warden = shown["warden"]
    assert found["parent"] == warden
    assert warden in children(place.server.process.pid)
    title = Path(f"/proc/{warden}/cmdline").read_bytes().rstrip(b"\0")
    assert title == b"webserver: companion one"
    line = f"companion one {found['pid']}: this is port 4711, ready to serve"
    wait_until(lambda: line in place.server.log(), "what it writes is not in the log")
    table = place.server.ctl("status").stdout
    assert "companion one" in table
    assert "COMPANION" in table


def test_every_process_comes_through_one_door(place: Place) -> None:
    """S5: one way to start a process, whatever its kind, and each child of the supervisor is one that status knows."""
    package = TREE / "webserver/supervisor"
    text = {path.name: path.read_text() for path in package.glob("*.py")}
    assert [name for name in text if "os.fork(" in text[name] or "import subprocess" in text[name]] == ["spawn.py"]
    assert [name for name in text if re.search(r"import .*\bspawn\b", text[name])] == ["nursery.py"]
    place.start(
        place.section("one"), place.section("two", instances=2),
        groups="[groups]\n  [[plain]]\n  language = echo\n  processes = 1\n",
    )  # fmt: skip
    processes = place.server.status()["processes"]
    kinds = {one.get("warden") or one["pid"]: one["kind"] for one in processes if one["kind"] != "worker"}
    supervisor = place.server.process.pid
    del kinds[supervisor]
    assert sorted(kinds.values()) == ["companion"] * 3 + ["front end"] * 2 + ["logger", "manager"]
    assert children(supervisor) == set(kinds)
    for pid in kinds:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert (os.getsid(pid), status["NoNewPrivs"]) == (pid, "1")
        assert (status["Uid"].split()[0] == "0") is False or not ROOT


def test_ready_and_the_order_of_start_and_end(place: Place) -> None:
    """Each way to be ready; who waits for whom; groups between; and the same backwards at the end. The server's own
    "ready" waits for all."""
    go, made, sock, port = place.path / "go", place.path / "made", place.path / "sock", free_port()
    made.write_text("of another run")
    os.chmod(made, 0o666)
    slow = {"after": "d,"}
    place.start(
        place.section("a", f"go={go}", "show=notify", ready="notify"),
        place.section("b", "show=output", ready="'output:ready to serve$'", after="a,"),
        place.section("c", f"show=file:{made}", ready=f"file:{made}", after="b,"),
        place.section("d", f"show=tcp:{port}", "term=0.3", ready=f"127.0.0.1:{port}", after="c,"),
        place.section("e", f"show=unix:{sock}", "term=0.3", ready=f"unix:{sock}", **slow),
        place.section("f", "lasts=0.2", ready="finished", **slow),
        place.section("g", after="e, f"),
        groups="[groups]\n  [[plain]]\n  language = echo\n  processes = 1\n  after = g,\n",
        site=SITE + "    /plain/ = group:plain\n",
        expect_ready=False,
    )
    place.noted("start a")
    wait_until(lambda: (place.server.directory / "run/control.sock").exists(), "it does not start")
    place.until("a", "starting")
    status = place.server.status()
    assert {one["name"]: one["state"] for one in status["companions"] if one["name"] != "a"} == dict.fromkeys(
        "bcdefg", "waiting"
    )
    [group] = status["groups"]
    assert (group["state"], group["generation"], group["message"]) == ("new", None, "waits for g")
    assert place.notes == ["start a"]
    assert b"ready\n" not in place.server.stderr
    go.touch()
    place.server.wait_for_ready()
    assert place.server.get("/plain/x").status == 200
    assert {one["name"]: one["ready"] for one in place.server.status()["companions"]} == dict.fromkeys("abcdefg", True)
    assert place.entry("a")["said"] == "it works"
    assert (place.state("f"), place.entry("f")["pid"]) == ("ended", None)
    order = place.notes
    for before, after in ("ab", "bc", "cd", "de", "df", "eg"):
        assert order.index(f"ready {before}") < order.index(f"start {after}"), order
    assert order.index("end f") < order.index("start g")
    place.server.stop()
    order = place.notes
    for before, after in ("ge", "ed", "dc", "cb", "ba"):
        assert order.index(f"end {before}") < order.index(f"asked {after}"), order


def test_one_that_fails_stops_nobody_else(place: Place) -> None:
    """Only who waits for it waits, and starts as soon as it works; a loop of failures backs off."""
    place.server.allow("companion bad", "waits for companion bad")
    cure = place.path / "cure"
    script = place.server.file("bad.sh", f"test -e {cure} && exec sleep 1000\nexit 3\n")
    place.start(
        "  [[bad]]\n  command = /bin/sh, " + f"{script}\n" + "".join(f"  {line}\n" for line in group_lines())
        + f"  ready = file:{place.path}/never\n  start_timeout = 0.4s\n",
        place.section("needy", after="bad,"),
        place.section("free"),
        groups="[groups]\n  [[plain]]\n  language = echo\n  processes = 1\n"
        "  [[needs]]\n  language = echo\n  processes = 1\n  after = needy,\n",
        site=SITE + "    /plain/ = group:plain\n    /needs/ = group:needs\n",
    )  # fmt: skip
    assert b"companion bad" in place.server.stderr
    assert place.server.get("/plain/x").status == 200
    assert place.state("free") == "running"
    assert (place.state("needy"), "start needy" in place.notes) == ("waiting", False)
    [needs] = [one for one in place.server.status()["groups"] if one["name"] == "needs"]
    assert "waits for companion needy: it waits for companion bad: " in needs["message"]
    wait_until(lambda: "exited with status 3; started again in 0.2 s" in place.server.log(), "it is not tried again")
    # It works, but never says so: too late is a failure as well.
    cure.touch()
    late = "it was not ready within start_timeout = 0.4s"
    wait_until(lambda: place.role("bad")["message"] == late, "start_timeout has no effect", 40)
    text = place.server.config_file.read_text()
    place.server.configure(text.replace(f"ready = file:{place.path}/never", "ready = started"))
    place.server.ctl("reload")
    place.noted("ready needy")
    wait_until(lambda: place.server.get("/needs/x").status == 200, "the group does not start")
    assert place.notes.count("start free") == 1


def test_a_graceful_end_takes_its_time(place: Place) -> None:
    """S6: as long as it takes, or as long as it may: never a fixed few seconds."""
    release = place.path / "release"
    place.server.allow("companion stubborn did not end")
    place.start(
        place.section("patient", f"term=until:{release}", "tree=yes", stop_timeout="none"),
        place.section("stubborn", "term=ignore", "tree=yes", stop_timeout="0.5s", stop_signal="USR2"),
        place.section("prompt", stop_signal="QUIT"),
        place.section("other", stop_signal="KILL"),
    )
    daemons = [place.daemon("patient"), place.daemon("stubborn")]
    pids = {name: place.entry(name)["pid"] for name in ("patient", "stubborn", "prompt", "other")}
    for name in ("patient", "stubborn", "prompt"):
        place.noted(f"ready {name}")
    place.server.process.send_signal(signal.SIGTERM)
    for name in ("patient", "stubborn", "prompt"):
        place.noted(f"asked {name}")
    killed = "companion stubborn did not end within stop_timeout = 0.5s after SIGUSR2; it is killed"
    wait_until(lambda: killed in place.server.log(), "nobody kills it")
    wait_until(lambda: not alive(pids["stubborn"]) and not alive(daemons[1]), "it lives on")
    for name in ("prompt", "other"):
        wait_until(lambda name=name: not alive(pids[name]), "it lives on")
    assert "end prompt" in place.notes
    time.sleep(0.5)
    assert alive(pids["patient"])
    assert alive(daemons[0]), "what it has started goes with it, not before it"
    assert place.entry("patient")["state"] == "draining"
    release.touch()
    assert place.server.wait_for_end() == 0
    assert "end patient" in place.notes
    assert not alive(daemons[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nobody_outlives_the_server(place: Place, number: int) -> None:
    """A second TERM, INT, or the supervisor's death: whole trees end, whatever they do about it."""
    place.start(place.section("deep", "term=ignore", "tree=yes", stop_timeout="none"))
    daemon, shown = place.daemon("deep"), place.entry("deep")
    place.noted("ready deep")
    everybody = {daemon, shown["pid"], shown["warden"]}
    place.server.process.send_signal(number)
    if number == signal.SIGTERM:
        place.noted("asked deep")
        place.server.process.send_signal(number)
    code = place.server.wait_for_end(10 * SLOWNESS)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    wait_until(lambda: not [*place.server.left(), *filter(alive, everybody)], "somebody is left")
    place.server.process.stderr.close()
    place.server.process = None


def test_a_warden_that_is_killed(place: Place) -> None:
    """Its program ends with it, what that had started is found, and all of it is started again."""
    place.server.allow("companion deep killed by SIGKILL")
    place.start(place.section("deep", "term=ignore", "tree=yes", stop_timeout="0.1s"))
    place.server.allow("companion deep did not end")
    daemon, shown = place.daemon("deep"), place.entry("deep")
    os.kill(shown["warden"], signal.SIGKILL)
    wait_until(lambda: not alive(daemon) and not alive(shown["pid"]), "it has left somebody behind")
    place.noted("ready deep", 2)
    wait_until(lambda: place.entry("deep")["state"] == "running", "it is not started again")
    again = place.entry("deep")
    assert again["pid"] != shown["pid"]
    assert again["restarts"] == 1


def test_restart_policies(place: Place) -> None:
    sections = []
    for restart in ("always", "failure", "never"):
        for status in (0, 3):
            sections.append(place.section(f"{restart}-{status}", f"exit={status}", restart=restart))
    place.server.allow("companion (always|failure|never)-")
    place.start(*sections)
    for name in ("always-0", "always-3", "failure-3"):
        place.noted(f"start {name}", 3)
        assert place.state(name) in ("backoff", "starting", "running")
    for name, state in {"failure-0": "ended", "never-0": "ended", "never-3": "failed"}.items():
        place.until(name, state)
        assert place.notes.count(f"start {name}") == 1
    assert place.role("never-3")["message"] == "exited with status 3"
    log = place.server.log()
    assert "companion always-3 exited with status 3; started again in 0.1 s" in log
    assert "companion always-3 exited with status 3; started again in 0.2 s" in log
    assert "error: companion never-0" not in log


def test_instances(place: Place) -> None:
    """Numbered; restarted one after the other, each only when the one before is ready; more and fewer by a reload."""
    section = place.section("many", "number={instance}", "show=notify", ready="notify", instances=3)
    place.start(section.replace(" many, number", " many{instance}, number"))
    assert [one["name"] for one in place.entries("many")] == ["many 0", "many 1", "many 2"]
    before = [one["pid"] for one in place.entries("many")]
    assert len(set(before)) == 3
    place.server.ctl("restart", "many")
    after = [one["pid"] for one in place.entries("many")]
    assert not set(before) & set(after)
    order = place.notes[6:]
    assert order == [
        text for n in range(3) for text in (f"asked many{n}", f"end many{n}", f"start many{n}", f"ready many{n}")
    ]
    text = place.server.config_file.read_text()
    place.server.configure(text.replace("instances = 3", "instances = 2"))
    place.server.ctl("reload")
    wait_until(lambda: [one["pid"] for one in place.entries("many")] == after[:2], "the third does not end")
    assert place.notes[-1] == "end many2"
    place.server.configure(text.replace("instances = 3", "instances = 4"))
    place.server.ctl("reload")
    pids = [one["pid"] for one in place.entries("many")]
    assert (pids[:2], len(pids)) == (after[:2], 4)


def test_a_restart_that_fails_goes_no_further(place: Place) -> None:
    place.server.allow("companion many 0")
    broken = place.path / "broken"
    script = place.server.file("run.sh", f"test -e {broken} && exit 9\necho works\nexec sleep 1000\n")
    users = "".join(f"  {line}\n" for line in group_lines())
    place.start(f"  [[many]]\n  command = /bin/sh, {script}\n  instances = 2\n  ready = output:works\n{users}")
    before = [one["pid"] for one in place.entries("many")]
    broken.touch()
    assert "companion many: exited with status 9" in place.refused("restart", "many")
    assert place.entries("many")[1]["pid"] == before[1], "the second was touched as well"
    broken.unlink()
    wait_until(lambda: place.role("many")["ready"], "the first does not come back")


def test_reload(place: Place) -> None:
    """It adds, removes and restarts those that changed, each with its own graceful end, and leaves the others alone."""
    place.start(
        place.section("kept"),
        place.section("changed", "term=0.2"),
        place.section("softly", stop_timeout="5s"),
        place.section("going", "term=0.2"),
    )
    for name in ("kept", "changed", "softly", "going"):
        place.noted(f"ready {name}")
    before = {name: place.entry(name)["pid"] for name in ("kept", "changed", "softly", "going")}
    place.write(
        place.section("kept"),
        place.section("changed", "term=0.2", umask="077"),
        place.section("softly", stop_timeout="6s"),
        place.section("new", "show=notify", ready="notify"),
        groups="[groups]\n  [[plain]]\n  language = echo\n  processes = 1\n  after = new,\n",
        site=SITE + "    /plain/ = group:plain\n",
    )
    place.server.ctl("reload")
    assert place.server.get("/plain/x").status == 200
    assert place.notes.index("ready new") > place.notes.index("start kept")
    for name in ("kept", "softly"):
        assert place.entry(name)["pid"] == before[name]
    place.noted("end changed")
    place.noted("start changed", 2)
    place.noted("end going")
    wait_until(
        lambda: not [one for one in place.server.status()["companions"] if one["name"] == "going"], "it is there"
    )
    assert not alive(before["going"])
    # A mistake, and a new one that groups wait for and that does not start: nothing changes.
    text = place.server.config_file.read_text()
    now = [one["pid"] for one in place.server.status()["processes"]]
    place.server.configure(text.replace("after = new,", "after = new2,"))
    assert 'there is no companion "new2"; did you mean "new"?' in place.refused("reload")
    place.server.allow("companion worse", "reload: ")
    users = "".join(f"  {line}\n" for line in group_lines())
    worse = f"[companions]\n  [[worse]]\n  command = /bin/false,\n  ready = notify\n{users}"
    place.server.configure(text.replace("[companions]\n", worse).replace("after = new,", "after = new, worse"))
    assert "companion worse: exited with status 1" in place.refused("reload")
    wait_until(lambda: [one["pid"] for one in place.server.status()["processes"]] == now, "something has changed")


def test_timers(place: Place) -> None:
    """Every so often, never two at once; a limit for a run; by hand; a failure is tried again only if it says so."""
    place.server.allow("companion (long|broken|tried)")
    place.start(
        place.section("short", "lasts=0.05", every="1s"),
        place.section("long", "lasts=1.6", every="1s"),
        place.section("stuck", every="1h", timeout="2s"),
        place.section("broken", "exit=4", every="1h"),
        place.section("tried", "exit=5", every="1h", restart="failure"),
        place.section("daily", at="03:15, mon-fri 22:00"),
    )
    began = time.time()
    assert {place.state(name) for name in ("stuck", "broken", "daily")} == {"waiting"}, "the first is not at the start"
    due = place.role("daily")["next_run"]
    assert due[11:] in ("03:15:00", "22:00:00")
    assert began < time.mktime(time.strptime(due, "%Y-%m-%d %H:%M:%S")) <= began + 86400 + 7200
    assert place.role("stuck")["next_run"] > time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(began + 3000))
    place.server.ctl("start", "stuck")
    place.noted("start stuck")
    assert "there are never two" in place.server.ctl("start", "stuck").stderr
    place.noted("end stuck")
    wait_until(lambda: place.role("stuck")["message"] == "it ran longer than timeout = 2s", "that is not said")
    assert place.state("stuck") == "waiting"
    place.server.allow("companion stuck it ran longer")
    for name in ("broken", "tried"):
        place.server.ctl("start", name, check=False)
    place.noted("start tried", 2)
    place.until("broken", "waiting")
    assert place.notes.count("start broken") == 1
    place.noted("end short", 3)
    place.noted("end long", 2)
    running = 0
    for text in [text for text in place.notes if text.endswith(" long") and "ready" not in text]:
        running += 1 if text == "start long" else -1
        assert running in (0, 1), place.notes
    assert place.role("long")["skipped"] >= 1
    assert place.server.logged("companion long: its run goes on when the next is due")
    # Stopped by hand its times do not count, until it is started again.
    place.server.ctl("stop", "short")
    assert place.role("short")["next_run"] is None
    count = place.notes.count("start short")
    time.sleep(1.2)
    assert place.notes.count("start short") == count
    place.server.ctl("start", "short")
    place.noted("start short", count + 2)


@pytest.mark.long
@pytest.mark.timeout(200)
def test_a_run_at_a_time_of_day(place: Place) -> None:
    at = time.strftime("%H:%M", time.localtime(time.time() + 60))
    place.start(place.section("soon", "lasts=0.1", at=at))
    wait_until(lambda: "end soon" in place.notes, "it is not run", 130)
    assert time.strftime("%H:%M") >= at or at.startswith("00")


def test_by_hand(place: Place) -> None:
    """webserverctl start, stop and restart for one companion; wrong names are refused with the right ones."""
    place.start(place.section("one", "term=0.2"), place.section("two", after="one,"))
    first = {name: place.entry(name)["pid"] for name in ("one", "two")}
    place.noted("ready one")
    place.server.ctl("stop", "one")
    assert place.notes[-1] == "end one", "it has returned before the end"
    assert (place.state("one"), place.entry("one")["pid"]) == ("ended", None)
    assert place.entry("two")["pid"] == first["two"], "who waited for it is left alone"
    place.server.ctl("stop", "one")
    place.server.ctl("reload")
    assert place.state("one") == "ended", "a reload that changes nothing starts what was stopped"
    place.server.ctl("start", "one")
    assert place.state("one") == "running"
    assert "it runs already" in place.server.ctl("start", "one").stderr
    pid = place.entry("one")["pid"]
    place.server.ctl("restart", "one")
    assert place.entry("one")["pid"] not in (pid, first["one"])
    for words in (("start", "three"), ("stop", "three")):
        assert "there is no companion 'three'; there are: one, two" in place.refused(*words)
    answer = json.loads(place.server.ctl("stop", "two", "--json").stdout)
    assert answer["ok"] is True


def test_requests_are_served_while_companions_come_and_go(place: Place) -> None:
    place.server.allow("companion (loop|dies)")
    place.start(place.section("loop", "exit=1"), place.section("dies"))
    for _ in range(4):
        pid = place.entry("dies")["pid"]
        os.kill(pid, signal.SIGSEGV)
        assert place.server.get("/").status == 200
        wait_until(lambda pid=pid: place.entry("dies")["pid"] not in (pid, None), "it does not come back")
    with place.server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_all(sock).endswith(b"from a file")
    assert place.server.logged("companion dies killed by SIGSEGV")


def test_redis(place: Place) -> None:
    """A published program: it says itself that it is ready, and is given the time to write down what it holds."""
    sock = place.path / "redis.sock"
    users = "".join(f"  {line}\n" for line in group_lines())
    place.start(
        f"  [[redis]]\n  command = /usr/bin/redis-server, --port, 0, --unixsocket, {sock}, --dir, {place.path},"
        f" --save, 3600 1, --supervised, systemd\n  ready = notify\n{users}"
    )
    wait_until(lambda: place.entry("redis")["said"] == "Ready to accept connections", "it does not say so")
    assert redis(sock, "SET", "key", "value") == b"+OK\r\n"
    place.server.ctl("restart", "redis")
    assert place.server.logged("User requested shutdown")
    assert redis(sock, "GET", "key") == b"$5\r\nvalue\r\n"
    place.server.stop()
    assert (place.path / "dump.rdb").stat().st_size > 50


def redis(path: Path, *words: str) -> bytes:
    """One command and its answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10 * SLOWNESS)
        sock.connect(str(path))
        sock.sendall(f"*{len(words)}\r\n".encode() + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
        return sock.recv(4096)
