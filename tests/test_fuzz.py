"""Every fuzz harness over its corpus, and on from there for a bounded time; make test-long: ten million cases each.

A harness is built by tools/fuzz with the address and undefined-behaviour sanitizers. A case that is found is kept in
build/fuzz, and belongs into the harness's corpus once what it shows is repaired.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parent.parent
FOLDERS = ("webserver/engine/fuzz", "langplugins/host/fuzz", "langplugins/exec/fuzz", "langplugins/python/fuzz")
HARNESSES = {path.stem: path for folder in FOLDERS for path in (TREE / folder).glob("[!_]*.c")}
SECONDS = 60  # for all together, without building
LONG_CASES = 10_000_000
LONG_SECONDS = 6 * 3600  # for one


def limit() -> list[str]:
    if os.environ.get("WEBSERVER_LONG"):
        return ["--cases", str(LONG_CASES)]
    return ["--seconds", str(max(1, SECONDS // len(HARNESSES)))]


@pytest.mark.timeout(LONG_SECONDS if os.environ.get("WEBSERVER_LONG") else 150)
@pytest.mark.parametrize("name", sorted(HARNESSES))
def test_harness_finds_nothing(name: str, record_property: Callable[[str, object], None]) -> None:
    result = subprocess.run([TREE / "tools/fuzz", *limit(), name], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    done = re.search(rf"^fuzz: {name}: (\d+) cases in \d+ s, nothing found$", result.stdout, re.M)
    assert done is not None, result.stdout + result.stderr
    record_property("ran", done[0])
    if os.environ.get("WEBSERVER_LONG"):
        assert int(done[1]) >= LONG_CASES


@pytest.mark.parametrize("name", sorted(HARNESSES))
def test_harness_has_a_corpus(name: str) -> None:
    assert any((HARNESSES[name].parent / "corpus" / name).iterdir())
