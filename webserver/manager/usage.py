"""What a worker takes, as /proc and its page tell: private memory, processor time, requests.

Adding up a process's pages takes the kernel a millisecond for each 100 MB or so, and nobody there can fault a page in
meanwhile. So what a process has resident, which costs nothing to ask, is looked at first.
"""

import os
from typing import Callable, Iterator, List, Optional

from webserver.manager.policy import Options, Seen
from webserver.wire.page import Buffer, activity

_TICK = float(os.sysconf("SC_CLK_TCK"))
_PRIVATE = ("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:", "Swap:")
_FAMILY = 64  # processes of one worker that are looked at

Warn = Callable[[str], None]


class Scale:
    """Looks at workers for one group's options. `family`: what a worker starts counts as its own (language exec)."""

    def __init__(self, options: Options, family: bool, warn: Warn) -> None:
        self._options = options
        self._family = family
        self._warn = warn
        self._warned = False

    def look(self, pid: int, page: Optional[Buffer], before: Seen, now: float) -> Seen:
        """What is to be known of a worker now. What cannot be read stays as it was."""
        options = self._options
        seen = before._replace(at=now)
        if page is not None:
            does = activity(page, options.threads)
            # The latest request ended so much after it was begun at most.
            ended = does.begun + max(0.0, does.ran - before.ran)
            active = now if does.busy else max(before.active, min(now, ended))
            seen = seen._replace(busy=does.busy, requests=does.requests, active=active, ran=does.ran)
        if not (options.weighs or options.max_cpu):
            return seen
        pids = list(family(pid)) if self._family else [pid]
        if options.max_cpu:
            # A program's end takes its time along.
            seen = seen._replace(cpu=max(seen.cpu, sum(cpu_seconds(one) for one in pids)))
        if options.weighs:
            seen = seen._replace(private=self._private(pids))
        return seen

    def _private(self, pids: List[int]) -> int:
        least = min(filter(None, (self._options.soft_memory, self._options.hard_memory)))
        most = sum(upper_bound(one) for one in pids)
        if most <= least:
            return most
        total = 0
        for one in pids:
            found = private(one)
            if found is None:
                if os.path.exists("/proc/%d" % one) and not self._warned:
                    self._warned = True
                    self._warn("/proc/%d/smaps_rollup cannot be read: soft_memory and hard_memory do nothing" % one)
                return 0
            total += found
        return total


def private(pid: int) -> Optional[int]:
    """Bytes that this process alone has, those that are swapped out included; None if it may not be known."""
    try:
        with open("/proc/%d/smaps_rollup" % pid) as lines:
            return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(_PRIVATE))
    except (OSError, ValueError, IndexError):
        return None


def upper_bound(pid: int) -> int:
    """Bytes that `private` cannot exceed: what is resident, whoever else has it, and what is swapped out."""
    try:
        with open("/proc/%d/status" % pid) as lines:
            return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS:", "VmSwap:")))
    except (OSError, ValueError, IndexError):
        return 0


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and of the children that it has waited for."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            # The name may hold spaces and parentheses.
            fields = file.read().rpartition(b")")[2].split()
        return sum(map(int, fields[11:15])) / _TICK
    except (OSError, ValueError):
        return 0.0


def family(pid: int) -> Iterator[int]:
    """The process and its descendants, a bounded number."""
    queue = [pid]
    for _ in range(_FAMILY):
        if not queue:
            return
        one = queue.pop(0)
        yield one
        try:
            for task in os.listdir("/proc/%d/task" % one):
                with open("/proc/%d/task/%s/children" % (one, task)) as file:
                    queue += map(int, file.read().split())
        except (OSError, ValueError):
            continue
