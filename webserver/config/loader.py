"""From a file to a configuration: read, check each section, check what they say together, build the values."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field

from webserver.config import files
from webserver.config.check import Values, check
from webserver.config.companion_rules import check_companion, check_companions
from webserver.config.errors import ConfigErrors, Place
from webserver.config.group_rules import check_group, check_writers, environment, ini, settings
from webserver.config.languages import PACKAGE
from webserver.config.machine import Machine, User
from webserver.config.model import Companion, Config, Group, Logs, Server, Site
from webserver.config.reader import Document, nothing_read, read
from webserver.config.routes import check_hosts, check_routes
from webserver.config.rules import check_logs, check_places, check_server
from webserver.config.sight import SEARCH
from webserver.config.trusted import Writers


@dataclass
class Loaded:
    """A configuration together with where each value comes from."""

    config: Config
    server: Values
    logs: Values
    groups: dict[str, Values]
    companions: dict[str, Values]
    sites: dict[str, Values]
    # of group and variable, directive or setting, of site and pattern; None: by default
    inner: dict[tuple[str, str, str], Place | None] = field(default_factory=dict)


def load_with_origins(path: str, machine: Machine | None = None) -> Loaded:
    """Raises ConfigErrors with everything that is wrong."""
    machine = machine or Machine()
    try:
        return _load(path, machine)
    finally:
        machine.close()


def _load(path: str, machine: Machine) -> Loaded:
    document = read(path)
    if nothing_read(document):
        raise ConfigErrors(document.sorted_errors())
    server = check(document, document.server, "server", machine)
    logs = check(document, document.logs, "logs", machine)
    groups = {name: check(document, block, "group", machine) for name, block in sorted(document.groups.items())}
    companions = {
        name: check(document, block, "companion", machine) for name, block in sorted(document.companions.items())
    }
    sites = {name: check(document, block, "site", machine) for name, block in sorted(document.sites.items())}

    front = check_server(document, server, machine)
    check_logs(document, logs, machine, front)
    run = server["run"] if server.good("run") else ""
    users = {
        f"group {name}": user for name, one in groups.items() if (user := check_group(document, one, machine, run))
    }
    for name, one in companions.items():
        if user := check_companion(document, one, machine):
            users[f"companion {name}"] = user
    check_companions(document, companions, groups, machine, users)
    writers = Writers(users.items())  # without root nobody: all are one user
    check_writers(document, writers, [PACKAGE, os.path.abspath(sys.executable), server["mime_types"]])
    check_places(document, server, machine, writers)
    check_hosts(document, sites)
    inner: dict[tuple[str, str, str], Place | None] = {}
    built_groups = []
    for name, group in groups.items():
        variables, places = environment(document, group)
        inner |= {("environment", name, variable): place for variable, place in places.items()}
        directives, places = ini(document, group)
        inner |= {("ini", name, directive): place for directive, place in places.items()}
        own, places = settings(document, group)
        inner |= {("settings", name, setting): place for setting, place in places.items()}
        built_groups.append(
            Group(
                name=name,
                environment=tuple(variables.items()),
                ini=tuple(directives.items()),
                settings=tuple(own.items()),
                **group.values,
            )
        )
    built_companions = []
    for name, one in companions.items():
        variables, places = environment(document, one)
        inner |= {("companion environment", name, variable): place for variable, place in places.items()}
        built_companions.append(Companion(name=name, environment=tuple(variables.items()), **one.values))
    built_sites = []
    for name, site in sites.items():
        _check_directories(document, site, machine, front)
        routes, route_places = check_routes(document, site, groups)
        inner |= {("routes", name, pattern): place for pattern, place in route_places.items()}
        built_sites.append(Site(name=name, routes=routes, **site.values))
    types = _types(document, server)
    if document.errors:
        raise ConfigErrors(document.sorted_errors())
    config = Config(
        file=next(iter(document.files)),
        server=Server(**server.values),
        logs=Logs(**logs.values),
        groups=tuple(built_groups),
        sites=tuple(built_sites),
        mime_types=types,
        companions=tuple(built_companions),
    )
    return Loaded(config, server, logs, groups, companions, sites, inner)


def _check_directories(document: Document, site: Values, machine: Machine, front: User | None) -> None:
    """Those that front ends take files from."""
    for name, paths in (("root", [site["root"]] if site["root"] else []), ("sendfile", site["sendfile"])):
        for path in paths if site.good(name) else ():
            problem = machine.missing(path, "directory", front) or machine.denied(path, front, SEARCH)
            if name == "sendfile" and path == "/":
                problem = 'found "/", which is every file of the machine, expected a directory'
            if problem:
                document.error(site.place(name), site.subject(name), problem)


def _types(document: Document, server: Values) -> tuple[tuple[str, str], ...]:
    try:
        return files.read_types(server["mime_types"]) if server.good("mime_types") else ()
    except files.FileProblem as problem:
        for place, text in problem.problems:
            if place.line:
                document.error(place, server.subject("mime_types"), text)
            else:
                document.error(server.place("mime_types"), server.subject("mime_types"), f"{place.file}: {text}")
        return ()


def load(path: str, machine: Machine | None = None) -> Config:
    """The configuration in a file and what it includes. Raises ConfigErrors with everything that is wrong."""
    return load_with_origins(path, machine).config
