"""Two ledgers: what clients saw of each request, and what applications wrote while they ran it.

Owns both, judges neither. Clients' entries come from many threads; applications' are read once all is over.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from trial.client import Outcome


class Ledger:
    """What clients saw. Of a good answer only what will be compared is kept, for there are very many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.good: dict[str, tuple[str, int]] = {}  # id: checksum of the body, length of the answer
        self.asked: set[str] = set()  # ids that an application may have run
        self.other: list[Outcome] = []  # all that did not end in 2xx
        self.resets: list[Outcome] = []
        self.count = 0
        self.files = 0  # of them, good answers of files
        self.kinds: Counter[str] = Counter()  # of good ones, by what was asked

    def add(self, outcome: Outcome) -> None:
        ask = outcome.ask
        entry = (outcome.checksum, ask.out)
        with self._lock:
            self.count += 1
            if ask.language:
                self.asked.add(ask.id)
            if not outcome.good:
                self.other.append(outcome)
                return
            self.kinds[ask.kind] += 1
            if ask.language:
                self.good[ask.id] = entry
            else:
                self.files += 1

    def reset_while_idle(self, outcome: Outcome) -> None:
        with self._lock:
            self.resets.append(outcome)

    def answered(self) -> int:
        """How many were answered 2xx."""
        return len(self.good) + self.files

    def vanished(self) -> int:
        return sum(1 for outcome in self.other if outcome.kind == "vanished")


@dataclass
class Runs:
    """What applications did, by request."""

    begun: Counter[str] = field(default_factory=Counter)
    ended: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    spoilt: list[str] = field(default_factory=list)  # lines that are none

    def __post_init__(self) -> None:
        self.where: dict[str, list[str]] = {}


def read_runs(directory: Path) -> Runs:
    runs = Runs()
    for path in sorted(directory.iterdir()):
        for line in path.read_text(errors="replace").splitlines():
            words = line.split(" ")
            if words[0] == "B" and len(words) == 2:
                runs.begun[words[1]] += 1
                runs.where.setdefault(words[1], []).append(path.name)
            elif words[0] == "E" and len(words) == 4 and words[3].isdigit():
                runs.ended.setdefault(words[1], []).append((words[2], int(words[3])))
            else:
                runs.spoilt.append(f"{path.name}: {line[:200]}")
    return runs
