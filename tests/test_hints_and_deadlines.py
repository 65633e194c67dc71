"""What applications are told beyond their interfaces: deadlines, clients that are gone; and hints before the answer."""

from __future__ import annotations

import socket
import struct

import pytest
from serving import SLOWNESS, Server, read_all, wait_until

CONFIG = """
[groups]
  [[app]]
  language = python
  application = app.wsgi
  processes = 1
  threads = 2
  request_timeout = 30s
  [[none]]
  language = python
  application = app.wsgi
  processes = 1
  request_timeout = none
  [[php]]
  language = php
  processes = 1
  request_timeout = 30s
    [[[ini]]]
    output_buffering = 0
[sites]
  [[site]]
  hosts = *
  root = public
    [[[routes]]]
    / = group:app
    /none = group:none
    /php = files
    .php = group:php
"""
APPLICATION = """
import threading, time
kept = {}

def application(environ, start_response):
    path = environ["PATH_INFO"]
    cancelled, hints = environ["webserver.cancelled"], environ["wsgi.early_hints"]
    body = b""
    if path == "/hints":
        hints([("Link", "</a.css>; rel=preload"), ("X-Second", "2")])
        hints([("Link", "</b.js>; rel=preload")])
    elif path == "/bad-hints":
        for wrong in ([("Bad Name", "x")], [("X", "a\\r\\nb")], ("not", "a list"), [("X", "\\u20ac")], [("Connection", "x")]):
            try:
                hints(wrong)
            except (TypeError, ValueError) as error:
                body += type(error).__name__.encode() + b" "
    elif path == "/wait":
        kept["cancelled"] = cancelled
        end = time.monotonic() + 20
        while not cancelled() and time.monotonic() < end:
            time.sleep(0.01)
        print("cancelled:", cancelled(), flush=True)
    elif path == "/kept":
        answers = [kept["cancelled"]() if kept else None]
        thread = threading.Thread(target=lambda: answers.append(cancelled()))
        thread.start()
        thread.join()
        body = repr(answers).encode()
    elif path == "/late":
        put = start_response("200 OK", [])
        put(b"first ")
        hints([("Link", "</too-late>")])
        return [b"last"]
    else:
        deadline = environ["webserver.deadline"]
        body = repr(deadline and deadline - time.monotonic()).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"""


@pytest.fixture
def site(server: Server) -> Server:
    server.file("app.wsgi", APPLICATION)
    scripts = {
        "deadline": "printf('%.3f', $_SERVER['WEBSERVER_DEADLINE'] - hrtime(true) / 1e9);",
        "hints": "header('Link: </a.css>; rel=preload'); header('Set-Cookie: a=b'); echo headers_send(103) === 103 ? 'y' : 'n';"
        " header('Link: </b.css>'); echo headers_send(103) === false ? 'y' : 'n';",
        "wrong": "foreach ([0, 99, 100, 101, 600] as $s) { try { headers_send($s); echo 'n'; }"
        " catch (ValueError $e) { echo 'y'; } }",
        "final": "header('X-Own: 1'); headers_send(404); echo 'body';",
        "wait": "ignore_user_abort(true); echo 'begun'; flush(); for ($i = 0; $i < 2000 && !connection_aborted(); $i++)"
        " usleep(10000); error_log('aborted: ' . connection_aborted() . ' ' . connection_status());",
        "there": "echo connection_aborted(), connection_status();",
    }
    for name, code in scripts.items():
        server.file(f"public/php/{name}.php", "<?php " + code)
    server.write(CONFIG)
    return server.start()


def heads(data: bytes) -> tuple[list[bytes], bytes]:
    """The heads of an answer and of what came before it, and the body."""
    found = []
    while True:
        head, _, data = data.partition(b"\r\n\r\n")
        found.append(head)
        if not head.startswith(b"HTTP/1.1 1"):
            return found, data


def raw(server: Server, path: str, version: str = "1.1") -> tuple[list[bytes], bytes]:
    return heads(server.raw(f"GET {path} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n".encode()))


def test_deadline(site: Server) -> None:
    for path in ("/deadline", "/php/deadline.php"):
        assert 20 < float(site.get(path).text) <= 30
    assert site.get("/none/x").text == "None"


def test_early_hints(site: Server) -> None:
    found, _ = raw(site, "/hints")
    assert [head.split(b"\r\n")[0] for head in found[:2]] == [b"HTTP/1.1 103 Early Hints"] * 2
    assert b"Link: </a.css>; rel=preload\r\nX-Second: 2" in found[0]
    assert b"Link: </b.js>; rel=preload" in found[1]
    assert found[2].startswith(b"HTTP/1.1 200 OK")
    assert b"Link" not in found[2]
    # A client of HTTP/1.0 knows no interim answers.
    found, _ = raw(site, "/hints", "1.0")
    assert len(found) == 1
    assert found[0].startswith(b"HTTP/1.1 200 OK")
    assert site.get("/bad-hints").text.split() == ["ValueError", "ValueError", "TypeError", "ValueError", "ValueError"]
    found, body = raw(site, "/late")
    assert len(found) == 1
    assert b"first" in body
    assert b"last" in body


def test_early_hints_of_php(site: Server) -> None:
    found, body = raw(site, "/php/hints.php")
    assert found[0] == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload"
    assert found[1].startswith(b"HTTP/1.1 200 OK")
    assert b"Link: </a.css>; rel=preload" in found[1]
    assert b"Set-Cookie: a=b" in found[1]
    assert body.count(b"y") == 2 and b"n" not in body
    assert site.get("/php/wrong.php").text == "yyyyy"
    answer = site.get("/php/final.php")
    assert (answer.status, answer.field("X-Own"), answer.text) == (404, "1", "body")


def test_cancelled(site: Server) -> None:
    assert site.get("/kept").text == "[None, False]"
    with socket.create_connection(("127.0.0.1", site.port), 20 * SLOWNESS) as sock:
        sock.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: site.get("/kept").text == "[False, False]", "it has not begun")
    wait_until(lambda: "cancelled: True" in site.log(), "the application was not told")
    # Of a request that is over nobody waits for anything; the one that asks is another.
    assert site.get("/kept").text == "[True, False]"


def test_connection_aborted(site: Server) -> None:
    assert site.get("/php/there.php").text == "00"
    with socket.create_connection(("127.0.0.1", site.port), 20 * SLOWNESS) as sock:
        sock.sendall(b"GET /php/wait.php HTTP/1.1\r\nHost: x\r\n\r\n")
        seen = b""
        while b"begun" not in seen:
            seen += sock.recv(1000)
        # Gone for certain: whoever only closes its sending half may still be reading.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: "aborted: 1 1" in site.log(), "the script was not told")
    assert site.get("/php/there.php").text == "00"


def test_kept_connection_after_hints(site: Server) -> None:
    with socket.create_connection(("127.0.0.1", site.port), 20) as sock:
        sock.sendall(
            b"GET /hints HTTP/1.1\r\nHost: x\r\n\r\nGET /hints HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        data = read_all(sock)
    assert data.count(b"HTTP/1.1 103 Early Hints") == 4
    assert data.count(b"HTTP/1.1 200 OK") == 2
