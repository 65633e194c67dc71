"""Root never looks where a group could have put something: hostile links, files and renames, while root is at it."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from config_machine import PlainMachine
from serving import GROUP_USER, ROOT, SERVER_USER, directory

from webserver.config import ConfigErrors, load, witness
from webserver.config.machine import Machine, User
from webserver.config.model import Listen
from webserver.config.trusted import Absent, Found, Untrusted, Writers, open_file, trusted, walk
from webserver.config.witness import Witness
from webserver.supervisor.identity import own_identity, resolve
from webserver.supervisor.listeners import Listeners
from webserver.supervisor.rundir import RunDirectory

US = {0, os.geteuid()}


@pytest.fixture
def place() -> Iterator[Path]:
    with directory() as path:
        yield path


def test_links_are_followed_only_where_nobody_else_could_have_made_them(place: Path) -> None:
    (place / "a/b").mkdir(parents=True)
    (place / "a/b/file").write_text("x")
    (place / "link").symlink_to("a/../a/b")
    (place / "far").symlink_to(place / "link")
    assert trusted(str(place / "far/file"), US).path == str(place / "a/b/file")
    (place / "a").chmod(0o777)
    for name in ("far/file", "link/file", "a/b/file"):
        with pytest.raises(Untrusted, match=r"/a can be written by others"):
            trusted(str(place / name), US)
    (place / "a").chmod(0o1777)  # what is ours in there stays ours
    assert trusted(str(place / "far/file"), US).path == str(place / "a/b/file")


def test_what_is_not_there_and_what_does_not_end(place: Path) -> None:
    with pytest.raises(Absent, match=r"/none does not exist"):
        trusted(str(place / "none/file"), US)
    (place / "circle").symlink_to("circle")
    with pytest.raises(Untrusted, match="too many symbolic links"):
        trusted(str(place / "circle"), US)
    (place / "file").write_text("")
    with pytest.raises(Untrusted, match="is not a directory"):
        trusted(str(place / "file/x"), US)


@pytest.mark.root
def test_an_entry_of_another_s_in_an_open_directory(place: Path) -> None:
    """/tmp is good enough for what is root's there, and for nothing else."""
    place.chmod(0o1777)
    mine, other = place / "mine", place / "other"
    for path in (mine, other):
        path.mkdir()
    os.chown(other, pwd.getpwnam(GROUP_USER).pw_uid, -1)
    (place / "link").symlink_to(mine)
    os.chown(place / "link", pwd.getpwnam(GROUP_USER).pw_uid, -1, follow_symlinks=False)
    assert trusted(str(mine / ".."), US)
    assert trusted(str(mine), US)
    for path in (other, place / "link"):
        with pytest.raises(Untrusted, match="belongs to user id"):
            trusted(str(path / "x"), US)


def test_nothing_that_is_no_file_is_opened(place: Path) -> None:
    os.mkfifo(place / "pipe")  # open(2) for reading would wait, for ever
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place / "sock"))
        for path in (place / "pipe", place / "sock", place, Path("/dev/null")):
            with pytest.raises(OSError, match=r"not a file|Is a directory"):
                open_file(str(path))
    (place / "file").write_text("content")
    (place / "link").symlink_to("file")
    with open(open_file(str(place / "link"))) as stream:
        assert stream.read() == "content"
    with pytest.raises(OSError, match="not a file"):
        open_file(str(place / "link"), follow=False)


@pytest.mark.root
def test_renames_while_root_looks(place: Path) -> None:
    """The user of a group swaps a directory for a link to root's own, thousands of times: it is never gone through."""
    user = pwd.getpwnam(GROUP_USER)
    home = place / "home"
    (home / "real").mkdir(parents=True)
    (home / "real/env").write_text("A=1\n")
    secret = place / "secret"
    secret.mkdir()
    (secret / "env").write_text("SECRET=1\n")
    swap = f"""
import os
os.chdir({str(home)!r})
print("begun", flush=True)
while True:
    os.rename("real", "away"); os.symlink({str(secret)!r}, "real"); os.unlink("real"); os.rename("away", "real")
"""
    os.chown(home, user.pw_uid, user.pw_gid)
    swapper = subprocess.Popen(
        [sys.executable, "-c", swap], user=user.pw_uid, group=user.pw_gid, extra_groups=[], stdout=subprocess.PIPE
    )
    try:
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == b"begun\n"
        for _ in range(3000):
            with pytest.raises(Untrusted, match=r"/home belongs to user id"):
                trusted(str(home / "real/env"), {0})
            found = Writers([("group g", User("u", user.pw_uid, user.pw_gid, frozenset()))]).of(str(home / "real/env"))
            assert found == (str(home), "group g (user u)")
    finally:
        swapper.kill()
        swapper.communicate()


