# frozen_string_literal: true

# The conformance application in Ruby: README.md beside this directory says what each path does.
# With its algorithms: "digest" alone loads each at its first use, and two threads' first uses clash.
require "digest/sha2"
begin
  require "rack"
  require "rack/lint"
  # What Lint uses. Left to autoload, a request's deadline would come in the middle of it.
  require "rack/utils"
  require "uri"
rescue LoadError
  nil # the application needs neither
end

SCRATCH = ENV.fetch("SCRATCH")

module Conformance
  module_function

  def append(name, line)
    File.open(File.join(SCRATCH, name), File::WRONLY | File::APPEND | File::CREAT, 0o666) { |file| file.syswrite("#{line}\n") }
  end

  def gate(token)
    waited = 0
    until File.exist?(File.join(SCRATCH, "go-#{token}")) || waited > 2000
      sleep 0.01
      waited += 1
    end
  end

  def text(*parts, status: 200, **fields)
    [status, { "content-type" => "text/plain" }.merge(fields.transform_keys { |key| key.to_s.tr("_", "-") }), parts]
  end

  # A body that yields what the block puts.
  def stream(headers = {}, &block)
    [200, { "content-type" => "text/plain" }.merge(headers), Enumerator.new { |put| block.call(put) }]
  end

  def content(size)
    Enumerator.new do |put|
      at = 0
      while at < size
        stop = [at + 65_536, size].min
        lines = (at...stop).step(16).map { |offset| format("%015d\n", offset) }.join
        put << lines.byteslice(0, stop - at)
        at = stop
      end
    end
  end

  def length(env)
    digest = Digest::SHA256.new
    total = 0
    buffer = String.new
    while env["rack.input"].read(65_536, buffer)
      digest << buffer
      total += buffer.bytesize
    end
    text("#{total} #{digest.hexdigest}\n")
  end

  def token(env)
    env["QUERY_STRING"][/(?:^|&)watch=([^&]*)/, 1]
  end
end

