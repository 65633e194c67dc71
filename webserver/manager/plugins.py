"""Which file is the plugin for this very interpreter.

Python's plugin is built for one version of CPython: python.so for the distribution's, python3.12.so beside it for 3.12,
python3.11d.so for a debug build. Which one is wanted is known here and nowhere before: root does not run a group's
interpreter to ask it. Nothing is opened to find out; a file says in its text what it was built for (compat.h).
"""

import os
import re
import sys

_MARK = re.compile(rb"webserver-python-plugin:([0-9]+\.[0-9]+[a-z]*);")
_BUILDER = "webserver-build-plugin"


class NoPlugin(Exception):
    """The text says what is missing and how it is made."""


def version() -> str:
    """This interpreter's version as its program's name has it: 3.12, or 3.11d for a debug build."""
    return "%d.%d%s" % (sys.version_info[0], sys.version_info[1], getattr(sys, "abiflags", ""))


def built_for(path: str) -> str:
    """The version that a plugin's file was built for; "" if it does not say, or cannot be read."""
    try:
        with open(path, "rb") as file:
            found = _MARK.search(file.read())
    except OSError:
        return ""
    return found.group(1).decode() if found else ""


def choose(path: str, language: str) -> str:
    """The plugin to open where the group's is `path`. Raises NoPlugin."""
    if language != "python":
        return path
    stem, extension = os.path.splitext(path)
    beside = "%s%s%s" % (stem, version(), extension)
    if os.path.exists(beside):
        path = beside
    built = built_for(path)
    if built and built != version():
        raise NoPlugin(
            "the plugin %s is for Python %s, and the group's interpreter, %s, is Python %s; build the one for it with: "
            "%s --interpreter %s" % (path, built, sys.executable, version(), _builder(), sys.executable)
        )
    return path


def _builder() -> str:
    """How the command that builds plugins is called here: by its path in a source tree."""
    tree = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.path.join(tree, ".venv", "bin", _BUILDER)
    return path if os.path.exists(path) else _BUILDER
