import asyncio
import ctypes
import os
import signal
import threading
import time

libc = ctypes.PyDLL(None)  # holds the interpreter's lock during a call


def loop():
    any(False for _ in iter(int, 1))  # loop


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
    any(time.monotonic() > end for _ in iter(int, 1))  # spin


async def stubborn():
    while True:
        try:
            await asyncio.sleep(1000)  # stubborn
        except asyncio.CancelledError:
            pass


async def application(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    name, _, seconds = scope["path"].removeprefix(scope.get("root_path", "")).strip("/").partition("/")
    if name in ("loop", "sleep", "lock", "c", "stubborn"):
        libc.signal(signal.SIGTERM, 1)  # SIG_IGN
    if name == "stubborn":
        await stubborn()
    if name in ("loop", "sleep", "lock", "c", "pause", "spin"):
        globals()[name](*[float(seconds)] if seconds else [])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
