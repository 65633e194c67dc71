"""A worker's page, mapped for reading.

Not by Python's mmap: that keeps a descriptor of the file, which every later worker would inherit, and could write
another's page with (D9).
"""

import ctypes
import os

_PROT_READ = 1
_MAP_SHARED = 1


# Before any fork: what is made after one is pages that the first worker no longer shares.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Mapping:
    """`memory` is never written: it would end the process."""

    def __init__(self, descriptor: int, size: int) -> None:
        """Raises OSError. The descriptor stays the caller's."""
        if os.fstat(descriptor).st_size < size:
            raise OSError(0, "a page of too few bytes")
        address = _libc.mmap(None, size, _PROT_READ, _MAP_SHARED, descriptor, 0)
        if address in (None, ctypes.c_void_p(-1).value):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._address = address
        self._size = size
        self.memory = memoryview((ctypes.c_ubyte * size).from_address(address))

    def close(self) -> None:
        self.memory.release()
        _libc.munmap(self._address, self._size)
