"""Rules between the options of a group, and between them and the machine.

The group's directories belong to its user, so as root nothing in them is looked at, but by a child that has become that
user.
"""

from __future__ import annotations

import os
import re
from typing import Any

from webserver.config import files
from webserver.config.check import Values
from webserver.config.confinement_rules import check_confinement, group_inside
from webserver.config.errors import Place
from webserver.config.kinds import MODULE
from webserver.config.languages import Language, find
from webserver.config.machine import Machine, User
from webserver.config.options import TABLE
from webserver.config.reader import Document, Entry
from webserver.config.routes import pairs
from webserver.config.rules import check_identity
from webserver.config.sight import READ, SEARCH
from webserver.config.trusted import Writers
from webserver.config.units import size_text

_SETTING_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_ONLY = {
    "python_path": "python",
    "perl_path": "perl",
    **dict.fromkeys(
        ("listens_on", "strip_prefix", "forwarded", "keepalive", "continue_timeout", "stop_timeout"), "exec"
    ),
}  # option: the language that it is for
_PLACEHOLDERS = {"socket": "{socket}", "descriptor": "{descriptor}", "port": "{port}"}  # listens_on: what names it


def check_group(document: Document, group: Values, machine: Machine, run: str = "") -> User | None:
    """Returns the group's user, as root. `run`: the server's run directory."""
    user = check_identity(document, group, machine, "a group's processes")
    language = find(group["language"]) if group.good("language") else None
    if language is not None:
        if not language.threads and group.good("threads") and group["threads"] > 1:
            document.error(group.place("threads"), group.subject("threads"), f"found {group['threads']}, expected 1:"
                           f" {language.name} runs one request at a time in a process", "use processes")  # fmt: skip
        for name, only in _ONLY.items():
            # What is as by default anyhow may be written down all the same, as -T does.
            if language.name != only and group.good(name) and group[name] != _by_default(name):
                document.error(group.place(name), group.subject(name), f"is for {only}, and the group's language is"
                               f" {language.name}")  # fmt: skip
        if group["arguments"] and not language.arguments:
            document.error(group.place("arguments"), group.subject("arguments"), f"{language.name} gives an application"
                           " no command line")  # fmt: skip
        _check_interface(document, group, language)
        _check_preload(document, group, language)
        _check_program(document, group, language)
        if "ini" in group.block.blocks and not language.ini:
            document.error(group.block.blocks["ini"].place, group.block.title, "[ini] is for php, and the group's"
                           f" language is {language.name}")  # fmt: skip
        if "settings" in group.block.blocks and not language.settings:
            document.error(group.block.blocks["settings"].place, group.block.title, "[settings] is for plugins that did"
                           f" not come with the server, and the group's language is {language.name}")  # fmt: skip
    _check_number(document, group)
    check_confinement(document, group, machine, user, group_inside(group, run))
    _check_paths(document, group, machine, user)
    return user


def _check_interface(document: Document, group: Values, language: Language) -> None:
    if not group.good("interface") or group["interface"] != "asgi":
        return
    if language.name != "python":
        document.error(group.place("interface"), group.subject("interface"), "found asgi, which is for python, and the"
                       f" group's language is {language.name}")  # fmt: skip
    elif not group["application"]:
        # Its startup is the worker's, before any request could say which file it is about.
        document.error(group.place("interface"), group.subject("interface"), "found asgi, which needs an application:"
                       " requested files are run by wsgi", "application = module:callable, or a file")  # fmt: skip


