"""A request that is asked back while its body is still to come, and that had begun after all."""

from __future__ import annotations

import hashlib
import os
import signal

from serving import Server, read_all, wait_until

CONFIG = """
[groups]
  [[app]]
  language = python
  application = app.wsgi
  processes = 1
  threads = 1
  request_timeout = 20s
[sites]
  [[site]]
  hosts = *
    [[[routes]]]
    / = group:app
"""
APPLICATION = """
import hashlib

def application(environ, start_response):
    digest = hashlib.sha256()
    while piece := environ["wsgi.input"].read(100_000):
        digest.update(piece)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [digest.hexdigest().encode()]
"""
BODY = os.urandom(200_000)
TIMES = 6


def asked_back(server: Server) -> int:
    """How many requests the front end has asked back, as its last beat said."""
    found = [one["stats"].get("recalled", 0) for one in server.status()["processes"] if one["kind"] == "front end"]
    return int(sum(found))


def test_its_body_goes_on(server: Server) -> None:
    """The worker stands still: it is asked for the request before it can begin, and the body comes before it answers."""
    server.file("app.wsgi", APPLICATION)
    server.write(CONFIG, "frontends = 1")
    server.start()
    (worker,) = server.pids("worker")
    for _ in range(TIMES):
        before = asked_back(server)
        with server.connect() as sock:
            os.kill(worker, signal.SIGSTOP)
            try:
                sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 200000\r\n\r\n")
                wait_until(lambda before=before: asked_back(server) > before, "it is not asked back")
                sock.sendall(BODY)
            finally:
                os.kill(worker, signal.SIGCONT)
            # Whether it begins, or is given back first, is for its threads to find out.
            assert read_all(sock).endswith(hashlib.sha256(BODY).hexdigest().encode())
