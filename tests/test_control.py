"""Control connections: what is sent arrives, descriptors are never lost, and no peer can hurt or stop the other."""

from __future__ import annotations

import array
import fcntl
import os
import resource
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webserver.wire.control import (
    FD_LIMIT,
    PACKET_LIMIT,
    Control,
    ControlClosed,
    ControlFull,
    ControlStarved,
    ProtocolError,
    close_all,
    decode,
    encode,
    pair,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
messages = st.dictionaries(st.text().filter(lambda key: key != "fds"), json_values).map(lambda one: {**one, "op": "x"})


@pytest.fixture
def ends() -> Iterator[tuple[Control, Control]]:
    one, other = pair()
    left, right = Control(one, blocking=False), Control(other, blocking=False)
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def raw() -> Iterator[tuple[socket.socket, Control]]:
    """A peer that sends what it likes."""
    one, other = pair()
    control = Control(other, blocking=False)
    yield one, control
    one.close()
    control.close()


def send_raw(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], rights)


def test_descriptors_that_there_is_no_room_for(ends: tuple[Control, Control]) -> None:
    """A packet whose descriptors cannot be opened now is there later, whole, and so is what follows."""
    sender, receiver = ends
    read, write = os.pipe()
    sender.send({"op": "first"}, {"read": read, "write": write})
    sender.send({"op": "second"})
    before = open_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 20, hard))
        with pytest.raises(OSError, match="Too many"):
            while True:
                taken.append(os.dup(0))
        for room in (0, 1):
            with pytest.raises(ControlStarved):
                receiver.receive()
            if not room:
                os.close(taken.pop())
        close_all(taken)
        message, fds = receiver.receive() or ({}, {})
        assert message == {"op": "first"}
        os.write(fds["write"], b"x")
        assert os.read(fds["read"], 1) == b"x"
        close_all(fds.values())
        assert receiver.receive() == ({"op": "second"}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        close_all(taken)
        close_all([read, write])
    assert open_descriptors() == before - 2


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@given(messages)
def test_what_is_encoded_is_decoded(message: dict[str, object]) -> None:
    packet, numbers, memory = encode(message)
    assert numbers == []
    assert memory is None
    assert decode(packet) == (message, {})


@given(st.binary(max_size=200))
def test_any_bytes_are_a_packet_or_an_error(data: bytes) -> None:
    """Nothing but ProtocolError, whatever comes."""
    try:
        message, fds = decode(data)
    except ProtocolError:
        return
    assert isinstance(message["op"], str)
    assert fds == {}


@given(st.lists(st.text(max_size=3), max_size=5), st.integers(0, 5))
def test_names_and_descriptors_agree_or_it_is_an_error(names: list[str], count: int) -> None:
    packet = encode({"op": "x", "names": names})[0].replace(b'"names"', b'"fds"')
    numbers = list(range(1000, 1000 + count))
    if len(names) != count or len(set(names)) != count or "record" in names:
        with pytest.raises(ProtocolError):
            decode(packet, numbers)
    else:
        assert decode(packet, numbers) == ({"op": "x"}, dict(zip(names, numbers, strict=True)))


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]",
        b'{"op": 1}',
        b'{"op": "x", "fds": 3}',
        b'{"op": "x", "fds": [1]}',
        b'{"op": "x", "a": NaN}',
        b'{"op": "x"',
        b'\xff{"op": "x"}',
        b'{"op": "\xc3\xa9"}',
        b"[" * 50000,
        b'{"op": "x"}' + b" " * PACKET_LIMIT,
    ],
)
def test_malformed_packets(raw: tuple[socket.socket, Control], data: bytes) -> None:
    raw[0].send(data)
    with pytest.raises(ProtocolError):
        raw[1].receive()


def test_descriptors_arrive_by_name_and_closed_on_exec(ends: tuple[Control, Control]) -> None:
    reader, writer = os.pipe()
    ends[0].send({"op": "x"}, {"b": writer, "a": reader})
    close_all([reader, writer])
    received = ends[1].receive()
    assert received is not None
    message, fds = received
    assert message == {"op": "x"}
    assert set(fds) == {"a", "b"}
    assert not any(os.get_inheritable(number) for number in fds.values())
    os.write(fds["b"], b"through")
    assert os.read(fds["a"], 10) == b"through"
    close_all(fds.values())


