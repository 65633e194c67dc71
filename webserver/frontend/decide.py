"""Which site, which route, which targets: the front end's decisions, as pure functions of a site table and a request.

Precedence within a site: the longest prefix first; within a route that serves files, a routed extension comes before
files. A decision says what it holds for, so that the engine asks once for all paths that follow the same rule; see
`Decision.scope`. Nothing here does I/O and nothing here knows the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol


class Scope(IntEnum):
    """What a decision holds for (enum engine_scope)."""

    ONCE = 0
    EXACT = 1
    PREFIX = 2


class Kind(IntEnum):
    """What a choice does (enum engine_choice_kind)."""

    FILE = 1
    GROUP = 2
    SCRIPT = 3
    INTERNAL = 4
    STATUS = 5
    FIXED = 6
    GREEN = 7
    RUN = 8


@dataclass(frozen=True)
class Choice:
    """One thing to try. `target` is a root's, group's, fixed answer's or handler's number, or a status.

    `script` is the root's path, the file to run, a path to route again with, or why the status is answered (for the
    error log). `dotfiles`: a script's path may have names that begin with a dot.
    """

    kind: Kind
    target: int = 0
    strip: int = 0
    script: bytes = b""
    dotfiles: bool = False


@dataclass(frozen=True)
class Decision:
    site: int
    choices: tuple[Choice, ...]
    scope: Scope = Scope.ONCE
    method_only: bool = False
    gather: bool = False
    prefix: bytes = b""
    extension: bytes = b""
    except_prefixes: tuple[bytes, ...] = ()
    except_extensions: tuple[bytes, ...] = ()


class Request(Protocol):
    """What decide() may look at. The host is lower case without a port; the path is percent-decoded bytes."""

    @property
    def host(self) -> bytes: ...
    @property
    def path(self) -> bytes: ...
    @property
    def method(self) -> bytes: ...
    def field(self, name: str) -> bytes: ...


@dataclass(frozen=True)
class Mount:
    """A prefix route. `prefix` ends with "/"."""

    prefix: bytes
    choices: tuple[Choice, ...]
    serves_files: bool
    gather: bool


@dataclass(frozen=True)
class SiteRules:
    """One site's routes, ready to match. `mounts` are sorted from the longest prefix."""

    number: int
    root: bytes
    mounts: tuple[Mount, ...]
    scripts: Mapping[bytes, Choice] = field(default_factory=dict)
    gather_scripts: frozenset[bytes] = frozenset()

    def mount(self, path: bytes) -> Mount | None:
        """The route with the longest prefix of the path; "/shop" counts as "/shop/"."""
        slashed = path if path.endswith(b"/") else path + b"/"
        for mount in self.mounts:
            if path.startswith(mount.prefix) or slashed == mount.prefix:
                return mount
        return None

    def extensions(self, path: bytes) -> list[bytes]:
        """The routed extensions in the path: that of the first segment that has one comes first, and decides."""
        segments = path.split(b"/")
        return list(dict.fromkeys(e for segment in segments for e in self.scripts if segment.endswith(e)))


class SiteTable:
    """Sites by host name: exact names, then the longest matching wildcard, then "*"."""

    def __init__(self, sites: Sequence[tuple[Sequence[str], SiteRules]]) -> None:
        self._exact: dict[bytes, SiteRules] = {}
        self._suffix: list[tuple[bytes, SiteRules]] = []
        self._any: SiteRules | None = None
        for hosts, rules in sites:
            for host in hosts:
                name = host.lower().encode("idna") if not host.isascii() else host.lower().encode()
                if name == b"*":
                    self._any = rules
                elif name.startswith(b"*."):
                    self._suffix.append((name[1:], rules))
                else:
                    self._exact[name] = rules
        self._suffix.sort(key=lambda pair: -len(pair[0]))

    def find(self, host: bytes) -> SiteRules | None:
        rules = self._exact.get(host)
        if rules is not None:
            return rules
        for suffix, rules in self._suffix:
            if host.endswith(suffix) and len(host) > len(suffix):
                return rules
        return self._any


NO_SITE = 0
_NOT_FOUND = (Choice(Kind.STATUS, 404, script=b"no route of the site leads here"),)
_MISDIRECTED = (Choice(Kind.STATUS, 421, script=b"no site has this host"),)


def decide(table: SiteTable, request: Request) -> Decision:
    """The decision for one request. Looks at host and path only, so all of it may be remembered."""
    rules = table.find(request.host)
    if rules is None:
        # Nobody serves this name here: one entry for the host, whatever the path.
        return Decision(NO_SITE, _MISDIRECTED, Scope.PREFIX, prefix=b"/")
    path = request.path
    mount = rules.mount(path)
    if mount is None:
        return Decision(rules.number, _NOT_FOUND, Scope.EXACT)
    extensions = rules.extensions(path) if mount.serves_files else []
    extension = extensions[0] if extensions else b""
    longer = tuple(m.prefix[:-1] for m in rules.mounts if len(m.prefix) > len(mount.prefix))
    longer = tuple(p for p in longer if p.startswith(mount.prefix))
    choices = (rules.scripts[extension],) if extension else mount.choices
    gather = extension in rules.gather_scripts if extension else mount.gather
    if any(path.startswith(p) for p in longer) or not path.startswith(mount.prefix) or len(extensions) > 1:
        # "/shopping" beside a route "/shop/", or "/shop" itself: the prefix's own decision makes an exception of it. As
        # does that of an extension of a path that has another one too: which comes first is in no other path's power.
        return Decision(rules.number, choices, Scope.EXACT, gather=gather, extension=extension)
    return Decision(
        rules.number,
        choices,
        Scope.PREFIX,
        gather=gather,
        prefix=mount.prefix,
        extension=extension,
        except_prefixes=longer,
        except_extensions=tuple(e for e in rules.scripts if e != extension) if mount.serves_files else (),
    )
