"""What comes back: status, fields, bodies of every framing, interim answers, and answers that go wrong."""

from __future__ import annotations

import pytest

from .client import Connection, Cut
from .content import content
from .server import Server


def test_hello(server: Server) -> None:
    answer = server.ask("/hello")
    assert (answer.status, answer.body, answer.interim) == (200, b"hello, world", [])
    assert answer.field("X-Method") == "GET"
    assert str(answer.field("Content-Type")).partition(";")[0] == "text/plain"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_methods(server: Server, method: str) -> None:
    answer = server.ask("/hello", b"body" if method in ("POST", "PUT", "PATCH") else None, method=method)
    assert (answer.status, answer.field("X-Method"), answer.body) == (200, method, b"hello, world")


@pytest.mark.parametrize(("path", "size"), [("/hello", None), ("/large/1000", "1000"), ("/large/3000000", "3000000")])
def test_head_has_the_fields_and_no_body(connection: Connection, path: str, size: str | None) -> None:
    """The next answer on the connection shows that no byte of a body came."""
    connection.head("HEAD", path)
    answer = connection.answer()
    assert (answer.status, answer.body) == (200, b"")
    if size is not None:
        assert answer.field("Content-Length") == size
    else:
        assert answer.field("X-Method") == "HEAD"
    connection.head("GET", "/hello")
    assert connection.answer().body == b"hello, world"


@pytest.mark.parametrize("number", [200, 201, 203, 301, 400, 401, 403, 404, 405, 410, 418, 451, 500, 503, 599])
def test_status(server: Server, number: int) -> None:
    answer = server.ask(f"/status/{number}")
    assert (answer.status, answer.body) == (number, b"status %d\n" % number)


@pytest.mark.parametrize(
    ("path", "status"), [("/status/204", 204), ("/nobody", 204), ("/status/304", 304), ("/empty", 200)]
)
def test_no_body(connection: Connection, path: str, status: int) -> None:
    for _ in range(2):
        connection.head("GET", path)
        answer = connection.answer()
        assert (answer.status, answer.body) == (status, b"")
        assert not answer.words("Transfer-Encoding")
        assert answer.field("Content-Length") == ("0" if path == "/empty" else None)


@pytest.mark.clause("reason")
def test_reason(server: Server) -> None:
    answer = server.ask("/reason")
    assert (answer.status, answer.reason) == (299, "Quite Fine")


def test_many_repeated_and_long_fields(server: Server) -> None:
    answer = server.ask("/headers")
    assert answer.body == b"headers"
    for number in range(50):
        assert answer.all(f"X-Many-{number}") == [str(number)]
    assert answer.all("Set-Cookie") == ["a=1", "b=2; Path=/", "c=3"]
    assert answer.all("X-Long") == ["x" * 8000]
    assert len(answer.all("Content-Type")) == len(answer.all("Date")) == 1


def test_no_field_can_be_smuggled_in(server: Server) -> None:
    answer = server.ask("/inject")
    assert answer.field("X-Injected") is None
    assert b"X-Injected" not in answer.body


@pytest.mark.parametrize("count", [0, 1, 3, 500])
def test_stream_of_unknown_length(connection: Connection, count: int) -> None:
    connection.head("GET", f"/stream/{count}")
    answer = connection.answer()
    assert answer.body == b"".join(b"piece %d\n" % number for number in range(count))
    if count > 1:
        assert answer.words("Transfer-Encoding") == ["chunked"]
    connection.head("GET", "/hello")
    assert connection.answer().body == b"hello, world"


def test_stream_to_a_client_that_knows_no_chunks(server: Server) -> None:
    with server.connect() as connection:
        connection.head("GET", "/stream/5", version="1.0")
        answer = connection.answer()
        assert answer.body == b"".join(b"piece %d\n" % number for number in range(5))
        assert not answer.words("Transfer-Encoding")
        assert connection.ended()


def test_a_piece_is_sent_before_the_next_is_made(server: Server, connection: Connection) -> None:
    token = server.token()
    connection.head("GET", f"/steps?watch={token}")
    head = connection.next_head()
    assert head.words("Transfer-Encoding") == ["chunked"]
    assert connection.lines(1) == ["one"]
    assert connection.quiet()
    server.open_gate(token)
    assert connection.lines(1) == ["two"]
    assert connection.next_trailers() == []


