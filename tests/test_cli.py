"""webserverd and webserverctl as a person meets them: command lines, exit statuses, what is printed."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import ROOT, SLOWNESS, program

from webserver.cli.arguments import UsageError, parse
from webserver.cli.table import printable, status_text

OPTIONS = {"--config": True, "--json": False, "-t": False}


def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program(name), *words], capture_output=True, text=True, timeout=30 * SLOWNESS)


@pytest.mark.parametrize(
    ("argv", "given_options", "words"),
    [
        ([], {}, []),
        (["status", "--json"], {"--json": ""}, ["status"]),
        (["--config", "a", "b"], {"--config": "a"}, ["b"]),
        (["--config=a=b"], {"--config": "a=b"}, []),
        (["--", "--json"], {}, ["--json"]),
        (["-t", "-"], {"-t": ""}, ["-"]),
    ],
)
def test_command_lines(argv: Sequence[str], given_options: Mapping[str, str], words: Sequence[str]) -> None:
    assert parse(argv, OPTIONS) == (given_options, words)


@pytest.mark.parametrize("argv", [["--config"], ["--nothing"], ["--json=1"], ["-x"], ["-t", "-t"]])
def test_wrong_command_lines(argv: Sequence[str]) -> None:
    with pytest.raises(UsageError):
        parse(argv, OPTIONS)


@given(st.lists(st.text(max_size=10)))
def test_any_command_line_is_read_or_refused(argv: list[str]) -> None:
    try:
        options, _ = parse(argv, OPTIONS)
    except UsageError:
        return
    assert options.keys() <= OPTIONS.keys()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("webserverd", ["extra"]),
        ("webserverd", ["-t", "-T"]),
        ("webserverd", ["--config"]),
        ("webserverctl", []),
        ("webserverctl", ["restart"]),
        ("webserverctl", ["reload", "shop"]),
        ("webserverctl", ["nothing"]),
    ],
)
def test_usage_errors_have_a_status_of_their_own(name: str, words: list[str]) -> None:
    result = run(name, *words)
    assert result.returncode == 2
    assert "usage: " in result.stderr


def test_version() -> None:
    result = run("webserverd", "--version")
    assert (result.returncode, result.stdout.split()[0]) == (0, "webserverd")


def _write(path: Path, extra: str = "") -> str:
    user = "user = www-data\n" if ROOT else ""
    path.write_text(f"[server]\nlisten = 127.0.0.1:8080\nrun = run\n{user}{extra}")
    return str(path)


def test_checking(tmp_path: Path) -> None:
    right = _write(tmp_path / "right.conf")
    assert run("webserverd", "-t", "--config", right).returncode == 0
    shown = run("webserverd", "-T", "--config", right)
    assert shown.returncode == 0
    assert "right.conf:2" in shown.stdout
    wrong = _write(tmp_path / "wrong.conf", "frontends = none\nno_such = 1\n")
    for words in (["-t"], ["-T"], ["--foreground"], []):
        result = run("webserverd", *words, "--config", wrong)
        assert result.returncode == 1
        assert result.stderr.count("wrong.conf:") == 2, result.stderr
    missing = run("webserverd", "--config", str(tmp_path / "missing.conf"))
    assert missing.returncode == 1
    assert "missing.conf" in missing.stderr


def test_nobody_there(tmp_path: Path) -> None:
    result = run("webserverctl", "--config", _write(tmp_path / "webserver.conf"), "status")
    assert result.returncode == 1
    assert f"no server runs here ({tmp_path}/run/control.sock)" in result.stderr
    # The run directory is found in a configuration with mistakes elsewhere, and not in one that is not there.
    result = run("webserverctl", "--config", _write(tmp_path / "wrong.conf", "no_such = 1\n"), "reload")
    assert "no server runs here" in result.stderr
    result = run("webserverctl", "--config", str(tmp_path / "missing.conf"), "stop", "--json")
    assert result.returncode == 1
    assert '"ok": false' in result.stdout


def test_the_table_is_readable_whatever_is_in_it() -> None:
    answer = {
        "listen": ["127.0.0.1:80"],
        "separated": False,
        "processes": [{"kind": "worker", "name": "0", "group": "a", "generation": 1, "pid": 7, "state": "ready",
                       "age": 100000, "requests": 5, "busy": 1, "slots": 2, "queued": 0}, {"kind": "logger"}],
        "groups": [{"name": "a", "state": "backoff", "message": "line \x1b[31m one\nline two"}],
    }  # fmt: skip
    text = status_text(answer)
    assert "\x1b" not in text
    assert "1/2" in text
    assert "1d03h" in text
    assert "line ?[31m one ..." in text
    assert "without root" in text


@given(st.text())
def test_what_is_printed_cannot_steer_a_terminal(text: str) -> None:
    assert all(letter.isprintable() or letter in "\n\t" for letter in printable(text))
