"""A published Rails application, unchanged from its Debian package: Redmine, with its own Gemfile and database.

Forced change of the password, project, issue by its form, upload, download, log-out, clients in parallel. The instance
is Redmine's own word for what is not the package's: REDMINE_INSTANCE is a path below /usr/share/redmine/instances, and
the way out of it leads to the test's directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from browser import Browser, Form, forms
from serving import GROUP_USER, ROOT, Answer, Server, directory

REDMINE = Path("/usr/share/redmine")
# A short timeout: Ruby's SQLite waits with Ruby's lock held, which the thread that it waits for would need.
DATABASE = """production:
  adapter: sqlite3
  database: {database}
  timeout: 50
"""
# The package's Gemfile takes a database's gem from the configuration of the instances that it knows.
GEMFILE = f"""eval_gemfile "{REDMINE}/Gemfile"
gem "sqlite3"
"""
CONFIG = """
[groups]
[[redmine]]
language = ruby
application = {application}
{group}
[[[environment]]]
{environment}
[sites]
[[all]]
hosts = *
root = {redmine}/public
symlinks = allow
max_body = 10m
{site}
[[[routes]]]
{routes}
"""
PASSWORD = "correct horse"
# Of the lines of the error log. Rails' two threads look after connections and thread-local variables; it starts them
# again where they are missing.
EXPLAINED = (
    r"\[notice\] supervisor: (group redmine generation 1 serves|listening on)",
    r"\[warning\] front end .* 413: the request's Content-Length is larger than max_body",
    r"\[warning\] group redmine \d+: preloading left threads that no worker will have: "
    r"connection_poo\*, ruby_thread_lo\*; start them after the fork",
)


# Rails' own Rack::Sendfile leaves files to the server where the environment says so. One around Rails would come too late:
# Redmine's Rack::ContentLength has made a string of the file by then.
SENDING = f"""require "{REDMINE}/config/environment"
use(Rack::Config) {{ |env| env["sendfile.type"] = "X-Sendfile" }}
run Rails.application
"""


@dataclass(frozen=True)
class Layout:
    prefix: str
    group: str
    routes: str
    application: str = f"{REDMINE}/config.ru"
    site: str = ""


LAYOUTS = {
    "root": Layout("", f"processes = 2\nthreads = 4\npreload = {REDMINE}/config.ru", "/ = files, group:redmine"),
    "prefix": Layout(
        "/tracker",
        "processes = 1\nthreads = 2",
        "/ = =404\n/tracker = group:redmine",
        "sending.ru",
        "sendfile = instance/files,",
    ),
}


def instance(place: Path, database: Path) -> None:
    for name in ("config", "log", "files", "tmp", "public/plugin_assets"):
        (place / name).mkdir(parents=True)
    (place / "config/database.yml").write_text(DATABASE.format(database=database))
    (place / "config/secret_key.txt").write_text(secrets.token_hex(32))
    (place / "Gemfile").write_text(GEMFILE)


def environment(place: Path) -> dict[str, str]:
    return {
        "BUNDLE_GEMFILE": f"{place}/Gemfile",
        "REDMINE_INSTANCE": f"../../../..{place}",  # /usr, share, redmine and instances
        "RAILS_ENV": "production",
        "HOME": str(place),
    }


@pytest.fixture(scope="module")
def empty() -> Iterator[Path]:
    """An instance with Redmine's tables and default data, made once by its own commands.

    In memory: each of some 270 migrations would wait for the disk, and later each of Redmine's many small transactions.
    """
    place = Path(tempfile.mkdtemp(prefix="webserver-test-", dir="/dev/shm"))
    try:
        place.chmod(0o755)
        instance(place, place / "empty.sqlite3")
        for task in ("db:migrate", "redmine:load_default_data"):
            subprocess.run(
                ["bundle", "exec", "rake", task],
                cwd=REDMINE,
                env={**environment(place), "PATH": os.environ["PATH"], "SCHEMA": "/dev/null", "REDMINE_LANG": "en"},
                check=True,
                capture_output=True,
            )
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=LAYOUTS)
def redmine(request: pytest.FixtureRequest, empty: Path) -> Iterator[Server]:
    layout: Layout = request.param
    with directory() as path:
        server = Server(path)
        place = path / "instance"
        data = empty / (layout.prefix.strip("/") or "root")  # SQLite has a journal beside its file
        data.mkdir()
        shutil.copyfile(empty / "empty.sqlite3", data / "redmine.sqlite3")
        with contextlib.closing(sqlite3.connect(data / "redmine.sqlite3")) as opened:
            # Readers wait for nobody then. Redmine takes a person whom it could not read for a stranger.
            opened.execute("PRAGMA journal_mode = WAL")
        instance(place, data / "redmine.sqlite3")
        shutil.copyfile(empty / "Gemfile.lock", place / "Gemfile.lock")
        if ROOT:
            for name in (place, data, *place.rglob("*"), *data.rglob("*")):
                shutil.chown(name, GROUP_USER)
        server.file("sending.ru", SENDING)
        variables = environment(place)
        if layout.prefix:
            variables["RAILS_RELATIVE_URL_ROOT"] = layout.prefix
        server.write(
            CONFIG.format(
                redmine=REDMINE,
                group=layout.group,
                environment="\n".join(f"{name} = {value}" for name, value in variables.items()),
                application=layout.application,
                site=layout.site,
                routes=layout.routes,
            )
        )
        try:
            server.start()
            change_password(server)
            yield server
        finally:
            server.stop()


def form_to(answer: Answer, action: str) -> Form:
    found = [form for form in forms(answer) if form.action == action]
    assert found, f"no form to {action} in {answer.status}: {answer.text[:2000]}"
    return found[0]


def single(form: Form) -> dict[str, str]:
    """A form's values without its lists: what is not sent of these has Redmine's defaults."""
    return {name: value for name, value in form.values.items() if not name.endswith("[]")}


def base(server: Server) -> str:
    return "/tracker" if "/tracker" in server.config_file.read_text() else ""


def log_in(server: Server, password: str = PASSWORD, person: Browser | None = None) -> tuple[Browser, Answer]:
    """A person's browser, and the page that log-in leads to."""
    person = person or Browser(server)
    target = f"{base(server)}/login"
    form = form_to(person.get(target), target)
    return person, person.post(target, {**form.values, "username": "admin", "password": password})


