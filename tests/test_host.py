"""The worker's half of the channel: a real manager, a real worker with the echo plugin, this process as front end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from channel.frontend import Group, bare, credit, piece, request_block
from channel.wire import ffi, lib
from serving import directory, wait_until


@pytest.fixture
def place() -> Iterator[Path]:
    with directory() as path:
        yield path


@pytest.fixture
def group(place: Path) -> Iterator[Group]:
    one = Group(place)
    yield one
    one.stop()


def test_hello_answer_and_page(group: Group) -> None:
    slots = group.start()
    serial = group.next_serial()
    head, body = group.answer(slots[0], request_block(serial, 0))
    assert (head.of("wire_response").status, body) == (200, b"hello, world")
    assert head.fields == {"Content-Type": "text/plain"}
    assert head.of("wire_response").content_length == 12
    page = group.page(1)
    assert (page.magic, page.version, page.state, page.slots) == (lib.WIRE_MAGIC, lib.WIRE_VERSION, lib.WIRE_READY, 1)
    assert page.pid == group.pids[1]
    wait_until(lambda: group.page(1).slot[0].requests == 1, "the page does not count the request")
    assert group.page(1).slot[0].started[0] == serial
    assert group.page(1).slot[0].running == 0


def test_probe_is_answered(group: Group) -> None:
    slots = group.start()
    for number in (0, -1):
        group.send(slots[number], bare(lib.WIRE_PROBE))
        assert group.receive().kind == lib.WIRE_ALIVE


def test_variables_are_joined(group: Group) -> None:
    slots = group.start()
    fields = (
        ("Host", "h"),
        ("Cookie", "a=1"),
        ("X-Two", "1"),
        ("Cookie", "b=2"),
        ("x-two", "2"),
        ("Content-Type", "t"),
    )
    _, body = group.answer(slots[0], request_block(group.next_serial(), 0, "/variables", fields=fields))
    lines = dict(line.split(": ", 1) for line in body.decode().splitlines())
    # The double does not number the names that fields.h knows, so each is made as one that is not known.
    assert lines["HTTP_X_TWO"] == "1, 2"
    assert lines["HTTP_COOKIE"] in ("a=1; b=2", "a=1, b=2")


def test_upload_in_pieces_within_the_window(group: Group) -> None:
    slots = group.start()
    content = random.Random(1).randbytes(3 * lib.WIRE_BODY_WINDOW)
    serial = group.next_serial()
    group.send(slots[0], request_block(serial, 0, "/length", "POST", content[:1000], length=len(content)))
    sent, limit = 1000, lib.WIRE_BODY_WINDOW
    while sent < len(content):
        size = min(50000, limit - sent, len(content) - sent)
        if size:
            group.send(slots[0], piece(serial, sent, content[sent : sent + size], sent + size == len(content)))
            sent += size
            continue
        frame = group.receive()
        assert frame.kind == lib.WIRE_CREDIT
        assert frame.of("wire_credit").limit > limit
        limit = frame.of("wire_credit").limit
    frame = group.receive()
    while frame.kind == lib.WIRE_CREDIT:
        frame = group.receive()
    assert frame.body == str(len(content)).encode()


def test_expect_asks_for_the_body_when_it_is_read(group: Group) -> None:
    slots = group.start()
    serial = group.next_serial()
    group.send(slots[0], request_block(serial, 0, "/length", "POST", length=4, flags=lib.WIRE_EXPECT))
    frame = group.receive()
    assert (frame.kind, frame.of("wire_credit").limit) == (lib.WIRE_CREDIT, lib.WIRE_BODY_WINDOW)
    group.send(slots[0], piece(serial, 0, b"four", True))
    assert group.receive().body == b"4"
    # An application that answers first asks for nothing.
    serial = group.next_serial()
    group.send(slots[0], request_block(serial, 0, "/status/403", "POST", length=4, flags=lib.WIRE_EXPECT))
    assert group.receive().of("wire_response").status == 403
    assert group.quiet()


def test_stream_stops_without_credit(group: Group) -> None:
    slots = group.start()
    serial = group.next_serial()
    total = 3 * lib.WIRE_RESPONSE_WINDOW
    group.send(slots[0], request_block(serial, 0, f"/stream/{total}"))
    got = 0
    while not group.quiet(0.3):
        got += len(group.receive().body)
    assert 0 < got <= lib.WIRE_RESPONSE_WINDOW
    assert group.page(1).slot[0].phase == lib.WIRE_WRITING
    group.send(slots[0], credit(serial, total))
    last = False
    while not last:
        frame = group.receive()
        got += len(frame.body)
        last = bool(frame.flags & lib.WIRE_LAST)
    assert got == total


def test_recall(group: Group) -> None:
    """What waits is given back at once, what has begun is not, and what was given back is not run."""
    slots = group.start()
    running, waiting = group.next_serial(), group.next_serial()
    group.send(slots[0], request_block(running, 0, "/sleep/600"))
    group.send(slots[0], request_block(waiting, 0, "/x"))
    wait_until(lambda: group.page(1).slot[0].running == running, "it does not run")
    for serial, flag in ((waiting, lib.WIRE_GIVEN_BACK), (running, lib.WIRE_STARTED)):
        group.send(slots[-1], bare(lib.WIRE_RECALL, serial))
        verdict = group.receive(0.4)
        assert (verdict.kind, verdict.serial, verdict.flags) == (lib.WIRE_VERDICT, serial, flag)
    assert group.receive().serial == running
    assert group.quiet()
    wait_until(lambda: group.page(1).slot[0].started[0] == waiting, "it was not passed over")
    assert group.page(1).slot[0].requests == 1


def test_cancel_of_running_and_waiting(group: Group) -> None:
    slots = group.start()
    running, waiting = group.next_serial(), group.next_serial()
    group.send(slots[0], request_block(running, 0, "/sleep/20000"))
    group.send(slots[0], request_block(waiting, 0, "/x"))
    wait_until(lambda: group.page(1).slot[0].running == running, "it does not run")
    for serial in (waiting, running):
        for to in (slots[0], slots[-1]):
            group.send(to, bare(lib.WIRE_CANCEL, serial))
    frames = [group.receive(5), group.receive(5)]
    assert [(frame.kind, frame.serial) for frame in frames] == [(lib.WIRE_ABORT, running), (lib.WIRE_ABORT, waiting)]
    assert group.page(1).slot[0].requests == 1


def test_short_answer_is_aborted(group: Group) -> None:
    slots = group.start()
    group.send(slots[0], request_block(group.next_serial(), 0, "/short"))
    assert group.receive().kind == lib.WIRE_ABORT
    wait_until(lambda: "ended after 5 of the 100 bytes" in group.log(), "no line in the log")


def test_interim_answer_and_head(group: Group) -> None:
    slots = group.start()
    serial = group.next_serial()
    group.send(slots[0], request_block(serial, 0, "/early"))
    inform = group.receive()
    assert (inform.kind, inform.of("wire_response").status) == (lib.WIRE_INFORM, 103)
    assert group.receive().body == b"early"
    group.send(slots[0], request_block(group.next_serial(), 0, "/", "HEAD", flags=lib.WIRE_HEAD))
    head = group.receive()
    assert (head.body, head.of("wire_response").content_length) == (b"", 12)


def test_orderly_end(group: Group) -> None:
    """Leaving, what is still there is finished, goodbye last, exit 0."""
    slots = group.start()
    serial = group.next_serial()
    group.send(slots[0], request_block(serial, 0, "/sleep/300"))
    wait_until(lambda: group.page(1).slot[0].running == serial, "it does not run")
    group.order("drain")
    late = group.next_serial()
    group.send(slots[0], request_block(late, 0, "/late"))
    kinds = []
    while lib.WIRE_GOODBYE not in kinds:
        frame = group.receive()
        kinds.append(frame.kind)
        if frame.kind == lib.WIRE_LEAVING:
            group.send(slots[0], bare(lib.WIRE_CLOSED))
    assert sorted(kinds[:-1]) == sorted([lib.WIRE_RESPONSE, lib.WIRE_RESPONSE, lib.WIRE_LEAVING])
    gone = group.hear("gone")
    assert (gone["code"], gone["cause"]) == (0, "retired")
    assert group.process.wait(20) == 0


def test_dead_worker_is_named_and_replaced(group: Group) -> None:
    slots = group.start()
    group.send(slots[0], request_block(group.next_serial(), 0, "/crash"))
    gone = group.hear("gone")
    assert (gone["signal"], gone["cause"], gone["loaded"]) == (signal.SIGABRT, "killed by SIGABRT", True)
    assert group.hear("ready")["worker"] == 2
    assert os.path.exists(f"/proc/{group.pids[2]}")


def test_worker_ends_with_its_manager(group: Group) -> None:
    group.start()
    group.process.kill()
    pid = group.pids[1]
    wait_until(lambda: not os.path.exists(f"/proc/{pid}") or is_zombie(pid), "the worker outlives its manager")


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_new_front_end(group: Group) -> None:
    slots = group.start()
    assert group.answer(slots[0], request_block(group.next_serial(), 0))[1] == b"hello, world"
    group.socket.close(0)
    group.incarnation = 2
    os.unlink(group.path)
    group.socket, group.path = group.bind()
    group.order("frontends", frontends=[{"ordinal": 0, "incarnation": 2, "path": group.path}])
    kinds = {group.receive().identity.role for _ in range(2)}
    assert kinds == {lib.WIRE_ROLE_SLOT, lib.WIRE_ROLE_KEEPER}
    assert group.answer(slots[0], request_block(group.next_serial(), 0))[1] == b"hello, world"


def met_first(group: Group, who: Any, incarnation: int) -> bool:
    """Whether a front end that comes is answered before a request that another has sent already."""
    path = f"{group.path}-{incarnation}"
    other = group.context.socket(zmq.ROUTER)
    other.bind(f"ipc://{path}")
    here = {"ordinal": 0, "incarnation": 1, "path": group.path}
    group.order("frontends", frontends=[here, {"ordinal": 1, "incarnation": incarnation, "path": path}])
    try:
        hellos = []
        while len(hellos) < 2:
            assert other.poll(20000)
            hellos.append(other.recv_multipart()[0])
        group.send(who, request_block(group.next_serial(), 0, "/sleep/300"))
        wait_until(lambda: group.page(1).slot[0].queued or group.page(1).slot[0].running, "it does not come")
        for hello in hellos:
            other.send_multipart([hello, bare(lib.WIRE_PROBE)])
        for _ in hellos:
            assert other.poll(20000)
            assert other.recv_multipart()
        first = not group.socket.poll(50)
        assert group.receive().body == b"slept"
    finally:
        other.close(0)
    return first


def test_a_slot_meets_every_front_end_before_it_runs_something(group: Group) -> None:
    """Its thread is the only one that answers, and may be an application's for long. Not if they take their time."""
    slots = group.start()
    group.send(slots[0], bare(lib.WIRE_PROBE))
    assert group.receive().kind == lib.WIRE_ALIVE
    # On a busy machine this process may be what took its time.
    assert any(met_first(group, slots[0], number) for number in range(2, 12))


