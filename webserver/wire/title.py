"""Process titles: what ps(1) shows for a process of this server.

Writes over the memory that the kernel shows as /proc/PID/cmdline, through /proc/self/mem. prctl's own call keeps some
20 characters and ctypes costs each process 10 ms at its start. A title that cannot be set is not an error. Standard
library only.
"""

from __future__ import annotations

import os

_ARG_START = 48  # fields of /proc/self/stat, counted from 1; proc(5)
_ARG_END = 49


def set_title(text: str) -> bool:
    """Show `text` as this process's command line and its first word's end as its name. False if it cannot be done."""
    try:
        with open("/proc/self/stat", "rb") as stream:
            # The second field is in parentheses and may hold spaces.
            fields = stream.read().rpartition(b")")[2].split()
        start = int(fields[_ARG_START - 3])
        size = int(fields[_ARG_END - 3]) - start
        if start <= 0 or size < 2:
            return False
        # The last byte stays NUL: else the kernel takes the environment that follows for the title's rest.
        title = text.encode("utf-8", "surrogateescape")[: size - 1]
        memory = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(memory, title.ljust(size, b"\0"), start)
        finally:
            os.close(memory)
        name = text.rpartition("webserver: ")[2].encode("utf-8", "surrogateescape")[:15]
        with open("/proc/self/comm", "wb", buffering=0) as comm:
            comm.write(name)
    except (OSError, ValueError, IndexError):
        return False
    return True
