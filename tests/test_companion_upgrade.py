"""Companions in an upgrade: who is the same goes on and changes hands, who is not is ended before it is started again.

Each that has a lock finds out itself whether it runs twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import GROUP_USER, SLOWNESS, Server, alive, children, group_lines, program, wait_until
from test_companions import SITE, Place
from test_upgrade import end_all, named, supervisors, upgraded
from under_load import Load, busy

from webserver.supervisor.companion_handover import Before
from webserver.supervisor.loop import Loop

GROUPS = "[groups]\n  [[plain]]\n  language = echo\n  processes = 1\n"
PLAIN = SITE + "    /plain/ = group:plain\n"


@pytest.fixture
def place(server: Server) -> Iterator[Place]:
    one = Place(server)
    yield one
    assert "twice" not in " ".join(one.notes), one.notes
    end_all(server)


def locked(place: Place, name: str, *options: str, **settings: object) -> str:
    return place.section(name, f"lock={place.path}/{name}.lock", *options, **settings)


def upgrade(place: Place) -> None:
    before = named(place.server)
    place.server.ctl("upgrade")
    upgraded(place.server, before)


def pids(place: Place, name: str) -> list[tuple[int, int]]:
    """(program, warden) of each instance."""
    return [(one["pid"], one["warden"]) for one in place.entries(name)]


def test_what_is_the_same_goes_on(place: Place) -> None:
    """S6: three server programs under load, one process; its state, its log and its end are the last one's business."""
    said = place.server.file("said", "")
    said.chmod(0o666)
    place.start(
        locked(place, "kept", "show=notify", "term=0.2", "tree=yes", ready="notify", stop_timeout="20s"),
        locked(place, "many", "number={instance}", instances=2).replace("many.lock", "many{instance}.lock"),
        locked(place, "talks", f"say={said}"),
        locked(place, "done", ready="finished").replace("done.lock", "done.lock, lasts=0.05"),
        locked(place, "stopped"),
        locked(place, "never", "exit=0", restart="never"),
        groups=GROUPS + "  after = kept, done\n",
        site=PLAIN,
    )
    place.server.ctl("stop", "stopped")
    place.until("never", "ended")
    daemon = place.daemon("kept")
    before = {name: pids(place, name) for name in ("kept", "many", "talks")}
    starts = [note for note in place.notes if note.startswith("start")]
    with Load(place.server, ["/plain/x", "/index.html"]) as load:
        for number in range(2):
            with said.open("a") as file:
                file.write(f"before {number}\n")
            upgrade(place)
            with said.open("a") as file:
                file.write(f"after {number}\n")
            place.noted("start kept")
            load.progress()
    assert load.lost == []
    assert load.answers == {200: load.asked}
    assert {name: pids(place, name) for name in before} == before
    assert [note for note in place.notes if note.startswith("start")] == starts
    kept = place.entry("kept")
    assert (kept["state"], kept["ready"], kept["said"], kept["restarts"]) == ("running", True, "it works", 0)
    assert {name: place.state(name) for name in ("done", "stopped", "never")} == dict.fromkeys(
        ("done", "stopped", "never"), "ended"
    )
    assert place.role("done")["ready"]
    talks = before["talks"][0][0]
    for line in ("before 0", "after 0", "before 1", "after 1"):
        wait_until(lambda line=line: f"companion talks {talks}: {line}\n" in place.server.log(), f"lost: {line}")
        assert place.server.log().count(f": {line}\n") == 1
    # The program that has it now does with it what it is told: restart, start, an end in order.
    place.server.ctl("restart", "kept")
    place.noted("start kept", 2)
    wait_until(lambda: not alive(daemon), "what it had started is left")
    assert place.entry("kept")["pid"] != before["kept"][0][0]
    place.server.ctl("start", "stopped")
    place.noted("start stopped", 2)
    place.server.stop()
    for name in ("kept", "many", "talks"):
        assert place.notes.count(f"asked {name}") == place.notes.count(f"end {name}") > 0


