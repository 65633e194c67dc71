"""The table of acceptance rows in DESIGN.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
DESIGN = (TESTS.parent / "DESIGN.md").read_text()
ROW = re.compile(r"^\| S(\d+) \| .*?\| (.*?) \|$", re.M)
# What stands now; the others belong to later versions and say so in the table.
SHOWN = {*range(1, 27), 28, *range(29, 40), 41, 42, 43, 46, 49, 53}


def functions() -> set[str]:
    found = set()
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.add(f"{path.relative_to(TESTS)}::{node.name}")
    return found


def test_every_row_stands_in_the_table_once() -> None:
    assert [int(number) for number, _ in ROW.findall(DESIGN)] == list(range(1, 54))


def test_rows_name_tests_that_exist() -> None:
    known = functions()
    for number, names in ROW.findall(DESIGN):
        for name in re.findall(r"`([^`]+::[^`]+)`", names):
            assert name in known, f"S{number}: there is no {name}"
        if int(number) in SHOWN:
            assert "`" in names, f"S{number} names no test"
