"""webserverctl audit GROUP: a process that is confined as the group's manager is, and tries what it can reach.

The same record with another argv, so what it finds is what the group's code would find. It is told where everything is
that it must not reach; what it answers is a claim of the group's user, cut to size, shown and never acted upon.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from webserver.config import Group
from webserver.config.languages import PACKAGE
from webserver.config.limits import TEMPORARY
from webserver.supervisor.group import GroupRole
from webserver.supervisor.groups import Groups
from webserver.supervisor.nursery import CONTROL_NUMBER, Ending
from webserver.supervisor.parts import Parts
from webserver.supervisor.process import NOWHERE, Child, ProcessRecord
from webserver.supervisor.records import RESOURCES, manager_process
from webserver.supervisor.rights import LOCKED, mask
from webserver.supervisor.rundir import PID_FILE
from webserver.supervisor.site_logs import site_logs
from webserver.supervisor.spawn import package_file, planned
from webserver.supervisor.states import State

LIMIT = 60.0  # seconds for one audit
AT_ONCE = 4
ROWS = 20000
_TEXT = 1000  # characters of a cell
_NAMESPACES = ("ipc", "mnt", "net", "pid", "user", "uts")
_CELLS = ("area", "what", "tried", "result", "verdict")

Answer = Callable[[dict[str, Any]], None]


class Audits:
    def __init__(self, parts: Parts, groups: Groups, listeners: Callable[[], list[str]]) -> None:
        """`listeners`: paths of unix sockets that the server listens on."""
        self._parts = parts
        self._groups = groups
        self._listeners = listeners
        self._running: set[Child] = set()

    def start(self, name: Any, files: Any, answer: Answer) -> None:
        """`files`: what the caller has seen of the configuration, as [{path, what, secret}]."""
        role = self._groups.roles.get(name) if isinstance(name, str) else None
        if role is None or role.identity is None:
            known = ", ".join(sorted(self._groups.roles)) or "none"
            answer(_refusal(f"there is no group {name!r}; there are: {known}" if role is None else role.message))
            return
        if len(self._running) >= AT_ONCE:
            answer(_refusal("too many audits are running"))
            return
        parts = self._parts
        try:
            pipe, log = parts.logs.new_pipe("error", f"audit {role.name}", waits=True)
        except OSError as error:
            answer(_refusal(f"no pipe to the logger: {error.strerror}"))
            return
        room = role.current.room if role.current is not None else NOWHERE
        process = manager_process(role.config, role.identity, parts.open_files, parts.null, log, room)
        script = package_file("audit", "__main__.py")
        argv = (process.argv[0], "-I", "-S", script, "--control", str(CONTROL_NUMBER))
        process = replace(process, kind="audit", argv=argv, environment={})
        child = Child("audit", role.name)
        rows: list[dict[str, str]] = []
        complete = False

        def heard(child: Child, message: dict[str, Any], fds: dict[str, int]) -> None:
            nonlocal complete
            if message["op"] == "row" and len(rows) < ROWS:
                rows.append({cell: str(message["row"][cell])[:_TEXT] for cell in _CELLS})
            elif message["op"] == "done":
                complete = True
            else:
                raise ValueError(f"unknown op {message['op']!r}")

        def ended(child: Child, ending: Ending) -> None:
            self._running.discard(child)
            parts.nursery.door.change(child, State.GONE, ending.cause)
            if complete:
                user = role.identity.user if role.identity is not None else ""
                answer({"ok": True, "errors": [], "notes": [], "group": role.name, "user": user, "rows": rows})
            else:
                answer(_refusal(f"the audit {ending.cause}; the error log has what it said"))

        record = self._record(role, process, files if isinstance(files, list) else [])
        self._running.add(child)
        parts.nursery.start(child, process, [({"op": "record", "record": record}, {})], heard, ended)
        os.close(log)
        if child.pid:
            parts.logs.name(pipe, child.pid)
        parts.loop.after(LIMIT, lambda: parts.nursery.kill_now(child, f"it took longer than {LIMIT:g} s"))

    def end(self) -> None:
        for child in self._running:
            self._parts.nursery.kill_now(child, "the server ends")

    def _record(self, role: GroupRole, process: ProcessRecord, files: list[Any]) -> dict[str, Any]:
        run = self._parts.run
        others = [one for one in self._groups.roles.values() if one is not role]
        config = self._parts.frontends.config
        logs = config.logs
        # One of its own sites may lie in its own directory.
        sites = sorted({log.path for log in site_logs(config).values() if role.name not in log.groups})
        return {
            "expected": expected(process),
            "processes": self._processes(role),
            "sockets": self._sockets(role),
            "control": run.control,
            "run": run.path,
            "ipc": run.ipc,
            "pid_file": os.path.join(run.path, PID_FILE),
            "listeners": self._listeners(),
            "logs": [path for path in (logs.error_log, logs.access_log, *sites) if path.startswith("/")],
            "files": files,
            "trees": [
                {"what": "the server's programs", "path": PACKAGE},
                {"what": "plugins", "path": os.path.dirname(role.config.plugin)},
                {"what": "the server's Python", "path": os.path.dirname(os.path.realpath(sys.executable))},
            ],
            "others": [entry for one in others for entry in _places(one.config)],
        }

    def _processes(self, role: GroupRole) -> list[dict[str, Any]]:
        """Everybody's but its own. What managers say of their workers' pids is tried as well as any other number."""
        found = [("supervisor", os.getpid()), ("logger", self._parts.logs.child.pid)]
        found += [(one.label, one.pid) for one in self._parts.frontends.all]
        for generation in self._groups.generations():
            if generation.owner is not role:
                found.append((f"manager of group {generation.config.name}", generation.manager.pid))
                for worker in generation.workers.values():
                    found.append((f"worker {worker.number} of group {generation.config.name}", worker.pid))
        # Companions, each by its warden's pid, and whatever else the nursery has.
        known = {pid for _, pid in found}
        others = [one for one in self._parts.nursery.children() if one.pid not in known]
        found += [(one.label, one.pid) for one in others if one.kind not in ("manager", "audit")]
        found.append(("init", 1))
        return [{"what": what, "pid": pid} for what, pid in found if pid > 0]

    def _sockets(self, role: GroupRole) -> list[dict[str, Any]]:
        return [
            {
                "what": generation.label,
                "directory": generation.directory,
                "own": generation.owner is role,
                "names": [os.path.basename(path) for path in generation.paths.values()],
            }
            for generation in self._groups.generations()
            if generation.directory
        ]


def expected(process: ProcessRecord) -> dict[str, Any]:
    """What the probe should find of itself."""
    plan = planned(process)
    kept = mask(process.capabilities)
    sets = {}
    if plan.change:
        sets = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapAmb"), f"{kept:016x}")
        if plan.locks:
            sets["CapBnd"] = f"{kept:016x}"
    names = {number: name for name, number in RESOURCES.items()}
    walls = bool(process.private_tmp or process.jail)
    root = os.stat("/")
    return {
        "uid": process.identity.uid,
        "gid": process.identity.gid,
        "groups": list(process.identity.groups),
        "no_new_privs": process.no_new_privs,
        "capabilities": sets,
        "kept": list(process.capabilities),
        "securebits": LOCKED if plan.locks else None,
        "umask": process.umask,
        "nice": process.nice,
        "limits": [[names[number], number, soft, hard] for number, soft, hard in process.limits],
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in _NAMESPACES},
        "own_namespaces": [*process.namespaces, *(["mnt"] if walls else [])],
        "temporary": {path: os.stat(path).st_dev for path in TEMPORARY if process.private_tmp or not process.jail},
        "private_tmp": bool(process.private_tmp),
        "root": [root.st_dev, root.st_ino],
        "chroot": bool(process.jail),
        "cgroup": os.path.basename(process.cgroup),
    }


def _places(group: Group) -> list[dict[str, str]]:
    paths = {"application": group.application, "directory": group.directory}
    found = [{"what": f"{what} of group {group.name}", "path": path} for what, path in paths.items()]
    found += [{"what": f"preload of group {group.name}", "path": path} for path in group.preload]
    # Without a directory of its own a group has "/".
    return [entry for entry in found if entry["path"].startswith("/") and entry["path"] != "/"]


def _refusal(message: str) -> dict[str, Any]:
    return {"ok": False, "errors": [message], "notes": []}
