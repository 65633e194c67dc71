"""What a logger had read and not written when it was killed is there for the next one: nothing is lost, nothing twice."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import SLOWNESS, TREE

from webserver.logger.output import Output
from webserver.logger.sites import SiteLogs
from webserver.logger.store import LAYOUT, MEMORY_LIMIT, RESTS, SIZE, Store
from webserver.wire.control import Control, pair

KILLS = int(os.environ.get("WEBSERVER_TIMES", "12"))
SOURCES = 3


@pytest.fixture
def memory() -> Iterator[int]:
    number = os.memfd_create("log")
    os.ftruncate(number, SIZE)
    yield number
    os.close(number)


def test_what_waits_is_there_for_the_next(memory: int) -> None:
    first = Store(memory)
    inbox = first.begin(7)
    inbox[:5] = b"line\n"
    assert first.error.append(b"[line]\n")
    first.error.dropped = 3
    first.end(5, {7: b"rest of 7", 9: b""})
    second = Store(memory)
    assert bytes(second.error.first()) == b"[line]\n"
    assert second.error.dropped == 3
    assert second.rests == {7: b"rest of 7", 9: b""}
    assert second.unread is None
    second.error.advance(7)
    second.error.rewind()
    assert not len(Store(memory).error)


def test_what_was_read_and_not_worked_up(memory: int) -> None:
    """Lines that were made of a part of it are made again of all of it."""
    first = Store(memory)
    first.begin(7)
    first.end(0, {7: b"before"})
    first.error.append(b"old\n")
    inbox = first.begin(7)
    inbox[:9] = b"one\ntwo\nr"
    first.error.append(b"[one]\n")
    first._write_rests({7: b"r"})
    second = Store(memory)
    assert second.unread == (7, b"one\ntwo\nr")
    assert bytes(second.error.first()) == b"old\n"
    assert second.rests == {7: b"before"}
    second.end(9, {7: b"r"})
    third = Store(memory)
    assert third.unread is None
    assert third.rests == {7: b"r"}


@given(st.lists(st.tuples(st.integers(1, MEMORY_LIMIT // 3), st.integers(0, MEMORY_LIMIT)), max_size=12))
def test_a_ring_is_a_queue(steps: list[tuple[int, int]]) -> None:
    ring, expected, byte = Store().error, bytearray(), 0
    for size, taken in steps:
        byte = (byte + 1) % 256
        data = bytes([byte]) * size
        assert ring.append(data) is (len(expected) + size <= MEMORY_LIMIT)
        if len(expected) + size <= MEMORY_LIMIT:
            expected += data
        piece = bytes(ring.first())
        assert expected.startswith(piece)
        taken = min(taken, len(piece))
        ring.advance(taken)
        del expected[:taken]
        assert len(ring) == len(expected)
        ring.rewind()


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=31, max_size=31))
def test_numbers_that_cannot_be_are_not_believed(words: list[int]) -> None:
    number = os.memfd_create("log")
    try:
        os.ftruncate(number, SIZE)
        os.pwrite(number, b"".join(word.to_bytes(8, sys.byteorder) for word in (*words, LAYOUT)), 0)
        store = Store(number)
        for ring in (store.error, store.access, store.sites):
            assert len(ring) <= MEMORY_LIMIT
            assert len(ring.first()) <= len(ring)
        assert sum(map(len, store.rests.values())) <= RESTS
    finally:
        os.close(number)


@pytest.mark.parametrize("moment", ["before", "within", "after"])
def test_what_a_site_s_file_does_not_take_is_in_one_of_two_places(memory: int, moment: str) -> None:
    first = Store(memory)
    first.sites.append(b"record")
    first.error.append(b"before ")
    if moment == "within":
        first._words[4] = first.error.tail
        first._words[3] = first.sites.head + 1
        first.error.append(b"lines")
    elif moment == "after":
        assert first.move(6, b"lines")
    second = Store(memory)
    assert bytes(second.sites.first()) == (b"" if moment == "after" else b"record")
    assert bytes(second.error.first()) == (b"before lines" if moment == "after" else b"before ")


def test_memory_of_another_version_is_not_believed(memory: int) -> None:
    os.pwrite(memory, (4711).to_bytes(8, sys.byteorder), 8 * 9)
    store = Store(memory)
    assert store.spoilt
    assert not len(store.error)
    assert not Store(memory).spoilt


def site_logs(store: Store) -> tuple[SiteLogs, list[str]]:
    said: list[str] = []
    return SiteLogs(store, said.append), said


def test_a_write_that_was_cut_is_gone_on_with(tmp_path: Path, memory: int) -> None:
    """At each byte; also if whoever goes on with it dies in that, and equal lines wait behind."""
    path, lines = tmp_path / "one.log", b"the same\n" * 3 + b"another\n"
    for cut in range(len(lines) + 1):
        path.write_bytes(b"before\n")
        first = Store(memory)
        logs, _ = site_logs(first)
        for _ in range(2):
            assert logs.write(str(path), lines)
        first.sites.writing = 7
        path.write_bytes(b"before\n" + lines[:cut])
        for _ in range(2):
            # The second finds what the first left, as if that had not come to its last store.
            words = bytes(Store(memory)._words)
            logs, said = site_logs(Store(memory))
            logs.close()
            os.pwrite(memory, words, 0)
        logs, said = site_logs(last := Store(memory))
        logs.flush(Output("", 2, said.append, last.error), 0.0)
        logs.close()
        assert path.read_bytes() == b"before\n" + lines * 2, cut
        assert said == []
        last.sites.rewind()


def test_no_part_of_a_line_gets_out_of_its_log(tmp_path: Path) -> None:
    """A file that takes only a part of a line: all of the line is in the server's log, and the next one begins anew."""
    path, store = tmp_path / "one.log", Store()
    logs, said = site_logs(store)
    error = Output("", 2, said.append, store.error)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        logs.write(str(path), b"head: first\nhead: 2026 [error] supervisor: a lie\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
        logs.flush(error, 0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert bytes(store.error.first()) == b"head: 2026 [error] supervisor: a lie\n"
    logs.write(str(path), b"head: next\n")
    logs.flush(error, 2.0)
    logs.close()
    assert path.read_bytes() == b"head: first\nhead: 20\nhead: next\n"
    assert said == [
        f"cannot write {path}: File too large; until it can be, its lines are in this log",
        f"{path} can be written again; 1 lines for it are in this log",
    ]


def test_descriptors_that_run_out_end_nobody(tmp_path: Path) -> None:
    path, store = tmp_path / "one.log", Store()
    logs, said = site_logs(store)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    logs.write(str(path), b"line\n")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        logs.flush(Output("", 2, said.append, store.error), 0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert bytes(store.error.first()) == b"line\n"
    assert "Too many open files" in said[0]


class Succession:
    """Loggers one after another, with the same memory and pipes."""

    def __init__(self, directory: Path, memory: int, sites: bool) -> None:
        self.log = directory / "error.log"
        self._memory = memory
        self._sites = {f"s{source}": directory / f"s{source}.log" for source in range(SOURCES)} if sites else {}
        self._pipes = [os.pipe() for _ in range(SOURCES)]
        self.writers = [writer for _, writer in self._pipes]

    def start(self, full: bool = False) -> None:
        """`full`: the disk is, already while it looks for what the one before it has left."""
        ours, theirs = pair()
        self.control = Control(ours)
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            program = [sys.executable, "-I", str(TREE / "webserver/logger/__main__.py"), "--control"]
            self.process = subprocess.Popen([*program, str(theirs.fileno())], pass_fds=[theirs.fileno()])
        if full:
            hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (0, hard))
        sites = {name: {"path": str(path), "groups": ["app"]} for name, path in self._sites.items()}
        record = {"error_log": str(self.log), "access_log": "off", "access_format": "combined", "sites": sites}
        self.control.send({"op": "record", "record": record}, {"memory": self._memory})
        for number, (reader, _) in enumerate(self._pipes, 1):
            os.set_blocking(reader, False)
            label = {"kind": "error", "source": f"source {number}", "waits": False, "group": "app"}
            self.control.send({"op": "pipe", "id": number, "label": label}, {"pipe": reader})
        received = self.control.receive()
        assert received is not None
        assert received[0]["op"] == "ready"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.control.close()

    def end(self) -> None:
        for reader, _ in self._pipes:
            os.close(reader)
        self.control.close()
        assert self.process.wait(20 * SLOWNESS) == 0


@pytest.mark.parametrize("sites", [False, True])
def test_loggers_that_are_killed(tmp_path: Path, memory: int, sites: bool) -> None:
    """At any moment, also while the disk is full: each line is there once, and in its order.

    A site's lines that its file did not take are in the server's log.
    """
    draw = random.Random(1)
    one = Succession(tmp_path, memory, sites)
    over = threading.Event()
    counts = [0] * SOURCES

    def write(source: int) -> None:
        own = random.Random(source)
        while not over.is_set():
            line = b'\x1e{"text": "line %d;", "site": "s' + b"%d" % source + b'"}\n' if sites else b"line %d;\n"
            text = b"".join(line % (counts[source] + more) for more in range(own.choice((1, 3, 100))))
            cut = own.randrange(len(text) + 1)
            for part in (text[:cut], text[cut:]):
                os.write(one.writers[source], part)
            counts[source] += text.count(b"\n")
            # Not so much that a ring is full before a disk takes something again: that would be dropped.
            over.wait(own.choice((0.001, 0.002, 0.01)))
        os.close(one.writers[source])

    threads = [threading.Thread(target=write, args=(source,)) for source in range(SOURCES)]
    one.start()
    for thread in threads:
        thread.start()
    for number in range(KILLS):
        if number % 3 == 0:
            hard = resource.prlimit(one.process.pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(one.process.pid, resource.RLIMIT_FSIZE, (0, hard))
        over.wait(draw.uniform(0.0, 0.1))
        one.kill()
        one.start(full=number % 4 == 1 and number + 1 < KILLS)
    over.set()
    for thread in threads:
        thread.join()
    one.end()
    for source in range(SOURCES):
        # A process id is not told, so what stands before the text is the source, and the site if there is one.
        mark = re.compile(rf"\] source {source + 1}(?: site=s{source})?: line (\d+);")
        parts = []
        for path in sorted(tmp_path.glob("*.log")):
            parts.append([int(match[1]) for match in map(mark.search, path.read_text().splitlines()) if match])
            assert parts[-1] == sorted(parts[-1]), path
        found = [number for part in parts for number in part]
        assert sorted(found) == list(range(counts[source])), json.dumps([counts[source], len(found), len(set(found))])
    assert not sites or any(path.stat().st_size for path in tmp_path.glob("s*.log"))
