"""Workers' pages: made here, sealed against resizing, written by the worker alone.

The worker's descriptor is the one that was created; front ends get one that was opened again for reading. The file's
mode lets nobody but us do that, or a front end could open it for writing through /proc.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from webserver.wire.page import Page, page_size, read_page


class SharedPage:
    """One worker's page: both descriptors and a mapping for status. Owns all three."""

    def __init__(self, slots: int) -> None:
        """Raises OSError, or ValueError for a number of slots that no worker can have."""
        size = page_size(slots)
        self.slots = slots
        self.writable = os.memfd_create("page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.readable = -1
        try:
            os.ftruncate(self.writable, size)
            os.fchmod(self.writable, 0o600)
            fcntl.fcntl(self.writable, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self.readable = os.open(f"/proc/self/fd/{self.writable}", os.O_RDONLY | os.O_CLOEXEC)
            self._memory = mmap.mmap(self.readable, size, mmap.MAP_SHARED, mmap.PROT_READ)
        except BaseException:
            self._close_descriptors()
            raise

    def read(self) -> Page:
        return read_page(self._memory, self.slots)

    def forget_writable(self) -> None:
        """The worker's manager has its own now."""
        if self.writable >= 0:
            os.close(self.writable)
            self.writable = -1

    def close(self) -> None:
        self._memory.close()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        for number in (self.writable, self.readable):
            if number >= 0:
                os.close(number)
        self.writable = self.readable = -1
