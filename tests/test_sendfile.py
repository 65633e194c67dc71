"""X-Sendfile and X-Accel-Redirect: a group names a file, the front end sends it (D63)."""

from __future__ import annotations

import contextlib
import os
import pwd
import threading
from pathlib import Path

import pytest
from serving import GROUP_USER, ROOT, Answer, Server, wait_until

CONFIG = """
[groups]
  [[app]]
  language = python
  application = app.wsgi
  processes = 1
[sites]
  [[site]]
  hosts = *
  sendfile = private, more
    [[[routes]]]
    / = group:app
  [[none]]
  hosts = none.example
    [[[routes]]]
    / = group:app
"""
# The query: fields of the answer, one to a line, percent-encoded; "status" and "body" are not fields.
APPLICATION = r"""
import time
from urllib.parse import unquote_to_bytes

def application(environ, start_response):
    fields, status, body = [], "200 OK", b""
    for line in environ["QUERY_STRING"].split("&"):
        name, _, value = line.partition("=")
        value = unquote_to_bytes(value).decode("latin-1")
        if name == "status":
            status = value
        elif name == "body":
            body = value.encode("latin-1")
        elif name == "stream":
            start_response(status, fields)
            return stream(environ)
        else:
            fields.append((name, value))
    start_response(status, fields)
    return [body]

def stream(environ):
    for _ in range(200):
        yield b"of the application" * 100
"""
CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def site(server: Server) -> Server:
    server.file("app.wsgi", APPLICATION)
    server.file("private/data.bin", CONTENT)
    server.file("private/small.txt", "small")
    server.file("private/100% sure/a b.txt", "odd")
    server.file("private/percent%41.txt", "literal")
    server.file("private/script.php", "<?php data here")
    server.file("more/deep/other.html", "other")
    server.file("outside.txt", "secret")
    server.file("private-not/x.txt", "secret")
    server.write(CONFIG)
    return server.start()


def quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def ask(
    server: Server, path: str, field: str = "X-Sendfile", more: str = "", method: str = "GET", **fields: str
) -> Answer:
    target = f"/download?{field}={quoted(path)}{more}"
    return server.request(method, target, fields={name.replace("_", "-"): value for name, value in fields.items()})


def place(server: Server, name: str) -> str:
    return f"{server.directory}/{name}"


def without_path(answer: Answer) -> bool:
    names = {name.lower() for name, _ in answer.fields}
    return not names & {"x-sendfile", "x-accel-redirect"} and b"private" not in answer.body


def test_the_file_is_the_answer(site: Server) -> None:
    answer = ask(site, place(site, "private/data.bin"))
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.field("Content-Length") == str(len(CONTENT))
    assert answer.field("Content-Type") == "application/octet-stream"
    assert answer.field("Accept-Ranges") == "bytes"
    assert answer.field("ETag")
    assert answer.field("Last-Modified")
    assert without_path(answer)
    answer = ask(site, place(site, "private/small.txt"), method="HEAD")
    assert (answer.status, answer.field("Content-Length"), answer.body) == (200, "5", b"")
    assert ask(site, place(site, "private/small.txt"), method="POST").text == "small"


def test_by_a_path_of_the_site(site: Server) -> None:
    for path in ("/data.bin", "/data.bin?token=x", "/%64ata.bin", "//data.bin"):
        assert ask(site, path, "X-Accel-Redirect").body == CONTENT
    assert ask(site, "/deep/other.html", "x-accel-redirect").field("Content-Type") == "text/html"
    for path in ("/none", "/deep/", "/", "data.bin", "", "?x"):
        answer = ask(site, path, "X-Accel-Redirect")
        assert answer.status in (403, 404)
        assert without_path(answer)


