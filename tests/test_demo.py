"""The demonstration as a visitor uses it: Django's admin and MediaWiki, logged in, written to, uploaded to."""

from __future__ import annotations

import contextlib
import http.cookiejar
import os
import re
import select
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import TREE, alive, descendants, free_port, wait_until


class Visitor:
    """A browser's cookies, redirects and forms."""

    def __init__(self, base: str) -> None:
        self.base = base
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(jar)

    def open(self, path: str, data: bytes | None = None, kind: str = "application/x-www-form-urlencoded") -> str:
        request = urllib.request.Request(urllib.parse.urljoin(self.base, path), data)
        if data is not None:
            request.add_header("Content-Type", kind)
            request.add_header("Referer", self.base)
        with self.opener.open(request, timeout=60) as answer:
            assert answer.status == 200
            return str(answer.read().decode())

    def post(self, path: str, **values: str) -> str:
        return self.open(path, urllib.parse.urlencode(values).encode())


def hidden(page: str, name: str) -> str:
    """The value of a form's hidden field."""
    for tag in re.findall(r"<input[^>]*>", page):
        if re.search(rf'name=["\']?{re.escape(name)}["\' >]', tag):
            value = re.search(r'value=["\']([^"\']*)["\']', tag)
            return value.group(1).replace("&#43;", "+") if value else ""
    raise AssertionError(f"there is no field {name} in this page:\n{page[:2000]}")


@pytest.fixture(scope="module")
def demonstration() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    process = subprocess.Popen(
        [TREE / "tools/demo", "--port", str(port)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd="/"
    )
    assert process.stderr is not None
    seen = b""
    deadline = time.monotonic() + 180
    while b"ready\n" not in seen:
        ready, _, _ = select.select([process.stderr], [], [], max(0, deadline - time.monotonic()))
        data = os.read(process.stderr.fileno(), 65536) if ready else b""
        if not data:
            process.kill()
            raise AssertionError(f"the demonstration did not start:\n{seen.decode(errors='replace')}")
        seen += data
    yield f"http://127.0.0.1:{port}/", process
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    process.stderr.close()
    process.wait(60)


@pytest.mark.parametrize("path", ["", "static/", "python/", "php/", "status"])
def test_every_part_answers(demonstration: tuple[str, subprocess.Popen[bytes]], path: str) -> None:
    assert Visitor(demonstration[0]).open(path)


def test_django_admin(demonstration: tuple[str, subprocess.Popen[bytes]]) -> None:
    visitor = Visitor(demonstration[0])
    page = visitor.open("python/admin/login/?next=/python/admin/")
    page = visitor.post(
        "python/admin/login/?next=/python/admin/",
        csrfmiddlewaretoken=hidden(page, "csrfmiddlewaretoken"),
        username="admin",
        password="demonstration",
        next="/python/admin/",
    )
    assert "Site administration" in page
    title = f"Note of {time.time_ns()}"
    page = visitor.open("python/admin/notes/note/add/")
    token = hidden(page, "csrfmiddlewaretoken")
    page = visitor.post("python/admin/notes/note/add/", csrfmiddlewaretoken=token, title=title, text="Seen.")
    assert "was added successfully" in page
    assert title in visitor.open("python/")
    style = re.search(r'href="(/static/admin/css/base[^"]*)"', page)
    assert style
    assert "body" in visitor.open(style.group(1))


def picture(seed: int) -> bytes:
    """A PNG of one pixel whose colour is the seed's."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = (1).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    pixel = zlib.compress(b"\0" + (seed % (1 << 24)).to_bytes(3, "big"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def test_mediawiki(demonstration: tuple[str, subprocess.Popen[bytes]]) -> None:
    visitor = Visitor(demonstration[0])
    page = visitor.open("php/index.php?title=Special:UserLogin")
    visitor.post(
        "php/index.php?title=Special:UserLogin&returnto=Main+Page",
        wpName="Admin",
        wpPassword="demonstration",
        wploginattempt="Log in",
        wpLoginToken=hidden(page, "wpLoginToken"),
        authAction="login",
        wpEditToken=hidden(page, "wpEditToken"),
        title="Special:UserLogin",
    )
    words = f"Written at {time.time_ns()}."
    page = visitor.open("php/index.php?title=Main_Page&action=edit")
    names = (
        "wpStarttime",
        "wpEdittime",
        "editRevId",
        "wpEditToken",
        "model",
        "format",
        "wpUltimateParam",
        "wpSection",
        "wpUnicodeCheck",
        "oldid",
        "parentRevId",
    )
    values = {name: hidden(page, name) for name in names if f'name="{name}"' in page}
    page = visitor.post("php/index.php?title=Main_Page&action=submit", wpTextbox1=words, wpSave="Save", **values)
    assert words in visitor.open("php/index.php?title=Main_Page")
    page = visitor.open("php/index.php?title=Special:Upload")
    content = picture(time.time_ns())
    boundary = "----frontier"
    fields = {
        "wpEditToken": hidden(page, "wpEditToken"),
        "title": "Special:Upload",
        "wpDestFile": f"Pixel{time.time_ns()}.png",
        "wpUploadDescription": "one pixel",
        "wpUpload": "Upload file",
        "wpIgnoreWarning": "1",
        "wpSourceType": "file",
    }
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    )
    body += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="wpUploadFile"; filename="pixel.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    body += content + f"\r\n--{boundary}--\r\n".encode()
    page = visitor.open("php/index.php?title=Special:Upload", body, f"multipart/form-data; boundary={boundary}")
    source = re.search(rf'"(/wiki-uploads/[^"]*{fields["wpDestFile"]})"', page)
    assert source, page[:3000]
    with urllib.request.urlopen(urllib.parse.urljoin(demonstration[0], source.group(1))) as answer:
        assert answer.read() == content


def test_source_of_scripts_is_never_served(demonstration: tuple[str, subprocess.Popen[bytes]]) -> None:
    visitor = Visitor(demonstration[0])
    for path in ("php/LocalSettings.php", "php/includes/Defines.php", "php/index.php/", "php/index.php%00.txt"):
        try:
            assert "<?php" not in visitor.open(path)
        except urllib.error.HTTPError as error:
            with error:
                assert "<?php" not in error.read().decode()


def test_interrupt_ends_it_within_a_second(demonstration: tuple[str, subprocess.Popen[bytes]]) -> None:
    """Last in this file: Ctrl-C leaves no process and no socket."""
    _, process = demonstration
    mine = descendants(process.pid) | {process.pid}
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(20)
    wait_until(lambda: not [pid for pid in mine if alive(pid)], "processes are left")
    assert time.monotonic() - started < 1.5
    assert not [path for path in Path(TREE / "build/demo/run").rglob("*") if path.is_socket()]
