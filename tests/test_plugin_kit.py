"""The plugin kit as a stranger uses it: the installed header, a plugin of one's own, the suite by its command."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import SANITIZE_FLAGS, SLOWNESS, TREE, Server, program, wait_until
from tunnels import build_plugin

# Lines of C, comments and headers included.
LINES = {"echo": 150, "lua": 500}
FLAGS = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-shared", "-fPIC"]
SOURCES = TREE / "tests/conformance/applications"
# By number of the fault in applications/plugin.h: the test that finds it, as --only takes it.
FAULTS = {
    1: "test_a_body_arrives_whole",
    2: "test_the_application_answers_first and large-expect",
    3: "test_clients_that_die_in_their_answer",
    4: "test_no_memory_or_descriptor_is_kept",
    5: "test_no_memory_or_descriptor_is_kept",
    6: "test_no_body",
    7: "test_an_application_sees_that_its_client_has_gone",
    8: "test_many_repeated_and_long_fields",
    9: "test_head_has_the_fields_and_no_body",
    10: "test_pipelined_requests",
    11: "test_many_repeated_and_long_fields",
    12: "test_a_query_stays_as_it_came",
    13: "test_nothing_of_a_request_is_left",
}


def build(target: Path, fault: int = 0) -> Path:
    sources = [SOURCES / name for name in ("plugin.c", "plugin_host.c", "sha256.c")]
    include = f"-I{TREE}/langplugins/include"
    subprocess.run(["gcc", *FLAGS, *SANITIZE_FLAGS, f"-DFAULT={fault}", include, *sources, "-o", target], check=True)
    return target


def run_suite(plugin: Path, *words: str, seconds: int = 30) -> subprocess.CompletedProcess[str]:
    command = [
        program("webserver-plugin-test"),
        "--language",
        "kit",
        "--plugin",
        plugin,
        "--application",
        SOURCES / "plugin.c",
    ]
    return subprocess.run(
        [*command, *words],
        capture_output=True,
        text=True,
        timeout=600 * SLOWNESS,
        env={**os.environ, "WEBSERVER_CONFORMANCE_SECONDS": str(seconds)},
    )


def clauses(output: str, outcome: str) -> list[str]:
    return re.findall(rf"^{outcome} +(.*)$", output, re.M)


def test_a_good_plugin_passes(tmp_path: Path) -> None:
    result = run_suite(build(tmp_path / "good.so"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(clauses(result.stdout, "ok")) > 150


@pytest.mark.parametrize("fault", FAULTS)
def test_the_suite_finds_a_fault(tmp_path: Path, fault: int) -> None:
    result = run_suite(build(tmp_path / "bad.so", fault), "--only", FAULTS[fault], seconds=3)
    assert result.returncode == 1, result.stdout + result.stderr
    assert clauses(result.stdout, "FAILED"), result.stdout


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_whole_suite_finds_a_fault(tmp_path: Path, fault: int) -> None:
    """And it ends, whatever the plugin does."""
    result = run_suite(build(tmp_path / "bad.so", fault), seconds=5)
    assert result.returncode == 1, result.stdout + result.stderr


def test_the_suite_runs_where_it_is_installed(tmp_path: Path) -> None:
    """Beside the package, as setup.py maps it, and with nothing else of the tests."""
    assert '{"webserver.conformance": "tests/conformance"}' in (TREE / "setup.py").read_text()
    lib = tmp_path / "lib"
    shutil.copytree(TREE / "webserver/cli", lib / "webserver/cli")
    (lib / "webserver/__init__.py").touch()
    shutil.copytree(
        TREE / "tests/conformance", lib / "webserver/conformance", ignore=shutil.ignore_patterns("__pycache__")
    )
    environment = {**os.environ, "PYTHONPATH": str(lib), "WEBSERVER_BIN": os.path.dirname(program("webserverd"))}
    command = [sys.executable, "-m", "webserver.cli.plugin_test", "--only", "test_hello and lua"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert clauses(result.stdout, "ok") == ["answers: hello [lua]"], result.stdout + result.stderr
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--langage", "lua"], "unknown option --langage"),
        (["--language", "lua"], "--language and --application belong together"),
        (["--language", "lua", "--application", "/nothing.lua"], "there is no file /nothing.lua"),
    ],
)
def test_mistakes_on_the_command_line(words: list[str], said: str) -> None:
    result = subprocess.run([program("webserver-plugin-test"), *words], capture_output=True, text=True)
    assert (result.returncode, said in result.stderr) == (2, True), result.stderr


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    result = run_suite(
        build(tmp_path / "good.so"), "--only", "test_upgrade or test_hello", "--without", "upgrade,trailers"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert clauses(result.stdout, "ok") == ["answers: hello [kit]"]
    assert "conformance: upgrade: left out by --without" in result.stdout


@pytest.mark.parametrize("name", LINES)
def test_a_plugin_is_a_small_thing(name: str) -> None:
    """The reference for authors, and a whole language written with the kit: what is alike in plugins is the host's."""
    texts = [path.read_bytes() for path in (TREE / "langplugins" / name).rglob("*.[ch]")]
    assert texts
    assert sum(text.count(b"\n") for text in texts) < LINES[name]


