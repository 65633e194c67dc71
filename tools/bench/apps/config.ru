# frozen_string_literal: true

# The benchmark's Rack application: does what app.wsgi does, for every Ruby server. See there.
require 'digest/sha2' # not by its autoload, which threads race for

PIECE = ('0123456789abcdef' * 4096).freeze # 64 KiB
STREAM_BYTES = 10 * 1024 * 1024
PAGE_BYTES = 10_240
PAGE_FIELDS = %w[
  HTTP_USER_AGENT HTTP_ACCEPT HTTP_ACCEPT_LANGUAGE HTTP_COOKIE HTTP_REFERER
  HTTP_CACHE_CONTROL HTTP_DNT HTTP_X_REQUEST_ID HTTP_X_TRACE HTTP_X_TENANT
].freeze

# An answer of so many bytes, a piece at a time.
Pieces = Struct.new(:total) do
  def each
    left = total
    while left.positive?
      yield left >= PIECE.bytesize ? PIECE : PIECE.byteslice(0, left)
      left -= PIECE.bytesize
    end
  end
end

# The path's last segment chooses the method.
module Bench
  module_function

  def query_number(env, name, default)
    env['QUERY_STRING'][/(?:\A|&)#{name}=([0-9]+)/, 1]&.to_i || default
  end

  def hello(_env)
    [200, { 'content-type' => 'text/plain', 'content-length' => '12' }, ['hello, world']]
  end

  def page(env)
    body = +''
    PAGE_FIELDS.each { |name| body << name << ': ' << env[name].to_s << "\n" }
    body << 'path: ' << env['SCRIPT_NAME'] << env['PATH_INFO'] << "\n"
    body << 'query: ' << env['QUERY_STRING'] << "\n"
    body = body.ljust(PAGE_BYTES, '.')
    id = env['HTTP_X_REQUEST_ID'].to_s
    [200, {
      'content-type' => 'text/html; charset=utf-8',
      'content-length' => body.bytesize.to_s,
      'content-language' => 'en',
      'cache-control' => 'private, max-age=0',
      'vary' => 'Cookie',
      'set-cookie' => "session=#{id}; HttpOnly\nseen=1; Path=/",
      'x-request-id' => id,
      'x-frame-options' => 'DENY',
      'x-content-type-options' => 'nosniff',
      'referrer-policy' => 'same-origin',
      'content-security-policy' => "default-src 'self'"
    }, [body]]
  end

  def upload(env)
    digest = Digest::SHA256.new
    length = 0
    input = env['rack.input']
    buffer = +''
    while input.read(65_536, buffer)
      digest << buffer
      length += buffer.bytesize
    end
    answer = "#{length} #{digest.hexdigest}"
    [200, { 'content-type' => 'text/plain', 'content-length' => answer.bytesize.to_s }, [answer]]
  end

  def stream(env)
    [200, { 'content-type' => 'application/octet-stream' }, Pieces.new(query_number(env, 'bytes', STREAM_BYTES))]
  end

  def slept(env)
    sleep(query_number(env, 'ms', 200) / 1000.0)
    hello(env)
  end

  HANDLERS = { 'hello' => :hello, 'page' => :page, 'upload' => :upload, 'stream' => :stream, 'sleep' => :slept }.freeze

  def call(env)
    handler = HANDLERS[env['PATH_INFO'].rpartition('/').last]
    handler ? send(handler, env) : [404, { 'content-type' => 'text/plain', 'content-length' => '0' }, []]
  end
end

if ENV['BENCH_COUNT']
  count = File.open(ENV['BENCH_COUNT'], 'a')
  run(lambda { |env|
    count.syswrite('.')
    Bench.call(env)
  })
else
  run Bench
end
