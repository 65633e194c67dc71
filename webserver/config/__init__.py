"""Configuration: option table, reading with file and line, checking.

    load(path)    the Config in a file, or ConfigErrors with everything that is wrong
    show(path)    the same as text, each value with its origin

A process that is handed its configuration as a record needs the values only (`Config.from_record`), so what reads files
is imported when it is first called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webserver.config.errors import ConfigError, ConfigErrors, Place
from webserver.config.model import Companion, Config, Group, Listen, Logs, Route, Server, Site

if TYPE_CHECKING:
    from webserver.config.machine import Machine

__all__ = ["Companion", "Config", "ConfigError", "ConfigErrors", "Group", "Listen", "Logs", "Place", "Route", "Server",
           "Site", "load", "show"]  # fmt: skip


def load(path: str, machine: Machine | None = None) -> Config:
    """The configuration in a file and what it includes. Raises ConfigErrors with everything that is wrong."""
    from webserver.config.loader import load as load_file

    return load_file(path, machine)


def show(path: str, machine: Machine | None = None) -> str:
    """A configuration as one file, with every value and where it comes from. Raises ConfigErrors as load does."""
    from webserver.config.listing import show as show_file

    return show_file(path, machine)
