#!/usr/bin/python3
"""make bench: our server beside its peers, in interleaved rounds.  See README.md.

Owns the command line, the signals and the clean-up: whatever happens, no process and no temporary file stays.
Exit status: 0 measured, 1 could not measure or something was left behind, 2 wrong arguments, 130 interrupted.  A missed
floor is a verdict in the report, not an exit status.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from harness import machine, process, report, rounds, rows, site
from harness.instance import Context
from harness.process import BenchError
from harness.store import Store

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent.parent
QUICK = (2, 1.5)  # rounds, seconds
FULL = (7, 4.0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="benchmark of our server beside its peers (README.md)")
    parser.add_argument("--rounds", type=int, help=f"interleaved rounds (default {FULL[0]})")
    parser.add_argument("--seconds", type=float, help=f"seconds a cell (default {FULL[1]})")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK[0]} rounds of {QUICK[1]} s")
    parser.add_argument("--only", nargs="+", metavar="ROW", default=[], help="rows whose name begins so")
    parser.add_argument("--servers", nargs="+", metavar="NAME", default=[], help="servers whose name begins so")
    parser.add_argument("--list", action="store_true", help="name the rows and their servers, and end")
    parser.add_argument("--port-base", type=int, default=18400, help="first of 200 ports (default 18400)")
    parser.add_argument("--webserverd", type=Path, default=ROOT / ".venv/bin/webserverd", help="our server's program")
    parser.add_argument("--output", type=Path, help="JSON file (default results/last.json; partial.json if not whole)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100000, help="of the order of cells")
    found = parser.parse_args()
    usual = QUICK if found.quick else FULL
    found.rounds = found.rounds or usual[0]
    found.seconds = found.seconds or usual[1]
    if found.rounds < 1 or found.seconds < 0.5 or not 1024 <= found.port_base <= 32000:
        parser.error("at least 1 round, 0.5 s a cell, and ports from 1024 to 32000")
    return found


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _list() -> None:
    for row in rows.ROWS:
        print(f"{row.name:28} {', '.join(row.servers)}")
    for name, servers in rows.EXTRA.items():
        print(f"{name:28} {', '.join(servers) or 'every server that runs'}")


def _write(options: argparse.Namespace, store: Store, selected: set[str]) -> Path:
    whole = not options.only and not options.servers and options.rounds >= FULL[0] and options.webserverd.exists()
    output = options.output or BENCH / "results" / ("last.json" if whole else "partial.json")
    head: dict[str, object] = {
        "machine": machine.describe(ROOT),
        "command": " ".join(sys.argv),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "seed": options.seed,
    }
    verdicts = report.verdicts(store, selected)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(store.text(head, verdicts), encoding="utf-8")
    output.with_suffix(".md").write_text(report.markdown(head, store, verdicts), encoding="utf-8")
    return output


def measure(options: argparse.Namespace) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    timed, extra = rows.selected(options.only)
    store = Store()
    base = Path(tempfile.mkdtemp(prefix="webbench-"))
    nofile = process.raise_nofile()
    process.become_subreaper()
    status, complaints = 0, []
    try:
        context = Context(site.build(base), ROOT, options.webserverd.resolve(), options.port_base, nofile)
        complaints = context.complaints
        context.check_ports()
        run = rounds.Run(
            context,
            store,
            timed,
            extra,
            tuple(options.servers),
            options.rounds,
            options.seconds,
            random.Random(options.seed),
        )
        try:
            run.whole()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # the clean-up is bounded, so it need not be interruptible
            run.end_all()
    except KeyboardInterrupt:
        rounds.say("interrupted; no report is written")
        status = 130
    finally:
        left = process.sweep()
        shutil.rmtree(base, ignore_errors=True)
    for complaint in complaints + left:
        rounds.say(complaint)
        status = status or 1
    if status != 130:
        output = _write(options, store, {row.name for row in timed} | set(extra))
        print(output.with_suffix(".md").read_text(encoding="utf-8"))
        rounds.say(f"written: {output} and {output.with_suffix('.md').name}")
    return status


def main() -> int:
    options = arguments()
    if options.list:
        _list()
        return 0
    try:
        with machine.take_lock():
            return measure(options)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
