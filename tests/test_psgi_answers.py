"""PSGI 1.102, answers: status, headers, bodies of every kind, and mistakes, through the real server."""

from __future__ import annotations

import http.client
import os
import re
import socket
from collections.abc import Iterator

import pytest
from psgi_clauses import DATA, noted, prepare, started
from serving import Server, read_all, wait_until


@pytest.fixture(scope="module")
def app() -> Iterator[Server]:
    with started() as one:
        one.allow(r"site=all request=")  # what is wrong on purpose; the tests look for their own
        yield one


def said(server: Server, text: str) -> str:
    """The line of the log that has the text."""
    return str(wait_until(lambda: next((line for line in server.log().splitlines() if text in line), ""),
                          f"not in the log: {text}"))  # fmt: skip


def cut(server: Server, target: str) -> bytes:
    """What came of an answer that has begun and not come to its end; nothing, if the end came that soon."""
    answer = server.raw(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert not answer or answer.startswith(b"HTTP/1.1 200"), answer
    assert not answer.endswith(b"0\r\n\r\n"), answer
    return answer


@pytest.mark.parametrize("status", [200, 204, 304, 404, 500, 599, 999])
def test_status(app: Server, status: int) -> None:
    answer = app.get(f"/status?{status}")
    assert (answer.status, answer.body) == (status, b"" if status in (204, 304) else b"status %d" % status)
    if status in (204, 304):
        assert not {"content-type", "content-length", "transfer-encoding"} & {name.lower() for name, _ in answer.fields}


def test_status_as_text(app: Server) -> None:
    assert app.get("/text_status").body == b"a text as status"


def test_headers(app: Server) -> None:
    answer = app.get("/headers")
    fields = [(name, value) for name, value in answer.fields if name not in ("Server", "Date")]
    assert fields == [
        ("Content-Type", "text/plain"), ("X-A", "1"), ("Set-Cookie", "a=1"), ("x-a", "2"), ("Set-Cookie", "b=2"),
        ("X-Empty", ""), ("X-Undef", ""), ("X-Latin", "caf\xe9"), ("X-Number", "5.5"), ("Content-Length", "1"),
    ]  # fmt: skip
    many = app.get("/many_headers")
    assert [many.field(f"X-Many-{number}") for number in range(1, 91)] == [str(number) for number in range(1, 91)]


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("parts", b"one2three"),
        ("none", b""),
        ("holes", b"ad"),
        ("large?5000", b"".join(bytes([65 + number % 26]) * 1000 for number in range(5000))),
        ("one_large?3000000", b"x" * 3_000_000),
        ("upgraded", b"caf\xe9"),
        ("length?5", b"hello"),
    ],
)
def test_array_bodies(app: Server, target: str, body: bytes) -> None:
    answer = app.get(f"/{target}")
    assert answer.body == body
    assert answer.field("Content-Length") == str(len(body))
    head = app.request("HEAD", f"/{target}")
    assert (head.body, head.field("Content-Length")) == (b"", str(len(body)))


def test_length_that_is_wrong(app: Server) -> None:
    assert app.get("/length?3").body == b"hel"
    said(app, "longer than its Content-Length of 3")
    assert app.get("/length?9").status == 502  # nothing has been sent yet
    said(app, "ended after 5 of the 9 bytes")


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("whole", DATA),
        ("length", DATA),
        ("place", DATA[9010:]),
        ("part", DATA[100:150]),
        ("iofile", DATA),
        ("io", DATA),
        ("glob", DATA),
        ("crlf", b"one\ntwo\n"),
        ("memory", b"in memory\n"),
        ("pipe", b"from a pipe\n"),
        ("upper", b"ONE\r\nTWO\r\n"),
        ("empty", b""),
        ("tied", b"tied handle"),
    ],
)
def test_handles_as_bodies(app: Server, name: str, body: bytes) -> None:
    answer = app.get(f"/file/{name}")
    assert (answer.status, answer.body) == (206 if name == "part" else 200, body)
    head = app.request("HEAD", f"/file/{name}")
    assert (head.status, head.body) == (answer.status, b"")
    assert app.get("/separators").text == "as ever"


