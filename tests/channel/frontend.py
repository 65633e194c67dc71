"""A front end's end of the channel, for tests of managers and workers without an engine.

Starts a real manager with a real plugin, plays the supervisor on its control connection and the front end on a bound
ROUTER. Frames are made and read with the structs of wire.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

TREE = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TREE), str(TREE / "tests")]

from serving import SLOWNESS
from serving import interpreter as default_interpreter

from channel.wire import ffi, lib
from webserver.wire import control
from webserver.wire.page import LOAN, LOANS, LOANS_HEAD, LOANS_SLOT, loans_size

PAGE_HEAD, PAGE_SLOT = 128, 320
SECONDS = 20 * SLOWNESS
NONE = 0xFFFFFFFFFFFFFFFF
_ATOMIC = ctypes.CDLL("libatomic.so.1")  # gcc's


@dataclass
class Frame:
    """One message from a worker: who said it, its kind, serial, flags, and all its bytes."""

    identity: Any
    kind: int
    serial: int
    flags: int
    data: bytes
    lent: bytes | None = None  # a piece that lay in a loan

    def of(self, name: str) -> Any:
        """The frame as this struct of wire.h."""
        value = ffi.new(f"struct {name} *")
        size = min(len(self.data), ffi.sizeof(f"struct {name}"))
        ffi.memmove(value, self.data, size)
        return value

    @property
    def body(self) -> bytes:
        if self.lent is not None:
            return self.lent
        span = self.of("wire_response").body if self.kind == lib.WIRE_RESPONSE else self.of("wire_body").data
        return self.data[span.at : span.at + span.size]

    @property
    def fields(self) -> dict[str, str]:
        head = self.of("wire_response")
        found = {}
        for index in range(head.field_count):
            field = ffi.new("struct wire_field *")
            at = head.fields + index * ffi.sizeof("struct wire_field")
            ffi.memmove(field, self.data[at : at + ffi.sizeof("struct wire_field")], ffi.sizeof("struct wire_field"))
            name = self.data[field.name : field.name + field.name_size].decode()
            found[name] = self.data[field.value : field.value + field.value_size].decode("latin-1")
        return found


def _exchange(memory: int, offset: int) -> int:
    """A word of 32 bits; 0 is there from now on. Its worker may set bits of it at any moment."""
    with mmap.mmap(memory, (offset | 4095) + 1) as shared:
        word = ctypes.c_uint32.from_buffer(shared, offset)
        found: int = _ATOMIC.__atomic_exchange_4(ctypes.byref(word), 0, 5)
        del word
    return found & 0xFFFFFFFF


def _head(data: bytes) -> Any:
    head = ffi.new("struct wire_head *")
    ffi.memmove(head, data, ffi.sizeof("struct wire_head"))
    return head


def request_block(
    serial: int,
    slot: int,
    path: str = "/",
    method: str = "GET",
    body: bytes = b"",
    fields: tuple[tuple[str, str], ...] = (("Host", "example.org"),),
    length: int | None = None,
    flags: int = 0,
    texts: dict[int, bytes] | None = None,
) -> bytes:
    """A WIRE_REQUEST. `length` None: the body that is given is all of it."""
    query = path.partition("?")[2]
    values = {
        lib.WIRE_METHOD: method.encode(),
        lib.WIRE_TARGET: path.encode(),
        lib.WIRE_PATH: path.partition("?")[0].encode(),
        lib.WIRE_PATH_INFO: path.partition("?")[0].encode(),
        lib.WIRE_QUERY: query.encode(),
        lib.WIRE_HOST: b"example.org",
        lib.WIRE_SERVER_NAME: b"example.org",
        lib.WIRE_SCHEME: b"http",
        lib.WIRE_REMOTE_ADDR: b"127.0.0.1",
        lib.WIRE_SERVER_ADDR: b"127.0.0.1",
        lib.WIRE_REQUEST_ID: b"00000000000000ff",
        lib.WIRE_SITE: b"test",
        lib.WIRE_FIRST_BODY: body,
        **(texts or {}),
    }
    head = ffi.new("struct wire_request *")
    at = ffi.sizeof("struct wire_request") + len(fields) * ffi.sizeof("struct wire_field")
    tail = b""
    for number, value in values.items():
        head.text[number].at, head.text[number].size = at + len(tail), len(value)
        tail += value
    table = b""
    for name, value in fields:
        field = ffi.new("struct wire_field *")
        field.name, field.name_size = at + len(tail), len(name)
        tail += name.encode()
        field.value, field.value_size = at + len(tail), len(value)
        tail += value.encode()
        table += bytes(ffi.buffer(field))
    head.head.kind, head.head.serial, head.head.slot = lib.WIRE_REQUEST, serial, slot
    head.head.request = serial & 0xFFFF
    head.head.flags = flags | (lib.WIRE_LAST if length is None else 0)
    head.head.size = at + len(tail)
    head.content_length = len(body) if length is None else length
    head.response_window = lib.WIRE_RESPONSE_WINDOW
    head.version, head.field_count, head.fields = 11, len(fields), ffi.sizeof("struct wire_request")
    head.server_port, head.remote_port = 8080, 4000
    return bytes(ffi.buffer(head)) + table + tail


def bare(kind: int, serial: int = 0, slot: int = 0, flags: int = 0) -> bytes:
    head = ffi.new("struct wire_head *")
    head.kind, head.size, head.serial, head.slot, head.flags = kind, ffi.sizeof("struct wire_head"), serial, slot, flags
    return bytes(ffi.buffer(head))


def credit(serial: int, limit: int, slot: int = 0) -> bytes:
    value = ffi.new("struct wire_credit *")
    value.head.kind, value.head.size, value.head.serial, value.head.slot = (
        lib.WIRE_CREDIT,
        ffi.sizeof("struct wire_credit"),
        serial,
        slot,
    )
    value.limit = limit
    return bytes(ffi.buffer(value))


def piece(serial: int, offset: int, data: bytes, last: bool, slot: int = 0) -> bytes:
    value = ffi.new("struct wire_body *")
    size = ffi.sizeof("struct wire_body")
    value.head.kind, value.head.size, value.head.serial, value.head.slot = lib.WIRE_BODY, size + len(data), serial, slot
    value.head.flags = lib.WIRE_LAST if last else 0
    value.offset, value.data.at, value.data.size = offset, size, len(data)
    return bytes(ffi.buffer(value)) + data


class Group:
    """A manager and its workers; this process is their supervisor and their only front end."""

    def __init__(
        self,
        directory: Path,
        language: str = "echo",
        processes: int = 1,
        threads: int = 1,
        settings: tuple[tuple[str, str], ...] = (),
        interpreter: str | None = None,
        environment: dict[str, str] | None = None,
        ordinal: int = 0,
    ) -> None:
        self.directory, self.threads, self.ordinal = directory, threads, ordinal
        self.incarnation = 1
        self.context = zmq.Context()
        self.socket, self.path = self.bind()
        ours, theirs = control.pair()
        self.control = control.Control(ours)
        self.log_read, self.log_write = os.pipe()
        os.set_blocking(self.log_read, False)
        theirs.set_inheritable(True)
        manager = TREE / "webserver/manager/__main__.py"
        self.process = subprocess.Popen(
            [interpreter or default_interpreter(), "-I", str(manager), "--control", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stderr=self.log_write,
            env={},
        )
        theirs.close()
        record = {
            "group": "test",
            "generation": 1,
            "language": language,
            "plugin": str(TREE / f"build/lib/{language}.so"),
            "host": str(TREE / "build/lib/libwebserver_host.so"),
            "settings": [list(setting) for setting in settings],
            "processes": processes,
            "threads": threads,
            "frontends": [{"ordinal": ordinal, "incarnation": 1, "path": self.path}],
            "environment": environment or {"PATH": "/usr/bin:/bin"},
            "directory": str(directory),
            "umask": 0o022,
            "start_timeout": SECONDS,
            "touch": [],
            "watch": False,
        }
        self.control.send({"op": "record", "record": record})
        self.told: list[dict[str, Any]] = []
        self.pages: dict[int, int] = {}
        self.loans: dict[int, int] = {}
        self.keeps = False  # pieces that were lent
        self._slots: dict[tuple[int, int], Any] = {}  # identities by worker and slot
        self._posted: list[Frame] = []
        self.next_worker = 1
        self.serial = 0
        self.pids: dict[int, int] = {}
        self._log = b""

    def bind(self) -> tuple[Any, str]:
        path = str(self.directory / f"f{self.incarnation}")
        socket_ = self.context.socket(zmq.ROUTER)
        socket_.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket_.setsockopt(zmq.LINGER, 0)
        socket_.bind(f"ipc://{path}")
        return socket_, path

    def next_serial(self) -> int:
        self.serial += 1
        return (self.incarnation << 40) | self.serial

    def order(self, op: str, **values: Any) -> None:
        self.control.send({"op": op, **values})

    def _grant(self, message: dict[str, Any]) -> None:
        page = os.memfd_create("page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(page, PAGE_HEAD + self.threads * PAGE_SLOT)
        loans = os.memfd_create("loans", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(loans, loans_size(self.threads))
        worker = self.next_worker
        self.next_worker += 1
        self.pages[worker], self.loans[worker] = page, loans
        self._sleep(worker)
        fds = {"page": page, "loans": loans, "log": self.log_write}
        self.control.send({"op": "granted", "number": message["number"], "worker": worker}, fds)

    def hear(self, op: str, seconds: float = SECONDS) -> dict[str, Any]:
        """The manager's next `op`; grants are given on the way, beats are passed over."""
        deadline = time.monotonic() + seconds
        while True:
            for index, message in enumerate(self.told):
                if message["op"] == op:
                    return self.told.pop(index)
            ready, _, _ = select.select([self.control], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"the manager did not say {op!r}:\n{self.log()}")
            received = self.control.receive()
            if received is None:
                raise AssertionError(f"the manager is gone; wanted {op!r}:\n{self.log()}")
            message, _ = received
            if message["op"] == "grant":
                self._grant(message)
            elif message["op"] == "up":
                self.pids[message["worker"]] = message["pid"]
            if message["op"] not in ("beat", "grant"):
                self.told.append(message)

    def start(self) -> dict[int, Any]:
        """Wait until every slot has said hello; returns identities by slot (of the last worker), -1: the keeper."""
        self.hear("ready")
        identities: dict[int, Any] = {}
        while len(identities) < self.threads + 1:
            frame = self.receive()
            assert frame.kind == lib.WIRE_HELLO, frame
            hello = frame.of("wire_hello")
            assert (hello.magic, hello.version, hello.slots) == (lib.WIRE_MAGIC, lib.WIRE_VERSION, self.threads)
            number = frame.identity.slot if frame.identity.role == lib.WIRE_ROLE_SLOT else -1
            identities[number] = frame.identity
        return identities

    def send(self, identity: Any, data: bytes) -> None:
        self.socket.send_multipart([bytes(ffi.buffer(identity)), data])

    def receive(self, seconds: float = SECONDS) -> Frame:
        """The next frame of any worker, whichever way it comes."""
        while not self._posted:
            if not self.socket.poll(int(seconds * 1000)):
                raise AssertionError(f"no frame came:\n{self.log()}")
            identity, data = self.socket.recv_multipart()
            who = ffi.new("struct wire_identity *")
            ffi.memmove(who, identity, min(len(identity), ffi.sizeof("struct wire_identity")))
            self._slots[who.worker, who.slot] = who
            if _head(data).kind != lib.WIRE_POSTED:
                return self._frame(who, data)
            self._sleep(who.worker)
            self._take_posts(who.worker)
        return self._posted.pop(0)

    def _frame(self, who: Any, data: bytes) -> Frame:
        head = _head(data)
        assert head.size == len(data)
        frame = Frame(who, head.kind, head.serial, head.flags, data)
        if head.kind == lib.WIRE_BODY and head.flags & lib.WIRE_LENT:
            frame.lent = self._borrow(frame)
        return frame

    def _sleep(self, worker: int) -> None:
        """Answers that are posted from now on are told of."""
        os.pwrite(self.loans[worker], (1).to_bytes(4, sys.byteorder), 4 * self.ordinal)

    def _take_posts(self, worker: int) -> None:
        memory = self.loans[worker]
        for slot in range(self.threads):
            words = LOANS_HEAD + slot * LOANS_SLOT
            posted = _exchange(memory, words + 4 * (LOANS + self.ordinal))
            for number in range(LOANS):
                if posted & 1 << number:
                    place = self._place(slot, number)
                    size = int.from_bytes(os.pread(memory, 8, place)[4:], sys.byteorder)
                    data = os.pread(memory, size, place)
                    os.pwrite(memory, bytes(4), words + 4 * number)
                    self._posted.append(self._frame(self._slots[worker, slot], data))

    def _place(self, slot: int, number: int) -> int:
        """Where a loan's bytes begin."""
        return loans_size(self.threads) + ((slot - self.threads) * LOANS + number) * LOAN

    def _borrow(self, frame: Frame) -> bytes:
        """A piece in a loan, which is given back unless `keeps`."""
        slot, piece = frame.identity.slot, frame.of("wire_body").data
        assert len(frame.data) == ffi.sizeof("struct wire_body")
        assert 0 < piece.size <= lib.WIRE_PIECE
        count, words = (piece.size + LOAN - 1) // LOAN, LOANS_HEAD + slot * LOANS_SLOT + 4 * piece.at
        memory = self.loans[frame.identity.worker]
        borrower = (self.ordinal << 24 | self.incarnation).to_bytes(4, sys.byteorder)
        assert os.pread(memory, 4 * count, words) == borrower * count
        found = os.pread(memory, piece.size, self._place(slot, piece.at))
        if not self.keeps:
            os.pwrite(memory, bytes(4 * count), words)
        return found

    def quiet(self, seconds: float = 0.2) -> bool:
        """True if no frame comes in this time."""
        return not self._posted and not self.socket.poll(int(seconds * SLOWNESS * 1000))

    def answer(self, identity: Any, data: bytes) -> tuple[Frame, bytes]:
        """Send a request; its answer's head and whole body. Credit is given freely."""
        self.send(identity, data)
        head = self.receive()
        while head.kind in (lib.WIRE_CREDIT, lib.WIRE_INFORM):
            head = self.receive()
        if head.kind != lib.WIRE_RESPONSE:
            return head, b""
        body, frame = head.body, head
        while not frame.flags & lib.WIRE_LAST:
            self.send(identity, credit(head.serial, len(body) + lib.WIRE_RESPONSE_WINDOW))
            frame = self.receive()
            if frame.kind == lib.WIRE_ABORT:
                return frame, body
            if frame.kind == lib.WIRE_BODY:
                assert frame.of("wire_body").offset == len(body)
                body += frame.body
        return head, body

    def page(self, worker: int) -> Any:
        data = os.pread(self.pages[worker], PAGE_HEAD + self.threads * PAGE_SLOT, 0)
        return ffi.from_buffer("struct wire_page *", bytearray(data))

    def log(self) -> str:
        with contextlib.suppress(BlockingIOError):
            while True:
                data = os.read(self.log_read, 65536)
                if not data:
                    break
                self._log += data
        return self._log.decode(errors="replace")

    def stop(self) -> None:
        """Orderly, as far as that works; leaves nothing."""
        try:
            self.process.kill()
            self.process.wait()
        finally:
            self.control.close()
            for number in (*self.pages.values(), *self.loans.values()):
                os.close(number)
            os.close(self.log_read)
            os.close(self.log_write)
            self.socket.close(0)
            self.context.term()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
