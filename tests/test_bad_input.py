"""What is wrong is said once, clearly, with where it is and what to do; and never stops what is right.

Mistakes in the configuration's text are in config/broken/; here are those that the machine and the applications make.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
from pathlib import Path

import pytest
from serving import ROOT, SANITIZE_FLAGS, SLOWNESS, Server, program, tree, wait_until

GOOD = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'good']\n"
FILES = {
    "good.wsgi": GOOD,
    "syntax.wsgi": "import os\n\ndef application(environ start_response):\n    pass\n",
    "none.wsgi": "x = 1\n",
    "raises.wsgi": "import os\nos.environ['NOT_THERE']\n",
    "imports.wsgi": "import json\nimport not_installed\n",
    "exits.wsgi": "import sys\nsys.exit('bye')\n",
    "junk.so": "this is no shared object",
    "broken.php": "<?php function (",
    "other.c": (
        '#include <Python.h>\nconst char *Py_GetVersion(void)\n{\n\treturn "3.9.0 (odd)";\n}\n'
        "int main(int argc, char **argv)\n{\n\treturn Py_BytesMain(argc, argv);\n}\n"
    ),
}
# group: (its lines, what is said of it; {} is the server's directory)
GROUPS = {
    "syntax": (("application = syntax.wsgi",), "{}/syntax.wsgi:3: SyntaxError: invalid syntax"),
    "none": (("application = none.wsgi",), "{}/none.wsgi has no application"),
    "raises": (("application = raises.wsgi",), "{}/raises.wsgi:2: KeyError: 'NOT_THERE'"),
    "imports": (("application = imports.wsgi",), "{}/imports.wsgi:2: ModuleNotFoundError: No module named 'not_inst"),
    "exits": (("application = exits.wsgi",), "{}/exits.wsgi:2: SystemExit: bye"),
    "module": (
        ("application = nothing.there:application", "directory = public"),
        "there is no module nothing for application = nothing.there:application; directory and python_path say where"
        " it is looked for: {}/public",
    ),
    "callable": (("application = json:nothing",), "json has no nothing"),
    "preload": (("application = good.wsgi", "preload = not_installed"), "No module named 'not_installed'"),
    "script": (
        ("application = good.wsgi", "interpreter = script"),
        "interpreter {}/script exited with status 3 before it ran anything of the server; expected a Python program",
    ),
    "other": (
        ("application = good.wsgi", "interpreter = other"),
        "python: the plugin was built for Python 3.11, the interpreter is 3.9.0 (odd)",
    ),
    "junk": (("language = echo", "plugin = junk.so"), "plugin {}/junk.so: file too short"),
    "symbol": (("language = echo", "plugin = host.so"), "plugin {}/host.so: it exports no symbol `langplugin`"),
    "told": (("language = echo", "application = fail"), "echo: told to fail by application = fail"),
    "name": (
        ("language = php", "[[[ini]]]", "memroy_limit = 3M"),
        "php: [ini] memroy_limit: PHP has no such directive",
    ),
    "value": (
        ("language = php", "[[[ini]]]", "opcache.memory_consumption = much"),
        "php: [ini] opcache.memory_consumption = much: PHP does not take this value, and has 128 instead",
    ),
    "compile": (("language = php", "preload = broken.php"), "php: preload: {}/broken.php:1: Unclosed '('"),
}


def write(one: Server) -> None:
    for name, content in FILES.items():
        one.file(name, content)
    script = one.file("script", "#!/bin/sh\necho I am no Python >&2\nexit 3\n")
    script.chmod(0o755)
    flags = subprocess.check_output(["/usr/bin/python3-config", "--includes", "--embed", "--ldflags"], text=True)
    compile_ = ["cc", *SANITIZE_FLAGS, "-rdynamic", "-o", one.directory / "other", one.directory / "other.c"]
    subprocess.run([*compile_, *shlex.split(flags)], check=True)
    (one.directory / "host.so").symlink_to(tree() / "build/lib/libwebserver_host.so")
    text = "[groups]\n[[good]]\nlanguage = python\napplication = good.wsgi\nprocesses = 1\n"
    for name, (lines, _) in GROUPS.items():
        language = () if lines[0].startswith("language") else ("language = python",)
        text += "\n".join((f"[[{name}]]", *language, "processes = 1", *lines, ""))
    text += "[sites]\n[[all]]\nhosts = *\nroot = public\n[[[routes]]]\n/good = group:good\n"
    one.write(text)


def test_groups_that_do_not_start_say_why(server: Server) -> None:
    """Once at the start, with where; in status; and the server and the other group are there."""
    write(server)
    server.allow(*GROUPS)
    server.start()
    status = {group["name"]: group for group in server.status()["groups"]}
    for name, (_, text) in GROUPS.items():
        expected = text.replace("{}", str(server.directory))
        (said,) = [line for line in server.stderr.decode().splitlines() if f"group {name} has failed to start" in line]
        assert expected in said
        assert expected in status[name]["message"]
        assert status[name]["state"] in ("starting", "backoff")
    assert status["good"]["state"] == "running"
    assert server.get("/good").body == b"good"
    # What they said themselves.
    wait_until(lambda: "I am no Python" in server.log(), "not logged")
    assert server.logged("def application(environ start_response):")


# What the checker sees: (lines of a group or site, what is said; the place is looked at in the test)
CHECKED = {
    "missing application": (
        "[groups]\n[[g]]\nlanguage = python\napplication = nothing.wsgi\n",
        "[groups] g: application: {}/nothing.wsgi does not exist",
    ),
    "missing directory of an application": (
        "[groups]\n[[g]]\nlanguage = python\napplication = there/app.wsgi\n",
        "[groups] g: application: {}/there does not exist",
    ),
    "missing plugin": (
        "[groups]\n[[g]]\nlanguage = echo\nplugin = nothing.so\n",
        "[groups] g: plugin: {}/nothing.so does not exist",
    ),
    "missing interpreter": (
        "[groups]\n[[g]]\nlanguage = echo\ninterpreter = venv/bin/python\n",
        "[groups] g: interpreter: {}/venv does not exist",
    ),
    "interpreter that nobody may execute": (
        "[groups]\n[[g]]\nlanguage = echo\ninterpreter = plain\n",
        "may not execute {}/plain" if ROOT else "may not search {}/plain",
    ),
    "unreadable root": ("[sites]\n[[s]]\nhosts = *\nroot = closed\n", "may not search {}/closed"),
    "missing root": ("[sites]\n[[s]]\nhosts = *\nroot = nothing\n", "[sites] s: root: {}/nothing does not exist"),
    "root that is a file": (
        "[sites]\n[[s]]\nhosts = *\nroot = plain\n",
        "[sites] s: root: {}/plain is not a directory",
    ),
}


def check(one: Server, *words: str) -> subprocess.CompletedProcess[str]:
    command = [program("webserverd"), "--config", str(one.config_file), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30 * SLOWNESS)


@pytest.mark.parametrize("name", CHECKED)
def test_what_the_checker_sees(server: Server, name: str) -> None:
    """One line, with the file and the line of the option; nothing is started."""
    text, expected = CHECKED[name]
    server.file("plain", "")
    (server.directory / "closed").mkdir(mode=0o700)
    if not ROOT:
        (server.directory / "closed").chmod(0)
    server.write(text)
    rows = server.config_file.read_text().splitlines()
    option = next((row for row in reversed(rows) if "=" in row and "user" not in row), "")
    for words in (("-t",), ("-T",), ("--foreground",), ()):
        result = check(server, *words)
        assert (result.returncode, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        assert expected.replace("{}", str(server.directory)) in line
        number = int(re.match(rf"webserverd: {server.config_file}:(\d+): ", line)[1])  # type: ignore[index]
        assert rows[number - 1] in (option, "[[g]]")
    assert not list((server.directory / "run").iterdir())


def test_a_configuration_that_is_not_there(server: Server) -> None:
    result = check(server, "-t")
    assert result.returncode == 1
    assert (
        result.stderr
        == f"webserverd: {server.config_file}: cannot read {server.config_file}: No such file or directory\n"
    )
    server.config_file.mkdir()
    (line,) = check(server, "-t").stderr.splitlines()
    assert "is a directory" in line.lower() or "not a file" in line


def test_a_port_in_use(server: Server) -> None:
    server.write("[sites]\n[[s]]\nhosts = *\nroot = public\n")
    with socket.socket() as other:
        other.bind(("127.0.0.1", server.port))
        other.listen()
        for words in (("--foreground",), ()):
            result = check(server, *words)
            assert result.returncode == 1
            assert result.stderr == (
                f"webserverd: error: {server.config_file}: [server]: listen: cannot listen on 127.0.0.1:{server.port}: the"
                " address is in use by another process; stop that one, or choose another address\n"
            )
    server.start()


def test_what_cannot_be_had_is_an_error(server: Server) -> None:
    """no_new_privs = no of a server that was itself started with it; a spool directory without O_TMPFILE."""
    server.write("[groups]\n[[g]]\nlanguage = echo\nno_new_privs = no\n")
    command = ["setpriv", "--no-new-privs", program("webserverd"), "--config", str(server.config_file), "-t"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30 * SLOWNESS)
    assert result.returncode == 1
    assert "[groups] g: no_new_privs: found no, but this process was started with no_new_privs" in result.stderr
    assert check(server, "-t").returncode == 0
    # sysfs has no files of ours, with a name or without.
    server.write("", server="spool = /proc/self\n" if os.geteuid() else "spool = /proc\n")
    (line,) = check(server, "-t").stderr.splitlines()
    assert "[server]: spool: " in line


def test_a_group_that_does_not_start_later(server: Server) -> None:
    """A restart into a broken file says where, exits with 1, and the old code goes on."""
    server.file("app.wsgi", GOOD)
    server.write(
        "[groups]\n[[g]]\nlanguage = python\napplication = app.wsgi\nprocesses = 1\n"
        "[sites]\n[[s]]\nhosts = *\n[[[routes]]]\n/ = group:g\n"
    )
    server.allow("group g", "app.wsgi", "SyntaxError", "Traceback")
    server.start()
    path: Path = server.file("app.wsgi", FILES["syntax.wsgi"])
    result = server.ctl("restart", "g", check=False)
    assert result.returncode == 1
    assert f"{path}:3: SyntaxError: invalid syntax" in result.stderr
    assert server.get("/").body == b"good"
