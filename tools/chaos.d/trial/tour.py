"""One run: start, measure, disturb, wait until all is quiet, compare. Exit status 0 only if nothing was found."""

from __future__ import annotations

import sys
import time

import serving

from trial import acts, faults, leftovers, report
from trial.injector import Injector
from trial.judge import Judge, Judgement
from trial.ledger import Ledger, read_runs
from trial.load import Load
from trial.logs import LogReader
from trial.place import GROUPS, Place

LOGGED = 2.5  # seconds until all is in the logs: a full disk is tried, and records are written, once in one
WARM = 2.0  # seconds of load before anything is counted as "before"
MEASURED = 3.0  # seconds for capacity
GOOD = 0.999  # of requests at half of capacity
LONG = 600.0  # seconds from which on so few requests are lost by chance that their share counts
TIMES = 20  # of each kind in half an hour
HALF_HOUR = 1800.0
GAP_MOST = 1.0  # seconds from one fault to the next, on the average


def run(seconds: float, seed: int, keep: bool = False, only: tuple[str, ...] = ()) -> int:
    say(f"chaos: seed {seed}, {seconds:g} s, {'root, with two users' if serving.ROOT else 'one user'}")
    if unknown := set(only) - set(faults.KINDS):
        say(f"there is no fault {', '.join(sorted(unknown))}; there are: {', '.join(faults.KINDS)}")
        return 2
    acts.own_descriptors()
    place = Place()
    try:
        failures = _run(place, seconds, seed, only)
    finally:
        end = place.stop()
        if keep:
            say(f"kept: {place.directory}")
        place.remove(keep)
        serving.remove_copy()
    if end:
        say(f"LEFTOVER -: {end}")
        failures += 1
    say(f"chaos: {'nothing was lost' if not failures else f'FAILED, {failures} findings'} (seed {seed})")
    return 1 if failures else 0


def _run(place: Place, seconds: float, seed: int, only: tuple[str, ...]) -> int:
    plan = faults.plan(seed, seconds, only)
    place.start()
    injector = Injector(place, plan)
    ledger = Ledger()
    logs = LogReader(place.error_log, place.access_log, place.directory / "said")
    load = Load(place.port, seed, ledger, injector.died_with)
    logs.start()
    load.start()
    try:
        load.measure(WARM)
        capacity = load.measure(MEASURED)
        before = leftovers.look(place)
        origin = time.time()
        say(f"capacity {capacity:,.0f} requests/s with this client on the same machine; half of it from now on")
        injector.start()
        broken = injector.finish()
        load.finish()
        elapsed = time.time() - origin
        left = leftovers.wait_for(place, before)
        supervisor = place.process is not None and place.process.poll() is None
        time.sleep(LOGGED)
    finally:
        load.stop()
        logs.finish()
    history = injector.history()
    judge = Judge(ledger, read_runs(place.ledger), logs, history)
    found = judge.run()
    (place.directory / "faults").write_text("".join(f"{done.began:.3f} {done.text(origin)}\n" for done in history))
    for text in broken:
        found.add("operation", "-", 0.0, text)
    for text in left:
        found.add("leftover", "-", 0.0, text)
    if not supervisor:
        found.add("lost", "-", 0.0, "the supervisor has ended")
    if logs.lost:
        found.add("wrong", "-", 0.0, f"{logs.lost} lines of the log were dropped, as the server itself says")
    _measure_up(found, ledger, logs, history, seconds, only)
    for line in report.table(ledger, history, judge, injector.missed):
        say(line)
    good = report.share(ledger)
    say(
        f"{ledger.count:,} requests in {elapsed:.0f} s, {ledger.answered():,} answered 2xx ({good:.4%}),"
        f" {ledger.vanished()} vanished on purpose, {len(ledger.resets)} idle connections reset and asked again"
    )
    ends = ", ".join(f"{count} of {name} by {why or 'order'}" for (name, why), count in sorted(logs.ends.items()))
    say(f"{len(history)} faults in {seconds:g} s; workers that went besides: {ends}")
    near = {
        number: [line for line in logs.near(one.at) if "[error]" in line and "503" not in line][:6]
        for number, one in enumerate(found.findings[: report.SHOWN])
        if one.at
    }
    for line in report.findings(judge, origin, near):
        say(line)
    return len(found.findings)


def _measure_up(
    found: Judgement, ledger: Ledger, logs: LogReader, history: list[faults.Done], seconds: float, only: tuple[str, ...]
) -> None:
    """What a run has to be, to have shown anything."""
    if ledger.answered() < 10 * seconds:
        found.add("lost", "-", 0.0, f"only {ledger.answered()} requests were answered 2xx in {seconds:g} s")
    if only:
        return
    for name, group in GROUPS.items():
        # Not by us, and so not among the faults: its own policy, beside all of them.
        if group.ends and logs.ends[name, group.ends] < int(TIMES * seconds / HALF_HOUR):
            found.add("operation", name, 0.0, f"{logs.ends[name, group.ends]} workers ended by {group.ends}")
    if seconds >= LONG and report.share(ledger) < GOOD:
        found.add("lost", "-", 0.0, f"{report.share(ledger):.4%} were answered 2xx, expected {GOOD:.1%}")
    if len(history) < (seconds - faults.QUIET) / GAP_MOST - 1:
        found.add("operation", "-", 0.0, f"{len(history)} faults were done in {seconds:g} s, expected one a second")
    least = int(TIMES * seconds / HALF_HOUR)
    for name in faults.KINDS:
        count = sum(1 for done in history if done.kind == name)
        if count < least:
            found.add("operation", name, 0.0, f"done {count} times, expected {least}")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
