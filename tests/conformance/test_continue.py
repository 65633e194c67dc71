"""100-continue from end to end (RFC 9110, section 10.1.1): the client is asked for its body when application code first
reads, and never otherwise; afterwards the connection is usable, or closed as it should be.

The matrix: what the application does, whether the client waits, HTTP/1.0 and 1.1, small, large and chunked bodies.
"""

from __future__ import annotations

import hashlib

import pytest

from .client import Answer, Connection
from .content import content
from .server import AT_ONCE, BRIEF, Server

CASES = [
    pytest.param(version, framing, expects, id=f"{version}-{framing}-{'expect' if expects else 'plain'}")
    for version in ("1.0", "1.1")
    for framing in ("small", "large", "chunked")
    for expects in (True, False)
    if not (version == "1.0" and framing == "chunked")
]
SIZES = {"small": 100, "large": 1_000_000, "chunked": 300_000}


class Upload:
    """One request with a body in two steps: the head, then what follows it."""

    def __init__(self, connection: Connection, target: str, version: str, framing: str, expects: bool) -> None:
        self.connection = connection
        self.body = content(SIZES[framing])
        self.framing = framing
        # HTTP/1.0 knows no expectations: one that is sent all the same is ignored, and the body follows at once.
        self.waits = expects and version == "1.1"
        size = "Transfer-Encoding: chunked" if framing == "chunked" else f"Content-Length: {len(self.body)}"
        lines = [size, *(["Expect: 100-continue"] if expects else [])]
        connection.head("POST", target, *lines, version=version)
        if not self.waits:
            self.send()

    def send(self) -> None:
        try:
            if self.framing != "chunked":
                self.connection.sock.sendall(self.body)
                return
            for at in range(0, len(self.body), 50_000):
                part = self.body[at : at + 50_000]
                self.connection.sock.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            self.connection.sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # whether it may do that is seen by whether the answer can be read

    def asked(self) -> None:
        """`100 Continue` comes now, and nothing else."""
        head = self.connection.next_head()
        assert (head.status, head.reason, head.fields) == (100, "Continue", [])

    @property
    def measure(self) -> bytes:
        return f"{len(self.body)} {hashlib.sha256(self.body).hexdigest()}\n".encode()


def check_afterwards(connection: Connection, answer: Answer, version: str, body_was_sent: bool) -> None:
    """The connection is usable, or it ends as it should."""
    assert answer.interim == [], "an interim answer that nobody waits for"
    if "close" in answer.words("Connection") or version == "1.0":
        assert connection.ended()
    else:
        assert body_was_sent, "the body that never came would be looked for in the next request"
        connection.usable_or_closed()


@pytest.mark.parametrize(("version", "framing", "expects"), CASES)
def test_the_application_reads(server: Server, version: str, framing: str, expects: bool) -> None:
    """It waits at its gate before it reads: until then the client is asked for nothing."""
    token = server.token()
    with server.connect() as connection:
        upload = Upload(connection, f"/late?watch={token}", version, framing, expects)
        server.wait_for("begun", token)
        assert connection.quiet()
        server.open_gate(token)
        if upload.waits:
            upload.asked()
            upload.send()
        answer = connection.answer()
        assert (answer.status, answer.body) == (200, upload.measure)
        check_afterwards(connection, answer, version, True)


@pytest.mark.parametrize(("version", "framing", "expects"), CASES)
def test_the_application_answers_first(server: Server, version: str, framing: str, expects: bool) -> None:
    """Not one byte of the body is asked for."""
    with server.connect() as connection:
        upload = Upload(connection, "/never", version, framing, expects)
        answer = connection.answer()
        assert (answer.status, answer.body) == (200, b"never\n")
        check_afterwards(connection, answer, version, not upload.waits)


@pytest.mark.parametrize(("version", "framing", "expects"), CASES)
def test_the_application_begins_its_answer_first(server: Server, version: str, framing: str, expects: bool) -> None:
    """While an answer without a known end is on its way, nothing but its pieces comes."""
    token = server.token()
    with server.connect() as connection:
        upload = Upload(connection, f"/first?watch={token}", version, framing, expects)
        head = connection.next_head()
        assert head.status == 200
        chunks = head.words("Transfer-Encoding") == ["chunked"]
        assert (connection.lines(1) if chunks else [connection.exactly(6).decode().strip()]) == ["first"]
        assert connection.quiet()
        server.open_gate(token)
        if chunks:
            assert connection.lines(1) == ["last"]
            assert connection.next_trailers() == []
        else:
            assert connection.exactly(5) == b"last\n"
        answer = Answer(head.status, head.reason, head.fields)
        check_afterwards(connection, answer, version, not upload.waits)


@pytest.mark.parametrize(("version", "framing", "expects"), CASES)
def test_the_application_reads_half(server: Server, version: str, framing: str, expects: bool) -> None:
    with server.connect() as connection:
        upload = Upload(connection, "/half", version, framing, expects)
        if upload.waits:
            upload.asked()
            upload.send()
        answer = connection.answer()
        assert answer.status == 200
        if framing != "chunked":
            assert answer.body == b"half %d\n" % (len(upload.body) // 2)
        else:
            assert 0 < int(answer.body.split()[1]) <= 1000
        check_afterwards(connection, answer, version, True)


@pytest.mark.parametrize("reads", [False, True], ids=["reads-nothing", "reads-all"])
@pytest.mark.parametrize("part", range(0, len(CASES), AT_ONCE), ids=lambda part: CASES[part].id)
def test_the_application_never_answers(server: Server, part: int, reads: bool) -> None:
    """The deadline passes: 504, and the client was asked for its body only if the application has read."""
    milliseconds = int((BRIEF * server.slowness + 0.2) * 1000)
    path = f"/brief/hang-read/{milliseconds}" if reads else f"/brief/hang/{milliseconds}"
    cases = CASES[part : part + AT_ONCE]
    connections = [server.connect() for _ in cases]
    tokens = [server.token() for _ in cases]
    try:
        uploads = []
        for connection, token, case in zip(connections, tokens, cases, strict=True):
            version, framing, expects = case.values
            uploads.append(Upload(connection, f"{path}?watch={token}", str(version), str(framing), bool(expects)))
        if reads:
            for upload in uploads:
                if upload.waits:
                    upload.asked()
                    upload.send()
        for upload, case in zip(uploads, cases, strict=True):
            answer = upload.connection.answer()
            assert answer.status == 504
            check_afterwards(upload.connection, answer, str(case.values[0]), reads or not upload.waits)
    finally:
        for connection in connections:
            connection.sock.close()
    for token in tokens:
        server.wait_for("closed", token)


def test_a_client_that_goes_away_instead_of_sending(server: Server) -> None:
    """It was asked, and is gone: the application's read fails, and it is cleaned up."""
    token = server.token()
    with server.connect() as connection:
        upload = Upload(connection, f"/length?watch={token}", "1.1", "large", True)
        upload.asked()
    server.wait_for("closed", token)
    assert server.ask("/hello").body == b"hello, world"


def test_an_expectation_of_something_else(server: Server) -> None:
    with server.connect() as connection:
        connection.head("POST", "/length", "Expect: something", "Content-Length: 3")
        assert connection.answer().status == 417
