"""A published PSGI application, unchanged from its Debian package: Request Tracker 5, with SQLite.

Its own rt-server is the application, preloaded; two workers. Log-in, a ticket by its form, files up and down, replies,
the mail that each sends by a program of its own, log-out; at / and below /rt.
"""

from __future__ import annotations

import email
import email.message
import email.policy
import hashlib
import html
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from browser import Browser, Form, forms
from serving import GROUP_USER, ROOT, Answer, Server, directory, wait_until

pytestmark = pytest.mark.long

RT = Path("/usr/share/request-tracker5")
PROGRAM = RT / "libexec/rt-server"
PASSWORD = "password"  # of root, as RT's own initial data have it

SITE = """
Set($rtname, 'example.org');
Set($Organization, 'example.org');
Set($DatabaseType, 'SQLite');
Set($DatabaseName, '{data}/rt.sqlite');
Set($VarPath, '{data}');
Set($MasonDataDir, '{data}/mason');
Set($MasonSessionDir, '{data}/session');
Set($LogToSyslog, undef);
Set($LogToSTDERR, 'warning');
Set($WebDomain, '127.0.0.1');
Set($WebPort, {port});
Set($WebPath, '{prefix}');
Set($SendmailPath, '{directory}/sendmail');
1;
"""

# As sendmail(8) is called by RT; each mail is a file.
SENDMAIL = """#!/bin/sh
exec cat >"$(mktemp {data}/mail/XXXXXX)"
"""

CONFIG = """
[groups]
[[rt]]
language = perl
application = {program}
preload = {program}
processes = 2
[[[environment]]]
RT_SITE_CONFIG = {directory}/site.pm
RT_SITE_CONFIG_DIR = {directory}/site.d
[sites]
[[all]]
hosts = *
root = public
symlinks = allow
max_body = 10m
[[[routes]]]
{prefix}/ = group:rt
{prefix}/static = files
"""

# What is said of what the tests do.
EXPLAINED = (
    r"\[error\]: FAILED LOGIN for root from 127\.0\.0\.1 ",
    r"\[warning\] front end \d .* 413: the request's Content-Length is larger than max_body$",
)


def owned(*paths: Path) -> None:
    for path in paths:
        path.chmod(0o755 if path.is_dir() else 0o644)
        if ROOT:
            shutil.chown(path, GROUP_USER)


def instance(directory: Path, port: int, prefix: str) -> dict[str, str]:
    """What an administrator writes for an instance of their own; the environment that leads RT to it."""
    data = directory / "data"
    for path in (data, *(data / name for name in ("mason", "session", "mail"))):
        path.mkdir()
        owned(path)
    (directory / "site.d").mkdir()
    (directory / "site.d").chmod(0o755)
    (directory / "site.pm").write_text(SITE.format(data=data, directory=directory, port=port, prefix=prefix))
    (directory / "site.pm").chmod(0o644)
    (directory / "sendmail").write_text(SENDMAIL.format(data=data))
    (directory / "sendmail").chmod(0o755)
    return {
        **os.environ,
        "RT_SITE_CONFIG": str(directory / "site.pm"),
        "RT_SITE_CONFIG_DIR": str(directory / "site.d"),
    }


@pytest.fixture(scope="module")
def empty() -> Iterator[Path]:
    """A database with RT's tables and initial data, made once, by its own program. In memory: it is many small writes."""
    path = Path(tempfile.mkdtemp(prefix="webserver-test-", dir="/dev/shm"))
    try:
        path.chmod(0o755)
        environment = instance(path, 80, "")
        subprocess.run(
            ["rt-setup-database-5", "--action", "init", "--skip-create"],
            env=environment,
            user=GROUP_USER if ROOT else None,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            cwd="/",
        )
        yield path / "data/rt.sqlite"
    finally:
        shutil.rmtree(path)


