"""What each kind of process is told and how it is started: configuration made into records. Pure functions."""

from __future__ import annotations

import os
import resource
import signal
from typing import Any

from webserver.config import Config, Group
from webserver.config.languages import PACKAGE, find, plugin
from webserver.config.limits import LIMITS
from webserver.config.model import INHERITED, Confined
from webserver.supervisor.confine import PATH
from webserver.supervisor.identity import Identity
from webserver.supervisor.nursery import CONTROL_NUMBER
from webserver.supervisor.process import NOWHERE, Limit, ProcessRecord, Room
from webserver.supervisor.site_logs import site_logs
from webserver.supervisor.spawn import package_file, python


def open_files_limit(number: int) -> tuple[Limit, ...]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
    return ((resource.RLIMIT_NOFILE, wanted, wanted),)


def frontend_process(ordinal: int, identity: Identity, open_files: int, null: int, log: int) -> ProcessRecord:
    argv = (python(), "-I", package_file("frontend", "__main__.py"), "--control", str(CONTROL_NUMBER))
    return ProcessRecord(
        "frontend", str(ordinal), argv, identity, {0: null, 1: log, 2: log}, limits=open_files_limit(open_files)
    )


def logger_process(identity: Identity, open_files: int, null: int) -> ProcessRecord:
    """The logger writes to our own standard output and error where the configuration says so.

    The supervisor's death reaches it as a request to finish: what others wrote last is worth most then.
    """
    argv = (python(), "-I", package_file("logger", "__main__.py"), "--control", str(CONTROL_NUMBER))
    return ProcessRecord(
        "logger", "", argv, identity, {0: null, 1: 1, 2: 2}, umask=0o027,
        limits=open_files_limit(open_files), death_signal=signal.SIGTERM,
    )  # fmt: skip


RESOURCES = {name: int(getattr(resource, f"RLIMIT_{name.upper()}")) for name in LIMITS}


def confined(config: Confined, open_files: tuple[int, int], cgroup: str) -> dict[str, Any]:
    """Fields of a ProcessRecord that follow from the options that groups and companions have alike."""
    return {
        "umask": config.umask,
        "limits": _limits(config, open_files),
        "no_new_privs": config.no_new_privs,
        "nice": config.nice if config.nice else None,
        "capabilities": config.capabilities,
        "namespaces": config.namespaces,
        "private_tmp": config.private_tmp,
        "jail": config.chroot,
        "cgroup": cgroup,
    }


def _limits(config: Confined, open_files: tuple[int, int]) -> tuple[Limit, ...]:
    """`open_files`: soft and hard limit as we were started, and not as we have raised ours: programs use select(2)."""
    found = {RESOURCES["nofile"]: open_files}
    for name, number in RESOURCES.items():
        limit = getattr(config, f"limit_{name}")
        if limit.soft != INHERITED:
            found[number] = (limit.soft, limit.hard)
    return tuple((number, soft, hard) for number, (soft, hard) in found.items())


def manager_process(
    group: Group, identity: Identity, open_files: tuple[int, int], null: int, log: int, room: Room = NOWHERE
) -> ProcessRecord:
    """`open_files`: soft and hard limit, as we were started."""
    # Without site-packages unless the language is Python: what the distribution puts there is not ours to load. Then
    # this interpreter is the application's as well, and what it reads from the environment at its start must be there.
    ours = group.language == "python"
    flags = ("-s",) if ours else ("-I", "-S")
    environment = {name: value for name, value in group.environment if ours and name.startswith("PYTHON")}
    script = package_file("manager", "__main__.py")
    argv = (group.interpreter or "/usr/bin/python3", *flags, script, "--control", str(CONTROL_NUMBER))
    return ProcessRecord(
        "manager", group.name, argv, identity, {0: null, 1: log, 2: log}, environment=environment, shown=_shown(group),
        sockets=room.sockets, **confined(group, open_files, room.cgroup),
    )  # fmt: skip


