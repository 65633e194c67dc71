"""The logger: lines as data, and the process itself fed through real pipes, with full disks and deaths."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import TREE, wait_until

from webserver.logger.lines import ENTRY_LIMIT, LINE_LIMIT, MARK, Entry, Splitter, formatted
from webserver.logger.output import Output
from webserver.logger.store import MEMORY_LIMIT, Store
from webserver.wire.control import Control, close_all, pair

STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \[(error|warning|notice|stderr)\] ")


def split(*pieces: bytes) -> list[Entry]:
    splitter = Splitter()
    return [entry for piece in pieces for entry in splitter.feed(piece)] + list(splitter.end())


@given(st.binary(max_size=500), st.lists(st.integers(0, 500)))
def test_pieces_make_no_difference(data: bytes, cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(data)]
    assert split(*(data[one:other] for one, other in itertools.pairwise(at))) == split(data)


@given(st.binary(max_size=500))
def test_nothing_gets_out_of_its_line(data: bytes) -> None:
    """Whatever is written, each line of the log has its own prefix and no control character but tab."""
    for entry in split(data):
        text = formatted(entry, "NOW", "group shop", 7)
        assert text.endswith("\n")
        for line in text[:-1].split("\n"):
            assert line.startswith("NOW [")
            assert "] group shop 7" in line
            assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]", line)


def test_an_entry_of_our_own() -> None:
    entry = {"level": "warning", "request": "00ff", "site": "a b:c", "text": "one\ntwo\x1b[0m\n"}
    (found,) = split(b"\x1e" + json.dumps(entry).encode() + b"\n")
    assert formatted(found, "NOW", "front end 0", 0) == (
        "NOW [warning] front end 0 site=a\\x20b\\x3ac request=00ff: one\n"
        "NOW [warning] front end 0 site=a\\x20b\\x3ac request=00ff: two\\x1b[0m\n"
    )
    (lost,) = split(b'\x1e{"text": "x", "lost": 3, "level": "no such", "site": 7}\n')
    assert lost.level == "error"
    assert "3 entries" in lost.text


@pytest.mark.parametrize("line", [b"\x1e", b"\x1e{", b"\x1e[]", b'\x1e{"text": 1}', b"\x1e" + b"[" * 10000])
def test_what_only_looks_like_an_entry(line: bytes) -> None:
    (found,) = split(line + b"\n")
    assert found.level == "stderr"


@pytest.mark.parametrize("before", [b"while it dies", b"while it dies\n"])
def test_an_entry_behind_what_may_not_have_been_ended(before: bytes) -> None:
    raw, entry = split(before + b'\n\x1e{"level": "error", "text": "crashes"}\n')
    assert (raw.level, raw.text) == ("stderr", "while it dies")
    assert (entry.level, entry.text) == ("error", "crashes")


def test_an_entry_begins_a_line() -> None:
    """What a client has sent, and an application prints, is no entry of ours."""
    (raw,) = split(b'GET /\x1e{"level": "error", "text": "forged"}\n')
    assert raw.level == "stderr"


def test_long_lines_are_split_with_a_mark() -> None:
    found = split(b"a" * (2 * LINE_LIMIT + 5) + b"\n" + b"b\n")
    assert [len(entry.text.removesuffix(MARK)) for entry in found] == [LINE_LIMIT, LINE_LIMIT, 5, 1]
    assert [entry.text.endswith(MARK) for entry in found] == [True, True, False, False]
    splitter = Splitter()
    for _ in range(100):
        list(splitter.feed(b"\x1e" + b"x" * 65536))
        assert len(splitter.rest) <= ENTRY_LIMIT


def test_a_full_disk_keeps_a_bounded_amount_and_says_so() -> None:
    """/dev/full answers every write with ENOSPC."""
    reports: list[str] = []
    output = Output("/dev/full", os.open("/dev/full", os.O_WRONLY), reports.append, Store().error)
    line = b"x" * 999 + b"\n"
    for _ in range(MEMORY_LIMIT // 1000 + 500):
        output.write(line, 1)
        output.make_room(0.0)
    assert len(output.ring) <= MEMORY_LIMIT
    assert reports == ["cannot write /dev/full: No space left on device"]
    room = os.memfd_create("log")
    os.dup2(room, output._descriptor)
    output.flush(0.5)
    assert os.fstat(room).st_size == 0, "it was tried again too soon"
    output.flush(1.0)
    assert 0 < os.fstat(room).st_size <= MEMORY_LIMIT
    assert re.fullmatch(r"/dev/full can be written again; \d+ lines were dropped", reports[1])
    os.close(room)
    output.close(1.0)


class Process:
    """A logger, and the test in the supervisor's place."""

    def __init__(self, directory: Path, error_log: str = "", access_log: str = "") -> None:
        self.directory = directory
        self.errors = Path(error_log or directory / "error.log")
        self.accesses = Path(access_log or directory / "access.log")
        ours, theirs = pair()
        self.control = Control(ours)
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            program = [sys.executable, "-I", str(TREE / "webserver/logger/__main__.py"), "--control"]
            self.process = subprocess.Popen(
                [*program, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        self.use(str(self.errors), str(self.accesses))
        self._next = 0

    def use(self, error_log: str, access_log: str) -> None:
        record = {"error_log": error_log, "access_log": access_log, "access_format": "combined", "sites": {}}
        self.control.send({"op": "record", "record": record})

    def answer(self) -> dict[str, object]:
        received = self.control.receive()
        assert received is not None
        return received[0]

    def pipe(self, kind: str = "error", source: str = "group shop", pid: int = 0, waits: bool = False) -> int:
        """The writing end of a new pipe."""
        reader, writer = os.pipe()
        self._next += 1
        label = {"kind": kind, "source": source, "waits": waits, **({"pid": pid} if pid else {})}
        self.control.send({"op": "pipe", "id": self._next, "label": label}, {"pipe": reader})
        os.close(reader)
        return writer

    def end(self) -> int:
        self.control.close()
        code = self.process.wait(10)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code

    def logged(self, text: str) -> None:
        wait_until(lambda: self.errors.exists() and text in self.errors.read_text(), f"not logged: {text}")


@pytest.fixture
def logger(tmp_path: Path) -> Iterator[Process]:
    one = Process(tmp_path)
    assert one.answer() == {"op": "ready", "notes": []}
    yield one
    if one.process.returncode is None:
        assert one.end() == 0


def test_lines_have_source_and_process(logger: Process) -> None:
    writer = logger.pipe(pid=4711)
    os.write(writer, b"raw \xff\x1b line\nwithout end")
    os.close(writer)
    assert logger.answer() == {"op": "closed", "id": 1}
    logger.logged("without end")
    lines = logger.errors.read_text().splitlines()
    assert all(STAMP.match(line) for line in lines)
    assert [STAMP.sub("", line) for line in lines] == [
        "group shop 4711: raw \\xff\\x1b line",
        "group shop 4711: without end",
    ]


def test_a_process_may_write_before_its_name_is_known(logger: Process) -> None:
    """The first lines of a worker come before its manager has told who it is."""
    quick, nobody = logger.pipe(waits=True), logger.pipe(waits=True)
    os.write(quick, b"first words\n")
    os.write(nobody, b"of nobody\n")
    logger.control.send({"op": "name", "id": 1, "pid": 4711})
    logger.logged("group shop 4711: first words")
    # Nobody ever names the other: it is not lost for that.
    logger.logged("group shop: of nobody")
    for writer in (quick, nobody):
        os.close(writer)


def test_access_lines_are_written_as_they_are_and_whole(logger: Process) -> None:
    first, second = logger.pipe("access", "front end 0"), logger.pipe("access", "front end 1")
    for number in range(50):
        os.write(first, b"first %d\nfirs" % number)
        os.write(second, b"second %d\n" % number)
        os.write(first, b"t again\n")
    os.write(first, b"no end")
    close_all([first, second])
    assert {logger.answer()["id"], logger.answer()["id"]} == {1, 2}
    wait_until(lambda: logger.accesses.read_bytes().count(b"\n") == 151, "lines are missing")
    lines = logger.accesses.read_text().splitlines()
    assert [line for line in lines if line.startswith("second")] == [f"second {number}" for number in range(50)]
    assert lines.count("first again") == 50
    assert lines.count("no end") == 1


def test_a_loud_group_does_not_silence_others(logger: Process) -> None:
    loud, quiet = logger.pipe(source="group loud"), logger.pipe(source="group quiet")
    os.set_blocking(loud, False)
    os.write(quiet, b"heard\n")
    seen = False
    for _ in range(20000):
        try:
            os.write(loud, b"x" * 4000 + b"\n")
        except BlockingIOError:
            seen = logger.errors.exists() and "heard" in logger.errors.read_text()
            if seen:
                break
    close_all([loud, quiet])
    assert seen
    logger.answer()
    logger.answer()


def test_rotation_loses_nothing(logger: Process) -> None:
    writer = logger.pipe()
    total = 0
    for turn in range(5):
        for _ in range(100):
            os.write(writer, b"line %d\n" % total)
            total += 1
        logger.errors.rename(logger.directory / f"error.log.{turn}")
        logger.control.send({"op": "reopen"})
        wait_until(logger.errors.exists, "not opened again")
    os.close(writer)
    logger.answer()
    wait_until(lambda: _count(logger) == total, "lines are lost")


def _count(logger: Process) -> int:
    return sum(path.read_text().count("line ") for path in logger.directory.glob("error.log*"))


def test_a_file_that_cannot_be_opened(logger: Process) -> None:
    writer = logger.pipe()
    logger.use(str(logger.directory / "missing" / "error.log"), "off")
    answer = logger.answer()
    assert answer["op"] == "failed"
    assert "missing/error.log: No such file or directory" in str(answer["message"])
    os.write(writer, b"the old file is used\n")
    logger.logged("the old file is used")
    os.close(writer)


def test_no_link_is_followed(tmp_path: Path) -> None:
    """The directory belongs to the logger's user; a link in it must not lead the logger elsewhere."""
    (tmp_path / "error.log").symlink_to(tmp_path / "elsewhere")
    one = Process(tmp_path)
    assert one.answer()["op"] == "failed"
    assert not (tmp_path / "elsewhere").exists()
    # It is tried again when the administrator has put it right and says so.
    (tmp_path / "error.log").unlink()
    one.control.send({"op": "reopen"})
    assert one.answer()["op"] == "ready"
    assert one.end() == 0


@pytest.mark.parametrize("way", ["drain", "death", "signal"])
def test_everything_is_read_to_its_end(logger: Process, way: str) -> None:
    writers = [logger.pipe(source=f"group {number}") for number in range(20)]
    for number, writer in enumerate(writers):
        os.write(writer, b"last words of %d\n" % number * 100)
    close_all(writers)
    if way == "drain":
        logger.control.send({"op": "drain"})
    elif way == "signal":
        logger.process.send_signal(signal.SIGTERM)
    if way == "signal":
        # TERM may be faster than the packets before it; those that it has were read.
        assert logger.end() == 0
        return
    assert logger.end() == 0
    assert logger.errors.read_text().count("last words of") == 2000


def test_a_pipe_that_stays_open_does_not_keep_it(logger: Process) -> None:
    writer = logger.pipe()
    os.write(writer, b"held by a stray process")
    logger.control.send({"op": "drain"})
    assert logger.end() == 0
    assert "held by a stray process" in logger.errors.read_text()
    os.close(writer)


def test_standard_streams(tmp_path: Path) -> None:
    one = Process(tmp_path, "stderr", "stdout")
    assert one.answer()["op"] == "ready"
    errors, accesses = one.pipe(), one.pipe("access")
    os.write(errors, b"to standard error\n")
    os.write(accesses, b"to standard output\n")
    close_all([errors, accesses])
    one.control.close()
    out, err = one.process.communicate(timeout=10)
    assert out == b"to standard output\n"
    assert err.endswith(b"group shop: to standard error\n")


def test_a_reader_of_standard_error_that_stops_stops_nobody(tmp_path: Path) -> None:
    one = Process(tmp_path, "stderr", str(tmp_path / "access.log"))
    one.accesses = tmp_path / "access.log"
    assert one.answer()["op"] == "ready"
    loud, accesses = one.pipe(), one.pipe("access")
    for _ in range(400):
        os.write(loud, b"y" * 1000 + b"\n")
    os.write(accesses, b"still written\n")
    wait_until(lambda: one.accesses.exists() and one.accesses.read_bytes() == b"still written\n", "it waits for stderr")
    close_all([loud, accesses])
    one.control.close()
    _, err = one.process.communicate(timeout=10)
    assert err.count(b"y" * 1000) > 10
