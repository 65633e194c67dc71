"""Where each section and option stands in a file.

configobj reads the values but forgets the lines. This scan finds headers and keys with their nesting, and refuses what
it cannot place beyond doubt (quotes inside a name, text after a header, a header inside nothing). For each text that it
accepts and configobj accepts, both see the same names in the same sections: a property test holds them together. It
knows no option.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SECTION = re.compile(
    r"""\s*(\[[\[\s]*)
        (?: "(\s*[^"\s][^"]*)" | '(\s*[^'\s][^']*)' | ([^]["'\#\s](?:[^]["'\#]*[^]["'\#\s])?) )
        \s*(\][\]\s]*)(?:\#.*)?$""",
    re.VERBOSE,
)
_KEY = re.compile(
    r"""\s*(?: "([^"]+)" | '([^']+)' | ([^]["'=\#\s](?:[^"'=]*[^"'=\s])?) )
        \s*=\s*(.*)$""",
    re.VERBOSE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

Path = tuple[str, ...]


@dataclass(frozen=True)
class Index:
    """Line numbers count from 1. `sections` and `keys` hold the first place of each name."""

    sections: dict[Path, int]
    keys: dict[Path, int]
    problems: tuple[tuple[int, str], ...]
    sound: bool  # False: the nesting is in doubt, so what follows a problem may belong elsewhere


def scan(lines: list[str]) -> Index:
    """The index of a file's lines, which have no line ends."""
    sections: dict[Path, int] = {}
    keys: dict[Path, int] = {}
    problems: list[tuple[int, str]] = []
    sound = True
    here: Path = ()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        text = line.strip()
        if _CONTROL.search(line):
            problems.append((number, "found a control character, expected text"))
            sound = False
        elif not text or text.startswith("#"):
            continue
        elif text.startswith("["):
            place, problem = _header(line, here)
            if not problem and place in sections:
                problem = f"section [{place[-1]}] is here a second time, the first is in line {sections[place]}"
            elif not problem and place in keys:
                problem = f"section [{place[-1]}] has the name of the option in line {keys[place]}"
            if problem:
                problems.append((number, problem))
                sound = False
                # What follows belongs to a section without a name, so that it is not taken for something twice.
                place = (f"line {number}",) * max(1, min(len(here) + 1, text.count("[")))
            here = place
            sections[here] = number
        elif (key := _KEY.match(line)) is None:
            problems.append((number, f'found "{text}", expected "[section]", "name = value" or a comment'))
            sound = False
        else:
            name = (*here, next(filter(None, key.groups()[:3])))
            if name in keys or name in sections:
                first = keys.get(name) or sections[name]
                problems.append((number, f'"{name[-1]}" is here a second time, the first is in line {first}'))
            keys.setdefault(name, number)
            end = _end_of_value(key[4], lines, number)
            if end == 0:
                problems.append((number, f"found {key[4][:3]} that is never closed"))
                sound = False
                break
            if end > number and not re.search(key[4][:3] + r"\s*(#.*)?$", lines[end - 1]):
                problems.append((end, f"found text after the {key[4][:3]} that ends a value"))
                sound = False
            number = end
    return Index(sections, keys, tuple(problems), sound)


def _header(line: str, here: Path) -> tuple[Path, str]:
    """The section that a header opens, and what is wrong with it or ""."""
    match = _SECTION.match(line)
    if match is None:
        return here, f'found "{line.strip()}", expected a section name in brackets'
    depth = match[1].count("[")
    if depth != match[5].count("]"):
        return here, f"found {depth} brackets before the name and {match[5].count(']')} after it"
    if depth > len(here) + 1:
        return here, f"found {depth} brackets, expected at most {len(here) + 1} at this place"
    return (*here[: depth - 1], next(filter(None, match.groups()[1:4]))), ""


def _end_of_value(value: str, lines: list[str], number: int) -> int:
    """Number of the last line of a value that begins in line `number`; 0: it has no end."""
    quote = value[:3]
    if quote not in ('"""', "'''") or quote in value[3:]:
        return number
    return next((end for end in range(number + 1, len(lines) + 1) if quote in lines[end - 1]), 0)
