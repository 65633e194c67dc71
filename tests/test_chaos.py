"""tools/chaos: nothing is lost under faults; and what it judges by is itself right.

What it finds is printed with its seed: tools/chaos --seed N repeats the faults.
"""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from serving import TREE

sys.path.insert(0, str(TREE / "tools/chaos.d"))

from trial import causes, faults
from trial.client import Outcome
from trial.faults import Done, Planned
from trial.judge import Judge
from trial.ledger import Ledger, read_runs
from trial.logs import LogReader, Record, Said
from trial.mix import Ask, Mix, repeated

# A SEGV that somebody sends is, for a sanitizer, what it looks for.
pytestmark = pytest.mark.unsanitized

SHORT = 120
LONG = 1800


def chaos(*words: str) -> str:
    result = subprocess.run([TREE / "tools/chaos", *words], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.timeout(SHORT + 200)
def test_nothing_is_lost() -> None:
    """S1: half of capacity, all four languages, a fault each second, and two ledgers that agree."""
    assert "nothing was lost" in chaos("--seconds", str(SHORT))


@pytest.mark.long
@pytest.mark.timeout(LONG + 400)
def test_nothing_is_lost_in_half_an_hour(record_property: object) -> None:
    said = chaos("--seconds", str(LONG))
    assert callable(record_property)
    record_property("ran", next(line for line in said.splitlines() if " requests in " in line))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_planted_bugs_are_found() -> None:
    assert "all 5 planted bugs were found" in chaos("--self-test")


# What it judges by


def test_the_same_seed_gives_the_same_faults() -> None:
    assert faults.plan(7, 300) == faults.plan(7, 300)
    assert faults.plan(7, 300) != faults.plan(8, 300)
    first, again = Mix(7, "c1").plain(), Mix(7, "c1").plain()
    assert [next(first) for _ in range(100)] == [next(again) for _ in range(100)]


@pytest.mark.parametrize("seed", range(5))
def test_each_kind_comes_often_enough(seed: int) -> None:
    """One a second, each kind 20 times in half an hour, and none beside one that it must not meet."""
    plan = faults.plan(seed, LONG)
    assert len(plan) >= LONG
    counts = Counter(one.kind for one in plan)
    assert set(counts) == set(faults.KINDS)
    assert min(counts.values()) >= 20
    for one, later in itertools.pairwise(plan):
        if later.kind in faults.KINDS[one.kind].apart:
            assert later.at > one.at + one.length


ASK = Ask("c0.1", "get", "python", "POST", "/python/run?id=c0.1", upload=10, out=64)
AT = 1000.0
CHECKSUM = hashlib.sha256(repeated("c0.1/body", 10)).hexdigest()


def outcome(kind: str = "answered", status: int = 200, named: str = "", ask: Ask = ASK, at: float = AT) -> Outcome:
    return Outcome(ask, kind, status, named, "", 4711, at - 5, at - 1, at, CHECKSUM)


def done(kind: str, group: str = "python", at: float = AT, ports: tuple[int, ...] = ()) -> Done:
    return Done(Planned(0, 0.0, kind, 0.0, 0.0, 0.0), at - 0.1, at - 0.05, kind, group, frozenset(ports))


def judged(
    directory: Path, one: Outcome, runs: str, *history: Done, said: tuple[str, ...] = (), record: bool = False
) -> list[str]:
    """The kinds of what is found when a client saw `one` and the application wrote `runs`."""
    (directory / "python.1").write_text(runs)
    ledger, logs = Ledger(), LogReader(directory / "e", directory / "a", directory / "c")
    ledger.add(one)
    logs.said = {"1": [Said("1", "front end 0 12 site=all", text, AT) for text in said]}
    if record:
        logs.records = {one.ask.id: [Record("1", one.status, False)]}
    return [found.kind for found in Judge(ledger, read_runs(directory), logs, list(history)).run().findings]


def run_once() -> str:
    return f"B c0.1\nE c0.1 {CHECKSUM} 64\n"


KILLED = '502: group "python": worker 3 killed by SIGKILL; it was running this request'


def test_ledgers_that_agree(tmp_path: Path) -> None:
    assert judged(tmp_path, outcome(), run_once()) == []


def test_ledgers_that_do_not(tmp_path: Path) -> None:
    assert judged(tmp_path, outcome(), "") == ["lost"]
    assert judged(tmp_path, outcome(), "B c0.1\n") == ["wrong"]
    assert judged(tmp_path, outcome(), run_once() + "B c0.1\n") == ["twice"]
    assert judged(tmp_path, outcome(), run_once().replace(" 64", " 65")) == ["wrong"]
    assert judged(tmp_path, outcome(), run_once() + "B c0.2\n") == ["wrong"]
    assert judged(tmp_path, outcome(), run_once() + "E c0.\n") == ["wrong"]
    assert judged(tmp_path, outcome("silent", 0), "") == ["lost"]
    assert judged(tmp_path, outcome("refused", 0), "", done("frontend-kill", ports=(4711,))) == ["lost"]
    assert judged(tmp_path, outcome(status=500), "B c0.1\n") == ["wrong"]


def test_what_explains_a_refusal(tmp_path: Path) -> None:
    kill, refused = done("worker-kill"), outcome(status=502, named="1")
    assert judged(tmp_path, refused, "B c0.1\n", kill, said=(KILLED,)) == []
    assert judged(tmp_path, refused, "B c0.1\n", kill) == ["unexplained"]
    assert judged(tmp_path, refused, "B c0.1\n", kill, said=(KILLED, KILLED)) == ["unexplained"]
    assert judged(tmp_path, refused, "B c0.1\n", said=(KILLED,)) == ["unexplained"]
    assert judged(tmp_path, refused, "B c0.1\n", done("worker-kill", "perl"), said=(KILLED,)) == ["unexplained"]
    assert judged(tmp_path, refused, "B c0.1\n", done("worker-kill", at=AT - 60), said=(KILLED,)) == ["unexplained"]
    assert judged(tmp_path, refused, "B c0.1\n", done("worker-segv"), said=(KILLED,)) == ["unexplained"]
    assert judged(tmp_path, refused, "B c0.1\nB c0.1\n", kill, said=(KILLED,)) == ["twice"]


def test_what_explains_a_cut(tmp_path: Path) -> None:
    cut = outcome("cut", 200)
    assert judged(tmp_path, cut, "B c0.1\n", done("worker-kill"), said=(KILLED,), record=True) == []
    assert judged(tmp_path, cut, "B c0.1\n", done("worker-kill"), record=True) == ["unexplained"]
    assert judged(tmp_path, cut, "B c0.1\n", done("frontend-kill", "", ports=(4711,))) == []
    assert judged(tmp_path, cut, "B c0.1\n", done("frontend-kill", "", ports=(4712,))) == ["unexplained"]


def test_a_batch_of_refusals_names_each(tmp_path: Path) -> None:
    reader = LogReader(tmp_path / "e", tmp_path / "a", tmp_path / "c")
    head = "2026-11-22 23:40:13.123 [error] front end 0 1234"
    reader._error(f"{head} site=all request=00000000000000a1: {KILLED}")
    reader._error(f"{head}: 2 more like this: {KILLED} (requests 00000000000000a2 00000000000000a3)")
    assert sorted(reader.said) == [f"00000000000000a{number}" for number in (1, 2, 3)]
    assert all(causes.find(lines[0].text) for lines in reader.said.values())