def test_a_file_is_sent_by_its_descriptor(app: Server) -> None:
    """Nothing of it goes through perl: the worker does not grow by a file that is larger than what it has."""
    big = app.directory / "work/big"
    with open(big, "wb") as file:
        file.truncate(200_000_000)
    big.chmod(0o644)
    (app.directory / "work/data.kept").write_bytes(DATA)
    os.replace(big, app.directory / "work/data")
    try:
        connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=60)
        connection.request("GET", "/file/whole")
        answer = connection.getresponse()
        size = 0
        while piece := answer.read(1 << 20):
            size += len(piece)
        connection.close()
        assert size == 200_000_000
    finally:
        os.replace(app.directory / "work/data.kept", app.directory / "work/data")
    [pid] = app.pids("worker")
    with open(f"/proc/{pid}/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    assert peak < 150_000


def test_a_file_that_is_shorter_than_its_length(app: Server) -> None:
    assert app.get("/file/short").status == 502
    said(app, "ended after 10000 of the 20000 bytes")


def test_bodies_with_getline(app: Server) -> None:
    assert app.get("/lines").body == b"1203"
    assert noted(app)[-1] == "lines"
    assert app.get("/separator").text == "blocks of 65536"
    assert app.get("/separators").text == "as ever"
    assert app.get("/file/tied").body == b"tied handle"
    assert noted(app)[-1] == "tied"


def test_bodies_with_path(app: Server) -> None:
    assert app.get("/path").body == DATA
    assert noted(app)[-1] == "path"
    assert app.get("/path_part").body == b"part"
    assert app.get("/path_missing").body == b"read instead"


def test_close_that_dies(app: Server) -> None:
    assert app.get("/bad_close").body == b"good"
    assert noted(app)[-1] == "bad"
    said(app, "close failed")


def test_body_that_dies(app: Server) -> None:
    cut(app, "/broken")
    said(app, "in the middle")
    assert app.get("/broken_first").status == 500
    said(app, "at the beginning")
    assert noted(app)[-2:] == ["broken", "broken"]


def test_body_that_the_application_has_chunked(app: Server) -> None:
    answer = app.get("/chunked")
    assert answer.body == b"hello, chunks"
    assert noted(app)[-1] == "chunked"
    old = app.raw(b"GET /chunked HTTP/1.0\r\n\r\n")
    assert old.endswith(b"\r\n\r\nhello, chunks")
    assert app.request("HEAD", "/chunked").status == 200


def test_function_object_as_answer(app: Server) -> None:
    assert app.get("/callable").body == b"an object as a function"


def test_the_last_byte_of_the_length_ends_the_answer(server: Server) -> None:
    prepare(server).start()
    with server.connect() as sock:
        sock.sendall(b"GET /exact HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_all(sock).endswith(b"fourfives")
    wait_until(lambda: noted(server) == ["asked again"], "it was not asked for more")
    server.file("work/go", "")
    wait_until(lambda: noted(server) == ["asked again", "exact"], "close() was not called")


@pytest.mark.parametrize("times", [1])
def test_client_that_goes_away_in_the_middle(server: Server, times: int) -> None:
    prepare(server).start()
    for number in range(1, 6):
        with server.connect() as sock:
            sock.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            sock.recv(1000)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_until(lambda number=number: noted(server) == ["endless"] * number, "close() was not called")
    assert server.get("/hello").body == b"hello, world"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("undef", "the application returned undef, expected an array of status, headers and body, or a code reference"),
        ("string", "the application returned what is no reference, expected an array"),
        ("hash", "the application returned HASH, expected an array"),
        ("two", "the answer has 2 elements, expected three: status, headers and body"),
        ("four", "the answer has 4 elements, expected three"),
        ("status", '"OK" is not the status of an answer'),
        ("interim", '"103" is not the status of an answer'),
        ("nostatus", '"undef" is not the status of an answer'),
        ("odd", "the headers must be pairs of a name and a value, and their array has 1 elements"),
        ("headers", "the headers must be an array reference"),
        ("newline", 'the header "X-Bad" has a control character in its value'),
        ("name", 'the header "X Bad" has a name that is none'),
        ("coding", 'the header "Transfer-Encoding" belongs to the connection, which is the server\'s'),
        ("euro", "Wide character in X-Price: bytes are expected, encoded by the application"),
        ("body", "the body is a string, expected an array or a handle"),
        ("nobody", "the body is undef, expected an array or a handle"),
        ("object", "the body is WithoutWords, expected an array, a handle or an object with getline()"),
        ("wide", "Wide character in the body: bytes are expected, encoded by the application"),
        ("lines", "Wide character in the body: bytes are expected, encoded by the application"),
        ("chunks", "the answer's Transfer-Encoding is chunked, and its body is not"),
    ],
)
def test_mistakes(app: Server, name: str, text: str) -> None:
    answer = app.get(f"/wrong/{name}")
    assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
    assert "X-Injected" not in dict(answer.fields)
    line = said(app, text)
    assert re.search(r"\[error\] group app \d+ site=all request=[0-9a-f]{16}: ", line)
    assert " at -e line" not in line
    assert app.get("/hello").body == b"hello, world"


def test_chunks_that_do_not_end(app: Server) -> None:
    assert app.get("/wrong/half").status == 500
    said(app, "the answer's last chunk is missing")


def test_wide_characters_of_a_file(app: Server) -> None:
    assert app.get("/file/wide").status == 500


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("plain", ["a plain death"]),
        ("line", ["with its line at "]),
        ("nested", ["outer of inner"]),
        ("words", ["in words: an object"]),
        ("wordless", ["WithoutWords=HASH(", "{code => 42, message => no words}"]),
        ("unspeakable", ["an exception of class Unspeakable that cannot be put into words"]),
        ("hash", ["code => 7, reason => a hash"]),
        ("wide", ["death in utf-8: \u20ac"]),
        ("empty", ["Died at "]),
        ("runtime", ['Can\'t call method "method" on an undefined value at ']),
        ("long", ["many lines", "line 50"]),
    ],
)
def test_exceptions(app: Server, name: str, texts: list[str]) -> None:
    answer = app.get(f"/die/{name}")
    assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
    for text in texts:
        said(app, text)
    assert app.get("/hello").body == b"hello, world"
