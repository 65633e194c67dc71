"""What has to be done to get from one configuration to another: a pure comparison."""

from __future__ import annotations

from dataclasses import dataclass, replace

from webserver.config import Companion, Config, Group, Listen
from webserver.config.companion_order import needed
from webserver.config.kinds import PROGRAMS
from webserver.supervisor.site_logs import site_logs

# What processes get before exec, or hold for as long as they live.
FIXED_SERVER = ("frontends", "user", "group", "run", "open_files", "spool")

# What front ends and the supervisor go by, and no process of the group knows.
LIVE_GROUP = ("queue_length", "queue_timeout", "request_timeout", "drain_timeout", "restart_extra")


@dataclass(frozen=True)
class Plan:
    refused: tuple[str, ...]  # options that only a new start can change
    listen: tuple[Listen, ...]  # new
    unlisten: tuple[Listen, ...]
    logs: bool
    added: tuple[Group, ...]
    changed: tuple[Group, ...]
    adjusted: tuple[Group, ...]  # changed, but none of its processes need know
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
    both = [(old[name], group) for name, group in new.items() if name in old and group != old[name]]
    live = [group for former, group in both if _with_live(former, group) == group]
    groups = [group for name, group in new.items() if group != old.get(name)]
    after_groups = needed(
        {one.name: one.after for one in after.companions}, {name for group in groups for name in group.after}
    )
    known = {one.name for one in before.companions}
    return Plan(
        refused=tuple(refused),
        listen=tuple(one for one in after.server.listen if one not in before.server.listen),
        unlisten=tuple(one for one in before.server.listen if one not in after.server.listen),
        logs=before.logs != after.logs or site_logs(before) != site_logs(after),
        added=tuple(group for name, group in new.items() if name not in old),
        changed=tuple(group for _, group in both if group not in live),
        adjusted=tuple(live),
        removed=tuple(name for name in old if name not in new),
        needed=tuple(one for one in after.companions if one.name in after_groups - known),
        dismissed=tuple(sorted(known - {one.name for one in after.companions})),
    )


def _with_live(before: Group, after: Group) -> Group:
    """`before` with those options of `after` that can be put into force without a restart."""
    return replace(before, **{name: getattr(after, name) for name in LIVE_GROUP})


def exposed(before: Config, after: Config) -> tuple[tuple[str, str], ...]:
    """(site, problem): extensions whose files its group has run, and that the new configuration would send as they are.

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
                    (
                        site.name,
                        f'site "{site.name}": without the route {route.pattern} = {route.targets[0]} its files would'
                        f" be sent as they are; write {route.pattern} = files if they should be, or"
                        f" {route.pattern} = =404",
                    )
                )
    return tuple(found)
