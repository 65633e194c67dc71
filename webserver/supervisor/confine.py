"""The steps between fork and exec, in their order. Runs in the child only.

Each step is (name, function of the plan); the first that raises stops the child. The order matters: the cgroup first,
so that all that follows is counted there; namespaces and mounts while it is root; limits while they can still be
raised; groups before gid before uid; then the capabilities, which have outlived the change of the uid, are chosen from,
dropped and locked; then the proof that it is who it should be and that there is no way back; no_new_privs; the death
signal last of all, because the kernel clears it when the uid changes, and after it the look at the parent, which may
have died before it was set.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable

import prctl

from webserver.supervisor import rights, walls
from webserver.supervisor.process import Plan
from webserver.supervisor.rights import NotConfined

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _session(plan: Plan) -> None:
    # A Ctrl-C at the terminal is meant for the supervisor, which tells the others what to do.
    os.setsid()


def _cgroup(plan: Plan) -> None:
    if not plan.record.cgroup:
        return
    number = os.open(os.path.join(plan.record.cgroup, "cgroup.procs"), os.O_WRONLY | os.O_CLOEXEC)
    os.write(number, b"0")
    os.close(number)


def _nice(plan: Plan) -> None:
    # From our own value, which is whatever the server was started with.
    if plan.record.nice is not None:
        os.setpriority(os.PRIO_PROCESS, 0, plan.record.nice)


def _limits(plan: Plan) -> None:
    for number, soft, hard in plan.record.limits:
        try:
            resource.setrlimit(number, (soft, hard))
        except ValueError as error:  # what Python makes of EINVAL, and of EPERM for a hard limit
            raise NotConfined(f"limit {number} to {soft}:{hard}: {error}") from None
        if resource.getrlimit(number) != (soft, hard):
            raise NotConfined(f"limit {number} is not {soft}:{hard}")


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
    ("cgroup", _cgroup),
    ("namespaces", walls.namespaces),
    ("private_tmp", walls.private_tmp),
    ("chroot", walls.jail),
    ("nice", _nice),
    ("resource limits", _limits),
    ("memory of the server", rights.undumpable),
    ("setgroups", rights.set_groups),
    ("setgid", rights.set_gid),
    ("setuid", rights.set_uid),
    ("capabilities", rights.set_capabilities),
    ("verify", rights.verify),
    ("no_new_privs", rights.no_new_privs),
    ("umask", _umask),
    ("directory", _directory),
    ("death signal", _death_signal),
    ("parent", _parent),
    ("exec", _exec),
)
