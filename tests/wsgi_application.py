"""The WSGI application of test_wsgi.py: each path is a behaviour."""

import concurrent.futures
import gzip
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from wsgiref.validate import validator

pool = concurrent.futures.ThreadPoolExecutor(2)
seen = []
signal.signal(signal.SIGUSR2, lambda number, frame: seen.append("USR2"))
signal.signal(signal.SIGHUP, lambda number, frame: seen.append("HUP"))
print("a line on standard output")


def plain(start_response, status="200 OK", fields=()):
    return start_response(status, [("Content-Type", "text/plain"), *fields])


def environ_of(environ, start_response):
    plain(start_response)
    return [repr({k: v for k, v in environ.items() if isinstance(v, (str, bool, tuple))}).encode("latin-1")]


def read(environ, start_response):
    stream = environ["wsgi.input"]
    out = []
    for word in environ["QUERY_STRING"].split(","):
        name, _, size = word.partition(":")
        arguments = [int(size)] if size else []
        if name == "iter":
            out.append(list(stream))
        else:
            out.append(getattr(stream, name)(*arguments))
    plain(start_response)
    return [repr(out).encode()]


def count(environ, start_response):
    total = 0
    while True:
        piece = environ["wsgi.input"].read(65536)
        if not piece:
            break
        total += len(piece)
    plain(start_response)
    return [b"%d" % total]


def whole(environ, start_response):
    body = environ["wsgi.input"].read()
    plain(start_response)
    return [b"%d %d" % (len(body), sum(body[::4096]))]


def late_error(environ, start_response):
    put = plain(start_response)
    put(b"begun")
    try:
        raise ValueError("too late for a page")
    except ValueError:
        start_response("500 Sorry", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"never"]


def odd_error(environ, start_response):
    put = plain(start_response)
    put(b"begun")
    start_response("500 Sorry", [], (None, None, None))


def changed_mind(environ, start_response):
    plain(start_response, "200 OK", [("X-First", "1")])
    start_response("404 Not here", [("Content-Type", "text/plain")], (ValueError, ValueError("x"), None))
    return [b"second thoughts"]


class Application:
    def __init__(self, environ, start_response):
        self.start_response = start_response

    def __iter__(self):
        plain(self.start_response)
        yield b"a class is an application"


def closes(name):
    def wrap(function):
        def application(environ, start_response):
            class Result:
                def __init__(self):
                    self.parts = iter(function(environ, start_response))

                def __iter__(self):
                    return self

                def __next__(self):
                    return next(self.parts)

                def close(self):
                    with open("closed", "a") as file:
                        file.write(name + "\n")

            return Result()

        return application

    return wrap


@closes("endless")
def endless(environ, start_response):
    plain(start_response)
    while True:
        yield b"x" * 50000


@closes("broken")
def broken(environ, start_response):
    plain(start_response)
    yield b"part"
    raise RuntimeError("in the middle of it")


@closes("exact")
def exact(environ, start_response):
    plain(start_response, "200 OK", [("Content-Length", "9")])
    yield b"four"
    yield b"fives"
    # The client has all that was promised; what follows is nobody's to wait for.
    with open("waiting", "w"):
        pass
    while not os.path.exists("go"):
        time.sleep(0.01)


@closes("surplus")
def surplus(environ, start_response):
    plain(start_response, "200 OK", [("Content-Length", "4")])
    yield b"four"
    yield b"and more"


@closes("short")
def short(environ, start_response):
    plain(start_response, "200 OK", [("Content-Length", "40")])
    yield b"four"


@closes("not_bytes")
def not_bytes(environ, start_response):
    plain(start_response)
    yield "text"


@closes("exits_late")
def exits_late(environ, start_response):
    plain(start_response)
    yield b"part"
    sys.exit(7)


def interrupts(environ, start_response):
    raise KeyboardInterrupt


def text(environ, start_response):
    plain(start_response)
    return "text"


def nothing(environ, start_response):
    plain(start_response)


