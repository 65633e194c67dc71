"""What a logger had read and not written when it was killed is there for the next one: nothing is lost, nothing twice."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import SLOWNESS, TREE, wait_until

from webserver.logger.store import MEMORY_LIMIT, RESTS, SIZE, Store
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


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=16, max_size=16))
def test_numbers_that_cannot_be_are_not_believed(words: list[int]) -> None:
    number = os.memfd_create("log")
    try:
        os.ftruncate(number, SIZE)
        os.pwrite(number, b"".join(word.to_bytes(8, sys.byteorder) for word in words), 0)
        store = Store(number)
        for ring in (store.error, store.access):
            assert len(ring) <= MEMORY_LIMIT
            assert len(ring.first()) <= len(ring)
        assert sum(map(len, store.rests.values())) <= RESTS
    finally:
        os.close(number)


class Succession:
    """Loggers one after another, with the same memory and pipes."""

    def __init__(self, directory: Path, memory: int) -> None:
        self.log = directory / "error.log"
        self._memory = memory
        self._pipes = [os.pipe() for _ in range(SOURCES)]
        self.writers = [writer for _, writer in self._pipes]

    def start(self) -> None:
        ours, theirs = pair()
        self.control = Control(ours)
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            program = [sys.executable, "-I", str(TREE / "webserver/logger/__main__.py"), "--control"]
            self.process = subprocess.Popen([*program, str(theirs.fileno())], pass_fds=[theirs.fileno()])
        record = {"error_log": str(self.log), "access_log": "off", "access_format": "combined"}
        self.control.send({"op": "record", "record": record}, {"memory": self._memory})
        for number, (reader, _) in enumerate(self._pipes, 1):
            os.set_blocking(reader, False)
            label = {"kind": "error", "source": f"source {number}", "waits": False}
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


def test_loggers_that_are_killed(tmp_path: Path, memory: int) -> None:
    """At any moment, also while the disk is full: each line is there once, and in its order."""
    draw = random.Random(1)
    one = Succession(tmp_path, memory)
    over = threading.Event()
    counts = [0] * SOURCES

    def write(source: int) -> None:
        own = random.Random(source)
        while not over.is_set():
            text = b"".join(b"line %d;\n" % (counts[source] + more) for more in range(own.choice((1, 3, 400))))
            cut = own.randrange(len(text) + 1)
            for part in (text[:cut], text[cut:]):
                os.write(one.writers[source], part)
            counts[source] += text.count(b"\n")
            over.wait(own.choice((0.0, 0.001, 0.01)))
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
        one.start()
    over.set()
    for thread in threads:
        thread.join()
    one.end()
    wait_until(lambda: one.log.exists(), "there is no log")
    lines = one.log.read_text().splitlines()
    for source in range(SOURCES):
        mark = f"[stderr] source {source + 1}: line "
        found = [int(line.partition(mark)[2].rstrip(";")) for line in lines if mark in line]
        assert found == list(range(counts[source])), json.dumps([counts[source], len(found), len(set(found))])
