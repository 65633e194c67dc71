"""The two plain files that a configuration may name: media types and environment variables.

Both are read by the process that starts the server, perhaps root: opened without waiting, as regular files only.
"""

from __future__ import annotations

import os
import re
import stat

from webserver.config.errors import Place

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
    problem = _unsafe_directory(path) if private else ""
    if problem:
        raise FileProblem(path, [(0, problem)])
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if private else 0)
        with open(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                problem = "it is not a file"
            elif private and found.st_uid != os.geteuid():
                problem = f"it belongs to user id {found.st_uid}, expected {os.geteuid()}"
            elif private and found.st_mode & 0o077:
                problem = f"its mode is {stat.S_IMODE(found.st_mode):03o}, expected 600: others must not read it"
            data = b"" if problem else file.read(_LIMIT + 1)
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


def _unsafe_directory(path: str) -> str:
    """Why somebody else could put another file in the place of this one, or "". Opens nothing."""
    trusted = {0, os.geteuid()}
    directory = os.path.dirname(path)
    while True:
        try:
            found = os.lstat(directory)
        except OSError as error:
            return f"cannot read it: {directory}: {error.strerror}"
        if found.st_uid not in trusted:
            return f"its directory {directory} belongs to user id {found.st_uid}"
        others_write = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
        if stat.S_ISDIR(found.st_mode) and others_write and not (found.st_mode & 0o002 == 0 and found.st_gid == 0):
            return f"its directory {directory} can be written by others (mode {stat.S_IMODE(found.st_mode):03o})"
        if directory in ("/", ""):
            return ""
        directory = os.path.dirname(directory)
