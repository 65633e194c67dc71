"""Ruby as a language: loading, preloading, forks, threads, signals, logs, and what breaks."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

import pytest
from rack_server import lines, logged, prepare
from serving import KEPT_KB, SLOWNESS, Server, wait_until


def facts(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.get("/facts").body)
    return found


def test_the_application_s_surroundings(server: Server) -> None:
    prepare(server, group="arguments = one, --two", environment="RACK_ENV = testing").start()
    found = facts(server)
    assert found["argv"] == ["one", "--two"]
    assert found["program"] == str(server.directory / "app" / "config.ru")
    assert found["directory"] == str(server.directory / "app")
    assert (found["encoding"], found["rack_env"]) == ("UTF-8", "testing")


def test_production_is_the_default(server: Server) -> None:
    prepare(server, environment="RUBYOPT = -W:no-deprecated -rset").start()
    assert facts(server)["rack_env"] == "production"


@pytest.mark.parametrize(
    ("application", "said"),
    [
        ("run lambda { |env|\n", "config.ru:"),
        ("require 'nothing_of_this_name'\nrun nil", "config.ru:1: cannot load such file -- nothing_of_this_name"),
        ("\n\nraise 'at load'", "config.ru:3: at load (RuntimeError)"),
        ("use Rack::Lint\n", "missing run or map statement"),
        ("run Object.new", "config.ru: what it runs does not respond to call"),
        ("exit 3", "SystemExit"),
        ("run NothingOfThisName", "config.ru:1: uninitialized constant"),
    ],
)
def test_an_application_that_does_not_load(server: Server, application: str, said: str) -> None:
    prepare(server, application=application)
    server.allow(".*")
    server.start()
    logged(server, said)
    told = wait_until(
        lambda: [line for line in server.log().splitlines() if "supervisor" in line and "ruby: " in line], "no message"
    )
    assert said in told[0]


SCRIPT = "run ->(env) { [200, {}, ['%s ', env['SCRIPT_NAME'], '|', env['PATH_INFO']]] }"


def test_requested_files(server: Server) -> None:
    prepare(server, application="")
    text = server.config_file.read_text().replace("application = app/config.ru\n", "")
    text = text.replace("/ = group:app\n/mount/point = group:app\n", "/ = files\n.ru = group:app\n")
    server.configure(text)
    server.allow(".*")
    script = server.file("public/one.ru", SCRIPT % "first")
    server.file("public/sub/two.ru", SCRIPT % "other")
    server.file("public/broken.ru", "run nothing at all")
    server.start()
    assert server.get("/one.ru").text == "first /one.ru|"
    assert server.get("/sub/two.ru/more%20of?it").text == "other /sub/two.ru|/more%20of"
    assert server.get("/none.ru").status == 404
    assert server.get("/broken.ru").status == 500
    for word in ("second", "third"):
        script.write_text(SCRIPT % word)
        os.utime(script, ns=(time.time_ns(), time.time_ns()))
        assert server.get("/one.ru").text == f"{word} /one.ru|"
    server.file("public/broken.ru", SCRIPT % "mended")
    assert server.get("/broken.ru").text == "mended /broken.ru|"


PRELOADED = """
$loaded_by = Process.pid
$order = []
Webserver.before_fork { $order << "before #{Process.pid == $loaded_by}" }
Webserver.after_fork { $order << "after #{Process.pid != $loaded_by}" }
module Watch
  def _fork
    super.tap { |pid| $order << "hook #{pid.zero?}" if pid.zero? }
  end
end
Process.singleton_class.prepend(Watch)
module OlderWatch
  def fork
    super.tap { |pid| $order << "older hook" unless pid }
  end
