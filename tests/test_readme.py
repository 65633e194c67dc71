"""The README's tour, pasted into a shell word by word: what it says in a comment behind a command is what comes."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from pathlib import Path

from serving import GROUP_USER, ROOT, TREE, directory, free_port, program, wait_until


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", (TREE / "README.md").read_text(), re.M | re.S)


def run(script: str, where: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    user = pwd.getpwnam(GROUP_USER) if ROOT else None
    return subprocess.run(
        ["bash", "-c", script], cwd=where, env=environment, capture_output=True, text=True, timeout=60,
        user=user.pw_uid if user else None, group=user.pw_gid if user else None, extra_groups=[] if user else None,
    )  # fmt: skip


def test_the_tour() -> None:
    """As an ordinary user. The tree's programs are found by the PATH that it sets, and `make build` is done."""
    port = str(free_port())
    with directory() as top:
        os.chmod(top, 0o777)
        (top / ".venv").mkdir()
        (top / ".venv/bin").symlink_to(Path(program("webserverd")).parent)
        tour = blocks()
        assert tour[0].startswith("make build\n")
        script = tour[0].removeprefix("make build\n") + "\n".join(tour[1:])
        assert "make" not in script
        # Each command's output is preceded by a line with the command.
        lines = re.sub(r"^(curl|webserver\w+|cat a)", r"echo '>>>' \1\n\1", script.replace("8080", port), flags=re.M)
        environment = {"PATH": os.environ["PATH"], "HOME": str(top)}
        try:
            result = run("exec 2>&1\n" + lines.replace("curl ", "curl -sS "), top, environment)
        finally:
            # Where the tour broke off.
            config = top / "build/try/try.conf"
            if (top / "build/try/run/control.sock").exists():
                subprocess.run([program("webserverctl"), "--config", config, "stop"], check=True)
        said = result.stdout
        assert result.returncode == 0, said
        expected = re.findall(r"^(?:curl|webserverctl).*# (.*)$", "\n".join(tour), re.M)
        assert len(expected) == 8
        position = 0
        for words in expected:
            found = said.find(words.split("...")[0], position)
            assert found >= 0, f"{words!r} is not said, or not in its place:\n{said}"
            position = found + 1
        assert "the configuration is right" in said
        assert re.search(r"^shop +python .*running", said, re.M)
        assert 'GET /hats HTTP/1.1" 200' in said, said
        wait_until(lambda: not list((top / "build/try/run").iterdir()), "the run directory is not empty")
