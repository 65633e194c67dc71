"""WebSocket through the real server to an ASGI application: RFC 6455 section by section, and ASGI's events."""

from __future__ import annotations

import os
import random
import signal
import struct
import threading
import time

import pytest
from serving import SLOWNESS, TREE, Server, wait_until
from websockets import BINARY, CLOSE, PING, PONG, TEXT, WebSocket, frame

CONFIG = """
[groups]
[[app]]
language = python
interface = asgi
application = work/app.py
processes = 1
threads = 64
{more}
[sites]
[[all]]
hosts = *
root = public
[[[routes]]]
/ = group:app
"""


def prepare(server: Server, more: str = "", limits: str = "") -> Server:
    server.write(CONFIG.format(more=more), limits)
    server.file("work/app.py", (TREE / "tests/websocket_application.py").read_text())
    server.start()
    return server


@pytest.fixture
def app(server: Server) -> Server:
    return prepare(server, "websocket_message = 4m\nrequest_timeout = 2s")


def happened(app: Server) -> list[str]:
    return app.get("/").text.split("\n")


def idle(app: Server) -> bool:
    (group,) = app.status()["groups"]
    return group["busy"] == 0 and group["tunnels"] == 0


def test_echo(app: Server) -> None:
    with WebSocket(app, "/echo") as client:
        for size in (0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 300_000, 4 << 20):
            data = random.Random(size).randbytes(size)
            client.say(frame(BINARY, data))
            assert client.hear() == (BINARY, data), size
            text = ("κόσμε €𝄞" * (size // 8 + 1))[:size].encode()[: 4 << 20].decode(errors="ignore").encode()
            client.say(frame(TEXT, text))
            assert client.hear() == (TEXT, text), size
        many = [frame(TEXT, b"%d" % number) for number in range(2000)]
        client.say(*many)
        assert [client.hear()[1] for _ in many] == [b"%d" % number for number in range(2000)]
        # A byte at a time.
        for byte in frame(TEXT, b"slowly") + frame(PING, b"p"):
            client.say(bytes([byte]))
        # Nothing says that a pong waits for what the application answers.
        assert sorted([client.hear(), client.hear()]) == [(TEXT, b"slowly"), (PONG, b"p")]
        # It may last longer than any request.
        time.sleep(3)
        client.say(frame(TEXT, b"still there"))
        assert client.hear() == (TEXT, b"still there")
        assert client.close(1000, "bye") == (1000, "")
    wait_until(lambda: "echo: 1000 bye" in happened(app), "the application does not hear of it")
    wait_until(lambda: idle(app), "its slot is not free")
    assert "Traceback" not in app.log()


def test_fragments_and_control_frames(app: Server) -> None:
    with WebSocket(app, "/echo") as client:
        client.say(
            frame(TEXT, b"one, ", final=False),
            frame(PING, b"within"),
            frame(0, "zw€".encode()[:-1], final=False),
            frame(PONG, b"unasked"),
            frame(0, b"", final=False),
            frame(0, "€".encode()[-1:]),
        )
        assert client.hear() == (PONG, b"within")
        assert client.hear() == (TEXT, "one, zw€".encode())
        client.say(frame(PING), frame(PING, b"x" * 125))
        answers = [client.hear()]
        # Of several pings at once the last is answered (5.5.3).
        if answers[-1] != (PONG, b"x" * 125):
            answers.append(client.hear())
        assert answers[-1] == (PONG, b"x" * 125)
        client.say(frame(BINARY, b"a", mask=b"\0\0\0\0"))
        assert client.hear() == (BINARY, b"a")


# What the client does: the code that it is closed with.
MISTAKES = {
    "not-masked": (frame(TEXT, b"x", mask=b""), 1002),
    "reserved-1": (frame(TEXT, b"x", reserved=0x40), 1002),
    "reserved-3": (frame(PING, b"x", reserved=0x10), 1002),
    "opcode-3": (frame(3), 1002),
    "opcode-11": (frame(11), 1002),
    "continuation": (frame(0, b"x"), 1002),
    "within": (frame(TEXT, b"x", final=False) + frame(TEXT, b"y"), 1002),
    "ping-long": (frame(PING, b"x" * 126), 1002),
    "ping-fragment": (frame(PING, b"x", final=False), 1002),
    "length-form": (b"\x82\xfe\x00\x05mask" + b"12345", 1002),
    "length-form-8": (b"\x82\xff" + struct.pack("!Q", 65535) + b"mask", 1002),
    "length-negative": (b"\x82\xff\xff" + b"\xff" * 7 + b"mask", 1002),
    "utf8": (frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"), 1007),
    "utf8-early": (frame(TEXT, b"\xf4\x90", final=False), 1007),
    "utf8-cut": (frame(TEXT, "€".encode()[:2]), 1007),
    "utf8-overlong": (frame(TEXT, b"\xc0\xaf"), 1007),
    "large": (b"\x82\xff" + struct.pack("!Q", (4 << 20) + 1) + b"mask", 1009),
    "large-fragments": (frame(BINARY, b"x" * 4_000_000, final=False) + frame(0, b"x" * 200_000), 1009),
    "close-1-byte": (frame(CLOSE, b"\x03"), 1002),
    "close-code-0": (frame(CLOSE, struct.pack("!H", 0)), 1002),
    "close-code-1005": (frame(CLOSE, struct.pack("!H", 1005)), 1002),
    "close-code-1015": (frame(CLOSE, struct.pack("!H", 1015)), 1002),
    "close-code-5000": (frame(CLOSE, struct.pack("!H", 5000)), 1002),
    "close-reason": (frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
    "close": (frame(CLOSE), 0),
    "close-1001": (frame(CLOSE, struct.pack("!H", 1001) + b"going"), 1001),
    "close-4999": (frame(CLOSE, struct.pack("!H", 4999)), 4999),
}


def test_mistakes_of_clients(app: Server) -> None:
    for name, (said, code) in MISTAKES.items():
        with WebSocket(app, "/echo") as client:
            client.say(frame(TEXT, b"first"))
            assert client.hear() == (TEXT, b"first")
            try:
                client.say(said)
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert client.closed()[0] == code, name
    wait_until(lambda: len(happened(app)) == len(MISTAKES), "not all of them were told")
    assert [line.split()[1] for line in happened(app)] == [str(code or 1005) for _, code in MISTAKES.values()]
    wait_until(lambda: idle(app), "slots are not free")
    assert app.logged("a frame of a client is not masked")


def test_handshakes_that_are_refused(app: Server) -> None:
    good = {
        "Host": "h",
        "Connection": "keep-alive, Upgrade",
        "Upgrade": "WebSocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }

    def ask(method: str = "GET", version: str = "1.1", **changed: str | None) -> bytes:
        fields = {**good, **{name.replace("_", "-"): value for name, value in changed.items()}}
        lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
        with app.connect() as sock:
            sock.sendall("\r\n".join([f"{method} /echo HTTP/{version}", *lines, "", ""]).encode())
            return sock.recv(65536)

    # The RFC's own example.
    answer = ask()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    for version in ("12", "8", None):
        answer = ask(Sec_WebSocket_Version=version)
        assert answer.startswith(b"HTTP/1.1 426 "), answer
        assert b"Sec-WebSocket-Version: 13\r\n" in answer
    for key in (None, "", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZTE="):
        assert ask(Sec_WebSocket_Key=key).startswith(b"HTTP/1.1 400 "), key
    assert ask("POST", Content_Length="0").startswith(b"HTTP/1.1 400 ")
    # Without Upgrade it is a request like any other.
    assert ask(Upgrade=None, Connection=None).startswith(b"HTTP/1.1 200 ")
    assert app.logged("handshake refused")


def test_scope_and_subprotocols(app: Server) -> None:
    with WebSocket(app, "/scope_of?q=1", "Sec-WebSocket-Protocol: one, two") as client:
        scope = eval(client.hear()[1])
        assert (scope["type"], scope["scheme"], scope["path"]) == ("websocket", "ws", "/scope_of")
        assert (scope["query_string"], scope["subprotocols"], scope["http_version"]) == (b"q=1", ["one", "two"], "1.1")
        assert "method" not in scope
        assert eval(client.hear()[1]) == ["webserver", "websocket.http.response"]
        assert client.close_answered() == (1000, "")
    with WebSocket(app, "/protocol", "Sec-WebSocket-Protocol: one", "Sec-WebSocket-Protocol: two,three") as client:
        assert client.field("Sec-WebSocket-Protocol") == "three"
        assert client.field("X-Own") == "1"
        assert client.field("Set-Cookie") == "a=b"
        assert client.field("Connection") == "Upgrade"
        assert client.hear() == (TEXT, b"['one', 'two', 'three']")
        assert client.close()[0] == 1000


def test_answers_that_are_not_a_websocket(app: Server) -> None:
    with WebSocket(app, "/denies", accepted=False) as client:
        assert client.head.startswith(b"HTTP/1.1 403 ")
    wait_until(lambda: "denies: websocket.disconnect 1006" in happened(app), "it is not told")
    with WebSocket(app, "/answers", "Connection: close", accepted=False) as client:
        assert client.head.startswith(b"HTTP/1.1 401 ")
        assert client.field("Content-Type") == "text/plain"
    app.allow("error. group app")
    for path in ("/raises_first", "/silent"):
        with WebSocket(app, path, accepted=False) as client:
            assert client.head.startswith(b"HTTP/1.1 500 "), path
    wait_until(lambda: idle(app), "slots are not free")


def test_the_application_closes(app: Server) -> None:
    app.allow("error. group app")
    with WebSocket(app, "/closes") as client:
        opcode, data = client.hear()
        assert opcode == CLOSE
        # As much of the reason as a frame holds, and no part of a character.
        assert (struct.unpack("!H", data[:2])[0], data[2:].decode()) == (4321, "é" * 61)
        # What comes before the other side's close frame is nobody's.
        client.say(frame(TEXT, b"late"), frame(PING), frame(CLOSE, struct.pack("!H", 4321)))
        client.end()
    wait_until(lambda: happened(app) == ["closes: websocket.disconnect 4321", "closes: RuntimeError"], "not told")
    for path, code in (("/returns", 1000), ("/raises", 1011)):
        with WebSocket(app, path) as client:
            assert client.close_answered() == (code, ""), path
    wait_until(lambda: idle(app), "slots are not free")
    assert app.logged("in a WebSocket")


def test_events_that_are_refused(app: Server) -> None:
    with WebSocket(app, "/mistakes") as client:
        said = [client.hear()[1].decode() for _ in range(8)]
    assert said == ["RuntimeError"] * 2 + ["TypeError"] * 4 + ["ValueError"] * 2


def test_a_client_that_vanishes(app: Server) -> None:
    client = WebSocket(app, "/echo")
    client.drop()
    wait_until(lambda: "echo: 1006 " in happened(app), "receive() does not tell")
    client = WebSocket(app, "/floods")
    client.hear()
    client.drop()
    wait_until(lambda: "flooded: ClientDisconnected" in happened(app), "send() does not tell")
    wait_until(lambda: idle(app), "slots are not free")
    assert "Traceback" not in app.log()


def test_an_application_that_does_not_receive(app: Server) -> None:
    """Pings are answered all the same, up to a message that it has not received; the client is held back."""
    with WebSocket(app, f"/deaf?{2 * SLOWNESS}") as client:
        client.say(frame(PING, b"there?"))
        assert client.hear() == (PONG, b"there?")
        client.sock.setblocking(False)
        data = frame(BINARY, b"x" * 1_000_000)
        sent = 0
        try:
            while sent < 40_000_000:
                sent += client.sock.send(data[sent % len(data) :])
        except BlockingIOError:
            pass
        assert sent < 30_000_000
        client.sock.setblocking(True)
        rest = data[sent % len(data) :] if sent % len(data) else b""
        count = (sent + len(rest)) // len(data)
        sender = threading.Thread(target=client.sock.sendall, args=(rest,))
        sender.start()
        for _ in range(count):
            assert client.hear() == (BINARY, b"x" * 1_000_000)
        sender.join()
        assert client.close() == (1000, "")


def test_a_client_that_does_not_read_holds_the_application(app: Server) -> None:
    with WebSocket(app, "/floods") as client:
        seen: list[list[str]] = []

        def settled() -> bool:
            seen.append(happened(app))
            return len(seen) > 50 and seen[-1] != [""] and seen[-1] == seen[-50]

        wait_until(settled, "send() never waits", 60 * SLOWNESS)
        assert client.hear() == (BINARY, b"x" * 100000)


def test_both_directions_at_once(app: Server) -> None:
    with WebSocket(app, "/both") as client:
        for _ in range(100):
            client.say(frame(BINARY, b"0123456789"))
        said = [client.hear()[1].decode() for _ in range(1001)]
    assert said == [str(number) for number in range(1000)] + ["received 1000"]


def test_keepalive(server: Server) -> None:
    app = prepare(server, f"websocket_ping = {SLOWNESS}s")
    with WebSocket(app, "/echo") as lively, WebSocket(app, "/echo") as dead:
        for _ in range(3):
            opcode, data = lively.hear()
            assert opcode == PING
            lively.say(frame(PONG, data))
        assert dead.hear()[0] == PING
        assert dead.closed()[0] == 1011
        lively.say(frame(TEXT, b"here"))
        while (heard := lively.hear())[0] == PING:
            lively.say(frame(PONG, heard[1]))
        assert heard == (TEXT, b"here")
    wait_until(lambda: any(line.startswith("echo: 1011") for line in happened(app)), "it is not told")
    assert app.logged("does not answer pings")


def test_restart_closes_what_would_last_for_ever(server: Server) -> None:
    app = prepare(server, limits="tunnel_grace = 1s")
    with WebSocket(app, "/echo") as client:
        app.ctl("restart", "app")
        assert client.closed() == (1001, "")
    with WebSocket(app, "/echo") as client:
        client.say(frame(TEXT, b"again"))
        assert client.hear() == (TEXT, b"again")


def test_a_worker_that_is_to_end_closes_its_sockets(app: Server) -> None:
    """It says so at once: the client's next connection reaches another worker."""
    (worker,) = app.pids("worker", "app")
    with WebSocket(app, "/echo") as client:
        os.kill(worker, signal.SIGTERM)
        assert client.close_answered() == (1012, "the server is restarted")
    wait_until(lambda: app.pids("worker", "app") not in ([worker], []), "it is not replaced")
    with WebSocket(app, "/echo") as client:
        client.say(frame(TEXT, b"again"))
        assert client.hear() == (TEXT, b"again")


def test_a_small_limit(server: Server) -> None:
    app = prepare(server, "websocket_message = 1k")
    with WebSocket(app, "/echo") as client:
        client.say(frame(TEXT, b"x" * 1024))
        assert client.hear() == (TEXT, b"x" * 1024)
        client.say(frame(TEXT, b"x" * 1025))
        assert client.closed() == (1009, "a message is too large")
