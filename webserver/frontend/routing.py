"""Puts a configuration into the engine and answers its questions.

Owns the numbers of sites and groups and the rules in force. A reload replaces the rules at once and makes the engine
forget only the sites that changed.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

from gevent import spawn

from ..config.model import Config, Group, Site
from ..engine._engine import lib
from .decide import NO_SITE, Choice, Decision, Kind, SiteTable, decide
from .engine import Engine, Stale
from .sites import Directory, Numbers, compile_sites

_SYMLINKS = {"deny": 0, "owner": 1, "allow": 2}
_DOTFILES = 4
_UNKNOWN = "application/octet-stream"  # the type of an extension that is not in the table
# Until its configuration comes, which is before the first request for it.
EARLY_QUEUE = 1000
EARLY_TIMEOUT = 30.0
_FAILED = Decision(NO_SITE, (Choice(Kind.STATUS, 500, script=b"deciding failed, see the traceback before this"),))


class RequestView:
    """What decide() sees of a request. Looking at a field makes the decision hold for this request only."""

    def __init__(self, engine: Engine, token: int) -> None:
        self._engine = engine
        self._token = token
        self.looked_at_method = False
        self.looked_further = False

    @property
    def host(self) -> bytes:
        return self._engine.request_text(self._token, lib.REQUEST_HOST)

    @property
    def path(self) -> bytes:
        return self._engine.request_text(self._token, lib.REQUEST_PATH)

    @property
    def method(self) -> bytes:
        self.looked_at_method = True
        return self._engine.request_text(self._token, lib.REQUEST_METHOD)

    def field(self, name: str) -> bytes:
        self.looked_further = True
        return self._engine.request_field(self._token, name)


class Routing:
    """The rules in force."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.sites = Numbers()
        self.groups = Numbers()
        self._table = SiteTable([])
        self._sites: dict[int, Site] = {}
        self._groups: dict[str, Group] = {}
        self._early: set[str] = set()
        self._removed: set[str] = set()
        self._mime: dict[str, str] = {}
        self._hosts: dict[int, tuple[str, ...]] = {}
        self._sendfile: dict[int, list[int]] = {}  # numbers of the directories' roots, by site
        engine.site(NO_SITE, "-", "", 0)

    def use(self, config: Config) -> None:
        """Put this configuration into force. What it does not change stays remembered."""
        engine = self._engine
        mime = dict(config.mime_types)
        for extension in self._mime.keys() | mime.keys():
            kind = mime.get(extension, _UNKNOWN)
            if self._mime.get(extension, _UNKNOWN) != kind:
                engine.mime(extension, kind)
        self._mime = mime
        for group in config.groups:
            if self._groups.get(group.name) != group:
                engine.group(
                    self.groups.of(group.name),
                    group.name,
                    group.queue_length,
                    group.queue_timeout,
                    group.request_timeout,
                    group.quarantine,
                    group.processes_min < group.processes,
                )
        gone_groups = set(self._groups) - {group.name for group in config.groups}
        self._groups = {group.name: group for group in config.groups}
        self._early -= set(self._groups)
        compiled = compile_sites(config, self.sites, self.groups)
        changed = [number for number, site in compiled.sites.items() if self._sites.get(number) != site]
        for number in changed:
            site = compiled.sites[number]
            flags = _SYMLINKS[site.symlinks] | (_DOTFILES if site.dotfiles == "allow" else 0)
            engine.root(number, site.root, flags, site.index, compiled.programs[number])
            engine.site(number, site.name, site.root, site.max_body)
            self._use_sendfile(number, compiled.sendfile[number], flags)
        gone = set(self._sites) - set(compiled.sites)
        hosts = {number: site.hosts for number, site in compiled.sites.items()}
        self._table = compiled.table
        self._sites = compiled.sites
        if hosts != self._hosts or gone:
            # A name may now belong to another site, or to none: what is remembered by host is all in doubt.
            lib.engine_forget_all(engine.native)
        else:
            for number in changed:
                lib.engine_site_forget(engine.native, number)
        self._hosts = hosts
        self._removed = (self._removed | gone_groups) - set(self._groups)

    def _use_sendfile(self, number: int, directories: tuple[Directory, ...], flags: int) -> None:
        engine = self._engine
        for directory in directories:
            engine.root(directory.number, directory.path, flags, (), directory.programs)
        now = [directory.number for directory in directories]
        engine.sendfile(number, now)
        for gone in set(self._sendfile.pop(number, ())) - set(now):
            engine.root(gone, "", flags, (), ())  # its descriptor goes
        if now:
            self._sendfile[number] = now

    def group_number(self, name: str) -> int:
        """The group's number; one that the configuration in force does not have yet is made, with usual limits.

        A new group's first generation is bound before the configuration that routes to it comes into force.
        """
        known = self.groups.known(name)
        if name not in self._groups and name not in self._early:
            self._early.add(name)
            known = self.groups.of(name)
            self._engine.group(known, name, EARLY_QUEUE, EARLY_TIMEOUT, 0, 0)
        return self.groups.of(name) if known is None else known

    def forget_group(self, name: str) -> None:
        """Its last generation is closed here: if no configuration has it any more, nor does the engine."""
        if name in self._removed:
            self._removed.discard(name)
            lib.engine_group_close(self._engine.native, self.groups.of(name))

    def group_names(self) -> list[str]:
        return list(self._groups)

    def wanted(self, event: Any) -> None:
        """EVENT_DECIDE: a green thread decides, so that a decision may take its time."""
        spawn(self._answer, event.token)

    def _answer(self, token: int) -> None:
        try:
            view = RequestView(self._engine, token)
            decision = decide(self._table, view)
            self._engine.decide(token, remembered(decision, view))
        except Stale:
            return
        except Exception:
            traceback.print_exc(file=sys.stderr)
            self._engine.decide(token, _FAILED)


def remembered(decision: Decision, view: RequestView) -> Decision:
    """The decision, made to hold no further than what it was based on."""
    if view.looked_further:
        return Decision(decision.site, decision.choices, gather=decision.gather, extension=decision.extension)
    if view.looked_at_method:
        return Decision(**{**decision.__dict__, "method_only": True})
    return decision