def test_names_as_they_are_and_encoded(site: Server) -> None:
    assert ask(site, place(site, "private/100% sure/a b.txt")).text == "odd"
    assert ask(site, place(site, "private/100%25%20sure/a%20b.txt")).text == "odd"
    assert ask(site, "/100%25%20sure/a%20b.txt", "X-Accel-Redirect").text == "odd"
    assert ask(site, place(site, "private/percent%41.txt")).text == "literal"
    # Outside of the site's root a name is a name.
    assert ask(site, place(site, "private/script.php")).text == "<?php data here"


def test_whose_fields_count(site: Server) -> None:
    more = "&Content-Type=text/x&ETag=%22own%22&Last-Modified=Mon, 02 Jan 2006 15:04:05 GMT&Set-Cookie=a%3Db"
    more = more.replace(" ", "%20")
    more += "&Content-Disposition=attachment&Content-Length=3&Accept-Ranges=none&Content-Range=bytes%200-1/2&body=abc"
    answer = ask(site, place(site, "private/small.txt"), more=more)
    assert answer.text == "small"
    expected = {"Content-Type": "text/x", "ETag": '"own"', "Set-Cookie": "a=b", "Content-Disposition": "attachment",
                "Content-Length": "5", "Accept-Ranges": "bytes", "Content-Range": None,
                "Last-Modified": "Mon, 02 Jan 2006 15:04:05 GMT"}  # fmt: skip
    assert {name: answer.field(name) for name in expected} == expected
    assert len(answer.fields) == len({name.lower() for name, _ in answer.fields})
    path = place(site, "private/small.txt")
    unchanged = ask(site, path, more=more, If_None_Match='"own"')
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert unchanged.field("ETag") == '"own"'
    assert unchanged.field("Set-Cookie") == "a=b"
    assert unchanged.field("Content-Disposition") is None
    assert ask(site, path, more=more, If_None_Match='"other"').status == 200
    assert ask(site, path, more=more, If_Modified_Since="Mon, 02 Jan 2006 15:04:05 GMT").status == 304
    assert ask(site, path, more=more, If_Match='"other"').status == 412
    weak = "&ETag=W/%22own%22"
    assert ask(site, path, more=weak, If_None_Match='"own"').status == 304
    assert ask(site, path, more=weak, If_Match='W/"own"').status == 412
    assert ask(site, path, more=weak, Range="bytes=0-1", If_Range='W/"own"').status == 200
    other = ask(site, path, more="&status=404%20Gone%20fishing", Range="bytes=0-1")
    assert (other.status, other.text, other.field("Accept-Ranges")) == (404, "small", None)


def test_ranges(site: Server) -> None:
    path = place(site, "private/data.bin")
    answer = ask(site, path, Range="bytes=1000-1999")
    assert (answer.status, answer.body) == (206, CONTENT[1000:2000])
    assert answer.field("Content-Range") == f"bytes 1000-1999/{len(CONTENT)}"
    several = ask(site, path, more="&Content-Type=text/own", Range="bytes=0-9,-10")
    assert several.status == 206
    assert (several.field("Content-Type") or "").startswith("multipart/byteranges")
    assert several.body.count(b"Content-Type: text/own") == 2
    assert CONTENT[-10:] in several.body
    assert ask(site, path, Range=f"bytes={len(CONTENT)}-").status == 416
    etag = answer.field("ETag") or ""
    assert ask(site, path, Range="bytes=0-1", If_Range=etag).status == 206
    assert ask(site, path, Range="bytes=0-1", method="POST").status == 200


def test_the_application_s_body_is_not_sent_and_its_slot_is_free(site: Server) -> None:
    """One worker, one thread: if the client's slowness held it, nobody else would be answered."""
    with site.connect() as slow:
        for more in ("&body=of%20the%20application", "&stream=1"):
            answer = ask(site, place(site, "private/small.txt"), more=more)
            assert answer.text == "small"
        target = f"/x?X-Sendfile={quoted(place(site, 'private/data.bin'))}"
        slow.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert ask(site, place(site, "private/small.txt")).text == "small"
        data = b""
        while piece := slow.recv(65536):
            data += piece
    assert data.endswith(CONTENT)
    assert ask(site, "/none", more="&status=304%20Not%20Modified").status == 304


