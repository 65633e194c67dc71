"""Follows the error log and the access log, through rotations, and keeps of them what explains something.

A rotated file is read until it has brought nothing for a while, then removed: a run of half an hour must not fill the
small file system that the logs lie on.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO

REASONS = ("max_requests", "max_age", "idle_after")
LOOK = 0.05  # seconds
LAST_BYTES = 4.0  # seconds without a byte after which a rotated file is at its end
KEPT = 20_000  # other lines, for showing what was said near something wrong

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \[(\w+)\] (.*?): (.*)", re.S)
REQUEST = re.compile(r"request=([0-9a-f]{16})")
MORE = re.compile(r"\d+ more like this: (.*?) \(requests ([0-9a-f ]+)\)$")
LOST = re.compile(r"(\d+) lines of this log were dropped|(\d+) lines were dropped|(\d+) lines of the supervisor were")
ENDS = re.compile(r"worker \d+ of group (\w+) \(process \d+\) (?:is replaced|ends): (.*)")
QUERY_ID = re.compile(r"[?&]id=([a-z0-9.]+)")


@dataclass(frozen=True)
class Said:
    """A line that is about one request."""

    request: str
    source: str  # "front end 0 1234 site=all"
    text: str
    at: float  # when it was read


@dataclass
class Record:
    """An access log's record of a request that did not go well, or was not whole."""

    request: str
    status: int
    complete: bool


@dataclass
class _File:
    path: Path
    stream: BinaryIO
    inode: int
    kind: str
    rest: bytes = b""
    moved: float = field(default_factory=time.monotonic)  # when it last brought something


class LogReader:
    def __init__(self, error_log: Path, access_log: Path, copy: Path) -> None:
        """`copy`: where all lines of the error log are kept, whatever is rotated."""
        self._copy_path = copy
        self._copy: TextIO | None = None
        self._paths = {"error": error_log, "access": access_log}
        self._files: list[_File] = []
        self._end = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="logs")
        self.said: dict[str, list[Said]] = {}  # by request
        self.records: dict[str, list[Record]] = {}  # by the client's id
        self.lines: deque[tuple[float, str]] = deque(maxlen=KEPT)
        self.lost = 0  # lines that the server says it has dropped
        self.records_seen = 0
        self.ends: Counter[tuple[str, str]] = Counter()  # of workers that were told to go: group, and why in a word

    def start(self) -> None:
        self._copy = open(self._copy_path, "w", encoding="utf-8")  # noqa: SIM115  # closed in _run
        self._thread.start()

    def finish(self) -> None:
        """Read what is there now to its end."""
        self._end.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def near(self, at: float, before: float = 2.0, after: float = 2.0) -> list[str]:
        return [line for when, line in self.lines if at - before <= when <= at + after]

    def _run(self) -> None:
        try:
            while not self._end.wait(LOOK):
                self._look()
            self._look()
        except BaseException as error:  # raised again by finish()
            self._failure = error
        finally:
            for file in self._files:
                file.stream.close()
            if self._copy is not None:
                self._copy.close()

    def _look(self) -> None:
        current = {}
        for kind, path in self._paths.items():
            try:
                current[kind] = path.stat().st_ino
            except FileNotFoundError:
                continue
            if all(file.inode != current[kind] for file in self._files):
                stream = open(path, "rb", buffering=0)  # noqa: SIM115  # closed in _run, or when it has ended
                self._files.append(_File(path, stream, os.fstat(stream.fileno()).st_ino, kind))
        for file in list(self._files):
            self._read(file)
            # While the name is missing the logger has not opened it again, and writes where it did.
            rotated = file.kind in current and file.inode != current[file.kind]
            if rotated and time.monotonic() - file.moved > LAST_BYTES:
                self._forget(file)

    def _read(self, file: _File) -> None:
        while data := file.stream.read(1 << 20):
            file.moved = time.monotonic()
            lines = (file.rest + data).split(b"\n")
            file.rest = lines.pop()
            for line in lines:
                text = line.decode("utf-8", "replace")
                if file.kind == "error":
                    self._error(text)
                else:
                    self._access(text)

    def _forget(self, file: _File) -> None:
        file.stream.close()
        self._files.remove(file)
        for path in file.path.parent.glob(file.path.name + ".*"):
            if path.stat().st_ino == file.inode:
                path.unlink()

    def _error(self, line: str) -> None:
        now = time.time()
        self.lines.append((now, line))
        if self._copy is not None:
            self._copy.write(f"{now:.3f} {line}\n")
        match = LINE.fullmatch(line)
        if match is None:
            return
        _, source, text = match.groups()
        if found := ENDS.fullmatch(text):
            self.ends[found[1], next((one for one in REASONS if one in found[2]), "")] += 1
        if found := LOST.search(text):
            self.lost += int(next(number for number in found.groups() if number))
        if found := REQUEST.search(source):
            self._note(found[1], source, text, now)
        elif found := MORE.match(text):
            for request in found[2].split():
                self._note(request, source, found[1], now)

    def _note(self, request: str, source: str, text: str, now: float) -> None:
        self.said.setdefault(request, []).append(Said(request, source, text, now))

    def _access(self, line: str) -> None:
        self.records_seen += 1
        # Nearly all are good, and are not looked at further.
        if '"complete":true' in line and '"status":2' in line:
            return
        try:
            record = json.loads(line)
        except ValueError:
            return
        if found := QUERY_ID.search(record["request"]):
            entry = Record(record["id"], record["status"], record["complete"])
            self.records.setdefault(found[1], []).append(entry)
