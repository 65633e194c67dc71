"""Which sites have an error log of their own, and who may write to it."""

from __future__ import annotations

from dataclasses import dataclass

from webserver.config import Config


@dataclass(frozen=True)
class SiteLog:
    path: str
    groups: tuple[str, ...]  # those that a route of the site leads to


def site_logs(config: Config) -> dict[str, SiteLog]:
    """By site."""
    found = {}
    for site in config.sites:
        if site.error_log:
            targets = {target for route in site.routes for target in route.targets}
            groups = {target.partition(":")[2] for target in targets if target.startswith("group:")}
            found[site.name] = SiteLog(site.error_log, tuple(sorted(groups)))
    return found
