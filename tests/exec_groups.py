"""Configurations of groups whose program is exec/server.py, and what tests of them need beside."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from serving import Server, descendants, directory

HERE = Path(__file__).resolve().parent / "exec"
PYTHON = "/usr/bin/python3"
ARGUMENTS = {"socket": "socket, {socket}", "descriptor": "descriptor, {descriptor}", "port": "port, {port}"}


def group(name: str, *variables: str, listens_on: str = "socket", **options: object) -> str:
    """The section of a group that runs a copy of server.py in the server's directory."""
    options = {"processes": 1, "threads": 4, "listens_on": listens_on, **options}
    given = [f"{key} = {value}" for key, value in options.items()]
    program = f"arguments = @/server.py, {ARGUMENTS[listens_on]}"
    place = "[[[environment]]]\nTMPDIR = @/scratch"
    return (
        "\n".join([f"[[{name}]]", "language = exec", f"application = {PYTHON}", program, *given, place, *variables])
        + "\n"
    )


def configuration(*groups: str) -> str:
    """Groups, and a site that gives each what is below /NAME/, and the first one everything else."""
    names = [text.partition("]]")[0].removeprefix("[[") for text in groups]
    routes = "".join(f"/{name}/ = group:{name}\n" for name in names)
    site = f"[sites]\n[[all]]\nhosts = *\nmax_body = 1g\n[[[routes]]]\n/ = group:{names[0]}\n{routes}"
    return "[groups]\n" + "".join(groups) + site


def lay_out(one: Server) -> None:
    for path in HERE.iterdir():
        if path.is_file():
            one.file(path.name, path.read_bytes())
    scratch = one.directory / "scratch"
    scratch.mkdir()
    scratch.chmod(0o1777)


@contextlib.contextmanager
def running(*groups: str, server: str = "frontends = 2\n") -> Iterator[Server]:
    """A server with these groups; "@" in them is its directory. Nothing of theirs is left behind."""
    with directory() as path:
        one = Server(path)
        lay_out(one)
        one.write(configuration(*(group.replace("@", str(path)) for group in groups)), server)
        try:
            one.start()
            yield one
        finally:
            one.stop()
            assert not list((path / "scratch").iterdir()), "sockets of programs are left"


def programs(one: Server, name: str) -> list[int]:
    """Process ids of the group's programs: what the wardens of its workers run."""
    return [pid for worker in one.pids("worker", name) for pid in descendants(worker) if not title(pid, "webserver: ")]


def wardens(one: Server, name: str) -> list[int]:
    return [
        pid for worker in one.pids("worker", name) for pid in descendants(worker) if title(pid, "webserver: warden")
    ]


def title(pid: int, begin: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(begin.encode())
    return False


def memory(pid: int) -> int:
    """KB of a process that are in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
