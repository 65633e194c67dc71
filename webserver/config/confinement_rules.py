"""Rules for the options that say what a group's processes may do: who they are, limits, capabilities, walls."""

from __future__ import annotations

import os

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
FEWEST_FILES = 64  # a manager, its plugin and what a worker has open to front ends


def check_confinement(document: Document, group: Values, machine: Machine, user: User | None, run: str) -> None:
    """`run`: the server's run directory, "" if it is not known."""
    if not machine.root:
        for name in ROOT_ONLY:
            if group.given(name) and group.good(name) and group[name]:
                document.error(group.place(name), group.subject(name), f"is for root alone, and this is"
                               f" {machine.own_name()}", "leave it out, or start as root")  # fmt: skip
    if group.good("nice") and group["nice"] and group["nice"] < machine.lowest_nice():
        document.error(group.place("nice"), group.subject("nice"), f"found {group['nice']}, but only root can go below"
                       f" {machine.lowest_nice()}")  # fmt: skip
    for name in LIMITS:
        _check_limit(document, group, machine, name)
    _check_capabilities(document, group, machine)
    if group["private_tmp"] and group.good("private_tmp"):
        _check_hidden(document, group)
    if machine.root and group["chroot"] and group.good("chroot"):
        _check_jail(document, group, machine, user, run)


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


def _check_limit(document: Document, group: Values, machine: Machine, name: str) -> None:
    option = f"limit_{name}"
    limit = group[option]
    if not group.good(option) or limit.soft == INHERITED:
        return
    place, subject = group.place(option), group.subject(option)
    if name == "nofile" and UNLIMITED not in (limit.soft, limit.hard) and limit.soft < FEWEST_FILES:
        document.error(place, subject, f"found {limit.soft}, expected at least {FEWEST_FILES}: workers have descriptors"
                       " for front ends, logs and libraries")  # fmt: skip
    most = machine.hard_limit(name)
    if most >= 0 and (limit.hard == UNLIMITED or limit.hard > most):
        written = TABLE["group"][option].kind.write(limit)
        document.error(place, subject, f"found {written}, but the hard limit of {most} cannot be raised here",
                       "start the server with a higher one (ulimit -H, or Limit... of systemd)")  # fmt: skip


def _check_capabilities(document: Document, group: Values, machine: Machine) -> None:
    if not group["capabilities"] or not group.good("capabilities"):
        return
    place, subject = group.place("capabilities"), group.subject("capabilities")
    for name in group["capabilities"]:
        if name not in KEEPABLE:
            document.error(place, subject, f'found "{name}", with which a process could become root, reach into other'
                           f" groups or pass its own limits, expected {', '.join(KEEPABLE)}",
                           suggestion(name, KEEPABLE))  # fmt: skip
    if group.good("no_new_privs") and not group["no_new_privs"]:
        document.error(place, subject, "stands beside no_new_privs = no. With capabilities the group has these and no"
                       " others; with no_new_privs = no a program that is setuid or has capabilities in its file may"
                       " have all of them", "make two groups of it, one with capabilities, and one with"
                       " no_new_privs = no")  # fmt: skip


def _check_hidden(document: Document, group: Values) -> None:
    """What lies below the machine's /tmp is not there for a group that has one of its own."""
    for name in ("application", "directory", "interpreter", "python_path", "perl_path", "preload"):
        found = group[name] if group.good(name) else ""
        for path in found if isinstance(found, tuple) else (found,):
            if path.startswith(tuple(f"{place}/" for place in TEMPORARY)) and not group["chroot"]:
                document.error(group.place("private_tmp"), group.subject("private_tmp"), f"hides {name}, {path}: the"
                               " group sees a /tmp and a /var/tmp that begin empty")  # fmt: skip


def jail_places(plugin: str, run: str) -> tuple[str, ...]:
    """Directories that must be there in a jail, since the server shows the group something of its own in each."""
    places = ["/proc", PACKAGE, os.path.dirname(plugin), os.path.dirname(languages.plugin("libwebserver_host"))]
    return tuple(dict.fromkeys([*places, *([os.path.join(run, "ipc")] if run else [])]))


def _check_jail(document: Document, group: Values, machine: Machine, user: User | None, run: str) -> None:
    """Root makes mounts in it, so it is root's; and what the group's processes begin with must be inside."""
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
    for inside in (*(one for one in jail_places(group["plugin"], run) if not one.startswith(hidden)), *temporary):
        try:
            trusted(jail + inside, {0, os.geteuid()})
        except Absent:
            document.error(place, subject, f"{jail} has no directory {inside}, where the server shows its own to the"
                           " group", f"mkdir -p {jail}{inside}")  # fmt: skip
        except Untrusted as problem:
            document.error(place, subject, str(problem), "what root mounts into must be root's, all the way to it")
    interpreter = group["interpreter"]
    if user is not None and group.good("interpreter"):
        problem_inside = machine.missing(interpreter, "file", user, jail)
        if problem_inside:
            document.error(place, subject, f"{jail} has no {interpreter}, with which the group's processes begin:"
                           f" {problem_inside} there", "put a Python of 3.9 or newer with its standard library and the"
                           " language's libraries into it")  # fmt: skip
