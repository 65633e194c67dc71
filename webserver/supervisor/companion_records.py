"""How a companion's process is started: configuration made into a record. Pure functions."""

from __future__ import annotations

import resource
import signal

from webserver.config import Companion
from webserver.config.companion_rules import warden
from webserver.supervisor.identity import Identity
from webserver.supervisor.process import ProcessRecord

INSTANCE = "{instance}"


def label(config: Companion, number: int) -> str:
    """The name of one instance: a companion that has only one needs no number."""
    return config.name if config.instances == 1 else f"{config.name} {number}"


def companion_process(
    config: Companion, number: int, identity: Identity, open_files: tuple[int, int], null: int, log: int
) -> ProcessRecord:
    """The warden, which starts the program. By SIGTERM, as when the supervisor dies, it kills everything at once."""

    def filled(text: str) -> str:
        return text.replace(INSTANCE, str(number))

    name = label(config, number)
    argv = (warden(), f"webserver: companion {name}", config.ready, *map(filled, config.command))
    return ProcessRecord(
        "companion", name, argv, identity, {0: null, 1: log, 2: log}, umask=config.umask,
        limits=((resource.RLIMIT_NOFILE, *open_files),),
        environment={key: filled(value) for key, value in config.environment},
        directory=config.directory, death_signal=signal.SIGTERM, no_new_privs=config.no_new_privs,
    )  # fmt: skip
