"""Lua 5.4 through the real server: what the conformance suite, which is the same for all languages, does not ask."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import Server, wait_until

CONFIG = """
[groups]
[[lua]]
language = lua
{application}
processes = 1
arguments = one, --two
{more}
[[[environment]]]
COLOUR = green
[sites]
[[all]]
hosts = *
root = public
[[[routes]]]
{route} = group:lua
"""


def start(server: Server, code: str = "", more: str = "", **files: str) -> Server:
    """With `code` as the application; without it requested files are run."""
    application, route = ("application = work/app.lua", "/") if code else ("", ".lua")
    server.write(CONFIG.format(application=application, route=route, more=more))
    if code:
        server.file("work/app.lua", code)
    for name, text in files.items():
        server.file(f"work/{name}.lua", text)
    server.start()
    return server


ANSWERS = [
    ("return function() return 200, nil, 'a function' end", 200, b"a function"),
    ("return {run = function() return 200, nil, 'a table' end}", 200, b"a table"),
    ("function application() return 200, nil, 'a global' end", 200, b"a global"),
    ("return function() return '404 Not at all', {}, 'x' end", 404, b"x"),
    ("return function() return '201', {}, nil end", 201, b""),
    ("return function() return 200.0, {['X-N'] = {1, 'b'}}, function() end end", 200, b""),
    ("return function() return 200, {}, arg[0] .. arg[1] .. arg[2] end", 200, b"webserverone--two"),
    ("return function() return 200, {}, os.getenv('COLOUR') end", 200, b"green"),
    (
        "return function(env) return 200, {}, env.input:read() .. '|' .. tostring(env.input:read(1)) end",
        200,
        b"body|nil",
    ),
    (
        "return function(env) return 200, {}, env.input:read(0) .. env.input:read(3) .. '|' .. env.input:read(9) end",
        200,
        b"bod|y",
    ),
    ("return function(env) return 200, {}, tostring(rawget(_G, 'mine')) end", 200, b"nil"),
    (
        "return function() return 200, {}, coroutine.create(function() for i = 1, 3 do coroutine.yield(i .. ',') end end)"
        " end",
        200,
        b"1,2,3,",
    ),
    (
        "return function() local f = io.tmpfile() f:write('0123456789') f:seek('set', 4) return 200, {}, f end",
        200,
        b"456789",
    ),
]


def test_applications_and_their_answers(server: Server) -> None:
    start(server)
    for number, (code, status, body) in enumerate(ANSWERS):
        server.file(f"public/{number}.lua", "mine = 1 " + code)
        answer = server.request("POST", f"/{number}.lua", b"body")
        assert (answer.status, answer.body) == (status, body), f"{code}\n{server.log()}"


MISTAKES = [
    ("return nil", "the application returned no status"),
    ("return 'OK', {}", "the application returned no status"),
    ("return 200, 'text'", "the application returned a string as headers"),
    ("return 200, {}, 5", "the application returned a number as body"),
    ("return 200, {['X-A'] = true}", "the headers hold a boolean"),
    ("return 200, {['X A'] = 'b'}", "breaks a rule of HTTP"),
    ("return 1000", "breaks a rule of HTTP"),
    ("return 200, {}, function() return 5 end", "the body gave a number"),
    ("local f = io.tmpfile() f:close() return 200, {}, f", "the application returned a userdata as body"),
    ("error({code = 5})", "table: 0x"),
    ("error(nil)", "nil"),
    ("nothing.at_all()", ".lua:1: attempt to index a nil value (global 'nothing')"),
    ("local function deep() return deep() + 1 end deep()", "stack overflow"),
    ("return 200, {}, nil, function() error('in close') end", "in close"),
]


def test_mistakes_of_an_application(server: Server) -> None:
    """Each is told with its traceback, and the same process goes on."""
    server.allow("error", "traceback")
    start(server)
    workers = server.pids("worker")
    for number, (code, said) in enumerate(MISTAKES):
        server.file(f"public/{number}.lua", f"return function() {code} end")
        before = len(server.log())
        assert server.get(f"/{number}.lua").status == (200 if "in close" in code else 500), code
        wait_until(lambda said=said, before=before: said in server.log()[before:], f"{said} is not in the log")  # type: ignore[misc]
        wait_until(lambda before=before: "stack traceback:" in server.log()[before:], "no traceback")  # type: ignore[misc]
    assert server.pids("worker") == workers


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("return function( end", "app.lua:1: "),
        ("return 5", "app.lua returns no function and no table with a function run, and defines no application"),
        ("local m = require('missing')", "module 'missing' not found"),
    ],
)
def test_an_application_that_does_not_load(server: Server, code: str, said: str) -> None:
    server.allow("error", "traceback")
    start(server, code)
    wait_until(lambda: said in server.log(), f"{said} is not in the log")
    wait_until(lambda: "group lua has failed to start" in server.log(), "the failure is not in the log")


def test_requested_files_are_read_again_when_they_have_changed(server: Server) -> None:
    server.allow("error", "traceback")
    start(server)
    server.file(
        "public/a.lua", "count = (count or 0) return function() count = count + 1 return 200, {}, 'a' .. count end"
    )
    server.file("public/b.lua", "count = 100 return function(env) return 200, {}, 'b' .. count .. env.SCRIPT_NAME end")
    assert [server.get("/a.lua").body for _ in range(3)] == [b"a1", b"a2", b"a3"]
    assert server.get("/b.lua").body == b"b100/b.lua"
    assert server.get("/a.lua").body == b"a4"
    server.file("public/a.lua", "return function() return 200, {}, 'another' end")
    assert server.get("/a.lua").body == b"another"
    server.file("public/a.lua", "return function( end")
    assert server.get("/a.lua").status == 500
    server.file("public/a.lua", "return function() return 200, {}, 'mended' end")
    assert server.get("/a.lua").body == b"mended"
    assert server.get("/none.lua").status == 404
    os.chmod(server.directory / "public/b.lua", 0o600)
    assert server.get("/b.lua").status == (403 if os.geteuid() == 0 else 200)


def test_preloaded_modules_and_files_are_shared(server: Server) -> None:
    """What the manager has loaded is not loaded again; the application itself may be among it."""
    code = "local m = require('mine') return function() return 200, {}, m.pid .. ' ' .. m.read() end"
    read = "local function pid() local f <close> = io.open('/proc/self/stat') return f:read('n') end"
    start(
        server,
        f"{read} local loaded = pid() {code.replace('m.pid', 'm.pid .. [[ ]] .. loaded')}",
        "preload = mine, work/app.lua",
        mine=f"{read} return {{pid = pid(), read = pid}}",
    )
    module, application, worker = server.get("/").body.split()
    assert module == application == str(server.pids("manager", "lua")[0]).encode()
    assert worker == str(server.pids("worker", "lua")[0]).encode()


PID = "local function pid() local f <close> = io.open('/proc/self/stat') return f:read('n') end "
HOOKS = (
    PID
    + """
