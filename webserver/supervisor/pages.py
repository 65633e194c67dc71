"""What workers share with front ends: made here, sealed against resizing.

The page is written by the worker alone. The worker's descriptor is the one that was created; front ends get one that
was opened again for reading. The file's mode lets nobody but us do that, or a front end could open it for writing
through /proc. The loans are for both to write.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from webserver.wire.page import Page, loans_size, page_size, read_page

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def _sealed(name: str, size: int) -> int:
    """The descriptor of a file of so many bytes, none of which takes memory before it is written."""
    number = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(number, size)
        os.fchmod(number, 0o600)
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(number)
        raise
    return number


class SharedPage:
    """One worker's page and loans: their descriptors, and a mapping of the page for status. Owns all of them."""

    def __init__(self, slots: int) -> None:
        """Raises OSError, or ValueError for a number of slots that no worker can have."""
        size = page_size(slots)
        self.slots = slots
        self.writable = _sealed("page", size)
        self.readable = self.loans = -1
        try:
            self.loans = _sealed("loans", loans_size(slots))
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
        for number in (self.writable, self.readable, self.loans):
            if number >= 0:
                os.close(number)
        self.writable = self.readable = self.loans = -1
