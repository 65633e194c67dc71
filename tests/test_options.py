"""Every option makes a difference that can be seen from outside: a table of which test shows which option.

Tests here start the real server with values that are not the defaults. `make test-long` proves the table: for each
option it runs the test that is named for it against a server that ignores the option, and that test must fail.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import GROUP_USER, ROOT, SERVER_USER, SLOWNESS, TREE, Answer, Server, directory, read_all, tree, wait_until
from test_rows import functions

from webserver.config.options import OPTIONS, SUBSECTIONS

# What is given without a file is in this one.
SHOWN: dict[str, str] = {
    "server.listen": "test_architecture.py::test_unix_socket_listener",
    "server.frontends": "test_processes_and_their_users",
    "server.user": "test_processes_and_their_users",
    "server.group": "test_processes_and_their_users",
    "server.run": "test_run_directory",
    "server.include": "test_what_is_included_counts",
    "server.open_files": "test_processes_and_their_users",
    "server.connections": "test_connections",
    "server.head_timeout": "test_head_timeout",
    "server.body_timeout": "test_body_timeout",
    "server.idle_timeout": "test_idle_timeout",
    "server.send_timeout": "test_send_timeout",
    "server.tunnel_timeout": "test_tunnel.py::test_tunnel_timeout",
    "server.tunnel_grace": "test_tunnel.py::test_tunnel_grace",
    "server.shutdown_timeout": "test_rolling.py::test_shutdown_timeout",
    "server.max_head": "test_limits_of_a_head",
    "server.max_line": "test_limits_of_a_head",
    "server.max_fields": "test_limits_of_a_head",
    "server.spool": "test_spool_directory_and_limit",
    "server.spool_memory": "test_spool_memory",
    "server.spool_limit": "test_spool_directory_and_limit",
    "server.mime_types": "test_mime_types",
    "logs.error_log": "test_logs",
    "logs.access_log": "test_logs",
    "logs.access_format": "test_logs",
    "group.language": "test_architecture.py::test_a_worker_maps_its_own_language_only",
    "group.application": "test_application_and_its_directory",
    "group.interface": "test_asgi.py::test_scope",
    "group.directory": "test_application_and_its_directory",
    "group.preload": "test_modules_and_arguments",
    "group.python_path": "test_modules_and_arguments",
    "group.perl_path": "test_psgi_environ.py::test_process",
    "group.arguments": "test_modules_and_arguments",
    "group.listens_on": "test_exec.py::test_environment_of_a_program",
    "group.strip_prefix": "test_exec.py::test_what_a_program_behind_a_trusted_proxy_sees",
    "group.forwarded": "test_exec.py::test_what_a_program_behind_a_trusted_proxy_sees",
    "group.keepalive": "test_exec.py::test_what_a_program_behind_a_trusted_proxy_sees",
    "group.continue_timeout": "test_exec.py::test_a_program_that_does_not_know_100",
    "group.stop_timeout": "test_exec_failures.py::test_stop_timeout",
    "group.interpreter": "test_programs",
    "group.plugin": "test_programs",
    "group.user": "test_rights_of_a_group",
    "group.group": "test_rights_of_a_group",
    "group.umask": "test_rights_of_a_group",
    "group.groups": "test_privileges.py::test_user_groups_and_capabilities",
    "group.capabilities": "test_privileges.py::test_user_groups_and_capabilities",
    "group.nice": "test_privileges.py::test_limits_and_nice",
    "group.limit_nofile": "test_privileges.py::test_limits_and_nice",
    "group.limit_nproc": "test_privileges.py::test_limits_and_nice",
    "group.limit_core": "test_privileges.py::test_limits_and_nice",
    "group.limit_as": "test_privileges.py::test_limits_and_nice",
    "group.limit_fsize": "test_privileges.py::test_limits_and_nice",
    "group.limit_stack": "test_privileges.py::test_limits_and_nice",
    "group.limit_memlock": "test_privileges.py::test_limits_and_nice",
    "group.private_tmp": "test_privileges.py::test_private_tmp",
    "group.namespaces": "test_privileges.py::test_namespaces",
    "group.chroot": "test_privileges.py::test_chroot",
    "group.memory_max": "test_cgroups.py::test_memory_max_cpu_weight_and_pids_max",
    "group.cpu_weight": "test_cgroups.py::test_memory_max_cpu_weight_and_pids_max",
    "group.pids_max": "test_cgroups.py::test_memory_max_cpu_weight_and_pids_max",
    "group.no_new_privs": "test_rights_of_a_group",
    "group.environment_file": "test_environment",
    "group.environment": "test_environment",
    "group.ini": "test_php.py::test_ini_values_of_the_group_and_of_the_directory",
    "group.websocket_message": "test_websocket.py::test_a_small_limit",
    "group.websocket_ping": "test_websocket.py::test_keepalive",
    "group.settings": "test_plugin_kit.py::test_settings_reach_the_plugin",
    "group.processes": "test_architecture.py::test_one_manager_for_each_group_and_workers_are_its_children",
    "group.processes_min": "test_pool.py::test_on_demand",
    "group.spare": "test_pool.py::test_spare",
    "group.idle_after": "test_pool.py::test_more_for_what_waits_and_fewer_for_nothing",
    "group.max_requests": "test_pool.py::test_status_says_who_will_go_and_why",
    "group.max_age": "test_pool.py::test_replaced_under_load",
    "group.max_cpu": "test_pool.py::test_replaced_under_load",
    "group.soft_memory": "test_pool.py::test_replaced_under_load",
    "group.hard_memory": "test_pool.py::test_hard_memory",
    "group.threads": "test_architecture.py::test_threads_and_processes_are_as_configured",
    "group.start_timeout": "test_start_timeout",
    "group.drain_timeout": "test_rolling.py::test_drain_timeout",
    "group.restart_extra": "test_rolling.py::test_a_restart_takes_no_more_workers_than_it_may",
    "group.touch": "test_rolling.py::test_a_touched_file_restarts",
    "group.watch": "test_rolling.py::test_watched_files_restart_and_a_broken_one_changes_nothing",
    "group.request_timeout": "test_request_timeout",
    "group.slow_request": "test_deadlines.py::test_slow_request",
    "group.quarantine": "test_quarantine.py::test_a_request_that_ends_workers",
    "group.queue_length": "test_queue_length",
    "group.queue_timeout": "test_queue_timeout",
    "group.after": "test_companions.py::test_ready_and_the_order_of_start_and_end",
    "companion.command": "test_companions.py::test_what_a_companion_is",
    "companion.directory": "test_companions.py::test_what_a_companion_is",
    "companion.user": "test_companions.py::test_what_a_companion_is",
    "companion.group": "test_companions.py::test_what_a_companion_is",
    "companion.umask": "test_companions.py::test_what_a_companion_is",
    "companion.no_new_privs": "test_companions.py::test_what_a_companion_is",
    "companion.groups": "test_companion_privileges.py::test_every_process_is_who_it_should_be",
    "companion.capabilities": "test_companion_privileges.py::test_every_process_is_who_it_should_be",
    "companion.nice": "test_companion_privileges.py::test_limits_and_nice",
    "companion.limit_nofile": "test_companion_privileges.py::test_limits_and_nice",
    "companion.limit_nproc": "test_companion_privileges.py::test_limits_and_nice",
    "companion.limit_core": "test_companion_privileges.py::test_limits_and_nice",
    "companion.limit_as": "test_companion_privileges.py::test_limits_and_nice",
    "companion.limit_fsize": "test_companion_privileges.py::test_limits_and_nice",
    "companion.limit_stack": "test_companion_privileges.py::test_limits_and_nice",
    "companion.limit_memlock": "test_companion_privileges.py::test_limits_and_nice",
    "companion.private_tmp": "test_companion_privileges.py::test_private_tmp",
    "companion.namespaces": "test_companion_privileges.py::test_namespaces",
    "companion.chroot": "test_companion_privileges.py::test_chroot",
    "companion.memory_max": "test_companion_privileges.py::test_memory_max_cpu_weight_and_pids_max",
    "companion.cpu_weight": "test_companion_privileges.py::test_memory_max_cpu_weight_and_pids_max",
    "companion.pids_max": "test_companion_privileges.py::test_memory_max_cpu_weight_and_pids_max",
    "companion.environment_file": "test_companions.py::test_what_a_companion_is",
    "companion.environment": "test_companions.py::test_what_a_companion_is",
    "companion.instances": "test_companions.py::test_instances",
    "companion.after": "test_companions.py::test_ready_and_the_order_of_start_and_end",
    "companion.ready": "test_companions.py::test_ready_and_the_order_of_start_and_end",
    "companion.start_timeout": "test_companions.py::test_one_that_fails_stops_nobody_else",
    "companion.restart": "test_companions.py::test_restart_policies",
    "companion.stop_signal": "test_companions.py::test_a_graceful_end_takes_its_time",
    "companion.stop_timeout": "test_companions.py::test_a_graceful_end_takes_its_time",
    "companion.every": "test_companions.py::test_timers",
    "companion.at": "test_companions.py::test_timers",
    "companion.timeout": "test_companions.py::test_timers",
    "site.hosts": "test_sites",
    "site.root": "test_sites",
    "site.routes": "test_sites",
    "site.index": "test_sites",
    "site.symlinks": "test_symlinks",
    "site.dotfiles": "test_sites",
    "site.sendfile": "test_sendfile.py::test_what_is_not_allowed",
    "site.max_body": "test_max_body",
    "site.gather": "test_gather",
    "site.error_log": "test_site_logs.py::test_what_belongs_to_a_request_is_in_its_site_s_log",
}
NAMES = [f"{option.section}.{option.name}" for option in OPTIONS]
NAMES += [f"{section}.{name}" for section, names in SUBSECTIONS.items() for name in names]
OTHER_GROUP = "daemon"  # of accounts that every Debian machine has; neither user is in it

WSGI = """
import json, os, stat, sys, tempfile

