"""A published WSGI application, unchanged from its Debian package: bepasty, a store for texts and files (Flask).

Log-in, form, upload in one piece and in parts, list, download, change and removal, in a group of two processes with two
threads each, with the application preloaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator

import pytest
from browser import Browser
from serving import Server, directory, wait_until

SECRET = "correct-horse"
SETTINGS = """
SITENAME = "bepasty.example.org"
SECRET_KEY = "not a secret"
STORAGE_FILESYSTEM_DIRECTORY = {storage!r}
SESSION_COOKIE_SECURE = False
PERMISSIONS = {{{secret!r}: "admin,list,create,modify,read,delete"}}
DEFAULT_PERMISSIONS = "read"
"""

CONFIG = """
[groups]
[[bepasty]]
language = python
application = bepasty.wsgi:application
preload = bepasty.wsgi:application
processes = 2
threads = 2
[[[environment]]]
BEPASTY_CONFIG = {settings}
[sites]
[[all]]
hosts = *
max_body = 2m
[[[routes]]]
/ = group:bepasty
"""


@pytest.fixture(scope="module")
def bepasty() -> Iterator[Server]:
    with directory() as path:
        one = Server(path)
        (path / "storage").mkdir()
        (path / "storage").chmod(0o777)
        settings = one.file("bepasty.conf", SETTINGS.format(storage=str(path / "storage"), secret=SECRET))
        one.write(CONFIG.format(settings=settings))
        try:
            one.start()
            yield one
        finally:
            one.stop()


def logged_in(server: Server) -> Browser:
    person = Browser(server)
    assert 'action="/+login"' in person.get("/").text
    page = person.post("/+login", {"token": SECRET}).text
    assert 'action="/+logout"' in page
    return person


def test_log_in(bepasty: Server) -> None:
    assert 'action="/+logout"' not in Browser(bepasty).post("/+login", {"token": "wrong"}).text
    logged_in(bepasty)


def test_a_text_by_its_form(bepasty: Server) -> None:
    person, stranger = logged_in(bepasty), Browser(bepasty)
    values = {"text": "first line\nsecond <line>\n", "contenttype": "text/plain", "filename": "note.txt"}
    assert stranger.post("/+upload", values).status == 403
    page = person.post("/+upload", values)
    assert page.status == 200
    assert "second &lt;line&gt;" in page.text
    name = person.at.strip("/").partition("#")[0]
    raw = stranger.get(f"/{name}/+inline")
    assert (raw.status, raw.text) == (200, values["text"])
    assert name in person.get("/+list").text


def test_a_file_up_and_down(bepasty: Server) -> None:
    person, stranger = logged_in(bepasty), Browser(bepasty)
    content = os.urandom(1_500_000)
    page = person.upload("/+upload", {}, {"file": ("picture.bin", content)})
    assert page.status == 200
    name = person.at.strip("/").partition("#")[0]
    answer = stranger.get(f"/{name}/+download")
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(content).digest()
    assert answer.field("Content-Length") == str(len(content))
    assert "picture.bin" in (answer.field("Content-Disposition") or "")
    # Not more than the site allows.
    assert person.upload("/+upload", {}, {"file": ("large.bin", b"x" * (2 << 20))}).status == 413
    assert person.post(f"/{name}/+delete", {}).status == 200
    assert stranger.get(f"/{name}/+download").status == 404


def test_a_file_in_parts(bepasty: Server) -> None:
    """As the page's own script sends it: each part with its Content-Range, one after another, to whichever worker."""
    person = logged_in(bepasty)
    content = os.urandom(700_000)
    about = json.dumps({"filename": "parts.bin", "size": len(content), "type": "application/x-parts"}).encode()
    begun = person.send("POST", "/+upload/new", about, {"Content-Type": "application/json"})
    place = json.loads(begun.body)
    size = 300_000
    for at in range(0, len(content), size):
        part = content[at : at + size]
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="parts.bin"\r\n\r\n'
        fields = {
            "Content-Type": "multipart/form-data; boundary=b",
            "Content-Range": f"bytes {at}-{at + len(part) - 1}/{len(content)}",
        }
        answer = person.send("POST", place["url"], head + part + b"\r\n--b--\r\n", fields)
        assert answer.status == 200, answer
    assert json.loads(answer.body)["files"][0]["size"] == len(content)
    assert person.get(f"/{place['name']}/+download").body == content
    # A process of its own adds up the file afterwards.
    wait_until(lambda: re.search(r"[0-9a-f]{64}", person.get(f"/{place['name']}").text), "no checksum on the page")


def test_nothing_was_left_by_loading_it(bepasty: Server) -> None:
    assert "preloading left" not in bepasty.log()
    (manager,) = bepasty.pids("manager", "bepasty")
    assert len(bepasty.pids("worker", "bepasty")) == 2
    assert manager
