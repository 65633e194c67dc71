"""The machine: one run at a time, quiet before each cell, ports that nobody uses, and what it is made of."""

import os
import platform
import re
import socket
import struct
import subprocess
import time
from pathlib import Path

from harness import proc
from harness.process import BenchError, clean_environment

LOCK = "\0webserver-bench"
QUIET_SHARE = 0.06  # of all cores: below this the machine counts as idle
QUIET_WINDOW = 0.15  # seconds looked at
QUIET_WAIT = 12.0  # seconds waited for it; then the cell runs anyway and says so


def take_lock() -> socket.socket:
    """Holds the lock as long as the socket is open; a second run is an error, never a wait.

    An abstract unix name: shared by all users, freed by the kernel whatever happens, and no file stays behind.
    """
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(LOCK)
        lock.listen(1)
    except OSError:
        lock.close()
        raise BenchError(f"another benchmark run{_holder()} is under way") from None
    return lock


def _holder() -> str:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        if probe.connect_ex(LOCK):
            return ""
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return f" (pid {pid})"


def busy_share(seconds: float) -> float:
    before = proc.machine_time()
    time.sleep(seconds)
    after = proc.machine_time()
    busy = after.busy - before.busy + after.steal - before.steal
    return busy / max(busy + after.idle - before.idle, 0.001)


def wait_quiet(limit: float = QUIET_WAIT) -> float:
    """Waits until the machine is idle; returns the share that was busy at last (above QUIET_SHARE: it never was)."""
    deadline = time.monotonic() + limit
    while (share := busy_share(QUIET_WINDOW)) > QUIET_SHARE and time.monotonic() < deadline:
        pass
    return share


def check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise BenchError(f"somebody already answers on 127.0.0.1:{port}; choose another --port-base")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise BenchError(f"127.0.0.1:{port} cannot be used: {error.strerror}") from None


def first_line(argv: list[str], cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=clean_environment({}), capture_output=True, text=True, timeout=20, check=False
        )
    except OSError:
        return ""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else ""


def _packages() -> dict[str, str]:
    names = [
        "nginx",
        "uwsgi-core",
        "apache2",
        "libapache2-mod-wsgi-py3",
        "php8.2-fpm",
        "gunicorn",
        "python3-gevent",
        "wrk",
        "python3",
    ]
    found = {}
    for name in names:
        version = first_line(["dpkg-query", "-W", "-f", "${Version}", name])
        found[name] = "" if "no packages found" in version else version
    return found


def describe(root: Path) -> dict[str, object]:
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), "?")
    git = ["git", "-c", f"safe.directory={root}", "-C", str(root)]
    commit = first_line([*git, "rev-parse", "--verify", "-q", "HEAD"])
    return {
        "commit": commit if re.fullmatch("[0-9a-f]{40}", commit) else "none",
        "tree_changed": bool(first_line([*git, "status", "--porcelain"])),
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        "kernel": platform.release(),
        "system": first_line(["sh", "-c", ". /etc/os-release; echo $PRETTY_NAME"]),
        "root": os.geteuid() == 0,
        "packages": _packages(),
    }
