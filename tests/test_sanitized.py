"""The sanitized build itself: that it is one, and that what its sanitizers report is seen, from every kind of process.

Without these, a suite that passes on it would show nothing.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from serving import SANITIZE_FLAGS, Server, interpreter, take_reports, tree

pytestmark = pytest.mark.sanitized

# Compiled as our own code is, and called by a process of ours.
FAULTS = """
#include <stdlib.h>
int address(int n) { char *gone = malloc(8); free(gone); return gone[n]; }
int undefined(int n) { return 2147483647 + n; }
"""
PROVOKE = "import ctypes; print(ctypes.CDLL({library!r}).{kind}(1), flush=True)"
WSGI = """
import ctypes

def application(environ, start_response):
    start_response("200 OK", [])
    name = environ["PATH_INFO"].rpartition("/")[2]
    return [str(ctypes.CDLL({library!r})[name](1)).encode() if name else b"well"]
"""
CONFIG = """
[groups]
  [[shop]]
  language = python
  application = app.wsgi
  processes = 1
  threads = 1
  [[blog]]
  language = php
  processes = 1
  [[plain]]
  language = echo
  processes = 1
  threads = 1
[sites]
  [[all]]
  hosts = *
  root = public
    [[[routes]]]
    / = files
    /shop/ = group:shop
    /plain/ = group:plain
    .php = group:blog
"""
SAID = {
    "address": "ERROR: AddressSanitizer: heap-use-after-free",
    "undefined": "runtime error: signed integer overflow",
}


@pytest.fixture
def faults(server: Server) -> str:
    """A library whose functions do what their names say."""
    library = server.directory / "faults.so"
    subprocess.run(
        ["cc", *SANITIZE_FLAGS, "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=FAULTS, text=True, check=True
    )
    return str(library)


@pytest.mark.parametrize("kind", SAID)
def test_a_report_ends_the_process_and_is_seen(faults: str, kind: str) -> None:
    program = [interpreter(), "-I", "-c", PROVOKE.format(library=faults, kind=kind)]
    result = subprocess.run(program, capture_output=True, text=True)
    assert (result.returncode != 0, result.stdout) == (True, "")
    (report,) = take_reports()
    assert SAID[kind] in report
    assert "faults.so" in report or f"in {kind}" in report


@pytest.mark.parametrize("kind", SAID)
def test_a_report_of_a_worker_is_seen(server: Server, faults: str, kind: str) -> None:
    """Whatever user it runs as, and wherever its standard error goes."""
    server.allow("worker", "request", "502")
    server.file("app.wsgi", WSGI.format(library=faults))
    server.write(CONFIG)
    server.start()
    assert server.get("/shop/").body == b"well"
    assert server.get(f"/shop/{kind}").status == 502
    (report,) = take_reports()
    assert SAID[kind] in report


def test_every_process_runs_sanitized_code(server: Server) -> None:
    server.file("app.wsgi", WSGI.format(library=""))
    server.file("public/well.php", "<?php echo 'well';")
    server.write(CONFIG)
    server.start()
    assert server.get("/shop/").body == server.get("/well.php").body == b"well"
    assert server.get("/plain/").body == b"hello, world"
    own = {
        "front end": {"_engine"},
        "manager shop": {"libwebserver_host", "python"},
        "manager blog": {"libwebserver_host", "php"},
        "manager plain": {"libwebserver_host", "echo"},
        "supervisor": set[str](),
        "logger": set[str](),
    }
    for kind in ("shop", "blog", "plain"):
        own[f"worker {kind}"] = own[f"manager {kind}"]
    for process in server.status()["processes"]:
        name = " ".join(filter(None, (process["kind"], process.get("group"))))
        text = Path(f"/proc/{process['pid']}/maps").read_text()
        mapped = {line.split()[5] for line in text.splitlines() if len(line.split()) > 5}
        assert {"libasan.so", "libubsan.so"} <= {re.sub(r"\.so.*", ".so", Path(path).name) for path in mapped}, name
        ours = {path for path in mapped if path.startswith(f"{tree()}/") and ".so" in path}
        assert {Path(path).name.partition(".")[0] for path in ours} == own[name], name
        for path in ours:
            symbols = subprocess.check_output(["nm", "-D", "--undefined-only", path], text=True)
            assert "__asan_report_load" in symbols, path
            assert "__ubsan_handle" in symbols, path
