"""The access log and the error log: what a record says, that nobody can forge one, and what happens when nobody reads."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from static_host import WAIT_SECONDS, EngineHost, records
from webserver.engine._engine import lib

COMBINED = re.compile(
    r"^(?P<remote>\S+) - - \[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "
    r'"(?P<request>(?:[^"\\]|\\x[0-9a-f]{2})*)" (?P<status>\d{3}|-) (?P<bytes>\d+) '
    r'"(?P<referer>(?:[^"\\]|\\x[0-9a-f]{2})*)" "(?P<agent>(?:[^"\\]|\\x[0-9a-f]{2})*)"$'
)
Make = Callable[..., "Logged"]


class Logged:
    """An engine and the reading end of its access log."""

    def __init__(self, root: Path, json_log: bool) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.write_fd, False)
        self.host = EngineHost(self.decide, self.write_fd, json_log)
        self.host.root(1, root)

    @staticmethod
    def decide(method: bytes, host: bytes, path: bytes) -> dict[str, Any]:
        return {"scope": lib.SCOPE_PREFIX, "prefix": b"/", "choices": [(lib.CHOICE_FILE, 1, 1)]}

    def end(self) -> str:
        """Stop the engine, which writes what it has, and read the log."""
        self.host.close()
        os.close(self.write_fd)
        self.write_fd = -1
        with open(self.read_fd, closefd=False) as log:
            return log.read()

    def close(self) -> None:
        if self.write_fd >= 0:
            self.host.close()
            os.close(self.write_fd)
        os.close(self.read_fd)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Logged] = []
    (tmp_path / "a.txt").write_bytes(b"0123456789")
    (tmp_path / "big").write_bytes(b"x" * (8 << 20))

    def one(json_log: bool = False) -> Logged:
        made.append(Logged(tmp_path, json_log))
        return made[-1]

    yield one
    for logged in made:
        logged.close()


def test_combined(make: Make) -> None:
    logged = make()
    logged.host.ask("/a.txt?x=1", fields="Referer: http://r/\r\nUser-Agent: me/1.0\r\n")
    logged.host.ask("/none")
    logged.host.ask("/a.txt", "HEAD")
    logged.host.ask("/a.txt", fields="Range: bytes=0-2\r\n")
    found = [COMBINED.match(line) for line in logged.end().splitlines()]
    assert [m and (m["remote"], m["request"], m["status"], m["referer"], m["agent"]) for m in found] == [
        ("127.0.0.1", "GET /a.txt?x=1 HTTP/1.1", "200", "http://r/", "me/1.0"),
        ("127.0.0.1", "GET /none HTTP/1.1", "404", "-", "-"),
        ("127.0.0.1", "HEAD /a.txt HTTP/1.1", "200", "-", "-"),
        ("127.0.0.1", "GET /a.txt HTTP/1.1", "206", "-", "-"),
    ]
    assert [m and m["bytes"] for m in found][::2] == ["10", "0"]
    assert found[3] is not None and found[3]["bytes"] == "3"


def test_json(make: Make) -> None:
    logged = make(json_log=True)
    logged.host.ask("/a.txt", fields='User-Agent: "quoted" \\ \xe9\r\n', host="Name:80")
    (record,) = records(logged.end())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
    assert re.fullmatch("[0-9a-f]{16}", record.pop("id"))
    assert 0 <= record.pop("duration") < 10
    assert record == {
        "remote": "127.0.0.1", "host": "name", "site": "site", "group": "", "request": "GET /a.txt HTTP/1.1",
        "status": 200, "bytes": 10, "referer": "", "user_agent": '"quoted" \\ \ufffd', "complete": True,
    }  # fmt: skip


@pytest.mark.parametrize("json_log", [False, True])
def test_nobody_forges_a_record(make: Make, json_log: bool) -> None:
    logged = make(json_log=json_log)
    agent = '" 200 0 "-" "x\x80\xff \t\\" }'
    logged.host.ask('/a.txt?"x', fields=f"User-Agent: {agent}\r\nReferer: {agent}\r\n")
    (line,) = logged.end().splitlines()
    if json_log:
        assert json.loads(line)["user_agent"] == agent.replace("\x80", "\ufffd").replace("\xff", "\ufffd")
    else:
        found = COMBINED.match(line)
        assert found is not None
        assert found["agent"].encode().decode("unicode_escape") == agent


@pytest.mark.parametrize("json_log", [False, True])
def test_refused_and_cut_off(make: Make, json_log: bool) -> None:
    logged = make(json_log=json_log)
    host = logged.host
    stream = host.connect()
    stream.send(b"nonsense\r\n\r\n")
    answer = stream.answer()
    assert answer is not None and answer.status == 400
    stream = host.connect()
    stream.send(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
    stream.head()
    client = host.clients.pop()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    for _ in range(10):
        if select.select([lib.engine_fd(host.engine)], [], [], 1)[0]:
            lib.engine_run(host.engine, host.events, 64)
        if host.stat("connections") <= 1:
            break
    lines = logged.end().splitlines()
    assert len(lines) == 2
    if json_log:
        first, second = records("\n".join(lines))
        assert (first["status"], second["status"], second["complete"]) == (400, 200, False)
        assert second["bytes"] <= 8 << 20
    else:
        assert all(COMBINED.match(line) for line in lines)
        assert '"nonsense" 400 ' in lines[0]


def test_nobody_reads(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    """The pipe fills, then the buffer: whole records are dropped and counted, requests go on, one line tells."""
    logged = make()
    host = logged.host
    fcntl.fcntl(logged.write_fd, fcntl.F_SETPIPE_SZ, 4096)
    agent = "x" * 8000
    stream = host.connect()
    count = 0
    while host.stat("access_dropped") < 10:
        stream.send(f"GET /a.txt HTTP/1.1\r\nHost: h\r\nUser-Agent: {agent}\r\nReferer: {agent}\r\n\r\n".encode() * 5)
        for _ in range(5):
            answer = stream.answer()
            assert answer is not None and answer.status == 200
        count += 5
        assert count < 1000
    dropped = host.stat("access_dropped")
    text = b""
    while text.count(b"\n") < count - dropped:  # a reader at last: what waited comes as room is made for it
        if select.select([logged.read_fd], [], [], 0)[0]:
            text += os.read(logged.read_fd, 1 << 16)
        else:
            host.drain_turns()
            select.select([logged.read_fd, lib.engine_fd(host.engine)], [], [], WAIT_SECONDS)
    lines = (text.decode() + logged.end()).splitlines()
    assert all(COMBINED.match(line) for line in lines)
    assert len(lines) == count - dropped
    assert capfd.readouterr().err.count("records dropped") == 1


def test_reader_is_gone(make: Make) -> None:
    logged = make()
    reader = os.dup(logged.read_fd)
    os.close(logged.read_fd)
    os.close(reader)
    logged.read_fd = os.open("/dev/null", os.O_RDONLY)
    for _ in range(3):
        assert logged.host.ask("/a.txt").status == 200
    logged.end()


def test_strangers_cannot_fill_the_error_log(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    """Lines of different texts, too: a thousand a second, the rest is counted."""
    logged = make()
    stream = logged.host.connect()
    for number in range(0, 5000, 100):
        stream.send(b"".join(b"GET /none%d HTTP/1.1\r\nHost: h\r\n\r\n" % i for i in range(number, number + 100)))
        for _ in range(100):
            answer = stream.answer()
            assert answer is not None and answer.status == 404
    logged.end()
    texts = [json.loads(line[1:])["text"] for line in capfd.readouterr().err.split("\n")[:-1]]
    said = [text for text in texts if text.endswith("no such file")]
    left_out = [int(found[1]) for text in texts if (found := re.match(r"(\d+) more lines about requests", text))]
    assert len(said) + sum(left_out) == 5000
    assert left_out
    assert len(said) <= 1000 * (len(left_out) + 1)


def test_error_lines(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    """Each is RS, an object, a newline; equal ones are said ten times, then counted."""
    logged = make()
    logged.host.rule = lambda method, host, path: {"choices": [(lib.CHOICE_INTERNAL, 0, 0, b"/loop")]}
    for _ in range(30):
        assert logged.host.ask("/x").status == 500
    logged.end()
    lines = capfd.readouterr().err.split("\n")
    assert lines.pop() == ""
    assert all(line.startswith("\x1e") for line in lines)
    objects = [json.loads(line[1:]) for line in lines]
    loops = [one for one in objects if "form a loop" in one["text"]]
    assert len(loops) < 30
    assert all(one["level"] in ("error", "warning") for one in loops)
    assert all(re.fullmatch("[0-9a-f]{16}", one["request"]) for one in loops if "more like this" not in one["text"])
    said = sum(int(found[1]) if (found := re.match(r"(\d+) more like this", one["text"])) else 1 for one in loops)
    assert said == 30
