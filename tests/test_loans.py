"""Pieces of answers in memory that workers lend to front ends: whose turn it is, and what there is when nobody's is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from channel.frontend import Frame, Group, bare, credit, lib, request_block
from serving import directory, wait_until

from webserver.wire.page import LOAN, LOANS, LOANS_HEAD

TOTAL = 64 * 65536

APPLICATION = """
import os, sys
PIECE = 65536

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    if environ["PATH_INFO"] == "/fork":
        return forks()
    if environ["PATH_INFO"] == "/file":
        return beside_a_file(environ)
    return (bytes([number]) * PIECE for number in range(64))

def forks():
    yield b"a" * PIECE
    yield b"b" * 20000
    pid = os.fork()
    if pid == 0:
        yield b"the child's" * 4000
        os._exit(0)
    os.waitpid(pid, 0)
    yield b"c" * PIECE

def beside_a_file(environ):
    yield b"a" * PIECE
    yield b"b" * 30000
    yield b"c" * 5
"""


@pytest.fixture
def group() -> Iterator[Group]:
    with directory() as place:
        (place / "app.wsgi").write_text(APPLICATION)
        one = Group(place, "python", settings=(("application", str(place / "app.wsgi")),))
        try:
            yield one
        finally:
            one.stop()


def stream(group: Group, slots: dict[int, Any], path: str = "/", room: int = 64 << 20) -> Iterator[Frame]:
    """The frames of an answer that has all the credit it can want, or so much."""
    serial = group.next_serial()
    group.send(slots[0], request_block(serial, 0, path))
    while True:
        frame = group.receive()
        if frame.kind == lib.WIRE_RESPONSE and room > lib.WIRE_RESPONSE_WINDOW:
            group.send(frame.identity, credit(frame.serial, room))
        yield frame
        if frame.kind == lib.WIRE_ABORT or frame.flags & lib.WIRE_LAST:
            return


def whole(frames: list[Frame]) -> bytes:
    return b"".join(frame.body for frame in frames if frame.kind in (lib.WIRE_RESPONSE, lib.WIRE_BODY))


def numbered() -> bytes:
    return b"".join(bytes([number]) * 65536 for number in range(64))


def words(group: Group) -> list[int]:
    memory = os.pread(group.loans[1], 4 * LOANS, LOANS_HEAD)
    return [int.from_bytes(memory[at : at + 4], "little") for at in range(0, len(memory), 4)]


def test_a_stream_lies_in_loans(group: Group) -> None:
    slots = group.start()
    frames = list(stream(group, slots))
    assert whole(frames) == numbered()
    lent = [frame for frame in frames if frame.lent is not None]
    assert len(lent) > 10
    assert all(len(frame.data) < 100 for frame in lent)
    assert not any(words(group))


def test_what_is_not_given_back_is_not_waited_for(group: Group) -> None:
    slots = group.start()
    group.keeps = True
    frames = list(stream(group, slots))
    assert whole(frames) == numbered()
    assert len({frame.of("wire_body").data.at for frame in frames if frame.lent is not None}) == LOANS
    assert sum(frame.lent is not None for frame in frames) == LOANS
    assert words(group) == [1] * LOANS
    # None is free for the next request either, which is answered all the same.
    again = list(stream(group, slots))
    assert whole(again) == numbered()
    assert not any(frame.lent for frame in again)
    # One that comes back is used again, and no other.
    os.pwrite(group.loans[1], bytes(4), LOANS_HEAD + 4 * 3)
    group.keeps = False
    last = list(stream(group, slots))
    assert whole(last) == numbered()
    assert {frame.of("wire_body").data.at for frame in last if frame.lent is not None} == {3}


def test_what_a_front_end_had_comes_back_with_its_end(group: Group) -> None:
    slots = group.start()
    group.keeps = True
    assert whole(list(stream(group, slots))) == numbered()
    assert words(group) == [1] * LOANS
    group.socket.close(0)
    group.incarnation = 2
    os.unlink(group.path)
    group.socket, group.path = group.bind()
    group.order("frontends", frontends=[{"ordinal": 0, "incarnation": 2, "path": group.path}])
    assert {group.receive().identity.role for _ in range(2)} == {lib.WIRE_ROLE_SLOT, lib.WIRE_ROLE_KEEPER}
    group.keeps = False
    frames = list(stream(group, slots))
    assert whole(frames) == numbered()
    assert any(frame.lent for frame in frames)
    assert not any(words(group))


def test_credit_bounds_what_is_lent(group: Group) -> None:
    slots = group.start()
    serial = group.next_serial()
    group.send(slots[0], request_block(serial, 0))
    got = 0
    while not group.quiet():
        got += len(group.receive().body)
    assert 0 < got <= lib.WIRE_RESPONSE_WINDOW
    group.send(slots[0], bare(lib.WIRE_CANCEL, serial))
    group.send(slots[-1], bare(lib.WIRE_CANCEL, serial))
    wait_until(lambda: group.page(1).slot[0].running == 0, "it still runs")


def test_a_child_of_the_application_writes_nothing_of_its_parent_s(group: Group) -> None:
    slots = group.start()
    assert whole(list(stream(group, slots, "/fork"))) == b"a" * 65536 + b"b" * 20000 + b"c" * 65536


def test_small_pieces_go_in_their_messages(group: Group) -> None:
    slots = group.start()
    frames = list(stream(group, slots, "/file"))
    assert whole(frames) == b"a" * 65536 + b"b" * 30000 + b"c" * 5
    assert [len(frame.lent) for frame in frames if frame.lent is not None] == [30000]
    assert LOAN > 30000
