"""Control connections: the only encoder and decoder of what the supervisor and its children say to each other.

One packet of an AF_UNIX SOCK_SEQPACKET socket is one JSON object with "op". Descriptors ride beside it as SCM_RIGHTS
and are named, in order, by the object's "fds". A record that would make the packet too large rides as a sealed memfd
named "record"; the receiver of `receive` cannot tell the difference.

Either peer may lie: sizes are bounded, descriptors that nobody can name are closed, and a memfd is read only if it is
sealed, since only memory files can be (a descriptor of a slow file system would stop the reader). Standard library
only; no gevent, no threads, no signals. The socket itself is always non-blocking; waiting is done here, with a limit.
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import select
import socket
import time
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

Message = Dict[str, Any]
Descriptors = Union[Mapping[str, int], Iterable[Tuple[str, int]]]

PACKET_LIMIT = 100_000  # bytes; well below the default SO_SNDBUF, which a packet must fit in
RECORD_LIMIT = 64 * 1024 * 1024  # bytes of a record in a memfd: some 100,000 sites
FD_LIMIT = 250  # below SCM_MOST
SCM_MOST = 253  # SCM_MAX_FD: descriptors of one packet, by the kernel
SEND_TIMEOUT = 5.0  # seconds that a blocking send waits for room
STARVED_WAIT = 0.05  # seconds until it is worth trying again to receive descriptors
STARVED_TIMEOUT = 5.0  # that a blocking receive waits for descriptors to be free

_INT = array.array("i").itemsize
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNREFUSED)
_FULL = (errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS)


class ControlError(Exception):
    """Something is wrong with a control connection."""


class ProtocolError(ControlError):
    """The peer sent, or the caller wants to send, what is not a packet."""


class ControlFull(ControlError):
    """The peer does not read: there is no room for the packet now. Nothing of it was sent."""


class ControlStarved(ControlError):
    """The next packet brings descriptors, and this process may open no more now. It can be received later."""


class ControlClosed(ControlError):
    """The peer has closed its end. Nothing was sent."""


class Control:
    """One end of a control connection. Owns the socket.

    `blocking` is about this object, not the socket: True makes `receive` wait and `send` wait up to SEND_TIMEOUT; False
    makes `receive` raise BlockingIOError when there is no packet and `send` raise ControlFull at once.
    """

    def __init__(self, sock: socket.socket, blocking: bool = True) -> None:
        if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET:
            raise ProtocolError("a control connection is an AF_UNIX SOCK_SEQPACKET socket")
        sock.setblocking(False)
        sock.set_inheritable(False)
        self.blocking = blocking
        self._sock = sock

    @classmethod
    def from_descriptor(cls, number: int, blocking: bool = True) -> "Control":
        """The connection that was inherited as descriptor `number`. Raises OSError if it is not a socket."""
        return cls(socket.socket(fileno=number), blocking)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def send(self, message: Mapping[str, Any], fds: Descriptors = ()) -> None:
        """Send one packet. The descriptors in `fds` (name to number) stay the caller's.

        Raises ControlFull, ControlClosed, or ProtocolError if the message is not one that can be sent.
        """
        packet, named, own = encode(message, fds)
        try:
            self._send(packet, named)
        finally:
            if own is not None:
                os.close(own)

    def _send(self, packet: bytes, numbers: Sequence[int]) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))] if numbers else []
        deadline = time.monotonic() + SEND_TIMEOUT if self.blocking else 0.0
        while True:
            try:
                self._sock.sendmsg([packet], rights, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
                return
            except OSError as error:
                if error.errno in _GONE:
                    raise ControlClosed("the other side has closed the control connection") from None
                if error.errno not in _FULL:
                    raise
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ControlFull("the other side does not read its control connection") from None
            # ENOBUFS and ETOOMANYREFS do not show in POLLOUT, hence the short turns.
            _wait(self._sock, select.POLLOUT, min(left, 0.05))

    def receive(self) -> Optional[Tuple[Message, Dict[str, int]]]:
        """The next packet as (message, descriptors by name), or None at end of file.

        "fds" is taken out of the message and a record is put into it, however it came. The descriptors are
        close-on-exec and now the caller's. Raises ProtocolError, after closing what came, if the packet is not one; the
        connection can be read further but the peer should not be trusted to. Raises ControlStarved if there is no room
        for the packet's descriptors.
        """
        # Looked at first, and taken only once its descriptors are here: those that a process has no room for are gone
        # with their packet, and it would never hear of the worker or listener that they stand for.
        look = socket.MSG_PEEK | socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
        deadline = time.monotonic() + STARVED_TIMEOUT
        while True:
            try:
                data, ancillary, flags, _ = self._sock.recvmsg(
                    PACKET_LIMIT + 1, socket.CMSG_SPACE(SCM_MOST * _INT), look
                )
            except BlockingIOError:
                if not self.blocking:
                    raise
                _wait(self._sock, select.POLLIN, None)
                continue
            except ConnectionResetError:
                # Told once when the peer died with unread packets; what it had sent before is still to be read.
                continue
            received = _rights(ancillary)
            if not data:
                close_all(received)
                return None
            if flags & socket.MSG_CTRUNC and not self._has_room(SCM_MOST - len(received)):
                close_all(received)
                if not self.blocking or time.monotonic() >= deadline:
                    raise ControlStarved("no descriptor is left for what comes on the control connection")
                time.sleep(STARVED_WAIT)
                continue
            self._sock.recv(1, socket.MSG_DONTWAIT)
            try:
                return decode(data, received, flags)
            except BaseException:
                close_all(received)
                raise

    def _has_room(self, number: int) -> bool:
        """Whether so many more descriptors can be opened now."""
        opened: List[int] = []
        try:
            while len(opened) < number:
                opened.append(os.dup(self._sock.fileno()))
        except OSError:
            return False
        finally:
            close_all(opened)
        return True


def pair() -> Tuple[socket.socket, socket.socket]:
    """Both ends of a new control connection, close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def encode(message: Mapping[str, Any], fds: Descriptors = ()) -> Tuple[bytes, List[int], Optional[int]]:
    """One packet: (its bytes, the descriptors that go with it, the memfd among them that the caller must close)."""
    pairs = list(fds.items() if isinstance(fds, Mapping) else fds)
    names = [name for name, _ in pairs]
    if not isinstance(message.get("op"), str) or "fds" in message:
        raise ProtocolError('a packet has an "op" and leaves "fds" to the encoder')
    if len(set(names)) != len(names) or len(names) > FD_LIMIT:
        raise ProtocolError("descriptors of one packet have distinct names and are at most %d" % FD_LIMIT)
    packet = _dump({**message, "fds": names} if names else message)
    if len(packet) <= PACKET_LIMIT:
        return packet, [number for _, number in pairs], None
    if "record" not in message or "record" in names:
        raise ProtocolError("a packet of %d bytes is too large" % len(packet))
    record = _dump(message["record"])
    rest = {key: value for key, value in message.items() if key != "record"}
    packet = _dump({**rest, "fds": [*names, "record"]})
    if len(packet) > PACKET_LIMIT or len(record) > RECORD_LIMIT or len(names) == FD_LIMIT:
        raise ProtocolError("a packet of %d bytes with a record of %d is too large" % (len(packet), len(record)))
    memory = _sealed(record)
    return packet, [*(number for _, number in pairs), memory], memory


