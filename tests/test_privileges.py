"""What a group's processes may do, as the kernel tells it; and what happens when a step of the drop does not work."""

from __future__ import annotations

import errno
import grp
import json
import os
import pwd
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import seccomp
from serving import GROUP_USER, ROOT, SERVER_USER, Server, descendants, directory, program, tree, wait_until
from test_supervisor_spawn import ordinary, record, run

from webserver.config.limits import CAPABILITIES
from webserver.supervisor import kernel
from webserver.supervisor.confine import STEPS
from webserver.supervisor.identity import Identity, resolve
from webserver.supervisor.process import Plan, ProcessRecord
from webserver.supervisor.rights import LOCKED
from webserver.supervisor.spawn import Refusal, spawn

LOOK = """
import ctypes, json, os, socket

def application(environ, start_response):
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\\n").split(":\\t", 1) for line in file)
    found = {"status": status, "groups": os.getgroups(), "securebits": ctypes.CDLL(None).prctl(27, 0, 0, 0, 0)}
    code = environ["QUERY_STRING"]
    if code:
        exec(bytes.fromhex(code).decode(), {"found": found})
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(found).encode()]
"""
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
NOTHING = dict.fromkeys(SETS, "0" * 16)
BIND = CAPABILITIES.index("net_bind_service")


def configure(server: Server, groups: dict[str, str], more: str = "") -> None:
    """Groups of Python with options of their own, users included, and a path for each."""
    text = "".join(
        f"[[{name}]]\nlanguage = python\napplication = {name}/app.wsgi\nprocesses = 1\n{options}\n"
        for name, options in groups.items()
    )
    routes = "".join(f"/{name}/ = group:{name}\n" for name in groups)
    user = f"user = {SERVER_USER}\n" if ROOT else ""
    for name in groups:
        server.file(f"{name}/app.wsgi", LOOK)
    server.configure(
        f"[server]\nlisten = 127.0.0.1:{server.port}\nfrontends = 1\n{user}run = run\n{more}"
        f"[logs]\nerror_log = logs/error.log\n[groups]\n{text}"
        f"[sites]\n[[all]]\nhosts = *\n[[[routes]]]\n{routes}"
    )


def seen(server: Server, group: str, code: str = "") -> dict[str, Any]:
    answer = server.get(f"/{group}/?{code.encode().hex()}")
    assert answer.status == 200, f"{answer}\n{server.log()}"
    found: dict[str, Any] = json.loads(answer.body)
    return found


def status(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def processes(server: Server, group: str) -> list[int]:
    return [*server.pids("manager", group), *server.pids("worker", group)]


@pytest.mark.root
def test_every_process_is_who_it_should_be(server: Server) -> None:
    """With users of their own: uids, gids, groups, capabilities, no_new_privs and securebits, as the kernel has them."""
    configure(
        server,
        {
            "alpha": "user = games",
            "beta": "user = mail\ngroup = daemon\ngroups = news, lp",
            "kept": "user = news\ncapabilities = net_bind_service, sys_nice",
            "mailer": "user = backup\nno_new_privs = no",
        },
    )
    server.start()
    account = {name: pwd.getpwnam(name) for name in ("games", "mail", "news", "backup", SERVER_USER)}
    kept = 1 << BIND | 1 << CAPABILITIES.index("sys_nice")
    expected = {
        "alpha": (account["games"].pw_uid, account["games"].pw_gid, own("games"), NOTHING, "1"),
        "beta": (account["mail"].pw_uid, 1, {1, gid("news"), gid("lp")}, NOTHING, "1"),
        "kept": (account["news"].pw_uid, account["news"].pw_gid, own("news"), dict.fromkeys(SETS, f"{kept:016x}"), "1"),
        "mailer": (account["backup"].pw_uid, account["backup"].pw_gid, own("backup"), {**NOTHING, "CapBnd": None}, "0"),
    }
    for group, (uid, gid_, groups, sets, no_new_privs) in expected.items():
        assert len(processes(server, group)) == 2
        for pid in processes(server, group):
            look(status(pid), uid, gid_, groups, sets, no_new_privs)
        found = seen(server, group)
        assert found["securebits"] == (LOCKED if no_new_privs == "1" else 0)
    for pid in [*server.pids("front end"), *server.pids("logger")]:
        user = account[SERVER_USER]
        look(status(pid), user.pw_uid, user.pw_gid, own(SERVER_USER), NOTHING, "1")
    # What is kept works, and only there.
    bind = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0 or 1023)); s.close(); found['bound'] = True"
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as stream:
        lowest = int(stream.read())
    if lowest == 1024:
        assert seen(server, "kept", bind)["bound"]
        server.allow("group alpha ")
        assert server.get(f"/alpha/?{bind.encode().hex()}").status == 500


