"""What there is of a server when it is quiet: processes, descriptors, shared memory, files. Taken before and after."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from trial.place import GROUPS, Place

SETTLE = 40.0  # seconds for what was begun to end, and for back-offs to be over
# A front end keeps files of sites open; a worker its ledger, and what its language opens on the way.
MORE = {"frontend": 8, "worker": 4, "manager": 1, "supervisor": 0, "logger": 0, "companion": 0}
EACH_WORKER = ("page", "loans")  # shared memory of each worker


@dataclass(frozen=True)
class State:
    processes: dict[str, int]  # how many, by kind and name
    descriptors: dict[str, int]  # the most of any, by kind and group
    zombies: int
    shared: dict[str, int]  # pieces of shared memory: in /dev/shm, and those that the supervisor made
    run: dict[str, int]  # files by form of their name
    spool: int  # bytes


def look(place: Place) -> State:
    # Of the process that was started only its shadow is left after an upgrade.
    processes = [one for one in place.processes() if one.kind != "stand-in"]
    descriptors: dict[str, int] = {}
    for one in processes:
        label = f"{one.kind} {one.group}".strip()
        try:
            count = len(os.listdir(f"/proc/{one.pid}/fd"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        descriptors[label] = max(count, descriptors.get(label, 0))
    run = Counter(
        "/".join(
            "N" if any(letter.isdigit() for letter in part) else part
            for part in path.relative_to(place.directory).parts
        )
        for path in (place.directory / "run").rglob("*")
    )
    return State(
        processes=dict(sorted(Counter(f"{one.kind} {one.name}".strip() for one in processes).items())),
        descriptors=descriptors,
        zombies=_zombies(place.pid) + _zombies(place.started),
        shared=_shared(place),
        run=dict(sorted(run.items())),
        spool=place.spool.used(),
    )


def _shared(place: Place) -> dict[str, int]:
    """Pieces by name, however many descriptors lead to each; of those that each worker has, how many are too many."""
    pieces = set()
    for name in os.listdir(f"/proc/{place.pid}/fd"):
        path = f"/proc/{place.pid}/fd/{name}"
        try:
            if (target := os.readlink(path)).startswith("/memfd:"):
                pieces.add((target.removeprefix("/memfd:").split(" ")[0], os.stat(path).st_ino))
        except FileNotFoundError:
            continue
    counts = Counter(name for name, _ in pieces)
    workers = len(place.pids("worker"))
    found = {name: count - workers * (name in EACH_WORKER) for name, count in counts.items()}
    return {"/dev/shm": len(os.listdir("/dev/shm")), **{name: count for name, count in found.items() if count}}


def _zombies(pid: int) -> int:
    count = 0
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            count += Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            continue
    return count


def differences(before: State, after: State) -> list[str]:
    wrong = []
    had, has = _steady(_without_replaced(before.processes)), _steady(after.processes)
    if had != has:
        gone = {name: n for name, n in had.items() if has.get(name) != n}
        new = {name: n for name, n in has.items() if had.get(name) != n}
        wrong.append(f"processes: {gone} before, {new} after")
    for label, count in after.descriptors.items():
        # Of a group that has workers only when there is work there may have been none.
        had = before.descriptors.get(label)
        if had is None and label.startswith("worker "):
            had = max((n for other, n in before.descriptors.items() if other.startswith("worker ")), default=0)
        if count > (had or 0) + MORE[label.partition(" ")[0]]:
            wrong.append(f"descriptors of {label}: {had} before, {count} after")
    if after.zombies:
        wrong.append(f"{after.zombies} children that ended were not reaped")
    # Before, a worker may have been on its way that has pages and no name yet.
    if any(count > before.shared.get(name, 0) for name, count in after.shared.items()):
        wrong.append(f"shared memory: {before.shared} before, {after.shared} after")
    if after.run != before.run:
        wrong.append(f"files in the run directory: {before.run} before, {after.run} after")
    if after.spool > before.spool:
        wrong.append(f"{after.spool - before.spool} bytes are left in the spool")
    return wrong


def _without_replaced(processes: dict[str, int]) -> dict[str, int]:
    """Before, a worker may still have been there that another had replaced."""
    return {name: 1 if name.startswith("worker ") else n for name, n in processes.items()}


def _steady(processes: dict[str, int]) -> dict[str, int]:
    """Without workers of groups that have as many as they need; but never two of one number."""
    grow = tuple(f"worker {name} " for name, group in GROUPS.items() if group.grows)
    return {name: n for name, n in processes.items() if n > 1 or not name.startswith(grow)}


def wait_for(place: Place, before: State) -> list[str]:
    """The differences that stay."""
    deadline = time.monotonic() + SETTLE
    while True:
        wrong = differences(before, look(place))
        if not wrong or time.monotonic() >= deadline:
            return wrong
        time.sleep(0.25)
