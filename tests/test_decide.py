"""decide(): precedence of routes and what its decisions hold for, as a table and as a property."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webserver.frontend.decide import Choice, Decision, Kind, Mount, Scope, SiteRules, SiteTable, decide

FILES = (Choice(Kind.FILE, 1, strip=1),)
SHOP = (Choice(Kind.GROUP, 7, strip=5),)
DEEP = (Choice(Kind.GROUP, 8, strip=10),)
PHP = Choice(Kind.SCRIPT, 9, script=b"/srv")
WSGI = Choice(Kind.SCRIPT, 10, script=b"/srv")
RULES = SiteRules(
    1,
    b"/srv",
    (
        Mount(b"/shop/deep/", DEEP, serves_files=False, gather=False),
        Mount(b"/shop/", SHOP, serves_files=False, gather=False),
        Mount(b"/", FILES, serves_files=True, gather=False),
    ),
    {b".php": PHP, b".wsgi": WSGI},
)
TABLE = SiteTable([(("example.org", "*.example.org"), RULES)])


@dataclass(frozen=True)
class Asked:
    host: bytes
    path: bytes
    method: bytes = b"GET"

    def field(self, name: str) -> bytes:
        raise AssertionError("decide() looks at no field")


@pytest.mark.parametrize(
    ("path", "choices", "scope"),
    [
        (b"/", FILES, Scope.PREFIX),
        (b"/a/b", FILES, Scope.PREFIX),
        (b"/index.php", (PHP,), Scope.PREFIX),
        (b"/a/index.php/info", (PHP,), Scope.PREFIX),
        (b"/a.wsgi", (WSGI,), Scope.PREFIX),
        (b"/a.wsgi/b.php", (WSGI,), Scope.EXACT),
        (b"/b.php/a.wsgi", (PHP,), Scope.EXACT),
        (b"/b.php.wsgi", (WSGI,), Scope.PREFIX),
        (b"/b.PHP", FILES, Scope.PREFIX),
        (b"/php", FILES, Scope.PREFIX),
        (b"/shop/", SHOP, Scope.PREFIX),
        (b"/shop/x.php", SHOP, Scope.PREFIX),
        (b"/shop", SHOP, Scope.EXACT),
        (b"/shopping", FILES, Scope.EXACT),
        (b"/shop/deep/x", DEEP, Scope.PREFIX),
        (b"/shop/deep", DEEP, Scope.EXACT),
    ],
)
def test_precedence(path: bytes, choices: tuple[Choice, ...], scope: Scope) -> None:
    decision = decide(TABLE, Asked(b"example.org", path))
    assert (decision.choices, decision.scope) == (choices, scope)


def test_hosts() -> None:
    assert decide(TABLE, Asked(b"www.example.org", b"/")).site == 1
    assert decide(TABLE, Asked(b"example.com", b"/")).choices == (
        Choice(Kind.STATUS, 421, script=b"no site has this host"),
    )


def holds(decision: Decision, path: bytes) -> bool:
    """What the engine's table does with a remembered decision."""
    if decision.scope is not Scope.PREFIX or not path.startswith(decision.prefix):
        return False
    segments = path.split(b"/")
    if decision.extension and not any(segment.endswith(decision.extension) for segment in segments):
        return False
    if any(path.startswith(prefix) for prefix in decision.except_prefixes):
        return False
    return not any(segment.endswith(e) for segment in segments for e in decision.except_extensions)


PATHS = st.lists(st.sampled_from([b"shop", b"shopping", b"deep", b"x.php", b"z.wsgi", b"y", b""]), max_size=5).map(
    lambda words: b"/" + b"/".join(words)
)


@given(first=PATHS, second=PATHS)
def test_a_remembered_decision_is_what_would_have_been_decided(first: bytes, second: bytes) -> None:
    remembered = decide(TABLE, Asked(b"example.org", first))
    if holds(remembered, second):
        again = decide(TABLE, Asked(b"example.org", second))
        assert (again.choices, again.extension) == (remembered.choices, remembered.extension)
