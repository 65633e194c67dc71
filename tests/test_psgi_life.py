"""Perl's processes: exit, fork, signals, what hangs, what grows, and how applications are found and loaded."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

import pytest
from psgi_clauses import noted, prepare, started, table
from serving import KEPT_KB, SLOWNESS, Server, alive, anonymous, wait_until
from test_psgi_answers import cut, said


@pytest.fixture(scope="module")
def app() -> Iterator[Server]:
    with started() as one:
        one.allow(r"site=all request=")
        yield one


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [("3", 500, 3), ("0", 500, 0), ("4,sort", 500, 4), ("5,eval", 500, 5), ("7,getline", 500, 4), ("2,closed", 200, 2)],
)  # fmt: skip
def test_exit_ends_the_request_and_not_the_worker(app: Server, how: str, status: int, code: int) -> None:
    pids = app.pids("worker")
    for _ in range(3):
        assert app.get(f"/exit?{how}").status == status
    said(app, f"the application called exit({code}), which ends its request")
    assert "not given back" not in app.get("/seen").text
    assert app.pids("worker") == pids
    if status == 500:
        assert noted(app)[-1] == ("closed by exit" if how == "7,getline" else "unwound")


def test_exit_in_a_destructor(server: Server) -> None:
    prepare(server).start()
    [pid] = server.pids("worker")
    assert server.get("/exit?1,destroy").status == 500
    said(server, "the application called exit(6)")
    assert server.get("/hello").body == b"hello, world"
    server.ctl("restart", "app")
    wait_until(lambda: not alive(pid), "the old worker has not ended")
    assert f"end of {pid}" in noted(server)
    assert "exited with status" not in server.log()


def test_exit_in_the_middle_of_a_stream(app: Server) -> None:
    cut(app, "/exit?9,stream")
    said(app, "the application called exit(9)")


def test_children_of_the_application_end_as_such(app: Server) -> None:
    [pid] = app.pids("worker")
    before = len(noted(app))
    assert app.get("/fork").text == f"{pid} 5 5 7 from a program\n"
    # Both have run END blocks, as children of perl programs do.
    ends = [line for line in noted(app)[before:] if line.startswith("end of")]
    assert len(set(ends)) == 2
    assert f"end of {pid}" not in ends
    app.get("/fork?die")
    said(app, "in the child")
    assert app.get("/child").text == "15 2 1 13"
    assert app.pids("worker") == [pid]


def test_workers_have_random_numbers_of_their_own(server: Server) -> None:
    prepare(server, processes=2, lines="preload = work/lib/Lent.pm, work/clauses.psgi")
    server.file("work/lib/Lent.pm", "package Lent; rand; our $by = $$; sub word { return $by } 1;\n")
    server.start()
    seen: dict[str, str] = {}
    while len(seen) < 2:
        pid, _, numbers = server.get("/random").text.partition(" ")
        seen.setdefault(pid, numbers)
    assert len(set(seen.values())) == 2


def test_end_blocks_and_destructors_run_once_in_each_worker(server: Server) -> None:
    prepare(server, processes=2, lines="preload = work/clauses.psgi").start()
    pids = server.pids("worker")
    manager = server.pids("manager")
    server.ctl("restart", "app")
    wait_until(lambda: not any(alive(pid) for pid in [*pids, *manager]), "the old generation has not ended")
    lines = noted(server)
    for pid in pids:
        assert lines.count(f"end of {pid}") == 1
        assert lines.count(f"destroyed in {pid} DESTRUCT") == 1
    assert f"end of {manager[0]}" not in lines


# A driver that notes who takes leave of its database, as those of servers do when a handle is destroyed.
DRIVER = """
package DBD::Leaving;
our $driver;
sub driver { return $driver ||= DBI::_new_drh('DBD::Leaving::dr', { Name => 'Leaving', Version => 1 }) }
package DBD::Leaving::dr;
our $imp_data_size = 0;
sub connect {
    my ($driver, $name) = @_;
    my ($outer, $inner) = DBI::_new_dbh($driver, { Name => $name });
    $inner->STORE(Active => 1);
    return $outer;
}
package DBD::Leaving::db;
our $imp_data_size = 0;
sub STORE { my ($one, $name, $value) = @_; return $name eq 'AutoCommit' || $one->SUPER::STORE($name, $value) }
sub disconnect {
    my ($one) = @_;
    open my $file, '>>', __FILE__ . '.left' or die;
    print $file $one->FETCH('Name'), " by $$\\n";
    return $one->STORE(Active => 0);
}
sub DESTROY { my ($one) = @_; $one->disconnect if $one->FETCH('Active') }
package DBD::Leaving::st;
our $imp_data_size = 0;
1;
"""
PRELOADED = """
use DBI;
our $shared = DBI->connect('dbi:Leaving:shared', '', '');
our $own;
Webserver::after_fork(sub { $own = DBI->connect('dbi:Leaving:own', '', '') });
1;
"""


def test_no_worker_ends_the_database_connection_of_all(server: Server) -> None:
    prepare(server, processes=2, lines=f"preload = {server.directory}/work/lib/Preloaded.pm, work/clauses.psgi")
    left = server.file("work/lib/DBD/Leaving.pm", DRIVER).with_suffix(".pm.left")
    server.file("work/lib/Preloaded.pm", PRELOADED)
    left.touch()
    left.chmod(0o666)
    server.start()
    pids = server.pids("worker")
    server.ctl("restart", "app")
    wait_until(lambda: not any(alive(pid) for pid in pids), "the old workers have not ended")
    assert sorted(left.read_text().splitlines()) == sorted(f"own by {pid}" for pid in pids)


def test_a_stuck_request_is_shown_in_perl(server: Server) -> None:
    prepare(server, processes=1, lines="request_timeout = 0.3s").start()
    server.allow("request_timeout", "504", "stack")
    for how, frames in {
        "sort": [r"life\.pl:\d+ eval \{\}", r"life\.pl:\d+ Stuck::inner", r"life\.pl:\d+ Stuck::outer"],
        "loop": [r"life\.pl:\d+ Stuck::inner", r"life\.pl:\d+ Stuck::outer", r"clauses\.psgi:\d+ \S*__ANON__"],
    }.items():
        [pid] = server.pids("worker")
        assert server.get(f"/hang?{how}").status == 504
        wait_until(lambda pid=pid: server.pids("worker") not in ([pid], []), "the worker is not replaced")
        stack = [line.partition(": ")[2] for line in server.log().splitlines() if f" {pid} site=" in line]
        begin = stack.index("Perl stack (innermost first):")
        found = iter(stack[begin + 1 :])
        for frame in frames:
            assert any(re.search(frame, line) for line in found), (how, frame, stack)
    assert server.get("/hello").body == b"hello, world"


KINDS = ("array", "die", "exit", "file", "lines", "stream", "delayed", "keep")


def nothing_grows(app: Server, kinds: tuple[str, ...], count: int) -> None:
    """`count` requests of each kind, after some that make what is kept."""
    [pid] = app.pids("worker")

    def some(number: int) -> None:
        requests = b"".join(
            f"POST /leak?{how} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".encode() for how in kinds
        )
        with app.connect() as sock:
            for _ in range(number // 10):
                sock.sendall(requests * 10)
                answers = 0
                while answers < 10 * len(kinds):
                    answers += sock.recv(1 << 20).count(b"HTTP/1.1 ")

    some(50 * SLOWNESS)
    before, descriptors = anonymous(pid), len(os.listdir(f"/proc/{pid}/fd"))
    some(count)
    assert app.pids("worker") == [pid]
    assert len(os.listdir(f"/proc/{pid}/fd")) <= descriptors + 2
    assert anonymous(pid) - before < 300 + KEPT_KB


def test_nothing_grows(app: Server) -> None:
    nothing_grows(app, KINDS, 250)


@pytest.mark.long
@pytest.mark.parametrize("how", KINDS)
def test_nothing_grows_for_long(app: Server, how: str) -> None:
    nothing_grows(app, (how,), 20_000)


# ---- how applications are found


def test_preload(server: Server) -> None:
    """The value of application is the application itself: it is loaded once, in the manager."""
    prepare(server, processes=2, lines="preload = Lent, work/clauses.psgi").start()
    [manager] = server.pids("manager")
    for _ in range(4):
        seen = table(server.get("/process"))
        assert (seen["loads"], seen["lent"]) == ("1", "found")
        assert int(seen["pid"]) in server.pids("worker")
    assert server.logged(f"{manager}: a line on standard output").count("a line on standard output") == 1


AFTER = """
use strict; use warnings;
my $opened = "in $$";
my @seen;
Webserver::after_fork(sub { $opened = "in $$"; push @seen, 'first' }, sub { push @seen, 'second' });
sub { return [200, ['Content-Type' => 'text/plain'], ["$$ $opened @seen"]] }
"""


def test_hooks_after_the_fork(server: Server) -> None:
    prepare(server, processes=2, lines="preload = work/clauses.psgi")
    server.file("work/clauses.psgi", AFTER)
    server.start()
    seen = {server.get("/").text for _ in range(20)}
    assert seen == {f"{pid} in {pid} first second" for pid in server.pids("worker")} or len(seen) == 1
    server.file("work/clauses.psgi", "Webserver::after_fork(sub { die qq(no database\\n) }); sub {}")
    result = server.ctl("restart", "app", check=False)
    server.allow("no database", "did not load")
    assert result.returncode != 0
    assert "no database" in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sub { ", r"Missing right curly .* at \S*/work/clauses\.psgi line 1"),
        ("use Not::There;\nsub {}", r"Can't locate Not/There\.pm in @INC .* at \S*/work/clauses\.psgi line 1"),
        ("1;", r'work/clauses\.psgi: its last value is "1", expected the application, a code reference'),
        ("{ ref => 1 }", r"its last value is .*, expected the application, a code reference"),
        ("die { code => 3 };", r"code => 3"),
        ("exit 3;", r"work/clauses\.psgi called exit\(3\)"),
        ("\n\ndie 'not today';", r"not today at \S*/work/clauses\.psgi line 3"),
    ],
)
@pytest.mark.parametrize("preload", ["", "preload = work/clauses.psgi"])
def test_applications_that_do_not_load(server: Server, text: str, told: str, preload: str) -> None:
    prepare(server, lines=preload)
    server.file("work/clauses.psgi", text)
    server.allow(r".")
    server.start()
    assert b"group app has failed to start" in server.stderr
    told = told.replace(r"work/clauses\.psgi called", "(work/clauses.psgi|a module or file of preload) called")
    wait_until(lambda: re.search(told, server.log()), "the log does not say why")
    assert re.search(told, server.status()["groups"][0].get("message", "") + server.stderr.decode())


@pytest.mark.parametrize(
    "text",
    [
        "package Thing; sub new { bless {}, shift } sub to_app { return sub { [200, [], ['to_app']] } } Thing->new",
        "package Thing; use overload '&{}' => sub { sub { [200, [], ['to_app']] } }; bless {}",
        "sub app { [200, [], ['to_app']] } \\&app",
        "my $app = bless sub { [200, [], ['to_app']] }, 'Thing'; $app",
    ],
)
def test_objects_as_applications(server: Server, text: str) -> None:
    prepare(server)
    server.file("work/clauses.psgi", text)
    server.start()
    assert server.get("/").text == "to_app"


FILES = """
[groups]
[[app]]
language = perl
processes = 1
arguments = not, these
[sites]
[[all]]
hosts = *
root = public
[[[routes]]]
/ = files
.psgi = group:app
"""

REQUESTED = """
use strict; use warnings;
use FindBin;
require './part.pl';
our $count = 0;
my ($arguments, $bin) = (scalar @ARGV, $FindBin::Bin);
sub named { return 'WORD' }
sub { my ($env) = @_; $count++; return [200, ['Content-Type' => 'text/plain'], [join ' ', named(), part(), $count,
    $bin, readlink('/proc/self/cwd'), $arguments, __PACKAGE__, $env->{SCRIPT_NAME}, $env->{PATH_INFO}]] }
