"""System calls that Python has no name for: namespaces, mounts and capabilities. Each raises OSError.

Loaded before any fork, so that a child on its way to exec imports nothing.
"""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x40000000  # clone(2)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8  # mount(2)
MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 32, 4096, 16384, 1 << 19

PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_GET_SECUREBITS, PR_SET_SECUREBITS = 4, 8, 27, 28  # prctl(2)
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_CAP_AMBIENT = 23, 24, 47
PR_CAP_AMBIENT_IS_SET, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 1, 2, 4

# capabilities(7): root's uid gives nothing by itself, and no ambient capability can be raised; each locked. What the
# change of the uid takes away stays as it is, and locked too.
SECURE_NOROOT, SECURE_NOROOT_LOCKED = 1 << 0, 1 << 1
SECURE_NO_SETUID_FIXUP_LOCKED, SECURE_KEEP_CAPS, SECURE_KEEP_CAPS_LOCKED = 1 << 3, 1 << 4, 1 << 5
SECURE_NO_AMBIENT_RAISE, SECURE_NO_AMBIENT_RAISE_LOCKED = 1 << 6, 1 << 7

_VERSION_3 = 0x20080522  # of capset(2)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def prctl(option: int, *arguments: int) -> int:
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
    return _checked(_LIBC.prctl(ctypes.c_int(option), *words))


def unshare(flags: int) -> None:
    _checked(_LIBC.unshare(ctypes.c_int(flags)))


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    words = [ctypes.c_char_p(os.fsencode(word)) if word else None for word in (source, target, kind)]
    _checked(_LIBC.mount(*words, ctypes.c_ulong(flags), os.fsencode(data) if data else None))


def capabilities() -> tuple[int, int, int]:
    """(effective, permitted, inheritable), each a mask by number."""
    sets = (_Sets * 2)()
    _checked(_LIBC.capget(ctypes.byref(_Header(_VERSION_3, 0)), sets))
    low, high = sets
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    sets = (_Sets * 2)()
    for half, shift in ((sets[0], 0), (sets[1], 32)):
        half.effective = effective >> shift & 0xFFFFFFFF
        half.permitted = permitted >> shift & 0xFFFFFFFF
        half.inheritable = inheritable >> shift & 0xFFFFFFFF
    _checked(_LIBC.capset(ctypes.byref(_Header(_VERSION_3, 0)), sets))


def bounding() -> dict[int, bool]:
    """Whether each capability that the kernel knows is in the bounding set."""
    found: dict[int, bool] = {}
    for number in range(64):
        try:
            found[number] = bool(prctl(PR_CAPBSET_READ, number))
        except OSError:
            break  # there are none above it
    return found
