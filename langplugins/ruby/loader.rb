# frozen_string_literal: true

# Finding and loading applications, and what an application may say to the server. Compiled into the plugin; runs in the
# group's own Ruby.
module Webserver
  @before_fork = []
  @after_fork = []
  @in_worker = false

  class << self
    # The block runs in the manager before each worker is forked, if it was registered while something was preloaded.
    def before_fork(&block)
      @before_fork << block unless @in_worker
      block
    end

    # The block runs once in each worker: after the fork, or at once if the worker itself loads what registers it.
    def after_fork(&block)
      @in_worker ? block.call : @after_fork << block
      block
    end
  end

  # What a request is ended with that has run for longer than request_timeout. No StandardError: who rescues those does
  # not mean this.
  class RequestTimeout < Exception # rubocop:disable Lint/InheritException
  end

  # What the plugin calls.
  module Loader
    @scripts = {}
    @loading = Monitor.new
    @preloaded = nil

    # Frames that say nothing to an application's author.
    NOT_THEIRS = %r{\A<(?:internal:|webserver>)|/(?:rubygems|bundler)(?:/|\.rb)}.freeze

    class << self
      # Before any of the application's code runs.
      def start(arguments, application, watch)
        watch(watch) if watch
        $stdout.sync = $stderr.sync = true # it is a pipe to the log
        ARGV.replace(arguments)
        ENV["RACK_ENV"] ||= "production"
        # Ruby would make exceptions of them in its main thread, where nobody waits for any.
        %w[ALRM USR2].each { |name| trap(name, "SYSTEM_DEFAULT") }
        bundle(application)
      end

      # For the group's option `watch`: the manager is told of each file as it is compiled.
      def watch(descriptor)
        told = IO.for_fd(descriptor, "w", autoclose: false)
        seen = {}
        @watch = TracePoint.new(:script_compiled) do |point|
          path = point.instruction_sequence.absolute_path
          next if path.nil? || seen[path]

          seen[path] = true
          told.write_nonblock("#{path}\0", exception: false)
        rescue SystemCallError
          nil # the manager does not read, or the application has closed what it did not know
        end
        @watch.enable
      end

      # The gems that a Gemfile names: that of BUNDLE_GEMFILE, or the one beside the application. An empty
      # BUNDLE_GEMFILE means none.
      def bundle(application)
        gemfile = ENV["BUNDLE_GEMFILE"]
        if gemfile.nil? && application
          beside = %w[Gemfile gems.rb].map { |name| File.join(File.dirname(application), name) }
          gemfile = beside.find { |path| File.file?(path) }
          ENV["BUNDLE_GEMFILE"] = gemfile if gemfile
        elsif gemfile == ""
          ENV.delete("BUNDLE_GEMFILE")
        end
        return if gemfile.nil? || gemfile.empty?

        begin
          require "bundler/setup"
        rescue LoadError => error
          raise unless error.path == "bundler/setup"

          raise LoadError, "#{gemfile} wants Bundler, which is not installed; an empty BUNDLE_GEMFILE in " \
                           "[[[environment]]] does without it"
        end
      end

      # Whether the gem rack is there; required if it is.
      def rack?
        require "rack"
        true
      rescue LoadError => error
        raise unless error.path == "rack"

        false
      end

      # SPEC 2 wants rack.input to be rewindable.
      def rewinds?
        !rack? || Rack.release.to_i < 3
      end

      def build(path)
        result = rack? ? Rack::Builder.load_file(path) : Builder.load_file(path)
        application = result.is_a?(Array) ? result.first : result # Rack 2 adds options
        return application if application.respond_to?(:call)

        raise TypeError, "#{path}: what it runs does not respond to call"
      end

      def load(application)
        @preloaded || build(application)
      end

      # The application of a requested file, loaded again when the file has changed; or a status.
      def requested(path)
        mark = mark_of(path)
        return mark if mark.is_a?(Integer)

        known = @scripts[path]
        return known.last if known && known.first == mark

        @loading.synchronize do # two threads that ask at once run it once
          known = @scripts[path]
          known = @scripts[path] = [mark, build(path)] unless known && known.first == mark
          known.last
        end
      end

      # What tells that a file has changed, or the status that it is answered with.
      def mark_of(path)
        state = File.stat(path)
        return 404 unless state.file?
        return 403 unless state.readable?

        [state.mtime, state.size, state.ino]
      rescue Errno::ENOENT, Errno::ENOTDIR
        404
      rescue Errno::EACCES
        403
      end

      # What workers are to share: libraries, files, and the application itself where its own name is given.
      def preload(names, application)
        names.each do |name|
          if name == application
            @preloaded = build(name)
          elsif name.end_with?(".ru")
            requested(name)
          else
            require name
          end
        end
        # What is here now is old, as the collector says: it will not be written to in each worker.
        3.times { GC.start }
      end

      def before_fork
        Webserver.instance_variable_get(:@before_fork).each(&:call)
      end

      # Everything else that wants to know of a fork has been told by Process.fork.
      def after_fork
        handler = trap("CHLD", "DEFAULT") # the manager has one of its own; without Ruby's, it waits for ever
        trap("CHLD", handler) if handler.respond_to?(:call)
        Webserver.instance_variable_set(:@in_worker, true)
        Webserver.instance_variable_get(:@after_fork).each(&:call)
      end

      # [the whole of an exception with its causes, a line that begins with its place]
      def report(error)
        whole = error.full_message(highlight: false, order: :top)
        whole = whole.lines.grep_v(/\A\tfrom <webserver>:/).join.sub(/\A<webserver>:\d+:in `[^']*': /, "")
        first = error.message.to_s.lines.first.to_s.chomp
        place = error.backtrace.to_a.grep_v(NOT_THEIRS).first.to_s[/\A.*?:\d+/]
        place = nil if error.is_a?(SyntaxError) # its message has it
        [whole, "#{place && "#{place}: "}#{first} (#{error.class})"]
      end

      def stacks
        Thread.list.map do |thread|
          frames = thread.backtrace.to_a.map { |frame| "    #{frame}\n" }.join
          "  #{thread.name || (thread == Thread.main ? "main" : thread.inspect)}:\n#{frames}"
        end.join
      end

      def stop(thread)
        thread.raise(RequestTimeout, "the request has run for longer than its request_timeout")
      end

      # The values of an Upgrade field.
      def protocols(upgrade)
        upgrade.split(",").map(&:strip)
      end

      def no_input(rewinds)
        (rewinds ? RewindableNoInput : NoInput).new
      end

      def hijacked(descriptor)
        require "socket"
        socket = UNIXSocket.for_fd(descriptor)
        socket.binmode
        socket.sync = true
        socket
      end

      # SPEC: after the head the socket is the application's.
      def partial(socket, head, callable)
        Thread.new do
          Thread.current.report_on_exception = false
          socket.write(head)
          callable.call(socket)
        rescue Errno::EPIPE, Errno::ECONNRESET
          socket.close # the client has gone
        rescue Exception => error # rubocop:disable Lint/RescueException -- nobody else would close it
          Webserver.log_error(error.full_message(highlight: false, order: :top))
          socket.close
        end
      end
    end
  end

  # For an environment without the gem rack: the words of a config.ru that need nothing else of it.
  class Builder
    def self.load_file(path)
      # At the top level, as a file that is loaded is; self is the builder.
      place, builder = TOPLEVEL_BINDING.eval("Webserver::Builder.new.instance_eval { [binding, self] }")
      eval(File.read(path).sub(/^__END__\n.*\z/m, ""), place, path) # rubocop:disable Security/Eval -- it is the program
      builder.to_app
    rescue NameError => error
      raise unless error.name == :Rack

      raise error.class, "#{error.message}: the gem rack is not installed in this group's environment"
    end

    def initialize
      @use = []
      @map = {}
      @run = @warmup = nil
      @freeze = false
    end

    def use(middleware, *arguments, &block)
      @use << ->(application) { middleware.new(application, *arguments, &block) }
    end

    def run(application = nil, &block)
      @run = application || block
    end

    def map(path, &block)
      @map[path.chomp("/")] = block
    end

    def warmup(callable = nil, &block)
      @warmup = callable || block
    end

    def freeze_app
      @freeze = true
    end

    def to_app
      application = @map.empty? ? @run : mounted
      raise "missing run or map statement" unless application

      application = @use.reverse.inject(application) { |inner, made| made.call(inner).tap { |one| one.freeze if @freeze } }
      @warmup&.call(application)
      application
    end

    private

    # The longest mount that the path begins with.
    def mounted
      mounts = @map.map { |path, block| [path, self.class.new.tap { |one| one.instance_eval(&block) }.to_app] }
      mounts << ["", @run] if @run && !@map.key?("")
      mounts.sort_by! { |path, _| -path.size }
      lambda do |env|
        info = env["PATH_INFO"].to_s
        path, application = mounts.find { |mount, _| info == mount || info.start_with?("#{mount}/") }
        next [404, { "content-type" => "text/plain" }, ["Not Found\n"]] unless application

        application.call(env.merge("SCRIPT_NAME" => env["SCRIPT_NAME"] + path, "PATH_INFO" => info[path.size..]))
      end
    end
  end
end
