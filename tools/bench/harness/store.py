"""Collected figures: row, server, metric, one value a round.  Also what could not be measured, and why."""

import json
import statistics
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Summary:
    median: float
    low: float
    high: float
    rounds: int


@dataclass
class Store:
    figures: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    failures: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, row: str, server: str, **metrics: float) -> None:
        place = self.figures.setdefault(row, {}).setdefault(server, {})
        for name, value in metrics.items():
            place.setdefault(name, []).append(round(value, 4))

    def fail(self, row: str, server: str, why: str) -> None:
        lines = [line.strip() for line in why.splitlines() if line.strip()]
        why = " / ".join(lines[:1] + lines[1:][-2:])[:400]  # what, and how its log ends
        reasons = self.failures.setdefault(row, {}).setdefault(server, [])
        if why not in reasons:
            reasons.append(why)

    def failed(self, row: str, server: str) -> bool:
        return server in self.failures.get(row, {})

    def summary(self, row: str, server: str, metric: str) -> Summary | None:
        values = self.figures.get(row, {}).get(server, {}).get(metric)
        if not values:
            return None
        return Summary(statistics.median(values), min(values), max(values), len(values))

    def text(self, head: dict[str, object], verdicts: list[dict[str, object]]) -> str:
        whole = {**head, "verdicts": verdicts, "rows": self.figures, "failures": self.failures, "notes": self.notes}
        return json.dumps(whole, indent=1, sort_keys=False) + "\n"
