"""Is the answer right?  Status, whole body and fields of every cell once, before its figures count; and whether the
application was called as often as the client was answered (in instances of their own, so that it costs nothing later).
"""

import hashlib
import json
import os

from harness import client, instance, machine, requests, wrk
from harness import site as tree
from harness.client import Answer, Session
from harness.instance import Context, Instance, Options
from harness.peers import Server
from harness.process import BenchError
from harness.rows import STREAM_BYTES, Row

NUMBERS = (0, 1, 7)
STREAM_SHA = hashlib.sha256(b"0123456789abcdef" * (STREAM_BYTES // 16)).hexdigest()
EXACT_CALLS = (("hello", 400), ("page", 60), ("stream", 4), ("upload", 6))
SESSIONS = 4


def _page(language: str, number: int, answer: Answer) -> str:
    sent = dict(requests.fields_of("page", number))
    lines = answer.body.decode("latin-1").splitlines()
    names = [n for n in sent if n != "Host"]
    for name in names:
        if f"HTTP_{name.upper().replace('-', '_')}: {sent[name]}" not in lines:
            return f"the application did not see {name}: {sent[name]}"
    if f"path: {requests.path_of(language, 'page', number)}" not in lines:
        return "the application saw another path"
    if len(answer.body) != 10240:
        return f"{len(answer.body)} bytes instead of 10240"
    wanted = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", "10240"),
        ("Content-Language", "en"),
        ("Cache-Control", "private, max-age=0"),
        ("Vary", "Cookie"),
        ("X-Request-Id", sent["X-Request-Id"]),
        ("X-Frame-Options", "DENY"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "same-origin"),
        ("Content-Security-Policy", "default-src 'self'"),
    ]
    for name, value in wanted:
        if answer.one(name).lower() != value.lower():
            return f"response field {name} is {answer.all(name)}, not {value}"
    if answer.all("Set-Cookie") != [f"session={sent['X-Request-Id']}; HttpOnly", "seen=1; Path=/"]:
        return f"Set-Cookie is {answer.all('Set-Cookie')}"
    return ""


def _static(kind: str, number: int, answer: Answer) -> str:
    whole = tree.content(requests.static_directory(kind), requests.file_number(kind, number))
    if kind == "static304":
        return "" if (answer.status, answer.body) == (304, b"") else f"status {answer.status} instead of 304"
    if answer.one("Last-Modified") != tree.HTTP_MTIME:
        return f"Last-Modified is {answer.all('Last-Modified')}"
    if kind == "static206":
        if answer.status != 206 or answer.one("Content-Range") != f"bytes 20000-20999/{len(whole)}":
            return f"status {answer.status}, Content-Range {answer.all('Content-Range')}"
        whole = whole[20000:21000]
    elif answer.status != 200:
        return f"status {answer.status}"
    if answer.one("Content-Length") != str(len(whole)):
        return f"Content-Length is {answer.all('Content-Length')}"
    return "" if answer.body == whole else "wrong body"


def judge(language: str, kind: str, number: int, answer: Answer) -> str:
    """Empty if this is the right answer to this request, else what is wrong."""
    if answer.all("Content-Encoding"):
        return "compressed without being asked"
    if language == "static":
        return _static(kind, number, answer)
    if answer.status != 200:
        return f"status {answer.status}: {answer.body[:200]!r}"
    name = kind.partition("-")[0]
    if name in ("hello", requests.SLEEP):
        return "" if answer.body == b"hello, world" else f"wrong body {answer.body[:40]!r}"
    if name == "page":
        return _page(language, number, answer)
    if name == "upload":
        body = requests.upload_body(number)
        expected = f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()
        return "" if answer.body == expected else f"wrong body {answer.body[:90]!r}"
    if name == "stream":
        return (
            "" if hashlib.sha256(answer.body).hexdigest() == STREAM_SHA else f"wrong body of {len(answer.body)} bytes"
        )
    raise AssertionError(kind)


def check_cell(running: Instance, row: Row) -> str:
    """Sends a few of the row's very requests; empty if all answers are right."""
    session = Session(running.port)
    try:
        for number in NUMBERS:
            answer = session.exchange(requests.one(row.language, row.kind, number))
            if wrong := judge(row.language, row.kind, number, answer):
                return wrong
    except OSError as error:
        return str(error)
    finally:
        session.close()
    return ""


def check_php(port: int) -> str:
    request = f"GET /info.php HTTP/1.1\r\nHost: {requests.HOST}\r\n\r\n".encode()
    answer = client.exchange(port, request)
    info = json.loads(answer.body) if answer.status == 200 else {}
    if not info.get("opcache") or not info.get("cached_scripts"):
        return f"PHP's opcache does not cache: {info or answer.status}"
    return ""


def _exact(running: Instance, counter: os.PathLike[str]) -> str:
    language = running.server.speaks
    sessions = [Session(running.port) for _ in range(SESSIONS)]
    before, sent = os.path.getsize(counter), 0
    try:
        for kind, calls in EXACT_CALLS if language != "lua" else EXACT_CALLS[:-1]:
            for index in range(calls):
                number = index % requests.count(kind)
                answer = sessions[index % SESSIONS].exchange(requests.one(language, kind, number))
                sent += 1
                if wrong := judge(language, kind, number, answer):
                    return f"{kind} request {number}: {wrong}"
    finally:
        for session in sessions:
            session.close()
    called = os.path.getsize(counter) - before
    return "" if called == sent else f"{sent} answers, but the application was called {called} times"


def count_calls(context: Context, server: Server) -> tuple[str, dict[str, float]]:
    """Starts a counting instance; returns what is wrong (or nothing) and the counts under load."""
    counter = context.site.base / f"count-{server.name}"
    counter.write_bytes(b"")
    counter.chmod(0o666)
    running = instance.start(context, server, Options(count=counter))
    try:
        if wrong := _exact(running, counter):
            return wrong, {}
        if server.speaks == "php" and (wrong := check_php(running.port)):
            return wrong, {}
        before = counter.stat().st_size
        texts = requests.write(context.site.requests, server.speaks, "hello")
        load = wrk.run(running.port, texts, 64, 1.0, context.site.base / "wrk.log")
        machine.wait_quiet(3.0)
        called = counter.stat().st_size - before
        # wrk ends with up to one request under way on each connection: these it has sent but does not count
        wrong = "" if load.requests <= called <= load.requests + 64 else f"{load.requests} answers, {called} calls"
        return wrong, {"client": load.requests, "application": called}
    except (OSError, BenchError) as error:
        return str(error), {}
    finally:
        instance.end(context, running)
        counter.unlink()
