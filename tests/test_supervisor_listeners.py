"""Listening sockets, the run directory and workers' pages: made, shared, refused and removed."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import directory, free_port

from webserver.config import Listen
from webserver.supervisor.identity import own_identity
from webserver.supervisor.listeners import ListenError, Listeners
from webserver.supervisor.pages import SharedPage
from webserver.supervisor.rundir import RunDirectory, RunError
from webserver.wire.page import SLOTS, page_size, read_page


@pytest.fixture
def place() -> Iterator[Path]:
    with directory() as path:
        yield path


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    one = Listeners(3)
    yield one
    one.close_all()


def test_one_socket_for_each_front_end(listeners: Listeners) -> None:
    port = free_port()
    address = listeners.open(Listen("inet", "127.0.0.1", port))
    assert [one.ordinal for one in address.sockets] == [0, 1, 2]
    for one in address.sockets:
        assert one.sock.getsockname() == ("127.0.0.1", port)
        assert one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        assert not one.sock.get_inheritable()
    six = listeners.open(Listen("inet6", "::", port))
    assert six.sockets[0].sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    assert str(six) == f"[::]:{port}"
    ids = [one.id for one in listeners.sockets()]
    assert len(set(ids)) == 6
    listeners.close(Listen("inet", "127.0.0.1", port))
    listeners.open(Listen("inet", "127.0.0.1", port))
    assert not set(ids[:3]) & {one.id for one in listeners.sockets()}


def test_an_address_in_use_is_one_clear_message(listeners: Listeners) -> None:
    """Also where the other one uses SO_REUSEPORT, and would let us in to take half of its connections."""
    for reuse in (False, True):
        with socket.socket() as other:
            if reuse:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            with pytest.raises(ListenError, match=f"127.0.0.1:{port}: the address is in use by another process"):
                listeners.open(Listen("inet", "127.0.0.1", port))
    assert listeners.sockets() == []
    with pytest.raises(ListenError, match="no interface of this machine"):
        listeners.open(Listen("inet", "192.0.2.1", 80))


@given(st.sets(st.integers(0, 2), min_size=1))
def test_every_socket_has_exactly_one_front_end(alive: set[int]) -> None:
    listeners = Listeners(3)
    try:
        listeners.open(Listen("inet", "127.0.0.1", free_port()))
        accepted = [number for ordinal in alive for number in listeners.accepted_by(ordinal, alive)]
        assert sorted(accepted) == sorted(one.id for one in listeners.sockets())
        for one in listeners.sockets():
            if one.ordinal in alive:
                assert one.id in listeners.accepted_by(one.ordinal, alive)
    finally:
        listeners.close_all()


def test_unix_sockets(listeners: Listeners, place: Path) -> None:
    path = place / "web.sock"
    listen = Listen("unix", str(path), 0)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listeners.open(listen)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert [one.name for one in place.iterdir()] == ["web.sock"]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    second = Listeners(1)
    with pytest.raises(ListenError, match="another process listens there"):
        second.open(listen)
    # A name that is no longer ours is left alone.
    path.unlink()
    path.touch()
    listeners.close(listen)
    assert path.exists()
    with pytest.raises(ListenError, match="not a socket"):
        listeners.open(listen)
    with pytest.raises(ListenError, match="No such file"):
        listeners.open(Listen("unix", str(place / "missing/web.sock"), 0))


def test_a_unix_socket_with_a_long_path(listeners: Listeners, place: Path) -> None:
    deep = place / ("d" * 60)
    deep.mkdir()
    listeners.open(Listen("unix", str(deep / ("s" * 60)), 0))
    assert (deep / ("s" * 60)).is_socket()


def test_the_run_directory(place: Path) -> None:
    run = RunDirectory(str(place / "run"))
    assert stat.S_IMODE((place / "run").stat().st_mode) == 0o711
    assert stat.S_IMODE((place / "run/ipc").stat().st_mode) == 0o711
    with pytest.raises(RunError, match=f"as process {os.getpid()}"):
        RunDirectory(str(place / "run"))
    path = run.make_generation(1, 2, own_identity(), own_identity())
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o2710
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{path}/f1")
    run.remove_generation(path)
    assert not os.path.exists(path)
    # What a killed server leaves is cleared by the next.
    os.mkdir(f"{place}/run/ipc/9.9")
    Path(f"{place}/run/ipc/9.9/f3").touch()
    fcntl.flock(run._lock, fcntl.LOCK_UN)
    again = RunDirectory(str(place / "run"))
    assert os.listdir(place / "run/ipc") == []
    again.close()
    assert not (place / "run/webserverd.pid").exists()
    run.close()


def test_run_directories_that_are_refused(place: Path) -> None:
    open_to_all = place / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(RunError, match="others may write"):
        RunDirectory(str(open_to_all))
    link = place / "link"
    link.symlink_to("/tmp")
    with pytest.raises(RunError, match="not a directory"):
        RunDirectory(str(link))
    with pytest.raises(RunError, match="No such file"):
        RunDirectory(str(place / "missing/run"))
    with pytest.raises(RunError, match="too long"):
        RunDirectory(str(place / ("x" * 100)))
    outside = place / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (place / "run/ipc").mkdir(parents=True)
    for path in (place / "run", place / "run/ipc"):
        path.chmod(0o711)
    (place / "run/ipc/1.1").symlink_to(outside)
    RunDirectory(str(place / "run")).close()
    assert (outside / "kept").exists()
    assert not (place / "run/ipc").exists()


def test_a_page_is_written_by_one_and_cannot_be_resized() -> None:
    page = SharedPage(2)
    try:
        assert os.fstat(page.readable).st_size == page_size(2)
        for number in (page.writable, page.readable):
            for size in (0, page_size(3)):
                with pytest.raises(OSError):
                    os.ftruncate(number, size)
        with pytest.raises(OSError):
            fcntl.fcntl(page.writable, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        with pytest.raises(PermissionError):
            mmap.mmap(page.readable, page_size(2), mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        assert stat.S_IMODE(os.fstat(page.writable).st_mode) == 0o600
        with mmap.mmap(page.writable, page_size(2)) as memory:
            memory[:] = b"\xff" * page_size(2)
        lie = page.read()
        assert lie.state_name == "unknown"
        assert lie.busy == 2
        page.forget_writable()
        page.forget_writable()
    finally:
        page.close()


@given(st.binary(max_size=page_size(2) + 10), st.integers(-1, SLOTS + 1))
def test_a_page_of_any_bytes_is_read_or_refused(data: bytes, slots: int) -> None:
    if 1 <= slots <= SLOTS and len(data) >= page_size(slots):
        assert len(read_page(data, slots).slot) == slots
    else:
        with pytest.raises(ValueError, match=r"slots|room"):
            read_page(data, slots)
