"""How soon is a changed static file served?  Rewritten in place, and another one renamed over it; same size each time.

Eight connections, so that every front end is asked; the time is that of the first round in which all eight saw the new
content.  A validator of the old content must then no longer give 304.
"""

import os
import time
from pathlib import Path

from harness import client, requests
from harness.client import Session
from harness.instance import Context, Instance
from harness.process import BenchError
from harness.store import Store

SESSIONS = 8
LIMIT = 5.0
SIZE = 2000


def _request(path: str, etag: str = "") -> bytes:
    condition = f"If-None-Match: {etag}\r\n" if etag else ""
    return f"GET {path} HTTP/1.1\r\nHost: {requests.HOST}\r\n{condition}\r\n".encode()


def _until_new(sessions: list[Session], path: str, old: bytes, new: bytes) -> float:
    begin = time.monotonic()
    while time.monotonic() - begin < LIMIT:
        bodies = [session.exchange(_request(path)).body for session in sessions]
        if all(body == new for body in bodies):
            return time.monotonic() - begin
        if any(body not in (old, new, b"") for body in bodies):
            raise BenchError("an answer was neither the old content nor the new")
        time.sleep(0.005)
    return LIMIT


def measure(context: Context, running: Instance, row: str, store: Store) -> None:
    directory = context.site.static / "live"
    directory.mkdir(exist_ok=True)
    name = f"{running.server.name}.txt"
    file, path = directory / name, f"/live/{name}"
    versions = [(letter * (SIZE - 1) + "\n").encode() for letter in "abc"]
    file.write_bytes(versions[0])
    os.utime(file, (time.time() - 100, time.time() - 100))
    sessions = [Session(running.port) for _ in range(SESSIONS)]
    try:
        for _ in range(20):  # into every cache that there is
            first = [session.exchange(_request(path)) for session in sessions][0]
        if first.body != versions[0]:
            raise BenchError(f"status {first.status} for a new file")
        _write_in_place(file, versions[1])
        rewrite = _until_new(sessions, path, versions[0], versions[1])
        other = directory / f"{name}.new"
        other.write_bytes(versions[2])
        other.rename(file)
        rename = _until_new(sessions, path, versions[1], versions[2])
        again = client.exchange(running.port, _request(path, first.one("ETag"))) if first.one("ETag") else first
        if again.status != 200:
            raise BenchError(f"the old ETag still gives {again.status}")
    except OSError as error:
        raise BenchError(str(error)) from None
    finally:
        for session in sessions:
            session.close()
        file.unlink(missing_ok=True)
    store.add(row, running.server.name, rewrite_s=rewrite, rename_s=rename)


def _write_in_place(file: Path, content: bytes) -> None:
    fd = os.open(file, os.O_WRONLY)
    try:
        os.pwrite(fd, content, 0)
    finally:
        os.close(fd)
