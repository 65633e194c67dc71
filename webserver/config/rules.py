"""Rules between options, and between options and the machine: [server] and [logs]. Groups have a file of their own."""

from __future__ import annotations

import os
import stat

from webserver.config import sight
from webserver.config.addresses import UNIX_PATH, listen_text
from webserver.config.check import Values
from webserver.config.confinement_rules import supplementary
from webserver.config.errors import suggestion
from webserver.config.machine import Machine, User
from webserver.config.model import Listen
from webserver.config.options import most_connections
from webserver.config.reader import Document
from webserver.config.sight import SEARCH, WRITE
from webserver.config.trusted import Writers

# RUN/ipc/<id>.<generation>/f<incarnation> has to fit in sockaddr_un.sun_path, with the most digits that these numbers
# can have: two of 32 bits, one of 24.
RUN_BYTES = UNIX_PATH - len("/ipc/4294967295.4294967295/f16777215")
_ANY = {"inet": "0.0.0.0", "inet6": "::"}


def check_identity(document: Document, values: Values, machine: Machine, whose: str) -> User | None:
    """The rules for `user` and `group`. Returns the user as root; None without root, or after a mistake."""
    name, group = values["user"], values["group"]
    if not values.good("user", "group"):
        return None
    if not machine.root:
        values.values.update(user="", group="")
        if name and name != machine.own_name():
            document.error(values.place("user"), values.subject("user"), f'found "{name}", but only root can change'
                           f" users, and this is {machine.own_name()}", "leave it out, or start as root")  # fmt: skip
        own = machine.own_group()
        if values.given("group") and group != own:
            document.error(values.place("group"), values.subject("group"), f'found "{group}", but only root can change'
                           f" user groups, and this is {own}", "leave it out, or start as root")  # fmt: skip
        return None
    if not name:
        if "user" in values.misspelt:
            return None
        document.error(values.place("user"), values.block.title, f'"user" is missing: started as root, {whose} must'
                       " run as a user of their own", "for example: user = www-data")  # fmt: skip
        return None
    user = machine.user(name)
    if user is None:
        document.error(values.place("user"), values.subject("user"), f'there is no user "{name}"',
                       suggestion(name, machine.user_names()))  # fmt: skip
        return None
    if user.uid == 0:
        document.error(values.place("user"), values.subject("user"), f'found "{name}", whose user id is 0, expected a'
                       " user without root's rights")  # fmt: skip
        return None
    gid = machine.gid(group) if group else None
    if gid is None:
        problem = f'there is no user group "{group}"' if group else f'user "{name}" has no user group with a name'
        document.error(values.place("group"), values.subject("group"), problem)
        return None
    if gid == 0:
        document.error(values.place("group"), values.subject("group"), f'found "{group}", whose group id is 0, expected'
                       " a user group without root's rights")  # fmt: skip
        return None
    return User(name, user.uid, gid, supplementary(document, values, machine, gid, user.gids))


def check_server(document: Document, server: Values, machine: Machine) -> User | None:
    """Returns the user that front ends and logger run as, as root."""
    user = check_identity(document, server, machine, "front ends and logger")
    if server.good("listen"):
        _check_listen(document, server, machine)
    if server.good("open_files") and server["open_files"] > machine.open_files():
        document.error(server.place("open_files"), server.subject("open_files"), f"found {server['open_files']}, but"
                       f" this machine allows {machine.open_files()}", "raise the hard limit (ulimit -Hn)")  # fmt: skip
    most = most_connections(server["open_files"])
    if server.good("open_files", "connections") and server["connections"] > most:
        document.error(server.place("connections"), server.subject("connections"), f"found {server['connections']},"
                       f" expected at most {most}, three quarters of open_files = {server['open_files']}")  # fmt: skip
    if server.good("max_line", "max_head") and server["max_line"] > server["max_head"]:
        name = "max_line" if server.given("max_line") else "max_head"
        document.error(server.place(name), server.subject(name), f"max_line ({server['max_line']} bytes) is larger than"
                       f" max_head ({server['max_head']} bytes), which includes it")  # fmt: skip
    if server.good("spool"):
        problem = machine.missing(server["spool"], "directory", user)
        problem = problem or machine.denied(server["spool"], user, WRITE | SEARCH)
        problem = problem or machine.unnamed(server["spool"], user)
        if problem:
            document.error(server.place("spool"), server.subject("spool"), problem)
    return user


