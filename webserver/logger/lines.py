"""Bytes from a pipe into lines, and lines into log entries. Pure: no descriptors, no clock.

Which group or process a line comes from is known by its pipe, never by its text. A line that begins with 0x1e is an
entry of the worker host or of a front end, as JSON; anything else is what some program wrote to its standard error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

RECORD = b"\x1e"
LINE_LIMIT = 16 * 1024  # bytes of a raw line; a longer one is split with a mark
ENTRY_LIMIT = 512 * 1024  # bytes of an entry: what a worker logs at once at most, each byte escaped
MARK = " [continued]"
LEVELS = ("error", "warning", "notice")

# Control characters could forge lines or play with a terminal: C0 but tab, DEL, C1; and what some take for line ends.
_ESCAPES = {number: f"\\x{number:02x}" for number in (*range(9), *range(10, 32), *range(127, 160))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
_WORD_LIMIT = 256  # letters of a site's name or request's id


@dataclass(frozen=True)
class Entry:
    """One entry; `text` may hold newlines."""

    level: str  # "stderr" for raw lines
    text: str
    site: str = ""
    request: str = ""


class Splitter:
    """Lines of one pipe. Holds no more than ENTRY_LIMIT bytes, whatever is written into it."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> Iterator[Entry]:
        """Entries that `data` completes."""
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        for number, line in enumerate(lines):
            # An entry that is written in a hurry ends the line before it, whether that was ended or not.
            if line or not (lines[number + 1 :] or [self.rest])[0].startswith(RECORD):
                yield from entries(line)
        limit = ENTRY_LIMIT if self.rest.startswith(RECORD) else LINE_LIMIT
        while len(self.rest) > limit:
            yield from entries(self.rest[:limit], MARK)
            self.rest = self.rest[limit:]

    def part(self, limit: int) -> bytes:
        """Take out what is left, for another splitter to begin with; b"" if it is more than `limit` bytes."""
        if len(self.rest) > limit:
            return b""
        rest, self.rest = self.rest, b""
        return rest

    def end(self) -> Iterator[Entry]:
        """What is left at the end of the pipe."""
        rest, self.rest = self.rest, b""
        if rest:
            yield from entries(rest)


def entries(line: bytes, mark: str = "") -> Iterator[Entry]:
    """The entries of one line: one, or several for a raw line that is too long."""
    if line.startswith(RECORD):
        parsed = _record(line[1:])
        if parsed is not None:
            yield parsed
            return
    for at in range(0, max(1, len(line)), LINE_LIMIT):
        part = line[at : at + LINE_LIMIT]
        more = MARK if at + LINE_LIMIT < len(line) else mark
        yield Entry("stderr", part.decode("utf-8", "backslashreplace") + more)


def _record(data: bytes) -> Entry | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        return None
    text = value["text"]
    lost = value.get("lost")
    if isinstance(lost, int) and lost > 0:
        text = f"({lost} entries before this one were lost)\n{text}"
    level = value.get("level")
    words = [word if isinstance(word, str) else "" for word in (value.get("site"), value.get("request"))]
    return Entry(level if level in LEVELS else "error", text, words[0], words[1])


def formatted(entry: Entry, time: str, source: str, pid: int) -> str:
    """The lines of the log for one entry; each names time, source and process."""
    head = f"{time} [{entry.level}] {source}"
    if pid:
        head += f" {pid}"
    if entry.site:
        head += f" site={_word(entry.site)}"
    if entry.request:
        head += f" request={_word(entry.request)}"
    return "".join(f"{head}: {_clean(line)}\n" for line in entry.text.rstrip("\n").split("\n"))


def _word(text: str) -> str:
    """What stands before the colon must not look like the end of it."""
    return _clean(text[:_WORD_LIMIT]).replace(" ", "\\x20").replace(":", "\\x3a")


def _clean(text: str) -> str:
    return text.translate(_ESCAPES)
