"""Programs by extension and by mount, side by side below one root, and what each is told about its place (S13)."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from serving import Answer, Server, read_all, wait_until

CONFIG = """
[groups]
  [[first]]
  language = python
  processes = 1
  threads = 4
  [[second]]
  language = python
  processes = 1
  [[blog]]
  language = php
  processes = 1
  [[lua]]
  language = lua
  processes = 1
  [[ruby]]
  language = ruby
  processes = 1
  [[perl]]
  language = perl
  processes = 1
  [[echo]]
  language = echo
  processes = 1
[sites]
  [[site]]
  hosts = *
  root = public
  index = index.wsgi, index.php, index.html
    [[[routes]]]
    / = files, /front.php
    /mounted = script:/apps/shop.wsgi
    /php-mounted = script:/apps/shop.php
    /pretty = files, script:/apps/shop.py
    .wsgi = group:first
    .py = group:second
    .php = group:blog
    .lua = group:lua
    .ru = group:ruby
    .psgi = group:perl
    .shout = group:echo
"""

WSGI = """
import json, os, sys
MARK = "{mark}"

def application(environ, start_response):
    names = ("SCRIPT_NAME", "PATH_INFO", "REQUEST_URI", "SCRIPT_FILENAME", "DOCUMENT_ROOT", "QUERY_STRING")
    body = json.dumps(dict({{name: environ.get(name) for name in names}}, mark=MARK, pid=os.getpid()))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body.encode()]
