"""The worker host (langplugins/host) through ctypes: host.h's structs and functions, nothing else.

ctypes.CDLL gives the interpreter's lock away during each call, which host.h asks for.
"""

import ctypes
import os
import signal
from typing import NamedTuple, Sequence, Tuple

FRONTENDS = 32  # WIRE_FRONTENDS
PATH = 112  # HOST_PATH
TEXT = 4096  # HOST_TEXT
MESSAGE = 4096

EXIT_LOAD = 40  # HOST_EXIT_LOAD
EXIT_SYSTEM = 41  # HOST_EXIT_SYSTEM
EXIT_ORPHAN = 42  # HOST_EXIT_ORPHAN
EXIT_GAVE_UP = 43  # HOST_EXIT_GAVE_UP

STACK_SIGNAL = signal.SIGRTMAX - 3  # HOST_STACK_SIGNAL

_ORDER_FRONTENDS = 1
_ORDER_RETIRE = 2
_ORDER_STUCK = 3
_ORDER_SLOW = 4
_ORDER_STACK = 5
READY = 1  # enum host_report_kind
FAILED = 2
WORN = 3
ERROR, WARNING, NOTICE = 0, 1, 2


class FrontEnd(NamedTuple):
    """Where a front end listens for this group's workers."""

    ordinal: int
    incarnation: int
    path: str


class HostError(Exception):
    """The plugin or the application could not be loaded; the text says what and where."""


class _FrontEnd(ctypes.Structure):
    _fields_ = [("ordinal", ctypes.c_uint32), ("incarnation", ctypes.c_uint32), ("path", ctypes.c_char * PATH)]


class _Setting(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("value", ctypes.c_char_p)]


class _Order(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_uint32), ("count", ctypes.c_uint32), ("frontend", _FrontEnd * FRONTENDS)]


class _Report(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_uint32), ("size", ctypes.c_uint32), ("text", ctypes.c_char * TEXT)]


class _Options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32),
        ("page", ctypes.c_int32),
        ("loans", ctypes.c_int32),
        ("control", ctypes.c_int32),
        ("log", ctypes.c_int32),
        ("manager", ctypes.c_int32),
        ("generation", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("closing_count", ctypes.c_uint32),
        ("worker", ctypes.c_uint64),
        ("tell_after", ctypes.c_uint64),
        ("title", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("frontend", ctypes.POINTER(_FrontEnd)),
        ("closing", ctypes.POINTER(ctypes.c_int32)),
    ]


class Place(NamedTuple):
    """A worker that is to be forked, as the supervisor has granted it."""

    number: int
    worker: int  # its incarnation
    page: int  # these four are descriptors
    loans: int
    log: int
    control: int
    tell_after: int  # it says WORN once it has run so many requests; 0: never


class Host:
    """The host library with one plugin opened in it."""

    def __init__(self, library: str) -> None:
        self._library = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        self._library.host_open.restype = ctypes.c_void_p
        self._library.host_open.argtypes = [
            ctypes.c_char_p,
            ctypes.POINTER(_Setting),
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_size_t,
        ]
        self._library.host_preload.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        self._library.host_language_version.restype = ctypes.c_char_p
        self._library.host_language_version.argtypes = [ctypes.c_void_p]
        # Not given away: fork copies the lock as it is.
        self._fork = ctypes.PyDLL(library, use_errno=True).host_fork
        self._fork.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Options)]
        self._library.host_title.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        self._library.host_title.restype = None
        self._library.host_log.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
        self._library.host_log.restype = None
        self._host = None

    def title(self, title: str, name: str) -> None:
        self._library.host_title(_bytes(title), _bytes(name)[:15])

    def tie(self, parent: int) -> bool:
        """Die when `parent` dies; False if it is dead already."""
        return bool(self._library.host_tie(parent) == 0)

    def log(self, level: int, text: str) -> None:
        data = _bytes(text)
        self._library.host_log(level, data, len(data))

    def open(self, plugin: str, settings: Sequence[Tuple[str, str]], processes: int, threads: int) -> None:
        """Open the plugin. Raises HostError."""
        array = (_Setting * max(1, len(settings)))()
        for place, (name, value) in zip(array, settings):
            place.name, place.value = _bytes(name), _bytes(value)
        message = ctypes.create_string_buffer(MESSAGE)
        host = self._library.host_open(_bytes(plugin), array, len(settings), processes, threads, message, MESSAGE)
        if not host:
            raise HostError(message.value.decode(errors="replace") or "plugin %s could not be opened" % plugin)
        self._host = host
        self._settings = array  # a plugin may keep pointers to its settings

    def preload(self) -> None:
        """Raises HostError."""
        message = ctypes.create_string_buffer(MESSAGE)
        if self._library.host_preload(self._host, message, MESSAGE) != 0:
            raise HostError(message.value.decode(errors="replace") or "preloading failed")

    def fork(
        self, place: Place, group: str, generation: int, frontends: Sequence[FrontEnd], closing: Sequence[int]
    ) -> int:
        """Fork a worker, which never comes back here: its pid. `closing`: what it does not keep. Raises OSError."""
        options = _Options()
        options.size = ctypes.sizeof(_Options)
        options.page, options.loans, options.control, options.log = place.page, place.loans, place.control, place.log
        options.manager, options.generation = os.getpid(), generation
        options.worker, options.tell_after = place.worker, place.tell_after
        options.title, options.name = _bytes("webserver: worker %s %d" % (group, place.number)), b"worker"
        array = _array(frontends)
        options.frontend = ctypes.cast(array, ctypes.POINTER(_FrontEnd))
        options.count = len(frontends)
        numbers = (ctypes.c_int32 * len(closing))(*closing)
        options.closing = ctypes.cast(numbers, ctypes.POINTER(ctypes.c_int32))
        options.closing_count = len(closing)
        pid = int(self._fork(self._host, ctypes.byref(options)))
        if pid < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return pid

    @property
    def version(self) -> str:
        version: bytes = self._library.host_language_version(self._host) or b""
        return version.decode(errors="replace")