def test_a_walk_never_looks_below_what_its_judge_refuses(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    lstat = os.lstat
    (place / "a/b").mkdir(parents=True)
    monkeypatch.setattr(os, "lstat", lambda path: looked.append(str(path)) or lstat(path))
    with pytest.raises(Untrusted, match="no"):
        walk(str(place / "a/b"), lambda name, status, entry: "no" if name == str(place / "a") else "")
    assert str(place / "a") in looked
    assert str(place / "a/b") not in looked
    assert isinstance(walk(str(place / "a/b"), lambda name, status, entry: ""), Found)


# What the configuration names


def as_group(place: Path, more: str = "", server: str = "") -> Path:
    path = place / "w.conf"
    path.write_text(
        f"[server]\nuser = {SERVER_USER}\nrun = run\n{server}[groups]\n[[g]]\nlanguage = echo\nuser = {GROUP_USER}\n{more}"
    )
    return path


@pytest.mark.root
@pytest.mark.parametrize("what", ["config", "above", "include", "listen", "run", "types"])
def test_what_root_uses_may_be_written_by_no_group(place: Path, what: str) -> None:
    user = pwd.getpwnam(GROUP_USER)
    theirs = place / "theirs"
    theirs.mkdir()
    os.chown(theirs, user.pw_uid, user.pw_gid)
    (place / "plain").mkdir()
    (theirs / "types").write_text("text/html html\n")
    server = {
        "include": "include = theirs/*.conf\n",
        "listen": "listen = unix:theirs/web.sock\n",
        "run": "",
        "types": "mime_types = theirs/types\n",
    }.get(what, "")
    path = as_group(place, server=server)
    if what == "run":
        path.write_text(path.read_text().replace("run = run", "run = theirs/run"))
    if what in ("config", "above"):
        inner = theirs if what == "config" else theirs / "inner"
        inner.mkdir(exist_ok=True)
        path = as_group(inner)
    with pytest.raises(ConfigErrors, match=rf"{theirs} can be written by group g \(user {GROUP_USER}\)"):
        load(str(path))


@pytest.mark.root
def test_a_group_s_paths_are_looked_at_with_its_own_eyes(place: Path) -> None:
    """What only the user may see is found; what only root may see is not told, be it behind a link or not."""
    user = pwd.getpwnam(GROUP_USER)
    home, closed = place / "home", place / "closed"
    for path in (home, closed):
        path.mkdir()
    (home / "app.wsgi").write_text("")
    (closed / "app.wsgi").write_text("")
    home.chmod(0o700)
    closed.chmod(0o700)
    os.chown(home, user.pw_uid, user.pw_gid)
    (home / "link").symlink_to(closed / "app.wsgi")
    config = place / "w.conf"
    text = f"[server]\nuser = {SERVER_USER}\nrun = run\n[groups]\n[[g]]\nlanguage = python\nuser = {GROUP_USER}\n"
    config.write_text(f"{text}application = home/app.wsgi\n")
    assert load(str(config)).groups[0].application == str(home / "app.wsgi")
    for name in ("home/link", "closed/app.wsgi", "closed/nothing"):
        config.write_text(f"{text}application = {name}\n")
        with pytest.raises(ConfigErrors) as caught:
            load(str(config))
        assert f"user {GROUP_USER} may not search {closed} (mode 700)" in str(caught.value) or (
            "Permission denied" in str(caught.value)
        )
        assert "does not exist" not in str(caught.value)


@pytest.mark.root
def test_a_witness_is_that_user_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    user = pwd.getpwnam(GROUP_USER)

    def who(name: str, *words: object) -> str:
        return json.dumps([os.getresuid(), os.getresgid(), os.getgroups(), sorted(os.listdir("/proc/self/fd"))])

    monkeypatch.setitem(witness.QUESTIONS, "who", who)
    keep = os.open(os.devnull, os.O_RDONLY)
    one = Witness(GROUP_USER, user.pw_uid, user.pw_gid, [user.pw_gid])
    try:
        uids, gids, groups, descriptors = json.loads(one.ask("who", "/"))
        assert (uids, gids, groups) == ([user.pw_uid] * 3, [user.pw_gid] * 3, [user.pw_gid])
        assert len(descriptors) == 2  # its socket, and the list itself
        # Our memory is in it: nobody of that user may look.
        assert os.stat(f"/proc/{one._pid}/environ").st_uid == 0
    finally:
        one.close()
        os.close(keep)


def test_a_file_system_that_hangs_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    hang = threading.Event()
    monkeypatch.setitem(witness.QUESTIONS, "missing", lambda who, path, kind: str(hang.wait(60)))
    monkeypatch.setattr(witness, "PATIENCE", 0.2)
    monkeypatch.setattr(witness.os, "setgroups", lambda gids: None)
    identity = own_identity() if not ROOT else resolve(GROUP_USER, "", "test")
    one = Witness("app", identity.uid, identity.gid, [identity.gid])
    try:
        asked.append(one.ask("missing", "/mnt/a", "file"))
        monkeypatch.setattr(witness, "PATIENCE", 3600)
        asked.append(one.ask("missing", "/mnt/b", "file"))
    finally:
        one.close()
    assert asked == [f"{path}: no answer within 0.2 s: its file system hangs" for path in ("/mnt/a",)] + [
        "/mnt/b: no answer within 0.2 s: its file system hangs"
    ]


def test_witnesses_end_with_the_load(place: Path) -> None:
    """The autouse fixture would find one that is left; here one is made in any case, where that can be."""
    machine = Machine()
    if ROOT:
        assert machine.missing("/usr", "directory", machine.user(GROUP_USER)) == ""
        assert len(machine._witnesses) == 1
    machine.close()
    assert not machine._witnesses


# The run directory and unix sockets


def test_leftovers_of_front_ends_lead_nowhere(place: Path) -> None:
    """Links, files and directories where a dead server's front ends could have put them."""
    victim = place / "victim"
    victim.mkdir()
    (victim / "file").write_text("kept")
    run = RunDirectory(str(place / "run"))
    path = Path(run.make_generation(1, 1, own_identity(), own_identity()))
    (path / "f1").symlink_to(victim / "file")
    (path / "f2").symlink_to(victim)
    (path / "empty").mkdir()
    full = Path(run.make_generation(2, 1, own_identity(), own_identity()))
    (full / "deep/er").mkdir(parents=True)
    (Path(run.ipc) / "3.1").symlink_to(victim)
    (Path(run.ipc) / "4.1").write_text("")
    os.close(run._lock)
    run = RunDirectory(str(place / "run"))
    assert os.listdir(run.ipc) == []
    assert (victim / "file").read_text() == "kept"
    assert os.path.isdir(run.make_generation(2, 1, own_identity(), own_identity()))
    run.close()
    assert (victim / "file").read_text() == "kept"
    assert sorted(os.listdir(place / "run")) == ["left-behind.1"]


def test_a_socket_s_name_is_removed_where_it_was_made(place: Path) -> None:
    """Its directory is renamed, and another takes the name: what lies there is not ours."""
    (place / "a").mkdir()
    listeners = Listeners(1)
    listen = Listen("unix", str(place / "a/web.sock"), 0)
    listeners.open(listen)
    os.rename(place / "a", place / "b")
    (place / "a").mkdir()
    os.link(place / "b/web.sock", place / "a/web.sock")  # even the same inode
    listeners.close_all()
    assert not (place / "b/web.sock").exists()
    assert (place / "a/web.sock").exists()


def test_without_root_nobody_is_a_stranger(place: Path) -> None:
    path = place / "w.conf"
    path.write_text("[server]\nrun = run\n[groups]\n[[g]]\nlanguage = echo\n")
    place.chmod(0o777)
    assert load(str(path), PlainMachine()).groups[0].user == ""
