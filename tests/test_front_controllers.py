"""How frameworks are laid out, as webserver-sites(5) shows them: what is a file, and what its application is told of the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from serving import Server

CONFIG = """
[groups]
  [[app]]
  language = python
  application = app.wsgi
  processes = 1
  [[blog]]
  language = php
  processes = 1
[sites]
  [[wordpress]]
  hosts = wordpress.example
  root = wordpress
  index = index.php,
    [[[routes]]]
    / = files, /index.php
    .php = group:blog
    /wp-content/uploads = data
    /wp-content/debug.log = =404
  [[laravel]]
  hosts = laravel.example
  root = laravel/public
  index = index.php,
    [[[routes]]]
    / = files, /index.php
    .php = group:blog
  [[django]]
  hosts = django.example
  root = django/public
    [[[routes]]]
    / = group:app
    /static = files
    /favicon.ico = files
  [[rails]]
  hosts = rails.example
  root = rails/public
    [[[routes]]]
    / = files, group:app
    /assets = files
  [[mounts]]
  hosts = mounts.example
  root = wordpress
    [[[routes]]]
    / = files, =404
    /shop = group:app
    /shop/deeper = group:app
    /blog = files, /blog/index.php
    .php = group:blog
"""
NAMES = ("SCRIPT_NAME", "PATH_INFO", "REQUEST_URI", "SCRIPT_FILENAME", "QUERY_STRING", "PHP_SELF")
WSGI = f"""
import json

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({{name: environ.get(name) for name in {NAMES!r}}}).encode()]
"""
PHP = f"""<?php
$seen = [];
foreach ({json.dumps(NAMES)} as $name) $seen[$name] = $_SERVER[$name] ?? null;
echo json_encode($seen);
"""
FILES = {
    "wordpress/index.php": PHP,
    "wordpress/wp-login.php": PHP,
    "wordpress/wp-admin/index.php": PHP,
    "wordpress/wp-content/style.css": "css",
    "wordpress/wp-content/debug.log": "secret",
    "wordpress/wp-content/uploads/evil.php": PHP,
    "wordpress/wp-content/uploads/index.php": PHP,
    "wordpress/wp-content/uploads/a.png": "png",
    "wordpress/blog/index.php": PHP,
    "laravel/.env": "secret",
    "laravel/public/index.php": PHP,
    "laravel/public/robots.txt": "robots",
    "django/settings.py": "secret",
    "django/public/static/app.js": "js",
    "django/public/favicon.ico": "icon",
    "rails/public/assets/app.css": "css",
    "rails/public/404.html": "not found",
}
# Host, target; then the file's content, a status, or SCRIPT_NAME and PATH_INFO.
CASES: tuple[tuple[str, str, str | int | tuple[str, str]], ...] = (
    ("wordpress", "/", ("/index.php", "")),
    ("wordpress", "/2026/11/a-post/?page=2", ("/index.php", "")),
    ("wordpress", "/index.php/2026/a-post", ("/index.php", "/2026/a-post")),
    ("wordpress", "/wp-login.php?action=x", ("/wp-login.php", "")),
    ("wordpress", "/wp-admin/", ("/wp-admin/index.php", "")),
    ("wordpress", "/wp-admin", 301),
    ("wordpress", "/wp-content/style.css", "css"),
    ("wordpress", "/wp-content/style.css?ver=1", "css"),
    ("wordpress", "/wp-content/none.css", ("/index.php", "")),
    ("wordpress", "/wp-content/debug.log", 404),
    ("wordpress", "//wp-content//debug.log", 404),
    ("wordpress", "/wp-content/x/../debug.log", 404),
    ("wordpress", "/wp-content/uploads/a.png", "png"),
    ("wordpress", "/wp-content/uploads/none.png", 404),
    ("wordpress", "/wp-content/uploads/evil.php", 404),
    ("wordpress", "/wp-content/uploads/evil.php/x.png", 404),
    ("wordpress", "/wp-content//uploads/evil.php", 404),
    ("wordpress", "/wp-content/uploads/", 404),
    ("laravel", "/", ("/index.php", "")),
    ("laravel", "/users/7?tab=a%20b", ("/index.php", "")),
    ("laravel", "/users/a%2Fb", ("/index.php", "")),
    ("laravel", "/robots.txt", "robots"),
    ("laravel", "/.env", ("/index.php", "")),
    ("laravel", "/../.env", 400),
    ("laravel", "/%2e%2e/.env", 400),
    ("laravel", "/none.php", 404),
    ("django", "/", ("", "/")),
    ("django", "/admin/login/?next=/admin/", ("", "/admin/login/")),
    ("django", "/caf%C3%A9", ("", "/caf\u00c3\u00a9")),
    ("django", "/static/app.js", "js"),
    ("django", "/static/none.js", 404),
    ("django", "/static/../settings.py", ("", "/settings.py")),
    ("django", "/favicon.ico", "icon"),
    ("rails", "/", ("", "/")),
    ("rails", "/posts/1.json", ("", "/posts/1.json")),
    ("rails", "/assets/app.css", "css"),
    ("rails", "/assets/none.css", 404),
    ("rails", "/404.html", "not found"),
    ("mounts", "/shop", ("/shop", "")),
    ("mounts", "/shop/", ("/shop", "/")),
    ("mounts", "/shop/hats/7", ("/shop", "/hats/7")),
    ("mounts", "/shop/x.php", ("/shop", "/x.php")),
    ("mounts", "/shop/deeper/x", ("/shop/deeper", "/x")),
    ("mounts", "/shop//deeper/x", ("/shop/deeper", "/x")),
    ("mounts", "/shopping", 404),
    ("mounts", "/blog/2026/post", ("/blog/index.php", "")),
    ("mounts", "/blog/index.php/x", ("/blog/index.php", "/x")),
)


@pytest.fixture
def sites(server: Server) -> Server:
    server.file("app.wsgi", WSGI)
    for name, text in FILES.items():
        server.file(name, text)
    server.write(CONFIG)
    return server.start()


def test_what_each_layout_answers(sites: Server) -> None:
    for host, target, expected in CASES:
        answer = sites.get(target, Host=f"{host}.example")
        where = f"{host} {target}"
        assert b"secret" not in answer.body, where
        if isinstance(expected, int):
            assert answer.status == expected, where
        elif isinstance(expected, str):
            assert (answer.status, answer.text) == (200, expected), where
        else:
            assert answer.status == 200, where
            told: dict[str, Any] = json.loads(answer.body)
            assert (told["SCRIPT_NAME"], told["PATH_INFO"] or "") == expected, where
            assert told["REQUEST_URI"] == target, where
            assert told["QUERY_STRING"] == target.partition("?")[2], where
            if told["PHP_SELF"] is not None:
                assert told["PHP_SELF"] == "".join(expected), where
                assert told["SCRIPT_FILENAME"].endswith(expected[0]), where
