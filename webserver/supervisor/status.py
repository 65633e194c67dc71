"""What webserverctl status shows: every process, every group, from what the supervisor knows and the workers' pages."""

from __future__ import annotations

import os
import time
from typing import Any

from webserver.supervisor.companion import Instance
from webserver.supervisor.companion_role import CompanionRole
from webserver.supervisor.companions import Companions
from webserver.supervisor.frontends import FrontEnd, FrontEnds
from webserver.supervisor.generation import Generation
from webserver.supervisor.group import GroupRole
from webserver.supervisor.groups import Groups
from webserver.supervisor.listeners import Listeners
from webserver.supervisor.logs import Logs
from webserver.supervisor.process import Child
from webserver.supervisor.workers import Worker
from webserver.wire.page import Page


def status(
    phase: str, started: float, now: float, frontends: FrontEnds, groups: Groups, companions: Companions, logs: Logs,
    listeners: Listeners,
) -> dict[str, Any]:  # fmt: skip
    processes = [_process("supervisor", "", os.getpid(), phase, now - started)]
    processes.append(_child(logs.child, now))
    processes += [_frontend(one, now) for one in frontends.all]
    for generation in groups.generations():
        processes.append(_manager(generation, now))
        processes += [_worker(generation, worker, now) for worker in generation.workers.values()]
    roles = [*companions.roles.values(), *companions.gone]
    processes += [_instance(role, one, now) for role in roles for one in role.all]
    return {
        "listen": [str(address) for address in listeners.addresses.values()],
        "separated": os.geteuid() == 0,
        "processes": processes,
        "groups": [_group(role, frontends) for role in (*groups.roles.values(), *groups.gone)],
        "companions": [_companion(role) for role in roles],
    }


def _process(kind: str, name: str, pid: int, state: str, age: float, **more: Any) -> dict[str, Any]:
    entry = {"kind": kind, "name": name, "group": None, "generation": None, "pid": pid or None, "state": state}
    return {**entry, "age": round(max(0.0, age), 3), **more}


def _child(child: Child, now: float, **more: Any) -> dict[str, Any]:
    age = now - child.started if child.pid else 0.0
    kind = "front end" if child.kind == "frontend" else child.kind
    return _process(kind, child.name, child.pid, child.state.value, age, message=child.why, **more)


def _frontend(frontend: FrontEnd, now: float) -> dict[str, Any]:
    engine = frontend.stats.get("engine")
    return _child(frontend, now, incarnation=frontend.incarnation, stats=engine if isinstance(engine, dict) else {})


def _manager(generation: Generation, now: float) -> dict[str, Any]:
    return _child(
        generation.manager,
        now,
        group=generation.config.name,
        generation=generation.number,
        stage=generation.stage.value,
        language=generation.config.language,
        user=generation.identity.user,
        threads_left=list(generation.loaded.threads_left),
        shared=list(generation.loaded.shared),
    )


def _worker(generation: Generation, worker: Worker, now: float) -> dict[str, Any]:
    page = worker.page.read()
    # The page is the worker's own account; "ready" is what its manager has said.
    state = page.state_name if worker.ready or page.state_name != "ready" else "starting"
    return _process(
        "worker",
        str(worker.number),
        worker.pid,
        state,
        now - worker.started,
        group=generation.config.name,
        generation=generation.number,
        worker=worker.incarnation,
        requests=page.requests,
        errors=page.errors,
        slots=worker.page.slots,
        busy=page.busy,
        tunnels=page.tunnels,
        queued=page.queued,
        going=worker.going or None,
    )


def _group(role: GroupRole, frontends: FrontEnds) -> dict[str, Any]:
    generations = role.generations()
    crew = [(worker, worker.page.read()) for one in generations for worker in one.workers.values()]
    workers = [page for _, page in crew]
    return {
        "name": role.name,
        "language": role.config.language,
        "user": role.identity.user if role.identity is not None else None,
        "state": role.state.value,
        "message": role.message,
        "generation": role.current.number if role.current is not None else None,
        "generations": [{"generation": one.number, "stage": one.stage.value} for one in generations],
        "takeover": role.progress(),
        "processes": role.config.processes,
        "processes_min": role.config.processes_min,
        "workers": _workers(crew),
        "requests": sum(page.requests for page in workers) + sum(one.crew.requests for one in generations),
        "busy": sum(page.busy for page in workers),
        "tunnels": sum(page.tunnels for page in workers),
        "slots": sum(len(page.slot) for page in workers),
        "queued": sum(_of_group(one, role.name, "queued") for one in frontends.alive()),
        "waited": round(max((_waited(one, role.name) for one in frontends.alive()), default=0.0), 3),
    }


def _workers(crew: list[tuple[Worker, Page]]) -> dict[str, int]:
    """How many are doing what. One that has been asked to go is leaving, whatever else it does."""
    found = dict.fromkeys(("starting", "idle", "busy", "leaving"), 0)
    for worker, page in crew:
        if worker.asked is not None:
            what = "leaving"
        elif not worker.ready:
            what = "starting"
        else:
            what = "busy" if page.busy else "idle"
        found[what] += 1
    return found


def _of_group(frontend: FrontEnd, group: str, name: str) -> int:
    """As its last beat said."""
    groups = frontend.stats.get("groups")
    entry = groups.get(group) if isinstance(groups, dict) else None
    value = entry.get(name, 0) if isinstance(entry, dict) else 0
    return value if isinstance(value, int) else 0


def _waited(frontend: FrontEnd, group: str) -> float:
    """Seconds that who waits longest has waited, unless it was placed since the last beat."""
    since = _of_group(frontend, group, "waits_since_ns")
    return max(0.0, time.monotonic() - since / 1e9) if since > 0 else 0.0


def _instance(role: CompanionRole, one: Instance, now: float) -> dict[str, Any]:
    """The process id is the program's, as its warden says."""
    child = one.child
    return _process(
        "companion",
        child.name,
        one.pid,
        child.state.value,
        now - child.started if child.alive else 0.0,
        companion=role.name,
        warden=child.pid or None,
        user=one.identity.user,
        ready=one.is_ready,
        restarts=one.restarts,
        said=one.said,
        message=one.message or child.why,
    )


def _companion(role: CompanionRole) -> dict[str, Any]:
    at = role.next_run()
    return {
        "name": role.name,
        "user": role.identity.user if role.identity is not None else None,
        "state": role.state.value,
        "ready": role.ready,
        "instances": len(role.instances),
        "after": list(role.config.after),
        "next_run": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at is not None else None,
        "skipped": role.skipped,
        "restarts": sum(one.restarts for one in role.instances),
        "said": next((one.said for one in role.instances if one.said), ""),
        "message": role.message,
    }
