"""Reads figures about processes from /proc.  A process that is gone counts as nothing, never as an error."""

import os
import re
from dataclasses import dataclass

TICK = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


def _read(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third on: [0] state, [1] ppid, [11..14] utime stime cutime cstime, [19] start."""
    text = _read(f"/proc/{pid}/stat")
    return text.rpartition(")")[2].split() if text else None


def start_time(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def state(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[0] if fields else None


def tree(roots: list[int]) -> list[int]:
    """The roots and all their descendants, by a walk over parent pids."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))):
            children.setdefault(int(fields[1]), []).append(int(name))
    found, todo = [], list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.append(pid)
            todo += children.get(pid, [])
    return found


def threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        return []


def title(pid: int) -> str:
    return (_read(f"/proc/{pid}/cmdline") or "").replace("\0", " ").strip()


def matching(pids: list[int], pattern: str) -> list[int]:
    return [pid for pid in pids if re.search(pattern, title(pid))]


def cpu_seconds(pids: list[int]) -> float:
    """User and system time, with that of children already reaped (so a worker that ends is not lost)."""
    ticks = 0
    for pid in pids:
        if fields := _stat(pid):
            ticks += sum(int(n) for n in fields[11:15])
    return ticks / TICK


def cpu_by_process(pids: list[int]) -> dict[int, float]:
    return {pid: sum(int(n) for n in fields[11:15]) / TICK for pid in pids if (fields := _stat(pid))}


def _kib(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", text, re.M)
    return int(found.group(1)) if found else 0


def pss_kib(pids: list[int]) -> int:
    return sum(_kib(_read(f"/proc/{pid}/smaps_rollup") or "", "Pss") for pid in pids)


def private_kib(pid: int) -> int:
    text = _read(f"/proc/{pid}/smaps_rollup") or ""
    return _kib(text, "Private_Clean") + _kib(text, "Private_Dirty")


def rss_kib(pid: int) -> int:
    text = _read(f"/proc/{pid}/statm")
    return int(text.split()[1]) * PAGE_KIB if text else 0


@dataclass(frozen=True)
class Switches:
    """Context switches of all threads: voluntary ones are wake-ups that were waited for."""

    voluntary: int
    involuntary: int


def switches(pid: int) -> Switches:
    voluntary = involuntary = 0
    for tid in threads(pid):
        text = _read(f"/proc/{pid}/task/{tid}/status") or ""
        voluntary += _kib(text, "voluntary_ctxt_switches")
        involuntary += _kib(text, "nonvoluntary_ctxt_switches")
    return Switches(voluntary, involuntary)


def all_switches(pids: list[int]) -> int:
    return sum(s.voluntary + s.involuntary for s in map(switches, pids))


@dataclass(frozen=True)
class MachineTime:
    """Seconds since boot, summed over all cores."""

    busy: float
    idle: float
    steal: float


def machine_time() -> MachineTime:
    with open("/proc/stat", encoding="ascii") as file:
        numbers = [int(n) / TICK for n in file.readline().split()[1:9]]
    user, nice, system, idle, iowait, irq, softirq, steal = numbers
    return MachineTime(user + nice + system + irq + softirq, idle + iowait, steal)
