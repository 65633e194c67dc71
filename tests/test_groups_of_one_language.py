"""S31: several groups of one language in one server, each with its own user, environment, directory and settings."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import ROOT, Server, directory

PYTHON = """
import json, os, stat, sys, tempfile, threading, time, word

def application(environ, start_response):
    if environ["PATH_INFO"].endswith("/wait"):
        time.sleep(0.3)
    with tempfile.NamedTemporaryFile() as file:
        pass
    made = "%s/made-%d-%d" % (tempfile.gettempdir(), os.getpid(), threading.get_ident())
    with open(made, "w"):
        mode = stat.S_IMODE(os.stat(made).st_mode)
    os.unlink(made)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({
        "pid": os.getpid(), "thread": threading.get_ident(), "uid": os.getuid(), "gid": os.getgid(),
        "directory": os.getcwd(), "word": word.WORD, "argv": sys.argv[1:], "mode": mode,
        "environment": {k: v for k, v in os.environ.items() if k not in ("PATH", "LANG")},
        "optimized": sys.flags.optimize, "preloaded": word.LOADED_BY == os.getppid(),
    }).encode()]
"""

PHP = """<?php
header('Content-Type: application/json');
echo json_encode(['pid' => getmypid(), 'uid' => posix_getuid(), 'memory' => ini_get('memory_limit'),
    'zone' => ini_get('date.timezone'), 'colour' => getenv('COLOUR')]);
"""

USERS = ("nobody", "daemon", "bin", "games", "man", "mail") if ROOT else (pwd.getpwuid(os.geteuid()).pw_name,) * 6

# name: processes, threads, umask, PYTHONOPTIMIZE
GROUPS = {"small": (1, 1, 0o022, 0), "wide": (3, 1, 0o077, 1), "deep": (1, 5, 0o027, 2), "both": (2, 3, 0o000, 0)}


def section(number: int, name: str) -> str:
    processes, threads, umask, optimize = GROUPS[name]
    more = "preload = word\n" if name == "both" else ""
    return (
        f"[[{name}]]\nlanguage = python\napplication = app.wsgi\nuser = {USERS[number]}\ndirectory = {name}\n"
        f"python_path = {name}\nprocesses = {processes}\nthreads = {threads}\numask = {umask:03o}\n"
        f"arguments = {name}, x\n"
        f"{more}[[[environment]]]\nCOLOUR = {name}\nONLY_{name.upper()} = yes\nPYTHONOPTIMIZE = {optimize or ''}\n"
    )


@pytest.fixture(scope="module")
def several() -> Iterator[Server]:
    with directory() as path:
        one = Server(path)
        one.file("app.wsgi", PYTHON)
        for name in GROUPS:
            one.file(f"{name}/word.py", f"import os\nWORD = {name!r}\nLOADED_BY = os.getpid()\n")
        for folder in ("red", "blue"):
            one.file(f"{folder}/page.php", PHP)
        text = "[groups]\n" + "".join(section(number, name) for number, name in enumerate(GROUPS))
        for number, (name, memory, zone) in enumerate((("red", "64M", "Asia/Tokyo"), ("blue", "96M", "UTC"))):
            text += (
                f"[[{name}]]\nlanguage = php\napplication = {name}/page.php\nuser = {USERS[4 + number]}\nprocesses = {number + 1}\n"
                f"[[[environment]]]\nCOLOUR = {name}\n[[[ini]]]\nmemory_limit = {memory}\ndate.timezone = {zone}\n"
            )
        text += "[sites]\n[[all]]\nhosts = *\nroot = public\n[[[routes]]]\n"
        text += "".join(f"/{name}/ = group:{name}\n" for name in (*GROUPS, "red", "blue"))
        one.write(text)
        # Each has a user of its own here; `write` gave all the same.
        lines = one.config_file.read_text().splitlines()
        if ROOT:
            lines = [line for before, line in zip(["", *lines], lines, strict=False) if "language =" not in before]
        one.configure("\n".join(lines) + "\n")
        try:
            one.start()
            yield one
        finally:
            one.stop()


def seen(server: Server, target: str) -> dict[str, object]:
    answer = server.get(target)
    assert answer.status == 200, (target, answer)
    found: dict[str, object] = json.loads(answer.body)
    return found


def test_each_is_as_it_was_configured(several: Server) -> None:
    for number, name in enumerate(GROUPS):
        _, _, umask, optimize = GROUPS[name]
        found = seen(several, f"/{name}/")
        expected = {"COLOUR": name, f"ONLY_{name.upper()}": "yes", "PYTHONOPTIMIZE": str(optimize or "")}
        assert found["environment"] == expected
        assert (found["word"], found["argv"], found["directory"]) == (name, [name, "x"], str(several.directory / name))
        assert (found["mode"], found["optimized"]) == (0o666 & ~umask, optimize)
        assert found["preloaded"] is (name == "both")
        assert found["uid"] == pwd.getpwnam(USERS[number]).pw_uid
        for pid in (*several.pids("manager", name), *several.pids("worker", name)):
            assert os.stat(f"/proc/{pid}").st_uid == pwd.getpwnam(USERS[number]).pw_uid
    if ROOT:
        assert len({seen(several, f"/{name}/")["uid"] for name in GROUPS}) == len(GROUPS)


def test_each_has_its_own_processes_and_threads(several: Server) -> None:
    for name, (processes, threads, _, _) in GROUPS.items():
        workers = several.pids("worker", name)
        assert len(workers) == processes
        entries = several.status()["processes"]
        slots = [one["slots"] for one in entries if one["kind"] == "worker" and one["group"] == name]
        assert slots == [threads] * processes
    # As many at a time as its own size allows, whatever the others do: six waits, all groups at once.
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        began = time.monotonic()
        found = {name: [pool.submit(seen, several, f"/{name}/wait") for _ in range(6)] for name in GROUPS}
        places = {name: {(one.result()["pid"], one.result()["thread"]) for one in found[name]} for name in GROUPS}
        assert time.monotonic() - began >= 6 * 0.3  # the small one's, one after another
    for name, (processes, threads, _, _) in GROUPS.items():
        assert len(places[name]) <= processes * threads
        assert {pid for pid, _ in places[name]} <= set(several.pids("worker", name))
    assert len(places["small"]) == 1
    assert len(places["both"]) > 1


def test_php_has_two_with_different_settings(several: Server) -> None:
    for number, (name, memory, zone) in enumerate((("red", "64M", "Asia/Tokyo"), ("blue", "96M", "UTC"))):
        found = seen(several, f"/{name}/page.php")
        assert (found["memory"], found["zone"], found["colour"]) == (memory, zone, name)
        assert found["uid"] == pwd.getpwnam(USERS[4 + number]).pw_uid
        assert len(several.pids("worker", name)) == number + 1


def test_one_is_changed_and_no_other_notices(several: Server) -> None:
    before = {name: several.pids("worker", name) for name in (*GROUPS, "red", "blue")}
    text = several.config_file.read_text()
    text = text.replace("COLOUR = wide", "COLOUR = wider").replace("memory_limit = 96M", "memory_limit = 80M")
    several.configure(text)
    several.ctl("reload")
    after = {name: several.pids("worker", name) for name in before}
    assert {name for name in before if before[name] != after[name]} == {"wide", "blue"}
    assert seen(several, "/wide/")["environment"]["COLOUR"] == "wider"  # type: ignore[index]
    assert seen(several, "/blue/page.php")["memory"] == "80M"
    assert Path(f"/proc/{after['small'][0]}").exists()
