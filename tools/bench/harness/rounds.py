"""The order of a run: start servers, count calls, verify cells, fresh memory, rounds, extra rows, memory afterwards.

All servers of the selected rows run all the time (an idle one costs next to nothing), so that the ones of a row can be
interleaved; those with an access log are separate instances.  A cell that fails is named and the rest goes on.
"""

import random
import sys
import time
from dataclasses import dataclass, field

from harness import big, cell, freshness, idle, instance, life, logs, machine, sleeper, verify
from harness import site as tree
from harness.instance import Context, Instance, Options
from harness.peers import BY_NAME, OURS
from harness.process import BenchError
from harness.rows import EXTRA, Row
from harness.store import Store

IDLE_ROUNDS = 3  # 10,000 connections take their time
STARTUP_ROUNDS = 5
Key = tuple[str, bool]  # server, access log on


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@dataclass
class Run:
    context: Context
    store: Store
    rows: list[Row]
    extra: list[str]
    only_servers: tuple[str, ...]
    rounds: int
    seconds: float
    order: random.Random
    running: dict[Key, Instance] = field(default_factory=dict)

    # -- which servers

    def _usable(self, names: tuple[str, ...]) -> list[str]:
        return [
            n for n in names if n not in self.missing and (not self.only_servers or n.startswith(self.only_servers))
        ]

    def prepare(self) -> None:
        self.missing = {name: why for name, one in BY_NAME.items() if (why := instance.available(one, self.context))}
        for name, why in self.missing.items():
            self.store.notes.append(f"{name} is left out: {why}")
            say(f"{name} is left out: {why}")
        wanted: dict[Key, None] = {}
        for row in self.rows:
            wanted.update({(name, row.access_log): None for name in self._usable(row.servers)})
        for name in self.extra:
            if not name.startswith(("big", "startup")):
                wanted.update({(server, False): None for server in self._usable(EXTRA[name])})
        if {"wakeups", "memory"} & set(self.extra):
            alone = tuple(n for n in BY_NAME if n.startswith(OURS)) + ("nginx-uwsgi", "nginx-fpm")
            wanted.update({(server, False): None for server in self._usable(alone)})
        self.wanted = list(wanted)

    def estimate(self) -> float:
        cells = sum(len(self._usable(row.servers)) * (self.seconds * row.slow + 0.9) for row in self.rows)
        cells += sum(2 * self.seconds + 1.5 for name in self.extra if name.startswith("sleeper")) * 2
        return cells * self.rounds + 25 * len(self.wanted) ** 0.5 + 20 * len(self.extra)

    # -- steps

    def _attempt(self, row: str, server: str, action: object, *arguments: object) -> None:
        try:
            action(*arguments)  # type: ignore[operator]
        except (BenchError, OSError) as error:
            self.store.fail(row, server, str(error))
            say(f"{row}, {server}: {error}")

    def start_all(self) -> None:
        tree.warm(self.context.site)
        for name, access_log in self.wanted:
            say(f"starting {name}{' with access log' if access_log else ''}")
            try:
                one = instance.start(self.context, BY_NAME[name], Options(access_log=access_log))
                self.running[name, access_log] = one
            except BenchError as error:
                self.store.fail("start", name, str(error))
                say(f"{name}: {error}")

    def count_calls(self) -> None:
        applications = {row.language for row in self.rows} - {"echo", "static"}
        for name in dict.fromkeys(name for name, _ in self.running):
            server = BY_NAME[name]
            if server.speaks not in applications:
                continue
            say(f"counting calls of {name}")
            try:
                wrong, counts = verify.count_calls(self.context, server)
            except BenchError as error:
                wrong, counts = str(error), {}
            if counts:
                self.store.add("calls", name, **counts)
            if wrong:
                self.store.fail("calls", name, wrong)
                say(f"calls of {name}: {wrong}")

    def verify_cells(self) -> None:
        for row in self.rows:
            for name in self._usable(row.servers):
                one = self.running.get((name, row.access_log))
                wrong = verify.check_cell(one, row) if one else "did not start"
                if wrong:
                    self.store.fail(row.name, name, wrong)
                    say(f"{row.name}, {name}: {wrong}")

    def memory(self, when: str) -> None:
        if "memory" in self.extra:
            for (_, access_log), one in self.running.items():
                if not access_log:
                    life.memory(one, "memory", when, self.store)

    def _cells(self, row: Row) -> list[Instance]:
        found = [
            self.running[name, row.access_log]
            for name in self._usable(row.servers)
            if (name, row.access_log) in self.running and not self.store.failed(row.name, name)
        ]
        self.order.shuffle(found)
        return found

    def one_round(self, number: int) -> None:
        rows = list(self.rows)
        self.order.shuffle(rows)
        for row in rows:
            parts = []
            for one in self._cells(row):
                self._attempt(row.name, one.server.name, cell.measure, self.context, one, row, self.seconds, self.store)
                figures = self.store.figures.get(row.name, {}).get(one.server.name, {})
                if "rate" in figures:
                    rate, p50 = figures["rate"][-1], figures["p50_us"][-1]
                    parts.append(f"{one.server.name} {rate:,.0f}/s {figures['cpu_us'][-1]:.1f}µs p50 {p50:,.0f}")
            say(f"round {number + 1}: {row.name}: {'; '.join(parts) or 'nothing to measure'}")
        for name in self.extra:
            self._extra_in_round(name, number)

    def _extra_in_round(self, name: str, number: int) -> None:
        limit = {"idle": IDLE_ROUNDS, "startup": STARTUP_ROUNDS}.get(name.partition("-")[0], self.rounds)
        servers = self._usable(EXTRA[name])
        self.order.shuffle(servers)
        if number >= limit or name.startswith(("big", "wakeups", "memory")):
            return
        for server in servers:
            if name == "startup" and self.store.failed(name, server):
                continue
            if name == "startup":
                machine.wait_quiet()
                if number == 0:  # warms what the first start reads from disk; not counted
                    self._attempt(name, server, life.startup, self.context, BY_NAME[server], name, Store())
                self._attempt(name, server, life.startup, self.context, BY_NAME[server], name, self.store)
                continue
            one = self.running.get((server, False))
            if one is None or self.store.failed(name, server):
                continue
            if name == "freshness":
                self._attempt(name, server, freshness.measure, self.context, one, name, self.store)
            else:
                action = sleeper.measure if name.startswith("sleeper") else idle.measure
                self._attempt(name, server, action, self.context, one, name, self.seconds, self.store)
            say(f"round {number + 1}: {name}: {server} {self._last(name, server)}")

    def _last(self, row: str, server: str) -> str:
        figures = self.store.figures.get(row, {}).get(server, {})
        return ", ".join(f"{metric} {values[-1]:.4g}" for metric, values in figures.items())

    def once(self) -> None:
        for name in self.extra:
            if name.startswith("big"):
                for server in self._usable(EXTRA[name]):
                    machine.wait_quiet()
                    self._attempt(name, server, big.measure, self.context, BY_NAME[server], name, self.store)
                    say(f"{name}: {server} {self._last(name, server)}")
        if "wakeups" in self.extra:
            machine.wait_quiet()
            plain = [one for (_, access_log), one in self.running.items() if not access_log]
            life.wakeups(plain, "wakeups", self.store)

    def whole(self) -> None:
        self.prepare()
        if not self.wanted and not self.extra:
            raise BenchError("no such row, or no server for it")
        say(f"about {self.estimate() / 60:.0f} minutes")
        self.start_all()
        self.memory("fresh")
        self.count_calls()
        self.verify_cells()
        for number in range(self.rounds):
            self.one_round(number)
        self.once()
        self.memory("after")

    def _check_log(self, one: Instance) -> None:
        """Was the access log really on?  After the end, since some write only when a buffer is full."""
        name, rows = one.server.name, [row.name for row in self.rows if row.access_log]
        figures = [self.store.figures.get(row, {}).get(name, {}).get("answers", []) for row in rows]
        answers = sum(sum(values) for values in figures)
        if answers:
            self.store.add("accesslog-lines", name, logged_share=logs.lines(one.directory / "logs") / answers)

    def end_all(self) -> None:
        for (_, access_log), one in self.running.items():
            instance.end(self.context, one)
            if access_log:
                self._check_log(one)
        self.running.clear()
