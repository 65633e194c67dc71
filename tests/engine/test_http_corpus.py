"""Raw requests as files, each with what must come of it: whole, byte by byte, and cut in two at every tenth byte.

NAME.raw is sent; NAME.expect is lines "key: value":

    status   statuses of the final answers, in order; "400|501": either
    end      close: the server closes after the last answer; open: one more request is answered
    says     the body of each answer, in order (http_server.py says what it has understood)

WEBSERVER_HTTP_ADDRESS=HOST:PORT sends them to a server that runs already; "says" is then not compared.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from http_client import Answer, Stream, start, stop

CORPUS = Path(__file__).resolve().parent.parent / "http"
CASES = sorted(path.stem for path in CORPUS.glob("*.raw"))
PROBE = b"GET /probe HTTP/1.1\r\nHost: probe.example\r\nConnection: close\r\n\r\n"


@dataclass
class Expectation:
    statuses: list[set[int]]
    end: str
    says: list[bytes]


def expectation(name: str) -> Expectation:
    statuses: list[set[int]] = []
    end, says = "", []
    for line in (CORPUS / f"{name}.expect").read_text().splitlines():
        key, _, value = line.partition(": ")
        if key == "status":
            statuses = [{int(one) for one in word.split("|")} for word in value.split()]
        elif key == "end":
            end = value
        elif key == "says":
            says.append(value.encode())
        else:
            assert line.startswith("#"), f"{name}.expect: {line}"
    assert statuses, name
    assert end in ("open", "close"), name
    return Expectation(statuses, end, says)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    named = os.environ.get("WEBSERVER_HTTP_ADDRESS")
    if named:
        host, _, port = named.rpartition(":")
        yield host, int(port)
        return
    process, port_number = start({})
    yield "127.0.0.1", port_number
    stop(process)


def check(address: tuple[str, int], name: str, pieces: list[bytes]) -> None:
    expected = expectation(name)
    head = pieces[0].startswith(b"H")
    with socket.create_connection(address, timeout=20) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = Stream(sock)
        stream.send_pieces(pieces)
        answers: list[Answer] = []
        for statuses in expected.statuses:
            answer = stream.answer(head=head)
            assert answer is not None, f"after {[a.status for a in answers]} the connection ended"
            assert answer.status in statuses, answer
            answers.append(answer)
        if expected.says and "WEBSERVER_HTTP_ADDRESS" not in os.environ:
            assert [answer.body for answer in answers[: len(expected.says)]] == expected.says
        closing = answers[-1].field("connection") == "close"
        assert closing == (expected.end == "close"), answers[-1]
        if expected.end == "open":
            stream.send(PROBE)
            probe = stream.answer()
            assert probe is not None
            assert probe.status < 500
        assert stream.rest() == b""


@pytest.mark.parametrize("name", CASES)
def test_whole(address: tuple[str, int], name: str) -> None:
    check(address, name, [(CORPUS / f"{name}.raw").read_bytes()])


@pytest.mark.parametrize("name", CASES)
def test_byte_by_byte(address: tuple[str, int], name: str) -> None:
    raw = (CORPUS / f"{name}.raw").read_bytes()
    check(address, name, [raw[i : i + 1] for i in range(len(raw))])


@pytest.mark.parametrize("name", CASES)
def test_in_two(address: tuple[str, int], name: str) -> None:
    raw = (CORPUS / f"{name}.raw").read_bytes()
    step = max(10, len(raw) // 30)
    for cut in range(1, len(raw), step):
        check(address, name, [raw[:cut], raw[cut:]])