def _check_number(document: Document, group: Values) -> None:
    """How many workers, and how much memory each may take."""
    most, least, spare = group["processes"], group["processes_min"], group["spare"]
    if group.good("processes", "processes_min") and least > most:
        document.error(group.place("processes_min"), group.subject("processes_min"), f"found {least}, expected no more"
                       f" than processes, which is {most}")  # fmt: skip
    elif group.good("processes", "processes_min", "spare") and spare and least == most:
        document.error(group.place("spare"), group.subject("spare"), f"found {spare}, but the number of workers is"
                       f" always {most}", "give processes_min a lower value than processes")  # fmt: skip
    elif group.good("processes", "spare") and spare > most:
        document.error(group.place("spare"), group.subject("spare"), f"found {spare}, expected no more than processes,"
                       f" which is {most}")  # fmt: skip
    soft, hard = group["soft_memory"], group["hard_memory"]
    if group.good("soft_memory", "hard_memory") and soft and hard and soft > hard:
        document.error(group.place("soft_memory"), group.subject("soft_memory"), f"found {size_text(soft)}, expected no"
                       f" more than hard_memory, which is {size_text(hard)}")  # fmt: skip


def _by_default(name: str) -> Any:
    option = TABLE["group"][name]
    text = str(option.default)
    return () if option.many and not text else option.kind.read(text, "/")


def _check_preload(document: Document, group: Values, language: Language) -> None:
    if group["preload"] and not language.preload:
        document.error(group.place("preload"), group.subject("preload"), f"{language.name} has nothing to load before"
                       " workers are forked")  # fmt: skip
        return
    for name in group["preload"]:
        if name == group["application"]:
            continue
        if MODULE.fullmatch(name):
            module = name.partition(":")[0]
            document.error(group.place("preload"), group.subject("preload"), f'found "{name}", expected the name of a'
                           " module, a file, or the value of application", f"write {module}")  # fmt: skip
            continue
        kind = "file" if name.startswith("/") else "module"
        if kind not in language.preload:
            document.error(group.place("preload"), group.subject("preload"), f'found the {kind} "{name}", expected a'
                           f" {language.preload}: the group's language is {language.name}")  # fmt: skip


def _check_program(document: Document, group: Values, language: Language) -> None:
    """A program must be named, and the placeholders in what it is told must be those of what it listens on."""
    if not language.program:
        return
    if not group["application"] and group.good("application"):
        document.error(group.block.place, group.block.title, '"application" is missing, expected the program to run')
    if not group.good("arguments", "listens_on"):
        return
    block = group.block.blocks.get("environment")
    told = [("arguments", group.place("arguments"), text) for text in group["arguments"]]
    told += [(f"environment: {name}", entry.place, str(entry.value)) for name, entry in
             (block.entries.items() if block is not None else ())]  # fmt: skip
    for name, place, text in told:
        for listens_on, placeholder in _PLACEHOLDERS.items():
            if placeholder in text and not (listens_on == group["listens_on"] or
                                            (listens_on, group["listens_on"]) == ("socket", "descriptor")):  # fmt: skip
                document.error(place, group.subject(name), f"found {placeholder}, which is for listens_on ="
                               f" {listens_on}, and the group's is {group['listens_on']}")  # fmt: skip


def _check_paths(document: Document, group: Values, machine: Machine, user: User | None) -> None:
    def need(name: str, path: str, kind: str, bits: int, advice: str = "") -> bool:
        within = "" if name == "plugin" else jail
        problem = machine.missing(path, kind, user, within) or machine.denied(path, user, bits, within)
        if problem and group.good(name):
            document.error(group.place(name), group.subject(name), problem, advice)
        return not problem

    there = True
    # Paths of a group in a jail are those that it sees there. The plugin is the server's, and is shown to it.
    jail = group["chroot"] if group.good("chroot") and machine.root else ""
    application = group["application"]
    if group.good("language") and find(group["language"]).plain:
        if group.given("application") and group.good("application"):
            group.values["application"] = str(group.block.entries["application"].value)
    elif MODULE.fullmatch(application):
        if group.good("language", "application") and not find(group["language"]).callables:
            document.error(group.place("application"), group.subject("application"), f'found "{application}", expected'
                           f" a file: {group['language']} has no module:callable")  # fmt: skip
    elif application:
        program = group.good("language") and find(group["language"]).program
        bits = SEARCH if program else READ
        there = need("application", application, "file", bits, _application_advice(group, application))
    if not jail:  # else check_confinement says more about it
        need("interpreter", group["interpreter"], "file", SEARCH)
    if group.good("language"):
        advice = "" if group.given("plugin") else f"the plugin for {group['language']} is not built or not installed"
        need("plugin", group["plugin"], "file", READ, advice)
    # By default it follows from the application, and so does what is wrong with it.
    if group.good("application") and (there or group.given("directory")):
        need("directory", group["directory"], "directory", SEARCH)
    for name in ("python_path", "perl_path"):
        for path in group[name]:
            need(name, path, "directory", SEARCH)
    for path in group["preload"]:
        if path.startswith("/"):
            need("preload", path, "file", READ)