@pytest.mark.parametrize("names", ["[]", '["a"]', '["a", "a"]', '["a", "b", "c"]', '"ab"'])
def test_descriptors_without_names_are_closed(raw: tuple[socket.socket, Control], names: str) -> None:
    before = open_descriptors()
    send_raw(raw[0], f'{{"op": "x", "fds": {names}}}'.encode(), [0, 1])
    with pytest.raises(ProtocolError):
        raw[1].receive()
    send_raw(raw[0], b"not JSON", [0, 1])
    with pytest.raises(ProtocolError):
        raw[1].receive()
    assert open_descriptors() == before


def test_more_descriptors_than_fit(raw: tuple[socket.socket, Control], ends: tuple[Control, Control]) -> None:
    before = open_descriptors()
    send_raw(raw[0], b'{"op": "x"}', [0] * 253)
    with pytest.raises(ProtocolError):
        raw[1].receive()
    assert open_descriptors() == before
    with pytest.raises(ProtocolError):
        ends[0].send({"op": "x"}, [(str(number), 0) for number in range(FD_LIMIT + 1)])
    ends[0].send({"op": "x"}, [(str(number), 0) for number in range(FD_LIMIT)])
    received = ends[1].receive()
    assert received is not None
    close_all(received[1].values())


def test_a_large_record_rides_in_memory(ends: tuple[Control, Control]) -> None:
    before = open_descriptors()
    record = {"sites": ["\udcff example" * 10] * 5000}
    ends[0].send({"op": "record", "record": record}, {"access": 1})
    received = ends[1].receive()
    assert received is not None
    message, fds = received
    assert message == {"op": "record", "record": record}
    assert list(fds) == ["access"]
    close_all(fds.values())
    assert open_descriptors() == before


def test_what_is_too_large_is_not_sent(ends: tuple[Control, Control]) -> None:
    with pytest.raises(ProtocolError):
        ends[0].send({"op": "x", "text": "a" * PACKET_LIMIT})
    with pytest.raises(ProtocolError):
        ends[0].send({"op": "x", "value": float("nan")})
    with pytest.raises(ProtocolError):
        ends[0].send({"op": "x", "value": object()})
    with pytest.raises(ProtocolError):
        ends[0].send({"no": "op"})
    with pytest.raises(BlockingIOError):
        ends[1].receive()


def test_records_that_could_stop_or_hurt_the_reader(raw: tuple[socket.socket, Control]) -> None:
    """Only a sealed memory file is read: a pipe would block, an unsealed file could change under the reader."""
    before = open_descriptors()
    reader, writer = os.pipe()
    unsealed = os.memfd_create("record", os.MFD_ALLOW_SEALING)
    os.write(unsealed, b"{}")
    broken = os.memfd_create("record", os.MFD_ALLOW_SEALING)
    os.write(broken, b"{")
    huge = os.memfd_create("record", os.MFD_ALLOW_SEALING)
    os.ftruncate(huge, 1 << 40)
    for number in (broken, huge):
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    for number in (reader, unsealed, broken, huge):
        send_raw(raw[0], b'{"op": "record", "fds": ["record"]}', [number])
        with pytest.raises(ProtocolError):
            raw[1].receive()
    send_raw(raw[0], b'{"op": "record", "record": {}, "fds": ["record"]}', [broken])
    with pytest.raises(ProtocolError):
        raw[1].receive()
    close_all([reader, writer, unsealed, broken, huge])
    assert open_descriptors() == before


def test_a_peer_that_does_not_read(ends: tuple[Control, Control]) -> None:
    sent = 0
    try:
        while sent < 100_000:
            ends[0].send({"op": "x", "number": sent})
            sent += 1
    except ControlFull:
        pass
    assert sent < 100_000
    assert sent > 10
    # Nothing is lost and nothing is there that was refused.
    numbers = []
    for _ in range(sent):
        received = ends[1].receive()
        assert received is not None
        numbers.append(received[0]["number"])
    assert numbers == list(range(sent))
    with pytest.raises(BlockingIOError):
        ends[1].receive()
    ends[0].send({"op": "x"})


def test_the_end(ends: tuple[Control, Control]) -> None:
    """What a peer has said is read before its end is, even if it died with packets unread."""
    ends[1].send({"op": "unread"})
    ends[0].send({"op": "last"})
    ends[0].close()
    received = ends[1].receive()
    assert received is not None
    assert received[0] == {"op": "last"}
    assert ends[1].receive() is None
    assert ends[1].receive() is None
    with pytest.raises(ControlClosed):
        ends[1].send({"op": "x"})


def test_only_the_right_sort_of_socket() -> None:
    one, other = socket.socketpair()
    with one, other, pytest.raises(ProtocolError):
        Control(one)
