"""Broken configurations and broken applications, deployed under load: each is refused with file and line, the old one
serves on, and nothing is lost."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from serving import Server
from under_load import GROUPS, PATHS, SITES, WSGI, Load, write_files


@pytest.fixture
def place(server: Server) -> Server:
    write_files(server)
    return server


# Broken configurations: (what is replaced, by what, what the message says)

BROKEN: list[tuple[str, str, str]] = [
    ("processes = 4", "processors = 4", "did you mean"),
    ("processes = 4", "processes = many", "expected a whole number"),
    ("processes = 4", "processes = 0", "processes"),
    ("processes = 4", "processes = 4\n  processes = 5", "processes"),
    ("processes = 4", "processes", "webserver.conf"),
    ("language = python", "language = pythonn", "python"),
    ("language = python", "language =", "language"),
    ("  language = python\n", "", "language"),
    ("application = app.wsgi", "application = missing.wsgi", "missing.wsgi"),
    ("application = app.wsgi", "application = app.wsgi\n  perl_path = /", "is for perl"),
    ("application = app.wsgi", "application = app.wsgi\n  request_timeout = soon", "time"),
    ("application = app.wsgi", "application = app.wsgi\n  umask = 999", "umask"),
    ("application = app.wsgi", "application = app.wsgi\n  restart_extra = none", "restart_extra"),
    ("application = app.wsgi", "application = app.wsgi\n  environment_file = missing.env", "missing.env"),
    ("/shop/ = group:shop", "/shop/ = group:shpo", "shop"),
    ("/shop/ = group:shop", "shop = group:shop", "shop"),
    ("root = public", "root = nowhere", "nowhere"),
    ("hosts = *", "hosts = not a host", "host"),
    ("[groups]", "[groups", "webserver.conf"),
    ("[sites]", "[stites]", "sites"),
    ("listen = 127.0.0.1:", "listen = 127.0.0.1:9", "address"),
    ("listen = 127.0.0.1:", "listen = 192.0.2.1:8080, 127.0.0.1:", "cannot listen"),
    ("frontends =", "frontends = 1 #", "frontends"),
]


def test_broken_configurations_under_load(place: Server) -> None:
    """Each says file and line, and changes nothing."""
    place.allow("reload: ")
    place.write(GROUPS.format(more="") + SITES)
    place.start()
    text = place.config_file.read_text()
    pids = {one["pid"] for one in place.status()["processes"]}
    with Load(place, PATHS) as load:
        for old, new, said in BROKEN:
            assert text.count(old) >= 1, old
            at = text.rindex(old)
            broken = text[:at] + new + text[at + len(old) :]
            place.configure(broken)
            result = place.ctl("reload", check=False)
            assert result.returncode == 1, new
            assert said in result.stderr, (new, result.stderr)
            # What is new is in the line that the replacement ends in; what is missing, in the section's line before it.
            line = text[:at].count("\n") + (new.count("\n") + 1 if new else 0)
            assert f"webserver.conf:{line}: " in result.stderr, (new, line, result.stderr)
            assert place.get("/shop/").text == "first"
        load.progress()
        place.configure(text)
        place.ctl("reload")
    assert load.lost == []
    assert load.answers == {200: load.asked}
    assert {one["pid"] for one in place.status()["processes"]} == pids


# Broken applications


@dataclass(frozen=True)
class Broken:
    text: str
    said: str  # of the message, a regular expression: the file and the line


@dataclass(frozen=True)
class Language:
    file: str
    good: str
    broken: tuple[Broken, ...]
    options: str = ""


LANGUAGES = {
    "python": Language("app.wsgi", WSGI % "good", (
        Broken("import os\ndef application(:\n", r"app\.wsgi:2\b|app\.wsgi\", line 2"),
        Broken("import os\n\nraise ValueError('at load')\n", r"app\.wsgi\", line 3|app\.wsgi:3"),
        Broken("import os\nimport nothing_of_this_name\n", r"app\.wsgi\", line 2|app\.wsgi:2"),
    )),
    "perl": Language("app.psgi", "sub { [200, [], ['good']] }\n", (
        Broken("use strict;\nsub { [200, [], ['x']\n", r"app\.psgi line \d"),
        Broken("use strict;\n\ndie 'at load';\n", r"app\.psgi line 3"),
        Broken("use strict;\nuse Nothing::Of::This::Name;\n", r"app\.psgi line 2"),
    )),
    "ruby": Language("app.ru", "run ->(env) { [200, {}, ['good']] }\n", (
        Broken("x = 1\nrun ->(env) { [200, {}, ['x'] }\n", r"app\.ru:2"),
        Broken("x = 1\n\nraise 'at load'\n", r"app\.ru:3"),
        Broken("x = 1\nrequire 'nothing_of_this_name'\n", r"app\.ru:2"),
    )),
    "php": Language("app.php", "<?php echo 'good';\n", (
        Broken("<?php\necho 'x\n", r"app\.php:\d"),
        Broken("<?php\nfunction f( {\n", r"app\.php.*line 2|app\.php:2"),
    ), "preload = app.php\n    [[[ini]]]\n    opcache.validate_timestamps = 0"),
    "lua": Language("app.lua", "return function(env) return 200, {}, 'good' end\n", (
        Broken("local x = 1\nreturn function(env\n", r"app\.lua:[23]"),
        Broken("local x = 1\n\nerror('at load')\n", r"app\.lua:3"),
        Broken("local x = 1\nrequire('nothing_of_this_name')\n", r"app\.lua:2"),
    )),
}  # fmt: skip

# A program that is an HTTP server itself: its words are its own, in its group's log.
SERVER = """import http.server, os, socketserver, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "local"

    def log_message(self, *words):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"good")

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

