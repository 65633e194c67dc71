"""A machine for the checker whose users, rights and limits are the same everywhere, over the real file system."""

from __future__ import annotations

from pathlib import Path

from webserver.config.machine import Machine, User
from webserver.config.witness import QUESTIONS

USERS = {"root": 0, "toor": 0, "www-data": 33, "app": 4711, "nobody": 65534}
GROUPS = {"root": 0, "toor": 0, "www-data": 33, "app": 4711, "nobody": 65534}


class PlainMachine(Machine):
    """Started as root or as "app". Nobody is denied anything that is there: see test_config_machine.py for that."""

    def __init__(self, root: bool = False) -> None:
        self._root = root

    @property
    def uid(self) -> int:
        return 0 if self._root else USERS["app"]

    def cores(self) -> int:
        return 2

    def user(self, name: str) -> User | None:
        uid = USERS.get(name)
        return None if uid is None else User(name, uid, GROUPS[name], frozenset({GROUPS[name]}))

    def user_names(self) -> list[str]:
        return list(USERS)

    def own_name(self) -> str:
        return "root" if self._root else "app"

    def own_group(self) -> str:
        return self.own_name()

    def gid(self, group: str) -> int | None:
        return GROUPS.get(group)

    def group_name(self, gid: int) -> str:
        return next((name for name, known in GROUPS.items() if known == gid), "")

    def lowest_port(self) -> int:
        return 1 if self._root else 1024

    def open_files(self) -> int:
        return 100000

    def ipv6(self) -> bool:
        return True

    def no_new_privs(self) -> bool:
        return False

    def hard_limit(self, name: str) -> int:
        return 100000 if name == "nofile" else -1

    def lowest_nice(self) -> int:
        return -20 if self._root else 0

    def ask(self, question: str, user: User | None, jail: str, *words: object) -> str:
        """The test process looks itself: these users need not be there."""
        return QUESTIONS[question](self.own_name(), *words) if question == "missing" else ""


class SampleMachine(PlainMachine):
    """For examples: with their users, and with every plugin built."""

    def user(self, name: str) -> User | None:
        accounts = {"shop": 4712, "blog": 4713, "pages": 4714, "redis": 4715}
        if name in accounts:
            return User(name, accounts[name], accounts[name], frozenset({accounts[name]}))
        return super().user(name)

    def gid(self, group: str) -> int | None:
        return {"shop": 4712, "blog": 4713, "pages": 4714, "redis": 4715}.get(group, super().gid(group))

    def group_name(self, gid: int) -> str:
        return {4712: "shop", 4713: "blog", 4714: "pages", 4715: "redis"}.get(gid, super().group_name(gid))

    def missing(self, path: str, kind: str, user: User | None = None, jail: str = "") -> str:
        return "" if path.endswith((".so", "/warden", "/redis-server")) else super().missing(path, kind, user, jail)


ADJUSTED = ("/srv/", "/etc/webserver/", "/var/log/webserver/", "/run/webserver")


def adjusted(text: str, root: str) -> str:
    """A sample with its paths below `root`, where `lay_out` has made what they name."""
    for prefix in ADJUSTED:
        text = text.replace(prefix, root + prefix)
    return text


def lay_out(root: Path) -> None:
    """What the samples and the examples of the manual pages take for granted."""
    names = [
        "srv/www",
        "srv/blog/public",
        "srv/wiki",
        "srv/shop/public",
        "srv/shop/private",
        "srv/shop/venv/bin",
        "srv/redis",
    ]
    for name in [*names, "etc/webserver", "var/log/webserver"]:
        (root / name).mkdir(parents=True)
    for name in ("sites-enabled", "groups-enabled", "companions-enabled"):
        (root / "etc/webserver" / name).mkdir()
    (root / "run").mkdir()
    files = ["srv/shop/app.wsgi", "srv/wiki/app.lua", "srv/shop/venv/bin/python", "srv/shop/venv/bin/celery"]
    for name in [*files, "etc/webserver/shop.env"]:
        (root / name).write_text("")
        (root / name).chmod(0o600)
