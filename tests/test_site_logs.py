"""A site's own error log: what belongs to its requests is there and nowhere else, whoever else would like it otherwise."""

from __future__ import annotations

import os
import pwd
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from serving import ROOT, SERVER_USER, Server, wait_until

APPLICATION = """
import json, os, sys

def application(environ, start_response):
    what = environ["PATH_INFO"].strip("/").rpartition("/")[2]
    if what == "fail":
        raise RuntimeError("it failed")
    if what == "forge":
        record = {"level": "error", "text": "forged by its group", "site": "other"}
        os.write(2, b"\\x1e" + json.dumps(record).encode() + b"\\n")
    print("said " + what, file=environ["wsgi.errors"])
    os.write(2, b"bare " + what.encode() + b"\\n")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""
GROUP = "[[app]]\nlanguage = python\napplication = app.wsgi\n[[idle]]\nlanguage = echo\n"
SITE = """
  [[{name}]]
  hosts = {name}
  {more}
    [[[routes]]]
    /app/ = group:{group}
    /gone/ = group:{group}
"""


def site(name: str, more: str = "", group: str = "app") -> str:
    return SITE.format(name=name, more=more, group=group)


def own(name: str, group: str = "app") -> str:
    return site(name, f"error_log = logs/{name}.log", group)


@pytest.fixture
def place(server: Server) -> Server:
    server.file("app.wsgi", APPLICATION)
    return server


def start(server: Server, *sites: str) -> Server:
    server.write(f"[groups]\n{GROUP}[sites]\n{''.join(sites)}")
    return server.start()


def ask(server: Server, name: str, path: str) -> int:
    return server.get(path, Host=name).status


def log(server: Server, name: str) -> str:
    path = server.directory / f"logs/{name}.log"
    return path.read_text() if path.exists() else ""


def reopen(server: Server) -> None:
    """All logs anew. When the server's own is, so are the others."""
    assert server.process is not None
    server.error_log.rename(server.error_log.with_suffix(".before"))
    server.process.send_signal(signal.SIGUSR1)
    wait_until(server.error_log.exists, "it is not opened anew")


def logged(server: Server, name: str, text: str) -> str:
    return str(wait_until(lambda: text in log(server, name) and log(server, name), f"{text!r} is not in {name}.log"))


def test_what_belongs_to_a_request_is_in_its_site_s_log(place: Server) -> None:
    """An application's error, what it says and what a front end has to say of it; all else is in the server's."""
    start(place, own("one"), own("two"), site("plain"))
    assert ask(place, "one", "/app/fail") == 500
    text = logged(place, "one", "RuntimeError: it failed")
    head = r"^\S+ \S+ \[error\] group app \d+ site=one request=\w+: "
    assert re.search(head + "Traceback", text, re.M)
    assert all(re.match(head, line) for line in text.splitlines())
    assert ask(place, "two", "/app/hello") == 200
    logged(place, "two", "said hello")
    logged(place, "error", "bare hello")
    assert ask(place, "plain", "/app/here") == 200
    logged(place, "error", "site=plain request=")
    for name in ("one", "two"):
        assert f"site={name}" not in place.log()
    assert "two" not in log(place, "one")
    assert log(place, "one") == text


def stuck(server: Server, threads: int, *sites: str) -> None:
    """One worker, whose requests take longer than they may."""
    server.file("app.wsgi", "import time\ndef application(environ, start_response):\n    time.sleep(30)\n")
    options = f"processes = 1\nthreads = {threads}\nrequest_timeout = 1s\n"
    server.write(f"[groups]\n[[app]]\nlanguage = python\napplication = app.wsgi\n{options}[sites]\n{''.join(sites)}")
    server.allow("ran longer than request_timeout", "did not end")
    server.start()


def test_a_refusal_and_a_stack_are_in_it(place: Server) -> None:
    """What front ends say, and the stack of what takes too long."""
    stuck(place, 1, own("one"))
    assert ask(place, "one", "/app/") == 504
    logged(place, "one", 'app.wsgi", line 3 in application')
    text = logged(place, "one", ": 504: ")
    assert re.search(r"\[error\] front end \d+ \d+ site=one request=\w+: 504: ", text)
    assert "line 3" not in place.log()


def test_a_group_writes_only_for_sites_that_ask_it(place: Server) -> None:
    start(place, own("one"), own("other", "idle"))
    assert ask(place, "one", "/app/forge") == 200
    logged(place, "error", "site=other: forged by its group")
    logged(place, "one", "said forge")
    assert log(place, "other") == ""
    place.allow("forged by its group")


def test_a_reload_gives_and_takes(place: Server) -> None:
    start(place, site("one"))
    pids = place.pids("worker")
    assert ask(place, "one", "/app/first") == 200
    logged(place, "error", "said first")
    place.write(f"[groups]\n{GROUP}[sites]\n{own('one')}")
    place.ctl("reload")
    assert ask(place, "one", "/app/second") == 200
    logged(place, "one", "said second")
    place.write(f"[groups]\n{GROUP}[sites]\n{site('one')}")
    place.ctl("reload")
    assert ask(place, "one", "/app/third") == 200
    logged(place, "error", "said third")
    assert "third" not in log(place, "one")
    assert place.pids("worker") == pids


