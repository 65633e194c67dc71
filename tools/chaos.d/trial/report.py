"""What a run says of itself: one table, then each finding with the faults near it."""

from __future__ import annotations

from collections import Counter

from trial.faults import KINDS, Done
from trial.judge import Finding, Judge
from trial.ledger import Ledger

SHOWN = 40  # findings; more are counted


def table(ledger: Ledger, history: list[Done], judge: Judge, missed: list[str]) -> list[str]:
    done, allowed = Counter(one.kind for one in history), judge.judgement.allowed
    noted = Counter(one.kind for one in history if one.note.startswith("refused"))
    lines = [f"{'fault':24} {'done':>5} {'refused':>8} {'cost':>5}  what it may cost"]
    for name, kind in KINDS.items():
        row = f"{name:24} {done[name]:5} {noted[name] or '':>8} {allowed[name] or '':>5}"
        lines.append(f"{row}  {kind.costs or 'nothing'}")
    for name in sorted(set(allowed) - set(KINDS)):
        lines.append(f"{name:24} {'':5} {'':8} {allowed[name]:5}")
    if missed:
        lines.append(f"not done, as nothing was there to be hit: {len(missed)}")
    kinds = ", ".join(f"{count:,} {name}" for name, count in sorted(ledger.kinds.items()))
    lines.append(f"answered 2xx by kind: {kinds}")
    return lines


def share(ledger: Ledger) -> float:
    """Of the requests whose clients stayed, how many were answered 2xx."""
    asked = ledger.count - ledger.vanished()
    return ledger.answered() / asked if asked else 0.0


def findings(judge: Judge, origin: float, log_near: dict[int, list[str]]) -> list[str]:
    found = judge.judgement.findings
    lines = []
    for number, one in enumerate(found[:SHOWN]):
        lines.append(_headline(one, origin))
        lines += [f"      fault {done.text(origin)}" for done in judge.near(one)] if one.at else []
        lines += [f"      log   {line}" for line in log_near.get(number, [])]
    if len(found) > SHOWN:
        kinds = Counter(one.kind for one in found)
        lines.append(f"and {len(found) - SHOWN} more; in all: {dict(kinds)}")
    return lines


def _headline(one: Finding, origin: float) -> str:
    at = f" at {one.at - origin:.3f}s" if one.at else ""
    return f"{one.kind.upper()} {one.id}{at}: {one.text}"