@pytest.mark.parametrize("size", [0, 1, 15, 16, 65535, 65536, 65537, 262144, 1048576, 5000001])
def test_large(connection: Connection, size: int) -> None:
    """Every byte is the right one, at sizes around those of buffers."""
    connection.head("GET", f"/large/{size}")
    answer = connection.answer()
    assert answer.field("Content-Length") == str(size)
    assert answer.body == content(size)
    connection.head("GET", "/hello")
    assert connection.answer().body == b"hello, world"


def test_a_slow_reader_gets_all(server: Server) -> None:
    with server.connect() as connection:
        connection.head("GET", "/large/20000000")
        assert connection.next_head().field("Content-Length") == "20000000"
        # What fits into sockets and the front end's memory has been sent; the rest is made while this reads on.
        parts = [connection.exactly(1000), connection.exactly(999_000), connection.exactly(19_000_000)]
        assert b"".join(parts) == content(20_000_000)


@pytest.mark.clause("file")
@pytest.mark.parametrize("size", [0, 1, 4096, 3_000_001])
def test_file(server: Server, size: int) -> None:
    path = server.scratch / "file"
    path.write_bytes(content(size))
    path.chmod(0o644)
    answer = server.ask("/file")
    assert (answer.status, answer.body) == (200, content(size))
    assert server.ask("/file", method="HEAD").body == b""


@pytest.mark.clause("early")
def test_early_hints(server: Server) -> None:
    answer = server.ask("/early")
    assert [head.status for head in answer.interim] == [103]
    assert answer.interim[0].all("Link") == ["</style.css>; rel=preload"]
    assert (answer.status, answer.body, answer.field("Link")) == (200, b"early", None)


@pytest.mark.clause("early")
def test_no_interim_answer_to_http_1_0(server: Server) -> None:
    with server.connect() as connection:
        connection.head("GET", "/early", version="1.0")
        answer = connection.answer()
        assert (answer.status, answer.body, answer.interim) == (200, b"early", [])


@pytest.mark.clause("trailers")
def test_trailers(connection: Connection) -> None:
    connection.head("GET", "/trailers", "TE: trailers")
    answer = connection.answer()
    assert (answer.status, answer.body) == (200, b"body")
    assert ("x-checksum", "12") in [(name.lower(), value) for name, value in answer.trailers]
    assert answer.field("X-Checksum") is None
    connection.head("GET", "/hello")
    assert connection.answer().trailers == []


@pytest.mark.clause("trailers")
def test_trailers_that_cannot_be_sent_are_dropped(server: Server) -> None:
    with server.connect() as connection:
        connection.head("GET", "/trailers", version="1.0")
        assert connection.answer().body == b"body"
        assert connection.ended()


# ---- what goes wrong


def test_an_error_before_the_answer_is_500_and_in_the_log(server: Server) -> None:
    before = len(server.log())
    answer = server.ask("/error")
    assert answer.status == 500
    assert b"conformance error" not in answer.body
    server.wait_for_log(before, "conformance error")
    assert server.ask("/hello").status == 200


@pytest.mark.clause("error-late")
def test_an_error_in_the_middle_cuts_the_connection(server: Server) -> None:
    before = len(server.log())
    with server.connect() as connection:
        connection.head("GET", "/error-late")
        with pytest.raises(Cut) as cut:
            connection.answer()
        assert cut.value.got in (b"part\n", b"")
    server.wait_for_log(before, "conformance error")
    assert server.ask("/hello").status == 200


def test_less_than_was_promised_never_looks_whole(server: Server) -> None:
    """Cut off, or 502 where nothing of it has left yet."""
    with server.connect() as connection:
        connection.head("GET", "/short")
        try:
            answer = connection.answer()
        except Cut as cut:
            assert b"short".startswith(cut.got)
        else:
            assert answer.status >= 500
    assert server.ask("/hello").body == b"hello, world"


def test_more_than_was_promised_is_not_sent(connection: Connection) -> None:
    """What is too much must not be taken for the next answer; an interface may as well call it a mistake."""
    connection.head("GET", "/long")
    answer = connection.answer()
    assert (answer.status, answer.body) == (200, b"hello") or answer.status == 500
    connection.head("GET", "/hello")
    assert connection.answer().body == b"hello, world"
