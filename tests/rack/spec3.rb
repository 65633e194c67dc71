# frozen_string_literal: true

# What Rack's SPEC 3 (3.0 to 3.2) asks of a server, looked at from inside: a middleware that raises where the environment
# or the stream breaks a rule. Rack::Lint of Rack 3 would, but Debian has Rack 2.
class Spec3
  class Broken < RuntimeError; end

  TOKEN = /\A[!#$%&'*+\-.^_`|~0-9A-Za-z]+\z/.freeze
  STREAM = %i[read write << flush close close_read close_write closed?].freeze

  def initialize(application)
    @application = application
  end

  def call(env)
    environment(env)
    input(env["rack.input"]) if env["rack.input"]
    errors(env["rack.errors"])
    callables(env)
    status, headers, body = response = @application.call(env)
    holds("a response is an unfrozen array of three", response.size == 3 && !response.frozen?)
    return [status, headers, Body.new(body, self)] unless body.respond_to?(:call) && !body.respond_to?(:each)

    [status, headers, Streaming.new(body, self)]
  end

  def holds(rule, value)
    raise Broken, rule unless value
  end

  def stream(stream)
    STREAM.each { |name| holds("the stream responds to #{name}", stream.respond_to?(name)) }
    holds("the stream is open", !stream.closed?)
  end

  private

  def environment(env)
    holds("env is an unfrozen Hash", env.instance_of?(Hash) && !env.frozen?)
    holds("every key is a string", env.keys.all?(String))
    env.each do |key, value|
      next if key.include?(".")

      holds("#{key} is a string", value.is_a?(String))
      holds("#{key} is ASCII or binary", value.ascii_only? || value.encoding == Encoding::BINARY)
    end
    %w[REQUEST_METHOD SERVER_NAME SERVER_PROTOCOL].each { |key| holds("#{key} is there", !env[key].to_s.empty?) }
    holds("REQUEST_METHOD is a token", TOKEN.match?(env["REQUEST_METHOD"]))
    holds("QUERY_STRING is there", env["QUERY_STRING"])
    paths(env)
    holds("SERVER_PROTOCOL is a version", %r{\AHTTP/\d(\.\d)?\z}.match?(env["SERVER_PROTOCOL"]))
    holds("HTTP_VERSION is SERVER_PROTOCOL", [nil, env["SERVER_PROTOCOL"]].include?(env["HTTP_VERSION"]))
    holds("SERVER_PORT is digits", env["SERVER_PORT"].nil? || /\A\d+\z/.match?(env["SERVER_PORT"]))
    holds("CONTENT_LENGTH is digits", env["CONTENT_LENGTH"].nil? || /\A\d+\z/.match?(env["CONTENT_LENGTH"]))
    holds("no HTTP_CONTENT_TYPE, no HTTP_CONTENT_LENGTH", (env.keys & %w[HTTP_CONTENT_TYPE HTTP_CONTENT_LENGTH]).empty?)
    holds("rack.url_scheme", %w[http https ws wss].include?(env["rack.url_scheme"]))
  end

  def paths(env)
    script, info = env.values_at("SCRIPT_NAME", "PATH_INFO")
    holds("SCRIPT_NAME is empty or a path that does not end with /", %r{\A(/.*[^/])?\z}.match?(script))
    holds("PATH_INFO is empty or a path without #", %r{\A(/[^#]*)?\z}.match?(info))
    holds("one of SCRIPT_NAME and PATH_INFO is there", script != "" || info != "")
  end

  def input(input)
    %i[gets each read].each { |name| holds("rack.input responds to #{name}", input.respond_to?(name)) }
    holds("rack.input is binary", input.external_encoding == Encoding::BINARY)
  end

  def errors(errors)
    %i[puts write flush].each { |name| holds("rack.errors responds to #{name}", errors.respond_to?(name)) }
  end

  def callables(env)
    %w[rack.hijack rack.early_hints].each do |key|
      holds("#{key} responds to call", env[key].respond_to?(:call)) if env.key?(key)
    end
    finished = env["rack.response_finished"]
    holds("rack.response_finished is an array of callables", finished.nil? || finished.all? { |one| one.respond_to?(:call) })
    protocol = env["rack.protocol"]
    holds("rack.protocol is an array of strings", protocol.nil? || protocol.all?(String))
  end

  # Consumed once, closed once, in this order.
  class Body
    def initialize(body, spec)
      @body = body
      @spec = spec
      @consumed = @closed = 0
    end

    def each(&block)
      @spec.holds("a body is consumed once, before it is closed", (@consumed += 1) == 1 && @closed.zero?)
      @body.each(&block)
    end

    def close
      @spec.holds("a body is closed once", (@closed += 1) == 1)
      @body.close if @body.respond_to?(:close)
    end

    def respond_to_missing?(name, include_all = false)
      name == :to_path && @body.respond_to?(name, include_all)
    end

    def method_missing(name, *arguments)
      name == :to_path && @body.respond_to?(name) ? @body.to_path : super
    end
  end

  class Streaming
    def initialize(body, spec)
      @body = body
      @spec = spec
    end

    def call(stream)
      @spec.stream(stream)
      @body.call(stream)
    end

    def close
      @body.close if @body.respond_to?(:close)
    end
  end
end
