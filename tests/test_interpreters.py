"""A group names its interpreter: other versions of CPython, virtual environments, and PHP, at one time in one server.

Every CPython that the machine has runs the same application (interpreters.py).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from interpreters import Python, another_version, build, default_plugin, others, startable
from serving import ROOT, Server, directory, interpreter, program, wait_until

APPLICATION = """
import importlib, json, os, sys, tempfile, threading

try:
    import priced
except ImportError:
    priced = None

class Closing:
    def __iter__(self):
        yield b"one "
        raise RuntimeError("in the middle")
    def close(self):
        raise ValueError("and again in close")

def application(environ, start_response):
    path = environ["PATH_INFO"].rpartition("/")[2]
    start = lambda *more: start_response("200 OK", [("Content-Type", "text/plain"), *more])
    if path == "who":
        start()
        return [json.dumps({
            "pid": os.getpid(), "version": "%d.%d%s" % (*sys.version_info[:2], sys.abiflags), "prefix": sys.prefix,
            "program": sys.executable, "priced": priced and priced.VERSION, "path": sys.path,
            "threads": environ["wsgi.multithread"], "no": [type(None).__name__, sys.flags.utf8_mode],
        }).encode()]
    if path == "echo":
        body = environ["wsgi.input"].read(3) + environ["wsgi.input"].readline() + b"".join(environ["wsgi.input"])
        start(("Content-Length", str(len(body))))
        return [body]
    if path == "stream":
        start()
        return (b"line %d\\n" % number for number in range(1000))
    if path == "file":
        file = tempfile.TemporaryFile()
        file.write(b"0123456789" * 10000)
        file.seek(10)
        start()
        return environ["wsgi.file_wrapper"](file)
    if path == "fork":
        import multiprocessing
        child = multiprocessing.get_context("fork").Process(target=threading.current_thread)
        known = threading.current_thread()
        child.start()
        child.join()
        start()
        return [b"%d %d" % (child.exitcode, threading.current_thread() is known)]
    if path == "write":
        start()(b"written ")
        return [b"returned"]
    if path == "changed":
        start()
        try:
            raise ValueError("early")
        except ValueError:
            start_response("503 Sorry", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"sorry"]
    if path == "late":
        write = start()
        write(b"begun")
        try:
            raise LookupError("too late for a page")
        except LookupError:
            start_response("500 Sorry", [], sys.exc_info())
    if path == "wrong":
        return 1 / 0
    if path == "closing":
        start()
        return Closing()
    if path == "errors":
        print("said by", path, file=environ["wsgi.errors"])
        start()
        return [b"told"]
    if path == "hang":
        def stuck_here():
            threading.Event().wait()
        stuck_here()
    start()
    return [b"?"]
"""

# The same by an event loop, with a client that sends slowly and one that goes away.
LOOP = """
import asyncio, os, sys
LOADED_BY = os.getpid()