def order_frontends(frontends: Sequence[FrontEnd]) -> bytes:
    """The packet that tells a worker the front ends."""
    order = _Order()
    order.kind, order.count = _ORDER_FRONTENDS, len(frontends)
    for place, frontend in zip(order.frontend, frontends):
        _fill(place, frontend)
    return bytes(order)[: 8 + len(frontends) * ctypes.sizeof(_FrontEnd)]


def order_retire() -> bytes:
    """The packet that asks a worker for its orderly end."""
    return _bare(_ORDER_RETIRE)


def order_stuck(seconds: float) -> bytes:
    """The packet that has a worker show the requests that have run for so long, and end them if it can."""
    return _bare(_ORDER_STUCK, int(seconds * 1000))


def order_slow(seconds: float) -> bytes:
    """The same for requests that are only shown."""
    return _bare(_ORDER_SLOW, int(seconds * 1000))


def order_stack() -> bytes:
    """The packet that asks a worker for all its stacks, on a descriptor that goes with it."""
    return _bare(_ORDER_STACK)


def _bare(kind: int, number: int = 0) -> bytes:
    order = _Order()
    order.kind, order.count = kind, number
    return bytes(order)[:8]


def read_report(data: bytes) -> Tuple[int, str]:
    """What a worker says of itself: (READY, FAILED or WORN, why it failed). What is no report counts as failure."""
    if len(data) < 8:
        return FAILED, "sent a report that is none"
    report = _Report.from_buffer_copy(data[: ctypes.sizeof(_Report)].ljust(ctypes.sizeof(_Report), b"\0"))
    text = bytes(report.text)[: report.size].decode(errors="replace")
    return report.kind if report.kind in (READY, WORN) else FAILED, text


REPORT_SIZE = ctypes.sizeof(_Report)


def _array(frontends: Sequence[FrontEnd]) -> "ctypes.Array[_FrontEnd]":
    array = (_FrontEnd * max(1, len(frontends)))()
    for place, frontend in zip(array, frontends):
        _fill(place, frontend)
    return array


def _fill(place: _FrontEnd, frontend: FrontEnd) -> None:
    path = os.fsencode(frontend.path)
    if len(path) >= PATH:
        raise ValueError("path of a front end's socket is too long: %s" % frontend.path)
    place.ordinal, place.incarnation, place.path = frontend.ordinal, frontend.incarnation, path


def _bytes(text: str) -> bytes:
    return os.fsencode(text)
