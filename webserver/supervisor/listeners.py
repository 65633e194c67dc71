"""Listening sockets: binds every `listen` address and holds the sockets for as long as the address is wanted.

TCP: one SO_REUSEPORT socket for each front end. Unix: one socket, shared, bound under a temporary name and renamed, so
that the name is never without a listener; mode 0666, because who may connect is the business of the directory it lies
in, as with a TCP port it is the firewall's. Knows nothing of front ends but how many there are.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass, field
from typing import Any

from webserver.config.model import Listen

BACKLOG = 4096
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


class ListenError(Exception):
    """An address cannot be listened on; the text says which and why."""


@dataclass(eq=False)
class Socket:
    """One listening socket. `ordinal`: the front end it is for, -1 for all."""

    id: int
    sock: socket.socket
    listen: Listen
    port: int  # the real one where 0 was asked for
    ordinal: int

    @property
    def fd_name(self) -> str:
        return f"listener{self.id}"

    def to_record(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "fd": self.fd_name,
            "family": self.listen.family,
            "address": self.listen.address,
            "port": self.port,
            "ordinal": self.ordinal,
        }


@dataclass(eq=False)
class Address:
    """One `listen` value and its sockets."""

    listen: Listen
    sockets: list[Socket] = field(default_factory=list)
    inode: tuple[int, int] | None = None  # of a unix socket's name, so that nobody else's is ever removed
    directory: int = -1  # descriptor of the one it lies in, so that the name is looked for nowhere else

    def __str__(self) -> str:
        port = self.sockets[0].port if self.sockets else self.listen.port
        return address_text(self.listen, port)


def address_text(listen: Listen, port: int) -> str:
    if listen.family == "unix":
        return f"unix:{listen.address}"
    return f"[{listen.address}]:{port}" if listen.family == "inet6" else f"{listen.address}:{port}"


class Listeners:
    """All addresses. `open` and `close` are the only ways in and out; ids are never used twice."""

    def __init__(self, frontends: int) -> None:
        self._frontends = frontends
        self._next = 1
        self.addresses: dict[Listen, Address] = {}

    def open(self, listen: Listen) -> Address:
        """Bind and listen. Raises ListenError; then nothing is left."""
        address = Address(listen)
        try:
            if listen.family == "unix":
                self._open_unix(address)
            else:
                self._open_tcp(address)
        except OSError as error:
            _close(address)
            raise ListenError(_explain(listen, error)) from None
        except BaseException:
            _close(address)
            raise
        self.addresses[listen] = address
        return address

    def adopt(self, listen: Listen, found: list[tuple[dict[str, Any], socket.socket]]) -> Address:
        """Take the sockets that another server program has for this address, and add what is missing.

        A unix socket's name stays that program's until `own_name`. More of them than front ends are kept, as there may
        be somebody in their queues: see `accepted_by`. Raises ListenError; then nothing is left.
        """
        address = Address(listen)
        for record, sock in found:
            address.sockets.append(self._socket(sock, listen, int(record["port"]), int(record["ordinal"])))
        try:
            if listen.family != "unix":
                there = {one.ordinal for one in address.sockets}
                for ordinal in set(range(self._frontends)) - there:
                    self._add_tcp(address, address.sockets[0].port, ordinal)
            else:
                parent = os.path.dirname(listen.address)
                address.directory = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            _close(address)
            raise ListenError(_explain(listen, error)) from None
        self.addresses[listen] = address
        return address

    def own_name(self, listen: Listen, inode: tuple[int, int]) -> None:
        """An adopted unix socket's name is to be removed at the end."""
        if listen in self.addresses:
            self.addresses[listen].inode = inode

    def forget_names(self) -> None:
        """Unix sockets' names are somebody else's now."""
        for address in self.addresses.values():
            address.inode = None

    def vacate(self, listen: Listen) -> None:
        """Let nobody new in, so that who waits can be accepted and the sockets be closed without losing anybody.

        A unix socket loses its name; TCP sockets throw SYNs away, and their senders, who try again, are refused later.
        Front ends must know before: what they accept afterwards has inherited how SYNs are thrown away.
        """
        address = self.addresses[listen]
        remove_name(address)
        for one in address.sockets:
            if listen.family != "unix":
                _no_more_syn(one.sock)

    def vacate_all(self) -> None:
        for listen in self.addresses:
            self.vacate(listen)

    def close(self, listen: Listen) -> None:
        """Close our sockets of an address and remove a unix socket's name."""
        address = self.addresses.pop(listen)
        remove_name(address)
        _close(address)

    def close_all(self) -> None:
        for listen in list(self.addresses):
            self.close(listen)

    def names(self) -> list[str]:
        """Paths of unix sockets."""
        return [listen.address for listen in self.addresses if listen.family == "unix"]

    def sockets(self) -> list[Socket]:
        return [one for address in self.addresses.values() for one in address.sockets]

    def accepted_by(self, ordinal: int, alive: set[int]) -> list[int]:
        """Ids of the sockets that front end `ordinal` accepts from when those in `alive` are there.

        Its own and the shared ones, and those of a front end that is down if it is the next one alive after it.
        """
        return [
            one.id
            for one in self.sockets()
            if one.ordinal in (-1, ordinal) or _neighbour(one.ordinal, alive, self._frontends) == ordinal
        ]

    def _open_tcp(self, address: Address) -> None:
        listen = address.listen
        # SO_REUSEPORT would let us in beside another server of the same user, each getting some of the connections;
        # a bind without it finds out.
        with _tcp(listen, reuse_port=False) as probe:
            try:
                probe.bind((listen.address, listen.port))
            except OSError as error:
                # From one address to all of them, or back, at the same port: then it may be ourselves.
                if error.errno != errno.EADDRINUSE or not self._holds(listen):
                    raise
            port = probe.getsockname()[1] or listen.port
        for ordinal in range(self._frontends):
            self._add_tcp(address, port, ordinal)

    def _add_tcp(self, address: Address, port: int, ordinal: int) -> None:
        sock = _tcp(address.listen, reuse_port=True)
        address.sockets.append(self._socket(sock, address.listen, port, ordinal))
        sock.bind((address.listen.address, port))
        sock.listen(BACKLOG)

    def _holds(self, listen: Listen) -> bool:
        """True if an address of ours has the same port and is a part or the whole of this one."""
        return any(
            other.family == listen.family
            and other.port == listen.port != 0
            and {other.address, listen.address} & {"0.0.0.0", "::"}
            for other in self.addresses
        )

    def _open_unix(self, address: Address) -> None:
        path = address.listen.address
        parent, name = os.path.split(path)
        directory = address.directory = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _check_unused(directory, name, path)
        # sun_path holds 107 bytes; through the directory's descriptor any path is short.
        temporary = f".{name}.{os.getpid()}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        address.sockets.append(self._socket(sock, address.listen, 0, -1))
        _unlink(directory, temporary)
        before = os.umask(0o111)
        try:
            sock.bind(f"/proc/self/fd/{directory}/{temporary}")
        finally:
            os.umask(before)
        try:
            sock.listen(BACKLOG)
            found = os.stat(temporary, dir_fd=directory, follow_symlinks=False)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            _unlink(directory, temporary)
            raise
        address.inode = (found.st_dev, found.st_ino)

    def _socket(self, sock: socket.socket, listen: Listen, port: int, ordinal: int) -> Socket:
        one = Socket(self._next, sock, listen, port, ordinal)
        self._next += 1
        return one


