"""Starts and ends processes.

Every process gets its own session, a death signal, a clean environment and a log file.  Nothing is ever signalled that
is not the started process or, at that moment, its descendant; a pid counts only together with its start time.
"""

import ctypes
import os
import pwd
import resource
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from harness import proc

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STOP_SECONDS = 6.0

_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """Something that ends this measurement; the text says what and where."""


@dataclass
class Child:
    """A process that we started, and where its output goes."""

    popen: "subprocess.Popen[bytes]"
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid


def tail(path: Path, lines: int = 8) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def become_subreaper() -> None:
    """Orphans of servers come to us instead of to init, so that stop() still finds them."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def raise_nofile() -> int:
    """Raises the soft limit of open files to the hard one, for us and for all that we start; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def clean_environment(extra: dict[str, str]) -> dict[str, str]:
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/nonexistent",
        **extra,
    }


def _in_child(parent: int, cpu: int | None) -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # the parent died between fork and prctl
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.umask(0o022)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


def spawn(
    argv: list[str],
    cwd: Path,
    log: Path,
    env: dict[str, str] | None = None,
    cpu: int | None = None,
    user: str | None = None,
) -> Child:
    """Starts argv; its output goes to the end of log.  user: whom it becomes, with that user's first group only."""
    group = pwd.getpwnam(user).pw_gid if user else None
    parent = os.getpid()
    with open(log, "ab") as output:
        popen = subprocess.Popen(
            argv,
            cwd=cwd,
            env=clean_environment(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=[] if user else None,
            # after the change of user, which clears the death signal
            preexec_fn=lambda: _in_child(parent, cpu),
        )
    return Child(popen, log)


def _kill(member: tuple[int, int], number: int) -> None:
    pid, started = member
    if proc.start_time(pid) == started:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def _alive(members: set[tuple[int, int]]) -> set[tuple[int, int]]:
    return {m for m in members if proc.start_time(m[0]) == m[1] and proc.state(m[0]) not in ("Z", None)}


def _members(roots: list[int]) -> set[tuple[int, int]]:
    return {(pid, when) for pid in proc.tree(roots) if (when := proc.start_time(pid)) is not None}


def _wait_gone(members: set[tuple[int, int]], popen: "subprocess.Popen[bytes] | None") -> bool:
    """Waits until none lives, and reaps those that came to us as orphans (popen reaps its own)."""
    deadline = time.monotonic() + STOP_SECONDS
    while True:
        if popen is not None:
            popen.poll()
        for pid, _ in members:
            if popen is None or pid != popen.pid:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    pass
        if not _alive(members):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)


def stop(child: Child) -> str | None:
    """SIGTERM, then SIGKILL to what is left of the tree; returns a complaint if it had to be killed."""
    started = proc.start_time(child.pid)
    if started is None or child.popen.poll() is not None:
        return None  # what it may have left is ours as orphans: sweep() ends it
    members = _members([child.pid])
    _kill((child.pid, started), signal.SIGTERM)
    if _wait_gone(members, child.popen):
        return None
    left = _alive(members)
    for member in left:
        _kill(member, signal.SIGKILL)
    _wait_gone(members, child.popen)
    return f"{len(left)} process(es) of `{' '.join(map(str, child.popen.args))}` had to be killed"


def sweep() -> list[str]:
    """Kills every descendant that is still there after all were stopped; returns a complaint for each."""
    members = {member for member in _members([os.getpid()]) if member[0] != os.getpid()}
    left = _alive(members)
    complaints = [f"left behind and killed: {pid} {proc.title(pid)}" for pid, _ in left]
    for member in left:
        _kill(member, signal.SIGKILL)
    _wait_gone(members, None)
    return complaints


def pin(pids: list[int], cpus: set[int]) -> None:
    """Binds every thread of these processes to these cores; threads and children made later inherit it."""
    for pid in pids:
        for tid in proc.threads(pid):
            try:
                os.sched_setaffinity(tid, cpus)
            except ProcessLookupError:
                pass