def application(environ, start_response):
    name = os.path.join(os.environ.get("SCRATCH", "/tmp"), "made-%d" % os.getpid())
    with open(name, "w"):
        mode = stat.S_IMODE(os.stat(name).st_mode)
    os.unlink(name)
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\\n").split(":\\t", 1) for line in file)
    found = sys.modules.get("marked")
    body = json.dumps({
        "file": __file__, "pid": os.getpid(), "manager": os.getppid(), "directory": os.getcwd(), "mode": mode,
        "path": sys.path, "argv": sys.argv, "program": sys.executable, "environment": dict(os.environ),
        "uid": os.getuid(), "gid": os.getgid(), "status": status, "marked": found and found.LOADED_BY,
    }).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]
"""
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"


def module_of(name: str) -> str:
    """The test's full name in the form of DESIGN.md."""
    return name if "::" in name else f"{Path(__file__).name}::{name}"


def test_every_option_has_a_test() -> None:
    assert sorted(SHOWN) == sorted(NAMES)


def test_the_tests_that_are_named_exist() -> None:
    known = functions()
    for name, shown in SHOWN.items():
        assert module_of(shown) in known, f"{name}: there is no {shown}"


IGNORING = """#!{python} -I
import sys
sys.path.insert(0, {tree!r})
from webserver.config import loader, reader
check = loader.check

def ignoring(document, block, section, machine):
    if section == {section!r}:
        block.entries.pop({name!r}, None)
        block.blocks.pop({name!r}, None)
    return check(document, block, section, machine)

loader.check = ignoring
if {name!r} == "include":
    reader._included = lambda document, entry: []
from webserver.cli.{program} import main
sys.exit(main())
"""


