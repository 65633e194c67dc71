"""The demonstration as a visitor uses it, started by make run: Django's admin and MediaWiki, logged in, written to,
uploaded to; what its page says one may try; its end, and what it refuses."""

from __future__ import annotations

import contextlib
import html
import http.client
import http.cookiejar
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from serving import ROOT, TREE, alive, descendants, directory, free_port, interpreter, wait_until

START_SECONDS = 180


class Visitor:
    """A browser's cookies, redirects and forms."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def fetch(
        self, path: str, data: bytes | None = None, kind: str = "application/x-www-form-urlencoded"
    ) -> tuple[http.client.HTTPMessage, bytes]:
        request = urllib.request.Request(urllib.parse.urljoin(self.base, path), data)
        if data is not None:
            request.add_header("Content-Type", kind)
            request.add_header("Referer", self.base)
        with self.opener.open(request, timeout=60) as answer:
            assert answer.status == 200
            return answer.headers, answer.read()

    def open(self, path: str) -> str:
        return self.fetch(path)[1].decode()

    def post(self, path: str, **values: str) -> str:
        return self.fetch(path, urllib.parse.urlencode(values).encode())[1].decode()

    def upload(self, path: str, field: str, name: str, content: bytes, **values: str) -> str:
        frontier = "----frontier"
        parts = [
            f'--{frontier}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in values.items()
        ]
        head = (
            f'--{frontier}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
            "Content-Type: image/png\r\n\r\n"
        )
        body = b"".join(parts) + head.encode() + content + f"\r\n--{frontier}--\r\n".encode()
        return self.fetch(path, body, f"multipart/form-data; boundary={frontier}")[1].decode()

    def refused(self, path: str) -> tuple[int, str]:
        """Status and body of an answer that is an error."""
        try:
            return 200, self.open(path)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


def hidden(page: str, *names: str) -> dict[str, str]:
    """Values of a form's hidden fields."""
    found = {}
    for tag in re.findall(r"<input[^>]*>", page):
        name = re.search(r'\bname=["\']?([^"\' >]+)', tag)
        value = re.search(r'\bvalue=["\']([^"\']*)["\']', tag)
        if name and name.group(1) in names:
            found[name.group(1)] = html.unescape(value.group(1)) if value else ""
    assert found.keys() == set(names), f"there are no fields {set(names) - found.keys()} in this page:\n{page[:2000]}"
    return found


@dataclass
class Demonstration:
    """One that is served. It has a process group of its own, which Ctrl-C reaches as a whole, as from a terminal."""

    port: int
    state: Path
    output_file: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, top: Path, state: Path, port: int, *words: str) -> Demonstration:
        """By this command. Its output goes to a file below `top`."""
        output = top / "output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                words, env=plain_environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        one = cls(port, state, output, process)
        try:
            wait_until(lambda: re.search(r"^ready$", one.output, re.M) or process.poll() is not None, "", START_SECONDS)
            assert process.poll() is None, f"the demonstration did not start:\n{one.output}"
        except BaseException:
            one.end()
            raise
        return one

    @property
    def output(self) -> str:
        return self.output_file.read_text(errors="replace")

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def pids(self) -> set[int]:
        return descendants(self.process.pid) | {self.process.pid}

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command that the page shows."""
        page = html.unescape(Visitor(self.base).open("/"))
        alias = re.search(r"^alias ctl='(.*)'$", page, re.M)
        assert alias
        return subprocess.run([*alias.group(1).split(), *words], capture_output=True, text=True, timeout=60)

    def end(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(60)


def plain_environment() -> dict[str, str]:
    """Without what make test's make says to its children."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PORT"))}


@pytest.fixture(scope="module")
def demonstration() -> Iterator[Demonstration]:
    with directory() as top:
        port = free_port()
        state = top / "state"
        make = ("make", "--no-print-directory", "-C", str(TREE), "run", f"PORT={port}", f"STATE={state}")
        one = Demonstration.start(top, state, port, *make)
        yield one
        one.end()


