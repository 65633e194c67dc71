"""webserver-build-plugin: compile the Python plugin for one interpreter. See webserver-build-plugin(8).

The interpreter is asked where its headers are, and is started for that. As root this is done only where nobody else
could have put a program of his own.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
from dataclasses import dataclass

from webserver.cli.arguments import UsageError, parse
from webserver.config.languages import plugin

OPTIONS = {"--interpreter": True, "--output": True, "--help": False}
USAGE = "usage: webserver-build-plugin --interpreter PROGRAM [--output FILE]"
OLDEST = (3, 9)
SECONDS = 60  # for the interpreter to say what it is

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCES = (
    os.path.join(os.path.dirname(_PACKAGE), "langplugins"),  # in the source tree
    "/usr/share/webserver/langplugins",
)
FLAGS = ("-std=gnu11", "-Wall", "-Wextra", "-fvisibility=hidden", "-shared", "-fPIC")
ASK = """
import json, sys, sysconfig
print(json.dumps({
    "implementation": sys.implementation.name, "version": sys.version_info[:2], "flags": sys.abiflags,
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "include": sorted({sysconfig.get_path("include"), sysconfig.get_path("platinclude")}),
}))
"""
OPEN = "import ctypes, os, sys; ctypes.PyDLL(sys.argv[1], os.RTLD_NOW | os.RTLD_GLOBAL)"


class Impossible(Exception):
    """The text says why, and what to do."""


@dataclass(frozen=True)
class Interpreter:
    program: str
    version: str  # as the program's name has it: 3.12, 3.11d
    include: tuple[str, ...]


def main() -> int:
    try:
        given, words = parse(sys.argv[1:], OPTIONS)
        if "--help" in given:
            sys.stdout.write(USAGE + "\n")
            return 0
        if words or "--interpreter" not in given:
            raise UsageError("the option --interpreter is missing" if not words else f"what is {words[0]!r}?")
    except UsageError as error:
        sys.stderr.write(f"webserver-build-plugin: {error}\n{USAGE}\n")
        return 2
    try:
        sys.stdout.write(build(given["--interpreter"], given.get("--output")) + "\n")
    except Impossible as error:
        sys.stderr.write(f"webserver-build-plugin: {error}\n")
        return 1
    return 0


def build(program: str, output: str | None) -> str:
    """Compile; returns the path of the plugin."""
    # A virtual environment's program is a link to the one that it was made from, and so are its headers.
    interpreter = ask(os.path.realpath(program))
    stem, extension = os.path.splitext(plugin("python"))
    path = os.path.abspath(output or f"{stem}{interpreter.version}{extension}")
    sources = next((place for place in SOURCES if os.path.isdir(os.path.join(place, "python"))), "")
    if not sources:
        raise Impossible(f"the plugin's sources are not installed: neither {' nor '.join(SOURCES)} is there")
    if not os.access(os.path.dirname(path), os.W_OK):
        raise Impossible(
            f"{os.path.dirname(path)} cannot be written. Give --output FILE, and the group plugin = FILE; or let root"
            " call this"
        )
    compile_plugin(interpreter, sources, path)
    return path


def ask(program: str) -> Interpreter:
    """What the interpreter is, by its own words."""
    if not os.path.isfile(program):
        raise Impossible(f"there is no program {program}")
    if os.geteuid() == 0:
        _check_owners(program)
    try:
        # Not a word of a virtual environment's or site's code: no site.
        asked = [program, "-I", "-S", "-c", ASK]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
        answer = json.loads(done.stdout)
        name, version, flags = answer["implementation"], tuple(answer["version"]), answer["flags"]
        include, free_threaded = answer["include"], answer["free_threaded"]
    except (OSError, subprocess.SubprocessError) as error:
        raise Impossible(f"{program} could not be started: {error}") from None
    except (ValueError, KeyError, TypeError):
        said = done.stderr.strip().splitlines() or ["it said nothing that could be read"]
        raise Impossible(f"{program} is no Python: {said[-1]}") from None
    if name != "cpython" or version < OLDEST:
        raise Impossible(f"{program} is {name} {version[0]}.{version[1]}; CPython 3.9 or newer is needed")
    if free_threaded:
        raise Impossible(f"{program} is a free-threaded Python, which the plugin does not support yet")
    text = f"{version[0]}.{version[1]}{flags}"
    if not any(os.path.exists(os.path.join(one, "Python.h")) for one in include):
        raise Impossible(
            f"the headers of {program} are missing: there is no Python.h in {' or '.join(include)}. Debian has them in"
            f" python{version[0]}.{version[1]}-dev"
        )
    return Interpreter(program, text, tuple(include))


def _check_owners(program: str) -> None:
    """As root: a program that somebody else could replace is not started."""
    path = program
    while True:
        status = os.stat(path)
        if status.st_uid != 0 or (status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX):
            raise Impossible(
                f"{path} can be changed by others than root, so root does not start {program}. Call this as its owner,"
                " with --output FILE, and give the group plugin = FILE"
            )
        if path == "/":
            return
        path = os.path.dirname(path)


def compile_plugin(interpreter: Interpreter, sources: str, path: str) -> None:
    extra = shlex.split(os.environ.get("CFLAGS", "-O2 -g"))
    folder = os.path.join(sources, "python")
    files = sorted(os.path.join("langplugins/python", name) for name in os.listdir(folder) if name.endswith(".c"))
    command = [
        *shlex.split(os.environ.get("CC", "cc")), *FLAGS, *extra, "-Ilangplugins/include",
        # Not -isystem: Debian's headers of a debug build are links, and gcc would look beside what they point to.
        *(f"-I{one}" for one in interpreter.include),
        *files, "-o", f"{path}.new",
    ]  # fmt: skip
    try:
        # Where it is started from is where the sources name each other from.
        done = subprocess.run(command, cwd=os.path.dirname(sources), capture_output=True, text=True)
    except OSError as error:
        raise Impossible(f"{command[0]}: {error.strerror}; a C compiler is needed (Debian: gcc)") from None
    sys.stderr.write(done.stderr)
    if done.returncode:
        raise Impossible(f"the plugin could not be compiled for {interpreter.program} (Python {interpreter.version})")
    try:
        # A sanitizer's run time has to be in a program from its start, and this one is not linked to it.
        if not any(word.startswith("-fsanitize") for word in extra):
            _try(interpreter, f"{path}.new")
        os.rename(f"{path}.new", path)
    except BaseException:
        os.unlink(f"{path}.new")
        raise


def _try(interpreter: Interpreter, path: str) -> None:
    """Open it where it is to run: what is missing then is found now."""
    command = [interpreter.program, "-I", "-S", "-c", OPEN, path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Impossible(f"{interpreter.program} cannot open the plugin: {said[-1] if said else done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
