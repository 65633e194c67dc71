"""1 GiB through a server, one way or the other: by how much does each of its processes grow?

Downwards the client first does not read at all for a while, then reads at a bounded rate with pauses; upwards it sends
as fast as the server takes.  Each uses a fresh instance, so that earlier high-water marks hide nothing; growth is the
greatest RSS seen during the transfer minus that after a few small requests.
"""

import hashlib
import http.client
import socket
import time

from harness import client, instance, proc, requests
from harness.client import Session
from harness.instance import Context, Instance, Options
from harness.peers import Server
from harness.process import BenchError
from harness.store import Store

TOTAL = 1024**3
PIECE = 256 * 1024
STALL_FIRST = 2.0  # seconds without reading
RATE = 160 * 1024**2  # bytes/s read
PAUSE_EVERY, PAUSE = 256 * 1024**2, 0.5
SAMPLE = 0.02  # seconds
WARM_REQUESTS = 50


class Growth:
    """Greatest RSS of every process since the start."""

    def __init__(self, running: Instance) -> None:
        self.running = running
        self.base = {pid: proc.rss_kib(pid) for pid in running.pids()}
        self.peak = dict(self.base)
        self.next = 0.0

    def sample(self) -> None:
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + SAMPLE
        for pid in self.peak:
            self.peak[pid] = max(self.peak[pid], proc.rss_kib(pid))

    def mib(self, pids: list[int]) -> float:
        return max(((self.peak[pid] - self.base[pid]) / 1024 for pid in pids if pid in self.peak), default=0.0)

    def metrics(self) -> dict[str, float]:
        return {
            "growth_mib": self.mib(list(self.peak)),
            "front_mib": self.mib(self.running.front_pids()),
            "worker_mib": self.mib(self.running.worker_pids()),
            "growth_all_mib": sum(self.peak[pid] - self.base[pid] for pid in self.peak) / 1024,
        }


def _warm(running: Instance) -> None:
    session = Session(running.port)
    for number in range(WARM_REQUESTS):
        session.exchange(requests.one(running.server.speaks, "hello", number))
    session.close()


def _download(running: Instance, growth: Growth) -> None:
    path = requests.path_of(running.server.speaks, "stream", 1)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", running.port))
        connection.sendall(f"GET {path}?bytes={TOTAL} HTTP/1.1\r\nHost: {requests.HOST}\r\n\r\n".encode())
        stalled = time.monotonic() + STALL_FIRST
        while time.monotonic() < stalled:
            growth.sample()
            time.sleep(SAMPLE)
        response = http.client.HTTPResponse(connection)
        response.begin()
        if response.status != 200:
            raise BenchError(f"status {response.status}")
        buffer, got, begin = bytearray(PIECE), 0, time.monotonic()
        while piece := response.readinto(buffer):
            if got // PAUSE_EVERY != (got + piece) // PAUSE_EVERY:
                time.sleep(PAUSE)
                begin += PAUSE
            got += piece
            ahead = got / RATE - (time.monotonic() - begin)
            if ahead > 0.005:
                time.sleep(ahead)
            growth.sample()
    if got != TOTAL:
        raise BenchError(f"{got} bytes instead of {TOTAL}")


def _upload(running: Instance, growth: Growth) -> None:
    path = requests.path_of(running.server.speaks, "upload", 1)
    head = f"POST {path} HTTP/1.1\r\nHost: {requests.HOST}\r\nContent-Type: application/octet-stream\r\n"
    piece = requests.upload_body(1)[:PIECE]
    digest = hashlib.sha256()
    with client.connect(running.port) as connection:
        connection.sendall(f"{head}Content-Length: {TOTAL}\r\n\r\n".encode())
        try:
            for _ in range(TOTAL // PIECE):
                connection.sendall(piece)
                digest.update(piece)
                growth.sample()
        except (BrokenPipeError, ConnectionResetError):
            pass  # an early refusal: its answer says more
        answer, _ = client.read_answer(connection)
    expected = f"{TOTAL} {digest.hexdigest()}".encode()
    if answer.status != 200 or answer.body != expected:
        raise BenchError(f"status {answer.status}, {answer.body[:100]!r}")


def measure(context: Context, server: Server, row: str, store: Store) -> None:
    running = instance.start(context, server, Options(big=True))
    try:
        _warm(running)
        growth = Growth(running)
        begin = time.monotonic()
        transfer = _upload if row.startswith("bigupload") else _download
        transfer(running, growth)
        store.add(row, server.name, seconds=time.monotonic() - begin, **growth.metrics())
    except OSError as error:
        raise BenchError(str(error)) from None
    finally:
        instance.end(context, running)