def test_what_is_not_allowed(site: Server) -> None:
    site.allow("500: ")
    wanted = {
        "outside.txt": 403,
        "private-not/x.txt": 403,
        "private/../outside.txt": 404,
        "private/%2e%2e/outside.txt": 404,
        "private/..%2foutside.txt": 404,
        "private/%00": 404,
        "private/none": 404,
        "private/": 404,
        "private": 403,
        "private/100% sure": 404,
        "private/.hidden": 404,
    }
    site.file("private/.hidden", "secret")
    for name, status in wanted.items():
        answer = ask(site, place(site, name))
        assert (answer.status, b"secret" in answer.body) == (status, False), name
        assert without_path(answer)
    for path in ("/etc/passwd", "/proc/self/environ", "relative", "", "/../../etc/passwd", "%2fetc%2fpasswd"):
        assert ask(site, path).status == 403, path
        assert ask(site, path, "X-Accel-Redirect").status in (403, 404), path
    target = f"/?X-Sendfile={quoted(place(site, 'private/small.txt'))}"
    answer = site.request("GET", target, fields={"Host": "none.example"})
    assert answer.status == 500
    assert without_path(answer)
    for words in ("below none of the site's sendfile directories", "no such file", "has no sendfile", "a directory"):
        wait_until(lambda words=words: words in site.log(), f"{words!r} is not in the log")


def test_planted_links_pipes_and_races(site: Server) -> None:
    """The group's user can write there: nothing it makes leads out of it."""
    site.allow("503")
    folder = Path(place(site, "private"))
    (folder / "shadow").symlink_to("/etc/passwd")
    (folder / "log").symlink_to(site.error_log)
    (folder / "up").symlink_to(site.directory)
    (folder / "self").symlink_to("/proc/self/environ")
    (folder / "fd").symlink_to("/proc/self/fd/0")
    (folder / "loop").symlink_to("loop")
    (folder / "fine").symlink_to("small.txt")
    os.mkfifo(folder / "pipe")
    os.chmod(folder / "pipe", 0o666)
    user = pwd.getpwnam(GROUP_USER if ROOT else pwd.getpwuid(os.getuid()).pw_name)
    for name in ("shadow", "log", "up", "self", "fd", "loop"):
        if ROOT:
            os.lchown(folder / name, user.pw_uid, user.pw_gid)
            assert ask(site, str(folder / name)).status == 403, name
    if ROOT:
        assert ask(site, str(folder / "up/outside.txt")).status == 403
    assert ask(site, str(folder / "pipe")).status == 404
    assert ask(site, str(folder / "fine")).text == "small"
    done = threading.Event()

    def exchange() -> None:
        """A link and a file change places all the time."""
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                (folder / "beside").symlink_to("/etc/passwd")
                if ROOT:
                    os.lchown(folder / "beside", user.pw_uid, user.pw_gid)
                (folder / "beside").rename(folder / "swap")
                (folder / "beside").write_text("fine")
                (folder / "beside").rename(folder / "swap")

    thread = threading.Thread(target=exchange)
    thread.start()
    seen = {ask(site, str(folder / "swap")).body for _ in range(200)}
    done.set()
    thread.join()
    if ROOT:
        assert not any(b"root:" in body for body in seen)


def test_a_change_is_seen_and_a_reload_counts(site: Server) -> None:
    path = place(site, "private/small.txt")
    assert ask(site, path).text == "small"
    site.file("private/small.txt", "changed")
    wait_until(lambda: ask(site, path).text == "changed", "the file's old content is sent")
    site.configure(site.config_file.read_text().replace("sendfile = private, more", "sendfile = more,"))
    site.ctl("reload")
    assert ask(site, path).status == 403
    assert ask(site, place(site, "more/deep/other.html")).text == "other"
