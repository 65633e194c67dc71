"""Workers that crash: which request did it and where it was, in its language and in C, is in the log; who only ran
beside it is not blamed; and nothing of the telling keeps a process that is lost alive.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from serving import SLOWNESS, Server, alive, directory, wait_until
from tunnels import build_plugin

# A sanitizer has a handler of its own for these signals, and its report of each would be a failure here.
pytestmark = pytest.mark.unsanitized

PYTHON = """
import ctypes, os, time

def fault():
    ctypes.string_at(8)  # fault

def ends():
    os.abort()  # ends

def there(name):
    return os.path.exists(os.path.join(os.environ["SCRATCH"], name))

def note(name):
    open(os.path.join(os.environ["SCRATCH"], name), "w").close()

def wait():
    note("waits")
    while not there("go"):
        time.sleep(0.005)

def fault_with():
    while not there("waits"):
        time.sleep(0.005)
    fault()

def child():
    pid = os.fork()
    if not pid:
        os.abort()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -6

WAYS = {"fault": fault, "ends": ends, "wait": wait, "fault-with": fault_with, "child": child}
"""
WSGI = (
    PYTHON
    + """
def application(environ, start_response):
    WAYS.get(environ["PATH_INFO"].strip("/"), int)()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]
"""
)
ASGI = (
    PYTHON
    + """
async def application(scope, receive, send):
    WAYS.get(scope["path"].rpartition("/")[2], int)()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
"""
)
PSGI = """
use strict;
use warnings;
use POSIX ();