def ignoring(name: str, shown: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Run a test against a server that does not see this option."""
    section, _, option = name.partition(".")
    for one in ("webserverd", "webserverctl"):
        python = tree() / ".venv/bin/python"
        path = place / one
        path.write_text(IGNORING.format(python=python, tree=str(tree()), section=section, name=option, program=one))
        path.chmod(0o755)
    test = str(TREE / "tests" / module_of(shown))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    environment = {**os.environ, "WEBSERVER_BIN": str(place), "WEBSERVER_SUMMARY": os.devnull}
    return subprocess.run(command, env=environment, cwd=TREE, capture_output=True, text=True)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_the_test_fails_when_the_option_has_no_effect(name: str, tmp_path: Path) -> None:
    result = ignoring(name, SHOWN[name], tmp_path)
    assert result.returncode == 1, f"it does not notice that {name} is ignored:\n{result.stdout}{result.stderr}"


@pytest.mark.long
def test_the_test_passes_when_nothing_is_ignored(tmp_path: Path) -> None:
    result = ignoring("server.nothing", "test_what_is_included_counts", tmp_path)
    assert result.returncode == 0, result.stdout


# The server's own options


def group_lines(**options: object) -> str:
    return "".join(f"  {name} = {value}\n" for name, value in options.items())


def plain(name: str = "plain", **options: object) -> str:
    """A group of one echo worker with one slot, and a site that gives it everything below /plain/."""
    options = {"processes": 1, **options}
    return f"""
[groups]
  [[{name}]]
  language = echo
{group_lines(**options)}
[sites]
  [[all]]
  hosts = *
  root = public
    [[[routes]]]
    / = files
    /{name}/ = group:{name}
"""


SITE = "[sites]\n[[all]]\nhosts = *\nroot = public\n"


@contextlib.contextmanager
def running(text: str, server: str = "frontends = 1\n", **files: str) -> Iterator[Server]:
    """A started server. A file's name: "a__b" stands for a/b, "_" for "."."""
    with directory() as path:
        one = Server(path)
        for name, content in files.items():
            one.file(name.replace("__", "/").replace("_", "."), content)
        one.file("public/index.html", "static")
        one.write(text, server)
        try:
            one.start()
            yield one
        finally:
            one.stop()


def head_only(server: Server, data: bytes, seconds: float = 5) -> bytes:
    """What comes back within `seconds` and the end of the connection; b"" if the server only closes it."""
    with server.connect(seconds) as sock:
        sock.sendall(data)
        return read_all(sock)


def test_run_directory(server: Server) -> None:
    server.file("public/index.html", "static")
    server.write(SITE)
    text = server.config_file.read_text()
    server.configure(text.replace("run = run\n", "run = elsewhere\n"))
    server.start()
    assert (server.directory / "elsewhere/control.sock").is_socket()
    assert (server.directory / "elsewhere/webserverd.pid").exists()
    assert not list((server.directory / "run").iterdir())


def test_what_is_included_counts(server: Server) -> None:
    server.file("public/index.html", "static")
    server.file("more/sites-enabled/here.conf", "hosts = here\nroot = ../../public\n")
    server.write("", "include = more/sites-enabled/*.conf\n")
    server.start()
    assert server.get("/", Host="here").body == b"static"
    assert server.get("/", Host="there").status == 421


def limits(pid: int) -> list[str]:
    text = Path(f"/proc/{pid}/limits").read_text()
    found = re.search(r"^Max open files +(\S+) +(\S+)", text, re.M)
    assert found is not None
    return [*found.groups()]


def ids(pid: int) -> tuple[str, str]:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return status["Uid"].split()[1], status["Gid"].split()[1]


def test_processes_and_their_users(server: Server) -> None:
    """frontends = , open_files = ; as root also user = and group = , which otherwise nobody can honour."""
    count = len(os.sched_getaffinity(0)) + 1
    group = f"group = {OTHER_GROUP}\n" if ROOT else ""
    server.write(SITE, f"frontends = {count}\nopen_files = 1000\n{group}")
    server.start()
    frontends = server.pids("front end")
    assert len(frontends) == count
    assert {tuple(limits(pid)) for pid in frontends} == {("1000", "1000")}
    if ROOT:
        user, gid = pwd.getpwnam(SERVER_USER).pw_uid, grp.getgrnam(OTHER_GROUP).gr_gid
        for pid in [*frontends, *server.pids("logger")]:
            assert ids(pid) == (str(user), str(gid))
        assert ids(server.pids("supervisor")[0])[0] == "0"
    else:
        server.allow("reload")
        server.write(SITE, f"frontends = {count}\nopen_files = 1000\nuser = root\ngroup = {OTHER_GROUP}\n")
        said = server.ctl("reload", check=False).stderr
        assert "user: found" in said
        assert "group: found" in said


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    lines = "frontends = 1\nhead_timeout = 500ms\nbody_timeout = 700ms\nidle_timeout = 900ms\nsend_timeout = 1s\n"
    with running(plain(), lines) as one:
        (one.directory / "public/large").touch()
        os.truncate(one.directory / "public/large", 200 << 20)
        yield one


def test_head_timeout(impatient: Server) -> None:
    assert head_only(impatient, b"GET / HT").startswith(b"HTTP/1.1 408 ")


def test_body_timeout(impatient: Server) -> None:
    said = head_only(impatient, b"POST /plain/length HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nfour")
    assert said.startswith(b"HTTP/1.1 408 ")


def test_idle_timeout(impatient: Server) -> None:
    began = time.monotonic()
    said = head_only(impatient, HEAD + b"\r\n")
    assert said.endswith(b"static")
    # Not by another limit: idle_timeout is longer than head_timeout here.
    assert time.monotonic() - began > 0.8


def test_send_timeout(impatient: Server) -> None:
    with impatient.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /large?stalled HTTP/1.1\r\nHost: x\r\n\r\n")
        # The line of a request is written when it has ended, which the client here does not bring about.
        wait_until(lambda: "/large?stalled" in impatient.access_log.read_text(), "the client is still waited for", 20)


def test_limits_of_a_head() -> None:
    with running(SITE, "frontends = 1\nmax_head = 3k\nmax_line = 1k\nmax_fields = 12\n") as one:

        def status(target: str = "/", fields: int = 0, size: int = 0) -> int:
            return one.request("GET", target, fields={f"X-{n}": "x" * size for n in range(fields)}).status

        assert status("/?" + "x" * 900, fields=2, size=900) == 200
        assert status("/?" + "x" * 1100) == 414
        assert status(fields=1, size=1100) == 431
        assert status(fields=4, size=900) == 431  # max_head
        assert status(fields=9) == 200
        assert status(fields=14) == 431  # max_fields; http.client sends two of its own


def test_connections() -> None:
    with running(SITE, "frontends = 1\nconnections = 2\n") as one:
        one.allow("connections")
        held = [one.connect(5) for _ in range(2)]
        for sock in held:
            sock.sendall(HEAD + b"\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        with one.connect(0.5) as third:
            third.sendall(HEAD + b"\r\n")
            with pytest.raises(TimeoutError):
                third.recv(65536)
            third.settimeout(5)
            held.pop().close()
            assert third.recv(65536).startswith(b"HTTP/1.1 200")
        held.pop().close()


@contextlib.contextmanager
def stalled(one: Server, target: str) -> Iterator[None]:
    """A client that asks for something and takes nothing of it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", one.port))
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert sock.recv(1) == b"H"
        yield


def spooled(one: Server) -> set[str]:
    """Directories of files without a name that front ends have open."""
    found = set()
    for pid in one.pids("front end"):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(fd)
                if "/#" in target:
                    found.add(target.rpartition("/#")[0])
    return found


STREAM = 24 << 20  # more than any socket buffer and either limit below, less than spool_limit's default


def test_spool_memory() -> None:
    """All of a stalled client's answer is kept in memory, so the one worker is free again, and no file is used."""
    with (
        running(plain(), "frontends = 1\nspool_memory = 64m\nspool_limit = 0\n") as one,
        stalled(one, f"/plain/stream/{STREAM}"),
    ):
        assert one.request("GET", "/plain/", timeout=5).body == b"hello, world"
        assert not spooled(one)


def test_spool_directory_and_limit(server: Server) -> None:
    """The answer goes into a file of this directory; when its limit is reached the one worker has to wait."""
    spool = server.directory / "spool"
    spool.mkdir()
    if ROOT:
        os.chown(spool, pwd.getpwnam(SERVER_USER).pw_uid, -1)
    server.write(plain(), "frontends = 1\nspool = spool\nspool_memory = 64k\nspool_limit = 1m\n")
    server.start()
    with stalled(server, f"/plain/stream/{STREAM}"):
        wait_until(lambda: spooled(server) == {str(spool)}, "there is no file in the spool directory")
        with pytest.raises(TimeoutError):
            server.request("GET", "/plain/", timeout=1)


def test_mime_types(server: Server) -> None:
    server.file("public/a.odd", "x")
    server.file("types", "text/x-odd odd\n")
    server.write(SITE, "mime_types = types\n")
    server.start()
    assert server.get("/a.odd").field("Content-Type") == "text/x-odd"
    # A reload forgets what is no longer in it.
    server.file("types", "text/x-even even\n")
    server.ctl("reload")
    assert server.get("/a.odd").field("Content-Type") == "application/octet-stream"


def test_logs(server: Server) -> None:
    server.file("public/index.html", "static")
    server.write(plain(), logs="access_log = logs/access.log\naccess_format = json\n")
    server.start()
    assert server.get("/?seen").status == 200
    assert server.get("/plain/log").status == 200
    assert server.logged("and another")
    assert b"and another" not in server.stderr
    wait_until(lambda: "/?seen" in server.access_log.read_text(), "the request is not in access_log")
    line = next(line for line in server.access_log.read_text().splitlines() if "/?seen" in line)
    assert json.loads(line)["status"] == 200


# Groups


def python_group(name: str, application: str, more: str = "") -> str:
    return f"  [[{name}]]\n  language = python\n  application = {application}\n  processes = 1\n{more}"


def seen(server: Server, path: str) -> dict[str, object]:
    answer = server.get(path)
    assert answer.status == 200, answer
    found: dict[str, object] = json.loads(answer.body)
    return found


@pytest.fixture(scope="module")
def many() -> Iterator[Server]:
    """Groups that differ in what the application can see of itself."""
    with directory() as path:
        one = Server(path)
        one.file("one/app.wsgi", WSGI)
        one.file("two/app.wsgi", WSGI.replace('"file"', '"second": True, "file"'))
        one.file("modules/marked.py", "import os\nLOADED_BY = os.getpid()\n")
        scratch = path / "scratch"
        scratch.mkdir()
        scratch.chmod(0o777)
        secrets = one.file("secrets", "SECRET = of the file\n")
        secrets.chmod(0o600)
        (path / "bin").mkdir()
        (path / "bin/python").symlink_to(tree() / ".venv/bin/python")
        shutil.copy(tree() / "build/lib/echo.so", path / "bin/other.so")
        user = "" if ROOT else f"  user = {pwd.getpwuid(os.geteuid()).pw_name}\n"
        group = OTHER_GROUP if ROOT else grp.getgrgid(os.getegid()).gr_name
        one.write(
            "[groups]\n"
            + python_group("one", "one/app.wsgi")
            + python_group("two", "two/app.wsgi", "  directory = modules\n")
            + python_group("modules", "one/app.wsgi", "  python_path = modules,\n  preload = marked,\n"
                           "  arguments = first, second\n")
            + python_group("program", "one/app.wsgi", "  interpreter = bin/python\n")
            + python_group("rights", "one/app.wsgi", f"{user}  group = {group}\n  umask = 077\n  no_new_privs = no\n"
                           f"    [[[environment]]]\n    SCRATCH = {scratch}\n")
            + python_group("environment", "one/app.wsgi", "  environment_file = secrets\n"
                           "    [[[environment]]]\n    COLOUR = green\n")
            + "  [[copied]]\n  language = echo\n  plugin = bin/other.so\n  processes = 1\n"
            + SITE + "[[[routes]]]\n"
            + "".join(f"/{name}/ = group:{name}\n"
                      for name in ("one", "two", "modules", "program", "rights", "environment", "copied")),
        )  # fmt: skip
        try:
            one.start()
            yield one
        finally:
            one.stop()


def test_application_and_its_directory(many: Server) -> None:
    one, two = seen(many, "/one/"), seen(many, "/two/")
    assert (one["file"], two["file"]) == (str(many.directory / "one/app.wsgi"), str(many.directory / "two/app.wsgi"))
    assert "second" not in one
    assert two["second"]
    assert (one["directory"], two["directory"]) == (str(many.directory / "one"), str(many.directory / "modules"))


def test_modules_and_arguments(many: Server) -> None:
    one, other = seen(many, "/one/"), seen(many, "/modules/")
    assert one["marked"] is None
    assert other["marked"] == other["manager"]
    assert str(many.directory / "modules") in list(other["path"])  # type: ignore[call-overload]
    assert other["argv"] == [str(many.directory / "one/app.wsgi"), "first", "second"]


def test_programs(many: Server) -> None:
    assert seen(many, "/program/")["program"] == str(many.directory / "bin/python")
    assert many.get("/copied/").body == b"hello, world"
    for pid in [*many.pids("manager", "copied"), *many.pids("worker", "copied")]:
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert str(many.directory / "bin/other.so") in maps
        assert "/echo.so" not in maps


def test_rights_of_a_group(many: Server) -> None:
    one, other = seen(many, "/one/"), seen(many, "/rights/")
    assert (one["mode"], other["mode"]) == (0o644, 0o600)
    status = [dict(found["status"])["NoNewPrivs"] for found in (one, other)]  # type: ignore[call-overload]
    assert status == ["1", "0"]
    if ROOT:
        account = pwd.getpwnam(GROUP_USER)
        assert (one["uid"], one["gid"]) == (account.pw_uid, account.pw_gid)
        assert (other["uid"], other["gid"]) == (account.pw_uid, grp.getgrnam(OTHER_GROUP).gr_gid)


def test_environment(many: Server) -> None:
    found = dict(seen(many, "/environment/")["environment"])  # type: ignore[call-overload]
    assert (found["SECRET"], found["COLOUR"]) == ("of the file", "green")
    assert not {"SECRET", "COLOUR"} & set(dict(seen(many, "/one/")["environment"]))  # type: ignore[call-overload]


def test_start_timeout(server: Server) -> None:
    server.file("app.wsgi", "import time\ntime.sleep(20)\n" + WSGI)
    server.write("[groups]\n" + python_group("slow", "app.wsgi", "  start_timeout = 1s\n") + SITE)
    server.allow("slow")
    began = time.monotonic()
    server.start()
    assert time.monotonic() - began < 10
    assert b"its application did not load within 1 s" in server.stderr


STUCK = """
import time
def application(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"] or 0))
    start_response("200 OK", [])
    return [b"slept"]
"""


def test_request_timeout(server: Server) -> None:
    """504, the stack of what does not end in the log, and a new worker; what ends until then in the old one does."""
    server.file("app.wsgi", STUCK)
    more = "  threads = 2\n  request_timeout = 2500ms\n"
    server.write("[groups]\n" + python_group("g", "app.wsgi", more) + SITE + "[[[routes]]]\n/ = group:g\n")
    server.allow("request_timeout")
    server.start()
    (pid,) = server.pids("worker")
    began = time.monotonic()
    answers: list[Answer] = []
    stuck = threading.Thread(target=lambda: answers.append(server.get("/?60")))
    stuck.start()
    wait_until(lambda: time.monotonic() - began > 2, "")
    # Begun while the other one is stuck, and not over when its time is.
    assert server.get("/?0.7").body == b"slept"
    stuck.join()
    assert answers[0].status == 504
    wait_until(lambda: pid not in server.pids("worker"), "its worker is not replaced")
    assert time.monotonic() - began < 10
    assert server.logged(f"worker 0 of group g (process {pid}): a request ran longer than request_timeout = 2.5s")
    assert server.logged('app.wsgi", line 4 in application')
    assert server.get("/").body == b"slept"


@contextlib.contextmanager
def busy(one: Server, milliseconds: int = 1500 * SLOWNESS) -> Iterator[None]:
    """The one slot of the group runs a request that is known to have begun."""
    with one.connect() as sock:
        sock.sendall(f"GET /plain/sleep/{milliseconds} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        (pid,) = one.pids("worker")
        wait_until(lambda: any(process.get("busy") for process in one.status()["processes"]), "it does not run")
        assert pid
        yield
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def test_queue_length() -> None:
    """With the slot busy, so many wait; one more is refused at once."""
    with running(plain(queue_length=1)) as one, busy(one, 3000 * SLOWNESS), one.connect() as waiting:
        one.allow("queue_length")
        # More than a block holds, so it is not placed ahead at the slot.
        waiting.sendall(b"POST /plain/length HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200000)
        wait_until(lambda: queued(one) == 1, "it does not wait")
        refused = one.request("POST", "/plain/length", b"x" * 200000, timeout=SLOWNESS)
        assert refused.status == 503
        assert refused.field("Retry-After")
        assert waiting.recv(65536).startswith(b"HTTP/1.1 200")


def queued(one: Server) -> int:
    """Requests that wait in front ends, as their last beats said."""
    return sum(group["queued"] for group in one.status()["groups"])


def test_queue_timeout() -> None:
    with running(plain(queue_timeout="200ms")) as one:
        one.allow("queue_timeout")
        with busy(one):
            assert one.request("POST", "/plain/length", b"x" * 200000, timeout=SLOWNESS).status == 503


# Sites


def test_sites(server: Server) -> None:
    """hosts, root, index, dotfiles and routes of two sites that differ in each."""
    server.file("public/index.html", "first")
    server.file("public/.hidden", "hidden")
    server.file("second/home.html", "second")
    server.file("second/.hidden", "hidden")
    server.write(
        "[sites]\n"
        "[[first]]\nhosts = *\nroot = public\n"
        "[[second]]\nhosts = second.example.org, *.second.example.org\nroot = second\nindex = home.html,\n"
        "dotfiles = allow\n[[[routes]]]\n/ = files\n/gone = =410\n"
    )
    server.start()

    def get(host: str, path: str = "/") -> Answer:
        return server.get(path, Host=host)

    assert (get("example.org").body, get("second.example.org").body) == (b"first", b"second")
    assert get("www.second.example.org").body == b"second"
    assert (get("example.org", "/.hidden").status, get("second.example.org", "/.hidden").body) == (404, b"hidden")
    assert (get("example.org", "/gone").status, get("second.example.org", "/gone").status) == (404, 410)


def test_symlinks(server: Server) -> None:
    """deny, owner and allow, with a link to a file of its own owner and one to another's."""
    for name in ("deny", "owner", "allow"):
        server.file(f"{name}/file", "content")
        (server.directory / name / "own").symlink_to("file")
        link = server.directory / name / "other"
        link.symlink_to("/etc/passwd")
        if ROOT:
            os.lchown(link, pwd.getpwnam(GROUP_USER).pw_uid, -1)
    names = ("deny", "owner", "allow")
    server.write("[sites]\n" + "".join(f"[[{n}]]\nhosts = {n}\nroot = {n}\nsymlinks = {n}\n" for n in names))
    server.allow("symlinks")
    server.start()
    found = {name: [server.get(path, Host=name).status for path in ("/own", "/other")] for name in names}
    assert {name: [status == 200 for status in statuses] for name, statuses in found.items()} == {
        "deny": [False, False],
        "owner": [True, False],
        "allow": [True, True],
    }, found


def test_max_body() -> None:
    with running(plain().replace("hosts = *", "hosts = *\n  max_body = 100k")) as one:
        assert one.request("POST", "/plain/length", b"x" * 102400).body == b"102400"
        assert head_only(one, b"POST /plain/length HTTP/1.1\r\nHost: x\r\nContent-Length: 102401\r\n\r\n").startswith(
            b"HTTP/1.1 413 "
        )


def test_gather() -> None:
    """A slow upload to a route that gathers holds no worker; one to another route does."""
    text = plain().replace("hosts = *", "hosts = *\n  gather = /plain/whole,").replace(
        "/plain/ = group:plain", "/plain/ = group:plain\n    /plain/whole = group:plain"
    )  # fmt: skip
    upload = b"POST /plain/%s/length HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b"x" * 200000
    with running(text) as one, one.connect() as slow:
        slow.sendall(upload.replace(b"%s", b"whole"))
        # A second request of this connection's front end has been read: so has what came before it, as far as it goes.
        assert one.request("GET", "/plain/", timeout=5).body == b"hello, world"
        with one.connect() as streamed:
            streamed.sendall(upload.replace(b"%s", b"now"))
            wait_until(lambda: any(process.get("busy") for process in one.status()["processes"]), "it does not run")
            with pytest.raises(TimeoutError):
                one.request("GET", "/plain/", timeout=0.5)
            streamed.sendall(b"x" * 100000)
            assert streamed.recv(65536).startswith(b"HTTP/1.1 200")
        slow.sendall(b"x" * 100000)
        assert slow.recv(65536).endswith(b"300000")
