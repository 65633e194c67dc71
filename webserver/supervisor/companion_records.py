"""How a companion's process is started: configuration made into a record. Pure functions."""

from __future__ import annotations

import os

from webserver.config import Companion
from webserver.config.companion_rules import warden
from webserver.supervisor.identity import Identity
from webserver.supervisor.process import ProcessRecord
from webserver.supervisor.records import confined

INSTANCE = "{instance}"


def label(config: Companion, number: int) -> str:
    """The name of one instance: a companion that has only one needs no number."""
    return config.name if config.instances == 1 else f"{config.name} {number}"


def companion_process(
    config: Companion, number: int, identity: Identity, open_files: tuple[int, int], null: int, log: int, cgroup: str
) -> ProcessRecord:
    """The warden, which starts the program, and kills everything at once by SIGTERM or when we die.

    It learns of that by the end of its connection and not by a death signal: it may outlive the program that has
    started it, if another one follows (handover.py).
    """

    def filled(text: str) -> str:
        return text.replace(INSTANCE, str(number))

    name = label(config, number)
    argv = (warden(), f"webserver: companion {name}", config.ready, *map(filled, config.command))
    return ProcessRecord(
        "companion", name, argv, identity, {0: null, 1: log, 2: log},
        environment={key: filled(value) for key, value in config.environment}, directory=config.directory,
        death_signal=0, shown=(os.path.dirname(argv[0]),), **confined(config, open_files, cgroup),
    )  # fmt: skip
