"""Broken configurations: each file in config/broken/ is refused with exactly the lines of its .expected file.

A file that begins with "# as: root" is checked as root would. In .expected, paths begin at config/, and the machine is
that of config_machine.py. `python tests/test_config_broken.py` writes the .expected files anew, to be read in the diff.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from config_machine import PlainMachine

from webserver.config import ConfigErrors, load
from webserver.config.languages import PLUGIN_PLACES

CASES = Path(__file__).resolve().parent / "config" / "broken"


def problems(path: Path) -> str:
    root = path.read_bytes().startswith(b"# as: root\n")
    with pytest.raises(ConfigErrors) as caught:
        load(str(path), PlainMachine(root))
    text = (
        str(caught.value).replace(f"{CASES.parent}/", "").replace(PLUGIN_PLACES[0].format(language="ruby"), "RUBY.SO")
    )
    return text.replace(str(CASES.parent), "CONFIG") + "\n"


@pytest.mark.parametrize("path", sorted(CASES.glob("*.conf")), ids=lambda path: path.stem)
def test_all_mistakes_are_named(path: Path) -> None:
    assert problems(path) == path.with_suffix(".expected").read_text()


def test_no_expectation_is_left_alone() -> None:
    assert {path.stem for path in CASES.glob("*.expected")} == {path.stem for path in CASES.glob("*.conf")}


if __name__ == "__main__":
    for case in sorted(CASES.glob("*.conf")):
        case.with_suffix(".expected").write_text(problems(case))
