"""Where the server of a configuration file is to be reached: its run directory.

A server goes on running when its file has been broken meanwhile, and must still be told so, or to stop. So a file with
errors is read for this one value alone.
"""

from __future__ import annotations

import os

from webserver.config.errors import ConfigErrors


def run_directory(path: str) -> str:
    """The run directory, absolute. Raises OSError with a sentence if the file cannot be read at all."""
    from webserver.config import load

    try:
        return load(path).server.run
    except ConfigErrors as errors:
        value = _only_run(path, errors)
    if value is None:
        value = "/run/webserver" if os.geteuid() == 0 else "run"
    return os.path.join(os.path.dirname(os.path.abspath(path)), value)


def _only_run(path: str, errors: ConfigErrors) -> str | None:
    """`run` of [server] as a line of the file, whatever else stands there."""
    section = ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                text = line.split("#")[0].strip()
                if text.startswith("["):
                    section = text.strip("[] ")
                elif section == "server" and text.partition("=")[0].strip() == "run":
                    return text.partition("=")[2].strip().strip("\"'")
    except OSError:
        raise OSError(str(errors)) from None
    return None
