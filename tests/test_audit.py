"""webserverctl audit: what a group can reach, tried from inside by a process that is confined as it is."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import ROOT, Server, directory
from test_privileges import LOOK, configure

TWO = {
    "alpha": "user = games\n[[[environment]]]\nSECRET = of alpha\n",
    "beta": "user = mail\nenvironment_file = beta.env\n[[[environment]]]\nSECRET = of beta\n",
    "twin": "user = games\ncapabilities = net_raw\nprivate_tmp = 1m\nnamespaces = ipc",
}


@pytest.fixture(scope="module")
def audited() -> Iterator[Server]:
    with directory() as path, directory("/srv" if ROOT else "/tmp") as elsewhere:
        one = Server(path)
        secret = one.file("beta.env", "TOKEN = x\n")
        secret.chmod(0o600)
        groups = TWO if ROOT else dict.fromkeys(TWO, "")
        configure(one, groups, f"listen = 127.0.0.1:{one.port}, unix:web.sock\n")
        text = one.config_file.read_text().replace(f"listen = 127.0.0.1:{one.port}\n", "", 1)
        # This one has a /tmp of its own.
        (elsewhere / "app.wsgi").write_text(LOOK)
        one.configure(text.replace("= twin/app.wsgi", f"= {elsewhere}/app.wsgi"))
        one.config_file.chmod(0o600)
        one.start()
        yield one
        one.stop()


def audit(server: Server, group: str) -> tuple[int, dict[str, dict[str, Any]]]:
    result = server.ctl("audit", group, "--json", check=False)
    answer = json.loads(result.stdout)
    assert answer["ok"], answer
    assert answer["group"] == group
    return result.returncode, {f"{row['area']}: {row['what']}": row for row in answer["rows"]}


def reachable(rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: row["result"] for name, row in rows.items() if row["verdict"] == "REACHABLE"}


@pytest.mark.root
def test_a_group_of_its_own_user_reaches_nothing(audited: Server) -> None:
    code, rows = audit(audited, "beta")
    assert reachable(rows) == {}
    assert code == 0
    pids = {kind: audited.pids(kind) for kind in ("supervisor", "front end", "logger")}
    for kind, found in pids.items():
        assert [row for name, row in rows.items() if name.startswith(f"processes: {kind}")], kind
        assert all(any(f"(process {pid})" in name for name in rows) for pid in found)
    for pid in [*audited.pids("manager", "alpha"), *audited.pids("worker", "alpha")]:
        (row,) = [row for name, row in rows.items() if f"(process {pid})" in name]
        for tried in ("environ", "maps", "mem", "fd", "ptrace", "process_vm_readv", "pidfd_getfd", "kill"):
            assert tried in row["tried"].split(", ")
        assert row["result"].startswith("refused: ")
    base = audited.directory
    for name in (
        "control: control socket",
        "control: run directory",
        f"control: directory of the socket {base}/web.sock",
        f"logs: {base}/logs/error.log",
        "logs: own log pipe",
        f"configuration: configuration: {base}/webserver.conf",
        f"configuration: environment_file of group beta: {base}/beta.env",
        "sockets: place of all socket directories",
        "sockets: socket directory of group alpha generation 1",
        "sockets: socket directory of group beta generation 1",
        "ways up: becoming somebody else",
        "ways up: changing the machine",
        "network: raw sockets",
        "identity: user ids",
        "identity: no_new_privs",
        "capabilities: CapBnd",
        "capabilities: securebits",
    ):
        assert rows[name]["verdict"] == "ok", rows.get(name)
    assert rows["configuration: configuration: " + str(base / "webserver.conf")]["result"].startswith("refused")
    # Its own is not among what it must not reach.
    for pid in [*audited.pids("manager", "beta"), *audited.pids("worker", "beta")]:
        assert not any(f"(process {pid})" in name for name in rows)


@pytest.mark.root
def test_what_a_group_has_been_given_is_a_note(audited: Server) -> None:
    _, rows = audit(audited, "twin")
    assert rows["network: raw sockets"]["verdict"] == "note"
    assert rows["network: raw sockets"]["result"].endswith("net_raw is kept")
    for name in ("walls: /tmp", "walls: /var/tmp", "walls: namespace ipc", "walls: namespace mnt"):
        assert (rows[name]["result"], rows[name]["verdict"]) == ("its own", "ok")
    assert rows["walls: namespace net"]["result"] == "the server's"


@pytest.mark.root
def test_two_groups_of_one_user_are_not_protected(audited: Server) -> None:
    code, rows = audit(audited, "alpha")
    assert code == 1
    (pid,) = audited.pids("manager", "twin")
    found = reachable(rows)
    assert "kill" in found[f"processes: manager of group twin (process {pid})"]
    assert not any("group beta" in name for name in found)
    table = audited.ctl("audit", "alpha", check=False)
    assert table.returncode == 1
    assert table.stdout.splitlines()[0].split() == ["AREA", "WHAT", "TRIED", "RESULT", "VERDICT"]
    assert "REACHABLE" in table.stdout
    assert table.stdout.splitlines()[-1].endswith("can be reached and should not be")


@pytest.mark.root
def test_what_has_been_left_open_is_found(audited: Server) -> None:
    """Each mistake of an administrator's is one row, and the row says what it allows."""
    base = audited.directory
    mistakes = [
        (base / "alpha", 0o777, f"other groups: directory of group alpha: {base}/alpha", "create in it"),
        (base / "alpha/app.wsgi", 0o666, f"other groups: application of group alpha: {base}/alpha/app.wsgi", "write"),
        (base / "logs/error.log", 0o666, f"logs: {base}/logs/error.log", "read, write"),
        (base / "logs", 0o777, f"logs: {base}/logs/error.log", "create beside it"),
        (base / "beta.env", 0o644, f"configuration: environment_file of group beta: {base}/beta.env", "read"),
        (base / "webserver.conf", 0o644, f"configuration: configuration: {base}/webserver.conf", "read"),
        (base / "run/control.sock", 0o666, "control: control socket", "connect"),
        (base / "run", 0o777, "control: run directory", "create"),
        (base / "run/ipc", 0o755, "sockets: place of all socket directories", "list"),
    ]  # fmt: skip
    audited.allow("asked for control and was refused")
    for path, mode, name, result in mistakes:
        before = os.stat(path).st_mode & 0o7777
        os.chmod(path, mode)
        try:
            code, rows = audit(audited, "beta")
            assert code == 1, name
            assert rows[name]["verdict"] == "REACHABLE"
            assert rows[name]["result"] == f"possible: {result}", name
        finally:
            os.chmod(path, before)
    assert audit(audited, "beta")[0] == 0


