"""A machine for the checker whose users, rights and limits are the same everywhere, over the real file system."""

from __future__ import annotations

from webserver.config.machine import Machine, User

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

    def denied(self, path: str, user: User | None, bits: int) -> str:
        return ""
