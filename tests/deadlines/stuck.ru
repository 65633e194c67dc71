require "fiddle"

MUTEX = Fiddle::Function.new(
  Fiddle.dlopen(nil)["pthread_mutex_lock"], [Fiddle::TYPE_VOIDP], Fiddle::TYPE_INT, need_gvl: true
)

WAYS = {
  "loop" => lambda { |_|
    begin
      loop { }  # loop
    ensure
      warn "cleaned up after loop"
    end
  },
  "sleep" => lambda { |_|
    sleep  # sleep
  },
  "lock" => lambda { |_|
    one = Mutex.new
    held = Queue.new
    Thread.new { one.synchronize { held << 1; sleep } }
    held.pop
    one.lock  # lock
  },
  "c" => lambda { |_|
    mutex = Fiddle::Pointer.malloc(64, Fiddle::RUBY_FREE)
    mutex[0, 64] = "\0" * 64
    MUTEX.call(mutex)
    MUTEX.call(mutex)  # c
  },
  "pause" => lambda { |seconds|
    sleep(seconds)  # pause
  },
  "spin" => lambda { |seconds|
    finish = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds
    nil while Process.clock_gettime(Process::CLOCK_MONOTONIC) < finish  # spin
  }
}.freeze

run lambda { |env|
  _, name, seconds = env["PATH_INFO"].split("/")
  trap("TERM", "IGNORE") if %w[loop sleep lock c].include?(name)
  WAYS[name]&.call(seconds.to_f)
  [200, { "content-type" => "text/plain" }, [Process.pid.to_s]]
}
