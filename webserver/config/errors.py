"""What is wrong with a configuration, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A line of a file; line 0 stands for the file as a whole."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class ConfigError:
    """One mistake: where, in which option ("[groups] shop: threads", or ""), what is wrong, what may help."""

    place: Place
    subject: str
    problem: str  # "found X, expected Y" where that fits
    advice: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, (str(self.place), self.subject, self.problem))) + (
            f"; {self.advice}" if self.advice else ""
        )


class ConfigErrors(Exception):
    """All mistakes that were found, by file in reading order, then by line. Its text is one line for each."""

    def __init__(self, errors: Iterable[ConfigError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)))


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that a misspelt one is likely to stand for, or "" when none is near."""
    from difflib import get_close_matches  # only a broken configuration pays for it

    return next(iter(get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)), "")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Advice for a misspelt name: the nearest known one, or ""."""
    near = nearest(name, known)
    return f'did you mean "{near}"?' if near else ""
