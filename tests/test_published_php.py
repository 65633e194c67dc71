"""A published PHP application, unchanged from its Debian package: DokuWiki, which keeps everything in files.

Log-in, form, upload, download, search and the parts that no client may see. MediaWiki is the demonstration's
(test_demo.py). Where its configuration and data are is said as its manual says it, by a constant that is defined before
its own first line.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, Form, forms
from serving import Server, directory, wait_until

DOKUWIKI = Path("/usr/share/dokuwiki")
DATA = ("attic", "cache", "index", "locks", "log", "media", "media_attic", "media_meta", "meta", "pages", "tmp")

LOCAL = """<?php
$conf['title'] = 'A wiki of the tests';
$conf['savedir'] = '%s';
$conf['useacl'] = 1;
$conf['superuser'] = '@admin';
$conf['updatecheck'] = 0;
"""

CONFIG = """
[groups]
[[wiki]]
language = php
processes = 2
preload = /usr/share/dokuwiki/doku.php, /usr/share/dokuwiki/inc/init.php
[[[ini]]]
auto_prepend_file = {prepend}
upload_max_filesize = 8M
post_max_size = 9M
[sites]
[[all]]
hosts = *
root = /usr/share/dokuwiki
index = doku.php
symlinks = allow
max_body = 10m
[[[routes]]]
/ = files
.php = group:wiki
/bin/ = =403
/inc/ = =403
/vendor/ = =403
"""


@pytest.fixture(scope="module")
def wiki() -> Iterator[Server]:
    with directory() as path:
        one = Server(path)
        for name in DATA:
            (path / "data" / name).mkdir(parents=True)
            (path / "data" / name).chmod(0o777)
        (path / "data").chmod(0o777)
        one.file("conf/local.php", LOCAL % (path / "data"))
        one.file("conf/users.auth.php", f"ada:{password('open sesame')}:Ada:ada@example.org:admin,user\n")
        one.file("conf/acl.auth.php", "*\t@ALL\t1\n*\t@user\t8\n")
        (path / "conf").chmod(0o755)
        prepend = one.file("prepend.php", f"<?php define('DOKU_CONF', '{path}/conf/');\n")
        one.write(CONFIG.format(prepend=prepend))
        try:
            one.start()
            yield one
        finally:
            one.stop()


def password(text: str) -> str:
    """As its installer would have stored it."""
    hash_ = ["php", "-n", "-r", "echo password_hash($argv[1], PASSWORD_BCRYPT, ['cost' => 4]);", text]
    return subprocess.run(hash_, capture_output=True, text=True, check=True).stdout


def form_with(answer: object, field: str) -> Form:
    found = [form for form in forms(answer) if field in form.values]  # type: ignore[arg-type]
    assert found, f"no form with {field}"
    return found[0]


def logged_in(server: Server) -> Browser:
    person = Browser(server)
    form = form_with(person.get("/doku.php?id=start&do=login"), "p")
    page = person.post("/doku.php?id=start", {**form.values, "u": "ada", "p": "open sesame"})
    assert "Logged in as" in page.text
    return person


def test_log_in(wiki: Server) -> None:
    stranger = Browser(wiki)
    page = stranger.get("/doku.php?id=start")
    assert (page.status, "A wiki of the tests" in page.text, "Logged in as" in page.text) == (200, True, False)
    form = form_with(stranger.get("/doku.php?id=start&do=login"), "p")
    page = stranger.post("/doku.php?id=start", {**form.values, "u": "ada", "p": "wrong"})
    assert "username or password was wrong" in page.text
    person = logged_in(wiki)
    # Whichever worker answers; and out again.
    assert all("Logged in as" in person.get("/doku.php?id=start").text for _ in range(6))
    token = re.search(r'name="sectok" value="(\w+)"', person.get("/doku.php?id=start&do=edit").text)
    assert token
    assert "Logged in as" not in person.get(f"/doku.php?id=start&do=logout&sectok={token[1]}").text


def test_a_page_by_its_form(wiki: Server) -> None:
    person, stranger = logged_in(wiki), Browser(wiki)
    form = form_with(person.get("/doku.php?id=project:plan&do=edit"), "wikitext")
    text = "====== The Plan ======\n\n  * first //thing//\n  * **second** <thing> & Grüße\n\nUnmistakableword.\n"
    page = person.post(
        "/doku.php?id=project:plan", {**form.values, "wikitext": text, "summary": "begun", "do[save]": "1"}
    )
    assert page.status == 200
    assert "<strong>second</strong> &lt;thing&gt; &amp; Grüße" in page.text
    assert (wiki.directory / "data/pages/project/plan.txt").read_text() == text
    assert "<em>thing</em>" in stranger.get("/doku.php?id=project:plan").text
    # A stranger may read it and not change it, and what has been said before is kept.
    stranger.post("/doku.php?id=project:plan", {**form.values, "wikitext": "nonsense", "do[save]": "1"})
    assert (wiki.directory / "data/pages/project/plan.txt").read_text() == text
    assert "begun" in person.get("/doku.php?id=project:plan&do=revisions").text
    # The page asks for its indexing by a picture, as the browser does; it is done when the picture has been sent.
    assert stranger.get("/lib/exe/taskrunner.php?id=project%3Aplan").field("Content-Type") == "image/gif"
    hit = '<strong class="search_hit">Unmistakableword</strong>'
    wait_until(lambda: hit in stranger.get("/doku.php?do=search&q=Unmistakableword").text, "it is not found")
    assert "search_hit" not in stranger.get("/doku.php?do=search&q=Otherword").text


def test_a_file_up_and_down(wiki: Server) -> None:
    person, stranger = logged_in(wiki), Browser(wiki)
    form = form_with(person.get("/lib/exe/mediamanager.php?ns=project"), "sectok")
    content = os.urandom(3_000_000)
    values = {"sectok": form.values["sectok"], "ns": "project", "mediaid": "report.zip", "do": "upload"}
    page = person.upload("/lib/exe/mediamanager.php", values, {"upload": ("report.zip", content)})
    assert "Upload successful" in page.text
    answer = stranger.get("/lib/exe/fetch.php?media=project:report.zip")
    assert answer.status == 200
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(content).digest()
    assert "attachment" in (answer.field("Content-Disposition") or "")
    mark = {"If-None-Match": answer.field("ETag") or ""}
    assert stranger.send("GET", "/lib/exe/fetch.php?media=project:report.zip", None, mark).status == 304
    part = stranger.send("GET", "/lib/exe/fetch.php?media=project:report.zip", None, {"Range": "bytes=100-199"})
    assert (part.status, part.body) == (206, content[100:200])
    # Nobody uploads who is not logged in.
    refused = stranger.upload("/lib/exe/mediamanager.php", values, {"upload": ("other.zip", b"x")})
    assert "Upload successful" not in refused.text


def test_styles_scripts_and_what_is_nobody_s_business(wiki: Server) -> None:
    person = Browser(wiki)
    page = person.get("/doku.php").text
    for kind, pattern in (
        ("text/css", r'href="(/lib/exe/css\.php[^"]*)"'),
        ("javascript", r'src="(/lib/exe/js\.php[^"]*)"'),
    ):
        found = re.search(pattern, page)
        assert found
        answer = person.get(found[1].replace("&amp;", "&"))
        assert (answer.status, kind in (answer.field("Content-Type") or ""), len(answer.body) > 1000) == (
            200,
            True,
            True,
        )
    assert person.get("/lib/tpl/dokuwiki/images/logo.png").field("Content-Type") == "image/png"
    assert person.get("/").status == 200
    for path in ("/inc/init.php", "/bin/indexer.php", "/vendor/autoload.php", "/conf/local.php", "/.htaccess"):
        assert person.get(path).status in (403, 404), path
