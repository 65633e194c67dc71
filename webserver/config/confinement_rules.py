"""Rules for the options that say what processes of groups and companions may do: users, limits, rights, walls."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from webserver.config import languages, sight
from webserver.config.check import Values
from webserver.config.errors import suggestion
from webserver.config.languages import PACKAGE
from webserver.config.limits import KEEPABLE, LIMITS, TEMPORARY
from webserver.config.machine import Machine, User
from webserver.config.model import INHERITED, UNLIMITED
from webserver.config.options import TABLE
from webserver.config.reader import Document
from webserver.config.trusted import Absent, Untrusted, trusted

ROOT_ONLY = ("groups", "capabilities", "private_tmp", "namespaces", "chroot")


@dataclass(frozen=True)
class Inside:
    """What those whom the options are about must find, wherever they are shut in."""

    who: str  # group, companion
    table: str  # of their options
    files: int  # descriptors that they need at least
    files_for: str
    paths: Mapping[str, tuple[str, ...]]  # by option, what they look at by name
    shown: tuple[str, ...]  # directories in which a jail shows them something of the server's own
    program: str = ""  # of option interpreter; must be in a jail


def group_inside(group: Values, run: str) -> Inside:
    """`run`: the server's run directory, "" if it is not known."""
    paths = {}
    for name in ("application", "directory", "interpreter", "python_path", "perl_path", "preload"):
        found = group[name] if group.good(name) else ""
        paths[name] = found if isinstance(found, tuple) else (found,)
    shown = ["/proc", PACKAGE, os.path.dirname(group["plugin"]), os.path.dirname(languages.plugin("libwebserver_host"))]
    shown += [os.path.join(run, "ipc")] if run else []
    return Inside(
        "group", "group", 64, "workers have descriptors for front ends, logs and libraries", paths,
        tuple(dict.fromkeys(shown)), group["interpreter"] if group.good("interpreter") else "",
    )  # fmt: skip


def check_confinement(document: Document, group: Values, machine: Machine, user: User | None, inside: Inside) -> None:
    if not machine.root:
        for name in ROOT_ONLY:
            if group.given(name) and group.good(name) and group[name]:
                document.error(group.place(name), group.subject(name), f"is for root alone, and this is"
                               f" {machine.own_name()}", "leave it out, or start as root")  # fmt: skip
    if group.good("nice") and group["nice"] and group["nice"] < machine.lowest_nice():
        document.error(group.place("nice"), group.subject("nice"), f"found {group['nice']}, but only root can go below"
                       f" {machine.lowest_nice()}")  # fmt: skip
    for name in LIMITS:
        _check_limit(document, group, machine, name, inside)
    _check_capabilities(document, group, inside)
    if group["private_tmp"] and group.good("private_tmp"):
        _check_hidden(document, group, inside)
    if machine.root and group["chroot"] and group.good("chroot"):
        _check_jail(document, group, machine, user, inside)
    check_no_new_privs(document, group, machine)


def check_no_new_privs(document: Document, group: Values, machine: Machine) -> None:
    if group.good("no_new_privs") and not group["no_new_privs"] and machine.no_new_privs():
        document.error(group.place("no_new_privs"), group.subject("no_new_privs"), "found no, but this process was"
                       " started with no_new_privs, which nobody can take back", "start the server without it"
                       " (systemd: NoNewPrivileges=no)")  # fmt: skip


def supplementary(document: Document, group: Values, machine: Machine, gid: int, own: frozenset[int]) -> frozenset[int]:
    """The gids of option `groups`, or the user's own."""
    names: tuple[str, ...] = group.values.get("groups", ())
    if not names or not group.good("groups"):
        return own | {gid}
    gids = {gid}
    for name in names:
        found = machine.gid(name)
        if found is None:
            document.error(group.place("groups"), group.subject("groups"), f'there is no user group "{name}"')
        elif found == 0:
            document.error(group.place("groups"), group.subject("groups"), f'found "{name}", whose group id is 0,'
                           " expected a user group without root's rights")  # fmt: skip
        else:
            gids.add(found)
    return frozenset(gids)