def change_password(server: Server) -> None:
    """What Redmine asks of whoever logs in for the first time."""
    person, page = log_in(server, "admin")
    target = f"{base(server)}/my/password"
    assert person.at == target
    form = form_to(page, target)
    assert person.get(f"{base(server)}/projects/new").text.count("new_password_confirmation")
    new = {"password": "admin", "new_password": PASSWORD, "new_password_confirmation": PASSWORD}
    assert "Password was successfully updated" in person.post(target, {**form.values, **new}).text


def make_project(server: Server, person: Browser, name: str) -> str:
    form = form_to(person.get(f"{base(server)}/projects/new"), f"{base(server)}/projects")
    values = {"project[name]": f"Project {name}", "project[identifier]": name, "commit": "Create"}
    page = person.post(f"{base(server)}/projects", {**single(form), **values})
    assert "Successful creation" in page.text
    return f"{base(server)}/projects/{name}"


def make_issue(
    person: Browser, project: str, subject: str, files: dict[str, tuple[str, bytes]] | None = None
) -> tuple[str, Answer]:
    """The issue's place and page."""
    form = form_to(person.get(f"{project}/issues/new"), f"{project}/issues")
    values = {
        "issue[tracker_id]": "1",
        "issue[subject]": subject,
        "issue[description]": "Grüße, *loud* & <clear>",
        "issue[status_id]": "1",
        "issue[priority_id]": "2",
    }
    page = person.upload(f"{project}/issues", {**single(form), **values}, files or {})
    assert (page.status, "Issue #" in page.text) == (200, True), page.text
    return person.at, page


def test_a_stranger_sees_the_door(redmine: Server) -> None:
    stranger = Browser(redmine)
    prefix = base(redmine)
    page = stranger.get(f"{prefix}/")
    assert (page.status, f'href="{prefix}/login"' in page.text) == (200, True)
    # The addresses of styles and scripts are the package's files, sent by the front ends or by Rails.
    found = re.search(r'href="([^"]*/application\.css\?\d+)"', page.text)
    assert found and found[1].startswith(f"{prefix}/stylesheets/")
    stranger.get(f"{prefix}/my/page")
    assert stranger.at.startswith(f"{prefix}/login?back_url=")
    _, page = log_in(redmine, "wrong")
    assert "Invalid user or password" in page.text
    # A form without its token is not taken.
    assert stranger.post(f"{prefix}/login", {"username": "admin", "password": PASSWORD}).status == 422
    assert stranger.get(f"{prefix}/no/such/page").status == 404


