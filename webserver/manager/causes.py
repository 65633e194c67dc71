"""How a worker has ended, in words."""

import os
import signal
from typing import Dict, Tuple


def cause_of(status: int, asked: bool, told: str, exits: Dict[int, str]) -> Tuple[str, int, int]:
    """(a sentence, exit code or -1, signal or 0) for a wait status. `asked`: it was asked for its orderly end."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "signal %d" % number
        core = " (core dumped)" if os.WCOREDUMP(status) else ""
        return told or "killed by %s%s" % (name, core), -1, number
    code = os.WEXITSTATUS(status)
    if code == 0 and asked:
        return "retired", 0, 0
    return told or exits.get(code, "exited with status %d" % code), code, 0