@pytest.fixture
def visitor(demonstration: Demonstration) -> Visitor:
    return Visitor(demonstration.base)


@pytest.mark.parametrize("path", ["", "static/", "python/", "php/", "perl/", "ruby/", "lua/", "status", "favicon.ico"])
def test_every_part_answers(visitor: Visitor, path: str) -> None:
    assert visitor.open(path)


@pytest.mark.parametrize("path", ["/", "/static/", "/python/"])
def test_links_lead_somewhere(visitor: Visitor, path: str) -> None:
    """But the two which the pages say are not there."""
    page = visitor.open(path)
    assert not re.findall(r"@[A-Z]+@", page)
    links = {html.unescape(link) for link in re.findall(r'href="([^"]*)"', page)}
    assert len(links) > 3
    for link in links - {"/hello.php", "missing.txt", "/python/count/"}:
        status, _ = visitor.refused(urllib.parse.urljoin(path, link))
        assert status == 200, link


@pytest.mark.parametrize(
    ("path", "token", "item"),
    [("perl/", "csrf_token", "/perl/book/"), ("ruby/", "token", "/photograph/"), ("lua/", "token", "recipe/")],
)
def test_session_upload_and_download(visitor: Visitor, path: str, token: str, item: str) -> None:
    """In Mojolicious, in Sinatra, and in Lua without a framework: each keeps what it is given in SQLite."""
    page = visitor.post(f"{path}login", password="wrong", **hidden(visitor.open(path), token))
    assert "That is not the password." in page
    page = visitor.post(f"{path}login", password="demonstration", **hidden(page, token))
    assert "Welcome." in page
    page = visitor.open(path)
    assert "Log out" in page
    title = f"Grüße & <{time.time_ns()}>"
    content = bytes(range(256)) * 1000
    page = visitor.upload(f"{path}add", "file", "picture.png", content, title=title, **hidden(page, token))
    link = re.findall(rf'href="([^"]*{re.escape(item)}\d+)">{re.escape(html.escape(title))}<', page)
    assert link, page
    _, body = visitor.fetch(urllib.parse.urljoin(visitor.base + path, link[-1]))
    assert body == content
    assert html.escape(title) in Visitor(visitor.base).open(path), "one who is not logged in sees it too"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        Visitor(visitor.base).upload(f"{path}add", "file", "picture.png", content, title=title)
    visitor.post(f"{path}logout", **(hidden(visitor.open(path), token) if path == "lua/" else {}))
    assert "Log out" not in visitor.open(path)


@pytest.mark.parametrize("path", ["perl/count", "ruby/count", "lua/count"])
def test_a_stream_comes_as_it_is_made(visitor: Visitor, path: str) -> None:
    with visitor.opener.open(visitor.base + path, timeout=30) as answer:
        begun = time.monotonic()
        assert b"counts to 10" in answer.readline()
        assert answer.readline() == b"1\n"
        early = time.monotonic() - begun
        assert answer.read().split() == [str(number).encode() for number in range(2, 11)]
        assert time.monotonic() - begun > early + 5, "it did not wait for the rest"


def test_the_page_says_how_to_log_in(visitor: Visitor) -> None:
    page = visitor.open("")
    assert "user <b>admin</b>, password <b>demonstration</b>" in page
    assert "user <b>Admin</b>, password <b>demonstration</b>" in page
    outside = [link for link in re.findall(r'(?:src|href)="([^"]*)"', page) if re.match("[a-z]+:|//", link)]
    assert not outside, "the page needs nothing from elsewhere"