Server(sys.argv[1], Handler).serve_forever()
"""
LANGUAGES["exec"] = Language(
    "app.py", SERVER,
    (
        Broken("import os\ndef serve(:\n", r"app\.py\", line 2"),
        Broken("import os\n\nraise ValueError('at load')\n", r"app\.py\", line 3"),
    ),
    "arguments = {place}/app.py, {{socket}}",
)  # fmt: skip


def section(server: Server, name: str) -> str:
    language = LANGUAGES[name]
    application = "/usr/bin/python3" if name == "exec" else language.file
    options = language.options.format(place=server.directory)
    return f"  [[{name}]]\n  language = {name}\n  application = {application}\n  processes = 1\n  {options}\n"


@pytest.mark.timeout(300)
def test_broken_applications_under_load(server: Server) -> None:
    """S6: of each language, in each way to be broken: the command fails and says where, and nobody else notices."""
    server.allow(
        "was not restarted", "did not load", r"group \w+ \d+: ", "does not start", "worker ", "manager of group"
    )
    names = list(LANGUAGES)
    for name in names:
        server.file(LANGUAGES[name].file, LANGUAGES[name].good)
    routes = "".join(f"    /{name}/ = group:{name}\n" for name in names)
    server.write(
        "[groups]\n" + "".join(section(server, name) for name in names)
        + f"[sites]\n  [[all]]\n  hosts = *\n    [[[routes]]]\n{routes}"
    )  # fmt: skip
    server.start()
    before = {name: set(server.pids("worker", name)) for name in names}
    with Load(server, [f"/{name}/x" for name in names], clients=2) as load:
        for name in names:
            for broken in LANGUAGES[name].broken:
                log = len(server.log())
                server.file(LANGUAGES[name].file, broken.text)
                result = server.ctl("restart", name, check=False)
                assert result.returncode == 1, (name, broken.text)
                said = result.stderr
                if name == "exec":
                    assert "the error log has what it said" in said, said
                    said += server.log()[log:]
                assert re.search(broken.said, said), (name, broken, said)
                assert server.get(f"/{name}/x").text == "good"
            load.progress(50)
        # What the old workers are has not changed, and the next restart, of what works, does.
        assert {name: set(server.pids("worker", name)) for name in names} == before
        for name in names:
            server.file(LANGUAGES[name].file, LANGUAGES[name].good)
            server.ctl("restart", name)
            assert not before[name] & set(server.pids("worker", name))
        load.progress(50)
    assert load.lost == []
    assert load.answers == {200: load.asked}
