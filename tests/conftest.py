"""Fixtures: a server of one's own for each test, and a check after every test that it left nothing behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from serving import KEPT_KB, SANITIZED, SLOWNESS, Server, children, directory, program, remove_copy, take_reports


def pytest_configure(config: pytest.Config) -> None:
    """What the conformance suite, which knows nothing of these tests, is told of this tree."""
    config.webserver_programs = lambda: os.path.dirname(program("webserverd"))  # type: ignore[attr-defined]
    config.webserver_slowness = SLOWNESS  # type: ignore[attr-defined]
    config.webserver_kept_kb = KEPT_KB  # type: ignore[attr-defined]


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that is not started yet; stopped and looked at afterwards."""
    with directory() as path:
        one = Server(path)
        yield one
        one.stop()


@pytest.fixture(autouse=True)
def _nothing_reported() -> Iterator[None]:
    """No sanitizer found anything, in whatever process. The first fixture of all: it looks when servers have ended."""
    before = take_reports()
    assert not before, "reported between two tests:\n" + "\n".join(before)
    yield
    reports = take_reports()
    assert not reports, "\n".join(reports)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Descriptors and child processes of the test process are as before.

    Not their children: a server that several tests share replaces workers, and looks after its own.
    """
    fds = set(os.listdir("/proc/self/fd"))
    before = children(os.getpid())
    yield
    left = children(os.getpid()) - before
    assert not left, f"child processes are left: {left}"
    extra = {fd for fd in set(os.listdir("/proc/self/fd")) - fds if os.path.exists(f"/proc/self/fd/{fd}")}
    assert not extra, f"descriptors are left: {[os.readlink(f'/proc/self/fd/{fd}') for fd in extra]}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A skip or an expected failure fails the run: see tools/test."""
    hidden = [*terminalreporter.stats.get("skipped", []), *terminalreporter.stats.get("xfailed", [])]
    for report in hidden:
        terminalreporter.write_line(f"not run: {report.nodeid}", red=True)
    design = (Path(__file__).resolve().parent.parent / "DESIGN.md").read_text()
    listed = design.partition("## 5. What is not shown yet")[2].partition("## 6.")[0]
    for line in listed.splitlines():
        if line.startswith("* "):
            terminalreporter.write_line(line)
    _tell_what_ran(terminalreporter.stats)


def _last_lines(report: pytest.TestReport) -> str:
    """Of what it failed with: what a reader of a log that was cut in its middle still finds."""
    return " | ".join(line[2:].strip() for line in report.longreprtext.splitlines() if line.startswith("E "))[-600:]


def _tell_what_ran(stats: dict[str, list[pytest.TestReport]]) -> None:
    """Add to the lines that tools/test ends with: counts, and what tests have said of themselves (record_property)."""
    if summary := os.environ.get("WEBSERVER_SUMMARY"):
        passed = stats.get("passed", [])
        said = [str(value) for report in passed for name, value in report.user_properties if name == "ran"]
        failed = [*stats.get("failed", []), *stats.get("error", [])]
        names = [f"failed in its {report.when}: {report.nodeid}: {_last_lines(report)}" for report in failed]
        with open(summary, "a") as lines:
            lines.writelines(f"    {line}\n" for line in [*said, *names, f"{len(passed)} passed, {len(failed)} failed"])


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if reports := take_reports():
        session.exitstatus = 1
        print("\nreported after the last test:\n" + "\n".join(reports))
    remove_copy()
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and (reporter.stats.get("skipped") or reporter.stats.get("xfailed")) and exitstatus == 0:
        session.exitstatus = 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Real users need root: without it those tests are left out, and pytest's last line counts them as deselected.

    So are those whose programs cannot load what a build with sanitizers has made.
    """
    without = [name for name, left_out in (("root", os.geteuid() != 0), ("unsanitized", SANITIZED)) if left_out]
    needing = [item for item in items if any(item.get_closest_marker(name) is not None for name in without)]
    if needing:
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if item not in needing]