def _check_listen(document: Document, server: Values, machine: Machine) -> None:
    listens: tuple[Listen, ...] = server["listen"]
    place, subject = server.place("listen"), server.subject("listen")
    if not listens:
        document.error(place, subject, "found an empty list, expected at least one address")
    for number, listen in enumerate(listens):
        text = listen_text(listen)
        if listen.family == "unix":
            continue  # see check_places
        if listen.port < machine.lowest_port():
            document.error(place, subject, f"found {text}, but without root ports begin at {machine.lowest_port()}")
        if listen.family == "inet6" and not machine.ipv6():
            document.error(place, subject, f"found {text}, but this machine has no IPv6")
        for other in listens[:number]:
            if (other.family, other.port) == (listen.family, listen.port) and _ANY[listen.family] in (
                other.address,
                listen.address,
            ):
                document.error(place, subject, f"found {listen_text(other)} and {text}: the same port of the same"
                               " address twice")  # fmt: skip


def check_places(document: Document, server: Values, machine: Machine, writers: Writers) -> None:
    """Where the supervisor itself makes names: the run directory and unix sockets. No group may have a hand in that."""
    if server.good("listen"):
        for listen in server["listen"]:
            if listen.family == "unix":
                problem, advice = _socket_problem(machine, listen.address, writers)
                if problem:
                    document.error(server.place("listen"), server.subject("listen"), problem, advice)
    if server.good("run"):
        _check_run(document, server, machine, writers)


def _socket_problem(machine: Machine, path: str, writers: Writers) -> tuple[str, str]:
    directory = os.path.dirname(path)
    if found := writers.of(directory):
        return (f"{found[0]} can be written by {found[1]}, so root must not make a socket in it",
                "use a directory that no group can write")  # fmt: skip
    problem = sight.missing(machine.own_name(), directory, "directory")
    if not problem and not sight.missing(machine.own_name(), path, "file"):
        problem = f"{path} is a file, not a socket"
    return problem, ""


def _check_run(document: Document, server: Values, machine: Machine, writers: Writers) -> None:
    run: str = server["run"]
    place, subject = server.place("run"), server.subject("run")
    if len(run.encode()) > RUN_BYTES:
        document.error(place, subject, f"{run} has {len(run.encode())} bytes, expected at most {RUN_BYTES}, as sockets"
                       " below it have a limit on their path")  # fmt: skip
    if found := writers.of(run):
        document.error(place, subject, f"{found[0]} can be written by {found[1]}, so root must not use it",
                       "use a directory that no group can write")  # fmt: skip
        return
    problem = sight.missing(machine.own_name(), os.path.dirname(run), "directory")
    problem = problem or _run_problem(machine, run)
    if problem:
        document.error(place, subject, problem)


def _run_problem(machine: Machine, run: str) -> str:
    """Why a run directory that exists cannot be used, or ""."""
    try:
        found = os.stat(run)
    except OSError:
        return ""  # it will be made
    if not stat.S_ISDIR(found.st_mode):
        return f"{run} is not a directory"
    if found.st_uid != machine.uid:
        return f"{run} belongs to another user (user id {found.st_uid})"
    if found.st_mode & 0o022:
        return f"{run} can be written by others (mode {stat.S_IMODE(found.st_mode):03o})"
    return ""


def check_logs(document: Document, logs: Values, machine: Machine, user: User | None) -> None:
    for name, words in (("error_log", ("stderr",)), ("access_log", ("stdout", "off"))):
        if logs[name] not in words and logs.good(name) and (problem := _no_log(logs[name], machine, user)):
            document.error(logs.place(name), logs.subject(name), problem)


def _no_log(path: str, machine: Machine, user: User | None) -> str:
    """Why a log cannot be written. The logger opens it, and so it is its user who looks."""
    directory = os.path.dirname(path)
    if problem := machine.missing(directory, "directory", user):
        return problem
    absent = machine.missing(path, "file", user)
    if absent and not machine.missing(path, "device", user):
        absent = ""  # or a pipe
    if absent.endswith("is not a file"):
        return absent
    return machine.denied(directory, user, WRITE | SEARCH) if absent else machine.denied(path, user, WRITE)
