"""Other processes: what /proc tells of them, their memory, their descriptors, signals."""

import ctypes
import os
import resource
from typing import Any, Callable, Dict, Iterator, List, Tuple

from webserver.audit.tries import Row, apart, row

_LIBC = ctypes.CDLL(None, use_errno=True)
_PTRACE_SEIZE = 0x4206
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438  # the same on every architecture
_EFAULT = 14


def processes(record: Dict[str, Any]) -> Iterator[Row]:
    for entry in record["processes"]:
        pid = entry["pid"]
        if os.path.exists("/proc/%d" % pid):
            yield row("processes", "%s (process %d)" % (entry["what"], pid), _tries(pid))


def _tries(pid: int) -> List[Tuple[str, Callable[[], object]]]:
    base = "/proc/%d/" % pid
    return [
        ("environ", lambda: _open(base + "environ")),
        ("maps", lambda: _open(base + "maps")),
        ("mem", lambda: _open(base + "mem")),
        ("fd", lambda: os.listdir(base + "fd")),
        ("cwd", lambda: os.readlink(base + "cwd")),
        ("exe", lambda: os.readlink(base + "exe")),
        ("ptrace", apart(lambda: _ptrace(pid))),
        ("process_vm_readv", lambda: _memory(pid)),
        ("pidfd_getfd", lambda: _descriptor(pid)),
        ("prlimit", lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE)),
        ("kill", lambda: os.kill(pid, 0)),
    ]


def _open(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _call(number: int, *words: int) -> int:
    return _checked(_LIBC.syscall(ctypes.c_long(number), *map(ctypes.c_long, words)))


def _ptrace(pid: int) -> None:
    # SEIZE does not stop it, and our end lets it go.
    _checked(_LIBC.ptrace(ctypes.c_long(_PTRACE_SEIZE), ctypes.c_long(pid), None, None))


def _memory(pid: int) -> None:
    local = ctypes.create_string_buffer(1)
    here = (ctypes.c_void_p * 2)(ctypes.addressof(local), 1)
    there = (ctypes.c_void_p * 2)(None, 1)
    try:
        one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
        _checked(_LIBC.process_vm_readv(ctypes.c_int(pid), here, one, there, one, none))
    except OSError as error:
        if error.errno != _EFAULT:  # nothing is at address 0, but we were let in
            raise


def _descriptor(pid: int) -> None:
    handle = _call(_PIDFD_OPEN, pid, 0)
    try:
        os.close(_call(_PIDFD_GETFD, handle, 2, 0))
    finally:
        os.close(handle)
