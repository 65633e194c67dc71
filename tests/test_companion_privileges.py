"""What a companion's processes may do, as the kernel tells it: the same options as a group's, by the same code.

Both processes are looked at, the warden and its program: what the one has the other has.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import seccomp
from config_machine import PlainMachine
from serving import GROUP_USER, Server, directory
from test_cgroups import Said, imitation
from test_companions import PROGRAM, Place
from test_privileges import (
    BIND,
    LIMITED,
    LOCKED,
    NOTHING,
    SETS,
    checked,
    gid,
    in_jail,
    is_limited,
    limits,
    look,
    own,
    status,
)

from webserver.config import Companion, ConfigErrors, load
from webserver.config.limits import CAPABILITIES
from webserver.supervisor.cgroups import Cgroups, settings
from webserver.supervisor.cgroups import Place as CgroupPlace
from webserver.supervisor.companion_records import companion_process
from webserver.supervisor.identity import own_identity
from webserver.supervisor.loop import Loop


@pytest.fixture
def place(server: Server) -> Place:
    one = Place(server)
    (one.path / "notes").touch()
    (one.path / "notes").chmod(0o666)  # companions of several users write there
    return one


def both(place: Place, name: str) -> list[int]:
    """The warden and its program."""
    entry = place.entry(name)
    return [entry["warden"], entry["pid"]]


def user_of(section: str, user: str) -> str:
    return section.replace(f"user = {GROUP_USER}", f"user = {user}")


@pytest.mark.root
def test_every_process_is_who_it_should_be(place: Place) -> None:
    """S37 for companions: uids, gids, groups, capabilities, no_new_privs and securebits of real users, from /proc."""
    kept = 1 << BIND | 1 << CAPABILITIES.index("sys_nice")
    place.start(
        user_of(place.section("plain"), "games"),
        user_of(place.section("grouped", group="daemon", groups="news, lp"), "mail"),
        user_of(place.section("kept", "look=yes", capabilities="net_bind_service, sys_nice"), "news"),
        user_of(place.section("mailer", no_new_privs="no"), "backup"),
    )
    account = {name: pwd.getpwnam(name) for name in ("games", "mail", "news", "backup")}
    sets = dict.fromkeys(SETS, f"{kept:016x}")
    expected = {
        "plain": (account["games"], None, own("games"), NOTHING, "1"),
        "grouped": (account["mail"], 1, {1, gid("news"), gid("lp")}, NOTHING, "1"),
        "kept": (account["news"], None, own("news"), sets, "1"),
        "mailer": (account["backup"], None, own("backup"), {**NOTHING, "CapBnd": None}, "0"),
    }
    for name in expected:
        place.noted(f"ready {name}")
    for name, (user, group, groups, wanted, no_new_privs) in expected.items():
        for pid in both(place, name):
            look(status(pid), user.pw_uid, user.pw_gid if group is None else group, groups, wanted, no_new_privs)
    found = json.loads((place.path / "kept.json").read_text())
    assert found["securebits"] == LOCKED


@pytest.mark.unsanitized  # AddressSanitizer wants terabytes of address space, limit_as gives two gigabytes
def test_limits_and_nice(place: Place) -> None:
    place.start(place.section("one", limit_nofile="20:30", **LIMITED), place.section("other"))
    for name in ("one", "other"):
        place.noted(f"ready {name}")
    for pid in both(place, "one"):
        is_limited(pid, ("20", "30"))
    for pid in both(place, "other"):
        assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0)
        assert limits(pid)["Max core file size"] == limits(os.getpid())["Max core file size"]


@pytest.mark.root
def test_namespaces(place: Place) -> None:
    """`ready` is looked at inside: what listens on the loopback of its own network is found there and only there."""
    place.start(
        place.section("one", "show=tcp:4711", ready="127.0.0.1:4711", namespaces="ipc, uts, net"),
        place.section("other"),
    )
    assert place.role("one")["ready"]
    assert place.server.process is not None
    for name in ("ipc", "uts", "net", "mnt", "pid"):
        ours = os.readlink(f"/proc/{place.server.process.pid}/ns/{name}")
        for pid in both(place, "one"):
            assert (os.readlink(f"/proc/{pid}/ns/{name}") != ours) == (name in ("ipc", "uts", "net"))
        for pid in both(place, "other"):
            assert os.readlink(f"/proc/{pid}/ns/{name}") == ours


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory for programs and notes that is not below /tmp."""
    with directory("/srv") as path:
        path.chmod(0o777)
        yield path


