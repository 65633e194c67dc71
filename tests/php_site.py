"""A site of PHP scripts, each its own test."""

from __future__ import annotations

from serving import Server

CONFIG = """
[groups]
  [[blog]]
  language = php
  processes = 2
    [[[environment]]]
    COLOUR = green
    [[[ini]]]
    memory_limit = 77M
    upload_max_filesize = 3M
    session.save_path = {directory}/sessions
[sites]
  [[blog]]
  hosts = *
  root = public
  index = index.php, index.html
    [[[routes]]]
    / = files, /index.php
    .php = group:blog
"""


def prepare(server: Server) -> Server:
    (server.directory / "sessions").mkdir(mode=0o777)
    (server.directory / "sessions").chmod(0o777)
    server.write(CONFIG.format(directory=server.directory))
    server.file("public/index.php", "<?php echo 'front:', $_SERVER['REQUEST_URI'];")
    return server


def script(server: Server, name: str, code: str) -> None:
    server.file(f"public/{name}", "<?php " + code)
