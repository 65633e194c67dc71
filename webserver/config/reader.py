"""Files to blocks: which texts stand where, before anyone asks what they mean.

Owns opening and including files, the shape of sections, and the place of every entry. It knows the sections' names and
that a file in groups-enabled/, companions-enabled/ or sites-enabled/ is one group, companion or site named after the
file; it knows no option but `include`.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from typing import Any

from configobj import ConfigObj, ConfigObjError

from webserver.config import lines
from webserver.config.errors import ConfigError, Place, suggestion
from webserver.config.kinds import NAME
from webserver.config.trusted import open_file

FILE_SIZE = 16 << 20  # a configuration file is text made by people; this is somebody's disk image
SECTIONS = ("server", "logs", "groups", "companions", "sites")
NAMED = {name: f"{name}-enabled" for name in SECTIONS[2:]}  # section: directory whose files hold one each


@dataclass(frozen=True)
class Entry:
    value: str | list[str]
    place: Place
    base: str  # what a relative path starts at

    def items(self) -> list[str]:
        """The entry as a list. A text of several lines (in triple quotes) has its items on lines or between commas."""
        if isinstance(self.value, list):
            return self.value
        if "\n" in self.value:
            return list(filter(None, (item.strip() for item in self.value.replace("\n", ",").split(","))))
        return [self.value]


@dataclass
class Block:
    """A section's content. The parts of [server] and [logs] may come from several files."""

    title: str  # for messages: "[groups] shop"
    place: Place
    base: str
    entries: dict[str, Entry] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)


@dataclass
class Document:
    server: Block
    logs: Block
    groups: dict[str, Block] = field(default_factory=dict)
    companions: dict[str, Block] = field(default_factory=dict)
    sites: dict[str, Block] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)  # in reading order
    taken: list[str] = field(default_factory=list)  # files that were read, directories that were searched for them
    errors: list[ConfigError] = field(default_factory=list)
    whole: bool = True  # False: a file could not be read, so what seems to be missing may be in it

    def error(self, place: Place, subject: str, problem: str, advice: str = "") -> None:
        self.errors.append(ConfigError(place, subject, problem, advice))

    def sorted_errors(self) -> list[ConfigError]:
        order = self.files
        return sorted(dict.fromkeys(self.errors), key=lambda e: (order.get(e.place.file, len(order)), e.place.line))


def read(path: str, named: bool = True) -> Document:
    """A configuration file and all that it includes. What is wrong is in the document's errors.

    `named`: also those that hold one group, companion or site each; without them it is fast, however many there are.
    """
    path = os.path.abspath(path)
    place, base = Place(path, 0), os.path.dirname(path)
    document = Document(Block("[server]", place, base), Block("[logs]", place, base))
    _read_file(document, path, Place("", 0), {}, named)
    return document


def nothing_read(document: Document) -> bool:
    """The one file there is could not be read: what else seems to be missing may be in it."""
    return not document.whole and len(document.files) == 1


def _read_file(document: Document, path: str, asked: Place, seen: dict[str, Place], named: bool) -> None:
    kind = next((k for k, directory in NAMED.items() if os.path.basename(os.path.dirname(path)) == directory), "")
    if asked.file and kind and not named:
        return
    real = os.path.realpath(path)
    if real in seen:
        document.error(asked, "include", f"{path} is read a second time, the first was asked for in {seen[real]}")
        return
    seen[real] = asked if asked.file else Place(path, 0)
    document.files[path] = len(document.files)
    text = _text(document, path, asked)
    tree = _tree(document, path, text) if text is not None else None
    if tree is None:
        document.whole = False
    elif asked.file and kind:
        _add_named(document, kind, os.path.basename(path).removesuffix(".conf"), tree, Place(path, 0))
    else:
        for place, found in _add_sections(document, tree):
            _read_file(document, found, place, seen, named)


def _text(document: Document, path: str, asked: Place) -> str | None:
    try:
        with open(open_file(path), "rb") as file:
            document.taken.append(path)
            data = file.read(FILE_SIZE + 1)
    except OSError as error:
        document.error(asked if asked.file else Place(path, 0), "include" if asked.file else "",
                       f"cannot read {path}: {error.strerror}")  # fmt: skip
        return None
    if len(data) > FILE_SIZE:
        document.error(Place(path, 0), "", f"the file is larger than {FILE_SIZE >> 20} MB")
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        document.error(Place(path, line), "", f"found byte 0x{data[error.start]:02x}, expected text in UTF-8")
        return None


