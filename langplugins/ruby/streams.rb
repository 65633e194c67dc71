# frozen_string_literal: true

# What IO has besides what the plugin does in C: few applications use it.
module Webserver
  # On top of read, gets, _read_partial, pos and eof?.
  module Readable
    include Enumerable

    def each(*arguments)
      return enum_for(:each, *arguments) unless block_given?

      while (line = gets(*arguments))
        yield line
      end
      self
    end
    alias each_line each

    def readlines(*arguments)
      each(*arguments).to_a
    end

    def readline(*arguments)
      gets(*arguments) || raise(EOFError, "end of file reached")
    end

    def readpartial(*arguments)
      _read_partial(*arguments) || raise(EOFError, "end of file reached")
    end
    alias sysread readpartial

    def read_nonblock(size, buffer = nil, exception: true)
      _read_partial(*[size, buffer].compact) || (exception ? raise(EOFError, "end of file reached") : nil)
    end

    def getc
      read(1)
    end

    def getbyte
      read(1)&.ord
    end

    def readchar
      getc || raise(EOFError, "end of file reached")
    end

    def readbyte
      getbyte || raise(EOFError, "end of file reached")
    end

    def each_byte
      return enum_for(:each_byte) unless block_given?

      while (byte = getbyte)
        yield byte
      end
      self
    end

    def close_read
      close
    end

    def eof
      eof?
    end

    def tell
      pos
    end

    def binmode
      self
    end

    def set_encoding(*)
      self
    end

    def external_encoding
      Encoding::BINARY
    end

    def internal_encoding
      nil
    end

    def sync
      true
    end

    def sync=(value); end

    def tty?
      false
    end
    alias isatty tty?

    def fileno
      nil
    end

    def inspect
      "#<#{self.class}>"
    end
  end

  class Input
    include Readable
  end

  class RewindableInput
    # Reads all of it if the client has not announced its length.
    def size
      announced = _length
      return announced if announced

      before = pos
      while read(65_536); end
      all = pos
      seek(before)
      all
    end
    alias length size

    def seek(offset, whence = IO::SEEK_SET)
      offset += pos if [IO::SEEK_CUR, :CUR].include?(whence)
      offset += size if [IO::SEEK_END, :END].include?(whence)
      raise Errno::EINVAL, "seek" if offset.negative?

      rewind
      while offset.positive? && (part = read([offset, 65_536].min))
        offset -= part.bytesize
      end
      0
    end

    def pos=(offset)
      seek(offset)
    end
  end

  # The body of a request that has none.
  class NoInput
    include Readable

    def read(length = nil, buffer = nil)
      buffer&.replace(+"")
      raise ArgumentError, "negative length #{length} given" if length&.negative?

      length.nil? || length.zero? ? buffer || (+"").b : nil
    end

    def _read_partial(_length, buffer = nil)
      buffer&.replace(+"")
      nil
    end

    def gets(*)
      nil
    end

    def pos
      0
    end

    def size
      0
    end
    alias length size

    def eof?
      true
    end

    def close; end

    def closed?
      false
    end
  end

  # The same for Rack 2.
  class RewindableNoInput < NoInput
    def rewind
      0
    end

    def seek(*)
      0
    end
  end

  class Stream
    def readpartial(*arguments)
      _read_partial(*arguments) || raise(EOFError, "end of file reached")
    end

    def read_nonblock(size, buffer = nil, exception: true)
      _read_partial(*[size, buffer].compact) || (exception ? raise(EOFError, "end of file reached") : nil)
    end

    # It waits: an answer has no other way to be written.
    def write_nonblock(data, exception: true)
      _ = exception
      write(data)
    end

    def each
      return enum_for(:each) unless block_given?

      while (part = _read_partial(65_536))
        yield part
      end
      self
    end

    def puts(*lines)
      write(*(lines.empty? ? [""] : lines).flatten.map { |line| line.to_s.end_with?("\n") ? line.to_s : "#{line}\n" })
      nil
    end

    def print(*parts)
      write(*parts)
      nil
    end

    def sync
      true
    end

    def sync=(value); end

    def binmode
      self
    end

    def inspect
      "#<#{self.class}>"
    end
  end

  class Errors
    def sync
      true
    end

    def sync=(value); end

    def fsync
      0
    end

    def tty?
      false
    end
    alias isatty tty?

    def fileno
      2
    end

    def closed?
      false
    end

    def external_encoding
      nil
    end

    def inspect
      "#<#{self.class}>"
    end
  end
end
