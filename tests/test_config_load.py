"""Reading a whole configuration: sections and included files, defaults, origins, records."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from config_machine import PlainMachine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import directory

from webserver.config import Config, ConfigErrors, Listen, Route, load, show
from webserver.config.errors import suggestion
from webserver.config.languages import PLUGIN_PLACES
from webserver.config.units import UNLIMITED

MACHINE = PlainMachine()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of one's own whose path is short enough for sockets below it; pytest's may not be."""
    with directory() as path:
        yield path


@pytest.fixture
def tree(place: Path) -> Path:
    """A directory with what a configuration may point at, and a short name for it."""
    (place / "public").mkdir()
    for name in ("app.wsgi", "plugin.so"):
        (place / name).write_text("")
    return place


def write(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


MINIMAL = "[sites]\n[[s]]\nhosts = *\nroot = public\n"

FULL = """\
[server]
listen = 127.0.0.1:8080, [::1]:8080, unix:web.sock
frontends = 2
run = run
[groups]
  [[shop]]
  language = python
  plugin = plugin.so
  application = app.wsgi
  processes = 1
  threads = 8
  arguments = "a, b", c
  request_timeout = none
    [[[environment]]]
    MODE = "one, two # three"
    QUOTES = '''both ' and " of them'''
    EMPTY =
  [[blog]]
  language = php
  plugin = plugin.so
    [[[ini]]]
    memory_limit = 64M
  [[scheme]]
  language = scheme
  plugin = plugin.so
  application = app.wsgi
    [[[settings]]]
    heap = 64M
    trace.calls = no
[sites]
  [[shop]]
  hosts = *
  root = public
  index = index.php, index.html
  gather = /upload
  max_body = unlimited
    [[[routes]]]
    /upload = group:shop
    / = files, group:shop
    .php = group:blog
    /status = status
    /old = =410
    /new = files, /index.php
  [[plain]]
  hosts = example.org, *.example.org
  root = public
"""


def test_a_site_of_four_lines(tree: Path) -> None:
    config = load(write(tree / "w.conf", MINIMAL), MACHINE)
    assert config.server.listen == (Listen("inet", "127.0.0.1", 8080),)
    assert config.server.frontends == 2
    assert config.server.run == str(tree / "run")
    assert config.server.user == config.server.group == ""
    assert config.logs.error_log == "stderr"
    [site] = config.sites
    assert (site.name, site.hosts, site.root) == ("s", ("*",), str(tree / "public"))
    assert site.routes == (Route("/", ("files",), "stream"),)
    assert dict(config.mime_types)["html"] == "text/html"


def test_all_sections(tree: Path) -> None:
    config = load(write(tree / "w.conf", FULL), MACHINE)
    assert config.server.listen[2] == Listen("unix", str(tree / "web.sock"), 0)
    blog, scheme, shop = config.groups
    assert (scheme.language, scheme.settings) == ("scheme", (("heap", "64M"), ("trace.calls", "no")))
    assert (blog.name, blog.application, blog.ini) == ("blog", "", (("memory_limit", "64M"),))
    assert (shop.application, shop.directory, shop.threads) == (str(tree / "app.wsgi"), str(tree), 8)
    assert shop.arguments == ("a, b", "c")
    assert shop.request_timeout == 0.0
    assert shop.environment == (("MODE", "one, two # three"), ("QUOTES", "both ' and \" of them"), ("EMPTY", ""))
    plain, site = config.sites
    assert plain.hosts == ("example.org", "*.example.org")
    assert site.max_body == UNLIMITED
    assert {route.pattern: route.targets for route in site.routes}["/new"] == ("files", "/index.php")
    assert [route.pattern for route in site.routes if route.upload == "gather"] == ["/upload"]


def test_a_record_reads_back(tree: Path) -> None:
    config = load(write(tree / "w.conf", FULL), MACHINE)
    record = config.to_record()
    assert json.loads(json.dumps(record)) == record
    assert Config.from_record(record) == config


@pytest.mark.parametrize("change", ["drop", "add", "type", "deep"])
def test_a_record_of_another_shape_is_refused(tree: Path, change: str) -> None:
    record = load(write(tree / "w.conf", FULL), MACHINE).to_record()
    if change == "drop":
        del record["logs"]
    elif change == "add":
        record["more"] = 1
    elif change == "type":
        record["server"]["frontends"] = "2"
    else:
        record["groups"][0]["ini"] = [["memory_limit"]]
    with pytest.raises(ValueError, match="config"):
        Config.from_record(record)


def test_what_is_shown_reads_back(tree: Path) -> None:
    path = write(tree / "w.conf", FULL)
    config = load(path, MACHINE)
    again = load(write(tree / "shown.conf", show(path, MACHINE)), MACHINE)
    record, record_again = config.to_record(), again.to_record()
    record["file"] = record_again["file"] = ""
    assert record == record_again


def test_every_value_is_shown_with_its_origin(tree: Path) -> None:
    path = write(tree / "w.conf", FULL)
    lines = show(path, MACHINE).splitlines()
    values = [line for line in lines if " = " in line or line.startswith("# ")]
    assert all(line.endswith("  # default") or f"  # {path}:" in line for line in values)
    assert any(line.startswith("threads = 8 ") and line.endswith(f"# {path}:11") for line in lines)
    assert any(line.startswith("/ = files, group:shop ") and line.endswith(f"# {path}:39") for line in lines)
    assert any(line.startswith("queue_timeout = 30s ") and line.endswith("# default") for line in lines)


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(TEXTS)
def test_any_text_is_shown_so_that_it_reads_back(tree: Path, text: str) -> None:
    if "'''" in text or '"""' in text or text.endswith(("'", '"')):
        return  # what configobj cannot write
    quoted = f"'{text}'" if "'" not in text else f'"{text}"' if '"' not in text else f'"""{text}"""'
    group = f"[groups]\n[[g]]\nlanguage = echo\nplugin = plugin.so\n[[[environment]]]\nA = {quoted}\n"
    path = write(tree / "w.conf", group + MINIMAL)
    [first] = load(path, MACHINE).groups
    assert first.environment == (("A", text),)
    [again] = load(write(tree / "shown.conf", show(path, MACHINE)), MACHINE).groups
    assert again.environment == first.environment


def test_what_echo_is_told_is_not_taken_for_a_file(tree: Path) -> None:
    group = "[groups]\n[[g]]\nlanguage = echo\nplugin = plugin.so\napplication = fail\n"
    [found] = load(write(tree / "w.conf", group + MINIMAL), MACHINE).groups
    assert (found.application, found.directory) == ("fail", "/")


def test_modules_and_files_to_preload(tree: Path) -> None:
    group = "[groups]\n[[g]]\nlanguage = ruby\nplugin = plugin.so\npreload = json, app.wsgi, ./app.wsgi, a.b\n"
    with pytest.raises(ConfigErrors, match=r"found .*/app\.wsgi twice"):
        load(write(tree / "w.conf", group + MINIMAL), MACHINE)
    [found] = load(write(tree / "w.conf", group.replace("./app.wsgi, ", "") + MINIMAL), MACHINE).groups
    assert found.preload == ("json", str(tree / "app.wsgi"), "a.b")


def test_files_of_groups_and_sites_are_named_by_their_file(tree: Path) -> None:
    write(tree / "groups-enabled" / "shop.conf", "language = echo\nplugin = ../plugin.so\n[environment]\nA = 1\n")
    write(tree / "sites-enabled" / "example.org.conf", "hosts = example.org\n[routes]\n/ = group:shop\n")
    write(tree / "sites-enabled" / "editor.conf~", "nonsense")
    write(tree / "sites-enabled" / ".hidden.conf", "nonsense")
    include = "include = groups-enabled/*.conf, sites-enabled/*.conf, more-*.conf\n"
    path = write(tree / "w.conf", include + MINIMAL)
    config = load(path, MACHINE)
    assert [group.name for group in config.groups] == ["shop"]
    assert config.groups[0].environment == (("A", "1"),)
    assert [site.name for site in config.sites] == ["example.org", "s"]
    assert config.server.include == ("groups-enabled/*.conf", "sites-enabled/*.conf", "more-*.conf")
    assert f"# {tree}/groups-enabled/shop.conf:1" in show(path, MACHINE)


def test_paths_begin_at_their_own_file(tree: Path) -> None:
    write(tree / "inner" / "part.conf", "[server]\nrun = run\n[logs]\nerror_log = ../public/error.log\n")
    config = load(write(tree / "w.conf", "[server]\ninclude = inner/*.conf\n" + MINIMAL), MACHINE)
    assert config.server.run == str(tree / "inner" / "run")
    assert config.logs.error_log == str(tree / "public" / "error.log")


def test_included_files_come_in_order_of_their_names(tree: Path) -> None:
    for name in ("b", "a"):
        write(tree / f"part-{name}.conf", "[server]\nfrontends = many\n")
    with pytest.raises(ConfigErrors) as caught:
        load(write(tree / "w.conf", "include = part-*.conf\n" + MINIMAL), MACHINE)
    assert [os.path.basename(error.place.file) for error in caught.value.errors] == ["part-a.conf", "part-b.conf"]
    assert "is given already" in str(caught.value)


def test_what_is_in_an_unreadable_file_is_not_called_missing(tree: Path) -> None:
    write(tree / "groups-enabled" / "shop.conf", "language = = echo\n[[[x\n")
    site = "[sites]\n[[s]]\nhosts = *\n[[[routes]]]\n/ = group:shop\n"
    with pytest.raises(ConfigErrors) as caught:
        load(write(tree / "w.conf", "include = groups-enabled/*.conf\n" + site), MACHINE)
    assert all("shop.conf" in error.place.file for error in caught.value.errors)


@pytest.mark.parametrize("kind", ["pipe", "directory", "missing"])
def test_a_file_that_is_none(tree: Path, kind: str) -> None:
    path = tree / "w.conf"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    with pytest.raises(ConfigErrors, match="cannot read"):
        load(str(path), MACHINE)


def test_an_empty_file_is_a_configuration(tree: Path) -> None:
    assert load(write(tree / "w.conf", ""), MACHINE).sites == ()


def test_windows_line_ends_and_a_byte_order_mark(tree: Path) -> None:
    (tree / "w.conf").write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert [site.name for site in load(str(tree / "w.conf"), MACHINE).sites] == ["s"]


def test_a_list_may_stand_on_many_lines(tree: Path) -> None:
    hosts = 'hosts = """\n  example.org,\n  www.example.org\n"""'
    config = load(write(tree / "w.conf", MINIMAL.replace("hosts = *", hosts)), MACHINE)
    assert config.sites[0].hosts == ("example.org", "www.example.org")


def test_errors_are_in_the_order_of_the_file(tree: Path) -> None:
    text = "[server]\nfrontends = x\nbogus = 1\n[groups]\n[[g]]\nthreads = y\n[sites]\n[[s]]\nroot = nowhere\n"
    with pytest.raises(ConfigErrors) as caught:
        load(write(tree / "w.conf", text), MACHINE)
    lines = [error.place.line for error in caught.value.errors]
    assert lines == sorted(lines)
    assert set(lines) == {2, 3, 5, 6, 8, 9}


@pytest.mark.parametrize(
    ("name", "known", "advice"),
    [("timout", ["timeout", "time"], 'did you mean "timeout"?'), ("USER", ["user"], 'did you mean "user"?'),
     ("zebra", ["user"], ""), ("", ["user"], "")],
)  # fmt: skip
def test_suggestions(name: str, known: list[str], advice: str) -> None:
    assert suggestion(name, known) == advice


def test_plugins_are_looked_for_in_the_tree_first() -> None:
    assert PLUGIN_PLACES[0].endswith("/build/lib/{language}.so")