def test_the_end_waits_for_no_front_end_that_is_gone(group: Group) -> None:
    """Hellos to one that never took the connection are not lingered for."""
    group.start()
    here = {"ordinal": 0, "incarnation": 1, "path": group.path}
    group.order("frontends", frontends=[here, {"ordinal": 1, "incarnation": 2, "path": group.path + "-nobody"}])
    group.order("frontends", frontends=[])
    begun = time.monotonic()
    group.order("drain")
    assert group.hear("gone")["cause"] == "retired"
    assert time.monotonic() - begun < 3


def test_plugin_that_fails_is_reported(place: Path) -> None:
    one = Group(place, settings=(("application", "fail"),))
    try:
        assert "echo: told to fail" in one.hear("failed")["message"]
        assert one.process.wait(20) == 1
    finally:
        one.stop()


def test_threads_are_slots(place: Path) -> None:
    one = Group(place, threads=3)
    try:
        slots = one.start()
        assert set(slots) == {-1, 0, 1, 2}
        for number in range(3):
            one.send(slots[number], request_block(one.next_serial(), number, "/sleep/300"))
        wait_until(lambda: all(one.page(1).slot[n].running for n in range(3)), "they do not run at once")
        assert {one.receive().body for _ in range(3)} == {b"slept"}
    finally:
        one.stop()


