"""The supervisor's own limit of open files."""

from __future__ import annotations

import resource


def raise_limit(limits: tuple[int, int], wanted: int) -> str:
    """As high as may be, `wanted` at least; returns what is wrong, or "".

    We hold pages, pipes and sockets for everybody; front ends get exactly what the configuration says. `limits`: soft
    and hard, as we were started with.
    """
    soft, hard = limits
    if hard != resource.RLIM_INFINITY and hard < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return ""
        except (OSError, ValueError):
            return f"[server]: open_files: found {wanted}, but the hard limit of {hard} cannot be raised"
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return ""
