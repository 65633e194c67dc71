"""Whether planted bugs are found: a copy of the tree with each of them, and a run in it that must say so.

Each bug is one patch in tools/chaos.d/bugs, with the faults that bring it to light and what it has to be found as. One
run follows another, with other seeds, until it is found, or has not been in the time that stands there.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

COPIED = ("webserver", "langplugins", "tests", "tools", "etc", "man", "build/lib", "build/.engine", ".venv")
FILES = ("Makefile", "setup.cfg", "setup.py", "pyproject.toml", "README.md", "DESIGN.md", "CHANGES", "LICENSE")
RUN = 45.0  # seconds of one run
LONGEST = 300.0  # seconds that it may take with all that is waited for; a server with a bug may answer nobody


@dataclass(frozen=True)
class Bug:
    """`faults`: kinds that the runs are confined to. `found`: kinds of findings, one of which must come. `within`:
    seconds under load."""

    name: str
    faults: str
    found: tuple[str, ...]
    within: float


BUGS = (
    Bug("run-twice", "worker-kill,worker-segv", ("TWICE",), 180),
    Bug("recall-ignored", "worker-stop,worker-kill", ("TWICE", "WRONG"), 180),
    Bug("answer-to-another", "worker-stop,reload", ("WRONG",), 90),
    Bug("listener-closed", "reload,config-good", ("LOST",), 90),
    Bug("line-lost", "worker-kill,worker-segv", ("UNEXPLAINED",), 180),
)


def run(tree: Path, only: tuple[str, ...]) -> int:
    chosen = [bug for bug in BUGS if not only or bug.name in only]
    missed = []
    for bug in chosen:
        say(f"== {bug.name}")
        copy = _copy(tree, bug)
        try:
            if not _found(copy, bug):
                missed.append(bug.name)
        finally:
            shutil.rmtree(copy)
    if missed:
        say(f"chaos: planted and NOT found: {', '.join(missed)}")
        return 1
    say(f"chaos: all {len(chosen)} planted bugs were found")
    return 0


def _copy(tree: Path, bug: Bug) -> Path:
    """The tree, patched and built. What the patch does not touch is not built again: times are kept."""
    copy = tree / "build" / f"chaos-{bug.name}"
    shutil.rmtree(copy, ignore_errors=True)
    for name in COPIED:
        source = tree / name
        if source.is_dir():
            shutil.copytree(source, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy / name)
    for name in FILES:
        shutil.copy2(tree / name, copy / name)
    patch = tree / "tools/chaos.d/bugs" / f"{bug.name}.patch"
    with open(patch, "rb") as file:
        subprocess.run(["patch", "-p1", "--no-backup-if-mismatch"], stdin=file, cwd=copy, check=True)
    subprocess.run([copy / "tools/entry-points", copy / ".venv"], check=True)
    made = subprocess.run(["make", "--no-print-directory", "built"], cwd=copy, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"{bug.name} cannot be built:\n{made.stdout}{made.stderr}")
    return copy


def _found(copy: Path, bug: Bug) -> bool:
    began = time.monotonic()
    seed = 1
    while time.monotonic() - began < bug.within:
        command = [str(copy / "tools/chaos"), "--seconds", f"{RUN:g}", "--seed", str(seed), "--only", bug.faults]
        result = _run(command)
        lines = [line for line in result.stdout.splitlines() if line.startswith(bug.found)]
        if result.returncode and lines:
            say(f"found after {time.monotonic() - began:.0f} s, seed {seed}: {lines[0][:200]}")
            return True
        if result.returncode and not re.search(r"^chaos: FAILED", result.stdout, re.M):
            say(f"the run itself failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
            return False
        seed += 1
    say(f"not found within {bug.within:g} s")
    return False


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """One run; one that takes too long is ended, and has found nothing."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, errors = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            say(f"a run is ended after {LONGEST:g} s")
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate()
            return subprocess.CompletedProcess(command, 0, out, errors)
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
