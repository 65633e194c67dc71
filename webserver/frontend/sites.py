"""From configuration to what the engine and decide() need: numbers for sites, roots, groups and handlers.

Numbers are given once to each name and kept over reloads, so that what the engine remembers about an unchanged site
stays true. Number 0 means "no site".
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config.model import Config, Route, Site
from .decide import Choice, Kind, Mount, SiteRules, SiteTable


class Numbers:
    """Numbers for names, from 1, never given twice."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers) + 1)

    def known(self, name: str) -> int | None:
        return self._numbers.get(name)

    def name(self, number: int) -> str:
        """The name behind a number that `of` gave; raises KeyError."""
        for name, known in self._numbers.items():
            if known == number:
                return name
        raise KeyError(number)


@dataclass(frozen=True)
class Compiled:
    """The rules of a whole configuration and the sites they came from, by number."""

    table: SiteTable
    sites: dict[int, Site]
    script_extensions: dict[int, tuple[str, ...]]


# A target that is one word, and the green handler that it names.
HANDLERS = {"status": 1}


def compile_sites(config: Config, sites: Numbers, groups: Numbers) -> Compiled:
    """Rules for every site of the configuration. Each site's root has the site's number."""
    rules: list[tuple[tuple[str, ...], SiteRules]] = []
    by_number: dict[int, Site] = {}
    extensions: dict[int, tuple[str, ...]] = {}
    for site in config.sites:
        number = sites.of(site.name)
        by_number[number] = site
        extensions[number] = tuple(route.pattern for route in site.routes if route.pattern.startswith("."))
        rules.append((site.hosts, _rules(site, number, groups)))
    return Compiled(SiteTable(rules), by_number, extensions)


def _rules(site: Site, number: int, groups: Numbers) -> SiteRules:
    mounts = []
    scripts: dict[bytes, Choice] = {}
    gathered: set[bytes] = set()
    for route in site.routes:
        if route.pattern.startswith("."):
            extension = route.pattern.encode()
            scripts[extension] = _script(route, site, groups)
            if route.upload == "gather":
                gathered.add(extension)
        else:
            mounts.append(_mount(route, number, groups))
    mounts.sort(key=lambda mount: -len(mount.prefix))
    return SiteRules(number, site.root.encode(), tuple(mounts), scripts, frozenset(gathered))


def _script(route: Route, site: Site, groups: Numbers) -> Choice:
    target = route.targets[0]
    if target.startswith("group:"):
        return Choice(Kind.SCRIPT, groups.of(target.removeprefix("group:")), script=site.root.encode())
    return _status(route, target)


def _status(route: Route, target: str) -> Choice:
    reason = f"the route {route.pattern} = {', '.join(route.targets)} says so"
    return Choice(Kind.STATUS, int(target.removeprefix("=")), script=reason.encode())


def _mount(route: Route, number: int, groups: Numbers) -> Mount:
    prefix = route.pattern if route.pattern.endswith("/") else route.pattern + "/"
    choices = []
    for target in route.targets:
        if target == "files":
            choices.append(Choice(Kind.FILE, number, strip=1))
        elif target.startswith("group:"):
            name = target.removeprefix("group:")
            choices.append(Choice(Kind.GROUP, groups.of(name), strip=len(prefix.encode()) - 1))
        elif target.startswith("="):
            choices.append(_status(route, target))
        elif target.startswith("/"):
            choices.append(Choice(Kind.INTERNAL, script=target.encode()))
        else:
            choices.append(Choice(Kind.GREEN, HANDLERS[target]))
    return Mount(prefix.encode(), tuple(choices), "files" in route.targets, route.upload == "gather")
