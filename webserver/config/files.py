"""The two plain files that a configuration may name: media types and environment variables.

Both are read by the process that starts the server, perhaps root: as regular files only. A private one lies where
nobody else can put another in its place.
"""

from __future__ import annotations

import errno
import os
import re
import stat

from webserver.config.errors import Place
from webserver.config.trusted import Absent, Untrusted, open_file, trusted

_LIMIT = 1 << 20
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*(;[\x20-\x7e]*)?")  # RFC 6838, 4.2
_EXTENSION = re.compile(r"[a-z0-9_+-]{1,32}")


class FileProblem(Exception):
    """(line or 0, problem) of each mistake in the file."""

    def __init__(self, path: str, problems: list[tuple[int, str]]) -> None:
        super().__init__(path, problems)
        self.problems = [(Place(path, line), problem) for line, problem in problems]


def read_types(path: str) -> tuple[tuple[str, str], ...]:
    """Lines "type extension ..."; returns (extension, type), sorted."""
    types: dict[str, str] = {}
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(_lines(path, private=False), 1):
        words = line.partition(" #")[0].split() if not line.lstrip().startswith("#") else []
        if not words:
            continue
        if _TYPE.fullmatch(words[0].lower()) is None:
            problems.append((number, f'found "{words[0]}", expected a media type such as text/html'))
        for word in map(str.lower, words[1:]):
            if _EXTENSION.fullmatch(word) is None:
                problems.append((number, f'found "{word}", expected a file name extension without its dot'))
            elif types.setdefault(word, words[0]) != words[0]:
                problems.append((number, f'"{word}" belongs to {types[word]} already'))
    if problems:
        raise FileProblem(path, problems)
    return tuple(sorted(types.items()))


def read_environment(path: str) -> tuple[tuple[str, str], ...]:
    """Lines "NAME=value"; # begins a comment line. The value is the rest of the line, without quotes around it."""
    variables: dict[str, str] = {}
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(_lines(path, private=True), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = (part.strip() for part in text.partition("="))
        # The line itself may be a secret, so it is not shown.
        if not equals or VARIABLE.fullmatch(name) is None:
            problems.append((number, "expected NAME=value with a name of letters, digits and _"))
        elif name in variables:
            problems.append((number, f"{name} is here a second time"))
        elif "\0" in value:
            problems.append((number, f"{name} holds a NUL"))
        else:
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            variables[name] = value[1:-1] if quoted else value
    if problems:
        raise FileProblem(path, problems)
    return tuple(variables.items())


def _lines(path: str, private: bool) -> list[str]:
    problem = ""
    try:
        if private:
            trusted(path, {0, os.geteuid()})
        with open(open_file(path, follow=not private), "rb") as file:
            found = os.fstat(file.fileno())
            if private and found.st_uid != os.geteuid():
                problem = f"it belongs to user id {found.st_uid}, expected {os.geteuid()}"
            elif private and found.st_mode & 0o077:
                problem = f"its mode is {stat.S_IMODE(found.st_mode):03o}, expected 600: others must not read it"
            data = b"" if problem else file.read(_LIMIT + 1)
    except Absent:
        problem, data = f"cannot read it: {os.strerror(errno.ENOENT)}", b""
    except Untrusted as untrusted:
        problem, data = str(untrusted), b""
    except OSError as error:
        problem, data = f"cannot read it: {error.strerror}", b""
    if len(data) > _LIMIT:
        problem = "it is larger than 1 MB"
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FileProblem(path, [(data.count(b"\n", 0, error.start) + 1, "expected text in UTF-8")]) from None
    if problem:
        raise FileProblem(path, [(0, problem)])
    return [line.rstrip("\r") for line in text.split("\n")]
