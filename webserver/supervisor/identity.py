"""Who a process runs as: account names made into numbers, before any fork.

Without root nobody can become anybody else: then every identity is that of the supervisor.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass


class IdentityError(Exception):
    """An account does not exist, or must not be used. The text says which option names it."""


@dataclass(frozen=True)
class Identity:
    user: str
    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary; holds gid

    @property
    def is_change(self) -> bool:
        """True if becoming it is a change from what this process is."""
        return os.geteuid() == 0


def own_identity() -> Identity:
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Identity(name, uid, os.getegid(), tuple(sorted({os.getegid(), *os.getgroups()})))


def resolve(user: str, group: str, where: str, further: Sequence[str] = ()) -> Identity:
    """The identity for options `user`, `group` (may be "") and `groups` of `where`, for the error text.

    Supplementary groups are those of `groups`, or else the user's own, as initgroups(3) would have them.

    As root: a user is required and is never uid 0, nor its group gid 0. As an ordinary user: always the own identity.
    """
    if os.geteuid() != 0:
        return own_identity()
    if not user:
        raise IdentityError(f"{where}: `user` is required when the server is started as root")
    try:
        account = pwd.getpwuid(int(user)) if user.isascii() and user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        raise IdentityError(f"{where}: there is no user {user!r}") from None
    gid = account.pw_gid
    if group:
        gid = _gid(group, where)
    if account.pw_uid == 0 or gid == 0:
        raise IdentityError(f"{where}: nothing that serves requests may run as uid 0 or gid 0")
    own = [_gid(name, where) for name in further] if further else os.getgrouplist(account.pw_name, gid)
    groups = tuple(sorted({gid, *own}))
    if 0 in groups and further:
        raise IdentityError(f"{where}: `groups` names gid 0, which nothing that serves requests may be in")
    if 0 in groups:
        raise IdentityError(f"{where}: user {user!r} is a member of gid 0, which nothing that serves requests may be")
    return Identity(account.pw_name, account.pw_uid, gid, groups)


def _gid(name: str, where: str) -> int:
    try:
        return (grp.getgrgid(int(name)) if name.isascii() and name.isdigit() else grp.getgrnam(name)).gr_gid
    except (KeyError, OverflowError):
        raise IdentityError(f"{where}: there is no group {name!r}") from None
