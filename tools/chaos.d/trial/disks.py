"""File systems that can be filled: a small one of their own as root; else a limit on the size of files.

What the server meets is ENOSPC in the first case and EFBIG in the second; both at any write, in the middle of a line.
"""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path
from typing import Any


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
    _limit(pid, resource.RLIMIT_FSIZE, "fsize", size)


def limit_descriptors(pid: int, number: int | None) -> None:
    """No descriptor of this number or above is given to the process any more; None: as many as before."""
    _limit(pid, resource.RLIMIT_NOFILE, "nofile", resource.RLIM_INFINITY if number is None else number)


def _limit(pid: int, which: int, name: str, soft: int) -> None:
    """Set a soft limit of a running process; RLIM_INFINITY: up to its hard one.

    Without CAP_SYS_RESOURCE, which root does not have in every container, only a process's own user may.
    """
    try:
        owner = os.stat(f"/proc/{pid}")
        rights: dict[str, Any] = {}
        if os.geteuid() == 0:
            rights = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        command = ["prlimit", f"--pid={pid}", f"--{name}"]
        shown = subprocess.run(
            [*command, "--output=HARD", "--noheadings", "--raw"], capture_output=True, text=True, **rights
        )
        hard = shown.stdout.strip()
        command[-1] += f"={hard if soft == resource.RLIM_INFINITY else soft}:{hard}"
        subprocess.run(command, capture_output=True, check=True, **rights)
    except (FileNotFoundError, ProcessLookupError):
        return
    except subprocess.CalledProcessError:
        if os.path.exists(f"/proc/{pid}"):
            raise


def lowest_free(pid: int) -> int:
    """The number that the process's next descriptor would get."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    return next(number for number in range(len(taken) + 1) if number not in taken)
