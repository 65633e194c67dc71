"""The line index and configobj see the same names in the same sections, each in the line where it stands."""

from __future__ import annotations

from typing import Any

import pytest
from configobj import ConfigObj, ConfigObjError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from webserver.config.lines import Path, scan

# Pieces that lines are made of, ordinary and nasty ones.
NAMES = st.sampled_from(
    ["a", "b", "a b", "/", ".php", "/x/", '"q"', "'q'", '"a=b"', "x.y", "é", "", "a#b", 'a"b', "a]", "'"]
)
VALUES = st.sampled_from(
    ["1", "", "a, b", ",", '"x # y"', "'''one line'''", '"""open', "x '''", "'''", '"', "a#b", "a # c", "[x]", "= 2",
     "a, 'b", "''' '''  # c", '""" """ """']
)  # fmt: skip
SPACE = st.sampled_from(["", " ", "  ", "\t", "\u00a0"])
DEPTHS = st.integers(1, 4)


@st.composite
def headers(draw: st.DrawFn) -> str:
    depth = draw(DEPTHS)
    close = depth if draw(st.integers(0, 9)) else draw(DEPTHS)
    space = draw(SPACE)
    tail = draw(st.sampled_from(["", " # c", "#c", " x", ""]))
    return draw(SPACE) + "[" * depth + space + draw(NAMES) + space + "]" * close + tail


@st.composite
def keys(draw: st.DrawFn) -> str:
    return draw(SPACE) + draw(NAMES) + draw(SPACE) + "=" + draw(SPACE) + draw(VALUES)


OTHERS = st.sampled_from(
    ["", "# c", "  # c = d", '"""', "x '''", "text", 'end """ # c', "[", "]", "=", "[[", "\ufeff", "a = \x0b1", "'''"]
)
LINES = st.lists(st.one_of(headers(), keys(), OTHERS), max_size=12)


@st.composite
def documents(draw: st.DrawFn) -> list[str]:
    """Texts that are in order: sections that fit in each other, each name once, values that end."""
    lines: list[str] = []
    depth = 0
    for number in range(draw(st.integers(0, 15))):
        name = draw(st.sampled_from(["a{}", "a b{}", "/{}/", ".php{}", "é{}", "'q{}'", '"q # {}"', '"q = {}"']))
        name, before, after = name.format(number), draw(SPACE), draw(SPACE)
        kind = draw(st.sampled_from(["section", "key", "key", "lines", "rest"]))
        comment = draw(st.sampled_from(["", "  # c", " #[c] = d"]))
        if kind == "section":
            depth = draw(st.integers(1, depth + 1))
            lines.append(f"{before}{'[' * depth}{after}{name}{after}{']' * depth}{comment}")
        elif kind == "key":
            value = draw(st.sampled_from(["1", "", "a, b", ",", "'x # [y]'", '"""z"""', "[v]", "= 2", "b ="]))
            lines.append(f"{before}{name}{after}={after}{value}{comment}")
        elif kind == "lines":
            quote = draw(st.sampled_from(['"""', "'''"]))
            inner = draw(st.sampled_from(["[x]", "a = 1", "# c", "", "'", '"']))
            lines += [f"{before}{name} = {quote}x", inner, f"y{quote}{comment}"]
        else:
            lines.append(draw(st.sampled_from(["", " ", "# c", "  # [c]", "#a = 1"])))
    return lines


def paths(section: Any, at: Path = ()) -> tuple[set[Path], set[Path]]:
    """The sections and keys that configobj found."""
    sections = {(*at, name) for name in section.sections}
    names = {(*at, name) for name in section.scalars}
    for name in section.sections:
        inner = paths(section[name], (*at, name))
        sections |= inner[0]
        names |= inner[1]
    return sections, names


def agree(lines: list[str]) -> None:
    index = scan(lines)
    if index.problems:
        return
    try:
        parsed = ConfigObj(list(lines), interpolation=False)
    except ConfigObjError as error:
        # Only a value may be at fault now, and its line is a key's or within a value in triple quotes.
        assert all(type(one).__name__ == "ParseError" for one in error.errors)
        assert not [one for one in error.errors if "neither section nor keyword" in str(one)]
        return
    assert paths(parsed) == (set(index.sections), set(index.keys))
    for path, number in {**index.sections, **index.keys}.items():
        assert path[-1] in lines[number - 1]


@settings(max_examples=600, deadline=None)
@given(documents())
def test_texts_in_order_are_read(lines: list[str]) -> None:
    assert scan(lines).problems == ()
    agree(lines)


@settings(max_examples=600)
@given(LINES)
def test_index_and_configobj_agree(lines: list[str]) -> None:
    agree(lines)


@settings(max_examples=300)
@given(st.text(alphabet="[]'\"#=, \tab\n", max_size=60))
def test_they_agree_on_any_text(text: str) -> None:
    agree(text.split("\n"))


@given(LINES)
def test_a_problem_is_at_a_line_of_the_file(lines: list[str]) -> None:
    assert all(1 <= number <= len(lines) for number, _ in scan(lines).problems)


@example(['a = """open', "b = 1", "b = 1", 'c = """open'])  # a reader that begins again after line 1 sees b twice
@settings(max_examples=2000, deadline=None)
@given(st.lists(keys(), min_size=2, max_size=5))
def test_they_agree_on_quotes(lines: list[str]) -> None:
    agree(lines)


def test_places() -> None:
    index = scan(
        ["# c", "top = 1", "[groups]", " [[shop]]  # c", "  a = '''x", "  [not a section]", "  b = no", "y''' # c",
         "  b = 1", "   [[[environment]]]", "   a = 1", "[sites]", " [['my shop']]"]
    )  # fmt: skip
    assert index.problems == ()
    assert index.sections == {
        ("groups",): 3,
        ("groups", "shop"): 4,
        ("groups", "shop", "environment"): 10,
        ("sites",): 12,
        ("sites", "my shop"): 13,
    }
    assert index.keys == {
        ("top",): 2,
        ("groups", "shop", "a"): 5,
        ("groups", "shop", "b"): 9,
        ("groups", "shop", "environment", "a"): 11,
    }


@pytest.mark.parametrize("lines", [["a = 1", "a = 2"], ["[a]", "[a]"], ["a = 1", "[a]"], ["[a]", "[[b]]", "[a]"]])
def test_names_are_unique(lines: list[str]) -> None:
    assert [number for number, _ in scan(lines).problems] == [len(lines)]
