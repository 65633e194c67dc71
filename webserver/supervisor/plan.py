"""What has to be done to get from one configuration to another: a pure comparison."""

from __future__ import annotations

from dataclasses import dataclass

from webserver.config import Companion, Config, Group, Listen
from webserver.config.companion_order import needed
from webserver.config.kinds import PROGRAMS

# What processes get before exec, or hold for as long as they live.
FIXED_SERVER = ("frontends", "user", "group", "run", "open_files", "spool")


@dataclass(frozen=True)
class Plan:
    refused: tuple[str, ...]  # options that only a new start can change
    listen: tuple[Listen, ...]  # new
    unlisten: tuple[Listen, ...]
    logs: bool
    added: tuple[Group, ...]
    changed: tuple[Group, ...]
    removed: tuple[str, ...]
    needed: tuple[Companion, ...]  # new, and new or changed groups wait for them
    dismissed: tuple[str, ...]  # companions


def plan(before: Config, after: Config) -> Plan:
    refused = [
        f"[server] {name}: {getattr(before.server, name)} -> {getattr(after.server, name)}"
        for name in FIXED_SERVER
        if getattr(before.server, name) != getattr(after.server, name)
    ]
    if (before.logs.access_log == "off") != (after.logs.access_log == "off"):
        refused.append(f"[logs] access_log: {before.logs.access_log} -> {after.logs.access_log}")
    if before.logs.access_format != after.logs.access_format:
        refused.append(f"[logs] access_format: {before.logs.access_format} -> {after.logs.access_format}")
    old = {group.name: group for group in before.groups}
    new = {group.name: group for group in after.groups}
    groups = [group for name, group in new.items() if group != old.get(name)]
    after_groups = needed(
        {one.name: one.after for one in after.companions}, {name for group in groups for name in group.after}
    )
    known = {one.name for one in before.companions}
    return Plan(
        refused=tuple(refused),
        listen=tuple(one for one in after.server.listen if one not in before.server.listen),
        unlisten=tuple(one for one in before.server.listen if one not in after.server.listen),
        logs=before.logs != after.logs,
        added=tuple(group for name, group in new.items() if name not in old),
        changed=tuple(group for name, group in new.items() if name in old and group != old[name]),
        removed=tuple(name for name in old if name not in new),
        needed=tuple(one for one in after.companions if one.name in after_groups - known),
        dismissed=tuple(sorted(known - {one.name for one in after.companions})),
    )


def exposed(before: Config, after: Config) -> tuple[str, ...]:
    """Extensions whose files a site's group has run, and that the new configuration would send as they are.

    Nobody should find that out from a stranger: it has to be said in the configuration.
    """
    found = []
    sites = {site.name: site for site in before.sites}
    for site in after.sites:
        old = sites.get(site.name)
        sends = any({"files", "data"} & set(route.targets) for route in site.routes)
        if old is None or old.root != site.root or not sends:
            continue
        now = {route.pattern for route in site.routes}
        for route in old.routes:
            ran = route.pattern.startswith(".") and route.targets[0].startswith("group:")
            if ran and route.pattern not in now and route.pattern not in PROGRAMS:
                found.append(
                    f'site "{site.name}": without the route {route.pattern} = {route.targets[0]} its files would be'
                    f" sent as they are; write {route.pattern} = files if they should be, or {route.pattern} = =404"
                )
    return tuple(found)
