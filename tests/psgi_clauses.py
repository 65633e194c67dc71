"""The server with tests/psgi/clauses.psgi in it, for the tests of PSGI's clauses."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from serving import Answer, Server, directory

SOURCES = Path(__file__).resolve().parent / "psgi"
CONFIG = """
[groups]
[[app]]
language = perl
application = work/clauses.psgi
processes = {processes}
arguments = first, --second
perl_path = work/lib
{lines}
[[[environment]]]
COLOUR = green
[sites]
[[all]]
hosts = *
root = public
{site}
[[[routes]]]
/ = group:app
/mount/point = group:app
"""
DATA = b"".join(b"%09d\n" % number for number in range(1000))


def prepare(server: Server, processes: int = 1, lines: str = "", site: str = "") -> Server:
    """The application's files and the configuration; not started yet."""
    work = server.directory / "work"
    shutil.copytree(SOURCES, work)
    server.file(
        "work/lib/Lent.pm", "package Lent; our $by = $$; sub word { return 'found' } sub by { return $by } 1;\n"
    )
    server.file("work/data", DATA)
    server.file("work/lines", b"one\r\ntwo\r\n")
    server.file("work/wide", "wide \u20ac\n")
    for path in (work, *work.iterdir()):
        path.chmod(0o777 if path.is_dir() else 0o644)
    server.write(CONFIG.format(processes=processes, lines=lines, site=site))
    return server


@contextlib.contextmanager
def started() -> Iterator[Server]:
    """A server that several tests share."""
    with directory() as path:
        one = prepare(Server(path))
        try:
            yield one.start()
        finally:
            one.stop()


def table(answer: Answer) -> dict[str, str]:
    """What the application's table() has written."""
    assert answer.status == 200, answer.text
    return dict(line.split("=", 1) for line in answer.body.decode("latin-1").splitlines())


def noted(server: Server, name: str = "closed") -> list[str]:
    """The lines that the application has noted."""
    path = server.directory / "work" / name
    return path.read_text().splitlines() if path.exists() else []
