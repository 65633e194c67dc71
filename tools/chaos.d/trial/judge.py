"""Ledgers, logs and the history of faults against each other: what was lost, wrong, run twice, or not explained.

Pure but for its inputs; works once all is over. A finding is a failure of the run. What the table of faults allows is
counted, so that it can be seen that it was as little as it had to be.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from trial import causes
from trial.client import Outcome
from trial.faults import Done
from trial.ledger import Ledger, Runs
from trial.logs import LogReader, Said
from trial.place import GROUPS

ACCESS_DELAY = 1.5  # seconds that a front end keeps records of the access log, and then some
NEAR = 5.0  # seconds before something wrong of which the faults are shown
KINDS = ("lost", "twice", "unexplained", "operation", "wrong", "leftover")  # of findings, as they are shown


@dataclass(frozen=True)
class Finding:
    kind: str  # lost, wrong, twice, unexplained, operation, leftover
    id: str
    at: float
    text: str


@dataclass
class Judgement:
    findings: list[Finding] = field(default_factory=list)
    allowed: Counter[str] = field(default_factory=Counter)  # by fault

    def add(self, kind: str, name: str, at: float, text: str) -> None:
        self.findings.append(Finding(kind, name, at, text))


class Judge:
    def __init__(self, ledger: Ledger, runs: Runs, logs: LogReader, history: list[Done]) -> None:
        self._ledger = ledger
        self._runs = runs
        self._logs = logs
        self._history = history
        self._begins = [done.began for done in history]
        self._claimed: set[tuple[str, str]] = set()
        self._deaths: Counter[tuple[str, str]] = Counter()
        self.judgement = Judgement()

    def run(self) -> Judgement:
        self._compare()
        for outcome in self._ledger.other:
            self._judge(outcome)
        for (group, worker), count in self._deaths.items():
            if count > GROUPS[group].threads:
                text = f"worker {worker} of group {group} is said to have run {count} requests at once"
                self.judgement.add("wrong", f"{group}/{worker}", 0.0, text)
        for done in self._history:
            if done.wrong:
                self.judgement.add("operation", done.kind, done.began, f"{done.target}: {done.wrong}")
        self.judgement.findings.sort(key=lambda one: KINDS.index(one.kind))
        return self.judgement

    # The two ledgers

    def _compare(self) -> None:
        add, runs, ledger = self.judgement.add, self._runs, self._ledger
        for name, (checksum, length) in ledger.good.items():
            ended = runs.ended.get(name, [])
            if runs.begun[name] == 0:
                add("lost", name, 0.0, "answered 2xx, and no application has run it")
            elif not ended:
                add("wrong", name, 0.0, "answered 2xx, and no application has finished it")
            elif ended[0] != (checksum, length):
                add("wrong", name, 0.0, f"the application read {ended[0]}, sent was {(checksum, length)}")
        for name, count in runs.begun.items():
            if count > 1 or len(runs.ended.get(name, ())) > 1:
                add("twice", name, 0.0, f"begun {count} times, in {', '.join(runs.where[name])}")
            if name not in ledger.asked:
                add("wrong", name, 0.0, "an application ran what nobody asked for")
        for text in runs.spoilt:
            add("wrong", "-", 0.0, f"an application's ledger has a line that is none: {text}")

    # One request that was not answered 2xx

    def _judge(self, outcome: Outcome) -> None:
        if outcome.kind == "vanished":
            return
        if outcome.kind in ("refused", "silent", "wrong"):
            kind = "wrong" if outcome.kind == "wrong" else "lost"
            self._found(kind, outcome, f"{outcome.kind}: {outcome.detail}")
        elif self._with_its_front_end(outcome):
            return
        elif outcome.kind == "answered" and outcome.status not in (502, 503, 504):
            self._found("wrong", outcome, f"answered {outcome.status}; {self._said_text(outcome)}")
        else:
            self._explain(outcome)

    def _found(self, kind: str, outcome: Outcome, text: str) -> None:
        self.judgement.add(kind, outcome.ask.id, outcome.ended, f"{outcome.ask.kind}: {text}")

    def _with_its_front_end(self, outcome: Outcome) -> bool:
        """Its connection was one of those of a front end when it was killed."""
        for done in self._around(outcome.opened, outcome.ended):
            if outcome.port in done.ports and outcome.opened <= done.ended and outcome.ended >= done.began:
                if outcome.kind == "answered":
                    return False
                self.judgement.allowed[done.kind] += 1
                return True
        return False

    def _explain(self, outcome: Outcome) -> None:
        what = str(outcome.status) if outcome.kind == "answered" else f"{outcome.kind} ({outcome.detail})"
        said = self._said(outcome)
        if not said and (excuse := self._line_is_gone(outcome)):
            self.judgement.allowed[excuse] += 1
            return
        if len(said) != 1:
            known = " | ".join(one.text for one in said) or "no line in the log is about it"
            self._found("unexplained", outcome, f"{what}: {len(said)} lines: {known}")
            return
        line = said[0]
        self._claimed.add((line.request, line.text))
        named = causes.find(line.text)
        if named is None:
            self._found("unexplained", outcome, f"{what}: no fault leads to this: {line.text}")
            return
        cause, match = named
        group = match.groupdict().get("group") or outcome.ask.language
        # A slow reader sees the end of its answer long after it was decided; a logger that is held up says so later.
        done = self._fault(cause.kinds, group if cause.kills else "", outcome.sent, min(outcome.ended, line.at))
        if done is None:
            self._found("unexplained", outcome, f"{what}: no such fault was done then: {line.text}")
            return
        if match.groupdict().get("had", "").startswith("was running"):
            self._deaths[group, match["worker"]] += 1
        self.judgement.allowed[done.kind] += 1

    def _records(self, outcome: Outcome) -> list[str]:
        return [
            one.request for one in self._logs.records.get(outcome.ask.id, []) if not one.complete or one.status >= 400
        ]

    def _said(self, outcome: Outcome) -> list[Said]:
        requests = dict.fromkeys([outcome.named] if outcome.named else self._records(outcome))
        lines = [line for request in requests for line in self._logs.said.get(request, [])]
        return [line for line in lines if line.source.startswith("front end") and line.text[:3].isdigit()]

    def _said_text(self, outcome: Outcome) -> str:
        return " | ".join(one.text for one in self._said(outcome)) or "no line in the log is about it"

    def _line_is_gone(self, outcome: Outcome) -> str:
        """Why no line is found: which request it is about was in the records of a front end that was killed."""
        if outcome.named or self._records(outcome):
            return ""
        for done in self._around(outcome.ended, outcome.ended + ACCESS_DELAY):
            if not done.ports or not outcome.ended <= done.ended <= outcome.ended + ACCESS_DELAY:
                continue
            for lines in self._logs.said.values():
                for line in lines:
                    near, known = abs(line.at - outcome.ended) < 1.0, (line.request, line.text)
                    if near and known not in self._claimed and causes.find(line.text) is not None:
                        self._claimed.add(known)
                        return f"{done.kind} (its record)"
        return ""

    # Faults

    def _around(self, begin: float, end: float) -> list[Done]:
        """Faults that lasted, or had begun at most NEAR seconds before, at some time from `begin` to `end`."""
        last = bisect_left(self._begins, end + 0.5)
        first = max(0, bisect_left(self._begins, begin - 60.0))
        return [done for done in self._history[first:last] if done.ended >= begin - NEAR]

    def _fault(self, kinds: frozenset[str], group: str, sent: float, at: float) -> Done | None:
        for done in reversed(self._around(sent, at)):
            if done.kind not in kinds or (group and done.group != group):
                continue
            if done.began - 0.1 <= at <= done.ended + causes.EFFECT:
                return done
        return None

    def near(self, finding: Finding) -> list[Done]:
        return [done for done in self._around(finding.at, finding.at) if done.began <= finding.at + 0.5]
