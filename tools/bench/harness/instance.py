"""One running server, made from a peer record: renders its files, starts its processes, waits until it answers."""

import os
import pwd
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness import client, machine, proc, process, requests
from harness.peers import OURS, Server
from harness.process import BenchError, Child
from harness.site import BENCH, Site

START_SECONDS = 20.0
PORTS = 200
UNPRIVILEGED = "www-data"


@dataclass
class Options:
    """What differs between instances of one record."""

    access_log: bool = False
    count: Path | None = None  # file that the application adds a byte to at each call
    big: bool = False  # bodies of 1 GB are allowed


@dataclass
class Context:
    """What all instances share."""

    site: Site
    root: Path  # of the repository: our server is started from there
    webserverd: Path
    port_base: int
    nofile: int
    next_port: int = 0
    complaints: list[str] = field(default_factory=list)

    def check_ports(self) -> None:
        """All of them before anything starts: a stranger's answers must never be measured."""
        for number in range(PORTS):
            machine.check_port(self.port_base + number)

    def port(self) -> int:
        port = self.port_base + self.next_port
        self.next_port = (self.next_port + 1) % PORTS
        machine.check_port(port)
        return port


@dataclass
class Instance:
    server: Server
    options: Options
    port: int
    directory: Path
    children: list[Child]
    started: float = 0.0  # time.monotonic() just before the first process was made

    def pids(self) -> list[int]:
        return proc.tree([child.pid for child in self.children])

    def front_pids(self) -> list[int]:
        return proc.matching(self.pids(), self.server.front) if self.server.front else []

    def worker_pids(self) -> list[int]:
        return proc.matching(self.pids(), self.server.worker) if self.server.worker else []

    def log_tail(self) -> str:
        """How everything ends that the processes printed or wrote into files of their own."""
        paths = [path for path in sorted(self.directory.glob("*")) if path.suffix == ".log" or "output" in path.name]
        return "\n".join(line for path in paths for line in process.tail(path))

    def check_alive(self) -> None:
        for child in self.children:
            if child.popen.poll() is not None:
                raise BenchError(f"it ended with {child.popen.returncode}:\n{self.log_tail()}")


def available(server: Server, context: Context) -> str:
    """Empty if the server can be started here, else the reason why not."""
    for command in server.commands:
        program = command[0].replace("@WEBSERVERD@", str(context.webserverd))
        if not os.access(program, os.X_OK):
            return f"{program} is not there"
    return ""


def flags(server: Server, options: Options) -> set[str]:
    root = os.geteuid() == 0
    found = {*server.flags, "log" if options.access_log else "nolog"}
    found |= {"root"} if root else set()
    found |= {"rootgroup"} if root and "group" in server.flags else set()
    found |= {"count"} if options.count else set()
    found |= {"big"} if options.big else set()
    return found


def render(text: str, wanted: set[str], values: dict[str, str]) -> str:
    lines = []
    for line in text.splitlines():
        switch = re.match(r"@([a-z]+)@", line)
        if switch:
            if switch.group(1) not in wanted:
                continue
            line = line[switch.end() :]
        lines.append(re.sub(r"@([A-Z]+)@", lambda found: values[found.group(1)], line))
    return "\n".join(lines) + "\n"


def _own(directory: Path) -> None:
    """The servers' unprivileged user may write here."""
    if os.geteuid() == 0:
        user = pwd.getpwnam(UNPRIVILEGED)
        os.chown(directory, user.pw_uid, user.pw_gid)


def start(context: Context, server: Server, options: Options | None = None, wait: bool = True) -> Instance:
    options = options or Options()
    port = context.port()
    directory = context.site.instances / f"{server.name}-{port}"
    (directory / "logs").mkdir(parents=True, exist_ok=True)
    _own(directory / "logs")
    ours = server.name.startswith(OURS)
    if not ours:  # the peers' sockets are made by their users; ours makes its own directories as it promises
        _own(directory)
    values = {
        "DIR": str(directory),
        "PORT": str(port),
        "APPS": str(context.site.apps),
        "STATIC": str(context.site.static),
        "COUNT": str(options.count or ""),
        "NOFILE": str(context.nofile),
        "WEBSERVERD": str(context.webserverd),
    }
    for name in server.templates:
        text = (BENCH / "peers" / name).read_text(encoding="utf-8")
        (directory / name).write_text(render(text, flags(server, options), values), encoding="utf-8")
    environment = {"BENCH_COUNT": str(options.count)} if options.count and not ours else {}
    instance = Instance(server, options, port, directory, [], time.monotonic())
    try:
        for number, command in enumerate(server.commands):
            argv = [render(part, set(), values).strip() for part in command]
            log = directory / f"output-{number}"
            cwd = context.root if ours else directory
            user = UNPRIVILEGED if number in server.unprivileged and os.geteuid() == 0 else None
            instance.children.append(process.spawn(argv, cwd, log, environment, user=user))
        if wait:
            wait_ready(instance)
    except BaseException:
        end(context, instance)
        raise
    return instance


def wait_ready(instance: Instance, every: float = 0.02) -> float:
    """Waits for the first good answer; returns the seconds since the start of the first process."""
    kind = "static1k" if instance.server.speaks == "static" else "hello"
    request = requests.one(instance.server.speaks, kind, 0)
    why = "no connection"
    while time.monotonic() < instance.started + START_SECONDS:
        try:
            answer = client.exchange(instance.port, request, timeout=5)
            if answer.status == 200:
                return time.monotonic() - instance.started
            why = f"status {answer.status}"
        except OSError as error:
            why = str(error)
        instance.check_alive()
        time.sleep(every)
    raise BenchError(f"it does not answer within {START_SECONDS:.0f} s ({why}):\n{instance.log_tail()}")


def end(context: Context, instance: Instance) -> None:
    for child in reversed(instance.children):  # the front first, so that it sees no dead upstream
        if complaint := process.stop(child):
            context.complaints.append(complaint)
