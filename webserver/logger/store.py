"""What the logger has read and not written yet, in memory that outlives it: the supervisor keeps it for the next one.

    words    1 page: where everything stands, one number in each word
    inbox    what has just been read from a pipe, straight from the kernel
    rests    twice: of pipes whose last line has no end yet
    rings    of error_log, of access_log, of sites' logs together: lines that are to be written

What is read lies in the inbox until its lines are in the rings. One store to one word ends that, so a logger that is
killed at any instruction leaves either what it had read or what it had made of it, and nothing is lost or there twice.
Its successor does not trust what it finds: numbers that cannot be make it begin with nothing.
"""

from __future__ import annotations

import mmap
import struct

MEMORY_LIMIT = 4 * 1024 * 1024  # bytes of a ring: lines that wait for a disk that is full
READ_SIZE = 16384  # bytes from one pipe in one turn; of empty lines alone it makes less than half a ring
RESTS = 1024 * 1024  # bytes of rests that outlive a logger

_PAGE = 4096
_INBOX = _PAGE
_RESTS = _INBOX + READ_SIZE
_RINGS = _RESTS + 2 * RESTS
_NAMES = ("error", "access", "sites")  # of the rings
SIZE = _RINGS + len(_NAMES) * MEMORY_LIMIT

# Words. The marks are what held when the inbox was begun; of a move, what held before it.
_PIPE, _RESTS_MARK, _REST, _MOVE, _MOVE_MARK = range(5)
_MARKS = 5  # one for each ring
_WORDS_OF_RINGS = 8
_HEAD, _TAIL, _DROPPED, _WRITING, _WRITING_AT, _RING_WORDS = range(6)
_LAYOUT = 31  # where a logger of another version has nothing, or another number
LAYOUT = 2
_REST_HEAD = struct.Struct("=QQ")  # pipe, size


class Ring:
    """Bytes that wait for one log, first in, first out."""

    def __init__(self, words: memoryview, memory: memoryview) -> None:
        self._words = words
        self._memory = memory
        head, tail = words[_HEAD], words[_TAIL]
        self.spoilt = (head > tail and tail != 0) or tail - head > MEMORY_LIMIT or words[_WRITING] > 1 << 62
        if self.spoilt:
            for number in (_TAIL, _HEAD, _DROPPED, _WRITING):
                words[number] = 0
        if not words[_TAIL]:
            words[_HEAD] = 0  # it was being rewound
        if self.writing is None:
            words[_WRITING] = 0  # it had been noted, but for this

    def __len__(self) -> int:
        return max(0, self._words[_TAIL] - self._words[_HEAD])

    @property
    def dropped(self) -> int:
        """Lines that there was no room for, and that nobody has been told of."""
        return int(self._words[_DROPPED])

    @dropped.setter
    def dropped(self, number: int) -> None:
        self._words[_DROPPED] = number

    @property
    def writing(self) -> int | None:
        """How large the file was when a write to it was begun that has not been noted; None: there is none.

        `advance` notes it: what is told of a write holds for the head that it was begun with.
        """
        words = self._words
        return int(words[_WRITING]) - 1 if words[_WRITING] and words[_WRITING_AT] == words[_HEAD] else None

    @writing.setter
    def writing(self, size: int | None) -> None:
        self._words[_WRITING] = 0
        if size is not None:
            self._words[_WRITING_AT] = self._words[_HEAD]
            self._words[_WRITING] = size + 1

    def append(self, data: bytes) -> bool:
        """False: there is no room for it."""
        if len(self) + len(data) > MEMORY_LIMIT:
            return False
        tail = self._words[_TAIL]
        at = tail % MEMORY_LIMIT
        first = min(len(data), MEMORY_LIMIT - at)
        self._memory[at : at + first] = data[:first]
        self._memory[: len(data) - first] = data[first:]
        self._words[_TAIL] = tail + len(data)
        return True

    def first(self) -> memoryview:
        """What waits longest, as far as it lies in one piece."""
        at = self._words[_HEAD] % MEMORY_LIMIT
        return self._memory[at : min(at + len(self), MEMORY_LIMIT)]

    def peek(self, offset: int, size: int) -> bytes:
        """Bytes that wait, of which `offset` wait longer; there are as many."""
        at = (self._words[_HEAD] + offset) % MEMORY_LIMIT
        first = min(size, MEMORY_LIMIT - at)
        return bytes(self._memory[at : at + first]) + bytes(self._memory[: size - first])

    @property
    def head(self) -> int:
        """Bytes that have been written since it was last empty."""
        return int(self._words[_HEAD])

    @property
    def tail(self) -> int:
        """The same with those that wait."""
        return int(self._words[_TAIL])

    def advance(self, size: int) -> None:
        """So much of it has been written."""
        self._words[_HEAD] += size

    def rewind(self) -> None:
        """When nothing waits: the same memory again, and not all of it in turn."""
        if not len(self):
            self._words[_TAIL] = 0  # first: a head beyond it is no number of bytes
            self._words[_HEAD] = 0

    def take_back(self, mark: int) -> None:
        """To what it held at `mark`, as far as that has not been written."""
        if mark < self._words[_TAIL]:
            self._words[_TAIL] = max(mark, self._words[_HEAD])