"""


def test_requested_files(server: Server) -> None:
    server.write(FILES)
    for name in ("one", "two"):
        server.file(f"public/{name}/app.psgi", REQUESTED.replace("WORD", name))
        server.file(f"public/{name}/part.pl", f"sub part {{ return 'part-{name}' }} 1;")
    server.file("public/broken.psgi", "sub {")
    server.allow("Missing right curly", "syntax error")
    server.start()
    for count in (1, 2):
        for name in ("one", "two"):
            where = str(server.directory / "public" / name)
            mangled = re.sub(r"[^A-Za-z0-9_]", lambda found: f"_{ord(found[0]):02x}", where + "/app.psgi")
            assert server.get(f"/{name}/app.psgi/more").text.split(" ") == [
                name, f"part-{name}", str(count), where, where, "0", f"Plack::Sandbox::{mangled}",
                f"/{name}/app.psgi", "/more",
            ]  # fmt: skip
    # Loaded again when it has changed; what it defined before is gone, without a word.
    server.file("public/one/app.psgi", REQUESTED.replace("WORD", "changed"))
    assert server.get("/one/app.psgi").text.split(" ")[:3] == ["changed", "part-one", "1"]
    assert "redefined" not in server.log()
    assert server.get("/broken.psgi").status == 500
    said(server, "Missing right curly")
    server.file("public/broken.psgi", "sub { [200, ['Content-Type', 'text/plain'], ['mended']] }")
    assert server.get("/broken.psgi").text == "mended"
    assert server.get("/missing.psgi").status == 404
    shutil.move(server.directory / "public/broken.psgi", server.directory / "public/moved.psgi")
    assert server.get("/broken.psgi").status == 404
    assert server.get("/moved.psgi").text == "mended"
    (server.directory / "public/moved.psgi").chmod(0)
    assert server.get("/moved.psgi").status == 403
