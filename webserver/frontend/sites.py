"""From configuration to what the engine and decide() need: numbers for sites, roots, groups and handlers.

Numbers are given once to each name and kept over reloads, so that what the engine remembers about an unchanged site
stays true. Number 0 means "no site".
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..config.kinds import PROGRAMS
from ..config.model import Config, Route, Site
from .decide import Choice, Kind, Mount, SiteRules, SiteTable


class Numbers:
    """Numbers for names, from 1, never given twice."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []  # the first has number 1

    def of(self, name: str) -> int:
        if name not in self._numbers:
            self._names.append(name)
            self._numbers[name] = len(self._names)
        return self._numbers[name]

    def known(self, name: str) -> int | None:
        return self._numbers.get(name)

    def name(self, number: int) -> str:
        """The name behind a number that `of` gave; raises KeyError."""
        if not 0 < number <= len(self._names):
            raise KeyError(number)
        return self._names[number - 1]


@dataclass(frozen=True)
class Directory:
    """One of a site's sendfile directories: a root with a number of its own."""

    number: int
    path: str
    programs: tuple[str, ...]


@dataclass(frozen=True)
class Compiled:
    """The rules of a whole configuration and the sites they came from, by number."""

    table: SiteTable
    sites: dict[int, Site]
    programs: dict[int, tuple[str, ...]]  # extensions of files that are never sent
    sendfile: dict[int, tuple[Directory, ...]]


# A target that is one word, and the green handler that it names.
HANDLERS = {"status": 1}


def compile_sites(config: Config, sites: Numbers, groups: Numbers) -> Compiled:
    """Rules for every site of the configuration. Each site's root has the site's number."""
    rules: list[tuple[tuple[str, ...], SiteRules]] = []
    by_number: dict[int, Site] = {}
    programs: dict[int, tuple[str, ...]] = {}
    sendfile: dict[int, tuple[Directory, ...]] = {}
    for site in config.sites:
        number = sites.of(site.name)
        by_number[number] = site
        programs[number] = site_programs(site)
        sendfile[number] = tuple(
            # Below the site's own root, or around it, what looks like a program is one; elsewhere it is data.
            Directory(sites.of(f"{site.name}\0{path}"), path, programs[number] if _overlap(path, site.root) else ())
            for path in site.sendfile
        )
        rules.append((site.hosts, _rules(site, number, groups)))
    return Compiled(SiteTable(rules), by_number, programs, sendfile)


def site_programs(site: Site) -> tuple[str, ...]:
    """The extensions of files that this site runs, or refuses to send: programs' usual ones and those it routes."""
    sent = {route.pattern for route in site.routes if "files" in route.targets}
    routed = [route.pattern for route in site.routes if route.pattern.startswith(".")]
    return tuple(extension for extension in dict.fromkeys([*PROGRAMS, *routed]) if extension not in sent)


def _overlap(one: str, other: str) -> bool:
    return bool(other) and os.path.commonpath([one, other]) in (one, other)


def _rules(site: Site, number: int, groups: Numbers) -> SiteRules:
    mounts = []
    scripts: dict[bytes, Choice] = {}
    gathered: set[bytes] = set()
    for route in site.routes:
        if route.targets == ("files",) and route.pattern.startswith("."):
            continue  # files like any other: see site_programs
        if route.pattern.startswith("."):
            extension = route.pattern.encode()
            scripts[extension] = _script(route, site, groups)
            if route.upload == "gather":
                gathered.add(extension)
        else:
            mounts.append(_mount(route, site, number, groups))
    mounts.sort(key=lambda mount: -len(mount.prefix))
    return SiteRules(number, site.root.encode(), tuple(mounts), scripts, frozenset(gathered))


def _script(route: Route, site: Site, groups: Numbers) -> Choice:
    target = route.targets[0]
    if target.startswith("group:"):
        group = groups.of(target.removeprefix("group:"))
        return Choice(Kind.SCRIPT, group, script=_bytes(site.root), dotfiles=site.dotfiles == "allow")
    return _status(route, target)


def _status(route: Route, target: str) -> Choice:
    reason = f"the route {route.pattern} = {', '.join(route.targets)} says so"
    return Choice(Kind.STATUS, int(target.removeprefix("=")), script=reason.encode())


def _runner(site: Site, path: str) -> str:
    """The group that runs files like this one; the checker has seen that there is one."""
    found = [route for route in site.routes if route.pattern.startswith(".") and path.endswith(route.pattern)]
    return next(t.removeprefix("group:") for route in found for t in route.targets if t.startswith("group:"))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _mount(route: Route, site: Site, number: int, groups: Numbers) -> Mount:
    prefix = route.pattern if route.pattern.endswith("/") else route.pattern + "/"
    choices = []
    for target in route.targets:
        if target in ("files", "data"):  # below data no extension counts
            choices.append(Choice(Kind.FILE, number, strip=1))
        elif target.startswith("group:"):
            name = target.removeprefix("group:")
            choices.append(Choice(Kind.GROUP, groups.of(name), strip=len(prefix.encode()) - 1))
        elif target.startswith("script:"):
            path = target.removeprefix("script:")
            file = _bytes(site.root.rstrip("/") + path)
            group = groups.of(_runner(site, path))
            choices.append(Choice(Kind.RUN, group, strip=len(prefix.encode()) - 1, script=file))
        elif target.startswith("="):
            choices.append(_status(route, target))
        elif target.startswith("/"):
            choices.append(Choice(Kind.INTERNAL, script=target.encode()))
        else:
            choices.append(Choice(Kind.GREEN, HANDLERS[target]))
    return Mount(prefix.encode(), tuple(choices), "files" in route.targets, route.upload == "gather")
