"""10,000 idle keep-alive connections: memory of the front ends for each, and hello's p99 beside them.

Each connection has had one request answered.  Memory is PSS of the front-end processes (all processes where a server
has no separate kind); kernel socket buffers are not in it.
"""

import errno
import select
import socket
import struct

from harness import client, machine, proc, requests, wrk
from harness.instance import Context, Instance
from harness.process import BenchError
from harness.store import Store

CONNECTIONS = 10_000
LOAD_CONNECTIONS = 64
BATCH = 200  # opened at a time, well below every backlog


def _open_batch(running: Instance, count: int, request: bytes, held: list[socket.socket]) -> None:
    batch = []
    for _ in range(count):
        connection = socket.socket()
        # close() sends RST: 10,000 connections in TIME-WAIT would be a part of the next cell
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.settimeout(30)
        connection.connect(("127.0.0.1", running.port))
        held.append(connection)
        batch.append(connection)
        connection.sendall(request)
    for connection in batch:
        answer, stays = client.read_answer(connection)
        if answer.status != 200 or not stays:
            raise BenchError(f"idle connection {len(held)}: status {answer.status}, stays open: {stays}")


def _still_open(held: list[socket.socket]) -> int:
    poll = select.poll()
    for connection in held:
        poll.register(connection.fileno(), select.POLLIN | select.POLLRDHUP)
    return len(held) - len(poll.poll(0))


def measure(context: Context, running: Instance, row: str, seconds: float, store: Store) -> None:
    language = running.server.speaks
    texts = requests.write(context.site.requests, language, "hello")
    log = context.site.base / "wrk.log"
    machine.wait_quiet()
    quiet = wrk.run(running.port, texts, LOAD_CONNECTIONS, seconds, log)
    machine.wait_quiet(3.0)
    tree = running.pids()
    front = running.front_pids() or tree
    front_before, tree_before = proc.pss_kib(front), proc.pss_kib(tree)
    held: list[socket.socket] = []
    try:
        while len(held) < CONNECTIONS:
            _open_batch(running, min(BATCH, CONNECTIONS - len(held)), requests.one(language, "hello", len(held)), held)
        front_after, tree_after = proc.pss_kib(front), proc.pss_kib(running.pids())
        machine.wait_quiet(3.0)
        loaded = wrk.run(running.port, texts, LOAD_CONNECTIONS, seconds, log)
        still = _still_open(held)
    except OSError as error:
        if error.errno == errno.EMFILE:
            raise BenchError(f"the client may not open {CONNECTIONS} files: raise ulimit -n") from None
        raise BenchError(f"at idle connection {len(held)}: {error}") from None
    finally:
        for connection in held:
            connection.close()
    if still < CONNECTIONS:
        store.fail(row, running.server.name, f"only {still} of {CONNECTIONS} idle connections were still open")
    store.add(
        row,
        running.server.name,
        front_bytes=(front_after - front_before) * 1024 / CONNECTIONS,
        all_bytes=(tree_after - tree_before) * 1024 / CONNECTIONS,
        quiet_p99_us=quiet.p99,
        loaded_p99_us=loaded.p99,
        p99_ratio=loaded.p99 / quiet.p99,
        rate_ratio=(loaded.requests / loaded.duration) / (quiet.requests / quiet.duration),
        still_open=still,
    )
