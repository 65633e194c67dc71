"""How much memory each process has for itself and how much it shares: smaps_rollup, for webserverctl status.

Read here and not by the server: adding up a large process's pages takes milliseconds, and nobody's request or heartbeat
waits for that. Who may ask a server for its status may read this too: root, or the user that all of it runs as.
"""

from __future__ import annotations

from typing import Any

# Of proc(5); what is private and what is shared are told apart by how many processes map a page.
_SUMS = {
    "Rss": "rss",
    "Pss": "pss",
    "Private_Clean": "private",
    "Private_Dirty": "private",
    "Shared_Clean": "shared",
    "Shared_Dirty": "shared",
    "Swap": "swap",
}


def measure(pid: int) -> dict[str, int] | None:
    """Bytes; None if the process is gone or may not be looked at."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as lines:
            return added(lines.read())
    except OSError:
        return None


def added(text: str) -> dict[str, int]:
    """The sums of a smaps_rollup."""
    found = dict.fromkeys(_SUMS.values(), 0)
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name in _SUMS:
            found[_SUMS[name]] += int(rest.split()[0]) * 1024
    return found


def add(answer: dict[str, Any]) -> None:
    """Put "memory" into each process and each group of a status."""
    groups: dict[str, list[dict[str, int]]] = {}
    for entry in answer.get("processes", []):
        entry["memory"] = measure(entry["pid"]) if entry.get("pid") else None
        if entry["memory"] is not None and entry.get("group"):
            groups.setdefault(entry["group"], []).append(entry["memory"])
    for group in answer.get("groups", []):
        known = groups.get(group["name"], [])
        # What the processes have between them: each shared page in parts, one for each that maps it.
        group["memory"] = {name: sum(one[name] for one in known) for name in ("rss", "pss", "swap")} if known else None
