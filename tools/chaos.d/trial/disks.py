"""File systems that can be filled: a small one of their own as root; else a limit on the size of files.

What the server meets is ENOSPC in the first case and EFBIG in the second; both at any write, in the middle of a line.
"""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path


class Disk:
    """One directory. `full()` and `free()` may be called in any order and any number of times."""

    def __init__(self, directory: Path, megabytes: int) -> None:
        self.directory = directory
        self.mounted = False
        if os.geteuid() == 0:
            command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "chaos", str(directory)]
            self.mounted = subprocess.run(command, capture_output=True).returncode == 0

    @property
    def _ballast(self) -> Path:
        return self.directory / ".ballast"

    def full(self, pids: list[int]) -> None:
        """From now on nothing more can be written there by these processes."""
        if not self.mounted:
            for pid in pids:
                limit_file_size(pid, 0)
            return
        with open(self._ballast, "ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    continue

    def free(self, pids: list[int]) -> None:
        if self.mounted:
            self._ballast.unlink(missing_ok=True)
        for pid in pids:
            limit_file_size(pid, resource.RLIM_INFINITY)

    def used(self) -> int:
        """Bytes in use, those of files without a name included; 0 where that cannot be told."""
        if not self.mounted:
            return 0
        state = os.statvfs(self.directory)
        return (state.f_blocks - state.f_bfree) * state.f_frsize

    def remove(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.directory)], capture_output=True)
            self.mounted = False


def limit_file_size(pid: int, size: int) -> None:
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size if size >= 0 else hard, hard))
    except ProcessLookupError:
        pass


def limit_descriptors(pid: int, number: int | None) -> None:
    """No descriptor of this number or above is given to the process any more; None: as many as before."""
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard if number is None else number, hard))
    except ProcessLookupError:
        pass


def lowest_free(pid: int) -> int:
    """The number that the process's next descriptor would get."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    return next(number for number in range(len(taken) + 1) if number not in taken)
