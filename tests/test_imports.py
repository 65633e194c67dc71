"""Imports run one way: see DESIGN.md section 1."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "webserver"

# What a part may import of the package, and from outside the standard library.
ALLOWED = {
    "wire": (set(), set()),
    "config": ({"wire"}, {"configobj"}),
    "engine": (set(), {"cffi"}),
    "frontend": ({"config", "wire", "engine"}, {"gevent", "zmq"}),
    "manager": ({"wire"}, set()),
    "supervisor": ({"config", "wire"}, {"prctl"}),
    "logger": ({"config", "wire"}, {"prctl"}),
    "audit": ({"wire"}, set()),
    "warden": (set(), set()),
    "cli": ({"config", "wire", "supervisor"}, set()),
}
FILES = [path for part in ALLOWED for path in (PACKAGE / part).rglob("*.py")]


def imported(path: Path) -> set[str]:
    """Absolute dotted names of everything a file imports, also inside functions."""
    names: set[str] = set()
    package = path.relative_to(PACKAGE.parent).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = [*base, node.module] if node.module else base
            names |= {".".join([*module, alias.name]) for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0]
    parts, libraries = ALLOWED[part]
    for name in imported(path):
        words = name.split(".")
        if words[0] == "webserver":
            assert len(words) == 1 or words[1] in parts | {part, "__version__"}, f"{path} imports {name}"
        elif words[0] not in sys.stdlib_module_names:
            assert words[0] in libraries, f"{path} imports {name}"


def test_every_part_is_listed() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(ALLOWED)