class Store:
    def __init__(self, descriptor: int = -1) -> None:
        """`descriptor`: SIZE bytes of memory that were zeros at first; without it nothing outlives this process."""
        self._map = mmap.mmap(descriptor, SIZE)
        memory = memoryview(self._map)
        self._words = memory[:_PAGE].cast("Q")
        self._inbox = memory[_INBOX:_RESTS]
        self._rests = (memory[_RESTS : _RESTS + RESTS], memory[_RESTS + RESTS : _RINGS])
        foreign = self._words[_LAYOUT] != LAYOUT and any(self._words)
        if self._words[_LAYOUT] != LAYOUT:
            memory[:_RESTS] = bytes(_RESTS)
            self._words[_LAYOUT] = LAYOUT
        rings = []
        for number in range(len(_NAMES)):
            at, begin = _WORDS_OF_RINGS + _RING_WORDS * number, _RINGS + number * MEMORY_LIMIT
            rings.append(Ring(self._words[at : at + _RING_WORDS], memory[begin : begin + MEMORY_LIMIT]))
        self._rings = rings
        self.error, self.access, self.sites = rings
        self.spoilt = foreign or any(ring.spoilt for ring in rings)
        self._end_move()
        pipe = self._words[_PIPE]
        if pipe:
            for number, ring in enumerate(rings):
                ring.take_back(self._words[_MARKS + number])
            self._words[_REST] = self._words[_RESTS_MARK]
        self.rests = self._read_rests()
        self.unread = (int(pipe), bytes(self._inbox).rstrip(b"\0")) if pipe else None  # of the logger before
        if not pipe:
            self._inbox[:] = bytes(READ_SIZE)

    def begin(self, pipe: int) -> memoryview:
        """Where to read to, from this pipe."""
        for number, ring in enumerate(self._rings):
            self._words[_MARKS + number] = ring.tail
        self._words[_RESTS_MARK] = self._words[_REST]
        self._words[_PIPE] = pipe
        return self._inbox

    def end(self, size: int, rests: dict[int, bytes]) -> None:
        """What was read, `size` bytes, is in the rings, but for the rests of pipes."""
        if rests or self._words[_REST]:
            self._write_rests(rests)
        self._words[_PIPE] = 0
        self._inbox[:size] = bytes(size)
        self.unread = None

    def room(self, lines: bytes) -> bool:
        """Whether `move` would find some."""
        return len(self.error) + len(lines) <= MEMORY_LIMIT

    def move(self, size: int, lines: bytes) -> bool:
        """What waits longest for sites' logs, `size` bytes, is over, and `lines` wait for the error log instead.

        Whoever dies in here leaves them in one of the two. False: there is no room, and they are counted as dropped.
        """
        self._words[_MOVE_MARK] = self.error.tail
        self._words[_MOVE] = self.sites.head + 1
        moved = self.error.append(lines)
        if not moved:
            self.error.dropped += lines.count(b"\n")
        self.sites.advance(size)
        self._words[_MOVE] = 0
        return moved

    def _end_move(self) -> None:
        if self._words[_MOVE] and self._words[_MOVE] == self.sites.head + 1:
            self.error.take_back(self._words[_MOVE_MARK])
        self._words[_MOVE] = 0

    def _write_rests(self, rests: dict[int, bytes]) -> None:
        """Into the half that is not in use; _REST says which is: 0 none, else 1 + half."""
        if not rests:
            self._words[_REST] = 0
            return
        half = 1 if self._words[_REST] == 1 else 0
        memory, at = self._rests[half], 0
        for pipe, rest in rests.items():
            if at + 2 * _REST_HEAD.size + len(rest) > RESTS:
                continue
            _REST_HEAD.pack_into(memory, at, pipe, len(rest))
            at += _REST_HEAD.size
            memory[at : at + len(rest)] = rest
            at += len(rest)
        _REST_HEAD.pack_into(memory, at, 0, 0)
        self._words[_REST] = 1 + half

    def _read_rests(self) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        which = self._words[_REST]
        if which not in (1, 2):
            return found
        memory, at = self._rests[which - 1], 0
        while at + _REST_HEAD.size <= RESTS:
            pipe, size = _REST_HEAD.unpack_from(memory, at)
            at += _REST_HEAD.size
            if not pipe or size > RESTS - at:
                break
            found[pipe] = bytes(memory[at : at + size])
            at += size
        return found