@pytest.fixture(scope="module", params=["", "/rt"], ids=["at the root", "below a path"])
def rt(request: pytest.FixtureRequest, empty: Path) -> Iterator[Server]:
    prefix: str = request.param
    with directory() as path:
        server = Server(path)
        instance(path, server.port, prefix)
        shutil.copyfile(empty, path / "data/rt.sqlite")
        owned(path / "data/rt.sqlite")
        place = path / "public" / prefix.strip("/")
        place.mkdir(exist_ok=True)
        (place / "static").symlink_to(RT / "static")
        server.write(CONFIG.format(program=PROGRAM, directory=path, prefix=prefix))
        server.allow(*EXPLAINED)
        try:
            yield server.start()
        finally:
            server.stop()


def base(server: Server) -> str:
    return "/rt" if "/rt/static" in server.config_file.read_text() else ""


def form_with(answer: Answer, *fields: str) -> Form:
    found = [form for form in forms(answer) if form.values.keys() >= set(fields)]
    assert found, f"no form with {fields}: {answer.status} {answer.text}"
    return found[0]


def log_in(server: Server, password: str = PASSWORD) -> tuple[Browser, Answer]:
    person = Browser(server, says_from_where=True)  # RT refuses forms that come from elsewhere
    form = form_with(person.get(f"{base(server)}/"), "user", "pass")
    return person, person.post(form.action, {**form.values, "user": "root", "pass": password})


def create(person: Browser, subject: str, content: str, files: dict[str, tuple[str, bytes]]) -> tuple[str, Answer]:
    """A ticket by its form: its number and its page."""
    path = base(person.server)
    form = form_with(person.get(f"{path}/Ticket/Create.html?Queue=1"), "Subject", "Requestors")
    assert form.action == f"{path}/Ticket/Create.html"
    values = {
        **form.values,
        "Subject": subject,
        "Content": content,
        "Requestors": "ada@example.net",
        "SubmitTicket": "Create",
    }
    page = person.upload(form.action, values, files)
    found = re.search(r"Ticket (\d+) created in queue", page.text)
    assert found, page.text
    return found[1], page


def attached(person: Browser, page: Answer, name: str) -> Answer:
    """A file that a ticket's page links to."""
    links = re.findall(r'href="([^"]*Attachment/\d+/\d+/[^"]*)"', page.text)
    found = [link for link in map(html.unescape, links) if link.endswith(f"/{name}")]
    assert found, links
    return person.get(found[0])


def mails(server: Server, number: str) -> list[str]:
    """The text of each mail about a ticket, which RT has had made from HTML by one program and sent by another."""
    texts = []
    for path in (server.directory / "data/mail").iterdir():
        mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        text = mail.get_body(("plain",))
        assert isinstance(text, email.message.EmailMessage)
        if f"[example.org #{number}]" in mail["Subject"]:
            assert mail["To"] == "ada@example.net"
            texts.append(text.get_content())
    return texts


def requests(server: Server) -> int:
    return sum(process["requests"] for process in server.status()["processes"] if process["kind"] == "worker")


def test_log_in_and_out(rt: Server) -> None:
    path = base(rt)
    refused = log_in(rt, "wrong")[1]
    assert "Your username or password is incorrect" in refused.text
    person, page = log_in(rt)
    assert "RT at a glance" in page.text
    # Whichever worker answers.
    assert all(f'href="{path}/NoAuth/Logout.html' in person.get(f"{path}/").text for _ in range(6))
    assert person.get(f"{path}/NoAuth/Logout.html").status == 200
    assert form_with(person.get(f"{path}/"), "user", "pass")


