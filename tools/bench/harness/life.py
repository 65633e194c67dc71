"""What a server costs apart from requests: time to its first answer, memory fresh and afterwards, wake-ups while idle."""

import time

from harness import instance, proc
from harness.instance import Context, Instance
from harness.peers import Server
from harness.store import Store

IDLE_SECONDS = 10.0


def startup(context: Context, server: Server, row: str, store: Store) -> None:
    """From making the first process to the first hello, asked again every 2 ms."""
    running = instance.start(context, server, wait=False)
    try:
        seconds = instance.wait_ready(running, every=0.002)
    finally:
        instance.end(context, running)
    store.add(row, server.name, seconds=seconds)


def memory(running: Instance, row: str, when: str, store: Store) -> None:
    """PSS over all processes in MiB, and the greatest private memory of a worker.  when: "fresh" or "after"."""
    pids = running.pids()
    metrics = {f"pss_{when}_mib": proc.pss_kib(pids) / 1024, f"processes_{when}": float(len(pids))}
    if workers := running.worker_pids():
        metrics[f"worker_private_{when}_mib"] = max(proc.private_kib(pid) for pid in workers) / 1024
    store.add(row, running.server.name, **metrics)


def wakeups(all_running: list[Instance], row: str, store: Store) -> None:
    """Voluntary context switches a second of every process, all servers in the same ten idle seconds."""
    before = {one.server.name: {pid: proc.switches(pid).voluntary for pid in one.pids()} for one in all_running}
    cpu = {one.server.name: proc.cpu_by_process(one.pids()) for one in all_running}
    begin = time.monotonic()
    time.sleep(IDLE_SECONDS)
    seconds = time.monotonic() - begin
    for one in all_running:
        name = one.server.name
        rates = {
            pid: (proc.switches(pid).voluntary - count) / seconds
            for pid, count in before[name].items()
            if proc.start_time(pid) is not None
        }
        if not rates:
            continue
        used = proc.cpu_by_process(list(rates))
        busiest = max(rates, key=lambda pid: rates[pid])
        store.add(
            row,
            name,
            most_per_second=rates[busiest],
            all_per_second=sum(rates.values()),
            cpu_share=max((used.get(pid, 0.0) - cpu[name].get(pid, 0.0)) / seconds for pid in rates),
        )
        store.notes.append(f"wakeups: busiest of {name} is `{proc.title(busiest)[:60]}`: {rates[busiest]:.1f}/s")
