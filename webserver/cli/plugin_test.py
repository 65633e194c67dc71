"""webserver-plugin-test: the conformance suite on a plugin, ours or somebody else's. See webserver-plugin(3)."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from webserver.cli.arguments import UsageError, parse

OPTIONS = {
    "--language": True,
    "--plugin": True,
    "--application": True,
    "--threads": True,
    "--settings": True,
    "--without": True,
    "--only": True,
    "--long": False,
    "--help": False,
}
USAGE = (
    "usage: webserver-plugin-test [--language NAME --application FILE [--plugin PATH] [--threads NUMBER]\n"
    "       [--settings FILE]] [--without CLAUSE,CLAUSE] [--only TEXT] [--long]"
)


def main() -> int:
    try:
        given, words = parse(sys.argv[1:], OPTIONS)
        if "--help" in given:
            sys.stdout.write(USAGE + "\n")
            return 0
        if words:
            raise UsageError(f"unknown word {words[0]!r}")
        if ("--language" in given) != ("--application" in given):
            raise UsageError("--language and --application belong together")
        for name in ("--application", "--plugin", "--settings"):
            if name in given and not os.path.isfile(given[name]):
                raise UsageError(f"{name}: there is no file {given[name]}")
    except UsageError as error:
        sys.stderr.write(f"webserver-plugin-test: {error}\n{USAGE}\n")
        return 2
    if importlib.util.find_spec("pytest") is None:
        sys.stderr.write(f"webserver-plugin-test: {sys.executable} has no pytest (Debian: python3-pytest)\n")
        return 2
    suite = _suite()
    arguments = ["-c", str(suite / "suite.ini"), "--clauses", "-p", "no:cacheprovider", "-qq", "--no-header"]
    for name in ("--language", "--plugin", "--application", "--threads", "--settings", "--without"):
        if name in given:
            path = name in ("--plugin", "--application", "--settings")
            arguments += [name, os.path.abspath(given[name]) if path else given[name]]
    if "--only" in given:
        arguments += ["-k", given["--only"]]
    if "--long" in given:
        os.environ["WEBSERVER_LONG"] = "1"
    os.environ.setdefault("WEBSERVER_BIN", os.path.dirname(os.path.abspath(sys.argv[0])))
    os.execv(sys.executable, [sys.executable, "-B", "-m", "pytest", *arguments, str(suite)])


def _suite() -> Path:
    """Installed beside this package, or in the tree that it is run from."""
    package = Path(__file__).resolve().parent.parent
    places = (package / "conformance", package.parent / "tests/conformance")
    return next((place for place in places if place.is_dir()), places[0])


if __name__ == "__main__":
    sys.exit(main())
