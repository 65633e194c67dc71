"""The temporary tree that all servers share: static files and a copy of the applications.

Files are made of repeating, file-specific text, so that a body can be checked without keeping a copy.  All carry one
fixed modification time, so that one If-Modified-Since suits every server.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
MTIME = 1_700_000_000
HTTP_MTIME = "Tue, 14 Nov 2023 22:13:20 GMT"
KINDS = {  # directory: (number of files, bytes each)
    "s1k": (100, 1024),
    "s100k": (50, 100 * 1024),
    "s10m": (4, 10 * 1024 * 1024),
    "many": (10_000, 1024),
}


@dataclass(frozen=True)
class Site:
    base: Path
    static: Path
    apps: Path
    requests: Path
    instances: Path


def content(kind: str, number: int) -> bytes:
    stamp = f"{kind}/{number:05d} lorem ipsum dolor sit amet\n".encode()
    size = KINDS[kind][1]
    return (stamp * (size // len(stamp) + 1))[:size]


def build(base: Path) -> Site:
    base.chmod(0o755)  # the servers' users must get in
    site = Site(base, base / "static", base / "apps", base / "requests", base / "i")
    for path in (site.static, site.requests, site.instances):
        path.mkdir()
    for kind, (count, _) in KINDS.items():
        (site.static / kind).mkdir()
        for number in range(count):
            path = site.static / kind / f"f{number:05d}.txt"
            path.write_bytes(content(kind, number))
            os.utime(path, (MTIME, MTIME))
    shutil.copytree(BENCH / "apps", site.apps, ignore=shutil.ignore_patterns("__pycache__"))
    (site.apps / "app.py").symlink_to("app.wsgi")  # gunicorn takes modules only
    return site


def warm(site: Site) -> None:
    """Reads every file once: otherwise the page cache decides the first server's result."""
    for top in (site.static, site.apps):
        for path in top.rglob("*"):
            if path.is_file():
                path.read_bytes()
