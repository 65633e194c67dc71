"""pip makes a wheel of the tree, with the engine in it."""

from __future__ import annotations

import shutil
import subprocess
import zipfile

import pytest
from serving import TREE, directory

FILES = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_wheel_has_the_engine() -> None:
    with directory() as top:
        source, made = top / "source", top / "made"
        source.mkdir()
        for name in FILES:
            shutil.copy(TREE / name, source)
        leave = shutil.ignore_patterns("__pycache__", "_engine*", "*.o")
        for name in ("webserver", "tests/conformance"):
            shutil.copytree(TREE / name, source / name, ignore=leave)
        # Without the network: what it is built with is Debian's.
        options = ("--no-index", "--no-build-isolation", "--no-deps", "-w", made, source)
        pip = ["/usr/bin/python3", "-m", "pip", "wheel", *options]
        result = subprocess.run(pip, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr
        (wheel,) = made.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(top / "installed")
        program = (
            "from webserver.engine._engine import lib; from webserver.config import load; import webserver.conformance;"
            "print(lib.WIRE_VERSION)"
        )
        found = subprocess.run(
            ["/usr/bin/python3", "-c", program], cwd="/", capture_output=True, text=True,
            env={"PYTHONPATH": str(top / "installed")}, timeout=60,
        )  # fmt: skip
        assert found.returncode == 0, found.stderr
        assert int(found.stdout) > 0