PROGRAM = """
import os, socket, subprocess, sys
if len(sys.argv) > 1:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
subprocess.run(["sleep", "1000"])
"""


@pytest.mark.root
def test_programs_and_companions_are_who_they_should_be(server: Server) -> None:
    """Every process below the supervisor: wardens, what they run, and what that has started itself."""
    path = server.file("program.py", PROGRAM)
    python = "/usr/bin/python3, -I, -S"
    server.configure(
        f"[server]\nlisten = 127.0.0.1:{server.port}\nfrontends = 1\nuser = {SERVER_USER}\nrun = run\n"
        "[logs]\nerror_log = logs/error.log\n"
        f"[groups]\n[[one]]\nlanguage = exec\napplication = /usr/bin/python3\narguments = -I, -S, {path}, {{socket}}\n"
        "processes = 1\nuser = games\ngroups = news, lp\n"
        f"[companions]\n[[two]]\ncommand = {python}, {path}\nuser = mail\ngroup = daemon\n"
        "[sites]\n[[all]]\nhosts = *\n[[[routes]]]\n/ = group:one\n"
    )
    server.start()
    games, mail = pwd.getpwnam("games"), pwd.getpwnam("mail")
    daemon = set(os.getgrouplist("mail", 1))
    (manager,) = server.pids("manager", "one")
    [companion] = [one for one in server.status()["processes"] if one["kind"] == "companion"]
    wait_until(lambda: len(below(manager)) == 5 and len(below(companion["warden"])) == 3, "not all run")
    for pid in below(manager):  # manager, worker, warden, program, what that runs
        look(status(pid), games.pw_uid, games.pw_gid, {games.pw_gid, gid("news"), gid("lp")}, NOTHING, "1")
    for pid in below(companion["warden"]):
        look(status(pid), mail.pw_uid, 1, daemon, NOTHING, "1")
    everybody = descendants(server.process.pid) if server.process is not None else set()
    others = everybody - below(manager) - below(companion["warden"])
    assert others == {*server.pids("front end"), *server.pids("logger")}
    assert all("0" not in status(pid)["Uid"].split() for pid in everybody)


def below(pid: int) -> set[int]:
    return {pid} | descendants(pid)


