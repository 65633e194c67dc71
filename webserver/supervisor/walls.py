"""Namespaces, a /tmp of one's own, and a root directory of one's own. Runs in the child only, between fork and exec.

Mounts are made while it is still root, and only at places that root alone can change. They are seen by this process and
what it forks, and are gone with the last of them: nothing has to be undone, whatever happens.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from webserver.config.limits import TEMPORARY
from webserver.config.trusted import trusted
from webserver.supervisor import kernel
from webserver.supervisor.process import Plan, ProcessRecord

_FLAGS = {"ipc": kernel.CLONE_NEWIPC, "uts": kernel.CLONE_NEWUTS, "net": kernel.CLONE_NEWNET}
_QUIET = kernel.MS_NOSUID | kernel.MS_NODEV
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # netdevice(7)


def namespaces(plan: Plan) -> None:
    record = plan.record
    flags = 0
    for name in record.namespaces:
        flags |= _FLAGS[name]
    if record.private_tmp or record.jail:
        flags |= kernel.CLONE_NEWNS
    if not flags:
        return
    kernel.unshare(flags)
    if flags & kernel.CLONE_NEWNS:
        # Ours reach nobody else; what the machine mounts later reaches us.
        kernel.mount("", "/", "", kernel.MS_SLAVE | kernel.MS_REC)
    if flags & kernel.CLONE_NEWNET:
        _loopback_up()


def private_tmp(plan: Plan) -> None:
    """Memory in the place of /tmp and /var/tmp. What the server itself has there is shown again in its place."""
    record = plan.record
    if not record.private_tmp:
        return
    for place in TEMPORARY:
        hidden = [] if record.jail else [path for path in (*record.shown, record.sockets) if _below(path, place)]
        handles = [(path, _hold(path)) for path in hidden]
        where = record.jail + place
        trusted(where, {0})
        # Inodes cost kernel memory that the size does not count.
        inodes = max(1024, record.private_tmp >> 12)
        kernel.mount("tmpfs", where, "tmpfs", _QUIET, f"size={record.private_tmp},nr_inodes={inodes},mode=1777")
        for path, handle in handles:
            os.makedirs(path, 0o755)
            kernel.mount(f"/proc/self/fd/{handle}", path, "", kernel.MS_BIND)
            os.close(handle)


def jail(plan: Plan) -> None:
    """The record's own root directory, with what the server shows it there."""
    record = plan.record
    if not record.jail:
        return
    for source in record.shown:
        where = _mount_point(record, source)
        kernel.mount(source, where, "", kernel.MS_BIND | kernel.MS_REC)
        kernel.mount("", where, "", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | _QUIET)
    if record.sockets:
        # Its own generation's directory and no other's: its name is made in memory, over the place of them all.
        parent, name = os.path.split(record.sockets)
        where = _mount_point(record, parent)
        kernel.mount("tmpfs", where, "tmpfs", _QUIET | kernel.MS_NOEXEC, "size=64k,nr_inodes=16,mode=0711")
        os.mkdir(os.path.join(where, name), 0o711)
        kernel.mount(record.sockets, os.path.join(where, name), "", kernel.MS_BIND)
        kernel.mount("", where, "", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | _QUIET)
    kernel.mount("proc", _mount_point(record, "/proc"), "proc", _QUIET | kernel.MS_NOEXEC)
    os.chroot(record.jail)
    os.chdir("/")


def _mount_point(record: ProcessRecord, path: str) -> str:
    """A directory in the jail that root alone can have made; in a /tmp of its own, which has just begun, it is made."""
    where = record.jail + path
    if record.private_tmp and any(_below(path, place) for place in TEMPORARY):
        os.makedirs(where, 0o755, exist_ok=True)
    trusted(where, {0})
    return where


def _below(path: str, place: str) -> bool:
    return path.startswith(place + "/")


def _hold(path: str) -> int:
    trusted(path, {0})
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        flags: int = struct.unpack("16sh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
