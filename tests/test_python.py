"""WSGI through a real worker: PEP 3333 as a table of applications, each also under wsgiref.validate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from channel.frontend import Group, bare, request_block
from channel.wire import lib
from serving import directory, wait_until

APPLICATION = """
import io, os, sys, tempfile, threading
from wsgiref.validate import validator

def simple(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello, ", b"world"]

def generator(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"one"
    yield b"two"

class Closing:
    closed = 0
    def __init__(self, fail=False):
        self.fail, self.left = fail, 2
    def __iter__(self):
        return self
    def __next__(self):
        if not self.left:
            if self.fail:
                raise RuntimeError("in the middle")
            raise StopIteration
        self.left -= 1
        return b"x" * 10
    def close(self):
        Closing.closed += 1

def closing(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Closing()

def failing_late(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Closing(fail=True)

def closed(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(Closing.closed).encode()]

def write(environ, start_response):
    put = start_response("201 Made", [("Content-Type", "text/plain")])
    put(b"written ")
    return [b"returned"]

def echo(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]

def lines(environ, start_response):
    stream = environ["wsgi.input"]
    out = [stream.readline(), stream.readline(3), *stream.readlines(4), stream.read(2), *stream]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr(out).encode()]

def error_page(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        raise ValueError("early")
    except ValueError:
        start_response("500 Sorry", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"sorry"]

def raises(environ, start_response):
    raise KeyError("nobody caught this")

def exits(environ, start_response):
    sys.exit(3)

def silent(environ, start_response):
    return [b"no start_response"]

def twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])
    return []

def bad_value(environ, start_response):
    start_response("200 OK", [("X-Bad", "a\\r\\nb")])
    return []

def hop(environ, start_response):
    start_response("200 OK", [("Connection", "close")])
    return []

def not_bytes(environ, start_response):
    start_response("200 OK", [])
    return ["text"]

def wrapped(environ, start_response):
    file = tempfile.TemporaryFile()
    file.write(b"0123456789" * 1000)
    file.seek(10)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return environ["wsgi.file_wrapper"](file)

def wrapped_memory(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"in memory"), 4)

def empty(environ, start_response):
    start_response("204 No Content", [])
    return []

def errors(environ, start_response):
    environ["wsgi.errors"].write("half a ")
    environ["wsgi.errors"].writelines(["line\\n", "and more"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b""]

def flags(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    words = [environ["wsgi.multithread"], environ["wsgi.multiprocess"], environ["wsgi.url_scheme"],
             environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["HTTP_X_TEST"], sys.argv, __file__,
             threading.current_thread() is threading.main_thread()]
    return [repr(words).encode()]

def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/")
    chosen = globals()[name.removeprefix("valid/")]
    return (validator(chosen) if name.startswith("valid/") else chosen)(environ, start_response)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with directory() as path:
        (path / "app.wsgi").write_text(APPLICATION)
        yield path


@pytest.fixture
def group(place: Path) -> Iterator[Group]:
    one = Group(place, "python", settings=(("application", str(place / "app.wsgi")), ("arguments", "first")))
    yield one
    one.stop()


def ask(group: Group, slots: dict, path: str, **more) -> tuple:  # type: ignore[type-arg,no-untyped-def]
    more.setdefault("fields", (("Host", "h"), ("X-Test", "t")))
    head, body = group.answer(slots[0], request_block(group.next_serial(), 0, path, **more))
    return head.of("wire_response").status if head.kind == lib.WIRE_RESPONSE else None, body


@pytest.mark.parametrize("prefix", ["/", "/valid/"])
def test_answers(group: Group, prefix: str) -> None:
    slots = group.start()
    cases = {
        "simple": (200, b"hello, world"),
        "generator": (200, b"onetwo"),
        "closing": (200, b"x" * 20),
        "write": (201, b"written returned"),
        "error_page": (500, b"sorry"),
        "wrapped_memory": (200, b"in memory"),
        "empty": (204, b""),
    }
    for name, expected in cases.items():
        assert ask(group, slots, prefix + name) == expected, (name, group.log())


def test_input(group: Group) -> None:
    slots = group.start()
    content = b"line one\nline two\nthree\nfour and more\nlast"
    assert ask(group, slots, "/echo", method="POST", body=content) == (200, content)
    expected = [b"line one\n", b"lin", b"e two\n", b"fo", b"ur and more\n", b"last"]
    _, body = ask(group, slots, "/lines", method="POST", body=content)
    assert body == repr([expected[0], expected[1], expected[2], b"th", b"ree\n", b"four and more\n", b"last"]).encode()


def test_file_is_sent_from_its_position(group: Group) -> None:
    slots = group.start()
    assert ask(group, slots, "/wrapped") == (200, b"0123456789" * 999)


def test_close_is_called_also_after_an_error(group: Group) -> None:
    slots = group.start()
    assert ask(group, slots, "/closing")[0] == 200
    group.send(slots[0], request_block(group.next_serial(), 0, "/failing_late", fields=(("Host", "h"),)))
    kinds = []
    while lib.WIRE_ABORT not in kinds:
        kinds.append(group.receive().kind)
    assert ask(group, slots, "/closed") == (200, b"2")
    wait_until(lambda: "RuntimeError: in the middle" in group.log(), "no traceback")


def test_mistakes_are_answered_with_500_and_named(group: Group) -> None:
    slots = group.start()
    told = {
        "raises": "KeyError: 'nobody caught this'",
        "exits": "SystemExit: 3",
        "silent": "without calling start_response",
        "twice": "a second time without exc_info",
        "bad_value": "a control character",
        "hop": "belongs to the connection",
        "not_bytes": "must be bytes, not str",
    }
    for name, text in told.items():
        assert ask(group, slots, f"/{name}")[0] == 500, name
        wait_until(lambda text=text: text in group.log(), f"{name}: the log does not say {text!r}")
    assert ask(group, slots, "/simple")[0] == 200


def test_environ(group: Group, place: Path) -> None:
    slots = group.start()
    _, body = ask(group, slots, "/flags", texts={lib.WIRE_SCRIPT_NAME: b"/mount"})
    file = str(place / "app.wsgi")
    assert eval(body) == [False, False, "http", "/mount", "/flags", "t", [file, "first"], file, True]


def test_errors_stream(group: Group) -> None:
    slots = group.start()
    ask(group, slots, "/errors")
    wait_until(lambda: "half a line" in group.log() and "and more" in group.log(), "wsgi.errors is not in the log")
    assert '"request":"00000000000000ff"' in group.log()


def test_module_and_callable(place: Path) -> None:
    (place / "shop").mkdir()
    (place / "shop/__init__.py").write_text("def make():\n    from .app import application\n    return application\n")
    (place / "shop/app.py").write_text(APPLICATION)
    for name in ("shop.app", "shop.app:simple", "shop:make()"):
        one = Group(place, "python", settings=(("application", name), ("directory", str(place)), ("preload", "json")))
        try:
            slots = one.start()
            assert ask(one, slots, "/simple") == (200, b"hello, world")
        finally:
            one.stop()


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def application(:\n", "app.wsgi:1: SyntaxError"),
        ("import nothing_like_this\n", "app.wsgi:1: ModuleNotFoundError"),
        ("x = 1\n", "app.wsgi has no application"),
        ("application = 5\n", "is not callable"),
    ],
)
def test_application_that_does_not_load(place: Path, source: str, told: str) -> None:
    (place / "app.wsgi").write_text(source)
    one = Group(place, "python", settings=(("application", str(place / "app.wsgi")),))
    try:
        gone = one.hear("gone")
        assert told in gone["cause"]
        assert gone["loaded"] is False
        wait_until(lambda: "Traceback" in one.log() or "SyntaxError" in one.log(), "no traceback")
    finally:
        one.stop()


def test_requested_file_is_loaded_and_loaded_again(place: Path) -> None:
    one = Group(place, "python")
    try:
        slots = one.start()
        path = place / "page.wsgi"
        text = {lib.WIRE_SCRIPT_FILENAME: str(path).encode()}
        assert ask(one, slots, "/page.wsgi", texts=text)[0] == 404
        source = "def application(e, s):\n    s('200 OK', [])\n    return [b'%s']\n"
        for word in ("first", "second and longer"):
            path.write_text(source % word)
            assert ask(one, slots, "/page.wsgi", texts=text) == (200, word.encode())
    finally:
        one.stop()


def test_threads_run_at_once_and_end_in_order(place: Path) -> None:
    (place / "app.wsgi").write_text(
        "import atexit, threading\n"
        "barrier = threading.Barrier(3)\n"
        "atexit.register(lambda: open('ended', 'w').close())\n"
        "def application(environ, start_response):\n"
        "    barrier.wait(10)\n"
        "    start_response('200 OK', [])\n"
        "    return [b'met']\n"
    )
    one = Group(place, "python", threads=3, settings=(("application", str(place / "app.wsgi")),))
    try:
        slots = one.start()
        for number in range(3):
            one.send(slots[number], request_block(one.next_serial(), number))
        assert {one.receive().body for _ in range(3)} == {b"met"}
        one.order("drain")
        goodbyes = 0
        while goodbyes < 4:
            frame = one.receive()
            goodbyes += frame.kind == lib.WIRE_GOODBYE
            if frame.kind == lib.WIRE_LEAVING:
                one.send(frame.identity, bare(lib.WIRE_CLOSED))
        assert one.hear("gone")["code"] == 0
        assert (place / "ended").exists()
    finally:
        one.stop()
