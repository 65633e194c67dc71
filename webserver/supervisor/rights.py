"""Giving root's rights up for good, and the proof of it. Runs in the child only, between fork and exec.

The kernel gives a new uid no capabilities, but that is a side effect; here every set is written, locked and read back.
Whether there is anything to give up is decided before the fork (`plan.change`): once the uid has changed, nobody can
tell any more that it was root's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import prctl

from webserver.config.limits import CAPABILITIES
from webserver.supervisor import kernel
from webserver.supervisor.process import Plan

SETPCAP = CAPABILITIES.index("setpcap")
# Where plan.locks: a setuid program, which no_new_privs = no is asked for, could do nothing under these.
LOCKED = (
    kernel.SECURE_NOROOT | kernel.SECURE_NOROOT_LOCKED | kernel.SECURE_NO_SETUID_FIXUP_LOCKED
    | kernel.SECURE_NO_AMBIENT_RAISE | kernel.SECURE_NO_AMBIENT_RAISE_LOCKED
)  # fmt: skip
_RELEVANT = LOCKED | kernel.SECURE_KEEP_CAPS


class NotConfined(Exception):
    """A privilege could be taken back, or the process is not who it should be."""


def mask(names: Iterable[str]) -> int:
    """Capabilities as the kernel's sets have them."""
    return sum(1 << CAPABILITIES.index(name) for name in names)


def undumpable(plan: Plan) -> None:
    """Until exec this is a copy of the supervisor's memory: processes of the new user must not look into it."""
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def set_groups(plan: Plan) -> None:
    if plan.change:
        os.setgroups(plan.record.identity.groups)


def set_gid(plan: Plan) -> None:
    if plan.change:
        gid = plan.record.identity.gid
        os.setresgid(gid, gid, gid)


def set_uid(plan: Plan) -> None:
    if not plan.change:
        return
    # Permitted capabilities outlive the change, for the next step to choose from and then drop.
    kernel.prctl(kernel.PR_SET_KEEPCAPS, 1)
    uid = plan.record.identity.uid
    os.setresuid(uid, uid, uid)


def set_capabilities(plan: Plan) -> None:
    if not plan.change:
        return
    keep = mask(plan.record.capabilities)
    permitted = kernel.capabilities()[1]
    if missing := keep & ~permitted:
        names = ", ".join(name for number, name in enumerate(CAPABILITIES) if missing >> number & 1)
        raise NotConfined(f"the server itself does not have {names}")
    may = permitted & 1 << SETPCAP
    kernel.set_capabilities(keep | may, keep | may, keep)
    if plan.locks:
        for number, there in kernel.bounding().items():
            if there and not keep >> number & 1:
                kernel.prctl(kernel.PR_CAPBSET_DROP, number)
    kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(len(CAPABILITIES)):
        if keep >> number & 1:
            kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_RAISE, number)
    kernel.prctl(kernel.PR_SET_KEEPCAPS, 0)
    if plan.locks:
        kernel.prctl(kernel.PR_SET_SECUREBITS, LOCKED)
    kernel.set_capabilities(keep, keep, keep)
    undumpable(plan)  # where fs.suid_dumpable is 1, each change of rights makes it dumpable again


def verify(plan: Plan) -> None:
    """That it is who it should be, has what it should have, and that no way leads back."""
    identity = plan.record.identity
    if os.getresuid() != (identity.uid,) * 3 or os.getresgid() != (identity.gid,) * 3:
        raise NotConfined("user or group is not the one that was asked for")
    if not plan.change:
        return
    if set(os.getgroups()) != set(identity.groups):
        raise NotConfined("supplementary groups are not those that were asked for")
    ways: tuple[tuple[str, Callable[[], None]], ...] = (
        ("setuid(0)", lambda: os.setuid(0)),
        ("seteuid(0)", lambda: os.seteuid(0)),
        ("setgid(0)", lambda: os.setgid(0)),
        ("setegid(0)", lambda: os.setegid(0)),
        ("setgroups([0])", lambda: os.setgroups([0])),
    )
    for name, way in ways:
        try:
            way()
        except PermissionError:
            continue
        raise NotConfined(f"{name} worked")
    keep = mask(plan.record.capabilities)
    if kernel.capabilities() != (keep, keep, keep):
        raise NotConfined("capabilities are not those that were asked for")
    for number, there in kernel.bounding().items():
        ambient = kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_IS_SET, number)
        if bool(ambient) != bool(keep >> number & 1):
            raise NotConfined("ambient capabilities are not those that were asked for")
        if plan.locks and there and not keep >> number & 1:
            raise NotConfined("the bounding set holds capabilities that were not asked for")
    if plan.locks and kernel.prctl(kernel.PR_GET_SECUREBITS) & _RELEVANT != LOCKED:
        raise NotConfined("securebits are not those that were asked for")


def no_new_privs(plan: Plan) -> None:
    if plan.record.no_new_privs:
        prctl.set_no_new_privs(1)
        if prctl.get_no_new_privs() != 1:
            raise NotConfined("no_new_privs is not set")
