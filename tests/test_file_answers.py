"""Files as answers, from the worker's side: pieces from the page cache, and what becomes of a file that changes (D64)."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from channel.frontend import Frame, Group, bare, credit, request_block
from channel.wire import lib
from serving import Server, directory, read_all, wait_until

APPLICATION = """
import os

def application(environ, start_response):
    query = dict(part.split("=") for part in environ["QUERY_STRING"].split("&") if part)
    file = open(os.path.join(os.path.dirname(__file__), environ["PATH_INFO"][1:]), "rb")
    file.seek(int(query.get("at", 0)))
    fields = [("Content-Length", query["length"])] if "length" in query else []
    put = start_response("200 OK", fields)
    if "before" in query:
        put(b"b" * int(query["before"]))
    return environ["wsgi.file_wrapper"](file)
"""
CONTENT = os.urandom(4 << 20)


class Narrow(Group):
    """A front end that takes little at a time: what it has not asked for stays in the worker's socket."""

    def bind(self) -> tuple[Any, str]:
        path = str(self.directory / f"f{self.incarnation}")
        socket_ = self.context.socket(zmq.ROUTER)
        socket_.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket_.setsockopt(zmq.LINGER, 0)
        socket_.setsockopt(zmq.RCVHWM, 1)
        socket_.setsockopt(zmq.RCVBUF, 4096)
        socket_.bind(f"ipc://{path}")
        return socket_, path


@pytest.fixture
def place() -> Iterator[Path]:
    with directory() as path:
        (path / "app.wsgi").write_text(APPLICATION)
        (path / "large").write_bytes(CONTENT)
        (path / "small").write_bytes(CONTENT[:3000])
        (path / "edge").write_bytes(CONTENT[: 65536 + 1])
        (path / "empty").write_bytes(b"")
        yield path


@pytest.fixture
def narrow(place: Path) -> Iterator[Narrow]:
    one = Narrow(place, "python", settings=(("application", str(place / "app.wsgi")),))
    try:
        yield one
    finally:
        one.stop()


def begin(one: Group, slots: dict[int, Any], path: str) -> int:
    serial = one.next_serial()
    one.send(slots[0], request_block(serial, 0, path))
    return serial


def frames(one: Group, credits: bool = True) -> Iterator[Frame]:
    """An answer's frames to its end. Each has the size that it says (Group.receive looks) and begins where one ended.

    All credit comes at once, so that nothing but the socket's size holds the worker back.
    """
    got = 0
    while True:
        frame = one.receive()
        if got == 0 and credits and frame.kind == lib.WIRE_RESPONSE:
            one.send(frame.identity, credit(frame.serial, 64 << 20))
        if frame.kind in (lib.WIRE_RESPONSE, lib.WIRE_BODY):
            if frame.kind == lib.WIRE_BODY:
                assert frame.of("wire_body").offset == got
            got += len(frame.body)
        yield frame
        if frame.kind == lib.WIRE_ABORT or frame.flags & lib.WIRE_LAST:
            return


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/large", CONTENT),
        ("/large?at=12345", CONTENT[12345:]),
        ("/large?at=1000&length=2000", CONTENT[1000:3000]),
        ("/large?length=1000000", CONTENT[:1000000]),
        ("/small", CONTENT[:3000]),
        ("/small?before=10&at=7", b"b" * 10 + CONTENT[7:3000]),
        ("/edge", CONTENT[:65537]),
        ("/edge?before=65536", b"b" * 65536 + CONTENT[:65537]),
        ("/large?before=70000", b"b" * 70000 + CONTENT),
        ("/empty", b""),
        ("/small?at=5000", b""),
    ],
)
def test_every_byte_once(narrow: Narrow, path: str, expected: bytes) -> None:
    slots = narrow.start()
    begin(narrow, slots, path)
    body, length = b"", None
    for frame in frames(narrow):
        if frame.kind == lib.WIRE_RESPONSE:
            length = frame.of("wire_response").content_length
        assert frame.kind != lib.WIRE_ABORT
        body += frame.body
    assert hashlib.sha256(body).digest() == hashlib.sha256(expected).digest()
    assert "before" in path or length == len(expected)


def test_a_front_end_that_takes_nothing_and_cancels(narrow: Narrow) -> None:
    slots = narrow.start()
    serial = begin(narrow, slots, "/large")
    wait_until(lambda: narrow.page(1).slot[0].running == serial, "it does not run")
    narrow.send(slots[0], bare(lib.WIRE_CANCEL, serial))
    narrow.send(slots[-1], bare(lib.WIRE_CANCEL, serial))
    kinds = [frame.kind for frame in frames(narrow, credits=False)]
    assert kinds[-1] == lib.WIRE_ABORT
    wait_until(lambda: narrow.page(1).slot[0].running == 0, "it still runs")
    _, body = narrow.answer(slots[0], request_block(narrow.next_serial(), 0, "/small"))
    assert body == CONTENT[:3000]