def _check_limit(document: Document, group: Values, machine: Machine, name: str, inside: Inside) -> None:
    option = f"limit_{name}"
    limit = group[option]
    if not group.good(option) or limit.soft == INHERITED:
        return
    place, subject = group.place(option), group.subject(option)
    if name == "nofile" and UNLIMITED not in (limit.soft, limit.hard) and limit.soft < inside.files:
        document.error(place, subject, f"found {limit.soft}, expected at least {inside.files}: {inside.files_for}")
    most = machine.hard_limit(name)
    if most >= 0 and (limit.hard == UNLIMITED or limit.hard > most):
        written = TABLE[inside.table][option].kind.write(limit)
        document.error(place, subject, f"found {written}, but the hard limit of {most} cannot be raised here",
                       "start the server with a higher one (ulimit -H, or Limit... of systemd)")  # fmt: skip


def _check_capabilities(document: Document, group: Values, inside: Inside) -> None:
    if not group["capabilities"] or not group.good("capabilities"):
        return
    place, subject = group.place("capabilities"), group.subject("capabilities")
    for name in group["capabilities"]:
        if name not in KEEPABLE:
            document.error(place, subject, f'found "{name}", with which a process could become root, reach into other'
                           f" groups or pass its own limits, expected {', '.join(KEEPABLE)}",
                           suggestion(name, KEEPABLE))  # fmt: skip
    if group.good("no_new_privs") and not group["no_new_privs"]:
        document.error(place, subject, f"stands beside no_new_privs = no. With capabilities the {inside.who} has"
                       " these and no others; with no_new_privs = no a program that is setuid or has capabilities in"
                       f" its file may have all of them", f"make two {inside.who}s of it, one with capabilities, and"
                       " one with no_new_privs = no")  # fmt: skip


def _check_hidden(document: Document, group: Values, inside: Inside) -> None:
    """What lies below the machine's /tmp is not there for who has one of his own."""
    for name, paths in inside.paths.items():
        for path in paths:
            if path.startswith(tuple(f"{place}/" for place in TEMPORARY)) and not group["chroot"]:
                document.error(group.place("private_tmp"), group.subject("private_tmp"), f"hides {name}, {path}: the"
                               f" {inside.who} sees a /tmp and a /var/tmp that begin empty")  # fmt: skip


def _check_jail(document: Document, group: Values, machine: Machine, user: User | None, inside: Inside) -> None:
    """Root makes mounts in it, so it is root's; and what the processes begin with must be inside."""
    jail: str = group["chroot"]
    place, subject = group.place("chroot"), group.subject("chroot")
    try:
        found = trusted(jail, {0, os.geteuid()})
        if found.path == "/":
            raise Untrusted('found "/", which is no jail')
        if problem := sight.missing("root", jail, "directory"):
            raise Untrusted(problem)
        if found.status.st_uid not in (0, os.geteuid()) or found.status.st_mode & 0o022:
            raise Untrusted(f"{jail} must belong to root, and nobody else may write in it")
    except Untrusted as problem:
        document.error(place, subject, str(problem), "what root mounts into must be root's, all the way to it")
        return
    temporary = TEMPORARY if group["private_tmp"] else ()
    hidden = tuple(f"{place}/" for place in temporary)  # in there the server makes what is missing
    for one in (*(one for one in inside.shown if not one.startswith(hidden)), *temporary):
        try:
            trusted(jail + one, {0, os.geteuid()})
        except Absent:
            document.error(place, subject, f"{jail} has no directory {one}, where the server shows its own to the"
                           f" {inside.who}", f"mkdir -p {jail}{one}")  # fmt: skip
        except Untrusted as problem:
            document.error(place, subject, str(problem), "what root mounts into must be root's, all the way to it")
    if user is not None and inside.program:
        problem_inside = machine.missing(inside.program, "file", user, jail)
        if problem_inside:
            document.error(place, subject, f"{jail} has no {inside.program}, with which the group's processes begin:"
                           f" {problem_inside} there", "put a Python of 3.9 or newer with its standard library and the"
                           " language's libraries into it")  # fmt: skip
