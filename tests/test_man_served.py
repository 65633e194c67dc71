"""The examples of the manual pages, used: configurations are served by the real server, commands are run by a shell."""

from __future__ import annotations

import getpass
import os
import pwd
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from config_machine import adjusted, lay_out
from serving import (
    GROUP_USER,
    ROOT,
    SANITIZE_FLAGS,
    SERVER_USER,
    SLOWNESS,
    TREE,
    Server,
    directory,
    program,
    tree,
    wait_until,
)
from test_man import EXAMPLES

APPLICATION = (
    "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'from a group']\n"
)
PLUGIN = {  # the page about plugins: source, how it is built, its group
    str(example.values[1]).partition(" ")[0]: str(example.values[2])
    for example in EXAMPLES
    if str(example.values[1]).endswith(" capitals")
}
CONFIGURATIONS = [
    example for example in EXAMPLES if str(example.values[1]).partition(" ")[0] in ("file", "group", "companion", "site")
    and not str(example.values[1]).endswith(" capitals")
]  # fmt: skip
COMMANDS = [
    pytest.param(line, id=line)
    for example in EXAMPLES
    if example.values[1] == "commands"
    for line in str(example.values[2]).splitlines()
]


ASGI = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"from a group"})
"""


class Example(Server):
    """A server whose configuration lies where the pages say, below a directory of its own."""

    def __init__(self, path: Path) -> None:
        lay_out(path)
        super().__init__(path)
        self.config_file = path / "etc/webserver/webserver.conf"
        interpreter = path / "srv/shop/venv/bin/python"
        interpreter.unlink()
        interpreter.symlink_to(tree() / ".venv/bin/python")
        self.file("srv/shop/venv/bin/celery", "#!/bin/sh\nexec sleep 1000\n").chmod(0o755)
        self.file("srv/shop/manage.py", "print('nothing to do')\n")
        if ROOT:
            os.chown(path / "srv/redis", pwd.getpwnam(GROUP_USER).pw_uid, -1)
        self.file("srv/shop/app.wsgi", APPLICATION)
        self.file("srv/shop/shop/wsgi.py", APPLICATION)
        self.file("srv/shop/shop/chat.py", ASGI)
        self.file("srv/wiki/app.lua", "local pages = require('pages') return function() return 200, {}, pages[1] end")
        self.file("srv/wiki/pages.lua", "return {'from a group'}")
        self.file("srv/blog/index.php", "<?php echo 'from a group';")
        self.file("srv/blog/public/index.php", "<?php echo 'from a group';")
        self.file("srv/blog/programs/calendar.wsgi", APPLICATION)
        for name in ("srv/www", "srv/shop/public", "public"):
            self.file(f"{name}/index.html", "from a file")
        logs = path / "var/log/webserver"
        self.error_log = logs / "error.log"
        if ROOT:
            os.chown(logs, pwd.getpwnam(SERVER_USER).pw_uid, -1)

    def adapt(self, text: str) -> str:
        """With this directory's paths, a port and users that this machine has."""
        text = adjusted(text, str(self.directory))
        text = re.sub(r"^listen = .*?((?:, unix:.*)?)$", rf"listen = 127.0.0.1:{self.port}\1", text, flags=re.M)
        text = re.sub(r"^ *user = (?!www-data).*$", f"user = {GROUP_USER}" if ROOT else "", text, flags=re.M)
        if ROOT and "user = " not in text:
            text = re.sub(r"^( *language = .*)$", rf"\1\nuser = {GROUP_USER}", text, flags=re.M)
            text = text.replace("[server]\n", f"[server]\nuser = {SERVER_USER}\n")
        return text if ROOT else re.sub(r"^ *user = .*$", "", text, flags=re.M)

    def main(self, text: str) -> None:
        """The main file, with a run directory and an error log of its own, and the usual groups where a site needs them."""
        if not re.search(r"^run = ", text, re.M):
            text = text.replace("[server]\n", f"[server]\nrun = {self.directory}/run\n")
        self.configure(self.adapt(text))


@pytest.fixture
def example() -> Iterator[Example]:
    with directory() as path:
        one = Example(path)
        try:
            yield one
        finally:
            one.stop()


MAIN = "include = {}-enabled/*.conf\n[server]\nlisten = *:80\nuser = www-data\n"
GROUPS = (
    "[groups]\n[[shop]]\nlanguage = python\napplication = /srv/shop/app.wsgi\nuser = shop\n"
    "[[blog]]\nlanguage = php\nuser = blog\n[[pages]]\nlanguage = python\nuser = shop\n"
)
SITES = "[sites]\n[[all]]\nhosts = *\nroot = /srv/blog\nindex = index.php,\n[[[routes]]]\n"


