"""The samples in etc/ are right: alone, together, and with each commented option in force."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from config_machine import SampleMachine, adjusted, lay_out
from serving import directory

from webserver.config import Config, load

ETC = Path(__file__).resolve().parent.parent / "etc"
SAMPLES = sorted(path.relative_to(ETC) for path in ETC.rglob("*.conf"))
MACHINE = SampleMachine(root=True)
OPTION = re.compile(r"^#(\w+ = .*)$", re.MULTILINE)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of one's own whose path is short enough for sockets below it; pytest's may not be."""
    with directory() as path:
        yield path


@pytest.fixture
def root(place: Path) -> Path:
    """A machine's root directory with the samples installed and all of them enabled."""
    lay_out(place)
    for sample in SAMPLES:
        path = place / "etc/webserver" / str(sample).replace("-available/", "-enabled/")
        path.write_text(adjusted((ETC / sample).read_text(), str(place)))
    return place


def loaded(root: Path) -> Config:
    return load(str(root / "etc/webserver/webserver.conf"), MACHINE)


def test_all_together(root: Path) -> None:
    config = loaded(root)
    assert [group.name for group in config.groups] == ["blog", "pages", "shop"]
    names = ["blog", "framework", "mixed", "shop", "www"]
    assert [site.name for site in config.sites] == [f"{name}.example.org" for name in names]
    assert {group.language for group in config.groups} == {"php", "python"}
    assert [companion.name for companion in config.companions] == ["cleanup", "redis", "shop-queue"]


@pytest.mark.parametrize(
    ("sample", "option"),
    [(sample, option) for sample in SAMPLES for option in OPTION.findall((ETC / sample).read_text())],
    ids=str,
)
def test_what_is_commented_out_is_the_default(root: Path, sample: Path, option: str) -> None:
    before = loaded(root)
    path = root / "etc/webserver" / str(sample).replace("-available/", "-enabled/")
    path.write_text(path.read_text().replace(f"#{option}", option))
    assert loaded(root) == before


def test_a_group_or_site_takes_five_lines() -> None:
    for name in (
        "groups-available/shop.conf",
        "sites-available/www.example.org.conf",
        "sites-available/shop.example.org.conf",
    ):
        lines = [line for line in (ETC / name).read_text().splitlines() if line and not line.startswith("#")]
        assert len(lines) <= 5, name
