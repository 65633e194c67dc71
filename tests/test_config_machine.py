"""What the checker asks of the machine, and the rules that depend on users: as root and without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from config_machine import PlainMachine
from serving import directory

from webserver.config import ConfigErrors, languages, load, sight
from webserver.config.files import FileProblem, read_environment, read_types
from webserver.config.machine import Machine, User
from webserver.config.options import MIME_TYPES
from webserver.config.sight import READ, SEARCH, WRITE

STRANGER = User("stranger", 4999, 4999, frozenset({4999}))
MEMBER = User("member", 4998, 4998, frozenset({4998, os.getegid()}))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of one's own whose path is short enough for sockets below it; pytest's may not be."""
    with directory() as path:
        yield path


@pytest.fixture
def machine() -> Iterator[Machine]:
    one = Machine()
    yield one
    one.close()


@pytest.mark.root
def test_denied_looks_at_each_directory(place: Path, machine: Machine) -> None:
    inner = place / "a" / "b"
    inner.mkdir(parents=True)
    file = inner / "f"
    file.write_text("")
    file.chmod(0o640)
    assert "may not read" in machine.denied(str(file), STRANGER, READ)
    assert machine.denied(str(file), MEMBER, READ) == ""
    assert "may not write" in machine.denied(str(file), MEMBER, WRITE)
    (place / "a").chmod(0o700)
    assert machine.denied(str(inner), STRANGER, SEARCH) == f"user stranger may not search {place}/a (mode 700)"
    assert machine.missing(str(inner), "file", STRANGER) == f"user stranger may not search {place}/a (mode 700)"
    (place / "a").chmod(0o711)
    assert machine.denied(str(inner), STRANGER, SEARCH) == ""
    assert "write in" in machine.denied(str(inner), STRANGER, WRITE | SEARCH)
    # An access control list counts, as it does for the kernel: it is the user who tries.
    inner.chmod(0o700)
    os.chown(inner, STRANGER.uid, -1)
    assert machine.denied(str(inner), STRANGER, WRITE | SEARCH) == ""


def test_files_without_a_name(place: Path, machine: Machine) -> None:
    assert sight.unnamed(str(place)) == ""
    assert "/proc takes no files without a name (O_TMPFILE): " in sight.unnamed("/proc")
    if os.geteuid() == 0:
        place.chmod(0o755)
        assert "Permission denied" in machine.unnamed(str(place), STRANGER)
        os.chown(place, STRANGER.uid, STRANGER.gid)
        assert machine.unnamed(str(place), STRANGER) == ""


def test_missing_names_the_first_that_is_not_there(place: Path) -> None:
    assert sight.missing("app", str(place / "a/b/c"), "file") == f"{place}/a does not exist"
    assert sight.missing("app", str(place), "file") == f"{place} is not a file"
    assert sight.missing("app", MIME_TYPES, "directory") == f"{MIME_TYPES} is not a directory"
    assert sight.missing("app", MIME_TYPES, "file") == ""
    assert sight.missing("app", os.devnull, "device") == ""


def test_facts_of_this_machine() -> None:
    machine = Machine()
    assert machine.cores() >= 1
    assert 1 <= machine.lowest_port() <= 65536
    assert machine.open_files() >= 256
    root = machine.user("root")
    assert root is not None
    assert root.uid == 0
    assert machine.user("no-such-user") is None
    assert "root" not in machine.user_names()
    assert machine.gid("no-such-group") is None
    assert machine.own_name()


def configuration(directory: Path, group: str = "") -> Path:
    (directory / "plugin.so").write_text("")
    path = directory / "w.conf"
    path.write_text(
        "[server]\nuser = www-data\nrun = run\n"
        f"[groups]\n[[g]]\nlanguage = echo\nplugin = plugin.so\nuser = app\n{group}"
    )
    return path


def test_as_root_users_are_resolved(place: Path) -> None:
    config = load(str(configuration(place)), PlainMachine(root=True)) if os.geteuid() == 0 else None
    if config is None:
        return  # the files here are not root's, and root would rightly not read what their owner can change
    assert (config.server.user, config.server.group) == ("www-data", "www-data")
    assert (config.groups[0].user, config.groups[0].group) == ("app", "app")