def test_a_ticket_from_beginning_to_end(rt: Server) -> None:
    path = base(rt)
    person, _ = log_in(rt)
    content = os.urandom(1_500_000)
    text = "<p>Gr\u00fc\u00dfe, <b>loud</b> &amp; &lt;clear&gt;</p>"
    number, page = create(person, "A fence & a gate", text, {"Attach": ("plan \u2713.bin", content)})
    assert "A fence & a gate" in html.unescape(page.text)
    history = person.get(f"{path}/Ticket/History.html?id={number}").text
    assert re.search("Gr\u00fc\u00dfe, <b>loud</b> &(amp|#38); &(lt|#60);clear&(gt|#62);", history)
    answer = attached(person, page, "plan%20%E2%9C%93.bin")
    assert answer.status == 200
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(content).digest()
    [mail] = mails(rt, number)
    assert "Gr\u00fc\u00dfe, loud & <clear>" in mail

    form = form_with(person.get(f"{path}/Ticket/Update.html?id={number}&Action=Respond"), "UpdateContent")
    small = b"first\r\nlast\r\n"
    page = person.upload(
        form.action,
        {**form.values, "UpdateContent": "<p>Answered <i>already</i>.</p>", "SubmitTicket": "Update Ticket"},
        {"Attach": ("notes.txt", small)},
    )
    assert "Correspondence added" in page.text
    page = person.get(f"{path}/Ticket/History.html?id={number}")
    assert "Answered <i>already</i>." in page.text
    assert attached(person, page, "notes.txt").body == small
    assert any("Answered already." in mail for mail in mails(rt, number))
    # And a stranger has neither.
    stranger = Browser(rt)
    assert form_with(stranger.get(f"{path}/Ticket/Display.html?id={number}"), "user", "pass")
    # Larger than the site allows.
    assert person.upload(form.action, form.values, {"Attach": ("x", b"." * 10_500_000)}).status == 413


def test_static_files_need_no_worker(rt: Server) -> None:
    path = base(rt)
    person = Browser(rt)
    page = person.get(f"{path}/")
    before = requests(rt)
    icon = person.get(f"{path}/static/images/favicon.png")
    assert (icon.status, icon.field("Content-Type")) == (200, "image/png")
    assert icon.body == (RT / "static/images/favicon.png").read_bytes()
    assert person.send("GET", f"{path}/static/images/favicon.png", None,
        {"If-None-Match": icon.field("ETag") or ""}).status == 304  # fmt: skip
    assert requests(rt) == before
    # What it has put together of many is its own.
    for kind, pattern in (
        ("text/css", r'href="([^"]*/NoAuth/css/[^"]*)"'),
        ("javascript", r'src="([^"]*/NoAuth/js/[^"]*)"'),
    ):
        [target, *_] = re.findall(pattern, page.text)
        answer = person.get(html.unescape(target))
        assert (answer.status, kind in (answer.field("Content-Type") or "")) == (200, True)
        assert len(answer.body) > 50_000


def test_clients_in_parallel(rt: Server) -> None:
    """Two workers write to one database, each on a connection of its own."""

    def client(number: int) -> str:
        person, _ = log_in(rt)
        content = os.urandom(20_000)
        ticket, page = create(person, f"House {number}", "Build it.", {"Attach": ("plan.bin", content)})
        assert attached(person, page, "plan.bin").body == content
        return ticket

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(client, range(5)))
    assert len(set(made)) == 5
    person, _ = log_in(rt)
    for number, ticket in enumerate(made):
        assert f"House {number}" in person.get(f"{base(rt)}/Ticket/Display.html?id={ticket}").text


def opened(pid: int, path: Path) -> int:
    return sum(os.path.realpath(fd) == str(path) for fd in Path(f"/proc/{pid}/fd").iterdir())


def test_restart_keeps_people_logged_in(rt: Server) -> None:
    """The manager, which has read RT's database, holds no connection to it; workers have one each, once they need it."""
    database = rt.directory / "data/rt.sqlite"
    person, _ = log_in(rt)
    before = rt.pids("worker")
    rt.ctl("restart", "rt")
    wait_until(lambda: not set(before) & set(rt.pids("worker")), "the old workers are still there")
    workers = rt.pids("worker")
    [manager] = rt.pids("manager")
    assert [opened(pid, database) for pid in [manager, *workers]] == [0, 0, 0]
    assert "RT at a glance" in person.get(f"{base(rt)}/").text
    assert opened(manager, database) == 0
    assert sum(opened(pid, database) for pid in workers) == 1


def test_nothing_unexplained(rt: Server) -> None:
    """The last of the file's tests: whatever the others have done, nobody had anything to say of it."""
    said = ["group rt generation \\d", "group rt was restarted", "worker \\d of group rt .* ends: ", "listening on "]
    known = re.compile("|".join([rf"\[notice\] supervisor: ({'|'.join(said)})", *EXPLAINED]))
    assert not [line for line in rt.log().splitlines() if not known.search(line)]