PATHS = {
  "hello" => ->(env, _) { text("hello, world", x_method: env["REQUEST_METHOD"]) },
  "echo" => lambda do |env, _|
    stream do |put|
      while (part = env["rack.input"].read(65_536))
        put << part
      end
    end
  end,
  "length" => ->(env, _) { length(env) },
  "half" => lambda do |env, _|
    size = env["CONTENT_LENGTH"]
    text("half #{(env['rack.input'].read(size ? size.to_i / 2 : 1000) || '').bytesize}\n")
  end,
  "never" => ->(_, _) { text("never\n", content_length: "6") },
  "first" => lambda do |env, _|
    stream do |put|
      put << "first\n"
      gate(token(env))
      put << "last\n"
    end
  end,
  "late" => lambda do |env, _|
    gate(token(env))
    length(env)
  end,
  "hang" => lambda do |_, rest|
    sleep rest.to_i / 1000.0
    text("too late")
  end,
  "hang-read" => lambda do |env, rest|
    env["rack.input"].read
    sleep rest.to_i / 1000.0
    text("too late")
  end,
  "sleep" => lambda do |_, rest|
    sleep rest.to_i / 1000.0
    text("slept")
  end,
  "fields" => ->(env, _) { text(*env.filter_map { |key, value| "#{key}=#{value}\n" unless key.include?(".") }) },
  "path_info" => ->(env, _) { text(env["PATH_INFO"].b.gsub(/%(\h\h)/n) { $1.hex.chr }) },
  "cookies" => ->(env, _) { text(env["HTTP_COOKIE"].to_s) },
  "status" => lambda do |_, rest|
    [204, 304].include?(rest.to_i) ? [rest.to_i, {}, []] : text("status #{rest}\n", status: rest.to_i)
  end,
  "headers" => lambda do |_, _|
    many = (0...50).to_h { |number| ["x-many-#{number}", number.to_s] }
    cookies = ["a=1", "b=2; Path=/", "c=3"]
    cookies = cookies.join("\n") if defined?(Rack.release) && Rack.release < "3" # in Rack 2 a value has lines
    text("headers", **many, "set-cookie": cookies, "x-long": "x" * 8000)
  end,
  "inject" => ->(_, _) { text("inject", "x-bad": "a\r\nX-Injected: 1") },
  "lint" => ->(_, _) { text("not seen", "Status": "200") },
  "stream" => ->(_, rest) { stream { |put| rest.to_i.times { |number| put << "piece #{number}\n" } } },
  "steps" => lambda do |env, _|
    stream do |put|
      put << "one\n"
      gate(token(env))
      put << "two\n"
    end
  end,
  "large" => ->(_, rest) { [200, { "content-type" => "text/plain", "content-length" => rest }, content(rest.to_i)] },
  "file" => ->(_, _) { [200, { "content-type" => "text/plain" }, File.open(File.join(SCRATCH, "file"), "rb")] },
  "empty" => ->(_, _) { text(content_length: "0") },
  "nobody" => ->(_, _) { [204, {}, []] },
  "early" => lambda do |env, _|
    env["rack.early_hints"].call({ "link" => "</style.css>; rel=preload" })
    text("early")
  end,
  "trailers" => lambda do |env, _|
    env["webserver.trailers"].call({ "x-checksum" => "12" })
    text("body")
  end,
  "error" => ->(_, _) { raise "conformance error" },
  "error-late" => lambda do |_, _|
    stream do |put|
      put << "part\n"
      raise "conformance error"
    end
  end,
  "short" => ->(_, _) { text("short", content_length: "100") },
  "long" => ->(_, _) { text("hello, and more", content_length: "5") },
  "log" => lambda do |env, _|
    env["rack.errors"].puts("conformance log #{token(env)}")
    text("logged")
  end,
  "pid" => ->(_, _) { text(Process.pid.to_s) },
  "after" => lambda do |env, _|
    env["rack.after_reply"] << lambda do
      gate(token(env))
      append("after", token(env))
    end
    text("after")
  end,
  "deadline" => lambda do |env, _|
    deadline = env["webserver.deadline"]
    text(deadline ? (deadline - Process.clock_gettime(Process::CLOCK_MONOTONIC)).to_s : "none")
  end,
  "cancelled" => lambda do |env, _|
    2000.times { env["webserver.cancelled"].call ? break : sleep(0.01) }
    append("cancelled", token(env)) if env["webserver.cancelled"].call
    text("cancelled")
  end,
  "upgrade" => lambda do |env, _|
    next text("upgrade\n", status: 426) unless env["rack.protocol"]&.include?("conformance")

    [101, { "rack.protocol" => "conformance" }, lambda do |stream|
      stream.each { |part| stream << part }
    ensure
      stream.close
    end]
  end
}.freeze

# Adds a line to SCRATCH/closed, however the request ends.
class Watched
  def initialize(body, token)
    @body = body
    @token = token
  end

  def close
    @body.close if @body.respond_to?(:close)
  ensure
    Conformance.append("closed", @token)
  end

  def respond_to_missing?(name, include_all = false)
    %i[each call to_path].include?(name) && @body.respond_to?(name, include_all)
  end

  def method_missing(name, *arguments, &block)
    respond_to_missing?(name) ? @body.public_send(name, *arguments, &block) : super
  end
end

BARE = lambda { |env|
  _, name, rest = env["PATH_INFO"].split("/", 3)
  token = Conformance.token(env)
  Conformance.append("begun", token) if token
  begin
    path = PATHS[name]
    response = path ? Conformance.instance_exec(env, rest, &path) : Conformance.text("no such path", status: 404)
  rescue Exception
    Conformance.append("closed", token) if token
    raise
  end
  response[2] = Watched.new(response[2], token) if token
  response
}

# Lint stands in between where Rack is there. It forbids what these try, hides a file from the server, and wants an
# application to know HEAD.
UNSEEN = %r{\A/(?:inject|short|long|file|upgrade)(?:/|\z)}.freeze
CHECKED = defined?(Rack::Lint) ? Rack::Lint.new(BARE) : BARE

run ->(env) { (env["REQUEST_METHOD"] == "HEAD" || UNSEEN.match?(env["PATH_INFO"]) ? BARE : CHECKED).call(env) }