def _application_advice(group: Values, application: str) -> str:
    """A relative path starts at the file, not at `directory`: the mistake that is made most."""
    entry = group.block.entries.get("application")
    if entry is not None and isinstance(entry.value, str) and group.given("directory"):
        other = os.path.normpath(os.path.join(group["directory"], entry.value))
        if other != application:
            return f'a relative path starts at the directory of its own file; for one in "directory" write {other}'
    return ""


def environment(document: Document, group: Values) -> tuple[dict[str, str], dict[str, Place]]:
    """The variables of [[[environment]]] and of environment_file, and where each is given. Also of companions."""
    block = group.block.blocks.get("environment")
    entries = pairs(document, block, files.VARIABLE, "a variable's name: letters, digits and _")
    found, places = _texts(entries)
    path = group["environment_file"]
    if path and group.good("environment_file"):
        try:
            for name, value in files.read_environment(path):
                if name in found:
                    document.error(places[name], group.block.title + " [environment]", f"{name} is also in {path}")
                found.setdefault(name, value)
                places.setdefault(name, Place(path, 0))
        except files.FileProblem as problem:
            for place, text in problem.problems:
                if place.line:
                    document.error(place, group.subject("environment_file"), text)
                else:
                    document.error(group.place("environment_file"), group.subject("environment_file"),
                                   f"{path}: {text}")  # fmt: skip
    return found, places


def ini(document: Document, group: Values) -> tuple[dict[str, str], dict[str, Place]]:
    """The directives of [[[ini]]], and where each is given."""
    block = group.block.blocks.get("ini")
    entries = pairs(document, block, _SETTING_NAME, "a directive's name, such as memory_limit")
    for name, entry in entries.items():
        if block is not None and set(str(entry.value)) & set('"\n'):
            # php.ini has no way to write these inside a quoted value.
            document.error(entry.place, f"{block.title}: {name}", 'found " or a line end, which PHP cannot read here')
    return _texts(entries)


def settings(document: Document, group: Values) -> tuple[dict[str, str], dict[str, Place]]:
    """The entries of [[[settings]]], which the plugin alone understands, and where each is given."""
    block = group.block.blocks.get("settings")
    return _texts(pairs(document, block, _SETTING_NAME, "a setting's name, such as cache_size"))


def _texts(entries: dict[str, Entry]) -> tuple[dict[str, str], dict[str, Place]]:
    return {name: str(entry.value) for name, entry in entries.items()}, {n: e.place for n, e in entries.items()}


def check_writers(document: Document, writers: Writers, others: list[str]) -> None:
    """As root: no group or companion may change what root takes orders from: a file, its directory, or any above it.

    `others`: what else root reads or runs.
    """
    said = set()
    for path in [*document.taken, *others]:
        found = writers.of(path)
        if found is not None and found not in said:
            said.add(found)
            what, whom = found
            document.error(Place(path, 0), "", f"{what} can be written by {whom}, so root must not read it",
                           f"chown root {what}; chmod go-w {what}")  # fmt: skip
