"""Have the kernel refuse a system call in this process and what it forks: a step that fails for real (seccomp(2))."""

from __future__ import annotations

import ctypes
import platform
import struct

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
NUMBERS = {
    "x86_64": {
        "umask": 95, "chdir": 80, "setuid": 105, "getppid": 110, "setsid": 112, "setgroups": 116, "setresuid": 117,
        "setresgid": 119, "capset": 126, "setpriority": 141, "prctl": 157, "chroot": 161, "mount": 165,
        "unshare": 272, "prlimit64": 302, "execve": 59, "setreuid": 113, "setgid": 106, "setregid": 114,
    },
    "aarch64": {
        "umask": 166, "chdir": 49, "setuid": 146, "getppid": 173, "setsid": 157, "setgroups": 159, "setresuid": 147,
        "setresgid": 149, "capset": 91, "setpriority": 140, "prctl": 167, "chroot": 51, "mount": 40,
        "unshare": 97, "prlimit64": 261, "execve": 221, "setreuid": 145, "setgid": 144, "setregid": 143,
    },
}[platform.machine()]  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse(call: str, number: int, first: int | None = None) -> None:
    """From now on `call`, with `first` as its first argument if that is given, returns -`number`; 0 pretends that it
    worked. Needs CAP_SYS_ADMIN."""
    steps = [(_LOAD, 0, 0, 0), (_JUMP_EQUAL, 0, 3 if first is not None else 1, NUMBERS[call])]
    if first is not None:
        steps += [(_LOAD, 0, 0, 16), (_JUMP_EQUAL, 0, 1, first)]  # the low half of the first argument
    steps += [(_RETURN, 0, 0, _ERRNO | number), (_RETURN, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    program = _Program(len(steps), code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")