async def application(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body, more = b"", True
    while more:
        event = await receive()
        body, more = body + event.get("body", b""), event.get("more_body", False)
    await asyncio.sleep(0.01)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    said = "%d.%d%s %s\\n" % (*sys.version_info[:2], sys.abiflags, LOADED_BY == os.getppid())
    await send({"type": "http.response.body", "body": said.encode(), "more_body": True})
    for at in range(0, len(body), 50000):
        await send({"type": "http.response.body", "body": body[at : at + 50000], "more_body": True})
    await send({"type": "http.response.body", "body": b""})
"""

SITES = "[sites]\n[[all]]\nhosts = *\nroot = public\n[[[routes]]]\n"


def group(name: str, python: str, plugin: Path, more: str = "") -> str:
    return (
        f"[[{name}]]\nlanguage = python\napplication = app.wsgi\ninterpreter = {python}\nplugin = {plugin}\n"
        f"processes = 1\nthreads = 2\n{more}"
    )


@pytest.fixture(scope="module")
def workshop() -> Iterator[Path]:
    """A directory with the plugin of the distribution's Python, and one for each other beside it."""
    with directory() as path:
        shutil.copy(default_plugin(), path / "python.so")
        yield path


def built(one: Python, workshop: Path) -> Path:
    path = workshop / f"python{one.version}.so"
    if not path.exists():
        done = build(one, path)
        assert done.returncode == 0, done.stderr
        # One line for the path, and not one warning.
        assert (done.stdout, done.stderr) == (f"{path}\n", "")
        path.chmod(0o755)
    return path


def test_there_is_another_one() -> None:
    """Else nothing is shown here: python3.11-dbg is in the list of tools/setup."""
    assert others()


def each() -> list[object]:
    """In every run the oldest, the newest and the debug build; those between them with whole counts."""
    plain = [one for one in others() if not one.version.endswith("d")]
    return [
        pytest.param(one, id=one.version, marks=[pytest.mark.long] if one in plain[1:-1] else []) for one in others()
    ]


@pytest.mark.unsanitized
@pytest.mark.parametrize("one", each())
def test_the_application_runs_in_it(server: Server, workshop: Path, one: Python) -> None:
    plugin = built(one, workshop)
    needed = subprocess.run(["readelf", "-d", plugin], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"NEEDED.*libpython", needed)
    server.file("app.wsgi", APPLICATION)
    server.file("loop.py", LOOP)
    chosen = startable(one, workshop)
    server.write("[groups]\n" + group("app", chosen, workshop / "python.so", "request_timeout = 1s\n"
                 "preload = app.wsgi\n[[[environment]]]\nPYTHONUTF8 = 1\n")
                 + group("loop", chosen, workshop / "python.so", "interface = asgi\npreload = loop.py\n").replace(
                     "app.wsgi", "loop.py")
                 + SITES + "/ = group:app\n/loop/ = group:loop\n")  # fmt: skip
    server.start()
    who = json.loads(server.get("/who").body)
    assert (who["version"], who["threads"], who["no"]) == (one.version, True, ["NoneType", 1])
    assert {os.path.basename(path) for path in plugins(who["pid"])} == {plugin.name}
    (shown,) = [line for line in server.log().splitlines() if "group app generation 1 serves" in line]
    assert f"(python {one.version.rstrip('d')}" in shown
    body = b"first\nsecond\n" * 20000
    assert server.request("POST", "/echo", body).body == body
    assert server.request("POST", "/echo", b"").body == b""
    assert server.get("/stream").body == b"".join(b"line %d\n" % number for number in range(1000))
    assert server.get("/file").body == b"0123456789" * 9999
    assert server.get("/write").body == b"written returned"
    assert server.get("/fork").body == b"0 1"
    assert (server.get("/changed").status, server.get("/changed").body) == (503, b"sorry")
    assert server.get("/errors").body == b"told"
    for sent in (b"", b"small", body):
        assert server.request("POST", "/loop/", sent).body == f"{one.version} True\n".encode() + sent
    mistakes(server)
    # A request that does not end: its stack is in the log, whatever this version hides of itself.
    server.allow("worker 0 of group app", "request_timeout")
    assert server.get("/hang").status == 504
    wait_until(lambda: "stuck_here" in server.log(), "the stack is not in the log")
    wait_until(lambda: "Current thread" in server.log() or "Thread 0x" in server.log(), "no list of threads")
    wait_until(lambda: server.get("/who").status == 200, "no worker took its place")


def mistakes(server: Server) -> None:
    """Errors reach the log whole, also two at a time."""
    server.allow("Traceback", "Error", "error")
    assert server.get("/wrong").status == 500
    wait_until(lambda: "ZeroDivisionError: division by zero" in server.log(), "no traceback")
    assert not server.raw(b"GET /late HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").endswith(b"0\r\n\r\n")
    wait_until(lambda: "LookupError: too late for a page" in server.log(), "no traceback")
    server.raw(b"GET /closing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    wait_until(lambda: "ValueError: and again in close" in server.log(), "no traceback of close()")
    assert server.logged("RuntimeError: in the middle")


def plugins(pid: int) -> set[str]:
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {line.split()[5] for line in maps.splitlines() if re.search(r"/(python|php|echo)[0-9.]*d?\.so$", line)}


def environment(server: Server, name: str, python: str, version: str) -> Path:
    """A virtual environment with a package that the other has in another version, and a .pth file."""
    venv = server.directory / name
    subprocess.run([python, "-m", "venv", "--without-pip", venv], check=True)
    (packages,) = venv.glob("lib/python3*/site-packages")
    (packages / "priced").mkdir()
    (packages / "priced/__init__.py").write_text(
        "from importlib.metadata import version\nVERSION = version('priced')\n"
    )
    info = packages / f"priced-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: priced\nVersion: {version}\n")
    (venv / "linked").mkdir()
    (packages / "linked.pth").write_text(f"{venv}/linked\n")
    return venv


@pytest.mark.unsanitized
def test_two_versions_two_environments_and_php_at_once(server: Server, workshop: Path) -> None:
    other = another_version()
    built(other, workshop)
    chosen = startable(other, workshop)
    server.file("app.wsgi", APPLICATION)
    server.file("public/who.php", "<?php echo json_encode(['pid' => getmypid(), 'version' => PHP_VERSION]);")
    old, new = environment(server, "old", interpreter(), "1.0"), environment(server, "new", interpreter(), "2.5")
    third = environment(server, "third", chosen, "3.1")
    plugin = workshop / "python.so"
    names = {
        "plain": interpreter(),
        "old": old / "bin/python",
        "new": new / "bin/python",
        "third": third / "bin/python",
    }
    server.write(
        "[groups]\n"
        + "".join(group(name, str(path), plugin) for name, path in names.items())
        + "[[blog]]\nlanguage = php\nprocesses = 1\n"
        + SITES
        + "".join(f"/{name}/ = group:{name}\n" for name in names)
        + ".php = group:blog\n"
    )
    server.start()
    seen = {name: json.loads(server.get(f"/{name}/who").body) for name in names}
    here = seen["plain"]["version"]
    assert [seen[name]["version"] for name in names] == [here, here, here, other.version]
    assert other.version != here
    assert [seen[name]["priced"] for name in names] == [None, "1.0", "2.5", "3.1"]
    for name, venv in (("old", old), ("new", new), ("third", third)):
        assert seen[name]["prefix"] == str(venv)
        assert seen[name]["program"] == str(names[name])
        assert f"{venv}/linked" in seen[name]["path"]
    blog = json.loads(server.get("/who.php").body)
    pids = {name: found["pid"] for name, found in {**seen, "blog": blog}.items()}
    maps = {name: {os.path.basename(path) for path in plugins(pid)} for name, pid in pids.items()}
    own = f"python{other.version}.so"
    ours = {"python.so"}
    assert maps == {"plain": ours, "old": ours, "new": ours, "third": {own}, "blog": {"php.so"}}
    # Each goes on by itself.
    server.ctl("restart", "third")
    again = json.loads(server.get("/third/who").body)
    assert (again["version"], again["priced"]) == (other.version, "3.1")
    assert {name: json.loads(server.get(f"/{name}/who").body)["pid"] for name in ("plain", "old", "new")} == {
        name: seen[name]["pid"] for name in ("plain", "old", "new")
    }


def test_variables_that_python_reads_and_names_that_are_the_application_s(server: Server) -> None:
    """PYTHON... of the group counts as on a command line; nothing of ours is in the way of the application's modules."""
    server.file(
        "work/webserver.py",
        "import importlib.util, json, os, sys, elsewhere\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'application/json')])\n"
        "    found = [n for n in ('pool', 'policy', 'host', 'plugins', 'left') if importlib.util.find_spec(n)]\n"
        "    return [json.dumps([__file__, elsewhere.WORD, hash('the same'), sys.flags.dont_write_bytecode,\n"
        "                        sys.flags.no_user_site, found, sys.modules['webserver'].__file__]).encode()]\n",
    )
    server.file("elsewhere/elsewhere.py", "WORD = 'from PYTHONPATH'\n")
    secret = server.file("secret", "PYTHONHASHSEED=7\n")
    secret.chmod(0o600)
    server.write(
        f"[groups]\n[[app]]\nlanguage = python\napplication = webserver:application\ndirectory = work\n"
        f"environment_file = secret\n[[[environment]]]\nPYTHONPATH = {server.directory}/elsewhere\n"
        f"PYTHONDONTWRITEBYTECODE = 1\n{SITES}/ = group:app\n"
    )
    server.start()
    file, word, number, bytecode, no_user_site, found, ours = json.loads(server.get("/").body)
    assert (file, ours) == (f"{server.directory}/work/webserver.py",) * 2
    assert (word, bytecode, no_user_site, found) == ("from PYTHONPATH", 1, 1, [])
    command = [interpreter(), "-c", "print(hash('the same'))"]
    said = subprocess.run(command, capture_output=True, text=True, env={"PYTHONHASHSEED": "7"}, check=True)
    assert number == int(said.stdout)


@pytest.mark.unsanitized
def test_a_missing_plugin_is_named_with_the_command_that_builds_it(server: Server, workshop: Path) -> None:
    other = another_version()
    chosen = startable(other, workshop)
    place = server.directory / "plugins"
    place.mkdir()
    place.chmod(0o755)
    shutil.copy(default_plugin(), place / "python.so")
    server.file("app.wsgi", APPLICATION)
    server.write("[groups]\n" + group("app", chosen, place / "python.so") + SITES + "/ = group:app\n")
    server.allow("group app", "the plugin .* is for Python")
    server.start()
    (found,) = server.status()["groups"]
    message = found["message"]
    said = re.search(r"is Python (\S+); build the one for it with: (\S+) --interpreter (\S+)", message)
    assert said, message
    assert said[1] == other.version
    # The command as it stands there, but for where the result goes.
    assert os.path.basename(said[2]) == "webserver-build-plugin"
    assert said[3] == chosen
    made = build(other, place / f"python{other.version}.so")
    assert made.returncode == 0, made.stderr
    (place / f"python{other.version}.so").chmod(0o755)
    server.ctl("restart", "app")
    assert json.loads(server.get("/who").body)["version"] == other.version


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "the option --interpreter is missing"),
        (("--interpreter", "/nowhere/python"), 1, "there is no program /nowhere/python"),
        (("--interpreter", "/bin/true"), 1, "/bin/true is no Python: it said nothing that could be read"),
        (("--interpreter", "/bin/false"), 1, "/bin/false is no Python"),
        (("--interpreter", "/usr/bin/python3", "--output", "/nowhere/p.so"), 1, "/nowhere cannot be written"),
        (("--output", "x", "--wrong"), 2, "unknown option --wrong"),
    ],
)
def test_mistakes_of_whoever_builds(arguments: tuple[str, ...], code: int, told: str) -> None:
    done = subprocess.run([program("webserver-build-plugin"), *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "")
    assert told.replace("/bin/", "") in done.stderr.replace("/usr/bin/", "").replace("/bin/", ""), done.stderr


def test_root_starts_no_program_that_others_can_change(tmp_path: Path) -> None:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    path.chmod(0o757)
    command = [program("webserver-build-plugin"), "--interpreter", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    if ROOT:
        assert f"{path} can be changed by others than root" in done.stderr
        assert not (tmp_path / "ran").exists()
    else:
        assert "is no Python" in done.stderr
    path.chmod(stat.S_IRWXU)


def test_headers_that_are_missing_are_named(tmp_path: Path) -> None:
    """An interpreter that says what it is, but has no Python.h where it says."""
    path = tmp_path / "python"
    answer = {
        "implementation": "cpython",
        "version": [3, 12],
        "flags": "",
        "free_threaded": False,
        "include": ["/none"],
    }
    path.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    path.chmod(0o700)
    command = [program("webserver-build-plugin"), "--interpreter", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no Python.h in /none. Debian has them in python3.12-dev" in done.stderr
    for version, free, told in (([3, 8], False, "3.9 or newer is needed"), ([3, 13], True, "free-threaded")):
        path.write_text(f"#!/bin/sh\necho '{json.dumps({**answer, 'version': version, 'free_threaded': free})}'\n")
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, told in done.stderr) == (1, True)