@pytest.mark.root
def test_a_file_that_everybody_may_read_is_a_note(audited: Server) -> None:
    _, rows = audit(audited, "beta")
    name = f"other groups: application of group alpha: {audited.directory}/alpha/app.wsgi"
    assert rows[name]["verdict"] == "note"
    assert "everybody may read it (mode 644)" in rows[name]["result"]
    path = audited.directory / "alpha/app.wsgi"
    os.chown(path, pwd.getpwnam("games").pw_uid, -1)
    path.chmod(0o600)
    try:
        _, rows = audit(audited, "beta")
        assert rows[name]["verdict"] == "ok"
    finally:
        path.chmod(0o644)
        os.chown(path, 0, -1)


def test_an_audit_leaves_nothing(audited: Server) -> None:
    before = sorted(os.listdir(audited.directory)), sorted(os.listdir(audited.directory / "logs"))
    for _ in range(2):
        audit(audited, "alpha")
    assert (sorted(os.listdir(audited.directory)), sorted(os.listdir(audited.directory / "logs"))) == before
    kinds = {process["kind"] for process in audited.status()["processes"]}
    assert kinds == {"supervisor", "logger", "front end", "manager", "worker"}
    assert audited.get("/alpha/").status == 200


def test_an_unknown_group_is_refused(audited: Server) -> None:
    result = audited.ctl("audit", "nobody", check=False)
    assert result.returncode == 1
    assert "there is no group 'nobody'; there are: alpha, beta, twin" in result.stderr
    assert audited.ctl("audit", check=False).returncode == 2


def test_the_probe_is_standard_library_alone() -> None:
    import ast
    import sys

    for path in (Path(__file__).resolve().parent.parent / "webserver/audit").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 9))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top, _, rest = name.partition(".")
                assert top in sys.stdlib_module_names or rest.split(".")[0] in ("audit", "wire"), f"{path}: {name}"