def test_django_admin(visitor: Visitor) -> None:
    login = "python/admin/login/?next=/python/admin/"
    token = hidden(visitor.open(login), "csrfmiddlewaretoken")
    page = visitor.post(login, username="admin", password="wrong", next="/python/admin/", **token)
    assert "Please enter the correct username and password" in page
    token = hidden(page, "csrfmiddlewaretoken")
    page = visitor.post(login, username="admin", password="demonstration", next="/python/admin/", **token)
    assert "Site administration" in page

    title = f"Grüße & <Notes> of {time.time_ns()}"
    add = "python/admin/notes/note/add/"
    page = visitor.post(add, title=title, text="Seen.", **hidden(visitor.open(add), "csrfmiddlewaretoken"))
    assert "was added successfully" in page
    assert html.escape(title) in visitor.open("python/")

    link = re.search(
        rf'href="([^"]*/change/)">{re.escape(html.escape(title))}<', visitor.open("python/admin/notes/note/")
    )
    assert link
    token = hidden(visitor.open(link.group(1)), "csrfmiddlewaretoken")
    page = visitor.post(link.group(1), title=title, text="Changed, and seen again.", **token)
    assert "was changed successfully" in page
    assert "Changed, and seen again." in visitor.open("python/")

    delete = link.group(1).replace("/change/", "/delete/")
    token = hidden(visitor.open(delete), "csrfmiddlewaretoken")
    assert "was deleted successfully" in visitor.post(delete, post="yes", **token)
    assert html.escape(title) not in visitor.open("python/")


def test_front_end_sends_the_admin_s_files(visitor: Visitor) -> None:
    page = visitor.open("python/admin/login/")
    for link in re.findall(r'(?:href|src)="(/static/admin/[^"]*)"', page):
        fields, body = visitor.fetch(link)
        assert fields["ETag"], "Django sends none"
        assert fields["Content-Type"].startswith("text/css" if link.endswith(".css") else "text/javascript")
        assert body
    assert "/static/admin/css/base.css" in page