@pytest.mark.parametrize(("page", "kind", "text"), CONFIGURATIONS)
def test_a_configuration_is_served(example: Example, page: str, kind: str, text: str) -> None:
    what, _, name = kind.partition(" ")
    here = example.directory / "etc/webserver"
    if what == "group":
        (here / f"groups-enabled/{name}.conf").write_text(example.adapt(text))
        route = ".php" if "language = php" in text else "/"
        example.main(MAIN.format("groups") + SITES + f"{route} = group:{name}\n")
    elif what == "companion":
        text = text.replace("after = redis, migrate", "after = ,")
        (here / f"companions-enabled/{name}.conf").write_text(example.adapt(text))
        example.main(MAIN.format("companions") + SITES + "/ = files\n")
    elif what == "site":
        (here / f"sites-enabled/{name}.conf").write_text(adjusted(text, str(example.directory)))
        example.main(MAIN.format("sites") + GROUPS)
    else:
        # A page's main file has no sites where it takes them from a directory.
        assert what == "file"
        example.main(text if "[sites]" in text else text + "\n[sites]\n[[files]]\nhosts = *\nroot = /srv/www\n")
    example.start()
    assert all(group["state"] == "running" for group in example.status()["groups"])
    if what == "companion":
        [companion] = example.status()["companions"]
        assert companion["ready"] or companion["next_run"]
        return
    hosts = re.findall(r"^ *hosts = ([^,\n]*)", example.config_file.read_text() + text, re.M)
    answers = [example.get("/", Host=host.replace("*", "any.example.org")) for host in dict.fromkeys(hosts)]
    assert answers
    for answer in answers:
        assert (answer.status, answer.body[:5]) == (200, b"from "), answer
    for prefix in re.findall(r"^(/[a-z/]+) = (?:group|script):", text, re.M):
        assert example.get(prefix).body == b"from a group"
    if ".php = " in text:
        host = next(host for host in hosts if host.startswith(("blog", "*")))
        assert example.get("/index.php", Host=host.replace("*", "any")).status in (200, 404)


def test_the_plugin_of_the_page_about_plugins_works(example: Example) -> None:
    """Built by its command, with the header where `make install-header` puts it, and named in its group's file."""
    place = example.directory / "srv/capitals"
    place.mkdir()
    prefix = example.directory / "usr/local"
    subprocess.run(["make", "-s", "-C", TREE, "install-header", f"PREFIX={prefix}"], check=True)
    (place / "capitals.c").write_text(PLUGIN["plugin"])
    command = PLUGIN["build"].replace("/usr/local", str(prefix)).replace("cc ", "cc -Wall -Wextra -Werror ")
    subprocess.run(["/bin/sh", "-ec", " ".join([command.strip(), *SANITIZE_FLAGS])], cwd=place, check=True)
    here = example.directory / "etc/webserver"
    (here / "groups-enabled/capitals.conf").write_text(example.adapt(PLUGIN["group"]))
    example.main(MAIN.format("groups") + SITES + "/ = group:capitals\n")
    example.start()
    assert example.request("POST", "/", b"in small letters").body == b"IN SMALL LETTERS"


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_does_what_the_page_says(example: Example, tmp_path: Path, line: str) -> None:
    """By a shell, with our programs on its path; without --config they take this example's file."""
    text = "[server]\nlisten = *:80\nuser = www-data\n[logs]\nerror_log = /var/log/webserver/error.log\n"
    job = "[companions]\n[[cleanup]]\ncommand = /bin/true,\nuser = shop\nat = 03:15\n"
    example.main(text + GROUPS + job + SITES + "/ = group:shop\n")
    for name in ("webserverd", "webserverctl"):
        wrapper = tmp_path / name
        wrapper.write_text(f'#!/bin/sh\nexec {program(name)} --config {example.config_file} "$@"\n')
        wrapper.chmod(0o755)
    line = line.replace(" --config /srv/web.conf", "")
    if line.startswith("webserver-build-plugin"):
        # With a Python that is here, and beside nobody's plugins.
        words = [program("webserver-build-plugin"), *line.split()[1:], "--output", f"{tmp_path}/python.so"]
        words[words.index("--interpreter") + 1] = "/usr/bin/python3"
        done = subprocess.run(words, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/python.so\n", "")
        return
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    if "--foreground" in line:
        with subprocess.Popen(["/bin/sh", "-c", f"exec {line}"], env=environment, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            assert any(said == b"ready\n" for said in process.stderr)
            assert example.get("/").body == b"from a group"
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert process.wait() == 0
        return
    if line.startswith("webserverctl"):
        example.start()
        workers = sorted(example.pids("worker"))
        shop = example.pids("worker", "shop")
    result = subprocess.run(
        ["/bin/sh", "-c", line], env=environment, capture_output=True, text=True, timeout=30 * SLOWNESS
    )
    if "audit" in line:
        # All groups of this example are one user, who reaches what is hers.
        assert f"group shop as user {GROUP_USER if ROOT else getpass.getuser()}: " in result.stdout
        assert result.returncode == int("can be reached and should not be" in result.stdout), result.stdout
        return
    assert result.returncode == 0, result.stderr
    if "idle_timeout" in line:
        assert re.fullmatch(r"idle_timeout = 75s +# default\n", result.stdout)
    elif "-t" in line.split():
        assert "the configuration is right" in result.stderr
    elif "worker" in line:
        assert sorted(map(int, result.stdout.split())) == workers
    elif "restart" in line:
        assert shop
        assert not set(shop) & set(example.pids("worker", "shop"))
        assert example.get("/").body == b"from a group"
    elif "upgrade" in line:
        wait_until(
            lambda: "before" not in [one["name"] for one in example.status()["processes"]], "the old program stays"
        )
        assert not set(workers) & set(example.pids("worker"))
        assert example.get("/").body == b"from a group"
    elif "stack" in line:
        assert all(str(pid) in result.stdout for pid in shop), result.stdout
    elif "start cleanup" in line:
        assert example.status()["companions"][0]["state"] == "waiting"
    else:
        assert line == "webserverctl reload"
        assert sorted(example.pids("worker")) == workers
