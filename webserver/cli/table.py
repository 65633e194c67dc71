"""The answer to `status` as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Entry = dict[str, Any]

COLUMNS: tuple[tuple[str, Callable[[Entry], object]], ...] = (
    ("PROCESS", lambda entry: f"{entry.get('kind', '?')} {entry.get('name') or ''}".strip()),
    ("GROUP", lambda entry: entry.get("group")),
    ("GEN", lambda entry: entry.get("generation")),
    ("PID", lambda entry: entry.get("pid")),
    ("STATE", lambda entry: entry.get("stage") or entry.get("state")),
    ("AGE", lambda entry: _age(entry.get("age", 0)) if entry.get("pid") else None),
    ("REQUESTS", lambda entry: entry.get("requests")),
    ("BUSY", lambda entry: f"{entry['busy']}/{entry['slots']}" if "slots" in entry else None),
    ("PLACED", lambda entry: entry.get("queued")),
    ("PRIVATE", lambda entry: _size(entry, "private")),
    ("SHARED", lambda entry: _size(entry, "shared")),
)
GROUP_COLUMNS: tuple[tuple[str, Callable[[Entry], object]], ...] = (
    ("GROUP", lambda entry: entry.get("name")),
    ("LANGUAGE", lambda entry: entry.get("language")),
    ("USER", lambda entry: entry.get("user")),
    ("STATE", lambda entry: entry.get("state")),
    ("GEN", lambda entry: entry.get("generation")),
    ("REQUESTS", lambda entry: entry.get("requests")),
    ("IDLE", lambda entry: _count(entry, "idle")),
    ("WORKING", lambda entry: _count(entry, "busy")),
    ("BUSY", lambda entry: f"{entry.get('busy')}/{entry.get('slots')}"),
    ("QUEUE", lambda entry: entry.get("queued")),
    ("WAITED", lambda entry: _waited(entry)),
    ("MEMORY", lambda entry: _size(entry, "pss")),
    ("", lambda entry: first_line(str(entry.get("message") or ""))),
)
COMPANION_COLUMNS: tuple[tuple[str, Callable[[Entry], object]], ...] = (
    ("COMPANION", lambda entry: entry.get("name")),
    ("USER", lambda entry: entry.get("user")),
    ("STATE", lambda entry: entry.get("state")),
    ("READY", lambda entry: "yes" if entry.get("ready") else "no"),
    ("AFTER", lambda entry: ", ".join(entry.get("after") or [])),
    ("RESTARTS", lambda entry: entry.get("restarts")),
    ("NEXT RUN", lambda entry: entry.get("next_run")),
    ("", lambda entry: first_line(str(entry.get("message") or entry.get("said") or ""))),
)
NUMBERS = {
    "GEN", "PID", "AGE", "REQUESTS", "IDLE", "WORKING", "BUSY", "PLACED", "QUEUE", "WAITED", "PRIVATE", "SHARED",
    "MEMORY", "RESTARTS",
}  # fmt: skip


def status_text(answer: Entry) -> str:
    parts = ["listening on " + (", ".join(answer.get("listen", [])) or "nothing") + "\n"]
    if not answer.get("separated", True):
        parts.append("started without root: all groups run as one user and are not protected from each other\n")
    parts.append("\n" + table(COLUMNS, answer.get("processes", [])))
    if answer.get("groups"):
        parts.append("\n" + table(GROUP_COLUMNS, answer["groups"]))
    if answer.get("companions"):
        parts.append("\n" + table(COMPANION_COLUMNS, answer["companions"]))
    parts += [_takeover(entry) for entry in answer.get("groups", []) if isinstance(entry.get("takeover"), dict)]
    if isinstance(answer.get("draining"), dict):
        parts.append(
            "\n{connections} connections are left; they are cut off in {left:g} s\n".format(**answer["draining"])
        )
    left = [line for entry in answer.get("processes", []) for line in (*_left(entry), *_going(entry))]
    return "".join([*parts, "\n" * bool(left), *left])


def _takeover(entry: Entry) -> str:
    """How far a restart is."""
    now = entry["takeover"]
    return printable(
        f"\ngroup {entry.get('name')}: generation {now['to']} takes over: {now['proven']} of {now['processes']} workers"
        f" serve; of the generation before {now['old']} serve and {now['leaving']} finish what they have\n"
    )


def _going(entry: Entry) -> list[str]:
    """Why a worker is to go."""
    if not entry.get("going"):
        return []
    line = f"group {entry.get('group')}: worker {entry.get('name')} (process {entry.get('pid')}) goes: {entry['going']}"
    return [printable(line).replace("\n", " ") + "\n"]


def stack_text(answer: Entry) -> str:
    """What each worker does now. One that did not tell is among the answer's errors."""
    parts = []
    for entry in answer.get("workers", []):
        head = f"worker {entry.get('name')} of group {entry.get('group')} generation {entry.get('generation')}"
        text = printable(entry.get("stack") or "").rstrip("\n")
        if text:
            parts.append(f"{head} (process {entry.get('pid')})\n" + "".join(f"  {line}\n" for line in text.split("\n")))
    return "\n".join(parts)


def _left(entry: Entry) -> list[str]:
    """What preloading left behind in a manager."""
    head = f"group {entry.get('group')} generation {entry.get('generation')}: preloading left"
    lines = []
    if entry.get("threads_left"):
        lines.append(f"{head} threads that no worker has: {', '.join(entry['threads_left'])}")
    if entry.get("shared"):
        lines.append(f"{head} open what all workers share: {', '.join(entry['shared'])}")
    return [printable(line).replace("\n", " ") + "\n" for line in lines]


def first_line(text: str) -> str:
    line, newline, _ = text.partition("\n")
    return line + (" ..." if newline else "")


def table(columns: Sequence[tuple[str, Callable[[Entry], object]]], entries: Sequence[Entry]) -> str:
    rows = [[name for name, _ in columns]]
    for entry in entries:
        rows.append(
            [
                "-" if (value := get(entry)) is None or value == "" else printable(value).replace("\n", " ")
                for _, get in columns
            ]
        )
    if not columns[-1][0]:
        for row in rows[1:]:
            row[-1] = "" if row[-1] == "-" else row[-1]
    widths = [max(len(row[at]) for row in rows) for at in range(len(columns))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if name in NUMBERS else cell.ljust(width)
            for (name, _), cell, width in zip(columns, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def printable(text: object) -> str:
    """Messages come from applications: nothing in them may steer the terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in str(text))


def _count(entry: Entry, name: str) -> object:
    """Of a group: workers in this state."""
    workers = entry.get("workers")
    return workers.get(name) if isinstance(workers, dict) else None


def _waited(entry: Entry) -> str | None:
    """Of a group with a queue: how long the longest has been in it."""
    return f"{entry['waited']:.1f}s" if entry.get("queued") and "waited" in entry else None


def _size(entry: Entry, name: str) -> str | None:
    memory = entry.get("memory")
    return f"{memory[name] / (1 << 20):.1f}M" if isinstance(memory, dict) else None


def _age(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