def gid(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def own(user: str) -> set[int]:
    return set(os.getgrouplist(user, pwd.getpwnam(user).pw_gid))


def look(
    found: dict[str, str], uid: int, gid_: int, groups: set[int], sets: dict[str, str | None], no_new_privs: str
) -> None:
    assert found["Uid"].split() == [str(uid)] * 4
    assert found["Gid"].split() == [str(gid_)] * 4
    assert set(map(int, found["Groups"].split())) == groups
    for name, value in sets.items():
        if value is None:
            assert found[name] != "0" * 16
        else:
            assert found[name] == value, name
    assert found["NoNewPrivs"] == no_new_privs


# A step that fails: by the kernel's own refusal of its system call, or by a record that cannot be


def marked(place: Path, **more: object) -> ProcessRecord:
    """A record whose program leaves a mark if it is ever run."""
    argv = ("/bin/sh", "-c", f"echo run > {place}/mark")
    return record(argv=argv, **more)


def refused(one: ProcessRecord, *calls: tuple[str, int, int | None]) -> tuple[str, str, int]:
    """(step, text, exit status) of a start in a process in which these system calls do not work."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for call, number, first in calls:
                seccomp.refuse(call, number, first)
            report, code = run(one)
            answer = [report.step, report.text] if isinstance(report, Refusal) else ["", str(report)]
            os.write(writer, json.dumps([*answer, os.waitstatus_to_exitcode(code)]).encode())
        except BaseException as error:
            os.write(writer, json.dumps(["test", repr(error), -1]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as stream:
        answer = json.loads(stream.read())
    os.waitpid(pid, 0)
    return answer[0], answer[1], answer[2]


EPERM = errno.EPERM
WAYS: list[tuple[str, dict[str, object], tuple[tuple[str, int, int | None], ...], str]] = [
    ("session", {}, (("setsid", EPERM, None),), "not permitted"),
    ("cgroup", {"cgroup": "/nonexistent"}, (), "No such file"),
    ("namespaces", {"namespaces": ("ipc",)}, (("unshare", EPERM, None),), "not permitted"),
    ("namespaces", {"private_tmp": 1 << 20}, (("mount", EPERM, None),), "not permitted"),
    ("private_tmp", {"private_tmp": -1}, (), "Invalid argument"),
    ("chroot", {"jail": "/nonexistent", "shown": ("/usr",)}, (), "/nonexistent does not exist"),
    ("chroot", {"jail": "/usr"}, (), "/usr/proc does not exist"),
    ("nice", {"nice": 3}, (("setpriority", EPERM, None),), "not permitted"),
    ("resource limits", {"limits": ((resource.RLIMIT_CORE, 5, 4),)}, (), "limit 4 to 5:4"),
    ("resource limits", {"limits": ((resource.RLIMIT_CORE, 0, 0),)}, (("prlimit64", EPERM, None),), "limit"),
    ("memory of the server", {}, (("prctl", EPERM, kernel.PR_SET_DUMPABLE),), "not permitted"),
    ("setgroups", {}, (("setgroups", EPERM, None),), "not permitted"),
    ("setgid", {}, (("setresgid", EPERM, None),), "not permitted"),
    ("setuid", {}, (("setresuid", EPERM, None),), "not permitted"),
    ("setuid", {}, (("prctl", EPERM, kernel.PR_SET_KEEPCAPS),), "not permitted"),
    ("capabilities", {}, (("capset", EPERM, None),), "not permitted"),
    ("capabilities", {}, (("prctl", EPERM, kernel.PR_CAPBSET_DROP),), "not permitted"),
    ("capabilities", {}, (("prctl", EPERM, kernel.PR_SET_SECUREBITS),), "not permitted"),
    ("capabilities", {"capabilities": ("net_raw",)}, (("prctl", EPERM, kernel.PR_CAP_AMBIENT),), "not permitted"),
    # Nothing says that it has failed, and it has not worked either.
    ("verify", {}, (("setresuid", 0, None),), "user or group is not the one"),
    ("verify", {}, (("setresgid", 0, None),), "user or group is not the one"),
    ("verify", {}, (("setgroups", 0, None),), "supplementary groups are not those"),
    ("verify", {}, (("setuid", 0, None),), "setuid(0) worked"),
    ("verify", {}, (("setgid", 0, None),), "setgid(0) worked"),
    ("verify", {"no_new_privs": False}, (("capset", 0, None),), "capabilities are not those"),
    ("verify", {}, (("prctl", 0, kernel.PR_CAPBSET_DROP),), "bounding set"),
    ("verify", {}, (("prctl", 0, kernel.PR_SET_SECUREBITS),), "securebits are not those"),
    ("no_new_privs", {}, (("prctl", EPERM, 38),), "not permitted"),
    ("no_new_privs", {}, (("prctl", 0, 38),), "no_new_privs is not set"),
    ("umask", {}, (("umask", EPERM, None),), "not permitted"),
    ("directory", {"directory": "/nonexistent"}, (), "No such file"),
    ("death signal", {}, (("prctl", EPERM, 1),), "not permitted"),
    ("parent", {}, (("getppid", EPERM, None),), "the supervisor has died"),
    ("exec", {}, (("execve", errno.EAGAIN, None),), "limit_nproc"),
]


@pytest.mark.root
@pytest.mark.parametrize(("step", "more", "calls", "text"), WAYS, ids=[f"{n}-{way[0]}" for n, way in enumerate(WAYS)])
def test_a_step_that_fails_execs_nothing(
    step: str, more: dict[str, object], calls: tuple[tuple[str, int, int | None], ...], text: str
) -> None:
    with directory() as place:
        place.chmod(0o777)
        found = refused(marked(place, **more), *calls)
        assert found[0] == step, found
        assert text in found[1]
        assert found[2] == 127
        assert not (place / "mark").exists()


@pytest.mark.root
def test_the_same_record_runs_when_nothing_fails() -> None:
    """Or the test above would prove nothing."""
    assert {step for step, *_ in WAYS} == {name for name, _ in STEPS}
    with directory() as place:
        place.chmod(0o777)
        assert refused(marked(place)) == ("", "True", 0)
        assert (place / "mark").exists()


@pytest.mark.root
def test_nobody_becomes_root() -> None:
    """A record that says so is a mistake that the last look finds."""
    with directory() as place:
        place.chmod(0o777)
        step, text, _ = refused(marked(place, identity=Identity("root", 0, 0, (0,))))
        assert (step, text) == ("verify", "setuid(0) worked")
        assert not (place / "mark").exists()


@pytest.mark.root
def test_a_capability_that_the_server_lacks_cannot_be_kept() -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            number = CAPABILITIES.index("net_raw")
            effective, permitted, _ = kernel.capabilities()
            kernel.set_capabilities(effective & ~(1 << number), permitted & ~(1 << number), 0)
            report, _ = run(record(argv=("/bin/true",), capabilities=("net_raw",)))
            text = "the server itself does not have net_raw"
            code = 0 if isinstance(report, Refusal) and (report.step, report.text) == ("capabilities", text) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.root
def test_a_server_that_may_not_lock_still_drops_everything() -> None:
    """Root without CAP_SETPCAP, as in some containers."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            effective, permitted, _ = kernel.capabilities()
            without = ~(1 << CAPABILITIES.index("setpcap"))
            kernel.set_capabilities(effective & without, permitted & without, 0)
            report, _ = run(record(argv=("/bin/cat", "/proc/self/status"), descriptors={0: 0, 1: writer, 2: 2}))
            assert report is True
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as stream:
        found = dict(line.rstrip("\n").split(":\t", 1) for line in stream if ":\t" in line)
    os.waitpid(pid, 0)
    assert [found[name] for name in SETS if name != "CapBnd"] == ["0" * 16] * 4
    assert found["NoNewPrivs"] == "1"
    assert found["Uid"].split() == [str(ordinary().uid)] * 4


@pytest.mark.root
def test_the_server_s_memory_cannot_be_read_before_exec() -> None:
    """Between the change of the user and exec the child still has everybody's secrets in it."""

    def wait(plan: Plan) -> None:
        signal.pause()

    steps: list[tuple[str, Callable[[Plan], None]]] = [(name, wait if name == "exec" else do) for name, do in STEPS]
    user = pwd.getpwnam(GROUP_USER)
    one = record()
    child = spawn(one, steps)
    try:
        wait_until(lambda: status(child.pid)["NoNewPrivs"] == "1", "it does not come to exec")
        assert status(child.pid)["Uid"].split() == [str(user.pw_uid)] * 4
        # What cannot be dumped, and so not be traced, belongs to root in /proc.
        assert os.stat(f"/proc/{child.pid}/environ").st_uid == 0
        read = ["/bin/cat", f"/proc/{child.pid}/environ"]
        other = subprocess.run(read, user=GROUP_USER, group="nogroup", extra_groups=[], capture_output=True)
        assert other.returncode != 0
    finally:
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        os.close(child.report)


@pytest.mark.root
def test_a_refusal_reaches_the_log_and_the_group_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: nothing of it runs, one message names the step, everybody else goes on."""
    server.allow("could not be started", "has failed to start", "not tried again")
    configure(server, {"good": "user = games", "bad": "user = games\nnamespaces = ipc"})
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", partial(start, preexec_fn=lambda: seccomp.refuse("unshare", errno.EPERM)))
    server.start()
    monkeypatch.undo()
    assert server.get("/good/").status == 200
    said = "could not be started: namespaces: Operation not permitted"
    assert f"group bad has failed to start: its manager {said}" in server.stderr.decode()
    assert len(re.findall(f"manager of group bad generation 1 {said}", server.log())) == 1
    assert server.pids("manager", "bad") == [None] or server.pids("manager", "bad") == []


# Options


def limits(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:].split()[:2] for line in lines}


LIMITED = {
    "limit_nproc": "3000", "limit_core": "0", "limit_as": "2g", "limit_fsize": "1m:16m", "limit_stack": "4m",
    "limit_memlock": "16k", "nice": "5",
}  # fmt: skip


def is_limited(pid: int, files: tuple[str, str]) -> None:
    """It has what LIMITED says, and so many open files."""
    found, size = limits(pid), 1 << 20
    assert found["Max open files"] == list(files)
    assert found["Max processes"] == ["3000", "3000"]
    assert found["Max core file size"] == ["0", "0"]
    assert found["Max address space"] == [str(2048 * size)] * 2
    assert found["Max file size"] == [str(size), str(16 * size)]
    assert found["Max stack size"] == [str(4 * size)] * 2
    assert found["Max locked memory"] == ["16384", "16384"]
    assert os.getpriority(os.PRIO_PROCESS, pid) == 5


@pytest.mark.unsanitized  # AddressSanitizer wants terabytes of address space, limit_as gives two gigabytes
def test_limits_and_nice(server: Server) -> None:
    user = f"user = {GROUP_USER}\n" if ROOT else ""
    options = {"limit_nofile": "200:300", **LIMITED}
    configure(server, {"one": user + "".join(f"{name} = {options[name]}\n" for name in options), "other": user})
    server.start()
    for pid in processes(server, "one"):
        is_limited(pid, ("200", "300"))
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    for pid in processes(server, "other"):
        assert limits(pid)["Max open files"][0] == str(ours[0])
        assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.root
def test_user_groups_and_capabilities(server: Server) -> None:
    configure(
        server, {"one": "user = games\ngroups = news, lp\ncapabilities = net_bind_service", "other": "user = games"}
    )
    server.start()
    assert set(seen(server, "one")["groups"]) == {pwd.getpwnam("games").pw_gid, gid("news"), gid("lp")}
    assert set(seen(server, "other")["groups"]) == own("games")
    assert seen(server, "one")["status"]["CapAmb"] == f"{1 << BIND:016x}"
    assert seen(server, "other")["status"]["CapAmb"] == "0" * 16


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory for applications that is not below /tmp."""
    with directory("/srv") as path:
        yield path


@pytest.mark.root
def test_private_tmp(server: Server, elsewhere: Path) -> None:
    own = f"user = games\nprivate_tmp = 1m\ndirectory = {elsewhere}"
    configure(server, {"one": own, "two": own, "open": "user = games"})
    for name in ("one", "two"):
        (elsewhere / f"{name}.wsgi").write_text(LOOK)
    text = server.config_file.read_text()
    assert "hides application, " in checked(server)
    for name in ("one", "two"):
        text = text.replace(f"application = {name}/app.wsgi", f"application = {elsewhere}/{name}.wsgi")
    server.configure(text)
    server.start()
    write = "import os; open('{0}/of-a-group', 'w').write('x'); found['listed'] = os.listdir('{0}')"
    for place in ("/tmp", "/var/tmp"):
        for group in ("one", "two"):
            # Beside it the run directory of this test, which the server shows again, and nothing else of the machine's.
            listed = set(seen(server, group, write.format(place))["listed"])
            assert "of-a-group" in listed
            assert listed - {"of-a-group"} <= {server.directory.name, tree().name}
        assert not os.path.exists(f"{place}/of-a-group")
    assert "of-a-group" not in seen(server, "open", "import os; found['listed'] = os.listdir('/tmp')")["listed"]
    fill = (
        "\ntry:\n    open('/tmp/large', 'wb').write(bytes(2 << 20))\nexcept OSError as error:\n"
        "    found['error'] = error.errno"
    )
    assert seen(server, "one", fill)["error"] == errno.ENOSPC
    mounted = Path(f"/proc/{server.pids('worker', 'one')[0]}/mountinfo").read_text()
    tmp = [line for line in mounted.splitlines() if re.search(r" / (/var)?/tmp rw", line)]
    assert len(tmp) == 2
    assert all("rw,nosuid,nodev" in line for line in tmp)


def checked(server: Server) -> str:
    """What webserverd -t says."""
    command = [program("webserverd"), "--config", str(server.config_file), "-t"]
    return subprocess.run(command, capture_output=True, text=True).stderr


@pytest.mark.root
def test_namespaces(server: Server) -> None:
    configure(server, {"one": "user = games\nnamespaces = ipc, uts, net", "other": "user = games"})
    server.start()
    assert server.process is not None
    for name in ("ipc", "uts", "net", "mnt", "pid"):
        ours = os.readlink(f"/proc/{server.process.pid}/ns/{name}")
        for pid in processes(server, "one"):
            assert (os.readlink(f"/proc/{pid}/ns/{name}") != ours) == (name in ("ipc", "uts", "net"))
        for pid in processes(server, "other"):
            assert os.readlink(f"/proc/{pid}/ns/{name}") == ours
    loop = "import socket; s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); found['ok'] = 1"
    assert seen(server, "one", loop)["ok"] == 1
    out = f"import socket\ntry:\n    socket.create_connection(('127.0.0.1', {server.port}), 2)\nexcept OSError as error:\n    found['error'] = error.errno"
    assert seen(server, "one", out)["error"] == errno.ECONNREFUSED
    assert "error" not in seen(server, "other", out)


def in_jail(jail: Path) -> None:
    """A root directory with a Python in it, and the places where the server shows its own."""
    version = (
        "python3."
        + subprocess.run(
            ["/usr/bin/python3", "-c", "import sys; print(sys.version_info[1])"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    (jail / "usr/bin").mkdir(parents=True)
    (jail / "usr/lib").mkdir()
    (jail / "usr/lib64").mkdir()
    for name in ("bin", "lib", "lib64"):
        (jail / name).symlink_to(f"usr/{name}")
    python = os.path.realpath("/usr/bin/python3")
    shutil.copy(python, jail / "usr/bin/python3")
    ignored = shutil.ignore_patterns("test", "tests", "__pycache__", "dist-packages", "idlelib", "tkinter", "config-*")
    shutil.copytree(f"/usr/lib/{version}", jail / "usr/lib" / version, ignore=ignored)
    programs = [python, str(tree() / "build/lib/libwebserver_host.so"), str(tree() / "build/lib/echo.so")]
    programs += map(str, Path(f"/usr/lib/{version}/lib-dynload").glob("_ctypes.*"))
    for linked in programs:
        listed = subprocess.run(["ldd", linked], capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            target = Path(f"{jail}{library}")
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(os.path.realpath(library), target)


def mountpoints(server: Server, jail: Path) -> list[str]:
    places = ["/proc", f"{tree()}/webserver", f"{tree()}/build/lib", f"{server.directory}/run/ipc"]
    return [f"{jail}{place}" for place in places]


@pytest.mark.root
@pytest.mark.unsanitized
def test_chroot(server: Server) -> None:
    jail = server.directory / "jail"
    jail.mkdir()
    server.write(
        f"[groups]\n[[one]]\nlanguage = echo\nprocesses = 1\nchroot = {jail}\n"
        "[sites]\n[[all]]\nhosts = *\n[[[routes]]]\n/ = group:one\n"
    )
    # What is not there is named, with what to do.
    said = checked(server)
    assert f"{jail} has no /usr/bin/python3, with which the group's processes begin" in said
    for place in mountpoints(server, jail):
        assert f"mkdir -p {place}\n" in said
    in_jail(jail)
    for place in mountpoints(server, jail):
        Path(place).mkdir(parents=True)
    server.start()
    assert server.get("/").body == b"hello, world"
    for pid in processes(server, "one"):
        assert os.readlink(f"/proc/{pid}/root") == str(jail)
        assert not os.path.exists(f"/proc/{pid}/root/etc/passwd")
        sockets = Path(f"/proc/{pid}/root{server.directory}/run/ipc")
        assert len(list(sockets.iterdir())) == 1
    # A front end that comes later is reached as well: the directory is shown, not its content.
    (front,) = server.pids("front end")[:1]
    server.allow("front end", "killed")
    os.kill(front, signal.SIGKILL)
    wait_until(lambda: front not in server.pids("front end"), "it is not replaced")
    server.ctl("restart", "one")
    assert server.get("/").body == b"hello, world"
    audit = server.ctl("audit", "one", "--json", check=False)
    rows = {row["what"]: row for row in json.loads(audit.stdout)["rows"]}
    assert rows["root directory"]["verdict"] == "ok", audit.stdout
    # Without the interpreter a restart is refused, and the old ones go on.
    server.allow("could not be started")
    (jail / "usr/bin/python3").unlink()
    again = server.ctl("restart", "one", check=False)
    assert again.returncode == 1
    assert f"exec: /usr/bin/python3 inside chroot {jail}: No such file or directory" in again.stderr
    assert server.get("/").body == b"hello, world"


def test_what_needs_root_says_so(server: Server) -> None:
    from config_machine import PlainMachine

    from webserver.config import ConfigErrors, load

    text = "[groups]\n[[one]]\nlanguage = echo\n"
    for line in ("groups = app", "capabilities = net_raw", "private_tmp = 1m", "namespaces = ipc", "chroot = /srv"):
        server.configure(text + line + "\n")
        with pytest.raises(ConfigErrors, match="is for root alone"):
            load(str(server.config_file), PlainMachine())
    server.configure(text + "nice = -5\n")
    with pytest.raises(ConfigErrors, match="only root can go below 0"):
        load(str(server.config_file), PlainMachine())


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("capabilities = setuid", r'found "setuid", with which a process could become root'),
        ("capabilities = net_raw\nno_new_privs = no", r"stands beside no_new_privs = no\..*make two groups of it"),
        ("capabilities = net_rwa", r'found "net_rwa", expected a name of capabilities'),
        ("groups = root", r'found "root", whose group id is 0'),
        ("groups = nowhere", r'there is no user group "nowhere"'),
        ("limit_nofile = 10", r"found 10, expected at least 64"),
        ("limit_nofile = 1000000", r"found 1000000, but the hard limit of 100000 cannot be raised here"),
        ("limit_core = 2m:1m", r"the soft limit, before the colon, is above the hard one"),
        ("limit_as = much", r'found "much", expected a size'),
        ("private_tmp = 1k", r"found 1k, expected a size"),
        ("namespaces = pid", r'found "pid", expected ipc, uts or net'),
        ("chroot = /", r'found "/", which is no jail'),
        ("cpu_weight = 0", r"found 0, expected"),
    ],
)
def test_what_cannot_be(server: Server, lines: str, text: str) -> None:
    from config_machine import PlainMachine

    from webserver.config import ConfigErrors, load

    server.configure(f"[server]\nuser = www-data\n[groups]\n[[one]]\nlanguage = echo\nuser = app\n{lines}\n")
    with pytest.raises(ConfigErrors, match=text):
        load(str(server.config_file), PlainMachine(root=True))


@pytest.mark.root
@pytest.mark.parametrize(("further", "text"), [(["root"], "gid 0"), (["0"], "gid 0"), (["no-such-group"], "no group")])
def test_groups_that_nobody_may_be_in(further: list[str], text: str) -> None:
    from webserver.supervisor.identity import IdentityError

    with pytest.raises(IdentityError, match=text):
        resolve("nobody", "", "group shop", further)
    assert resolve("nobody", "games", "group shop", ["news"]).groups == tuple(sorted({gid("games"), gid("news")}))
