"""Measures one row on one server: rate, CPU per request, latencies, context switches; wrk does the load."""

import os

from harness import machine, proc, process, requests, wrk
from harness.instance import Context, Instance
from harness.process import BenchError
from harness.rows import Row
from harness.store import Store

BAD_SHARE = 0.001  # of the answers may be client-side read errors before the cell is void; a bad status never may


def measure(context: Context, running: Instance, row: Row, seconds: float, store: Store) -> None:
    texts = requests.write(context.site.requests, row.language, row.kind)
    machine.wait_quiet()
    pids = running.pids()
    cpus = os.sched_getaffinity(0)
    core = min(cpus) if row.pinned else None
    if core is not None:
        process.pin(pids, {core})
    try:
        server_before, machine_before = proc.cpu_seconds(pids), proc.machine_time()
        switches_before = proc.all_switches(pids)
        load = wrk.run(running.port, texts, row.connections, seconds * row.slow, context.site.base / "wrk.log", core)
        machine_after, switches_after = proc.machine_time(), proc.all_switches(pids)
        server_at_end = proc.cpu_seconds(pids)
        machine.wait_quiet(3.0)  # some servers go on working after the client has left; that is theirs to pay
        server_after = proc.cpu_seconds(running.pids())
    finally:
        if core is not None:
            process.pin(running.pids(), cpus)
    running.check_alive()
    _record(load, row, running, store, server_after - server_before, switches_after - switches_before)
    busy = machine_after.busy - machine_before.busy
    foreign = busy - load.client_cpu - (server_at_end - server_before)
    store.add(
        row.name,
        running.server.name,
        foreign_cores=max(0.0, foreign / load.duration),  # what else ran on the machine meanwhile
        steal_cores=(machine_after.steal - machine_before.steal) / load.duration,
    )


def _record(load: wrk.Load, row: Row, running: Instance, store: Store, cpu: float, switches: int) -> None:
    name = running.server.name
    units = load.bytes / row.unit_bytes if row.unit_bytes else load.requests
    if not units:
        raise BenchError(f"no answer at all in {load.duration:.1f} s; {load.bad}")
    errors = sum(load.errors.values())
    if load.errors["status"] or errors > max(3, BAD_SHARE * units):
        store.fail(row.name, name, f"client saw errors: {load.bad} at {load.requests} answers")
    store.add(
        row.name,
        name,
        rate=units / load.duration,
        cpu_us=cpu * 1e6 / units,
        p50_us=load.p50,
        p99_us=load.p99,
        max_us=load.max,
        switches=switches / units,
        client_cpu_us=load.client_cpu * 1e6 / units,
        errors=errors,
        answers=load.requests,
    )
