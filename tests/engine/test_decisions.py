"""The table of decisions against a model that looks through a list of all of them, and through the engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pure_static import pure, text
from static_host import EngineHost
from webserver.engine._engine import lib

EXACT, PREFIX = 1, 2
segments = st.sampled_from([b"a", b"b", b"x.php", b"y.py", b"c.php.d", b""])
paths = st.lists(segments, min_size=1, max_size=4).map(lambda s: b"/" + b"/".join(s))
hosts = st.sampled_from([b"one", b"two", b""])
methods = st.sampled_from([b"GET", b"POST"])
extensions = st.sampled_from([b".php", b".py"])


@dataclass
class Entry:
    number: int
    host: bytes
    scope: int
    path: bytes
    method: bytes
    extension: bytes
    except_prefixes: list[bytes] = field(default_factory=list)
    except_extensions: list[bytes] = field(default_factory=list)

    def key(self) -> tuple[object, ...]:
        return (self.host, self.scope, self.path, self.method, self.extension)

    def holds(self, host: bytes, path: bytes, method: bytes) -> bool:
        if host != self.host or (self.method and method != self.method):
            return False
        if self.scope == EXACT:
            return path == self.path
        ends = {x for x in (b".php", b".py") for segment in path.split(b"/") if segment.endswith(x)}
        return (
            path.startswith(self.path)
            and (not self.extension or self.extension in ends)
            and not any(path.startswith(p) for p in self.except_prefixes)
            and not ends & set(self.except_extensions)
        )


@st.composite
def entries(draw: Any) -> list[Entry]:
    made = []
    for number in range(draw(st.integers(0, 12))):
        path = draw(paths)
        method = draw(st.sampled_from([b"", b"GET"]))
        if draw(st.booleans()):
            made.append(Entry(number, draw(hosts), EXACT, path, method, b""))
            continue
        prefix = path[: path.rfind(b"/") + 1]
        made.append(
            Entry(number, draw(hosts), PREFIX, prefix, method, draw(st.one_of(st.just(b""), extensions)),
                  [prefix + p for p in draw(st.lists(st.sampled_from([b"a", b"b/", b"x"]), max_size=2))],
                  draw(st.lists(extensions, max_size=2)))
        )  # fmt: skip
    return made


class Table:
    def __init__(self, limit: int) -> None:
        self.ffi, self.lib = pure()
        self.native = self.lib.decisions_new(limit)
        self.site = self.ffi.new("struct site *")
        self.keep: list[Any] = []

    def text(self, value: bytes) -> Any:
        place, keep = text(value)
        self.keep.append(keep)
        return place

    def texts(self, values: list[bytes]) -> Any:
        array = self.ffi.new("struct engine_text[]", [self.text(value) for value in values] or 1)
        self.keep.append(array)
        return array

    def add(self, entry: Entry) -> Any:
        choice = self.ffi.new("struct engine_choice *", {"kind": 5, "target": entry.number})
        decision = self.ffi.new("struct engine_decision *", {
            "scope": entry.scope, "method_only": bool(entry.method), "prefix": self.text(entry.path),
            "extension": self.text(entry.extension), "choices": choice, "choice_count": 1,
            "except_prefixes": self.texts(entry.except_prefixes), "except_prefix_count": len(entry.except_prefixes),
            "except_extensions": self.texts(entry.except_extensions),
            "except_extension_count": len(entry.except_extensions),
        })  # fmt: skip
        path, host, method = self.text(entry.path), self.text(entry.host), self.text(entry.method or b"GET")
        return self.lib.decisions_add(self.native, decision, self.site, host, path, method)

    def find(self, host: bytes, path: bytes, method: bytes) -> int | None:
        found = self.lib.decisions_find(self.native, self.text(host), self.text(path), self.text(method))
        return None if found == self.ffi.NULL else int(self.lib.first_target(found))

    def close(self) -> None:
        self.lib.decisions_delete(self.native)


@given(entries(), st.lists(st.tuples(hosts, paths, methods), max_size=12))
def test_against_the_model(made: list[Entry], requests: list[tuple[bytes, bytes, bytes]]) -> None:
    table = Table(100)
    model: dict[tuple[object, ...], Entry] = {}
    for entry in made:
        table.lib.decision_release(table.add(entry))
        model[entry.key()] = entry
    assert table.lib.decisions_count(table.native) == len(model)
    for host, path, method in requests:
        number = table.find(host, path, method)
        holding = [entry for entry in model.values() if entry.holds(host, path, method)]
        if number is None:
            assert not [e for e in holding if not shadowed(e, model, path, method)]
            continue
        entry = next(e for e in model.values() if e.number == number)
        assert entry in holding
        if any(e.scope == EXACT for e in holding):
            assert entry.scope == EXACT
        elif any(e.extension for e in holding if not shadowed(e, model, path, method)):
            assert entry.extension
    table.site.generation += 1
    for host, path, method in requests:
        assert table.find(host, path, method) is None
    table.close()


def shadowed(entry: Entry, model: dict[tuple[object, ...], Entry], path: bytes, method: bytes) -> bool:
    """Another entry for the same prefix that does not hold: the table may ask again rather than look further."""
    same = [e for e in model.values() if (e.host, e.scope, e.path, e.extension) ==
            (entry.host, entry.scope, entry.path, entry.extension)]  # fmt: skip
    return any(not e.holds(e.host, path, method) for e in same if not e.method or e.method == method)


@given(st.integers(0, 5), st.lists(paths, max_size=30))
def test_the_limit(limit: int, asked: list[bytes]) -> None:
    table = Table(limit)
    for number, path in enumerate(asked):
        held = table.add(Entry(number, b"one", EXACT, path, b"", b""))
        assert table.lib.decisions_count(table.native) <= limit
        assert table.find(b"one", path, b"GET") == (number if limit else None)
        assert table.lib.first_target(held) == number
        table.lib.decision_release(held)
    table.lib.decisions_limit(table.native, 1)
    assert table.lib.decisions_count(table.native) <= 1
    table.close()


def test_what_is_used_stays() -> None:
    table = Table(10)
    table.lib.decision_release(table.add(Entry(0, b"one", PREFIX, b"/", b"", b"")))
    for number in range(1, 1000):
        table.lib.decision_release(table.add(Entry(number, b"h%d" % number, EXACT, b"/x", b"", b"")))
        assert table.find(b"one", b"/any/path", b"GET") == 0
    table.close()


def test_an_entry_outlives_the_table() -> None:
    table = Table(10)
    held = table.add(Entry(7, b"one", EXACT, b"/x", b"", b""))
    table.lib.decisions_clear(table.native)
    assert table.find(b"one", b"/x", b"GET") is None
    assert table.lib.first_target(held) == 7
    table.lib.decision_release(held)
    table.close()


@settings(max_examples=20)
@given(st.integers(1, 8000))
def test_long_paths(size: int) -> None:
    table = Table(10)
    table.lib.decision_release(table.add(Entry(1, b"one", PREFIX, b"/", b"", b"")))
    deep = b"/" * 100
    table.lib.decision_release(table.add(Entry(2, b"one", PREFIX, deep, b"", b"")))  # too deep to be remembered
    assert table.lib.decisions_count(table.native) == 1
    assert table.find(b"one", b"/" * size, b"GET") == 1
    assert table.find(b"one", b"/" + b"x.php/" * (size // 6), b"GET") == 1
    table.close()


def test_what_a_stranger_made_long_is_not_kept() -> None:
    """65,536 entries of 200 bytes are little; of 16 KB each they would be a gigabyte."""
    table = Table(10)
    for size, kept in ((512, 1), (513, 1), (8000, 1)):
        held = table.add(Entry(1, b"one", EXACT, b"/" + b"x" * (size - 1), b"", b""))
        assert table.lib.first_target(held) == 1  # for the request at hand
        table.lib.decision_release(held)
        assert table.lib.decisions_count(table.native) == kept
    table.close()


# ---- through the engine: how often is Python asked


@pytest.fixture
def host() -> Iterator[EngineHost]:
    one = EngineHost(
        lambda method, host, path: RULES[path.split(b"/")[1]] | {"prefix": b"/" + path.split(b"/")[1] + b"/"}
    )
    one.root(1, "/nonexistent")
    yield one
    one.close()


RULES: dict[bytes, dict[str, Any]] = {
    b"once": {"choices": [(lib.CHOICE_STATUS, 410)]},
    b"exact": {"scope": lib.SCOPE_EXACT, "choices": [(lib.CHOICE_STATUS, 410)]},
    b"method": {"scope": lib.SCOPE_EXACT, "method_only": 1, "choices": [(lib.CHOICE_STATUS, 410)]},
    b"prefix": {"scope": lib.SCOPE_PREFIX, "choices": [(lib.CHOICE_FILE, 1, 1), (lib.CHOICE_STATUS, 410)],
                "except_prefixes": [b"/prefix/not"]},
    b"loop": {"scope": lib.SCOPE_PREFIX, "choices": [(lib.CHOICE_INTERNAL, 0, 0, b"/loop/again")]},
    b"inner": {"scope": lib.SCOPE_PREFIX, "choices": [(lib.CHOICE_INTERNAL, 0, 0, b"/prefix/x")]},
    b"none": {"scope": lib.SCOPE_PREFIX, "choices": [(lib.CHOICE_FILE, 1, 1)]},
    b"beyond": {"choices": [(lib.CHOICE_GROUP, 1, 1000), (lib.CHOICE_STATUS, 410)]},
    b"wrong-scope": {"scope": 9, "choices": [(lib.CHOICE_STATUS, 410)]},
    b"wrong-kind": {"choices": [(99, 1)]},
    b"wrong-status": {"choices": [(lib.CHOICE_STATUS, 99)]},
    b"wrong-site": {"site": 77, "choices": [(lib.CHOICE_STATUS, 410)]},
    b"wrong-fixed": {"choices": [(lib.CHOICE_FIXED, 3)]},
    b"wrong-script": {"choices": [(lib.CHOICE_SCRIPT, 3)]},
    b"wrong-internal": {"choices": [(lib.CHOICE_INTERNAL, 0, 0, b"relative")]},
    b"wrong-many": {"choices": [(lib.CHOICE_STATUS, 410)] * 9},
    b"wrong-few": {"choices": []},
    b"wrong-extension": {"scope": lib.SCOPE_PREFIX, "extension": b".php", "choices": [(lib.CHOICE_STATUS, 410)]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("requests", "asked"),
    [
        (["GET /once/a", "GET /once/a"], 2),
        (["GET /exact/a", "GET /exact/a", "POST /exact/a", "GET /exact/b"], 2),
        (["GET /method/a", "GET /method/a", "POST /method/a", "POST /method/a"], 2),
        (["GET /prefix/a", "GET /prefix/b", "POST /prefix/"], 1),
        (["GET /prefix/a", "GET /prefix/not/a", "GET /prefix/not"], 3),
        (["GET /inner/a", "GET /inner/b"], 2),
        (["GET /beyond/a"], 1),
    ],
)
def test_how_often_python_is_asked(host: EngineHost, requests: list[str], asked: int) -> None:
    for request in requests:
        method, path = request.split()
        assert host.ask(path, method).status == 410
    assert len(host.asked) == asked
    assert host.refused == 0


def test_another_host_asks_again(host: EngineHost) -> None:
    for name in ("h", "H:80", "other"):
        assert host.ask("/exact/a", host=name).status == 410
    assert len(host.asked) == 2


def test_forgetting(host: EngineHost) -> None:
    for forget in (lambda: lib.engine_site_forget(host.engine, 1), lambda: lib.engine_forget_all(host.engine)):
        host.asked.clear()
        host.ask("/exact/a")
        before = len(host.asked)
        host.ask("/exact/a")
        assert len(host.asked) == before
        forget()
        host.ask("/exact/a")
        assert len(host.asked) == before + 1


def test_loops_end(host: EngineHost, capfd: pytest.CaptureFixture[str]) -> None:
    assert host.ask("/loop/a").status == 500
    assert "form a loop" in capfd.readouterr().err
    assert len(host.asked) == 1


def test_after_the_last_choice(host: EngineHost) -> None:
    assert host.ask("/none/a").status == 404


@pytest.mark.parametrize("name", [name.decode() for name in RULES if name.startswith(b"wrong")])
def test_wrong_decisions_are_refused(host: EngineHost, name: str) -> None:
    assert host.ask(f"/{name}/a").status == 500
    assert host.refused == 1


def test_fixed_answers(host: EngineHost) -> None:
    from webserver.engine._engine import ffi

    name, value, body = (ffi.new("char[]", text) for text in (b"X-Test", b"yes", b"hello"))
    fields = ffi.new("struct engine_field *")
    fields.name.data, fields.name.size, fields.value.data, fields.value.size = name, 6, value, 3
    content = ffi.new("struct engine_text *", {"data": body, "size": 5})[0]
    assert lib.engine_fixed(host.engine, 5, 203, fields, 1, content) == 0
    host.rule = lambda method, host, path: {"scope": lib.SCOPE_EXACT, "choices": [(lib.CHOICE_FIXED, 5)]}
    for method in ("GET", "POST", "HEAD"):
        answer = host.ask("/fixed", method)
        assert (answer.status, answer.field("x-test"), answer.field("content-length")) == (203, "yes", "5")
        assert answer.body == (b"" if method == "HEAD" else b"hello")
    broken = ffi.new("char[]", b"y\ns")
    fields.value.data = broken
    assert lib.engine_fixed(host.engine, 5, 203, fields, 1, content) == lib.ENGINE_INVALID
    assert lib.engine_fixed(host.engine, 5, 204, ffi.NULL, 0, content) == lib.ENGINE_INVALID
    assert host.ask("/fixed").status == 203