def backlog_warning() -> str:
    """What is to be said if the kernel cuts the backlog down, or ""."""
    try:
        with open("/proc/sys/net/core/somaxconn", encoding="ascii") as stream:
            limit = int(stream.read())
    except (OSError, ValueError):
        return ""
    if limit >= BACKLOG:
        return ""
    return f"net.core.somaxconn = {limit} cuts the accept queues down from {BACKLOG}: raise it with sysctl"


def remove_name(address: Address) -> None:
    """Remove a unix socket's name if it is still ours."""
    if address.inode is None:
        return
    name = os.path.basename(address.listen.address)
    try:
        found = os.stat(name, dir_fd=address.directory, follow_symlinks=False)
        if (found.st_dev, found.st_ino) == address.inode:
            os.unlink(name, dir_fd=address.directory)
    except OSError:
        pass
    address.inode = None


_MOST_HOPS = 255
_IP_MINTTL, _IPV6_MINHOPCOUNT = 21, 73  # ip(7); linux/in6.h


def _no_more_syn(sock: socket.socket) -> None:
    """Have it throw SYNs away, but not the end of a handshake that has begun.

    Packets begin with 64 or 128 hops left, so none fulfils the demand for 255; those that do (a few systems begin with
    255) are let in and may be reset. A socket filter (SO_ATTACH_FILTER) is exact, but some kernels keep it for root.
    """
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT, _MOST_HOPS)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, _MOST_HOPS)


def _neighbour(ordinal: int, alive: set[int], count: int) -> int:
    """The front end that accepts for `ordinal`: itself, or the next one that is alive; -1 if none is."""
    for step in range(count):
        if (ordinal + step) % count in alive:
            return (ordinal + step) % count
    return -1


def _tcp(listen: Listen, reuse_port: bool) -> socket.socket:
    sock = socket.socket(_FAMILIES[listen.family], socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if listen.family == "inet6":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _check_unused(directory: int, name: str, path: str) -> None:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"cannot listen on unix:{path}: a file that is not a socket has this name")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full queue must not hold us up
        try:
            probe.connect(f"/proc/self/fd/{directory}/{name}")
        except (ConnectionRefusedError, FileNotFoundError):
            return  # left behind by a server that is dead
        except BlockingIOError:
            pass
    raise ListenError(f"cannot listen on unix:{path}: another process listens there")


def _unlink(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def _close(address: Address) -> None:
    for one in address.sockets:
        one.sock.close()
    address.sockets.clear()
    if address.directory >= 0:
        os.close(address.directory)
        address.directory = -1


_REASONS = {
    errno.EADDRINUSE: "the address is in use by another process; stop that one, or choose another address",
    errno.EADDRNOTAVAIL: "no interface of this machine has this address",
    errno.EACCES: "permission denied (ports below 1024 need root)",
}


def _explain(listen: Listen, error: OSError) -> str:
    reason = _REASONS.get(error.errno or 0, os.strerror(error.errno) if error.errno else str(error))
    if listen.family == "unix":
        reason = os.strerror(error.errno) if error.errno else str(error)
    return f"cannot listen on {address_text(listen, listen.port)}: {reason}"
