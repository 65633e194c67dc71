"""An HTTP server that shows what reaches it word for word, and answers, or misbehaves, as it is asked to.

    server.py socket PATH | descriptor NUMBER | port NUMBER

Standard library only; one asyncio loop. Each connection has a number, each request an entry in `seen`.
"""

import asyncio
import hashlib
import json
import os
import signal
import socket
import sys
import time

PATTERN = bytes(range(256)) * 256  # 64 KiB
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"

# What a program must not say, by name.
RAW = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00",
    "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "length-and-chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "negative-length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    "no-status": b"HTTP/1.1 what OK\r\nContent-Length: 0\r\n\r\n",
    "control-in-value": b"HTTP/1.1 200 OK\r\nX-A: a\x01b\r\nContent-Length: 0\r\n\r\n",
    "many-fields": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: a\r\n" % i for i in range(300)) + b"\r\n",
    "large-head": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 70000 + b"\r\n\r\n",
    "switch-unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    "chunk-size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    "nothing": b"",
    "half-a-head": b"HTTP/1.1 200 OK\r\nContent-Le",
}
# Cut off after something that was sent on: what the client gets must not look whole.
CUT = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 500,
    "chunk": CHUNKED + b"\r\n10\r\nhello",
    "chunks": CHUNKED + b"\r\n5\r\nhello\r\n",
}
connections = 0
seen = []
waiting = []


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(body, status="200 OK", more=b""):
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status.encode(), len(body), more, body)


async def pieces(reader, fields, trailers):
    """The request's body as it comes."""
    if fields.get("transfer-encoding") == "chunked":
        while True:
            size = int(await reader.readuntil(b"\r\n"), 16)
            if size == 0:
                while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                    trailers.append(line.decode().strip())
                return
            yield await reader.readexactly(size)
            await reader.readexactly(2)
    left = int(fields.get("content-length", 0))
    while left:
        data = await reader.read(min(left, 65536))
        if not data:
            raise ConnectionResetError
        left -= len(data)
        yield data


async def respond(path, method, head, fields, reader, writer, number):
    """Answer one request. False: close the connection."""

    def say(data):
        writer.write(data[: data.index(b"\r\n\r\n") + 4] if method == "HEAD" else data)

    trailers = []
    word, _, rest = path.split("?")[0].rpartition("/")[2].partition("-")
    if word == "head":
        say(answer(head))
    elif word == "body":
        if "expect" in fields and not rest:
            say(b"HTTP/1.1 100 Continue\r\n\r\n")
        digest, length = hashlib.sha256(), 0
        async for data in pieces(reader, fields, trailers):
            digest.update(data)
            length += len(data)
        say(answer(json.dumps({"length": length, "sha256": digest.hexdigest(), "trailers": trailers}).encode()))
    elif word == "echo":
        say(CHUNKED + b"\r\n")
        async for data in pieces(reader, fields, trailers):
            say(chunk(data))
            await writer.drain()
        say(b"0\r\n\r\n")
    elif word == "sleep":
        await asyncio.sleep(int(rest) / 1000)
        say(answer(b"slept"))
    elif word == "meet":
        waiting.append(mine := asyncio.Event())
        if len(waiting) == int(rest):
            for event in waiting:
                event.set()
        await mine.wait()
        say(answer(b"met"))
    elif word == "stream" and method == "HEAD":
        say(b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n" % rest.encode())
    elif word == "stream":
        left = int(rest)
        say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
        while left:
            say(PATTERN[:left])
            left -= min(left, len(PATTERN))
            await writer.drain()
    elif word == "hints":
        say(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: keep-alive\r\n\r\n")
        say(answer(b"after hints"))
    elif word == "trailers":
        say(CHUNKED + b"Trailer: X-Sum\r\n\r\n" + chunk(b"hello") + b"0\r\nX-Sum: 42\r\n\r\n")
    elif word == "close":
        say(b"HTTP/1.0 200 OK\r\nX-From: old\r\n\r\nuntil the end")
        return False
    elif word == "status":
        body = b"" if rest == "204" else b"Content-Length: 7\r\n\r\n" + (b"" if rest == "304" else b"content")
        say(b"HTTP/1.1 %s X\r\n%s" % (rest.encode(), body or b"\r\n"))
    elif word == "refuse":
        say(answer(b"too large", "413 Content Too Large", b"Connection: close\r\n"))
        return False
    elif word == "connection":
        say(answer(b"%d" % number))
    elif word == "count":
        async for _ in pieces(reader, fields, trailers):
            pass
        say(answer(json.dumps(seen).encode()))
    elif word == "hangup":  # answers, and closes without a word some time later
        say(answer(b"%d" % number))
        await writer.drain()
        return False
    elif word == "pid":
        say(answer(b"%d" % os.getpid()))
    elif word == "fork":
        say(answer(b"%d" % fork()))
    elif word == "silent":
        await asyncio.sleep(3600)
    elif word == "late":  # after so many seconds, more than anybody's buffer takes
        await asyncio.sleep(float(rest))
        try:
            say(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(10_000_000))
            await writer.drain()
        finally:
            sys.stderr.write("the late answer is over\n")
        return False
    elif word == "hang":  # as a whole, and TERM does not end it: asyncio only takes note of it
        time.sleep(3600)
    elif word == "raw":
        say(RAW[rest])
        return False
    elif word == "cut":
        say(CUT[rest])
        await writer.drain()
        await reader.readexactly(1)  # the client has got what there is
        return False
    elif word == "endless":
        say(b"HTTP/1.1 200 OK\r\n")
        while True:
            say(b"X-More: and more\r\n" * 1000)
            await writer.drain()
    elif word == "interims":
        while True:
            say(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
            await writer.drain()
    elif word == "die":
        if rest:
            say(CUT["length"] if rest == "answering" else b"HTTP/1.0 200 OK\r\n\r\nthe first half")
            await writer.drain()
            await reader.readexactly(1)
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "exit":
        sys.stderr.write("told to exit\n")
        os._exit(int(rest))
    elif word == "upgrade":
        say(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\nHELLO ")
        while data := await reader.read(65536):
            say(data.upper())
            await writer.drain()
        say(b"BYE")
        return False
    else:
        say(answer(b"no such word", "404 Not Found"))
    return True


def fork():
    """A process in a session of its own that outlives everything, if it is let."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(write, b"%d" % os.getpid())
            while True:
                signal.pause()
        os._exit(0)
    os.waitpid(pid, 0)
    found = int(os.read(read, 20))
    os.close(read)
    os.close(write)
    return found


async def serve(reader, writer):
    global connections
    connections += 1
    number = connections
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
            method, path, _ = line.split(" ")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            seen.append(f"{method} {path}")
            if not await respond(path, method, head, fields, reader, writer, number):
                break
            await writer.drain()
            if fields.get("connection") == "close":
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    kind, where = sys.argv[1:3]
    if kind == "socket":
        server = await asyncio.start_unix_server(serve, where, limit=1 << 20, backlog=1024)
    elif kind == "port":
        server = await asyncio.start_server(serve, "127.0.0.1", int(where), limit=1 << 20)
    else:
        assert os.environ["LISTEN_PID"] == str(os.getpid())
        server = await asyncio.start_unix_server(serve, sock=socket.socket(fileno=int(where)), limit=1 << 20)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with server:
        await stop.wait()
    if "SAY_GOODBYE" in os.environ:
        with open(os.environ["SAY_GOODBYE"], "a") as file:
            file.write("goodbye\n")


asyncio.run(main())