def number_value(environ, start_response):
    start_response("200 OK", [("X-Number", 5)])
    return []


def euro(environ, start_response):
    start_response("200 OK", [("X-Price", "5 \u20ac")])
    return []


def newline(environ, start_response):
    start_response("200 OK", [("X-Split", "a\r\nSet-Cookie: stolen=1")])
    return []


def bad_name(environ, start_response):
    start_response("200 OK", [("X Bad", "a")])
    return []


def bad_reason(environ, start_response):
    start_response("200 OK\r\nSet-Cookie: stolen=1", [])
    return []


def bad_status(environ, start_response):
    start_response("OK", [])
    return []


def transfer(environ, start_response):
    start_response("200 OK", [("Transfer-Encoding", "chunked")])
    return []


def latin(environ, start_response):
    plain(start_response, "200 D\xe9j\xe0 vu", [("X-Latin", "caf\xe9"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    return [environ["HTTP_X_LATIN"].encode("latin-1"), b"|", environ["PATH_INFO"].encode("latin-1")]


def sizes(environ, start_response):
    plain(start_response)
    return [b"", b"one", b"", b"two"]


def part_of_file(environ, start_response):
    file = open("data", "rb")  # noqa: SIM115 - the server closes it
    file.seek(100)
    plain(start_response, "206 Partial Content", [("Content-Length", "50"), ("Content-Range", "bytes 100-149/10000")])
    return environ["wsgi.file_wrapper"](file)


def whole_file(environ, start_response):
    plain(start_response)
    return environ["wsgi.file_wrapper"](open("data", "rb"), 1000)


def packed_file(environ, start_response):
    plain(start_response)
    return environ["wsgi.file_wrapper"](gzip.open("data.gz", "rb"))


def temporary_file(environ, start_response):
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115
    file.write(b"temporary" * 1000)
    file.seek(9)
    plain(start_response)
    return environ["wsgi.file_wrapper"](file)


def pipe_file(environ, start_response):
    plain(start_response)
    return environ["wsgi.file_wrapper"](subprocess.Popen(["echo", "from a pipe"], stdout=subprocess.PIPE).stdout)


def in_thread(environ, start_response):
    # As ASGI applications are run under WSGI: the body is read in another thread, which this one waits for.
    body = pool.submit(environ["wsgi.input"].read).result()
    put = plain(start_response)
    for _ in range(20):
        pool.submit(put, body[:5]).result()
    return [b"."]


def at_once(environ, start_response):
    # A thread of the application's waits for the body while this one writes.
    begun = threading.Event()
    reading = pool.submit(lambda: (begun.set(), environ["wsgi.input"].readline())[1])
    begun.wait()
    put = plain(start_response)
    for _ in range(50):
        put(b"x" * 100)
    yield reading.result()


def child(environ, start_response):
    # What the application starts can be ended and interrupted like anybody's.
    out = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process = subprocess.Popen(["sleep", "60"])
        process.send_signal(number)
        out.append(process.wait(20) == -number)
    plain(start_response)
    return [repr(out).encode()]


def own_signals(environ, start_response):
    for number in (signal.SIGUSR2, signal.SIGHUP):
        os.kill(os.getpid(), number)
    while len(seen) < 2 and threading.current_thread() is threading.main_thread():
        pass
    plain(start_response)
    return [repr(sorted(seen)).encode()]


def process(environ, start_response):
    import lent

    with open("made", "w"):
        pass
    words = {
        "argv": sys.argv,
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
        "file": __file__,
        "mode": oct(os.stat("made").st_mode & 0o777),
        "lent": lent.word,
        "name": __name__,
        "prefix": sys.prefix,
        "path": sys.path[:2],
    }
    plain(start_response)
    import json

    return [json.dumps(words).encode()]


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/").split("/")[0]
    if name.startswith("valid-"):
        return validator(globals()[name[6:]])(environ, start_response)
    return globals()[name](environ, start_response)