LUA = """
[groups]
[[one]]
language = my.lua
plugin = elsewhere/lua.so
application = app.lua
processes = 1
[[[settings]]]
word = passed on
[sites]
[[all]]
hosts = *
[[[routes]]]
/ = group:one
"""


def test_a_language_that_the_server_does_not_know(server: Server, tmp_path: Path) -> None:
    """Lua's plugin, built outside the tree with the installed header only, under a name of its own."""
    prefix = tmp_path / "prefix"
    subprocess.run(["make", "-s", "-C", TREE, "install-header", f"PREFIX={prefix}"], check=True)
    source = tmp_path / "lua"
    shutil.copytree(TREE / "langplugins/lua", source)
    (server.directory / "elsewhere").mkdir()
    target = server.directory / "elsewhere/lua.so"
    lua = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "lua5.4"], capture_output=True, text=True, check=True
    ).stdout
    include = f"-I{prefix}/include/webserver"
    command = [
        "gcc",
        *FLAGS,
        *SANITIZE_FLAGS,
        include,
        "-Wa,-I.",
        *sorted(source.glob("*.c")),
        *lua.split(),
        "-o",
        target,
    ]
    subprocess.run(command, cwd=source, check=True)
    target.chmod(0o755)
    server.file("app.lua", 'return function(env) return 200, nil, "from " .. env.PATH_INFO end')
    server.write(LUA)
    server.start()
    assert server.get("/outside").body == b"from /outside"
    assert server.status()["groups"][0]["language"] == "my.lua"


SETTINGS = """
[groups]
[[one]]
language = kit
plugin = plugin.so
processes = 1
[[[settings]]]
scratch = {}
[sites]
[[all]]
hosts = *
[[[routes]]]
/ = group:one
"""


def test_settings_reach_the_plugin(server: Server) -> None:
    build(server.directory / "plugin.so").chmod(0o755)
    place = server.directory / "its own"
    place.mkdir()
    place.chmod(0o777)
    server.write(SETTINGS.format(place))
    server.start()
    assert server.get("/hello?watch=word").body == b"hello, world"
    assert (place / "begun").read_text() == "word\n"


ASKING = """
[groups]
[[asking]]
language = asking
plugin = asking.so
processes = 1
request_timeout = {}s
[sites]
[[all]]
hosts = *
[[[routes]]]
/ = group:asking
"""
BY_ITSELF, FROM_OUTSIDE = "asking: told by itself\n", "asking: read from outside\n"


def start_asking(server: Server, seconds: float) -> int:
    build_plugin(server.directory, "asking")
    server.write(ASKING.format(seconds))
    server.start()
    return int(server.get("/pid").body)


@contextlib.contextmanager
def running(server: Server, way: str) -> Iterator[None]:
    """A request that goes on until its client leaves."""
    with server.connect() as sock:
        sock.sendall(f"GET /{way} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        wait_until(lambda: server.status()["groups"][0]["busy"] == 1, "it does not begin")
        yield
    wait_until(lambda: server.status()["groups"][0]["busy"] == 0, "it does not end")


def test_where_a_plugin_s_requests_are(server: Server) -> None:
    """Told by the language's own thread where that comes by; else read from outside, and never both."""
    pid = start_asking(server, 60)
    for way, told in (
        ("comes", BY_ITSELF),
        ("deaf", FROM_OUTSIDE),
        ("starts", BY_ITSELF),
        ("hangs", FROM_OUTSIDE),
        ("refuses", FROM_OUTSIDE),
        ("comes", BY_ITSELF),
    ):
        with running(server, way):
            for _ in range(2):
                text = server.ctl("stack", "asking").stdout
                assert (text.count(told), text.count("asking: ")) == (1, 1), f"{way}: {text}"
    text = server.ctl("stack", "asking").stdout
    assert text.splitlines()[1:] == ["  it runs no request", "  " + FROM_OUTSIDE.strip()]
    assert int(server.get("/pid").body) == pid


def test_a_plugin_ends_what_is_overdue(server: Server) -> None:
    server.allow("request_timeout", "504", "asking: its time is over")
    start_asking(server, 0.5 * SLOWNESS)
    assert server.get("/ends").status == 504
    wait_until(lambda: "asking: its time is over" in server.log(), "it has not been told")
    assert server.logged(BY_ITSELF.strip())
    assert server.get("/pid").status == 200
