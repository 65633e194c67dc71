"""The command lines of both programs: few options, so few lines, and no 10 ms for a parser."""

from __future__ import annotations

from dataclasses import dataclass, field

CONFIG = "/etc/webserver/webserver.conf"


class UsageError(Exception):
    """What is wrong with the command line."""


@dataclass
class Words:
    """A command line: options that take a value, options that do not, and the rest."""

    values: dict[str, str] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    rest: list[str] = field(default_factory=list)


def parse(arguments: list[str], valued: tuple[str, ...], flags: tuple[str, ...]) -> Words:
    """Read "--name VALUE", "--name=VALUE" and flags. Raises UsageError."""
    words = Words()
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        if name in valued:
            if not equals:
                if not waiting:
                    raise UsageError(f"{name} needs a value")
                value = waiting.pop(0)
            words.values[name] = value
        elif word in flags:
            words.flags.add(word)
        elif word.startswith("-"):
            raise UsageError(f"there is no option {word}")
        else:
            words.rest.append(word)
    return words
