"""No source of a script is ever served: by no spelling, name, method or field, in no state of the server (S13)."""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import socket
import threading
from urllib.parse import quote

import pytest
from serving import ROOT, SERVER_USER, Server, read_all, wait_until

from webserver.config.kinds import PROGRAMS

MARKER = b"do-not-show-this-line"
COPIES = ("~", ".bak", ".old", ".orig", ".save", ".swp", ".tmp", ".rej", ".", "%20", ".bak~")
SITE = """
  [[site]]
  hosts = *
  root = public
  index = index.php, index.wsgi, index.html
  symlinks = {symlinks}
  sendfile = public,
    [[[routes]]]
    / = files, =404
    /app = group:py
    /sub = files
{routes}
"""
GROUPS = """
[groups]
  [[blog]]
  language = php
  processes = 1
  [[py]]
  language = python
  application = app.wsgi
  processes = 1
  [[own]]
  language = python
  processes = 1
{more}
[sites]
"""
ROUTES = "    .php = group:blog\n    .wsgi = group:own\n    .own = group:own\n"
APPLICATION = """
from urllib.parse import unquote

def application(environ, start_response):
    field, _, name = environ["QUERY_STRING"].partition("=")
    start_response("200 OK", [(field or "X-None", unquote(name))])
    return []
"""
PHP = "<?php // " + MARKER.decode() + "\necho 'ran';"
WSGI = f"# {MARKER.decode()}\ndef application(environ, start_response):\n    start_response('200 OK', [])\n" \
       "    return [b'ran']\n"  # fmt: skip


def configure(server: Server, routes: str = ROUTES, symlinks: str = "owner", more: str = "") -> None:
    server.write(GROUPS.format(more=more) + SITE.format(routes=routes, symlinks=symlinks))


@pytest.fixture
def site(server: Server) -> Server:
    server.file("app.wsgi", APPLICATION)
    for folder in ("", "sub/", "a.php.d/"):
        server.file(f"public/{folder}index.php", PHP)
        server.file(f"public/{folder}x.PHP", PHP)
        server.file(f"public/{folder}x.wsgi", WSGI)
        server.file(f"public/{folder}x.own", WSGI)
        for extension in PROGRAMS:
            server.file(f"public/{folder}x{extension}", WSGI if extension in (".py", ".wsgi") else PHP)
        for suffix in COPIES:
            server.file(f"public/{folder}x.php{suffix.replace('%20', ' ')}", PHP)
        server.file(f"public/{folder}#x.php#", PHP)
        server.file(f"public/{folder}.x.php.swp", PHP)
        server.file(f"public/{folder}page.html", "page")
    links = server.directory / "public"
    (links / "x.txt").symlink_to("x.php")
    (links / "linked").symlink_to("sub")
    (links / "far.html").symlink_to(server.directory / "public/sub/x.py")
    if ROOT:  # its owner is that of what it points to, whoever that is
        user = pwd.getpwnam(SERVER_USER)
        os.lchown(links / "x.txt", user.pw_uid, user.pw_gid)
        os.chown(links / "x.php", user.pw_uid, user.pw_gid)
    configure(server)
    return server


def names() -> list[str]:
    found = ["index.php", "index.php/", "index.php.", "index.php/x.css", "index.php%20", "index.ph%70", "x.txt"]
    found += ["index%2Ephp", "index.php%2F", "index.php%2Fx.html", "%2e/index.php", "./index.php", "INDEX.PHP", "x.PHP"]
    found += ["x/../index.php", "x%2F..%2Findex.php", "index.php?x.html", "index.php;x.html", "index.php%3Fx", "x.own"]
    found += ["index.php%23", "index.php::$DATA", "page.html/../index.php", "far.html", ".x.php.swp", "%23x.php%23"]
    found += [f"x{extension}" for extension in PROGRAMS] + [f"x{extension.upper()}" for extension in PROGRAMS]
    return found + [f"x.php{suffix}" for suffix in COPIES]


def targets() -> list[str]:
    found = ["/", "/sub/", "/sub", "/a.php.d/", "/linked/"]
    for folder in ("/", "//", "/sub/", "/sub//", "/linked/", "/a.php.d/", "/./", "/sub/../"):
        found += [folder + name for name in names()]
    return found


FIELDS: tuple[dict[str, str], ...] = (
    {},
    {"Range": "bytes=0-5000"},
    {"Range": "bytes=0-9,10-400"},
    {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
    {"If-None-Match": '"x"', "Accept-Encoding": "gzip, identity"},
)


def ask(server: Server, wanted: list[str], fields: dict[str, str], method: str = "GET") -> dict[str, int]:
    """The status of each, over one connection; fails if the marker is in any answer."""
    statuses = {}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):
        for target in wanted:
            connection.request(method, target, headers=fields)
            answer = connection.getresponse()
            body = answer.read()
            assert MARKER not in body, f"{method} {target} {fields} shows the source"
            assert MARKER not in str(answer.getheaders()).encode()
            statuses[target] = answer.status
    return statuses


def expect_errors(server: Server) -> None:
    server.allow("WARNING|warning|error", "Traceback")