def decode(data: bytes, received: Sequence[int] = (), flags: int = 0) -> Tuple[Message, Dict[str, int]]:
    """One packet from its bytes and descriptors. Raises ProtocolError; then `received` is still open."""
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(data) > PACKET_LIMIT:
        raise ProtocolError("a packet or its descriptors are too large")
    message = _load(data)
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        raise ProtocolError('a packet is an object with "op"')
    names = message.pop("fds", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ProtocolError('"fds" is not a list of names')
    if len(names) != len(received) or len(set(names)) != len(names):
        raise ProtocolError("%d descriptors came with %d names" % (len(received), len(names)))
    descriptors = dict(zip(names, received))
    if "record" in descriptors:
        if "record" in message:
            raise ProtocolError("a record came twice")
        message["record"] = _read_record(descriptors["record"])
        os.close(descriptors.pop("record"))
    return message, descriptors


def close_all(numbers: Iterable[int]) -> None:
    """Close descriptors, some of which may be closed already."""
    for number in numbers:
        try:
            os.close(number)
        except OSError:
            pass


def _dump(value: Any) -> bytes:
    # Not ensure_ascii=False: a file name that is not UTF-8 is a lone surrogate here, which only \u escapes carry.
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError("not a value for JSON: %s" % error) from None


def _load(data: bytes) -> Any:
    try:
        return json.loads(data.decode("ascii"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("not JSON: %s" % error) from None


def _no_constant(name: str) -> Any:
    raise ValueError("%s is not a number" % name)


def _sealed(content: bytes) -> int:
    number = os.memfd_create("record", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(number, view) :]
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(number)
        raise
    return number


def _read_record(number: int) -> Any:
    try:
        sealed = fcntl.fcntl(number, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    except OSError:
        sealed = False
    if not sealed:
        raise ProtocolError("a record came in something that is not a sealed memory file")
    size = os.fstat(number).st_size
    if size > RECORD_LIMIT:
        raise ProtocolError("a record of %d bytes is too large" % size)
    pieces: List[bytes] = []
    at = 0
    while at < size:
        piece = os.pread(number, min(size - at, 1 << 20), at)
        if not piece:
            raise ProtocolError("a record ended early")
        pieces.append(piece)
        at += len(piece)
    return _load(b"".join(pieces))


def _rights(ancillary: Sequence[Tuple[int, int, bytes]]) -> List[int]:
    numbers = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % _INT])
    return list(numbers)


def _wait(sock: socket.socket, events: int, seconds: Optional[float]) -> None:
    poll = select.poll()
    poll.register(sock, events)
    poll.poll(None if seconds is None else max(1, int(seconds * 1000)))
