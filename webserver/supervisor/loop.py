"""The supervisor's only loop: descriptors, timers and signals. One thread, no gevent.

Timers and the clock are here so that everything above can be driven by a fake one. A callback that raises is a bug;
it is told to `on_error` and the loop goes on, because a supervisor that ends takes every site with it.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable

OnReady = Callable[[bool, bool], None]  # readable, writable
OnError = Callable[[BaseException], None]


class Timer:
    """A call that will happen; `cancel` takes it back."""

    __slots__ = ("cancelled", "function", "when")

    def __init__(self, when: float, function: Callable[[], None]) -> None:
        self.when = when
        self.function = function
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    def __init__(self, on_error: OnError, clock: Callable[[], float] = time.monotonic) -> None:
        self._selector = selectors.DefaultSelector()
        self._clock = clock
        self._on_error = on_error
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._stopped = False

    def now(self) -> float:
        return self._clock()

    def watch(self, number: int, on_ready: OnReady, read: bool = True, write: bool = False) -> None:
        """Call `on_ready` when descriptor `number` is ready; again for the same descriptor: change what for."""
        events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        if number in self._selector.get_map():
            self._selector.modify(number, events, on_ready)
        else:
            self._selector.register(number, events, on_ready)

    def unwatch(self, number: int) -> None:
        """Before the descriptor is closed. Of one that is not watched: nothing happens."""
        if number in self._selector.get_map():
            self._selector.unregister(number)

    def after(self, seconds: float, function: Callable[[], None]) -> Timer:
        timer = Timer(self.now() + max(0.0, seconds), function)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def soon(self, function: Callable[[], None]) -> Timer:
        """In the next turn: for what must not happen inside the caller."""
        return self.after(0.0, function)

    def stop(self) -> None:
        self._stopped = True

    def run(self) -> None:
        while not self._stopped:
            self.turn(None)

    def turn(self, most: float | None) -> None:
        """One turn; waits for at most `most` seconds (None: until something happens)."""
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        wait = most
        if self._timers:
            due = max(0.0, self._timers[0][0] - self.now())
            wait = due if wait is None else min(wait, due)
        for key, events in self._selector.select(wait):
            # An earlier callback of this turn may have closed this descriptor, and opened another by its number.
            current = self._selector.get_map().get(key.fileobj)
            if current is not None and current.data == key.data:
                self._call(key.data, bool(events & selectors.EVENT_READ), bool(events & selectors.EVENT_WRITE))
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled:
                self._call(timer.function)

    def close(self) -> None:
        self._selector.close()

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            function(*arguments)
        except Exception as error:
            self._on_error(error)


class Signals:
    """Turns signals into calls of `on_signal` from the loop. The handlers themselves do nothing."""

    def __init__(self, loop: Loop, numbers: Iterable[int], on_signal: Callable[[int], None]) -> None:
        self._loop = loop
        self._on_signal = on_signal
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        # A full buffer is no loss: SIGCHLD is looked into at every turn, and the others are not sent that often.
        self._old_wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, _nothing) for number in numbers}
        loop.watch(self._reader.fileno(), self._turn)

    def _turn(self, readable: bool, writable: bool) -> None:
        try:
            numbers = os.read(self._reader.fileno(), 4096)
        except BlockingIOError:
            return
        for number in sorted(set(numbers)):
            # TERM twice in one read is still two signals: the second means something else.
            for _ in range(min(numbers.count(number), 2)):
                self._on_signal(number)

    def close(self) -> None:
        self._loop.unwatch(self._reader.fileno())
        for number, handler in self._old.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._old_wakeup)
        self._reader.close()
        self._writer.close()


def _nothing(number: int, frame: object) -> None:
    """A signal handler: the wake-up descriptor has already told the loop."""