def test_every_trick_in_every_form(site: Server) -> None:
    expect_errors(site)
    site.start()
    for fields in FIELDS:
        statuses = ask(site, targets(), fields)
    ask(site, targets(), {}, "HEAD")
    assert statuses["/index.php"] == statuses["/"] == statuses["/sub/"] == 200
    assert statuses["/x.wsgi"] == statuses["/x.own"] == 200
    for name in ("x.PHP", "x.pl", "x.py", "x.php~", "x.php.bak", "x.txt", "far.html", "%23x.php%23", "x.phtml"):
        assert statuses[f"/{name}"] == 404, name
    for method in ("POST", "PUT", "OPTIONS", "PROPFIND"):
        ask(site, targets()[:60], {}, method)
    for version in (b"1.0", b"1.1"):
        for target in (b"/x.pl", b"http://x/x.PHP", b"/x.php~", b"/index.php"):
            data = site.raw(b"GET %s HTTP/%s\r\nHost: x\r\nConnection: close\r\n\r\n" % (target, version))
            assert MARKER not in data
    assert site.logged("a program, a link to one or a copy")


def test_by_x_sendfile(site: Server) -> None:
    expect_errors(site)
    site.start()
    for field in ("X-Sendfile", "X-Accel-Redirect"):
        root = f"{site.directory}/public" if field == "X-Sendfile" else ""
        for written in (str, quote):  # the application gives it once decoded, or as the client wrote it
            wanted = [f"/app?{field}={root}{written(target)}" for target in targets()]
            statuses = ask(site, wanted, {})
            assert set(statuses.values()) <= {200, 403, 404}
            assert statuses[f"/app?{field}={root}/x.pl"] == 404
        assert site.get(f"/app?{field}={root}/page.html").text == "page"


@pytest.mark.parametrize("symlinks", ["deny", "allow"])
def test_with_other_rules_for_links(site: Server, symlinks: str) -> None:
    expect_errors(site)
    configure(site, symlinks=symlinks)
    site.start()
    statuses = ask(site, targets(), {})
    assert statuses["/x.txt"] == (403 if symlinks == "deny" else 404)


def test_without_routes_for_the_extensions(site: Server) -> None:
    configure(site, routes="")
    (site.directory / "public/x.own").unlink()  # no extension of a program, and no route says that it is one
    for folder in ("sub", "a.php.d"):
        (site.directory / f"public/{folder}/x.own").unlink()
    expect_errors(site)
    site.start()
    statuses = ask(site, targets(), {})
    assert statuses["/"] == statuses["/index.php"] == statuses["/x.wsgi"] == 404
    assert site.get("/page.html").text == "page"
    wait_until(lambda: ".php = group:NAME" in site.log(), "the log does not say what to write")


def test_a_site_may_send_them(site: Server) -> None:
    expect_errors(site)
    configure(site, routes=ROUTES + "    .py = files\n    .pl = =403\n")
    site.start()
    assert MARKER in site.get("/x.py").body
    assert MARKER in site.get("/sub/x.py").body
    statuses = ask(site, [target for target in targets() if ".py" not in target.lower() and "far" not in target], {})
    assert statuses["/x.pl"] == 403


def test_reloads_that_add_and_remove_routes(site: Server) -> None:
    """While others ask all the time: not in the instant of a change either."""
    expect_errors(site)
    wanted = [f"/{name}" for name in names() if "own" not in name]
    site.start()
    problems: list[BaseException] = []
    done = threading.Event()

    def keep_asking(fields: dict[str, str]) -> None:
        try:
            while not done.is_set():
                ask(site, wanted, fields)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=keep_asking, args=(fields,)) for fields in FIELDS[:3]]
    for thread in threads:
        thread.start()
    for routes in ("", ROUTES, "    .php = group:own\n", "    .php = =404\n", "", ROUTES, "    .PHP = group:blog\n"):
        configure(site, routes=routes + ("" if ".own" in routes else "    .own = =404\n"))
        site.ctl("reload")
        ask(site, wanted, {})
    for _ in range(2):
        site.ctl("restart", "blog")
    done.set()
    for thread in threads:
        thread.join()
    assert not problems, problems[0]


def test_a_reload_that_would_send_what_was_run_is_refused(site: Server) -> None:
    expect_errors(site)
    site.start()
    assert site.get("/x.own").text == "ran"
    configure(site, routes="    .php = group:blog\n")
    result = site.ctl("reload", check=False)
    assert result.returncode != 0
    assert "write .own = files if they should be" in result.stdout + result.stderr
    assert site.get("/x.own").text == "ran"  # nothing has changed
    configure(site, routes="    .own = =404\n")
    site.ctl("reload")
    assert site.get("/x.own").status == 404
    configure(site, routes="    .own = files\n")
    site.ctl("reload")
    wait_until(lambda: MARKER in site.get("/x.own").body, "it is not sent")


def test_while_groups_start_fail_or_hang(site: Server) -> None:
    expect_errors(site)
    site.file("hang.wsgi", "import time\ntime.sleep(1)\ndef application(e, s): raise SystemExit\n")
    more = """
  [[fails]]
  language = echo
  application = fail
  queue_timeout = 200ms
  [[hangs]]
  language = python
  application = hang.wsgi
  queue_timeout = 200ms
"""
    routes = "    .php = group:fails\n    .wsgi = group:hangs\n    .own = group:own\n    .py = group:fails\n"
    configure(site, routes=routes, more=more)
    site.start()
    wanted = ["/index.php", "/", "/x.wsgi", "/x.own", "/x.py", "/x.php~", "/index.php/x"]
    for fields in FIELDS[:2]:
        statuses = ask(site, wanted, fields)
    assert statuses["/index.php"] == 503
    # Before the server is ready, and while it goes.
    with socket.create_connection(("127.0.0.1", site.port), 20) as sock:
        sock.sendall(b"GET /x.own HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert MARKER not in read_all(sock)