def _tree(document: Document, path: str, text: str) -> Block | None:
    """A file's sections as blocks; None if its nesting cannot be trusted."""
    rows = [line.rstrip("\r") for line in text.split("\n")]
    index = lines.scan(rows)
    for number, problem in index.problems:
        document.error(Place(path, number), "", problem)
    if not index.sound:
        return None
    try:
        parsed = ConfigObj(rows, interpolation=False, list_values=True)
    except ConfigObjError as error:
        reported = {number for number, _ in index.problems}
        for problem in error.errors:
            if problem.line_number not in reported:
                found = rows[problem.line_number - 1].partition("=")[2].strip()
                document.error(Place(path, problem.line_number), "", f"found {found}, which is not a value or list",
                               'a text with a comma, # or quote in it is put in quotes')  # fmt: skip
        parsed = error.config
    return _block(document, parsed, (), index, rows, path)


def _block(document: Document, section: Any, at: lines.Path, index: lines.Index, rows: list[str], path: str) -> Block:
    title = " ".join([f"[{at[0]}]", *at[1:2], *(f"[{name}]" for name in at[2:])]) if at else ""
    base = os.path.dirname(path)
    block = Block(title, Place(path, index.sections.get(at, 0)), base)
    for name in section.scalars:
        place = Place(path, index.keys.get((*at, name), 0))
        row, comment = rows[place.line - 1], section.inline_comments.get(name)
        if comment and row.endswith(comment) and not row[: -len(comment)][-1:].isspace():
            document.error(place, f"{title}: {name}" if title else name, "a comment begins inside the value",
                           "put a space before the #, or the value in quotes")  # fmt: skip
        value = section[name]
        block.entries[name] = Entry([*map(str, value)] if isinstance(value, list) else str(value), place, base)
    for name in section.sections:
        block.blocks[name] = _block(document, section[name], (*at, name), index, rows, path)
    return block


def _add_sections(document: Document, tree: Block) -> list[tuple[Place, str]]:
    """Add a file's sections; returns the files that it includes."""
    files: list[tuple[Place, str]] = []
    for name, entry in tree.entries.items():
        if name == "include":
            files += _included(document, entry)
            _remember_include(document, entry)
        else:
            document.error(entry.place, name, "found an option before the first section",
                           "options stand in [server], [logs], [groups], [companions] or [sites]")  # fmt: skip
    for name, block in tree.blocks.items():
        if name in ("server", "logs"):
            into = document.server if name == "server" else document.logs
            _merge(document, into, block)
            if "include" in block.entries and name == "server":
                files += _included(document, block.entries["include"])
                _remember_include(document, block.entries["include"])
        elif name in NAMED:
            for option, entry in block.entries.items():
                document.error(entry.place, f"[{name}]", f'found the option "{option}", expected [[NAME]] before it')
            for inner in block.blocks:
                _add_named(document, name, inner, block.blocks[inner], block.blocks[inner].place)
        else:
            document.error(block.place, "", f"found section [{name}], expected one of "
                           + ", ".join(f"[{known}]" for known in SECTIONS), suggestion(name, SECTIONS))  # fmt: skip
    return files


def _merge(document: Document, into: Block, block: Block) -> None:
    if not into.place.line:
        into.place, into.base = block.place, block.base
    for name, entry in block.entries.items():
        if name == "include" and into is document.server:
            continue  # any number of files may have one
        if name in into.entries:
            document.error(entry.place, f"{block.title}: {name}", f"is given already in {into.entries[name].place}")
        else:
            into.entries[name] = entry
    into.blocks.update(block.blocks)


def _add_named(document: Document, kind: str, name: str, block: Block, place: Place) -> None:
    noun = kind[:-1]
    if NAME.fullmatch(name) is None:
        document.error(place, f"[{kind}]", f'found the name "{name}", expected at most 63 of a-z A-Z 0-9 . _ -,'
                       " not beginning with . or -")  # fmt: skip
    known: dict[str, Block] = getattr(document, kind)
    if name in known:
        document.error(place, f"[{kind}] {name}", f"there is another {noun} of this name in {known[name].place}")
        return
    block.title, block.place = f"[{kind}] {name}", place
    for inner in block.blocks:
        block.blocks[inner].title = f"{block.title} [{inner}]"
    known[name] = block


def _remember_include(document: Document, entry: Entry) -> None:
    first = document.server.entries.get("include", Entry([], entry.place, entry.base))
    patterns = first.items() + [item for item in entry.items() if item not in first.items()]
    document.server.entries["include"] = Entry(patterns, first.place, first.base)


def _included(document: Document, entry: Entry) -> list[tuple[Place, str]]:
    found: list[tuple[Place, str]] = []
    for pattern in entry.items():
        path = os.path.normpath(os.path.join(entry.base, pattern))
        if glob.has_magic(pattern):
            # Relative to the file: its directory's own name may hold a bracket.
            names = sorted(glob.glob(pattern, root_dir=entry.base))
            document.taken.append(os.path.dirname(path))
            found += [(entry.place, os.path.normpath(os.path.join(entry.base, name))) for name in names]
        elif not pattern or not os.path.exists(path):
            document.error(entry.place, "include", f"{path if pattern else 'an empty pattern'} does not exist",
                           "a pattern with * or ? may match nothing")  # fmt: skip
        else:
            found.append((entry.place, path))
    return found