class Writers(PlainMachine):
    """Root, with a group whose user is the one who owns the files of this test."""

    def user(self, name: str) -> User | None:
        return User(name, os.geteuid() or 4711, 4711, frozenset({4711}))


@pytest.mark.parametrize("who", ["others", "owner"])
def test_root_takes_no_orders_from_a_group(place: Path, who: str) -> None:
    path = configuration(place)
    if who == "others":
        path.chmod(0o666)
    elif os.geteuid() == 0:
        os.chown(path, 4711, -1)
    with pytest.raises(ConfigErrors, match=r"can be written by group g .user app."):
        load(str(path), Writers(root=True))


def test_without_root_ones_own_name_is_accepted(place: Path) -> None:
    path = configuration(place)
    path.write_text(path.read_text().replace("www-data", "app"))
    run = place / "run"
    config = load(str(path), PlainMachine())
    assert config.server.user == config.groups[0].user == ""
    assert config.server.run == str(run)


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_environment_file(place: Path) -> None:
    path = private(place / "secret.env", '# c\n\nA=1\n B = two words # no comment\nC="quoted "\nD=\nE=\'\n')
    assert read_environment(str(path)) == (
        ("A", "1"),
        ("B", "two words # no comment"),
        ("C", "quoted "),
        ("D", ""),
        ("E", "'"),
    )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666])
def test_an_environment_file_is_private(place: Path, mode: int) -> None:
    path = private(place / "secret.env", "A=1\n", mode)
    with pytest.raises(FileProblem) as caught:
        read_environment(str(path))
    assert f"mode is {mode:03o}" in caught.value.problems[0][1]


def test_an_environment_file_is_no_link_and_in_no_open_directory(place: Path) -> None:
    path = private(place / "secret.env", "A=1\n")
    (place / "link").symlink_to(path)
    with pytest.raises(FileProblem) as caught:
        read_environment(str(place / "link"))
    assert "cannot read" in caught.value.problems[0][1]
    place.chmod(0o777)
    with pytest.raises(FileProblem) as caught:
        read_environment(str(path))
    assert "can be written by others" in caught.value.problems[0][1]


def test_mistakes_in_an_environment_file_have_lines_and_tell_no_secrets(place: Path) -> None:
    path = private(place / "secret.env", "A=1\nexport hunter2\nA=hunter2\n1=hunter2\n")
    with pytest.raises(FileProblem) as caught:
        read_environment(str(path))
    assert [place.line for place, _ in caught.value.problems] == [2, 3, 4]
    assert "hunter2" not in str(caught.value.problems)


def test_variables_of_both_places(place: Path) -> None:
    private(place / "secret.env", "A=1\nB=2\n")
    path = configuration(place, "environment_file = secret.env\n[[[environment]]]\nC = 3\n")
    path.write_text(path.read_text().replace("www-data", "app"))
    assert load(str(path), PlainMachine()).groups[0].environment == (("C", "3"), ("A", "1"), ("B", "2"))
    path.write_text(path.read_text() + "A = 3\n")
    with pytest.raises(ConfigErrors, match=r"A is also in .*secret\.env"):
        load(str(path), PlainMachine())


def test_media_types() -> None:
    types = dict(read_types(MIME_TYPES))
    assert types["html"] == "text/html"
    assert types["js"] == "text/javascript"
    assert types["svg"] == "image/svg+xml"
    assert types["woff2"] == "font/woff2"
    assert types["wasm"] == "application/wasm"
    assert len(types) > 100


def test_a_language_without_its_plugin(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes with the server, but was left out where it was built."""
    monkeypatch.setattr(languages, "PLUGIN_PLACES", (str(place / "{language}.so"),))
    file = place / "server.conf"
    file.write_text("[groups]\n[[g]]\nlanguage = lua\n[sites]\n[[s]]\nhosts = *\n[[[routes]]]\n/ = group:g\n")
    with pytest.raises(ConfigErrors) as caught:
        load(str(file), PlainMachine())
    assert f"{place}/lua.so does not exist; the plugin for lua is not built or not installed" in str(caught.value)