def test_project_issue_and_log_out(redmine: Server) -> None:
    person, page = log_in(redmine)
    prefix = base(redmine)
    assert (person.at, "Logged in as" in page.text) == (f"{prefix}/my/page", True)
    project = make_project(redmine, person, "garden")
    place, page = make_issue(person, project, "A fence & a gate")
    assert "A fence &amp; a gate" in page.text
    assert "Grüße, <strong>loud</strong> &#38; &lt;clear&gt;" in page.text
    # Each worker and thread knows of it.
    assert all("A fence &amp; a gate" in person.get(place).text for _ in range(8))
    form = form_to(person.get(place), place)
    changed = {**single(form), "_method": "patch", "issue[subject]": "A hedge", "issue[notes]": "Green is cheaper."}
    page = person.post(place, changed)
    assert "Successful update" in page.text
    assert "Green is cheaper." in page.text
    # Redmine tells what it has in other forms: with its own Content-Type, and built while it is sent.
    assert person.get(f"{place}.json").status in (200, 403)
    table = person.get(f"{project}/issues.csv?set_filter=1")
    assert (table.field("Content-Type") or "").startswith("text/csv")
    assert "A hedge" in table.text
    assert person.get(f"{place}.pdf").body.startswith(b"%PDF-")
    token = re.search(r'name="csrf-token" content="([^"]+)"', page.text)
    assert token
    page = person.post(f"{prefix}/logout", {"_method": "post", "authenticity_token": token[1]})
    assert "Logged in as" not in page.text
    person.get(f"{prefix}/projects/new")
    assert person.at.startswith(f"{prefix}/login?")


def test_a_file_up_and_down(redmine: Server) -> None:
    person, _ = log_in(redmine)
    project = make_project(redmine, person, "cellar")
    content = os.urandom(3_000_000)
    _, page = make_issue(person, project, "Plans", {"attachments[1][file]": ("plan.bin", content)})
    found = re.search(r'href="([^"]*/attachments/download/\d+/plan\.bin)"', page.text)
    assert found and found[1].startswith(f"{base(redmine)}/")
    answer = person.get(found[1])
    assert (answer.status, answer.field("X-Sendfile")) == (200, None)
    assert answer.field("Content-Length") == str(len(content))
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(content).digest()
    assert "attachment" in (answer.field("Content-Disposition") or "")
    # Whoever sends the file: Rails knows no ranges, and the front ends do.
    part = person.send("GET", found[1], None, {"Range": "bytes=100-199"})
    assert (part.status, part.body) == ((206, content[100:200]) if base(redmine) else (200, content))
    head = person.send("HEAD", found[1], None, {})
    assert (head.status, head.field("Content-Disposition"), head.body) == (
        200,
        answer.field("Content-Disposition"),
        b"",
    )
    stored = [path for path in (redmine.directory / "instance/files").rglob("*") if path.is_file()]
    assert [path.read_bytes() == content for path in stored] == [True]
    # Too large for the site: it is the server that says so, and Redmine has not been asked.
    form = form_to(person.get(f"{project}/issues/new"), f"{project}/issues")
    assert person.upload(f"{project}/issues", single(form), {"f": ("f", b"." * 11_000_000)}).status == 413


class Patient(Browser):
    """Asks again when something went wrong, as people do, and has counted it."""

    refused = 0

    def send(self, method: str, target: str, body: bytes | None, fields: dict[str, str]) -> Answer:
        for _ in range(100):
            answer = super().send(method, target, body, fields)
            if answer.status != 500:
                return answer
            self.refused += 1
        raise AssertionError(f"{method} {target} fails again and again")


def busy(server: Server) -> int:
    """How often SQLite has refused a transaction beside another one, which Redmine answers with 500."""
    return (server.directory / "instance/log/production.log").read_text().count("(SQLite3::BusyException: database is")


def test_clients_in_parallel(redmine: Server) -> None:
    person = log_in(redmine)[0]
    project = make_project(redmine, person, "street")
    before = busy(redmine)

    def client(number: int) -> tuple[list[str], int]:
        one = log_in(redmine, person=Patient(redmine))[0]
        places = [make_issue(one, project, f"House {number}.{i}")[0] for i in range(2)]
        assert isinstance(one, Patient)
        return places, one.refused

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(client, range(8)))
    assert len({place for places, _ in made for place in places}) == 16
    assert sum(refused for _, refused in made) <= busy(redmine) - before
    table = person.get(f"{project}/issues.csv?set_filter=1").text
    assert sorted(re.findall(r"House \d\.\d", table)) == sorted(f"House {n}.{i}" for n in range(8) for i in range(2))


def test_nothing_unexplained(redmine: Server) -> None:
    """The last of the file's tests: whatever the others have done, the server had nothing to say of it."""
    lines = [line for line in redmine.log().splitlines() if not any(re.search(known, line) for known in EXPLAINED)]
    assert not lines