def test_who_is_not_the_same_is_ended_first(place: Place) -> None:
    """Changed, removed, new, with other rules, one instance less; while the old program has a request to finish."""
    ended = locked(place, "changed", "term=0.3")
    fewer = locked(place, "fewer", "number={instance}", instances=2).replace("fewer.lock", "fewer{instance}.lock")
    place.start(
        ended, locked(place, "going", "term=0.3"), locked(place, "rules", stop_timeout="5s"), fewer,
        locked(place, "needs", after="changed,"), groups=GROUPS, site=PLAIN,
    )  # fmt: skip
    for name in ("changed", "going", "rules", "needs"):
        place.noted(f"ready {name}")
    before = {name: pids(place, name) for name in ("changed", "going", "rules", "fewer", "needs")}
    place.write(
        ended + "  umask = 077\n", locked(place, "rules", stop_timeout="6s"), fewer.replace("instances = 2", ""),
        locked(place, "needs", after="changed,"), locked(place, "new"), locked(place, "first", "show=notify", ready="notify"),
        groups=GROUPS + "  after = first,\n", site=PLAIN,
    )  # fmt: skip
    pid = named(place.server)
    with place.server.connect() as slow:
        slow.sendall(b"GET /plain/sleep/%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % (5000 * SLOWNESS))
        wait_until(lambda: busy(place.server, "plain") == 1, "the sleeper does not run")
        place.server.ctl("upgrade")
        # The group's new one was there before its group; others when the new program serves.
        assert "ready first" in place.notes
        place.noted("ready new")
        place.noted("end fewer")
        wait_until(lambda: pids(place, "fewer") == before["fewer"][:1], "it is not handed over")
        for name in ("rules", "needs"):
            wait_until(lambda name=name: pids(place, name) == before[name], "it is not handed over")
        # What the old program's requests may need goes on until they are done, and nothing runs beside it.
        assert place.state("changed") == "waiting"
        assert alive(before["changed"][0][0])
        assert "asked changed" not in place.notes
        assert slow.recv(12) == b"HTTP/1.1 200"
    upgraded(place.server, pid)
    place.noted("start changed", 2)
    order = place.notes
    assert order.index("end changed") < len(order) - 1 - order[::-1].index("start changed")
    assert not alive(before["going"][0][0])
    assert "end going" in order
    assert [one["name"] for one in place.server.status()["companions"]] == [
        "changed", "fewer", "first", "needs", "new", "rules",
    ]  # fmt: skip
    wait_until(lambda: place.role("changed")["ready"], "it does not come back")


def test_an_upgrade_that_fails_changes_nothing(place: Place) -> None:
    """Also of a new companion, which the new program had to try, nothing is left."""
    place.server.allow("upgrade: ", "supervisor: webserverd: ", "group bad", "companion worse")
    sections = [locked(place, "kept", "show=notify", ready="notify"), locked(place, "tick", "lasts=0.01", every="1s")]
    place.start(*sections, groups=GROUPS + "  after = kept,\n", site=PLAIN)
    text = place.server.config_file.read_text()
    before, program_before = pids(place, "kept"), named(place.server)
    broken = place.server.file("bad.wsgi", "def application(:\n")
    users = "".join(f"  {line}\n" for line in group_lines())
    # A program that works, with a group that does not any more; and one whose group waits for what does not start.
    bad = f"  [[bad]]\n  language = python\n  application = {broken}\n"
    good = place.server.file("good.wsgi", "def application(e, s):\n    s('200 OK', [])\n    return []\n")
    working = f"{bad}{users}".replace(str(broken), str(good))
    place.server.configure(text.replace("[companions]", working + "[companions]"))
    place.server.ctl("reload")
    changed = locked(place, "kept", "show=notify", ready="notify", umask="077")
    extra = locked(place, "extra", "show=notify", ready="notify")
    place.write(
        changed, sections[1], extra, groups=GROUPS + "  after = kept, extra\n" + bad, site=PLAIN,
    )  # fmt: skip
    result = place.server.ctl("upgrade", check=False)
    assert result.returncode == 1
    assert "bad.wsgi:1" in result.stderr
    assert named(place.server) == program_before
    assert pids(place, "kept") == before
    assert place.notes.count("start kept") == 1
    assert "asked kept" not in place.notes
    assert place.notes.count("start extra") == 1
    wait_until(lambda: not running(place, "extra"), "what the failed program has started is left")
    worse = f"  [[worse]]\n  command = /bin/false,\n  ready = notify\n{users}"
    place.write(
        *sections, worse, groups=GROUPS + "  after = kept, worse\n", site=PLAIN,
    )  # fmt: skip
    result = place.server.ctl("upgrade", check=False)
    assert result.returncode == 1
    assert "worse" in result.stderr
    assert pids(place, "kept") == before
    # The timer has gone on, in the one program only.
    count = place.notes.count("start tick")
    place.noted("start tick", count + 2)
    assert gaps(place, "tick") == []


def running(place: Place, name: str) -> list[int]:
    """Processes of the companion program with this name, whoever has started them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[-1:] == [b""] and str(place.path).encode() in words and name.encode() in words:
                found.append(int(path.parent.name))
    return found


def gaps(place: Place, name: str) -> list[str]:
    """Where a companion's runs overlap, in its notes."""
    now, wrong = 0, []
    for note in place.notes:
        if note in (f"start {name}", f"end {name}"):
            now += 1 if note.startswith("start") else -1
            if now not in (0, 1):
                wrong.append(note)
    return wrong


def test_timers_run_once(place: Place) -> None:
    """Their grid goes on, what is due between two programs is run, and a run that is under way is nobody's second."""
    go = place.path / "go"
    place.start(
        locked(place, "tick", "lasts=0.02", every="1s"),
        locked(place, "long", f"go={go}", "lasts=0", every="1h"),
        locked(place, "other", f"go={go}", "lasts=0", every="1h"),
        locked(place, "daily", "lasts=0.1", at="03:15"),
        locked(place, "off", "lasts=0.1", every="1s"),
        groups=GROUPS,
        site=PLAIN,
    )
    began = time.monotonic()
    place.server.ctl("stop", "off")
    due = {name: place.role(name)["next_run"] for name in ("long", "daily")}
    place.server.ctl("start", "long")
    place.server.ctl("start", "other")
    for name in ("long", "other"):
        place.noted(f"start {name}")
    run = place.entry("long")["pid"]
    off = place.notes.count("start off")
    text = place.server.config_file.read_text()
    other = locked(place, "other", f"go={go}", "lasts=0", every="1h")
    for number in range(3):
        place.server.configure(text.replace(other, other + f"  umask = 02{number}\n"))
        upgrade(place)
        assert place.entry("long")["pid"] == run
    assert due == {name: place.role(name)["next_run"] for name in ("long", "daily")}
    go.touch()
    place.noted("end long")
    assert place.notes.count("start long") == 1
    assert place.notes.count("start other") == 1, "a run that was asked to end is not run again"
    place.noted("start tick", 3)
    lasted = time.monotonic() - began
    ticks = place.notes.count("start tick")
    assert lasted - 2 - SLOWNESS <= ticks <= lasted + 2
    for name in ("tick", "long", "other"):
        assert gaps(place, name) == []
    assert place.notes.count("start off") == off
    assert place.state("off") == "ended"


def test_what_has_changed_hands_is_looked_after(place: Place) -> None:
    """Its death, its warden's death with what is left behind, and the death of the server."""
    place.server.allow("companion deep", "companion dies")
    place.start(locked(place, "deep", "term=ignore", "tree=yes", stop_timeout="0.1s"), locked(place, "dies"))
    daemon, before = place.daemon("deep"), pids(place, "deep")
    upgrade(place)
    assert pids(place, "deep") == before
    os.kill(place.entry("dies")["pid"], signal.SIGSEGV)
    place.noted("start dies", 2)
    assert place.server.logged("companion dies killed by SIGSEGV; started again in 0.1 s")
    os.kill(before[0][1], signal.SIGKILL)
    wait_until(lambda: not alive(daemon) and not alive(before[0][0]), "it has left somebody behind")
    place.noted("start deep", 2)
    assert place.server.logged("companion deep ended without a word; started again")
    upgrade(place)
    everybody = {pid for name in ("deep", "dies") for pair in pids(place, name) for pid in pair} | {
        place.daemon("deep")
    }
    os.kill(named(place.server), signal.SIGKILL)
    assert place.server.process is not None
    assert place.server.wait_for_end() == 128 + signal.SIGKILL
    wait_until(lambda: not [pid for pid in everybody if alive(pid)], "somebody outlives the server")
    wait_until(lambda: not place.server.left(), "processes are left behind")
    assert place.server.process.stderr is not None
    place.server.process.stderr.close()
    place.server.process = None


def test_the_program_before_dies_while_it_finishes(place: Place) -> None:
    """What it had still ends with it, and only then is started; what it had given away knows nothing of it."""
    place.server.allow("companion changed", "502")
    changed = locked(place, "changed", "term=ignore", "tree=yes", stop_timeout="0.5s")
    place.start(locked(place, "kept"), changed, groups=GROUPS, site=PLAIN)
    place.noted("ready changed")
    kept, old = pids(place, "kept"), pids(place, "changed")
    daemon = place.daemon("changed")
    place.write(locked(place, "kept"), changed + "  umask = 077\n", groups=GROUPS, site=PLAIN)
    with place.server.connect() as slow:
        slow.sendall(b"GET /plain/sleep/60000 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: busy(place.server, "plain") == 1, "the sleeper does not run")
        before = named(place.server)
        # In the foreground the process that dies would be the one that stands in for all.
        place.server.ctl("upgrade")
        wait_until(lambda: pids(place, "kept") == kept, "it is not handed over")
        assert supervisors(place.server)["before"] == before
        assert place.state("changed") == "waiting"
        os.kill(before, signal.SIGKILL)
    place.noted("start changed", 2)
    assert not alive(old[0][0])
    assert not alive(daemon)
    assert pids(place, "kept") == kept
    assert place.server.process is not None
    place.server.process.wait()
    place.server.look()
    pid = named(place.server)
    everybody = [one["pid"] for one in place.server.status()["processes"] if one["pid"]]
    place.server.ctl("stop")
    wait_until(lambda: not [one for one in (pid, *everybody) if alive(one)], "it does not end")
    assert "end kept" in place.notes
    assert place.server.process.stderr is not None
    place.server.process.stderr.close()
    place.server.process = None


@pytest.mark.long
def test_a_logger_that_hangs_meanwhile(place: Place) -> None:
    """Its pipe is asked back from the old logger, which says nothing: it is replaced, and the companion goes on."""
    place.server.allow("logger")
    said = place.server.file("said", "")
    said.chmod(0o666)
    place.start(locked(place, "talks", f"say={said}"), groups=GROUPS, site=PLAIN)
    talks, before = pids(place, "talks"), named(place.server)
    os.kill(place.server.pids("logger")[0], signal.SIGSTOP)
    place.server.ctl("upgrade")
    with said.open("a") as file:
        file.write("while it hangs\n")
    upgraded(place.server, before)
    assert pids(place, "talks") == talks
    line = f"companion talks {talks[0][0]}: while it hangs\n"
    wait_until(lambda: line in place.server.log(), "what it has said is lost")
    assert place.notes == ["start talks", "ready talks"]


def test_in_the_background(place: Place) -> None:
    """The old program ends for good, and its wardens are nobody's children."""
    place.write(locked(place, "kept", "tree=yes"), groups=GROUPS, site=PLAIN)
    subprocess.run(
        [program("webserverd"), "--config", str(place.server.config_file)], check=True, timeout=60 * SLOWNESS
    )
    first = named(place.server)
    try:
        kept, daemon = pids(place, "kept"), place.daemon("kept")
        os.kill(first, signal.SIGUSR2)
        second = upgraded(place.server, first)
        wait_until(lambda: not alive(first), "the program before is left")
        assert pids(place, "kept") == kept
        assert not children(second) & {kept[0][1]}
        place.server.ctl("restart", "kept")
        assert pids(place, "kept") != kept
        wait_until(lambda: not alive(daemon), "what it had started is left")
        upgrade(place)
        last = pids(place, "kept")
        third = named(place.server)
        place.server.ctl("stop")
        wait_until(lambda: not alive(third), "it does not end")
        assert not alive(last[0][0])
        assert place.notes.count("end kept") == 2
    finally:
        pid = named(place.server)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_program_that_tells_nothing_keeps_them_until_it_ends() -> None:
    loop = Loop(lambda error: None)
    changes = []
    before = Before(loop, lambda: changes.append(1), told=False)
    assert before.has("any")
    before.end()
    assert not before.has("any")
    assert changes == [1]
    loop.close()


def test_what_has_died_with_its_program_is_waited_for() -> None:
    """A warden that still ends what is below it, when its supervisor is dead."""
    loop = Loop(lambda error: None)
    before = Before(loop, lambda: None)
    with subprocess.Popen(["/bin/sleep", "1000"]) as one:
        process = os.pidfd_open(one.pid)
        before.there({"op": "companion-there", "name": "a", "mark": "x"}, fds := {"0": process})
        assert fds == {}
        again = {"0": os.pidfd_open(one.pid)}
        before.there({"op": "companion-there", "name": "a", "mark": "x"}, again)
        os.close(again["0"])
        before.end()
        assert before.has("a")
        one.kill()
        one.wait()
        wait_until(lambda: loop.turn(0.01) or not before.has("a"), "its end is not seen")
    before.close()
    loop.close()


@pytest.mark.root
def test_whom_they_run_as(place: Place) -> None:
    """With another user it is another companion."""
    place.start(locked(place, "one", "look=yes"))
    place.noted("ready one")
    before = pids(place, "one")
    text = place.server.config_file.read_text()
    place.server.configure(text.replace(f"user = {GROUP_USER}", "user = games"))
    (place.path / "one.lock").chmod(0o666)
    (place.path / "notes").chmod(0o666)
    (place.path / "one.json").unlink()
    upgrade(place)
    place.noted("start one", 2)
    assert pids(place, "one") != before
    wait_until(lambda: (place.path / "one.json").exists(), "it does not run")
    assert json.loads((place.path / "one.json").read_text())["uid"] != 65534
