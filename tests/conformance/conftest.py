"""Fixtures of the suite: which languages it runs for, a server for each, and what was left out for which reason."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .client import Connection
from .languages import CANNOT, LANGUAGES, NOT_YET, Language, left_out
from .server import Server

LONG = bool(os.environ.get("WEBSERVER_LONG"))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--language", help="run for this plugin's language instead of those of languages.py")
    group.addoption("--plugin", help="path of the language's plugin")
    group.addoption("--application", help="the conformance application")
    group.addoption("--threads", type=int, default=1, help="requests that one worker can run at a time")
    group.addoption("--without", default="", help="clauses that are left out, with commas between them")
    group.addoption("--settings", help="file of more lines for the group's configuration")
    group.addoption("--clauses", action="store_true", help="print one line for each clause")


def without(config: pytest.Config) -> frozenset[str]:
    return frozenset(filter(None, config.getoption("--without", "").split(",")))


class Clauses:
    """A line for each test as it ends, in words."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str]:
        return report.outcome if report.when == "call" or report.failed else "", "", ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and not report.failed:
            return
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        module, _, name = report.nodeid.rpartition("::")
        name, _, values = name.partition("[")
        clause = name.removeprefix("test_").replace("_", " ")
        outcome = "ok" if report.passed else "FAILED"
        area = Path(module).stem.removeprefix("test_")
        reporter.write_line(f"{outcome:7} {area}: {clause}" + (f" [{values}" if values else ""), red=report.failed)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--clauses", False):
        config.pluginmanager.register(Clauses(config))
    config.addinivalue_line("markers", "clause(word): what an interface may have no words for; see languages.py")
    config.addinivalue_line("markers", "long: whole counts")


def languages(config: pytest.Config) -> tuple[Language, ...]:
    name = config.getoption("--language", None)
    if not name:
        return LANGUAGES
    plugin, application, settings = (config.getoption(f"--{word}") for word in ("plugin", "application", "settings"))
    return (
        Language(
            name,
            name,
            str(Path(application).resolve()),
            config.getoption("--threads"),
            str(Path(plugin).resolve()) if plugin else "",
            Path(settings).read_text() if settings else "",
        ),
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "language" in metafunc.fixturenames:
        metafunc.parametrize("language", languages(metafunc.config), ids=lambda one: one.name, scope="session")


def clauses(item: pytest.Item) -> list[str]:
    return [word for marker in item.iter_markers("clause") for word in marker.args]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of what a language's interface cannot express are not run, and are told of at the end."""
    absent = []
    for item in items:
        callspec = getattr(item, "callspec", None)
        language = callspec.params.get("language") if callspec else None
        if isinstance(language, Language) and any(
            left_out(language.name, word, without(config)) for word in clauses(item)
        ):
            absent.append(item)
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in set(absent)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    names = {one.name for one in languages(config)}
    for table, head in ((CANNOT, "cannot be expressed"), (NOT_YET, "not built yet")):
        for (language, clause), reason in sorted(table.items()):
            if language in names:
                terminalreporter.write_line(f"conformance: {language}: {clause}: {head}: {reason}")
    for clause in sorted(without(config)):
        terminalreporter.write_line(f"conformance: {clause}: left out by --without")


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest) -> Path:
    """The directory of webserverd and webserverctl."""
    ours = getattr(request.config, "webserver_programs", None)  # this tree's own tests may have to make a copy
    if ours is not None:
        return Path(ours())
    for place in (os.environ.get("WEBSERVER_BIN", ""), os.path.dirname(sys.executable)):
        if place and os.access(os.path.join(place, "webserverd"), os.X_OK):
            return Path(place)
    found = shutil.which("webserverd")
    assert found, "webserverd is not on the path; WEBSERVER_BIN can name its directory"
    return Path(found).parent


@pytest.fixture(scope="session")
def running(programs: Path, language: Language, request: pytest.FixtureRequest) -> Iterator[Server]:
    """The language's server, shared by all of its tests."""
    slowness = int(getattr(request.config, "webserver_slowness", 1))
    one = Server(programs, language, slowness, int(getattr(request.config, "webserver_kept_kb", 0)))
    try:
        one.start()
        yield one
        one.stop()
    finally:
        if one.process is not None:
            one.stop()
        one.remove()


@pytest.fixture
def server(running: Server) -> Server:
    return running


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What a failed test wants to know is the server's log."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    one = getattr(item, "funcargs", {}).get("running")
    if report.failed and isinstance(one, Server):
        report.sections.append(("the end of the server's log", one.log()[-4000:]))


@pytest.fixture
def connection(server: Server) -> Iterator[Connection]:
    with server.connect() as one:
        yield one