def test_malformed_frames_never_end_a_worker(group: Group) -> None:
    """Mutated frames of every kind are dropped and counted; the worker answers the next right one."""
    slots = group.start()
    chance = random.Random(7)
    serial = group.next_serial()
    seeds = [
        request_block(serial, 0, "/x", "POST", b"body", fields=(("Host", "h"), ("Cookie", "a"))),
        bare(lib.WIRE_RECALL, serial),
        bare(lib.WIRE_CANCEL, serial),
        credit(serial, 5),
        piece(serial, 0, b"x", True),
    ]
    for _ in range(3000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 255, chance.randrange(256)))
        if chance.random() < 0.2:
            data = data[: chance.randrange(len(data))]
        group.send(slots[chance.choice((0, -1))], bytes(data))
        while not group.quiet(0):
            group.socket.recv_multipart()
    while not group.quiet(0.3):
        group.socket.recv_multipart()
    # A mutated serial may have moved `started` on: then this one counts as used, and is refused rather than lost.
    serial = (1 << 40) | ((1 << 40) - 1)
    head, body = group.answer(slots[0], request_block(serial, 0))
    assert body == b"hello, world" or head.kind == lib.WIRE_ABORT
    assert group.page(1).protocol_errors > 0
    assert ffi.sizeof("struct wire_head") == 24
