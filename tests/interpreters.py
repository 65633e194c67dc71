"""The other CPythons of this machine, and the plugin built for each of them by the server's own command.

Debian has one version, and a debug build of it, which is another ABI; whatever else is found is used as well: in /usr,
/usr/local, /opt, pyenv's folder, and what WEBSERVER_PYTHONS names (paths, with colons between them).
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from serving import ROOT, program, tree

PLACES = ("/usr/bin/python3.*", "/usr/local/bin/python3.*", "/opt/*/bin/python3.*")
ASK = """
import json, os, sys, sysconfig
print(json.dumps({
    "name": sys.implementation.name, "version": "%d.%d%s" % (*sys.version_info[:2], sys.abiflags),
    "prefix": sys.base_prefix, "library": sysconfig.get_config_var("LDLIBRARY"), "folder": os.path.dirname(os.__file__),
    "headers": os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
    "include": sysconfig.get_path("include"), "free": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
}))
"""
LAUNCHER = "#include <Python.h>\nint main(int argc, char **argv) { return Py_BytesMain(argc, argv); }\n"


@dataclass(frozen=True)
class Python:
    program: str
    version: str  # "3.12", "3.11d"
    prefix: str
    folder: str  # of its standard library
    include: str
    library: str

    @property
    def minor(self) -> int:
        return int(self.version.rstrip("dmut").partition(".")[2])


@functools.cache
def others() -> tuple[Python, ...]:
    """One for each version from 3.9 on that has its headers, but for the one that the server runs in."""
    here = sysconfig.get_config_var("py_version_short")
    named = os.environ.get("WEBSERVER_PYTHONS", "").split(":")
    places = [path for pattern in PLACES for path in Path("/").glob(pattern[1:])]
    places += Path.home().glob(".pyenv/versions/*/bin/python3.*")
    found: dict[str, Python] = {}
    for path in [*filter(None, named), *sorted(map(str, places))]:
        if not os.access(path, os.X_OK) or path.endswith(("-config", "-gdb.py")):
            continue
        asked = subprocess.run([path, "-I", "-S", "-c", ASK], capture_output=True, text=True)
        if asked.returncode:
            continue
        said = json.loads(asked.stdout)
        one = Python(path, *(said[key] for key in ("version", "prefix", "folder", "include", "library")))
        if said["name"] == "cpython" and said["headers"] and not said["free"] and one.minor >= 9:
            found.setdefault(one.version, one)
    found.pop(str(here), None)
    return tuple(found[version] for version in sorted(found, key=lambda text: (found[text].minor, text)))


def another_version() -> Python:
    """One that is not of the server's minor version; where there is none, the debug build of the same."""
    here = int(str(sysconfig.get_config_var("py_version_short")).partition(".")[2])
    return max(others(), key=lambda one: (one.minor != here, one.minor))


def build(one: Python, output: Path) -> subprocess.CompletedProcess[str]:
    """Call the command that builds the plugin."""
    command = [program("webserver-build-plugin"), "--interpreter", one.program, "--output", str(output)]
    # Not optimized: it is compiled for each Python of the machine, and nothing is measured.
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CFLAGS": "-O0 -Werror"})


def startable(one: Python, folder: Path) -> str:
    """A program of this Python that the groups' user can start: itself, or a copy if it lies where nobody else comes."""
    if not ROOT or all(os.stat(place).st_mode & 0o001 for place in Path(one.program).parents):
        return one.program
    target = folder / f"python-{one.version}"
    name = os.path.basename(one.folder)
    path = target / "bin" / name
    if path.exists():
        return str(path)
    ignored = shutil.ignore_patterns("test", "tests", "site-packages", "config-*", "idlelib", "tkinter", "ensurepip")
    shutil.copytree(one.folder, target / "lib" / name, ignore=ignored, copy_function=_link)
    (target / "lib" / name / "site-packages").mkdir()
    for library in Path(one.prefix, "lib").glob("libpython3*.so*"):
        shutil.copy2(library, target / "lib", follow_symlinks=False)
    # Its own program would look for libpython in the old place.
    (target / "bin").mkdir()
    source = target / "launcher.c"
    source.write_text(LAUNCHER)
    if "so" in one.library:
        flags = ["-L", target / "lib", f"-lpython{one.version}", f"-Wl,-rpath,{target}/lib"]
        subprocess.run(["gcc", f"-I{one.include}", source, "-o", path, *flags], check=True)
    else:
        shutil.copy2(os.path.realpath(one.program), path)
    subprocess.run(["chmod", "-R", "a+rX", target], check=True)
    return str(path)


def _link(source: str, target: str) -> str:
    """A second name for the same file; its times matter to what has been compiled before."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def default_plugin() -> Path:
    return tree() / "build/lib/python.so"
