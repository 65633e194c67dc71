"""The sleeper row: two slots, one client that always has a 200 ms request running.  What is left for the others?

Each server is compared with itself: hello rate and p99 with the sleeper against without, back to back.
"""

import threading
import time

from harness import machine, requests, wrk
from harness.client import Session
from harness.instance import Context, Instance
from harness.process import BenchError
from harness.store import Store

CONNECTIONS = 64


class Sleeper(threading.Thread):
    """Asks for one 200 ms sleep after the other until told to stop."""

    def __init__(self, running: Instance) -> None:
        super().__init__(daemon=True)
        self.running = running
        self.times: list[float] = []
        self.wrong = ""
        self.ending = threading.Event()

    def run(self) -> None:
        session = Session(self.running.port)
        number = 0
        try:
            while not self.ending.is_set():
                begin = time.monotonic()
                answer = session.exchange(requests.one(self.running.server.speaks, "sleep", number))
                number += 1
                self.times.append(time.monotonic() - begin)
                if answer.status != 200 or answer.body != b"hello, world" or self.times[-1] < 0.199:
                    self.wrong = f"status {answer.status} after {self.times[-1]:.3f} s"
                    return
        except OSError as error:
            self.wrong = str(error)
        finally:
            session.close()


def measure(context: Context, running: Instance, row: str, seconds: float, store: Store) -> None:
    texts = requests.write(context.site.requests, running.server.speaks, "hello")
    log = context.site.base / "wrk.log"
    machine.wait_quiet()
    quiet = wrk.run(running.port, texts, CONNECTIONS, seconds, log)
    machine.wait_quiet(3.0)
    sleeper = Sleeper(running)
    sleeper.start()
    time.sleep(0.05)
    try:
        loaded = wrk.run(running.port, texts, CONNECTIONS, seconds, log)
    finally:
        sleeper.ending.set()
        sleeper.join(60)
    if sleeper.wrong or not sleeper.times or not loaded.requests or not quiet.requests:
        raise BenchError(f"sleeper: {sleeper.wrong or 'no answers'}")
    quiet_rate, loaded_rate = quiet.requests / quiet.duration, loaded.requests / loaded.duration
    store.add(
        row,
        running.server.name,
        quiet_rate=quiet_rate,
        loaded_rate=loaded_rate,
        rate_ratio=loaded_rate / quiet_rate,
        quiet_p99_us=quiet.p99,
        loaded_p99_us=loaded.p99,
        p99_ratio=loaded.p99 / quiet.p99,
        loaded_max_us=loaded.max,
        sleeper_longest_ms=max(sleeper.times) * 1000,
        errors=sum(loaded.errors.values()) + sum(quiet.errors.values()),
    )
