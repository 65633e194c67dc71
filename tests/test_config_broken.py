"""Broken configurations: each file in config/broken/ is refused with exactly the lines of its .expected file.

A file that begins with "# as: root" is checked as root would. In .expected, paths begin at config/, and the machine is
that of config_machine.py. The files are read from a copy whose path always has the same length, since the length of a
path is among the mistakes. `PYTHONPATH=. python tests/test_config_broken.py` writes the .expected files anew; read
them in the diff.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from config_machine import PlainMachine
from serving import directory

from webserver.config import ConfigErrors, load
from webserver.config.languages import PLUGIN_PLACES

CASES = Path(__file__).resolve().parent / "config" / "broken"


def copied(place: Path) -> Path:
    """A copy of config/broken/ and what its files refer to, below `place`."""
    shutil.copytree(CASES.parent, place / "config")
    return place / "config" / CASES.name


@pytest.fixture(scope="module")
def cases() -> Iterator[Path]:
    with directory() as place:
        yield copied(place)


def problems(path: Path) -> str:
    root = path.read_bytes().startswith(b"# as: root\n")
    with pytest.raises(ConfigErrors) as caught:
        load(str(path), PlainMachine(root))
    config = path.parent.parent
    text = str(caught.value).replace(f"{config}/", "").replace(PLUGIN_PLACES[0].format(language="ruby"), "RUBY.SO")
    return text.replace(str(config), "CONFIG") + "\n"


@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.glob("*.conf")))
def test_all_mistakes_are_named(cases: Path, name: str) -> None:
    assert problems(cases / f"{name}.conf") == (CASES / f"{name}.expected").read_text()


def test_no_expectation_is_left_alone() -> None:
    assert {path.stem for path in CASES.glob("*.expected")} == {path.stem for path in CASES.glob("*.conf")}


if __name__ == "__main__":
    with directory() as place:
        for case in sorted(copied(place).glob("*.conf")):
            (CASES / f"{case.stem}.expected").write_text(problems(case))