@pytest.mark.root
def test_private_tmp(place: Place, elsewhere: Path) -> None:
    words = {"private_tmp": "1m", "instances": 2}
    place.server.file("public/x", "")
    place.write(place.section("one", **words).replace("/usr/bin/python3", str(place.program), 1))
    assert "private_tmp: hides command, " in checked(place.server)
    program = elsewhere / "program.py"
    program.write_text(PROGRAM.read_text())
    section = place.section("one", "show=file:/tmp/{instance}", ready="file:/tmp/0", **words)
    section = section.replace(str(place.program), str(program)).replace(f"{place.path}, one", f"{elsewhere}, one")
    place.start(section.replace("file:/tmp/{instance}", "file:/tmp/0"))
    assert place.role("one")["ready"]
    assert not os.path.exists("/tmp/0")
    seen = []
    for entry in place.entries("one"):
        for pid in (entry["warden"], entry["pid"]):
            mounted = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
            tmp = [line for line in mounted if " /tmp rw" in line or " /var/tmp rw" in line]
            assert len(tmp) == 2
            assert all("rw,nosuid,nodev" in line and "size=1024k" in line for line in tmp)
        assert Path(f"/proc/{entry['pid']}/root/tmp/0").read_text() == "here\n"
        seen.append(os.stat(f"/proc/{entry['pid']}/root/tmp").st_dev)
    assert len(set(seen)) == 2, "instances share it"
    place.server.stop()  # while there is somewhere to note it


@pytest.mark.root
@pytest.mark.unsanitized
def test_chroot(place: Place) -> None:
    jail = place.server.directory / "jail"
    jail.mkdir()
    place.write(place.section("one", chroot=jail))
    said = checked(place.server)
    assert f"/usr does not exist, in {jail}" in said
    assert f"mkdir -p {jail}/proc\n" in said
    in_jail(jail)
    (jail / "notes").mkdir(mode=0o777)
    (jail / "notes").chmod(0o777)
    (jail / "program.py").write_text(PROGRAM.read_text())
    for line in said.splitlines():
        before, _, path = line.partition("; mkdir -p ")
        if path:
            Path(path).mkdir(parents=True, exist_ok=True)
    section = place.section("one", "show=file:/notes/here", ready="file:/notes/here", directory="/notes", chroot=jail)
    section = section.replace(str(place.program), "/program.py").replace(str(place.path), "/notes")
    place.start(section)
    assert place.role("one")["ready"]
    for pid in both(place, "one"):
        assert os.readlink(f"/proc/{pid}/root") == str(jail)
    assert os.readlink(f"/proc/{both(place, 'one')[1]}/cwd") == str(jail / "notes")
    assert (jail / "notes/here").read_text() == "here\n"
    # The warden needs no library from there, and says what is missing of the program.
    place.server.allow("companion one")
    (jail / "usr/bin/python3").unlink()
    assert "/usr/bin/python3: No such file or directory" in place.refused("restart", "one")