local opened, seen = "in " .. pid(), {}
webserver.after_fork(function() opened = "in " .. pid() end, function() seen[#seen + 1] = "second" end)
return function()
  webserver.after_fork(function() seen[2] = "at once" end)
  return 200, {}, ("%d %s %s"):format(pid(), opened, table.concat(seen, " "))
end
"""
)


@pytest.mark.parametrize("preload", ["", "preload = work/app.lua"])
def test_hooks_after_the_fork(server: Server, preload: str) -> None:
    """What the application has opened while it was preloaded is opened again in each worker."""
    start(server, HOOKS, preload)
    (pid,) = server.pids("worker", "lua")
    assert server.get("/").text == f"{pid} in {pid} second at once"
    server.file("work/app.lua", "webserver.after_fork(function() error('no database', 0) end) return function() end")
    server.allow("group lua")
    result = server.ctl("restart", "lua", check=False)
    assert (result.returncode, "no database" in result.stderr) == (1, True)
    server.file("work/app.lua", "webserver.after_fork(3) return function() end")
    result = server.ctl("restart", "lua", check=False)
    assert "app.lua:1: after_fork: expected functions, got a number" in result.stderr
    assert server.get("/").status == 200


def test_workers_have_random_numbers_of_their_own(server: Server) -> None:
    busy = "local begun = os.clock() while os.clock() < begun + 0.02 do end"  # so that all of them are needed
    code = PID + f"return function() {busy} return 200, {{}}, pid() .. ' ' .. math.random(0) end"
    server.write(
        CONFIG.format(application="application = work/app.lua", route="/", more="preload = work/app.lua").replace(
            "processes = 1", "processes = 3"
        )
    )
    server.file("work/app.lua", code)
    server.start()
    drawn: dict[str, str] = {}  # by process, the first number of each

    def all_seen() -> bool:
        for answer in pool.map(server.get, ["/"] * 12):
            pid, number = answer.text.split()
            drawn.setdefault(pid, number)
        return len(drawn) == 3

    with ThreadPoolExecutor(6) as pool:
        wait_until(all_seen, "not all workers answer")
    assert len(set(drawn.values())) == 3


def test_everything_is_closed_in_its_turn(server: Server) -> None:
    """Variables of a coroutine, then what was returned to be closed; also when the client has gone, and after an error."""
    server.allow("error", "traceback")
    code = """
    local log = {}
    local function noting(word) return setmetatable({}, {__close = function() log[#log + 1] = word end}) end
    return function(env)
      if env.PATH_INFO == "/log" then
        local text = table.concat(log, " ")
        log = {}
        return 200, {}, text
      end
      local function body()
        local inner <close> = noting("inner")
        for i = 1, 1e9 do
          coroutine.yield(("x"):rep(50000))
          if env.PATH_INFO == "/error" and i == 3 then error("in the body") end
          if env.PATH_INFO == "/short" then break end
        end
      end
      return 200, {}, coroutine.create(body), noting("outer")
    end
    """
    start(server, code)
    assert len(server.get("/short").body) == 50000
    assert server.get("/log").body == b"inner outer"
    assert server.raw(b"GET /error HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").count(b"x" * 50000) <= 3
    assert server.get("/log").body == b"inner outer"
    with server.connect() as sock:
        sock.sendall(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
        assert sock.recv(1000)
    assert server.get("/log").body == b"inner outer"
    wait_until(lambda: "in the body" in server.log(), "the error is not in the log")


def test_a_stream_that_was_kept_reads_nothing_of_the_next_request(server: Server) -> None:
    server.allow("error", "traceback")
    start(server, "local kept return function(env) kept = kept or env.input return 200, {}, kept:read() end")
    assert server.request("POST", "/", b"first").body == b"first"
    assert server.request("POST", "/", b"second").status == 500
    wait_until(lambda: "the request of this stream is over" in server.log(), "nothing says why")


def test_an_environment_that_was_kept_has_nothing_of_the_next_request(server: Server) -> None:
    code = """
        local kept
        return function(env)
          if kept then
            return 200, {}, kept.QUERY_STRING .. "|" .. select(2, pcall(function() return kept.PATH_INFO end))
          end
          kept = env
          return 200, {}, env.QUERY_STRING
        end
    """
    start(server, code)
    assert server.get("/first?q=1").body == b"q=1"
    kept = server.get("/second?q=2").body
    assert kept.startswith(b"q=1|")
    assert kept.endswith(b"app.lua:5: the request of this environment is over"), kept


def test_pairs_finds_all_of_an_environment(server: Server) -> None:
    code = """
        return function(env)
          local names = {}
          for name, value in pairs(env) do
            assert(env[name] == value)
            names[#names + 1] = name
          end
          table.sort(names)
          return 200, {}, table.concat(names, " ")
        end
    """
    start(server, code)
    names = server.get("/", X_One="1").body.decode().split()
    assert {"PATH_INFO", "REQUEST_METHOD", "HTTP_X_ONE", "HTTP_HOST", "input", "error"} <= set(names)
    assert len(names) == len(set(names))
    assert "HTTPS" not in names


def test_the_stack_of_a_stuck_application_is_in_the_log(server: Server) -> None:
    server.allow("error", "request_timeout", "stack")
    code = "local function stuck() while true do end end return function(env) if env.QUERY_STRING == 'x' then stuck() end return 200 end"
    start(server, code, "request_timeout = 500ms")
    before = server.pids("worker", "lua")
    assert server.get("/?x").status == 504
    wait_until(lambda: "in upvalue 'stuck'" in server.log(), "no stack of it is in the log")
    wait_until(lambda: server.pids("worker", "lua") not in ([], before), "it is not replaced")
    assert server.get("/").status == 200


def test_what_is_printed_is_in_the_log_at_once(server: Server) -> None:
    start(server, "print('while loading') return function() print('in a request') return 200 end")
    assert server.get("/").status == 200
    wait_until(lambda: "in a request" in server.log(), "it is not in the log")
    assert server.logged("while loading")
