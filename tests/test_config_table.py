"""The option table agrees with the model, with itself and with the wire."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from config_machine import PlainMachine

from webserver.config import Companion, Group, Logs, Server, Site, kinds
from webserver.config.check import described
from webserver.config.languages import LANGUAGES
from webserver.config.options import FIELDS, FRONTENDS, OPTIONS, SLOTS, SUBSECTIONS, TABLE, Computed, Context, Option

OWNERS: dict[str, Any] = {"server": Server, "logs": Logs, "group": Group, "companion": Companion, "site": Site}
NOT_OPTIONS = {section: {"name", *SUBSECTIONS[section]} for section in ("group", "companion", "site")}


def ids(option: Option) -> str:
    return f"{option.section}.{option.name}"


@pytest.mark.parametrize("section", OWNERS)
def test_model_and_table_have_the_same_names(section: str) -> None:
    assert set(TABLE) == set(OWNERS)
    assert set(get_type_hints(OWNERS[section])) - NOT_OPTIONS.get(section, set()) == set(TABLE[section])


@pytest.mark.parametrize("option", OPTIONS, ids=ids)
def test_model_and_table_have_the_same_types(option: Option) -> None:
    hint = get_type_hints(OWNERS[option.section])[option.name]
    if option.many:
        assert get_origin(hint) is tuple
        hint, ellipsis = get_args(hint)
        assert ellipsis is Ellipsis
    assert hint is option.kind.value


@pytest.mark.parametrize("option", OPTIONS, ids=ids)
def test_a_default_is_a_value_that_could_be_given(option: Option) -> None:
    values = {
        "open_files": 1000,
        "user": "app",
        "application": "/srv/a/app.wsgi",
        "language": "echo",
        "interface": "asgi",
        "request_timeout": 300.0,
        "processes": 3,
        "every": 0.0,
        "at": (),
        "ready": "started",
    }
    context = Context(PlainMachine(), "/etc/webserver", values)
    text = option.default.text(context) if isinstance(option.default, Computed) else option.default
    if not text:
        assert option.kind.value is str or option.many
        return
    for item in text.split(", ") if option.many else [text]:
        value = option.kind.read(item, "/etc/webserver")
        assert type(value) is option.kind.value
        assert not option.choices or value in option.choices
        assert option.least is None or value >= option.least or (option.may_be_zero and value == 0)
        assert option.most is None or value <= option.most
        assert option.kind.read(option.kind.write(value), "/") == value


@pytest.mark.parametrize("option", OPTIONS, ids=ids)
def test_each_option_is_described(option: Option) -> None:
    assert re.fullmatch(r"[A-Z](.|\n)*\.", option.help)
    assert described(option)
    assert (option.kind in (kinds.CHOICE, kinds.LANGUAGE)) == bool(option.choices)
    assert not isinstance(option.default, Computed) or option.default.sentence


def test_no_option_stands_twice() -> None:
    assert len(OPTIONS) == sum(map(len, TABLE.values()))


def test_a_name_is_an_option_of_one_section_or_of_processes() -> None:
    """So that advice about a misplaced option is never ambiguous: groups and companions have much in common.

    error_log is the same thing of a site as of the server.
    """
    sections: dict[str, set[str]] = {}
    for option in OPTIONS:
        sections.setdefault(option.name, set()).add(option.section)
    several = {name: found for name, found in sections.items() if len(found) > 1}
    assert several.pop("error_log") == {"logs", "site"}
    assert all(found <= {"server", "group", "companion"} for found in several.values())
    assert {name for name, found in several.items() if "server" in found} == {"user", "group"}


def test_limits_are_those_of_the_wire() -> None:
    wire = (Path(__file__).resolve().parent.parent / "webserver/wire/wire.h").read_text()
    for name, value in {"FRONTENDS": FRONTENDS, "SLOTS": SLOTS, "FIELDS": FIELDS}.items():
        assert re.search(rf"^#define WIRE_{name}\s+{value}$", wire, re.M), name


def test_languages_of_the_tree_are_known() -> None:
    plugins = Path(__file__).resolve().parent.parent / "langplugins"
    assert {path.name for path in plugins.iterdir() if path.is_dir()} - {"include", "host"} <= set(LANGUAGES)