@pytest.mark.root
def test_a_step_that_fails_execs_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: nothing of it runs, one message names the step, it is given up, and everybody else goes on."""
    place.server.allow("could not be started", "not tried again", "has failed to start", "waits for companion")
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", partial(start, preexec_fn=lambda: seccomp.refuse("unshare", errno.EPERM)))
    place.start(
        place.section("good"),
        place.section("bad", namespaces="ipc"),
        groups="[groups]\n  [[needs]]\n  language = echo\n  processes = 1\n  after = bad,\n",
    )
    monkeypatch.undo()
    place.noted("ready good")
    said = "could not be started: namespaces: Operation not permitted"
    role = place.role("bad")
    assert (role["state"], role["message"]) == ("failed", said)
    assert (place.entry("bad")["warden"], place.entry("bad")["restarts"]) == (None, 0)
    line = f"companion bad {said}; it is not tried again before somebody asks"
    assert place.server.logged(line).count(line) == 1
    [group] = place.server.status()["groups"]
    assert f"it waits for companion bad: {said}" in group["message"]
    assert "start bad" not in place.notes
    assert said in place.refused("start", "bad")


CONTROLLED = "memory_max = 64m\ncpu_weight = 50\npids_max = 40\n"


def companion(path: Path, lines: str) -> Companion:
    file = path / "alone" / "w.conf"
    file.parent.mkdir()
    file.write_text(f"[companions]\n[[shop]]\ncommand = /bin/sh,\n{lines}")
    (found,) = load(str(file), PlainMachine()).companions
    return found


@pytest.fixture
def loop() -> Iterator[Loop]:
    one = Loop(lambda error: None)
    yield one
    one.close()


def test_a_cgroup_for_each_start(server: Server, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    one = companion(server.directory, CONTROLLED)
    assert {setting.option for setting in settings(one)} == {"memory_max", "cpu_weight", "pids_max"}
    said = Said()
    where = imitation(server.directory / "fs", monkeypatch, "cpu memory pids")
    cgroups = Cgroups(loop, said, "/run/x", where)
    path = Path(cgroups.make(one, "0.1"))
    assert path.name == "companion:shop.0.1"
    assert (path / "memory.max").read_text() == str(64 << 20)
    assert (path / "cpu.weight").read_text() == "50"
    assert (path / "pids.max").read_text() == "40"
    process = companion_process(one, 0, own_identity(), (20, 30), 0, 1, str(path))
    assert process.cgroup == str(path)
    # What is left in it when the companion has ended is killed with it.
    cgroups.remove(str(path), kill=True)
    assert not path.exists()
    cgroups.close()
    assert said.warnings == []


def test_a_cgroup_changes_hands(server: Server, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an upgrade: the old program does not kill what it has given away, the new one moves it to where it is safe."""
    one = companion(server.directory, CONTROLLED)
    where = imitation(server.directory / "fs", monkeypatch, "cpu memory pids")
    old, new = (Cgroups(loop, Said(), run, where) for run in ("/run/x", "/run/x 5"))
    path = Path(old.make(one, "0.1"))
    (path / "cgroup.procs").write_text("")
    other = Path(old.make(one, "0.2"))
    old.give_away(str(path))
    moved = Path(new.adopt(one, "0.1", str(path)))
    assert moved.parent != path.parent
    assert (moved / "memory.max").read_text() == str(64 << 20)
    assert not path.exists()
    assert other.exists()
    old.close()
    assert not other.exists()
    assert moved.exists()
    new.close()
    # The next program is born in a leaf of the one before, which is not where its own belong.
    proc = server.directory / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text("0::/system.slice/w.service/webserver-12345678/server\n")
    (proc / "self/mountinfo").write_text("30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n")
    assert CgroupPlace.find(str(proc)).own == "/sys/fs/cgroup/system.slice/w.service"


def test_memory_max_cpu_weight_and_pids_max(place: Place) -> None:
    """In force where the kernel lets us, and where it does not the companion starts and the log says why."""
    place.start(place.section("one", memory_max="64m", cpu_weight="50", pids_max="40"))
    place.noted("ready one")
    warned = [line for line in place.server.log().splitlines() if "companion one: " in line and "not in force" in line]
    wanted = {
        "memory_max": ("memory.max", str(64 << 20)),
        "cpu_weight": ("cpu.weight", "50"),
        "pids_max": ("pids.max", "40"),
    }
    for option, (file, value) in wanted.items():
        said = [line for line in warned if option in line]
        if said:
            assert len(said) == 1
            continue
        for pid in both(place, "one"):
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
            (path,) = [line[3:].strip() for line in lines if line.startswith("0::")]
            assert Path(CgroupPlace.find().mount + path, file).read_text().strip() == value


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("capabilities = setuid", r'found "setuid", with which a process could become root'),
        ("capabilities = net_raw\nno_new_privs = no", r"stands beside no_new_privs = no\..*make two companions of it"),
        ("groups = root", r'found "root", whose group id is 0'),
        ("groups = nowhere", r'there is no user group "nowhere"'),
        ("limit_nofile = 10", r"found 10, expected at least 16"),
        ("limit_nofile = 1000000", r"found 1000000, but the hard limit of 100000 cannot be raised here"),
        ("private_tmp = 1k", r"found 1k, expected a size"),
        ("namespaces = pid", r'found "pid", expected ipc, uts or net'),
        ("chroot = /", r'found "/", which is no jail'),
        ("cpu_weight = 0", r"found 0, expected"),
        ("private_tmp = 1m\ndirectory = /tmp/x", r"private_tmp: hides directory, /tmp/x: the companion sees"),
    ],
)
def test_what_cannot_be(server: Server, lines: str, text: str) -> None:
    server.configure(f"[server]\nuser = www-data\n[companions]\n[[one]]\ncommand = /bin/sh,\nuser = app\n{lines}\n")
    with pytest.raises(ConfigErrors, match=text):
        load(str(server.config_file), PlainMachine(root=True))


def test_what_needs_root_says_so(server: Server) -> None:
    for line in ("groups = app", "capabilities = net_raw", "private_tmp = 1m", "namespaces = ipc", "chroot = /srv"):
        server.configure(f"[companions]\n[[one]]\ncommand = /bin/sh,\n{line}\n")
        with pytest.raises(ConfigErrors, match="is for root alone"):
            load(str(server.config_file), PlainMachine())
