"""A worker's page as Python reads it: the scoreboard for status, and for who decides how many workers there are.

The offsets are those of struct wire_page and struct wire_slot in wire.h; a test compares them with the header. Every
word is hostile input: it is shown, never followed. Standard library only.
"""

from __future__ import annotations

import mmap
import struct
from typing import NamedTuple, Tuple, Union

VERSION = 3  # WIRE_VERSION
MAGIC = 0x57534831  # WIRE_MAGIC
FRONTENDS = 32  # WIRE_FRONTENDS
SLOTS = 256  # WIRE_SLOTS
PAGE_HEAD = 128  # sizeof(struct wire_page)
SLOT_SIZE = 64 + 8 * FRONTENDS  # sizeof(struct wire_slot)
LOANS = 32  # WIRE_LOANS
LOAN = 65536  # WIRE_LOAN
LOANS_HEAD = 4 * FRONTENDS  # sizeof(struct wire_loans)
LOANS_SLOT = 4 * (LOANS + FRONTENDS)  # sizeof(struct wire_slot_loans)

STATES = ("starting", "ready", "draining", "gone")  # enum wire_worker_state
PHASES = ("idle", "running", "reading", "writing", "tunnel")  # enum wire_phase
TUNNEL = 4  # WIRE_TUNNEL

PAGE_FORMAT = "=IIIIQQIII"  # magic version state slots worker started_ns pid protocol_errors shown
SLOT_FORMAT = "=QQIIQQQQ"  # running since_ns phase queued requests busy_ns errors deadline_ns
PAGE_FIELDS = ("magic", "version", "state", "slots", "worker", "started_ns", "pid", "protocol_errors", "shown")
SLOT_FIELDS = ("running", "since_ns", "phase", "queued", "requests", "busy_ns", "errors", "deadline_ns")

_PAGE = struct.Struct(PAGE_FORMAT)
_SLOT = struct.Struct(SLOT_FORMAT)

Buffer = Union[bytes, bytearray, memoryview, mmap.mmap]


class Slot(NamedTuple):
    running: int  # serial; 0 when idle
    since_ns: int  # CLOCK_MONOTONIC
    phase: int
    queued: int
    requests: int
    busy_ns: int
    errors: int
    deadline_ns: int = 0  # CLOCK_MONOTONIC; 0: none


class Page(NamedTuple):
    magic: int
    version: int
    state: int
    slots: int
    worker: int
    started_ns: int
    pid: int
    protocol_errors: int
    shown: int  # how often it has shown where it is stuck
    slot: Tuple[Slot, ...]

    @property
    def state_name(self) -> str:
        return STATES[self.state] if self.state < len(STATES) else "unknown"

    @property
    def requests(self) -> int:
        return sum(slot.requests for slot in self.slot)

    @property
    def errors(self) -> int:
        return sum(slot.errors for slot in self.slot)

    @property
    def busy(self) -> int:
        return sum(1 for slot in self.slot if slot.running)

    @property
    def tunnels(self) -> int:
        return sum(1 for slot in self.slot if slot.running and slot.phase == TUNNEL)

    @property
    def queued(self) -> int:
        return sum(slot.queued for slot in self.slot)


def page_size(slots: int) -> int:
    """WIRE_PAGE_SIZE: bytes of a page with `slots` slots. ValueError unless 1 to WIRE_SLOTS."""
    if not 1 <= slots <= SLOTS:
        raise ValueError("a worker has 1 to %d slots, not %d" % (SLOTS, slots))
    return PAGE_HEAD + slots * SLOT_SIZE


def loans_size(slots: int) -> int:
    """WIRE_LOANS_SIZE: bytes of the memory that a worker with so many slots lends pieces of answers in."""
    words = (LOANS_HEAD + slots * LOANS_SLOT + 4095) & ~4095
    return words + slots * LOANS * LOAN


def read_page(memory: Buffer, slots: int) -> Page:
    """The page as it is now. `slots` is the reader's own knowledge; what the page says is only shown."""
    view = memoryview(memory)
    if len(view) < page_size(slots):
        raise ValueError("a page of %d bytes has no room for %d slots" % (len(view), slots))
    found = tuple(Slot(*_SLOT.unpack_from(view, PAGE_HEAD + number * SLOT_SIZE)) for number in range(slots))
    return Page(*(*_PAGE.unpack_from(view, 0), found))


class Activity(NamedTuple):
    """What a worker has run; times in seconds."""

    busy: int  # slots that run a request
    requests: int  # finished
    begun: float  # when the latest was begun
    ran: float  # all of them together


def activity(memory: Buffer, slots: int) -> Activity:
    """A page's sums, without making a record of each slot's."""
    busy = requests = begun = ran = 0
    for number in range(slots):
        running, since, _, _, finished, busy_ns, _, _ = _SLOT.unpack_from(memory, PAGE_HEAD + number * SLOT_SIZE)
        busy += 1 if running else 0
        requests += finished
        begun = max(begun, since)
        ran += busy_ns
    return Activity(busy, requests, begun / 1e9, ran / 1e9)
