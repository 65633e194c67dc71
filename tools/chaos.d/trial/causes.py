"""What a line of the error log may say about a request that was refused or cut off, and which fault is then its cause.

A sentence that stands in no row explains nothing, however true it may be: nothing but these faults was done.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

EFFECT = 5.0  # seconds after a fault in which its effects are seen


@dataclass(frozen=True)
class Cause:
    pattern: re.Pattern[str]
    kinds: frozenset[str]  # of faults

    @property
    def kills(self) -> bool:
        return any(kind.startswith(("worker", "manager")) for kind in self.kinds)


def _cause(pattern: str, *kinds: str) -> Cause:
    return Cause(re.compile(pattern), frozenset(kinds))


_WORKER = r'502: group "(?P<group>\w+)": worker (?P<worker>\d+) '
_IN = "(?:(?: beside another)?, in which it crashed)?"
_HAD = rf"; it (?P<had>was running this request{_IN}|had part of this request's body, which is not kept)$"
CAUSES = (
    _cause(rf"{_WORKER}killed by SIGKILL{_HAD}", "worker-kill"),
    _cause(rf"{_WORKER}killed by SIG(SEGV|ABRT)( \(core dumped\))?{_HAD}", "worker-segv"),
    _cause(rf"{_WORKER}.*its manager had died{_HAD}", "manager-kill", "manager-segv"),
)


def find(text: str) -> tuple[Cause, re.Match[str]] | None:
    for cause in CAUSES:
        if match := cause.pattern.match(text):
            return cause, match
    return None
