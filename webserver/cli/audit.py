"""webserverctl audit: what the probe is told of the configuration's files, and its answer as a table for people."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any

from webserver.cli.table import table
from webserver.config.reader import read

_MOST = 60000  # bytes of a request; the supervisor takes 65536
_COLUMNS = ("area", "what", "tried", "result", "verdict")
_INNER = ("environment", "ini", "settings")  # sections that may hold secrets
_WIDEST = 60  # characters of a cell; --json has all


def files(path: str, group: str) -> list[dict[str, Any]]:
    """Every file that the configuration was read from. Secret: those with another group's secrets in them."""
    document = read(path)
    secret = {
        inner.place.file
        for name, block in document.groups.items()
        if name != group
        for section, inner in block.blocks.items()
        if section in _INNER
    }
    found = [{"what": "configuration", "path": name, "secret": name in secret} for name in document.files]
    for name, block in document.groups.items():
        entry = block.entries.get("environment_file")
        if entry is not None and isinstance(entry.value, str):
            place = os.path.normpath(os.path.join(entry.base, entry.value))
            found.append({"what": f"environment_file of group {name}", "path": place, "secret": True})
    # The secret ones first: they are tried in any case.
    found.sort(key=lambda one: not one["secret"])
    while len(json.dumps(found)) > _MOST:
        del found[len(found) * 3 // 4 :]
    return found


def reachable(answer: dict[str, Any]) -> int:
    return sum(row.get("verdict") == "REACHABLE" for row in answer.get("rows", []))


def text(answer: dict[str, Any]) -> str:
    rows = answer.get("rows", [])
    columns = [(name.upper(), partial(_cell, name)) for name in _COLUMNS]
    count = reachable(answer)
    verdict = f"{len(rows)} tried, " + (f"{count} can be reached and should not be" if count else "all as it should be")
    return f"{table(columns, rows)}\ngroup {answer.get('group')} as user {answer.get('user')}: {verdict}\n"


def _cell(name: str, row: dict[str, Any]) -> str:
    value = str(row.get(name, ""))
    return value if len(value) <= _WIDEST else value[: _WIDEST - 4] + " ..."
