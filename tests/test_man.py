"""The manual pages: well formed, as the option table says, and every example in them works."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from config_machine import SampleMachine, adjusted, lay_out
from serving import directory

from webserver.cli import build_plugin, webserverctl, webserverd
from webserver.config import Config, load
from webserver.config.options import OPTIONS, SUBSECTIONS
from webserver.supervisor.plan import FIXED_SERVER

MAN = Path(__file__).resolve().parent.parent / "man"
PAGES = sorted(MAN.glob("*.[358]"))
PAGE_OF = {"server": "webserver.conf.5", "logs": "webserver.conf.5", "group": "webserver-groups.5",
           "companion": "webserver-companions.5", "site": "webserver-sites.5"}  # fmt: skip
BLOCK = re.compile(r'(?:^\.\\" example: (.+)\n)?^\.Bd -literal.*\n((?:.*\n)*?)^\.Ed$', re.MULTILINE)
EXAMPLES = [
    pytest.param(page.name, kind, text.replace(r"\&", "").replace(r"\e", "\\"), id=f"{page.name}-{number}")
    for page in PAGES
    for number, (kind, text) in enumerate(BLOCK.findall(page.read_text()), 1)
]
INCLUDE = MAN.parent / "langplugins/include"
GROUPS = (
    "[groups]\n[[shop]]\nlanguage = echo\nuser = shop\n[[blog]]\nlanguage = php\nuser = blog\n"
    "[[pages]]\nlanguage = python\nuser = shop\n"
)

FRAGMENT = """
#include <unistd.h>
#include "langplugin.h"
void write_frames(int fd);
void raise_error(const char *why);
void hook(const struct langplugin_host *host, struct langplugin_call *call);
void hook(const struct langplugin_host *host, struct langplugin_call *call)
{{
int fd;
{}
}}
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of one's own whose path is short enough for sockets below it; pytest's may not be."""
    with directory() as path:
        yield path


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", MAN / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_pages_are_here() -> None:
    assert [page.name for page in PAGES] == [
        "webserver-build-plugin.8",
        "webserver-companions.5",
        "webserver-groups.5",
        "webserver-plugin.3",
        "webserver-sites.5",
        "webserver.conf.5",
        "webserverctl.8",
        "webserverd.8",
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_finds_nothing(page: Path) -> None:
    result = subprocess.run(["mandoc", "-T", "lint", page], capture_output=True, text=True)
    # What is installed on this machine says nothing about a page; where it refers to is tested below.
    left = [line for line in result.stdout.splitlines() if "referenced manual not found" not in line]
    assert left == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_references_lead_somewhere(page: Path) -> None:
    for name, section in re.findall(r"^\.Xr (\S+) (\d)", page.read_text(), re.MULTILINE):
        assert (MAN / f"{name}.{section}").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_are_as_in_the_table(page: Path) -> None:
    assert generator().written(page.read_text()) == page.read_text(), "run man/generate.py"


def test_every_option_and_section_has_its_place() -> None:
    for option in OPTIONS:
        text = (MAN / PAGE_OF[option.section]).read_text()
        assert f"\n.It Ic {option.name} No = " in text, option.name
    for section, names in SUBSECTIONS.items():
        for name in names:
            assert f".Ic [[[{name}]]]" in (MAN / PAGE_OF[section]).read_text()


def test_every_kind_of_value_is_explained() -> None:
    values = (MAN / "webserver.conf.5").read_text().partition(".Ss Values")[2].partition(".Ss ")[0]
    explained = {name.strip() for line in re.findall(r"^\.It Ar (.+)$", values, re.M) for name in line.split(" , ")}
    assert {option.kind.name for option in OPTIONS if not option.choices} == explained


def test_what_a_reload_cannot_change_is_named() -> None:
    text = (MAN / "webserver.conf.5").read_text().partition(".Ss Changes")[2].partition(".Sh ")[0]
    named = re.findall(r"^\.Ic ([a-z_, ]+?)(?: ,)?$", text, re.M)
    found = {name for line in named for name in line.split(" , ") if name.isidentifier()}
    assert found == {*FIXED_SERVER, "access_format", "access_log"}


@pytest.mark.parametrize(
    ("page", "options"),
    [
        ("webserverd.8", webserverd.OPTIONS),
        ("webserverctl.8", webserverctl.OPTIONS),
        ("webserver-build-plugin.8", build_plugin.OPTIONS),
    ],
)
def test_every_command_line_option_has_its_place(page: str, options: dict[str, bool]) -> None:
    assert {f"-{flag}" for flag in re.findall(r"^\.It Fl (\S+)", (MAN / page).read_text(), re.M)} == set(options)


def loaded(root: Path, text: str, name: str = "webserver.conf") -> Config:
    (root / "etc/webserver" / name).write_text(adjusted(text, str(root)))
    return load(str(root / "etc/webserver/webserver.conf"), SampleMachine(root="user = " in text or "/" in name))


@pytest.mark.parametrize(("page", "kind", "text"), EXAMPLES)
def test_an_example_works(place: Path, page: str, kind: str, text: str) -> None:
    lay_out(place)
    what, _, name = kind.partition(" ")
    main = place / "etc/webserver/webserver.conf"
    if what == "file":
        assert loaded(place, text).server.listen
    elif what == "group":
        main.write_text("include = groups-enabled/*.conf\n[server]\nuser = www-data\n")
        assert [group.name for group in loaded(place, text, f"groups-enabled/{name}.conf").groups] == [name]
    elif what == "companion":
        main.write_text("include = companions-enabled/*.conf\n[server]\nuser = www-data\n")
        if name == "queue":
            text = text.replace("after = redis, migrate", "after = ,")
        assert [one.name for one in loaded(place, text, f"companions-enabled/{name}.conf").companions] == [name]
    elif what == "site":
        main.write_text("include = sites-enabled/*.conf\n[server]\nuser = www-data\n" + GROUPS)
        assert [site.name for site in loaded(place, text, f"sites-enabled/{name}.conf").sites] == [name]
    elif what in {"plugin", "fragment"}:
        if what == "fragment":
            text = FRAGMENT.format(text)
        (place / "plugin.c").write_text(text)
        command = [
            "gcc",
            "-fsyntax-only",
            "-std=gnu11",
            "-Wall",
            "-Wextra",
            "-Werror",
            f"-I{INCLUDE}",
            place / "plugin.c",
        ]
        assert subprocess.run(command, capture_output=True, text=True).stderr == ""
    elif what == "ruby":
        assert subprocess.run(["ruby", "-c"], input=text, capture_output=True, text=True).stdout == "Syntax OK\n"
    elif what == "build":
        assert text.startswith("cc ")  # test_man_served.py runs it
    else:
        assert what == "commands", f"{page} has an example that no test runs"
        for line in text.splitlines():
            check_command(page, shlex.split(line.partition("|")[0]))


def check_command(page: str, words: list[str]) -> None:
    """The program has this page, and each option or command word is one of those that the page lists."""
    assert words[0] == page.removesuffix(".8")
    text = (MAN / page).read_text()
    known = {f"-{flag}" for flag in re.findall(r"^\.It Fl (\S+)", text, re.MULTILINE)}
    known |= set(re.findall(r"^\.It Cm (\S+)", text, re.MULTILINE))
    rest = iter(words[1:])
    for word in rest:
        assert word in known, word
        if word in ("--config", "restart", "stack", "start", "audit", "--interpreter"):
            assert not next(rest).startswith("-")
