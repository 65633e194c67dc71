#!/usr/bin/python3
"""Write the lists of options in the manual pages from the option table.

    man/generate.py           rewrite the pages
    man/generate.py --check   exit with 1 if a page is not what it would write

Between '.\\" begin options: SECTION' and '.\\" end options' stands what is made here; all else is written by hand.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from webserver.config.options import TABLE, Computed, Option  # noqa: E402  # the tree is not installed

WIDTH = 78  # mandoc's style is at most 80 bytes
MARKED = re.compile(r'(\.\\" begin options: (\w+)\n)(.*?)(\.\\" end options\n)', re.DOTALL)


def sentences(text: str) -> list[str]:
    """Lines of input text: each sentence begins a line, none is too long, none looks like a request."""
    lines: list[str] = []
    for sentence in re.split(r"(?<=[.;:]) +(?=[A-Z])", text):
        lines += textwrap.wrap(sentence, WIDTH, break_long_words=False, break_on_hyphens=False)
    return [rf"\&{line}" if line.startswith((".", "'")) else line for line in lines]


def entry(option: Option) -> list[str]:
    argument = " | ".join(f"Cm {word}" for word in option.choices) or f"Ar {option.kind.name}"
    head = f".It Ic {option.name} No = {argument}" + (" , ..." if option.many else "")
    return [head, *sentences(f"{option.help} {option.root}".strip()), *sentences(limits(option))]


def limits(option: Option) -> str:
    """Range and default, as sentences."""
    write = option.kind.write
    parts = []
    if option.least is not None and option.most is not None:
        parts.append(f"From {write(option.kind.value(option.least))} to {write(option.kind.value(option.most))}.")
    elif option.least is not None:
        parts.append(f"At least {write(option.kind.value(option.least))}.")
    for word in ("none", "unlimited", "all", "no"):
        if f'"{word}"' in option.kind.expected:
            parts.append(f"Or {word}.")
    if option.default is None:
        parts.append("Must be given.")
    elif isinstance(option.default, Computed):
        parts.append(f"Default: {option.default.sentence}.")
    else:
        parts.append(f"Default: {option.default or 'not set'}.")
    return " ".join(parts)


def written(page: str) -> str:
    """A page with its lists of options made anew."""

    def section(match: re.Match[str]) -> str:
        lines = [".Bl -tag -width 4n", *(line for option in TABLE[match[2]].values() for line in entry(option)), ".El"]
        return match[1] + "\n".join(lines) + "\n" + match[4]

    return MARKED.sub(section, page)


def main() -> int:
    stale = 0
    for path in sorted(HERE.glob("*.[0-9]")):
        before = path.read_text()
        after = written(before)
        if after != before and "--check" in sys.argv[1:]:
            print(f"{path.name} is not what the option table says: run man/generate.py", file=sys.stderr)
            stale = 1
        elif after != before:
            path.write_text(after)
    return stale


if __name__ == "__main__":
    sys.exit(main())
