"""From a record to a process: what the kernel says of it, and what is told when a step fails."""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
from serving import interpreter

from webserver.supervisor.confine import STEPS
from webserver.supervisor.identity import Identity, IdentityError, own_identity, resolve
from webserver.supervisor.process import Plan, ProcessRecord
from webserver.supervisor.rights import NotConfined
from webserver.supervisor.spawn import Refusal, read_report, spawn

LOOK = """
import json, os, signal, sys
status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
json.dump({
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)),
    "environment": dict(os.environ), "directory": os.getcwd(), "umask": os.umask(0), "uid": os.getresuid(),
    "gid": os.getresgid(), "groups": os.getgroups(), "status": status, "session": os.getsid(0) == os.getpid(),
    "nofile": __import__("resource").getrlimit(__import__("resource").RLIMIT_NOFILE),
}, sys.stdout)
"""


def ordinary() -> Identity:
    """Whom a process may run as here: root starts nothing as root."""
    return resolve("nobody", "", "[test]") if os.geteuid() == 0 else own_identity()


def record(**more: object) -> ProcessRecord:
    null = more.pop("null", 0)
    assert isinstance(null, int)
    argv = ("/usr/bin/python3", "-I", "-c", LOOK)
    values = {"kind": "test", "name": "", "argv": argv, "identity": ordinary(), "descriptors": {0: null}}
    return ProcessRecord(**{**values, **more})  # type: ignore[arg-type]


def run(one: ProcessRecord, steps: object = STEPS) -> tuple[Refusal | bool, int]:
    spawned = spawn(one, steps)  # type: ignore[arg-type]
    try:
        select.select([spawned.report], [], [], 10)
        report = read_report(spawned.report)
        return report, os.waitpid(spawned.pid, 0)[1]
    finally:
        os.close(spawned.report)


def look(one: ProcessRecord) -> dict[str, object]:
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    try:
        report, status = run(replace(one, descriptors={0: null, 1: writer, 2: 2, 9: null}))
        assert report is True
        assert status == 0
        os.close(writer)
        writer = -1
        with open(reader, closefd=False) as stream:
            found: dict[str, object] = json.load(stream)
        return found
    finally:
        os.close(reader)
        os.close(null)
        if writer >= 0:
            os.close(writer)


def test_a_process_is_what_its_record_says() -> None:
    before = os.umask(0o22)
    os.umask(before)
    limits = ((resource.RLIMIT_NOFILE, 300, 400),)
    found = look(record(umask=0o027, limits=limits, environment={"A": "b"}, directory="/usr"))
    # 3 is the listing of the directory itself.
    assert found["fds"] == [0, 1, 2, 9]
    assert found["environment"] == {"PATH": found["environment"]["PATH"], "LANG": "C.UTF-8", "A": "b"}  # type: ignore[index]
    assert found["directory"] == "/usr"
    assert found["umask"] == 0o027
    assert found["nofile"] == [300, 400]
    assert found["session"] is True
    status = found["status"]
    assert isinstance(status, dict)
    assert status["NoNewPrivs"] == "1"
    assert int(status["SigBlk"], 16) == 0
    # The new interpreter ignores PIPE and XFSZ by itself.
    # 32 and 33 are the C library's own: nobody can set them back.
    assert int(status["SigIgn"], 16) & ~(3 << 31) == (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))


@pytest.mark.root
def test_root_becomes_somebody_and_cannot_go_back() -> None:
    identity = resolve("nobody", "www-data", "[server]")
    found = look(record(identity=identity))
    assert found["uid"] == [identity.uid] * 3
    assert found["gid"] == [identity.gid] * 3
    assert set(found["groups"]) == set(identity.groups)  # type: ignore[call-overload]
    status = found["status"]
    assert isinstance(status, dict)
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    mailer = look(record(identity=identity, no_new_privs=False))["status"]
    assert isinstance(mailer, dict)
    assert mailer["NoNewPrivs"] == "0"
    assert mailer["CapBnd"] != "0" * 16
    assert mailer["CapEff"] == "0" * 16


@pytest.mark.parametrize("name", [name for name, _ in STEPS])
def test_a_step_that_fails_stops_the_child_and_is_told(name: str) -> None:
    def fail(plan: Plan) -> None:
        raise PermissionError(errno.EPERM, "no")

    steps: list[tuple[str, Callable[[Plan], None]]] = [(step, fail if step == name else do) for step, do in STEPS]
    report, status = run(record(), steps)
    assert isinstance(report, Refusal)
    assert (report.step, report.number) == (name, errno.EPERM)
    assert os.strerror(errno.EPERM) in report.text
    assert os.waitstatus_to_exitcode(status) == 127


def test_a_way_back_is_an_error() -> None:
    """The proof itself is tried: where setuid(0) works, the child ends."""
    from webserver.supervisor import confine, rights

    identity = Identity("x", os.getuid(), os.getgid(), tuple(os.getgroups()))
    ways = ("setuid", "seteuid", "setgid", "setegid", "setgroups")
    for way in ways:
        with pytest.MonkeyPatch.context() as patch:
            for one in ways:
                patch.setattr(rights.os, one, _refuse if one != way else lambda number: None)
            with pytest.raises(NotConfined, match=way):
                rights.verify(Plan(record(identity=identity), 1, change=True, locks=False))
    with pytest.raises(NotConfined):
        rights.verify(Plan(record(identity=replace(identity, uid=identity.uid + 1)), 1, change=False, locks=False))
    with pytest.raises(NotConfined):
        confine._parent(Plan(record(identity=identity), os.getppid() + 1, change=False, locks=False))


def _refuse(number: object) -> None:
    raise PermissionError


def test_a_program_that_is_not_there() -> None:
    report, _ = run(record(argv=("/nonexistent/python",)))
    assert report == Refusal("exec", errno.ENOENT, "/nonexistent/python: No such file or directory")


def test_a_descriptor_may_be_where_another_belongs() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    reader, writer = os.pipe()
    try:
        code = "import os; os.write(4, b'x'); os.fstat(5); os._exit(os.path.exists('/proc/self/fd/6'))"
        argv = (interpreter(), "-I", "-c", code)
        # A circle: each wants the other's number.
        circle = {0: null, 2: 2, writer: reader, reader: writer, 4: writer, 5: null}
        report, status = run(record(argv=argv, descriptors=circle))
        assert report is True
        assert status == 0 or {reader, writer} & {6}
        assert os.read(reader, 1) == b"x"
    finally:
        for number in (null, reader, writer):
            os.close(number)


@pytest.mark.root
@pytest.mark.parametrize(
    ("user", "group", "text"),
    [
        ("", "", "required"),
        ("root", "", "uid 0"),
        ("0", "", "uid 0"),
        ("nobody", "root", "gid 0"),
        ("no-such-user", "", "no user"),
        ("nobody", "no-such-group", "no group"),
        ("99999999999999", "", "no user"),
    ],
)
def test_who_root_may_not_become(user: str, group: str, text: str) -> None:
    with pytest.raises(IdentityError, match=text):
        resolve(user, group, "group shop")
