"""A server with the Rack application of many small ones (tests/rack/clauses.ru), for the tests of Ruby."""

from __future__ import annotations

import shutil
from pathlib import Path

from serving import Server, wait_until

HERE = Path(__file__).resolve().parent / "rack"

CONFIG = """
[groups]
[[app]]
language = ruby
application = app/config.ru
processes = {processes}
threads = {threads}
{group}
[[[environment]]]
SCRATCH = {scratch}
{environment}
[sites]
[[all]]
hosts = *
root = public
{site}
[[[routes]]]
/ = group:app
/mount/point = group:app
"""


def prepare(
    server: Server,
    threads: int = 1,
    processes: int = 1,
    application: str | None = None,
    group: str = "",
    environment: str = "",
    site: str = "",
) -> Server:
    """Write configuration and application, and a directory that the application can write to."""
    scratch = server.directory / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    server.write(
        CONFIG.format(
            threads=threads, processes=processes, group=group, environment=environment, scratch=scratch, site=site
        )
    )
    (server.directory / "app").mkdir(exist_ok=True)
    if application is None:
        for path in HERE.iterdir():
            target = server.directory / "app" / ("config.ru" if path.name == "clauses.ru" else path.name)
            shutil.copyfile(path, target)
            target.chmod(0o644)
        server.allow("a line on standard error")
    else:
        server.file("app/config.ru", application)
    return server


def lines(server: Server, name: str, count: int) -> list[str]:
    """The lines of a file that the application appends to, once there are that many."""
    path = server.directory / "scratch" / name
    wait_until(lambda: path.exists() and path.read_text().count("\n") >= count, f"{name} has no {count} lines")
    return path.read_text().splitlines()


def logged(server: Server, text: str) -> str:
    """The line of the error log that holds the text, once it is there."""
    found = wait_until(
        lambda: [line for line in server.log().splitlines() if text in line], f"{text!r} is not in the log"
    )
    return str(found[0])