@pytest.mark.parametrize("length", ["", "?length=4194304"])
@pytest.mark.parametrize("left", [0, 1_500_000, 1_500_001, (4 << 20) - 1])
def test_a_file_that_shrinks_never_looks_whole(narrow: Narrow, place: Path, left: int, length: str) -> None:
    slots = narrow.start()
    serial = begin(narrow, slots, f"/large{length}")
    wait_until(lambda: narrow.page(1).slot[0].phase == lib.WIRE_WRITING, "it does not wait for credit")
    os.truncate(place / "large", left)
    narrow.send(slots[0], credit(serial, 64 << 20))
    kinds, body = [], b""
    for frame in frames(narrow, credits=False):
        kinds.append(frame.kind)
        body += frame.body if frame.kind != lib.WIRE_ABORT else b""
    assert kinds[-1] == lib.WIRE_ABORT
    assert len(body) < len(CONTENT) or left == (4 << 20) - 1
    wait_until(lambda: "became shorter" in narrow.log() or "of the" in narrow.log(), "nothing is said of it")
    # The channel is in step: another answer comes as it should.
    _, small = narrow.answer(slots[0], request_block(narrow.next_serial(), 0, "/small"))
    assert small == CONTENT[:3000]


def test_a_front_end_that_dies_in_the_middle(narrow: Narrow) -> None:
    slots = narrow.start()
    serial = begin(narrow, slots, "/large")
    wait_until(lambda: narrow.page(1).slot[0].running == serial, "it does not run")
    narrow.socket.close(0)
    narrow.order("frontends", frontends=[])
    wait_until(lambda: narrow.page(1).slot[0].running == 0, "it still runs")
    assert narrow.process.poll() is None
    narrow.incarnation = 2
    narrow.socket, narrow.path = narrow.bind()
    narrow.order("frontends", frontends=[{"ordinal": 0, "incarnation": 2, "path": narrow.path}])
    identities = {}
    while len(identities) < 2:
        frame = narrow.receive()
        identities[frame.identity.slot if frame.identity.role == lib.WIRE_ROLE_SLOT else -1] = frame.identity
    _, body = narrow.answer(identities[0], request_block(narrow.next_serial(), 0, "/large"))
    assert body == CONTENT


SERVER = """
[groups]
  [[app]]
  language = python
  application = app.wsgi
  processes = 2
  [[php]]
  language = php
  processes = 2
[sites]
  [[site]]
  hosts = *
  root = public
    [[[routes]]]
    / = group:app
    /php = files
    .php = group:php
"""


@pytest.fixture
def served(server: Server) -> Server:
    server.file("app.wsgi", APPLICATION)
    server.file("large", CONTENT)
    server.file("small", CONTENT[:3000])
    file = f"'{server.directory}/large'"
    scripts = {
        "read": f"echo readfile({file}) === 4194304 ? '' : 'x';",
        "passthru": f"$f = fopen({file}, 'rb'); fseek($f, 1000); fread($f, 24); fpassthru($f); echo feof($f) ? '' : 'x';",
        "buffered": f"ob_start(); readfile({file}); ob_end_flush();",
        "filtered": f"$f = fopen({file}, 'rb'); stream_filter_append($f, 'string.rot13'); fpassthru($f);",
        "after": f"echo 'before'; readfile({file}); echo 'after';",
        "length": f"header('Content-Length: 4194304'); header('Content-Type: x/y'); readfile({file});",
        "memory": "$f = fopen('php://memory', 'w+'); fwrite($f, str_repeat('m', 100000)); rewind($f); fpassthru($f);",
        "missing": "var_dump(@readfile('/none'));",
    }
    for name, code in scripts.items():
        server.file(f"public/php/{name}.php", "<?php ini_set('zlib.output_compression', '0'); " + code)
    # Nothing is absorbed by the front end: a slow client holds its worker.
    server.write(SERVER, "frontends = 2\nspool_memory = 64k\nspool_limit = 0")
    return server.start()


def test_to_slow_and_quick_clients_at_once(served: Server) -> None:
    failed: list[str] = []

    def fetch(pause: bool) -> None:
        with socket.create_connection(("127.0.0.1", served.port), 60) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536 if pause else 1 << 20)
            sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            head, _, body = read_all(sock).partition(b"\r\n\r\n")
            if body != CONTENT or b"Content-Length: 4194304" not in head:
                failed.append(f"{len(body)} bytes")

    threads = [threading.Thread(target=fetch, args=(number % 2 == 0,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    head = served.request("HEAD", "/large")
    assert (head.field("Content-Length"), head.body) == ("4194304", b"")


def test_php_files(served: Server) -> None:
    rot13 = bytes.maketrans(
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", b"NOPQRSTUVWXYZABCDEFGHIJKLMnopqrstuvwxyzabcdefghijklm"
    )
    expected = {"read": CONTENT, "passthru": CONTENT[1024:], "buffered": CONTENT, "filtered": CONTENT.translate(rot13),
                "after": b"before" + CONTENT + b"after", "length": CONTENT, "memory": b"m" * 100000,
                "missing": b"bool(false)\n"}  # fmt: skip
    for name, body in expected.items():
        answer = served.get(f"/php/{name}.php")
        assert answer.status == 200
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest(), name
        assert served.request("HEAD", f"/php/{name}.php").body == b""
    assert served.get("/php/length.php").field("Content-Type") == "x/y"


def test_a_client_never_takes_a_shrunken_file_for_whole(served: Server) -> None:
    served.allow("became shorter", "connection is cut", "OSError", "group app", "502: group")
    path = served.directory / "large"
    path.write_bytes(os.urandom(48 << 20))
    for target in (b"/large", b"/php/read.php"):
        path.write_bytes(os.urandom(48 << 20))
        with socket.create_connection(("127.0.0.1", served.port), 60) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target)
            data = sock.recv(1000)
            os.truncate(path, 1 << 20)
            data += read_all(sock)
        head, _, body = data.partition(b"\r\n\r\n")
        if b"chunked" in head:
            assert not data.endswith(b"0\r\n\r\n")
        else:
            assert len(body) < 48 << 20
