"""Runs a request and writes into a ledger what it did: "B id" when it begins, "E id sum length" when it has ended."""

import hashlib
import os
import threading
import time
from urllib.parse import parse_qsl

PIECE = 65536
opened = {}
lock = threading.Lock()


def note(line):
    pid = os.getpid()
    with lock:
        if pid not in opened:
            # Two groups run this, as two users: one of them may get the number that the other's process had.
            name = "%s/python.%d.%d" % (os.environ["LEDGER"], pid, os.getuid())
            opened.clear()
            opened[pid] = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(opened[pid], line.encode())


def application(environ, start_response):
    asked = dict(parse_qsl(environ["QUERY_STRING"]))
    name, out = asked["id"], int(asked["out"])
    note("B %s\n" % name)
    body = hashlib.sha256()
    while True:
        data = environ["wsgi.input"].read(PIECE)
        if not data:
            break
        body.update(data)
    time.sleep(int(asked["work"]) / 1000)
    text = hashlib.sha256(name.encode()).hexdigest().encode()
    fields = [("Content-Type", "text/plain"), ("X-Id", name), ("X-Sum", body.hexdigest())]
    if asked["stream"] == "0":
        fields.append(("Content-Length", str(out)))
        note("E %s %s %d\n" % (name, body.hexdigest(), out))
        start_response("200 OK", fields)
        return [text * (out // 64)]
    start_response("200 OK", fields)
    return stream(name, body.hexdigest(), text, out)


def stream(name, body, text, out):
    piece = text * (PIECE // 64)
    for at in range(0, out, PIECE):
        yield piece[: out - at]
    note("E %s %s %d\n" % (name, body, out))
