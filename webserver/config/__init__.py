"""Configuration: option table, reading with file and line, checking.

    load(path)    the Config in a file, or ConfigErrors with everything that is wrong
    show(path)    the same as text, each value with its origin
    where(path, section, option)    file and line, for what turns out to be wrong later

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
           "Site", "load", "show", "where"]  # fmt: skip


def load(path: str, machine: Machine | None = None) -> Config:
    """The configuration in a file and what it includes. Raises ConfigErrors with everything that is wrong."""
    from webserver.config.loader import load as load_file

    return load_file(path, machine)


def show(path: str, machine: Machine | None = None) -> str:
    """A configuration as one file, with every value and where it comes from. Raises ConfigErrors as load does."""
    from webserver.config.listing import show as show_file

    return show_file(path, machine)


def where(path: str, section: str, option: str = "") -> Place:
    """Where an option of [server] or [logs] is given, or a site's section ("site NAME"); the file if it is not."""
    from webserver.config.reader import read

    document = read(path)
    block = document.logs if section == "logs" else document.server
    if section.startswith("site "):
        block = document.sites.get(section[5:], block)
    entry = block.entries.get(option)
    place = entry.place if entry is not None else block.place
    return place if place.line else Place(path, 0)
