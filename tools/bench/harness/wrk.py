"""Runs wrk with one thread and reads its figures.

wrk 4.1 corrects latencies for what a stalled connection would have sent (harness-independent, the same for every
server): percentiles are a little above a plain count.
"""

import math
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from harness import process
from harness.process import BenchError

LUA = Path(__file__).resolve().parent.parent / "lua" / "cycle.lua"
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Load:
    """What the client saw.  Times in microseconds, duration in seconds."""

    requests: int
    duration: float
    bytes: int
    errors: dict[str, int]
    p50: float
    p90: float
    p99: float
    max: float
    client_cpu: float

    @property
    def bad(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in self.errors.items() if count)


def run(port: int, requests: Path, connections: int, seconds: float, log: Path, cpu: int | None = None) -> Load:
    whole = math.ceil(seconds) + (seconds != int(seconds))  # wrk knows whole seconds only
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{whole}s", f"--timeout={TIMEOUT_SECONDS}s", "-s", str(LUA)]
    argv += [f"http://127.0.0.1:{port}", "--", str(requests)]
    log.unlink(missing_ok=True)
    child = process.spawn(argv, cwd=requests.parent, log=log, cpu=cpu)
    before = os.times()
    try:
        if seconds != int(seconds):  # it reports at SIGINT too, so that is how it gets a fraction
            time.sleep(seconds)
            child.popen.send_signal(signal.SIGINT)
        child.popen.wait(whole + TIMEOUT_SECONDS + 10)
    except subprocess.TimeoutExpired:
        raise BenchError(f"wrk hangs: {' '.join(argv)}") from None
    finally:
        if child.popen.poll() is None:
            child.popen.kill()
            child.popen.wait()
    after = os.times()
    output = log.read_text(errors="replace")
    line = re.search(r"^BENCH (.*)$", output, re.M)
    if child.popen.returncode or not line:
        raise BenchError(f"wrk failed: {' '.join(argv)}\n{output}")
    found = dict(part.split("=") for part in line.group(1).split())
    return Load(
        requests=int(found["requests"]),
        duration=int(found["duration"]) / 1e6,
        bytes=int(found["bytes"]),
        errors={name: int(found[name]) for name in ("connect", "read", "write", "status", "timeout")},
        p50=float(found["p50"]),
        p90=float(found["p90"]),
        p99=float(found["p99"]),
        max=float(found["max"]),
        client_cpu=after.children_user + after.children_system - before.children_user - before.children_system,
    )