def picture(width: int, height: int, seed: int) -> bytes:
    """A PNG of one colour, the seed's."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    row = b"\0" + (seed % (1 << 24)).to_bytes(3, "big") * width
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b"")
    )


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def test_mediawiki(visitor: Visitor) -> None:
    login = "php/index.php?title=Special:UserLogin&returnto=Main+Page"
    values = hidden(visitor.open(login), "wpLoginToken", "wpEditToken")
    page = visitor.post(
        login, wpName="Admin", wpPassword="demonstration", wploginattempt="Log in", authAction="login",
        title="Special:UserLogin", **values,
    )  # fmt: skip
    assert '"wgUserName":"Admin"' in page

    name = f"Picture{time.time_ns()}.png"
    content = picture(640, 480, time.time_ns())
    special = "php/index.php?title=Special:Upload"
    page = visitor.upload(
        special, "wpUploadFile", "picture.png", content, title="Special:Upload", wpDestFile=name, wpUploadDescription="a "
        "picture", wpUpload="Upload file", wpIgnoreWarning="1", wpSourceType="file",
        **hidden(visitor.open(special), "wpEditToken"),
    )  # fmt: skip
    source = re.search(rf'href="(/wiki-uploads/[^"]*{name})"', page)
    assert source, page[:3000]
    fields, body = visitor.fetch(source.group(1))
    assert body == content
    assert fields["Content-Type"] == "image/png"

    edit = "php/index.php?title=Main_Page&action=edit"
    values = hidden(
        visitor.open(edit), "wpStarttime", "wpEdittime", "editRevId", "wpEditToken", "model", "format", "wpUltimateParam",
        "wpSection", "wpUnicodeCheck", "oldid", "parentRevId",
    )  # fmt: skip
    words = f"Written ✓ at {time.time_ns()}, groß."
    text = f"{words}\n\n[[File:{name}|thumb|120px|small]]"
    page = visitor.post("php/index.php?title=Main_Page&action=submit", wpTextbox1=text, wpSave="Save", **values)
    page = visitor.open("php/index.php/Main_Page")
    assert words in page
    thumbnail = re.search(rf'src="(/wiki-uploads/thumb/[^"]*{name})"', page)
    assert thumbnail, page
    assert size_of(visitor.fetch(thumbnail.group(1))[1]) == (120, 90)
    assert words in Visitor(visitor.base).open("php/"), "one who is not logged in sees it too"


def test_mediawiki_s_style_scripts_and_interfaces(visitor: Visitor) -> None:
    page = visitor.open("php/")
    for pattern, kind in (
        (r'<link rel="stylesheet" href="([^"]*load\.php[^"]*)"', "text/css"),
        (r'<script async="" src="([^"]*load\.php[^"]*)"', "text/javascript"),
        (r'<img src="([^"]*)"', "image/png"),
    ):
        links = re.findall(pattern, page)
        assert links, pattern
        for link in links:
            fields, body = visitor.fetch(html.unescape(link))
            assert fields["Content-Type"].startswith(kind), link
            assert len(body) > 100, link
    assert '"title":"Main Page"' in visitor.open("php/rest.php/v1/page/Main_Page")
    assert '"sitename":"Demonstration"' in visitor.open("php/api.php?action=query&meta=siteinfo&format=json")


def test_applications_have_nothing_to_complain_of(demonstration: Demonstration) -> None:
    """After all that was done above: not a line of PHP, Django or anybody since the start."""
    said = demonstration.output.partition("\nready\n")[2]
    assert not said


def test_source_of_scripts_is_never_served(visitor: Visitor) -> None:
    for path in ("php/LocalSettings.php", "php/index.php/", "php/index.php%00.txt", "php/autoload.php"):
        assert "<?php" not in visitor.refused(path)[1]
    for path in ("includes/Defines.php", "maintenance/edit.php", "vendor/autoload.php", "languages/Language.php"):
        assert visitor.refused(f"php/{path}")[0] == 403


def test_broken_code_keeps_the_old_workers(demonstration: Demonstration, visitor: Visitor) -> None:
    """As the page says."""
    views = demonstration.state / "python/notes/views.py"
    right = views.read_text()
    with views.open("a") as file:
        file.write("def broken(\n")
    result = demonstration.ctl("restart", "django")
    assert result.returncode == 1
    assert "SyntaxError" in result.stderr
    assert str(views) in result.stderr
    assert "Notes" in visitor.open("python/")
    views.write_text(right)
    result = demonstration.ctl("restart", "django")
    assert result.returncode == 0, result.stderr


def test_a_worker_is_killed_and_replaced(demonstration: Demonstration, visitor: Visitor) -> None:
    with visitor.opener.open(demonstration.base + "python/count/", timeout=30) as answer:
        first = answer.readline().decode()
        pid = int(first.split()[1])
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(http.client.IncompleteRead):
            answer.read()
    assert "Notes" in visitor.open("python/")
    assert "Main Page" in visitor.open("php/")
    wait_until(lambda: f"(process {pid}): killed by SIGKILL" in demonstration.output, "the log does not say so")
    wait_until(
        lambda: len(re.findall(r"^worker \d +django .* ready ", demonstration.ctl("status").stdout, re.M)) == 2, ""
    )


def test_a_php_file_is_added_and_broken(demonstration: Demonstration, visitor: Visitor) -> None:
    script = demonstration.state / "public/hello.php"
    script.write_text("<?php phpinfo();")
    assert "PHP Version" in visitor.open("hello.php")
    script.write_text("<?php nothing();")
    wait_until(lambda: visitor.refused("hello.php")[0] == 500, "it does not fail")
    wait_until(lambda: re.search(r"undefined function nothing\(\) in .*/hello\.php:1", demonstration.output), "no line")
    assert "Main Page" in visitor.open("php/")
    script.unlink()


def test_reload(demonstration: Demonstration) -> None:
    config = demonstration.state / "webserver.conf"
    right = config.read_text()
    config.write_text(right.replace("processes = 2", "processes = two", 1))
    result = demonstration.ctl("reload")
    line = right[: right.index("processes = 2")].count("\n") + 1
    assert result.returncode == 1
    assert f'{config}:{line}: [groups] django: processes: found "two"' in result.stderr
    config.write_text(right.replace("processes = 2", "processes = 1", 1))
    assert demonstration.ctl("reload").returncode == 0
    assert len(re.findall(r"^worker \d +django ", demonstration.ctl("status").stdout, re.M)) == 1
    config.write_text(right)
    assert demonstration.ctl("reload").returncode == 0


def start_another(*words: str) -> str:
    """What tools/demo says when it refuses, but for the copy of a tree that its user cannot read."""
    result = subprocess.run([TREE / "tools/demo", *words], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    return re.sub(r"^\w+ cannot read .*: serving a copy, .*\n", "", result.stdout + result.stderr)


def test_a_second_start_says_why_not(demonstration: Demonstration) -> None:
    config = demonstration.state / "webserver.conf"
    before = config.read_text()
    said = start_another("--state", str(demonstration.state), "--port", str(free_port()))
    assert re.fullmatch(
        rf"tools/demo: the demonstration is already running on {demonstration.base} as process (\d+)\. "
        r"End it first: kill -INT \1\n",
        said,
    ), said
    assert config.read_text() == before
    with directory() as top:
        said = start_another("--state", str(top / "state"), "--port", str(demonstration.port))
        assert said == (
            f"tools/demo: 127.0.0.1:{demonstration.port}: another process listens there. "
            f"Take another port: make run PORT={demonstration.port + 1}\n"
        )
    assert "a number from 1 to 65535 is expected" in start_another("--port", "80a")


def test_it_is_served_by_no_root(demonstration: Demonstration) -> None:
    config = demonstration.state / "webserver.conf"
    assert config.stat().st_uid != 0
    users = {
        Path(f"/proc/{pid}").stat().st_uid
        for pid in demonstration.pids()
        if b"webserver: " in Path(f"/proc/{pid}/cmdline").read_bytes()
    }
    assert users == {config.stat().st_uid}
    assert {path.lstat().st_uid for path in demonstration.state.rglob("*")} == users


def test_interrupt_ends_it_within_a_second(demonstration: Demonstration) -> None:
    """Last of those that share the demonstration: Ctrl-C in the middle of a request leaves no process and no socket."""
    mine = demonstration.pids()
    request = http.client.HTTPConnection("127.0.0.1", demonstration.port, timeout=30)
    request.request("GET", "/python/count/")
    answer = request.getresponse()
    assert answer.readline().startswith(b"worker ")
    said = len(demonstration.output)
    started = time.monotonic()
    os.killpg(demonstration.process.pid, signal.SIGINT)
    demonstration.process.wait(20)
    wait_until(lambda: not [pid for pid in mine if alive(pid)], "processes are left")
    assert time.monotonic() - started < 1
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    request.close()
    assert not [path for path in demonstration.state.rglob("*") if path.is_socket()]
    assert re.fullmatch(r"(?:.* \[notice\] supervisor: .*\n)+", demonstration.output[said:])


def test_a_private_tree_is_served_too() -> None:
    """One below /root, say: from a copy, of which nothing is left."""
    with directory() as top:
        private = top / "private"
        private.mkdir(0o700)
        source = private / "tree"
        source.mkdir()
        for name in ("webserver", "langplugins", "build/lib", "tools"):
            shutil.copytree(TREE / name, source / name, symlinks=True)
        venv = [interpreter(), "-m", "venv", "--system-site-packages", "--without-pip", source / ".venv"]
        subprocess.run(venv, check=True)
        subprocess.run([source / "tools/entry-points", source / ".venv"], check=True)
        port = free_port()
        program = str(source / "tools/demo")
        one = Demonstration.start(top, source / "build/demo", port, program, "--port", str(port))
        try:
            assert "Notes" in Visitor(one.base).open("python/")
            assert "Main Page" in Visitor(one.base).open("php/")
            copy = re.search(r"serving a copy, (\S+),", one.output)
            assert bool(copy) == ROOT
            mine = one.pids()
        finally:
            one.end()
        wait_until(lambda: not [pid for pid in mine if alive(pid)], "processes are left")
        assert copy is None or not Path(copy.group(1)).exists()