my %way = (
    fault => sub {
        my $text = unpack 'p', pack 'Q', 8;  # fault
    },
    ends => sub {
        POSIX::abort();  # ends
    },
);
sub { my $way = $way{(split '/', $_[0]{PATH_INFO})[1] // ''}; $way->() if $way; [200, ['Content-Type' => 'text/plain'], [$$]] };
"""
RACK = """
require "fiddle"

WAYS = {
  "fault" => lambda {
    Fiddle::Pointer.new(8)[0]  # fault
  },
  "ends" => lambda {
    Fiddle::Function.new(Fiddle.dlopen(nil)["abort"], [], Fiddle::TYPE_VOID).call  # ends
  }
}.freeze

run ->(env) { WAYS[env["PATH_INFO"].delete("/")]&.call; [200, {}, [Process.pid.to_s]] }
"""
PHP = """<?php
function fault() {
    FFI::cdef('size_t strlen(size_t);')->strlen(8);  # fault
}

function ends() {
    FFI::cdef('void abort(void);')->abort();  # ends
}

function deep() {
    for ($deep = [], $i = 0; $i < 200000; $i++) $deep = [$deep];
    serialize($deep);  # deep
}

match (trim($_SERVER['PATH_INFO'], '/')) { 'fault' => fault(), 'ends' => ends(), 'deep' => deep(), default => null };
echo getmypid();
"""
LUA = """
local function pid()
  return io.open("/proc/self/stat"):read("n")
end

local ways = {}

function ways.fault()
  io.popen("exec kill -SEGV " .. pid()):read("a") -- fault
end

function ways.ends()
  io.popen("exec kill -ABRT " .. pid()):read("a") -- ends
end

return function(env)
  local way = ways[env.PATH_INFO:sub(2)]
  if way then
    way()
  end
  return 200, { ["Content-Type"] = "text/plain" }, tostring(pid())
end
"""


@dataclass(frozen=True)
class Language:
    name: str
    language: str
    text: str
    place: str  # where a line is in a stack
    more: str = ""
    signal: dict[str, str] | None = None  # what its own handler makes of it

    @property
    def file(self) -> str:
        return f"crash.{self.name}"

    def line_of(self, way: str) -> str:
        (number,) = [at for at, text in enumerate(self.text.splitlines(), 1) if re.search(rf"(#|--) {way}$", text)]
        return self.place.format(line=number)


LANGUAGES = {
    one.name: one
    for one in (
        Language("python", "python", WSGI, r'crash\.python", line {line}\b'),
        Language("asgi", "python", ASGI, r'crash\.asgi", line {line}\b', "interface = asgi\nthreads = 3"),
        Language("perl", "perl", PSGI, r"crash\.perl:{line}\b"),
        Language("ruby", "ruby", RACK, r"crash\.ruby:{line}\b", "threads = 2", {"fault": "SIGABRT"}),
        Language("php", "php", PHP, r"crash\.php:{line}\b", "[[[ini]]]\nffi.enable = 1\nmemory_limit = 1G"),
        Language("lua", "lua", LUA, r"crash\.lua:{line}\b"),
    )
}
SENT = ("lua",)  # its signals come from elsewhere, so there is no address


@pytest.fixture(scope="module")
def fragile() -> Iterator[Server]:
    with directory() as path:
        server = Server(path)
        groups = routes = ""
        for one in LANGUAGES.values():
            server.file(f"work/{one.file}", one.text)
            groups += (
                f"[[{one.name}]]\nlanguage = {one.language}\napplication = work/{one.file}\nprocesses = 1\n"
                f"quarantine = 0\n{one.more}\n"
            )
            routes += f"/{one.name} = group:{one.name}\n"
        server.write(
            f"[groups]\n{groups}[[plain]]\nlanguage = echo\nprocesses = 1\n"
            f"[sites]\n[[all]]\nhosts = *\n[[[routes]]]\n/ = group:plain\n{routes}"
        )
        server.allow(".")
        server.start()
        yield server
        server.stop()


def logged(server: Server, pattern: str) -> re.Match[str]:
    found: re.Match[str] = wait_until(lambda: re.search(pattern, server.log(), re.M), f"not logged: {pattern}")
    return found


def restarted(server: Server, path: str, before: int) -> int:
    """The worker that serves instead."""

    def other() -> int:
        answer = server.get(path)
        return int(answer.text) if answer.status == 200 and answer.text != str(before) else 0

    found: int = wait_until(other, "it is not replaced")
    return found


@pytest.mark.parametrize("way", ["fault", "ends"])
@pytest.mark.parametrize("name", LANGUAGES)
def test_the_last_stack_of_a_worker(fragile: Server, name: str, way: str) -> None:
    one = LANGUAGES[name]
    pid = int(fragile.get(f"/{name}/").text)
    begun = time.monotonic()
    assert fragile.get(f"/{name}/{way}?q=1").status == 502
    assert time.monotonic() - begun < 6 * SLOWNESS
    sent = {"fault": "SIGSEGV", "ends": "SIGABRT"}[way]
    where = r" at address 0x8" if way == "fault" and name not in SENT else ""
    request = "" if name == "asgi" else rf" in GET /{name}/{way}\?q=1 \(slot \d, request (\w+)\)"
    said = logged(fragile, rf"group {name} {pid} (?:site=all request=\w+)?: crashes by {sent}{where}{request}")
    mine = rf"^.* group {name} {pid}\b.*"
    logged(fragile, mine + one.line_of(way))
    logged(fragile, mine + r": in C \(innermost first\):")
    logged(fragile, mine + r"\.so")
    killed = (one.signal or {}).get(way, sent)
    logged(fragile, rf"worker 0 of group {name} \(process {pid}\): killed by {killed}")
    if request:
        logged(fragile, rf"site=all request={said[1]}: 502: group \"{name}\": .* {killed}; .*, in which it crashed")
    restarted(fragile, f"/{name}/", pid)


def test_a_thread_s_stack_that_has_run_over(fragile: Server) -> None:
    """The handler has one of its own."""
    pid = int(fragile.get("/php/").text)
    assert fragile.get("/php/deep").status == 502
    logged(fragile, rf"group php {pid} site=all request=\w+: crashes by SIGSEGV at address \w+ in GET /php/deep")
    logged(fragile, rf"group php {pid}\b.*" + LANGUAGES["php"].line_of("deep"))
    restarted(fragile, "/php/", pid)


def test_a_plugin_without_a_language(fragile: Server) -> None:
    assert fragile.get("/crash").status == 502
    logged(fragile, r"group plain \d+ site=all request=\w+: crashes by SIGABRT in GET /crash \(slot 0, request \w+\)")
    logged(fragile, r"group plain \d+: .*echo\.so")


def test_children_of_the_application_are_their_own(fragile: Server) -> None:
    """What an application has forked ends as it would have without us, and nothing is said of it."""
    before = fragile.log().count("crashes by")
    pid = int(fragile.get("/python/").text)
    assert fragile.get("/python/child").text == str(pid)
    assert fragile.log().count("crashes by") == before


CONFIG = """
[groups]
[[one]]
language = python
application = one.wsgi
processes = 1
{more}
[[[environment]]]
SCRATCH = {scratch}
[sites]
[[all]]
hosts = *
[[[routes]]]
/ = group:one
"""


def start(server: Server, text: str, more: str = "") -> None:
    scratch = server.directory / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    server.file("one.wsgi", text)
    server.write(CONFIG.format(more=more, scratch=scratch), "frontends = 1")
    server.allow(".")
    server.start()


def test_who_runs_beside_it_is_not_blamed(server: Server) -> None:
    """S1: of two requests in one worker the one that crashed is in quarantine; the other one is only told of it."""
    start(server, WSGI, "threads = 2\nquarantine = 1")
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(server.get, "/wait")
        assert server.get("/fault-with").status == 502
        assert beside.result().status == 502
    logged(server, r"502: group \"one\": .* killed by SIGSEGV; it was running this request, in which it crashed")
    logged(server, r"502: group \"one\": .* killed by SIGSEGV; it was running this request beside another, in which")
    server.file("scratch/go", "")
    wait_until(lambda: server.get("/").status == 200, "it is not replaced")
    assert server.get("/wait").status == 200
    assert server.get("/fault-with").status == 503


@pytest.mark.parametrize("preload", ["", "preload = one.wsgi"])
def test_what_crashes_while_it_starts(server: Server, preload: str) -> None:
    start(server, "import ctypes\ndef deep():\n    ctypes.string_at(8)\ndeep()\n", preload)
    said = logged(server, r"group one (\d+): crashes by SIGSEGV at address 0x8 while it starts")
    logged(server, rf'group one {said[1]}: .*one\.wsgi", line 3 in deep')
    logged(server, rf"group one {said[1]}: in C \(innermost first\):")
    wait_until(lambda: not alive(int(said[1])), "it goes on")


FAULTHANDLER = "import faulthandler\nfaulthandler.enable()\n" + WSGI


def test_a_handler_of_the_application_s_own(server: Server) -> None:
    """It comes first, and ours after it."""
    start(server, FAULTHANDLER)
    assert server.get("/fault").status == 502
    logged(server, r"group one \d+: Fatal Python error: Segmentation fault")
    logged(server, r"group one \d+ site=all request=\w+: crashes by SIGSEGV")


CRASHING = """
[groups]
[[one]]
language = crashing
plugin = crashing.so
processes = 1
[sites]
[[all]]
hosts = *
root = public
"""


def test_telling_that_does_not_end(server: Server) -> None:
    """It ends all the same, by what it crashed by."""
    build_plugin(server.directory, "crashing")
    server.write(CRASHING)
    server.allow(".")
    server.start()
    logged(server, r"group one \d+: crashes by SIGSEGV while it starts")
    logged(server, r"worker 0 of group one .* killed by SIGSEGV")
    assert "SIGALRM" not in server.log()
