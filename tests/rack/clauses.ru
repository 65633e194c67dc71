# frozen_string_literal: true

# Many small applications: the first segment of the path says which. tests/test_rack_*.py speak to them.
require "json"
require "rack"
require "rack/lint"
require "tempfile"
require "uri"
require_relative "spec3"

SCRATCH = ENV.fetch("SCRATCH")
$stdout.print "a line on ", "standard output\n"
warn "a line on standard error"

class Object
  private

  def mark(name, text = name)
    File.open(File.join(SCRATCH, name), "a") { |file| file.syswrite("#{text}\n") }
  end

  def text(*parts, status: 200, **fields)
    [status, { "content-type" => "text/plain" }.merge(fields.transform_keys { |key| key.to_s.tr("_", "-") }), parts]
  end
end

# A body that tells what was done with it.
class Told
  def initialize(name, &block)
    @name = name
    @block = block
  end

  def each(&block)
    @block.call(block)
  end

  def close
    mark("closed", @name)
  end
end

class OwnString < String; end

class Silent
  def to_s
    "a word of its own"
  end
end

APPLICATIONS = {
  "hello" => ->(_env) { text("hello, ", "world") },
  "env" => lambda do |env|
    shown = env.map { |key, value| [key, [true, false].include?(value) ? value : value.inspect] }.to_h
    text(JSON.generate(shown), "content-type": "application/json")
  end,
  "encodings" => ->(env) { text(env.grep_v(/\./).map { |k, v| "#{k} #{v.encoding}" if v.is_a?(String) }.compact.join("\n")) },
  "path" => ->(env) { text(env["SCRIPT_NAME"], "|", env["PATH_INFO"], "|", Rack::Utils.unescape_path(env["PATH_INFO"])) },
  # The calls of rack.input that the query names: read:10,gets,rewind,...
  "input" => lambda do |env|
    input = env["rack.input"]
    results = env["QUERY_STRING"].split(",").map do |word|
      name, argument = word.split(":", 2)
      case name
      when "each" then input.each.to_a
      when "buffer" then [input.read(Integer(argument), buffer = +"before"), buffer]
      else input.public_send(name, *(argument ? [Integer(argument)] : []))
      end
    rescue StandardError => e
      e.class.name
    end
    text(results.inspect)
  end,
  "sum" => lambda do |env|
    total = 0
    sum = 0
    buffer = +""
    while env["rack.input"].read(100_003, buffer)
      total += buffer.bytesize
      sum += buffer.sum(32)
    end
    again = 0
    if env["QUERY_STRING"] == "again"
      env["rack.input"].rewind
      again = env["rack.input"].read.sum(32)
    end
    text("#{total} #{sum} #{again}")
  end,
  "whole" => lambda do |env|
    first = env["rack.input"].read
    env["rack.input"].rewind
    second = env["rack.input"].read
    first << "changed"
    env["rack.input"].rewind
    text("#{first.bytesize - 7} #{second.sum(32)} #{env['rack.input'].read.sum(32)}")
  end,
  "unread" => ->(_env) { text("not read") },
  "closes-input" => lambda do |env|
    env["rack.input"].close
    text(begin
      env["rack.input"].read
      "read"
    rescue IOError => e
      e.message
    end)
  end,
  "keeps" => lambda do |env|
    before = $kept
    $kept = env
    next text("first") unless before

    tries = [
      -> { before["rack.input"].read(1) }, -> { before["rack.early_hints"].call({ "link" => "x" }) },
      -> { before["rack.hijack"].call }, -> { before["webserver.cancelled"].call },
    ]
    text(tries.map { |try| try.call rescue "#{$!.class}" }.inspect)
  end,
  "errors" => lambda do |env|
    errors = env["rack.errors"]
    errors.write("half a ")
    errors.write("line\nand ")
    errors << "the rest\n"
    errors.puts("from puts", 42)
    errors.printf("%03d\n", 7)
    errors.flush
    errors.write("without an end")
    Thread.new { errors.puts("from another thread") }.join
    text("logged")
  end,
  "status-string" => ->(_env) { ["201", { "content-type" => "text/plain" }, ["made"]] },
  "lines" => ->(_env) { text("x", "set-cookie": "a=1\nb=2\nc=3", "x-empty": "", "x-nothing": nil) },
  "arrays" => ->(_env) { text("x", "set-cookie": %w[a=1 b=2 c=3], "x-number": 12, "x-own": OwnString.new("own")) },
  "pairs" => ->(_env) { [200, [["content-type", "text/plain"], ["x-pair", "1"]], ["pairs"]] },
  "connection" => lambda do |_env|
    text("kept", "Connection": "close", "Keep-Alive": "timeout=5", "Upgrade": "h2c", "rack.own": "secret", "Status": "500")
  end,
  "bad-value" => ->(_env) { text("x", "x-bad": "a\r\nx-injected: 1") },
  "bad-name" => ->(_env) { text("x", "x bad": "1") },
  "bad-status" => ->(_env) { [42, {}, []] },
  "bad-length" => ->(_env) { text("x", "content-length": "many") },
  "no-array" => ->(_env) {},
  "two-parts" => ->(_env) { [200, {}] },
  "not-strings" => ->(_env) { [200, {}, [1, 2]] },
  "no-body" => ->(_env) { [200, {}, Silent.new] },
  "to-ary" => lambda do |_env|
    body = Object.new
    def body.to_ary
      close
      %w[from to_ary]
    end

    def body.each
      yield "from each"
    end

    def body.close
      mark("closed", "to-ary")
    end
    [200, { "content-type" => "text/plain" }, body]
  end,
  "no-content" => ->(_env) { [204, {}, Told.new("no-content") { |put| put.call("never") }] },
  "not-modified" => ->(_env) { [304, { "etag" => '"x"' }, []] },
  "told" => ->(_env) { [200, { "content-type" => "text/plain" }, Told.new("told") { |put| %w[a b c].each(&put) }] },
  "broken" => lambda do |_env|
    [200, {}, Told.new("broken") do |put|
      put.call("part")
      raise "in the middle"
    end]
  end,
  "exact" => lambda do |_env|
    [200, { "content-length" => "9" }, Told.new("exact") do |put|
      put.call("four")
      put.call("fives")
      mark("waiting")
      sleep 0.01 until File.exist?(File.join(SCRATCH, "go"))
    end]
  end,
  "surplus" => ->(_env) { [200, { "content-length" => "4" }, Told.new("surplus") { |put| %w[four more].each(&put) }] },
  "short" => ->(_env) { [200, { "content-length" => "40" }, Told.new("short") { |put| put.call("four") }] },
  "endless" => lambda do |_env|
    [200, {}, Told.new("endless") { |put| loop { put.call("x" * 50_000) } }]
  end,
  "slow-close" => lambda do |_env|
    [200, { "content-length" => "4" }, Class.new do
      define_method(:each) { |&put| put.call("done") }
      define_method(:close) do
        mark("waiting")
        sleep 0.01 until File.exist?(File.join(SCRATCH, "go"))
        mark("closed", "slow-close")
      end
    end.new]
  end,
  "large" => ->(env) { text("x" * Integer(env["QUERY_STRING"])) },
  "path-body" => ->(_env) { [200, { "content-type" => "text/plain" }, File.open(File.join(SCRATCH, "file"), "rb")] },
  "path-part" => lambda do |_env|
    [200, { "content-length" => "10" }, File.open(File.join(SCRATCH, "file"), "rb")]
  end,
  "path-gone" => lambda do |_env|
    [200, {}, Class.new do
      def each
        yield "from each"
      end

      def to_path
        "/nowhere/at/all"
      end
    end.new]
  end,
  "files" => Rack::Files.new(SCRATCH),
  "chunked" => lambda do |_env|
    [200, { "transfer-encoding" => "chunked" }, ["5\r\nhel", "lo\r\n7;x=y\r\n, wor", "ld\r", "\n1\r\n!\r\n0\r\n\r\n"].each]
  end,
  "chunked-short" => ->(_env) { [200, { "transfer-encoding" => "chunked" }, ["5\r\nhel"].each] },
  "stream" => lambda do |_env|
    [200, { "content-type" => "text/plain" }, lambda do |stream|
      stream.write("one ", "two ")
      stream << "three "
      stream.flush
      stream.close_write
      begin
        stream.write("never")
      rescue IOError
        mark("stream", "not writable")
      end
      stream.close
      mark("stream", stream.closed?)
    end]
  end,
  "stream-echo" => lambda do |_env|
    [200, {}, lambda do |stream|
      while (part = stream.read(5))
        stream << "[#{part}]"
      end
    ensure
      stream.close
    end]
  end,
  "stream-fails" => lambda do |_env|
    [200, {}, lambda do |stream|
      stream << "part"
      raise "in the stream"
    end]
  end,
  "hints" => lambda do |env|
    env["rack.early_hints"].call({ "link" => "</a.css>; rel=preload\n</b.js>; rel=preload" })
    env["rack.early_hints"].call({ "link" => ["</c.css>; rel=preload"] })
    text("hinted")
  end,
  "after" => lambda do |env|
    env["rack.after_reply"] << -> { mark("after", "one") } << -> { raise "after the reply" } << -> { mark("after", "two") }
    env["rack.response_finished"] << ->(*all) { mark("finished", "first #{all[1..].inspect} #{all[0].equal?(env)}") }
    env["rack.response_finished"] << ->(*) { mark("finished", "second") }
    raise "before" if env["QUERY_STRING"] == "fail"

    text("replied")
  end,
  "after-slow" => lambda do |env|
    env["rack.after_reply"] << lambda do
      sleep 0.01 until File.exist?(File.join(SCRATCH, "go"))
      mark("after", "slow")
    end
    text("replied")
  end,
  "deadline" => lambda do |env|
    text((env["webserver.deadline"] - Process.clock_gettime(Process::CLOCK_MONOTONIC)).to_s)
  end,
  "cancelled" => lambda do |env|
    mark("waiting")
    2000.times { env["webserver.cancelled"].call ? break : sleep(0.01) }
    mark("cancelled", env["webserver.cancelled"].call)
    text("x")
  end,
  "raise" => ->(_env) { raise ArgumentError, "a mistake" },
  "exit" => ->(_env) { exit 3 },
  "abort" => ->(_env) { abort "from abort" },
  "interrupt" => ->(_env) { raise Interrupt },
  "thread-exit" => ->(_env) { Thread.exit },
  "throw" => ->(_env) { throw :nothing },
  "overflow" => ->(_env) { deeper = -> { deeper.call + 1 }; deeper.call },
  "no-memory" => ->(_env) { raise NoMemoryError, "none left" },
  "kills" => lambda do |_env|
    Thread.list.each { |thread| thread.kill unless [Thread.current, Thread.main].include?(thread) }
    text("killed")
  end,
  "timeout" => lambda do |env|
    require "timeout"
    Timeout.timeout(0.2) { env["rack.input"].read }
    text("read")
  rescue Timeout::Error
    text("timed out")
  end,
  "sleep" => ->(env) { sleep Float(env["QUERY_STRING"]); text("slept") },
  "gc" => lambda do |_env|
    GC.stress = true
    result = text("stressed", "x-value": "a" * 40, "set-cookie": "a=1\nb=#{'2' * 40}")
    result
  end,
  "gc-off" => ->(_env) { GC.stress = false; text("calm") },
  "program" => ->(_env) { text(`echo out; echo err >&2`, system("exit 3").inspect, " ", $?.exitstatus.to_s) },
  "fork" => ->(_env) { pid = fork { exit!(4) }; Process.wait(pid); text($?.exitstatus.to_s) },
  "pipe" => ->(_env) { text(`yes | head -n 1 2>&1; echo ${PIPESTATUS}`) },
  "thread" => ->(env) { text(Thread.new { env["rack.input"].read }.value, " ", Thread.current.name) },
  "facts" => lambda do |_env|
    text(JSON.generate(
      argv: ARGV, program: $PROGRAM_NAME, directory: Dir.pwd, encoding: Encoding.default_external.to_s,
      rack_env: ENV["RACK_ENV"], descriptors: Dir.children("/proc/self/fd").size, pid: Process.pid, threads: Thread.list.size,
      memory: File.read("/proc/self/statm").split[1].to_i, traps: $traps
    ))
  end,
  "ticks" => ->(_env) { before = $ticks; sleep 0.2; text(($ticks - before).to_s) },
  "trap" => ->(_env) { text($traps.inspect) },
  "hijack" => lambda do |env|
    io = env["rack.hijack"].call
    same = io.equal?(env["rack.hijack_io"]) && io.equal?(env["rack.hijack"].call)
    io.write("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx-same: #{same}\r\n\r\nby ")
    Thread.new do
      io.write("hand")
      io.close
    end
    [-1, {}, Told.new("hijack") { raise "never" }]
  end,
  "hijack-read" => lambda do |env|
    io = env["rack.hijack"].call
    Thread.new do
      body = io.read(Integer(env["CONTENT_LENGTH"]))
      io.write("HTTP/1.1 200 OK\r\ncontent-length: #{body.bytesize}\r\n\r\n#{body}")
      io.close
    end
    [-1, {}, []]
  end,
  "partial" => lambda do |_env|
    [200, { "content-type" => "text/plain", "rack.hijack" => lambda do |io|
      io.write("partly ")
      io.write("x" * 1_000_000)
      io.close
    end }, Told.new("partial") { raise "never" }]
  end,
  "upgrade" => lambda do |env|
    next text("upgrade", status: 426) unless env["HTTP_UPGRADE"] == "echo"

    [101, { "connection" => "upgrade", "upgrade" => "echo", "rack.hijack" => lambda do |io|
      while (part = io.readpartial(4096) rescue nil)
        io.write(part.upcase)
      end
      io.close
    end }, []]
  end,
  "protocol" => lambda do |env|
    next text(env["rack.protocol"].inspect) unless env["rack.protocol"]&.include?("echo")

    [200, { "rack.protocol" => "echo" }, lambda do |stream|
      stream.each { |part| stream << part.upcase }
    ensure
      stream.close
    end]
  end
}.freeze

$traps = []
$ticks = 0
trap("USR1") { $traps << "USR1" }
trap("USR2") { $traps << "USR2" }
Thread.new { loop { sleep 0.01; $ticks += 1 } }

choose = lambda do |env|
  name = env["PATH_INFO"].split("/")[1]
  application = APPLICATIONS[name]
  next text("no such path", status: 404) unless application

  if name == "files"
    env = env.merge("PATH_INFO" => env["PATH_INFO"].delete_prefix("/files"))
  end
  application.call(env)
end

map "/lint2" do
  use Rack::Lint
  run choose
end
map "/lint3" do
  use Spec3
  run choose
end
map "/" do
  run choose
end