def _shown(group: Group) -> tuple[str, ...]:
    """What a group in a jail must see of the server: its package, and where its plugin and the host library are."""
    places = dict.fromkeys((PACKAGE, os.path.dirname(group.plugin), os.path.dirname(plugin("libwebserver_host"))))
    return tuple(place for place in places if not place.startswith(PACKAGE + "/"))


def logger_record(config: Config) -> dict[str, Any]:
    return {
        "error_log": config.logs.error_log,
        "access_log": config.logs.access_log,
        "access_format": config.logs.access_format,
        "sites": {name: {"path": log.path, "groups": log.groups} for name, log in site_logs(config).items()},
    }


def frontend_record(
    ordinal: int, incarnation: int, config: Config, listeners: list[dict[str, Any]], accept: list[int],
    groups: list[dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    return {
        "ordinal": ordinal,
        "incarnation": incarnation,
        "frontends": config.server.frontends,
        "config": public(config),
        "listeners": listeners,
        "accept": accept,
        "groups": groups,
    }


def public(config: Config) -> dict[str, Any]:
    """The configuration as a front end gets it: without companions, and what of groups may hold secrets."""
    record = config.to_record()
    for group in record["groups"]:
        group["environment"] = []
        group["ini"] = []
        group["settings"] = []
        group["arguments"] = []
    record["companions"] = []
    return record


def generation_record(group: Group, number: int, generation: int, directory: str, identity: Identity) -> dict[str, Any]:
    """What front ends are told of a generation."""
    return {
        "group": group.name,
        "id": number,
        "generation": generation,
        "directory": directory,
        "uid": identity.uid,
        "gid": identity.gid,
        "processes": group.processes,
        "threads": group.threads,
    }


def manager_record(
    group: Group, generation: int, frontends: list[dict[str, Any]], prove: bool = False
) -> dict[str, Any]:
    """`prove`: it is to take over from another generation, so that a worker must show that it can."""
    return {
        "group": group.name,
        "generation": generation,
        "language": group.language,
        "plugin": group.plugin,
        "host": plugin("libwebserver_host"),
        "settings": settings(group),
        "processes": group.processes,
        "threads": group.threads,
        "frontends": frontends,
        "environment": {"PATH": PATH, "LANG": "C.UTF-8", **dict(group.environment)},
        "directory": group.directory,
        "umask": group.umask,
        "start_timeout": group.start_timeout,
        "touch": list(group.touch),
        "watch": group.watch,
        "prove": prove,
        "family": find(group.language).program,
        "pool": pool(group),
    }


def pool(group: Group) -> dict[str, Any]:
    """How many workers there are and how long they are kept: fields of the manager's Options."""
    return {
        "least": group.processes_min,
        "spare": group.spare,
        "idle_after": group.idle_after,
        "max_requests": group.max_requests,
        "max_age": group.max_age,
        "max_cpu": group.max_cpu,
        "soft_memory": group.soft_memory,
        "hard_memory": group.hard_memory,
    }


def settings(group: Group) -> list[list[str]]:
    """A group's settings as its plugin gets them: option names, a list as one entry for each value."""
    entries = [("application", group.application), ("directory", group.directory), ("interface", group.interface)]
    entries += [("websocket_message", str(group.websocket_message)), ("websocket_ping", str(group.websocket_ping))]
    for name, values in (
        ("preload", group.preload),
        ("python_path", group.python_path),
        ("perl_path", group.perl_path),
        ("arguments", group.arguments),
    ):
        entries += [(name, value) for value in values]
    if find(group.language).program:
        entries += [
            ("listens_on", group.listens_on),
            ("strip_prefix", "yes" if group.strip_prefix else "no"),
            ("forwarded", group.forwarded),
            ("keepalive", "yes" if group.keepalive else "no"),
            ("start_timeout", f"{group.start_timeout:g}"),
            ("continue_timeout", f"{group.continue_timeout:g}"),
            ("stop_timeout", f"{group.stop_timeout:g}"),
        ]
    entries += [(f"ini.{name}", value) for name, value in group.ini]
    entries += [(f"settings.{name}", value) for name, value in group.settings]
    entries += [(f"environment.{name}", value) for name, value in group.environment]
    return [list(entry) for entry in entries]
