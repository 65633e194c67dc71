"""The steps between fork and exec, in their order. Runs in the child only.

Each step is (name, function of the plan); the first that raises stops the child. The order matters: limits while they
can still be raised; the bounding set while we may still change it; groups before gid before uid; then the proof that
there is no way back; no_new_privs; the death signal last of all, because the kernel clears it when the uid changes,
and after it the look at the parent, which may have died before it was set.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass

import prctl

from webserver.supervisor.process import ProcessRecord

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Plan:
    record: ProcessRecord
    parent: int  # pid


class NotConfined(Exception):
    """A privilege could be taken back, or the process is not who it should be."""


def _session(plan: Plan) -> None:
    # A Ctrl-C at the terminal is meant for the supervisor, which tells the others what to do.
    os.setsid()


def _limits(plan: Plan) -> None:
    for number, soft, hard in plan.record.limits:
        resource.setrlimit(number, (soft, hard))


def _bounding_set(plan: Plan) -> None:
    # Not where no_new_privs is off: that is asked for to run a setuid program, which needs its capabilities.
    if not plan.record.identity.is_change or not plan.record.no_new_privs:
        return
    if not prctl.cap_effective.setpcap:
        return
    for number in range(prctl.CAP_LAST_CAP + 1):
        try:
            if prctl.capbset_read(number):
                prctl.capbset_drop(number)
        except (OSError, ValueError):
            return  # a capability newer than the library or unknown to the kernel: there are none above it


def _groups(plan: Plan) -> None:
    if plan.record.identity.is_change:
        os.setgroups(plan.record.identity.groups)


def _gid(plan: Plan) -> None:
    if plan.record.identity.is_change:
        gid = plan.record.identity.gid
        os.setresgid(gid, gid, gid)


def _uid(plan: Plan) -> None:
    if plan.record.identity.is_change:
        uid = plan.record.identity.uid
        os.setresuid(uid, uid, uid)


def _capabilities(plan: Plan) -> None:
    if not plan.record.identity.is_change:
        return
    # The uid change has emptied permitted and effective; inheritable and ambient outlive it and an exec.
    prctl.set_caps((prctl.ALL_CAPS, prctl.ALL_FLAGS, False))


def _verify(plan: Plan) -> None:
    identity = plan.record.identity
    if os.getresuid() != (identity.uid,) * 3 or os.getresgid() != (identity.gid,) * 3:
        raise NotConfined("user or group is not the one that was asked for")
    if not identity.is_change:
        return
    if set(os.getgroups()) != set(identity.groups):
        raise NotConfined("supplementary groups are not those that were asked for")
    ways: tuple[tuple[str, Callable[[], None]], ...] = (
        ("setuid(0)", lambda: os.setuid(0)),
        ("seteuid(0)", lambda: os.seteuid(0)),
        ("setgid(0)", lambda: os.setgid(0)),
        ("setgroups([0])", lambda: os.setgroups([0])),
    )
    for name, way in ways:
        try:
            way()
        except PermissionError:
            continue
        raise NotConfined(f"{name} worked")


def _no_new_privs(plan: Plan) -> None:
    if plan.record.no_new_privs:
        prctl.set_no_new_privs(1)


def _umask(plan: Plan) -> None:
    os.umask(plan.record.umask)


def _directory(plan: Plan) -> None:
    os.chdir(plan.record.directory)


def _death_signal(plan: Plan) -> None:
    prctl.set_pdeathsig(plan.record.death_signal)


def _parent(plan: Plan) -> None:
    if os.getppid() != plan.parent:
        raise NotConfined("the supervisor has died")


def _exec(plan: Plan) -> None:
    environment = {"PATH": PATH, "LANG": "C.UTF-8", **plan.record.environment}
    os.execve(plan.record.argv[0], plan.record.argv, environment)


STEPS: tuple[tuple[str, Callable[[Plan], None]], ...] = (
    ("session", _session),
    ("resource limits", _limits),
    ("bounding set", _bounding_set),
    ("setgroups", _groups),
    ("setgid", _gid),
    ("setuid", _uid),
    ("capabilities", _capabilities),
    ("verify", _verify),
    ("no_new_privs", _no_new_privs),
    ("umask", _umask),
    ("directory", _directory),
    ("death signal", _death_signal),
    ("parent", _parent),
    ("exec", _exec),
)
