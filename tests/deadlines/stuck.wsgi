import ctypes
import os
import signal
import threading
import time

libc = ctypes.PyDLL(None)  # holds the interpreter's lock during a call


def loop():
    try:
        any(False for _ in iter(int, 1))  # loop
    finally:
        print("cleaned up after loop", flush=True)


def sleep():
    time.sleep(1000)  # sleep


def lock():
    one = threading.Lock()
    one.acquire()
    one.acquire()  # lock


def c():
    mutex = ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # c


def pause(seconds):
    time.sleep(seconds)  # pause


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end: pass  # spin


def application(environ, start_response):
    name, _, seconds = environ["PATH_INFO"].strip("/").partition("/")
    if name in ("loop", "sleep", "lock", "c"):
        libc.signal(signal.SIGTERM, 1)  # SIG_IGN; Python lets its main thread alone do that
    if name in ("loop", "sleep", "lock", "c", "pause", "spin"):
        globals()[name](*[float(seconds)] if seconds else [])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]