end
Process.singleton_class.prepend(OlderWatch)
run lambda { |env|
  Webserver.after_fork { $order << "late" } if env["QUERY_STRING"] == "late"
  [200, {}, [[$loaded_by, Process.ppid, Process.pid, $order, Random.rand].inspect]]
}
"""


def test_preloading_the_application_and_hooks(server: Server) -> None:
    prepare(server, processes=3, application=PRELOADED, group="preload = app/config.ru").start()
    seen = {}
    for _ in range(60):
        loaded_by, parent, pid, order, _ = eval(server.get("/").text)
        assert (loaded_by, order[-4:]) == (parent, ["before true", "hook true", "older hook", "after true"])
        assert set(order[:-4]) <= {"before true"}
        seen[pid] = order
    manager = server.pids("manager")[0]
    assert loaded_by == manager
    assert set(seen) <= set(server.pids("worker"))
    assert "late" in server.get("/?late").text


def test_hooks_of_what_is_not_preloaded(server: Server) -> None:
    prepare(server, application=PRELOADED).start()
    loaded_by, _, pid, order, _ = eval(server.get("/").text)
    assert (loaded_by, order) == (pid, ["after false"])


def test_preloading_libraries(server: Server) -> None:
    application = "run ->(_) { [200, {}, [$by.inspect, ' ', defined?(Set).inspect, ' ', Process.ppid.to_s]] }"
    prepare(server, application=application, group="preload = set, app/shared.rb")
    server.file("app/shared.rb", "$by = Process.pid")
    server.start()
    by, _, parent = server.get("/").text.split()
    assert by == parent
    failing = server.config_file.read_text().replace("preload = set", "preload = nothing_of_this_name")
    server.configure(failing)
    server.allow(".*")
    assert server.ctl("reload", check=False).returncode != 0
    assert server.get("/").text.split()[0] == by


def test_a_hook_that_fails_keeps_the_worker_from_starting(server: Server) -> None:
    prepare(server, application="Webserver.after_fork { raise 'no connection' }\nrun nil")
    server.allow(".*")
    server.start()
    logged(server, "no connection (RuntimeError)")


def test_programs_children_and_pipes(server: Server) -> None:
    prepare(server, threads=4).start()
    for _ in range(3):
        assert server.get("/program").text == "out\nfalse 3"
        assert server.get("/fork").text == "4"
        assert "Broken pipe" not in server.get("/pipe").text
    logged(server, "err")


def test_threads_of_the_application_run_while_slots_wait(server: Server) -> None:
    prepare(server).start()
    assert int(server.get("/ticks").text) >= 5
    before = time.monotonic()
    assert server.get("/sleep?0.3").text == "slept"
    assert time.monotonic() - before < 5 * SLOWNESS


def test_requests_run_at_the_same_time(server: Server) -> None:
    prepare(server, threads=8).start()
    began = time.monotonic()
    threads = [threading.Thread(target=server.get, args=("/sleep?1",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 6 * SLOWNESS  # not eight seconds


def test_signals(server: Server) -> None:
    prepare(server).start()
    worker = server.pids("worker")[0]
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT, signal.SIGWINCH):
        os.kill(worker, number)
    wait_until(lambda: "USR1" in server.get("/trap").text and "USR2" in server.get("/trap").text, "handlers do not run")
    assert server.pids("worker") == [worker]
    os.kill(worker, signal.SIGTERM)
    wait_until(lambda: server.pids("worker") not in ([worker], []), "TERM does not end a worker")
    assert server.get("/hello").text == "hello, world"


def test_at_exit(server: Server) -> None:
    application = """
    at_exit { File.write(ENV['SCRATCH'] + '/left', "#{Process.pid} #{Thread.list.size}\\n") }
    run ->(_) { [200, {}, [Process.pid.to_s]] }
    """
    prepare(server, threads=3, application=application).start()
    pid = server.get("/").text
    server.ctl("restart", "app")
    assert lines(server, "left", 1) == [f"{pid} 1"]


def test_collecting_garbage_all_the_time(server: Server) -> None:
    prepare(server, threads=2).start()
    for _ in range(4):
        answer = server.get("/gc")
        assert (answer.text, answer.field("x-value")) == ("stressed", "a" * 40)
    assert server.request("POST", "/whole", b"x" * 3000).text.startswith("3000 ")
    assert server.get("/told").text == "abc"
    assert server.get("/gc-off").text == "calm"


STUCK = """
require "fiddle"
run lambda { |env|
  case env['PATH_INFO']
  when '/computes' then loop { }
  when '/sleeps' then sleep
  when '/c' then Fiddle::Function.new(Fiddle.dlopen(nil)["sleep"], [Fiddle::TYPE_INT], Fiddle::TYPE_INT, need_gvl: true).call(60)
  end
  [200, {}, ['over']]
}
"""


@pytest.mark.parametrize("target", ["/computes", "/sleeps", "/c"])
def test_a_request_that_does_not_end_has_its_stack_in_the_log(server: Server, target: str) -> None:
    prepare(server, application=STUCK, group="request_timeout = 500ms")
    server.allow(".*")
    server.start()
    assert server.get(target).status == 504
    logged(server, "slot 0")
    line = STUCK[: STUCK.index(f"'{target}'")].count("\n") + 1
    logged(server, f"config.ru:{line}")


def test_two_thousand_requests_leave_nothing(server: Server) -> None:
    prepare(server, threads=2).start()
    targets = ("/hello", "/told", "/lines", "/path-part", "/stream", "/input?read", "/errors")
    (server.directory / "scratch" / "file").write_bytes(b"x" * 100)

    def requests(count: int) -> dict[str, Any]:
        with server.connect() as sock:
            for number in range(count):
                target = targets[number % len(targets)]
                sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                data = b""
                while not data.partition(b"\r\n\r\n")[2] or (b"chunked" in data and not data.endswith(b"0\r\n\r\n")):
                    data += sock.recv(65536)
        return facts(server)

    before = requests(1000)
    after = requests(2000)
    assert after["descriptors"] <= before["descriptors"] + 1
    assert (after["memory"] - before["memory"]) * 4 < 4096 + KEPT_KB
    assert after["threads"] == before["threads"]


GEMFILE = "gem 'rack'\n"


def test_a_gemfile_beside_the_application(server: Server) -> None:
    application = "run ->(_) { [200, {}, [defined?(Bundler).inspect, ' ', ENV['BUNDLE_GEMFILE'].inspect]] }"
    prepare(server, application=application)
    server.file("app/Gemfile", GEMFILE)
    server.file("app/Gemfile.lock", "GEM\n  specs:\n    rack (2.2.22)\n\nPLATFORMS\n  ruby\n\nDEPENDENCIES\n  rack\n")
    for name in ("Gemfile", "Gemfile.lock"):
        server.file(f"other/{name}", (server.directory / "app" / name).read_text())
    server.start()
    assert server.get("/").text == f'"constant" "{server.directory}/app/Gemfile"'
    text = server.config_file.read_text()
    server.configure(text.replace("[[[environment]]]", '[[[environment]]]\nBUNDLE_GEMFILE = ""'))
    server.ctl("reload")
    assert server.get("/").text == "nil nil"
    server.configure(
        text.replace("[[[environment]]]", f"[[[environment]]]\nBUNDLE_GEMFILE = {server.directory}/other/Gemfile")
    )
    server.ctl("reload")
    assert server.get("/").text == f'"constant" "{server.directory}/other/Gemfile"'


def test_without_the_gem_rack(server: Server) -> None:
    application = """
    class Shout
      def initialize(application, mark)
        @application, @mark = application, mark
      end
      def call(env)
        status, headers, body = @application.call(env)
        [status, headers, body.map { |part| part.upcase + @mark }]
      end
    end
    use Shout, "!"
    map("/a") { run ->(env) { [200, {}, [env["SCRIPT_NAME"], "|", env["PATH_INFO"], " #{defined?(Rack).inspect}"]] } }
    run ->(_) { [200, {}, ["the rest"]] }
    """
    prepare(server, application=application, environment="RUBYOPT = --disable-gems").start()
    assert server.get("/a/b").text == "/A!|!/B! NIL!"
    assert server.get("/c").text == "THE REST!"
    server.file("app/config.ru", "use Rack::Lint\nrun nil")
    server.allow(".*")
    assert server.ctl("restart", "app", check=False).returncode != 0
    logged(server, "the gem rack is not installed in this group's environment")
