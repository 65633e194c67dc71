"""webserverd: check the configuration and serve it. See webserverd(8)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from webserver.cli.arguments import DEFAULT_CONFIG, UsageError, parse
from webserver.supervisor.handover import HandoverError, Inheritance, Program, descriptor, receive

OPTIONS = {"--config": True, "--foreground": False, "-t": False, "-T": False, "--version": False, "--help": False}
USAGE = "usage: webserverd [--config FILE] [--foreground] | -t | -T | --version"
READY = b"1"


def main() -> int:
    try:
        given, words = parse(sys.argv[1:], OPTIONS)
        if words:
            raise UsageError(f"unexpected {words[0]!r}")
        if len(given.keys() & {"-t", "-T", "--version", "--foreground"}) > 1:
            raise UsageError("choose one of --foreground, -t, -T and --version")
    except UsageError as error:
        sys.stderr.write(f"webserverd: {error}\n{USAGE}\n")
        return 2
    if "--help" in given:
        sys.stdout.write(USAGE + "\n")
        return 0
    if "--version" in given:
        from webserver import __version__

        sys.stdout.write(f"webserverd {__version__}\n")
        return 0
    path = os.path.abspath(given.get("--config", DEFAULT_CONFIG))
    if "-t" in given or "-T" in given:
        return _check(path, "-T" in given)
    return _serve(path, "--foreground" in given)


def _check(path: str, show: bool) -> int:
    from webserver import config

    try:
        text = config.show(path) if show else ""
        if not show:
            config.load(path)
    except config.ConfigErrors as errors:
        _say(errors)
        return 1
    if show:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
    else:
        sys.stderr.write(f"webserverd: {path}: the configuration is right\n")
    return 0


def _serve(path: str, foreground: bool) -> int:
    from webserver import config

    handed = descriptor()
    try:
        loaded = config.load(path)
        inheritance = receive(handed) if handed is not None else None
    except config.ConfigErrors as errors:
        _say(errors)
        return 1
    except HandoverError as error:
        sys.stderr.write(f"webserverd: {error}\n")
        return 1
    _standard_descriptors()
    # The first process of a container is all that its maker waits for.
    foreground = foreground or os.getpid() == 1
    program = Program((sys.executable, *sys.orig_argv[1:]), _directory(), dict(os.environ), foreground)
    if inheritance is not None:
        # Standard error is a pipe to the program that serves, which wants to know why if this one does not come to.
        stream = os.dup(2)
        os.dup2(inheritance.stderr, 2)
        os.close(inheritance.stderr)

        def ready() -> None:
            os.dup2(2, stream, inheritable=False)

        return _supervise(loaded, path, program, stream, ready, False, inheritance)
    if foreground:
        return _supervise(loaded, path, program, 2, lambda: None, loaded.logs.error_log == "stderr")
    return _background(loaded, path, program)


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"  # it has been removed


def _supervise(
    loaded: object, path: str, program: Program, stream: int, on_ready: Callable[[], None], error_log_is_ours: bool,
    inheritance: Inheritance | None = None,
) -> int:  # fmt: skip
    from webserver.config import Config
    from webserver.supervisor.server import Supervisor
    from webserver.wire.title import set_title

    assert isinstance(loaded, Config)
    set_title("webserver: supervisor")
    # A relative path has been made absolute; from here on no directory is held busy or looked for files in.
    os.chdir("/")
    os.umask(0o022)
    return Supervisor(loaded, path, program, on_ready, stream, error_log_is_ours, inheritance).run()


def _background(loaded: object, path: str, program: Program) -> int:
    """Two forks, so that the server is nobody's child and leads no terminal; the first process waits for "ready"."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    first = os.fork()
    if first:
        os.close(writer)
        os.waitpid(first, 0)
        told = os.read(reader, 1)
        return 0 if told == READY else 1
    status = 1
    try:
        os.close(reader)
        os.setsid()
        if os.fork():
            os._exit(0)
        # What is said before "ready" goes to whoever started us; children and what comes later do not.
        stream = os.dup(2)
        os.set_inheritable(stream, False)
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        if null > 2:
            os.close(null)

        def ready() -> None:
            os.write(writer, READY)
            os.close(writer)
            os.dup2(2, stream, inheritable=False)

        status = _supervise(loaded, path, program, stream, ready, False)
    finally:
        os._exit(status)


def _standard_descriptors() -> None:
    """All three are open, so that no socket of ours ever becomes one of them."""
    number = os.open(os.devnull, os.O_RDWR)
    while number <= 2:
        number = os.dup(number)
    os.close(number)


def _say(errors: Exception) -> None:
    for line in str(errors).splitlines():
        sys.stderr.write(f"webserverd: {line}\n")


if __name__ == "__main__":
    sys.exit(main())
