"""A site with one ASGI application."""

from __future__ import annotations

from serving import TREE, Server

CONFIG = """
[groups]
[[app]]
language = python
interface = asgi
application = work/app.py
processes = {processes}
threads = {threads}
{more}
[sites]
[[all]]
hosts = *
root = public
max_body = unlimited
[[[routes]]]
/ = group:app
/mount/point = group:app
"""
DATA = bytes(range(256)) * 4000


def prepare(server: Server, processes: int = 1, threads: int = 16, more: str = "") -> Server:
    server.write(CONFIG.format(processes=processes, threads=threads, more=more), server="spool_limit = 4m")
    server.file("work/app.py", (TREE / "tests/asgi_application.py").read_text())
    server.file("work/data", DATA)
    server.start()
    return server