def test_rotation(place: Server) -> None:
    start(place, own("one"))
    assert ask(place, "one", "/app/first") == 200
    logged(place, "one", "said first")
    (place.directory / "logs/one.log").rename(place.directory / "logs/one.log.1")
    assert ask(place, "one", "/app/second") == 200
    wait_until(lambda: "said second" in (place.directory / "logs/one.log.1").read_text(), "it is in neither")
    reopen(place)
    assert ask(place, "one", "/app/third") == 200
    logged(place, "one", "said third")


def test_a_file_that_takes_nothing_holds_up_no_other(place: Server) -> None:
    """Its lines are in the server's log, with the reason, until it can be written again."""
    start(place, own("one"), site("full", "error_log = /dev/full"))
    place.allow("cannot write /dev/full")
    assert ask(place, "full", "/app/first") == 200
    assert ask(place, "one", "/app/second") == 200
    logged(place, "one", "said second")
    logged(place, "error", "site=full request=")
    logged(
        place, "error", "cannot write /dev/full: No space left on device; until it can be, its lines are in this log"
    )
    assert place.log().count("cannot write") == 1


def test_a_directory_that_comes_back(place: Server) -> None:
    directory = place.directory / "logs/sites"
    directory.mkdir()
    if ROOT:
        os.chown(directory, *pwd.getpwnam(SERVER_USER)[2:4])
    start(place, site("one", "error_log = logs/sites/one.log"))
    assert ask(place, "one", "/app/first") == 200
    path = directory / "one.log"
    wait_until(lambda: path.exists() and "said first" in path.read_text(), "it is not logged")
    away = directory.rename(place.directory / "logs/away")
    reopen(place)
    assert ask(place, "one", "/app/second") == 200
    logged(place, "error", "said second")
    logged(place, "error", f"cannot write {path}: {directory}: No such file or directory")
    place.allow("cannot write", "can be written again")
    # Whoever could put a link there could have another site's log written to.
    (place.directory / "logs/sites").symlink_to(away)
    reopen(place)
    assert ask(place, "one", "/app/third") == 200
    logged(place, "error", "said third")
    assert "said third" not in (away / "one.log").read_text()
    (place.directory / "logs/sites").unlink()
    away.rename(directory)
    reopen(place)
    assert ask(place, "one", "/app/fourth") == 200
    wait_until(lambda: "said fourth" in path.read_text(), "it is not logged")
    logged(place, "error", f"{path} can be written again; 2 lines for it are in this log")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("nowhere/one.log", "{place}/nowhere: No such file or directory"),
        ("link/one.log", "{place}/link: it is a symbolic link, and a site's log follows none"),
        ("public", "Is a directory"),
        ("other", "it is a symbolic link, and a site's log follows none"),
    ],
)
def test_what_cannot_be_written_is_said_and_stops_nobody(place: Server, path: str, problem: str) -> None:
    """The directory may be a customer's: neither a start nor a reload is his to prevent. The reload's answer has it."""
    (place.directory / "link").symlink_to("logs")
    (place.directory / "other").symlink_to("logs/error.log")
    text = f"cannot write {place.directory / path}: {problem.format(place=place.directory)}"
    place.allow("cannot write")
    start(place, site("one", f"error_log = {path}"))
    logged(place, "error", f"site one: {text}; until it can be, its lines are in error_log")
    assert ask(place, "one", "/app/first") == 200
    logged(place, "error", "said first")
    place.write(f"[groups]\n{GROUP}[sites]\n{site('one')}")
    place.ctl("reload")
    place.write(f"[groups]\n{GROUP}[sites]\n{site('one', f'error_log = {path}')}")
    assert f"site one: {text}" in place.ctl("reload").stderr
    assert ask(place, "one", "/app/second") == 200
    logged(place, "error", "said second")


def test_a_stack_of_two_sites_requests_is_in_neither_s_log(place: Server) -> None:
    stuck(place, 2, own("one"), own("two"))
    with ThreadPoolExecutor(2) as pool:
        # 502 for one that began so much later that the other one's end was its worker's.
        assert set(pool.map(lambda name: ask(place, name, "/app/"), ("one", "two"))) <= {502, 504}
    wait_until(
        lambda: "line 3 in application" in "".join(map(partial(log, place), ("one", "two", "error"))), "no stack"
    )
    for name, other in (("one", "two"), ("two", "one")):
        assert f"site={other}" not in log(place, name)
        assert log(place, name).count("has run for") <= 1


def test_a_thousand_sites(place: Server) -> None:
    """Each has its own lines, and few of the files are open."""
    names = [f"s{number:04}" for number in range(1000)]
    (place.directory / "logs/sites").mkdir()
    if ROOT:
        os.chown(place.directory / "logs/sites", *pwd.getpwnam(SERVER_USER)[2:4])
    start(place, *(site(name, f"error_log = logs/sites/{name}.log") for name in names))
    for name in names:
        assert ask(place, name, f"/app/{name}") == 200
    for name in names:
        path: Path = place.directory / f"logs/sites/{name}.log"
        wait_until(lambda path=path: path.stat().st_size > 0, f"{name} has no line")
        assert re.fullmatch(rf"\S+ \S+ \[\w+\] group app \d+ site={name} request=\w+: said {name}\n", path.read_text())
    (logger,) = place.pids("logger")
    assert len(os.listdir(f"/proc/{logger}/fd")) < 200