"""
PHP = """<?php
$names = ['SCRIPT_NAME', 'PATH_INFO', 'REQUEST_URI', 'SCRIPT_FILENAME', 'DOCUMENT_ROOT', 'QUERY_STRING', 'PHP_SELF'];
$seen = ['mark' => '{mark}'];
foreach ($names as $name) $seen[$name] = $_SERVER[$name] ?? null;
echo json_encode($seen);
"""
LUA = """
return function(env)
  local names = {{ "SCRIPT_NAME", "PATH_INFO", "REQUEST_URI", "SCRIPT_FILENAME", "DOCUMENT_ROOT", "QUERY_STRING" }}
  local parts = {{ '"mark":"{mark}"' }}
  for _, name in ipairs(names) do
    parts[#parts + 1] = ('"%s":"%s"'):format(name, env[name] or "")
  end
  return 200, {{ ["Content-Type"] = "application/json" }}, "{{" .. table.concat(parts, ",") .. "}}"
end
"""
RACK = """
require "json"

run(lambda do |env|
  names = %w[SCRIPT_NAME PATH_INFO REQUEST_URI SCRIPT_FILENAME DOCUMENT_ROOT QUERY_STRING]
  seen = names.to_h {{ |name| [name, env[name]] }}.merge("mark" => "{mark}")
  [200, {{ "content-type" => "application/json" }}, [JSON.generate(seen)]]
end)
"""
PSGI = """
use JSON::PP ();

sub {{
    my ($env) = @_;
    my @names = qw(SCRIPT_NAME PATH_INFO REQUEST_URI SCRIPT_FILENAME DOCUMENT_ROOT QUERY_STRING);
    my $seen = JSON::PP->new->latin1->encode({{mark => "{mark}", map {{ $_ => $env->{{$_}} }} @names}});
    return [200, ['Content-Type' => 'application/json'], [$seen]];
}}
"""
# A script of each language that answers with what it was told, and its mark.
LANGUAGES = {"a.wsgi": WSGI, "b.py": WSGI, "c.php": PHP, "e.lua": LUA, "f.ru": RACK, "g.psgi": PSGI}


def wsgi(mark: str) -> str:
    return WSGI.format(mark=mark)


def php(mark: str) -> str:
    return PHP.replace("{mark}", mark)


def text_of(name: str, mark: str) -> str:
    return php(mark) if name.endswith(".php") else LANGUAGES[name].format(mark=mark)


@pytest.fixture
def site(server: Server) -> Server:
    server.write(CONFIG)
    for name in LANGUAGES:
        server.file(f"public/{name}", text_of(name, name[0]))
    server.file("public/front.php", php("front"))
    server.file("public/page.html", "page")
    server.file("public/d.shout", "the source of d")
    for name in ("shop.wsgi", "shop.py"):
        server.file(f"public/apps/{name}", wsgi("shop"))
    server.file("public/apps/shop.php", php("shop"))
    return server.start()


def seen(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


def test_each_extension_goes_to_its_own_group(site: Server) -> None:
    all_of_them = [seen(site.get(f"/{name}")) for name in LANGUAGES]
    assert [answer["mark"] for answer in all_of_them] == [name[0] for name in LANGUAGES]
    a, b = all_of_them[:2]
    assert a["pid"] in site.pids("worker", "first")
    assert b["pid"] in site.pids("worker", "second")
    assert site.get("/d.shout").body.startswith(b"hello, world")
    assert site.get("/page.html").text == "page"


# A path, and what of it is SCRIPT_NAME and PATH_INFO.
PLACES = (
    ("/a.wsgi", "/a.wsgi", ""),
    ("/a.wsgi/", "/a.wsgi", "/"),
    ("/a.wsgi/more/path", "/a.wsgi", "/more/path"),
    ("/a.wsgi/c.php", "/a.wsgi", "/c.php"),
    ("/c.php/a.wsgi", "/c.php", "/a.wsgi"),
    ("/b.py/a.wsgi", "/b.py", "/a.wsgi"),
    ("/a.wsgi/x%2Fy", "/a.wsgi", "/x/y"),
    ("//a.wsgi//more///path", "/a.wsgi", "/more/path"),
    ("/x/..//a.wsgi/./more", "/a.wsgi", "/more"),
    ("/%61.wsgi", "/a.wsgi", ""),
    ("/c.php/index.css", "/c.php", "/index.css"),
    ("/e.lua", "/e.lua", ""),
    ("/f.ru/e.lua", "/f.ru", "/e.lua"),
    ("/e.lua/a.wsgi/x", "/e.lua", "/a.wsgi/x"),
)


def test_script_name_and_path_info(site: Server) -> None:
    # Asked twice, with another order between: what is remembered of one path may not be taken for another.
    for path, script, info in (*PLACES, *reversed(PLACES)):
        answer = seen(site.get(path + "?q=1"))
        assert (answer["SCRIPT_NAME"], answer["PATH_INFO"] or "") == (script, info)
        assert answer["REQUEST_URI"] == path + "?q=1"
        assert answer["SCRIPT_FILENAME"] == f"{site.directory}/public{script}"
        assert answer["DOCUMENT_ROOT"] == f"{site.directory}/public"
        assert answer["QUERY_STRING"] == "q=1"
        assert answer.get("PHP_SELF", script + info) == script + info


def test_a_script_mounted_at_a_prefix(site: Server) -> None:
    for prefix, file in (("/mounted", "shop.wsgi"), ("/php-mounted", "shop.php"), ("/pretty", "shop.py")):
        for rest in ("", "/", "/hats/7", "/x.php"):
            if prefix == "/pretty" and rest == "/x.php":
                continue  # below a prefix with files an extension counts
            answer = seen(site.get(f"{prefix}{rest}?a=b"))
            assert answer["mark"] == "shop"
            assert (answer["SCRIPT_NAME"], answer["PATH_INFO"] or "") == (prefix, rest)
            assert answer["SCRIPT_FILENAME"] == f"{site.directory}/public/apps/{file}"
    assert seen(site.get("/php-mounted/x"))["PHP_SELF"] == "/php-mounted/x"
    assert seen(site.get("/mounted-not"))["mark"] == "front"


def test_front_controller_of_a_path_that_is_no_file(site: Server) -> None:
    for path in ("/news/2026?page=2", "/c.php.html", "/nothing/", "/page.html/x"):
        answer = seen(site.get(path))
        assert (answer["mark"], answer["SCRIPT_NAME"], answer["PHP_SELF"]) == ("front", "/front.php", "/front.php")
        assert answer["PATH_INFO"] is None
        assert answer["REQUEST_URI"] == path


def test_index_files_that_are_scripts(site: Server) -> None:
    site.file("public/py/index.wsgi", wsgi("index"))
    site.file("public/php/index.php", php("index"))
    site.file("public/both/index.php", php("second"))
    site.file("public/both/index.wsgi", wsgi("first"))
    for directory, script in (("py", "index.wsgi"), ("php", "index.php"), ("both", "index.wsgi")):
        answer = seen(site.get(f"/{directory}/?a"))
        assert answer["SCRIPT_NAME"] == f"/{directory}/{script}"
        assert answer["REQUEST_URI"] == f"/{directory}/?a"
        assert site.get(f"/{directory}").field("Location") == f"/{directory}/"
    assert seen(site.get("/both/"))["mark"] == "first"


def replace(path: Path, text: str) -> None:
    """As deployments do it: written beside, and renamed over."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(text)
    beside.chmod(0o644)
    beside.rename(path)


def test_a_changed_script_is_loaded_again(site: Server) -> None:
    path = site.directory / "public/a.wsgi"
    assert seen(site.get("/a.wsgi"))["mark"] == "a"
    # The same length, in the same instant: no time and no size tells them apart.
    for mark in ("b", "c", "d", "e"):
        path.write_text(wsgi(mark))
        assert seen(site.get("/a.wsgi"))["mark"] == mark
    for mark in ("one", "two"):
        replace(path, wsgi(mark))
        assert seen(site.get("/a.wsgi"))["mark"] == mark
    link = site.directory / "public/now.wsgi"
    for name in ("one", "two"):
        site.file(f"releases/{name}.wsgi", wsgi(name))
        beside = link.with_name("beside")
        beside.symlink_to(site.directory / f"releases/{name}.wsgi")
        beside.rename(link)
        assert seen(site.get("/now.wsgi"))["mark"] == name


def test_each_language_loads_its_files_again(site: Server) -> None:
    site.allow(r"\[error\] group")

    def becomes(status: int, what: str) -> None:
        """PHP believes what it saw of a file for a second."""
        for name in LANGUAGES:
            wait_until(lambda name=name: site.get(f"/{name}").status == status, f"{name}: {what}")

    for mark in ("longer than before", "even longer than before"):
        for name in LANGUAGES:
            replace(site.directory / "public" / name, text_of(name, mark))
        for name in LANGUAGES:
            wait_until(lambda name=name, mark=mark: seen(site.get(f"/{name}"))["mark"] == mark, f"{name} is not loaded")
    for name in LANGUAGES:
        replace(site.directory / "public" / name, "<?php this is no program of any of them (")
    becomes(500, "it goes on though it is broken")
    for name in LANGUAGES:
        replace(site.directory / "public" / name, text_of(name, "mended"))
    becomes(200, "it is mended and not loaded")
    for name in LANGUAGES:
        (site.directory / "public" / name).unlink()
    becomes(404, "it goes on though it is gone")


def test_a_script_that_is_broken_removed_or_unreadable(site: Server) -> None:
    site.allow(r"\[error\] group first")
    path = site.directory / "public/a.wsgi"
    assert seen(site.get("/a.wsgi"))["mark"] == "a"
    replace(path, "def application(")
    for _ in range(2):
        assert site.get("/a.wsgi").status == 500  # and the old one does not go on
    replace(path, "raise RuntimeError('broken on purpose')")
    assert site.get("/a.wsgi").status == 500
    # What a script looks for in vain is not the script itself.
    replace(path, "open('/no_such_file_of_the_application')")
    assert site.get("/a.wsgi").status == 500
    replace(path, wsgi("mended"))
    assert seen(site.get("/a.wsgi"))["mark"] == "mended"
    path.unlink()
    assert site.get("/a.wsgi").status == 404
    os.mkfifo(path)
    os.chmod(path, 0o644)
    assert site.get("/a.wsgi").status == 404
    path.unlink()
    path.mkdir()
    assert site.get("/a.wsgi").status == 404
    path.rmdir()
    path.write_text(wsgi("back"))
    path.chmod(0o644)
    assert seen(site.get("/a.wsgi"))["mark"] == "back"
    path.chmod(0)
    if os.geteuid() == 0:  # as root the group is another user, who is bound by this
        assert site.get("/a.wsgi").status == 403
    for words in ("SyntaxError", "broken on purpose", "no_such_file_of_the_application", "404: ", "Not a regular file"):
        assert site.logged(words)


def test_one_load_for_many_that_ask_at_once(site: Server) -> None:
    counter = site.directory / "loads"
    counter.mkdir(mode=0o777)
    counter.chmod(0o777)
    site.file("public/slow.wsgi", f"import tempfile, time; tempfile.mkstemp(dir={str(counter)!r}); time.sleep(0.3)\n"
              + wsgi("slow"))  # fmt: skip
    marks: list[str] = []
    threads = [threading.Thread(target=lambda: marks.append(seen(site.get("/slow.wsgi"))["mark"])) for _ in range(4)]
    for thread in threads:
        thread.start()
    # A script that takes its time keeps no other waiting.
    assert seen(site.get("/b.py"))["mark"] == "b"
    for thread in threads:
        thread.join()
    assert marks == ["slow"] * 4
    assert len(list(counter.iterdir())) == 1


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_what_was_there_before_a_change_is_not_kept(site: Server) -> None:
    path = site.directory / "public/a.wsgi"
    (worker,) = site.pids("worker", "first")

    def change(times: int) -> None:
        for number in range(times):
            replace(path, f"BALLAST = b'x' * 200_000\n{wsgi(str(number))}")
            assert seen(site.get("/a.wsgi"))["mark"] == str(number)

    change(20)
    before = resident(worker)
    change(100)  # of which each keeps 200 KB, were it kept
    assert resident(worker) - before < 6_000_000


def test_pipelined_and_kept_connections_get_what_each_asked_for(site: Server) -> None:
    asked = [b"/a.wsgi", b"/c.php", b"/page.html", b"/b.py/a.wsgi", b"/d.shout"]
    with socket.create_connection(("127.0.0.1", site.port), 20) as sock:
        for path in asked:
            sock.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
        sock.sendall(b"GET /page.html HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = read_all(sock)
    assert data.count(b"HTTP/1.1 200 OK") == 6
    places = [data.index(mark) for mark in (b'"mark": "a"', b'"mark":"c"', b"page", b'"mark": "b"', b"hello, world")]
    assert places == sorted(places)


def test_dot_files_are_no_scripts_either(site: Server) -> None:
    site.file("public/.hidden/x.php", php("hidden"))
    site.file("public/.x.php", php("hidden"))
    for path in ("/.hidden/x.php", "/.x.php", "/.php"):
        assert site.get(path).status == 404
    assert seen(site.get("/c.php/.well-known"))["PATH_INFO"] == "/.well-known"
    wait_until(lambda: "dotfiles = deny" in site.log(), "the log does not say why")
