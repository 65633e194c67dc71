"""S16: libraries of one name and with the same symbols, one in a Python group and one in a PHP group, at one time."""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
from pathlib import Path

from serving import Server, wait_until

LIBRARY = 'int clash_value(void) {{ return {value}; }}\nconst char *clash_name = "{name}";\n'

EXTENSION = """
#define PY_SSIZE_T_CLEAN
#include <Python.h>
extern int clash_value(void);
static PyObject *value(PyObject *self, PyObject *nothing)
{
	(void)self, (void)nothing;
	return PyLong_FromLong(clash_value());
}
static PyMethodDef methods[] = {{"value", value, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "clash", .m_size = -1, .m_methods = methods};
PyMODINIT_FUNC PyInit_clash(void) { return PyModule_Create(&module); }
"""

# By an extension module that is linked to it, and once more through ctypes.
PYTHON = """
import clash, ctypes, json, os
library = ctypes.CDLL("libclash.so.1")
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    name = ctypes.c_char_p.in_dll(library, "clash_name").value.decode()
    return [json.dumps([os.getpid(), clash.value(), library.clash_value(), name]).encode()]
"""

# FFI lets go of the library when the request ends, so one request waits until it has been looked at.
PHP = """<?php
$library = FFI::cdef('int clash_value(void); const char *clash_name;', '%s');
while (isset($_GET['hold']) && !file_exists('%s')) { clearstatcache(); usleep(10000); }
header('Content-Type: application/json');
echo json_encode([getmypid(), $library->clash_value(), $library->clash_value(), $library->clash_name]);
"""

CONFIG = """
[groups]
[[one]]
language = python
application = one/app.wsgi
python_path = one
[[two]]
language = python
application = two/app.wsgi
python_path = two
[[three]]
language = php
processes = 1
[[[ini]]]
ffi.enable = 1
[sites]
[[all]]
hosts = *
root = public
[[[routes]]]
/one/ = group:one
/two/ = group:two
.php = group:three
"""


def library(server: Server, name: str, value: int) -> Path:
    """libclash.so.1 in a directory of its own."""
    source = server.file(f"{name}/clash.c", LIBRARY.format(value=value, name=name))
    path = source.parent / "libclash.so.1"
    flags = ["-shared", "-fPIC", "-Wl,-soname,libclash.so.1"]
    subprocess.run(["gcc", *flags, source, "-o", path], check=True)
    os.chmod(path, 0o755)
    return path


def extension(server: Server, beside: Path) -> None:
    source = server.file(f"{beside.parent.name}/extension.c", EXTENSION)
    include = subprocess.run(["/usr/bin/python3-config", "--includes"], capture_output=True, text=True, check=True)
    target = beside.parent / "clash.so"
    rpath = f"-Wl,-rpath,{beside.parent}"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", *include.stdout.split(), source, beside, rpath, "-o", target], check=True
    )
    os.chmod(target, 0o755)


def test_each_group_has_its_own(server: Server) -> None:
    paths = {name: library(server, name, value) for name, value in (("one", 1), ("two", 2), ("three", 3))}
    for name in ("one", "two"):
        extension(server, paths[name])
        server.file(f"{name}/app.wsgi", PYTHON)
    seen = server.directory / "seen"
    server.file("public/clash.php", PHP % (paths["three"], seen))
    server.write(CONFIG)
    server.start()
    names = {os.path.basename(path) for path in paths.values()}
    assert names == {"libclash.so.1"}
    for name, target, value in (("one", "/one/", 1), ("two", "/two/", 2), ("three", "/clash.php", 3)):
        for _ in range(4):
            pid, *found = json.loads(server.get(target).body)
            assert found == [value, value, name]
            assert pid in server.pids("worker", name)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        held = pool.submit(server.get, "/clash.php?hold=1")
        (three,) = server.pids("worker", "three")
        try:
            wait_until(lambda: mapped(three), "PHP has not opened its library")
            # All of them now.
            for name, target in (("one", "/one/"), ("two", "/two/")):
                assert mapped(json.loads(server.get(target).body)[0]) == {str(paths[name])}
            assert mapped(three) == {str(paths["three"])}
        finally:
            seen.touch()
        assert json.loads(held.result().body) == [three, 3, 3, "three"]
    for pid in [*server.pids("front end"), *server.pids("supervisor"), *server.pids("logger")]:
        assert not mapped(pid)


def mapped(pid: int) -> set[str]:
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {line.split()[5] for line in maps.splitlines() if "libclash" in line}
