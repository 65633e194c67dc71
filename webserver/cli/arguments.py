"""Command lines as a table. argparse would cost every start as much as the rest of the program together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DEFAULT_CONFIG = "/etc/webserver/webserver.conf"


class UsageError(Exception):
    """The command line has a mistake."""


def parse(argv: Sequence[str], options: Mapping[str, bool]) -> tuple[dict[str, str], list[str]]:
    """(options given, words). `options` says which there are, and whether each takes a value ("--name=value", too)."""
    given: dict[str, str] = {}
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if name not in options:
            raise UsageError(f"unknown option {name}")
        if options[name] and not equals:
            if not rest:
                raise UsageError(f"{name} needs a value")
            value = rest.pop(0)
        elif equals and not options[name]:
            raise UsageError(f"{name} takes no value")
        if name in given:
            raise UsageError(f"{name} is given twice")
        given[name] = value
    return given, words
