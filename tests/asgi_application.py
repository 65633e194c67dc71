"""The ASGI application of tests/test_asgi.py: many small ones, chosen by the path. Run inside the server, not by pytest."""

import asyncio
import contextvars
import os
import sys
import time

events = []  # what has happened, for GET /events
mark = contextvars.ContextVar("mark", default="nobody's")
started = {"lifespan": 0}
PLAIN = [(b"content-type", b"text/plain")]


async def answer(send, body, status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": [*PLAIN, *headers]})
    await send({"type": "http.response.body", "body": body})


async def read(receive):
    body = b""
    while True:
        event = await receive()
        assert event["type"] == "http.request", event
        body += event["body"]
        if not event["more_body"]:
            return body


async def hello(scope, receive, send):
    await answer(send, b"hello, world")


async def scope_of(scope, receive, send):
    shown = {key: value for key, value in scope.items() if key != "extensions"}
    shown["extensions"] = sorted(scope["extensions"])
    own = scope["extensions"]["webserver"]
    own["log"]("a line of " + own["request_id"])
    shown["webserver"] = {key: own[key] for key in ("request_id", "deadline")}
    await answer(send, repr(shown).encode())


async def change_scope(scope, receive, send):
    """A scope is a request's own, and so is what it holds."""
    before = repr((scope["state"], sorted(scope["asgi"]), "x" in scope["extensions"], mark.get()))
    scope["state"]["own"] = 1
    scope["asgi"]["own"] = 1
    scope["extensions"]["x"] = {}
    scope["headers"].append((b"x", b"y"))
    mark.set("this one's")
    await answer(send, before.encode())


async def echo(scope, receive, send):
    await answer(send, await read(receive))


async def stream_back(scope, receive, send):
    """Each piece as it comes, while the request goes on."""
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    more = True
    while more:
        event = await receive()
        more = event["more_body"]
        await send({"type": "http.response.body", "body": event["body"], "more_body": more})


async def count(scope, receive, send):
    total, largest, more = 0, 0, True
    while more:
        event = await receive()
        total += len(event["body"])
        largest = max(largest, len(event["body"]))
        more = event["more_body"]
    with open("/proc/self/status") as file:
        peak = next(line.split()[1] for line in file if line.startswith("VmHWM"))
    await answer(send, b"%d %d %s" % (total, largest, peak.encode()))


async def unread(scope, receive, send):
    await answer(send, b"not read", 403)


async def read_one(scope, receive, send):
    event = await receive()
    await answer(send, b"%d" % len(event["body"]))


async def pieces(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    for piece in (b"one ", b"", b"two ", bytearray(b"three "), memoryview(b"four")):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def large(scope, receive, send):
    size = int(scope["query_string"])
    await answer(send, bytes(range(256)) * (size // 256) + b"x" * (size % 256))


async def endless(scope, receive, send):
    """Until the client goes: send() waits for it to take something, and raises an OSError when it is gone."""
    sent = 0
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    try:
        while True:
            await send({"type": "http.response.body", "body": b"x" * 300000, "more_body": True})
            sent += 300000
            started["sent"] = sent
    except OSError as error:
        events.append(f"endless: {type(error).__name__} {sent}")
        raise


async def sent(scope, receive, send):
    await answer(send, b"%d" % started.get("sent", 0))


async def framework(scope, receive, send):
    """As frameworks do it: the OSError of send() becomes an exception of their own."""
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    try:
        while True:
            await send({"type": "http.response.body", "body": b"x" * 300000, "more_body": True})
    except OSError:
        raise RuntimeError("client disconnected") from None


async def listen(scope, receive, send):
    """Answers never; hears that the client has gone."""
    await receive()
    events.append("listening")
    event = await receive()
    events.append("listen: " + event["type"])


async def listens_twice(scope, receive, send):
    await read(receive)
    both = asyncio.gather(receive(), receive())
    events.append("both")
    events.append("both: %r" % [event["type"] for event in await both])


async def after_answer(scope, receive, send):
    await read(receive)
    await answer(send, b"done")
    events.append("after: " + (await receive())["type"])
    try:
        await send({"type": "http.response.body", "body": b"more"})
    except RuntimeError:
        events.append("after: RuntimeError")


async def timeout(scope, receive, send):
    """What waits in receive() can be cancelled, and asked again."""
    await read(receive)
    try:
        await asyncio.wait_for(receive(), 0.05)
    except TimeoutError:
        pass
    task = asyncio.create_task(receive())
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        await answer(send, b"cancelled")


async def half_sent(scope, receive, send):
    """A send() that is cancelled while it waits has given its bytes away: the answer has no hole."""
    size = 4000000
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    waiting = asyncio.create_task(send({"type": "http.response.body", "body": b"a" * size, "more_body": True}))
    await asyncio.sleep(0.05)
    events.append(f"half_sent: done is {waiting.done()}")
    waiting.cancel()
    await send({"type": "http.response.body", "body": b"b" * size})


async def not_a_dict(scope, receive, send):
    await send(["http.response.start"])


async def no_start(scope, receive, send):
    await send({"type": "http.response.body", "body": b"x"})


async def twice(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.start", "status": 200})


async def unknown(scope, receive, send):
    await send({"type": "http.response.pushed"})


async def bad_header(scope, receive, send):
    await answer(send, b"", headers=[(b"x-bad", b"a\r\nb")])


async def text_header(scope, receive, send):
    await answer(send, b"", headers=[("x-text", "a")])


async def bad_status(scope, receive, send):
    await answer(send, b"", status="200")


async def text_body(scope, receive, send):
    await answer(send, "text")


async def ignored_headers(scope, receive, send):
    await answer(
        send,
        b"ignored",
        headers=[(b"Transfer-Encoding", b"chunked"), (b"Connection", b"keep-alive"), [b"X-Kept", b"1"]],
    )


async def raises(scope, receive, send):
    raise KeyError("nobody caught this: \udc80")


async def raises_after_start(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    raise KeyError("nothing was sent yet")


async def raises_late(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    raise KeyError("in the middle of it")


async def raises_after(scope, receive, send):
    await answer(send, b"complete")
    raise KeyError("after the answer")


async def exits(scope, receive, send):
    sys.exit(3)


async def silent(scope, receive, send):
    pass


async def unfinished(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})


def not_awaitable(scope, receive, send):
    return None


async def head(scope, receive, send):
    await answer(send, b"0123456789", headers=[(b"content-length", b"10")])


async def too_long(scope, receive, send):
    await answer(send, b"0123456789", headers=[(b"content-length", b"5")])


async def too_short(scope, receive, send):
    await answer(send, b"01234", headers=[(b"content-length", b"10")])


async def sleep(scope, receive, send):
    started["now"] = started.get("now", 0) + 1
    started["most"] = max(started.get("most", 0), started["now"])
    try:
        await asyncio.sleep(float(scope["query_string"]))
    except asyncio.CancelledError:
        events.append("sleep: cancelled")
        raise
    finally:
        started["now"] -= 1
    await answer(send, b"slept")


async def stubborn(scope, receive, send):
    """Is asked to stop, and goes on."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            events.append("stubborn")


async def block(scope, receive, send):
    """The whole loop, for as long as it takes."""
    time.sleep(float(scope["query_string"]))
    await answer(send, b"blocked")


async def now(scope, receive, send):
    await answer(send, b"%d" % started.get("now", 0))


async def most(scope, receive, send):
    await answer(send, b"%d" % started.get("most", 0))


async def trailers(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN, "trailers": True})
    await send({"type": "http.response.body", "body": b"body "})
    await send({"type": "http.response.trailers", "headers": [(b"x-first", b"1")], "more_trailers": True})
    await send({"type": "http.response.trailers", "headers": [(b"x-second", b"2")]})


async def early_hint(scope, receive, send):
    await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]})
    await answer(send, b"hinted")


async def pathsend(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    await send({"type": "http.response.pathsend", "path": os.path.join(os.getcwd(), "data")})


async def pathsend_missing(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    await send({"type": "http.response.pathsend", "path": "/nowhere"})


async def zerocopysend(scope, receive, send):
    with open("data", "rb") as file:
        await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
        await send({"type": "http.response.zerocopysend", "file": file, "offset": 10, "count": 20, "more_body": True})
        file.seek(100)
        await send({"type": "http.response.zerocopysend", "file": file})


async def happened(scope, receive, send):
    await answer(send, "\n".join(events).encode())


async def lifespan_state(scope, receive, send):
    await answer(send, repr((started["lifespan"], scope["state"])).encode())


async def pid(scope, receive, send):
    await answer(send, b"%d" % os.getpid())


async def fork(scope, receive, send):
    """A child that comes back here has no connection: the answer is its parent's."""
    child = os.fork()
    if child == 0:
        return
    _, status = await asyncio.get_running_loop().run_in_executor(None, os.waitpid, child, 0)
    await answer(send, b"child: %d" % status)


async def subprocess(scope, receive, send):
    process = await asyncio.create_subprocess_exec("echo", "from a program", stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    await answer(send, out)


async def loop_kind(scope, receive, send):
    loop = asyncio.get_running_loop()
    await answer(send, (f"{type(loop).__module__} {asyncio.current_task() is not None}").encode())


async def lifespan(scope, receive, send):
    scope["state"]["made"] = ["at startup"]
    event = await receive()
    assert event == {"type": "lifespan.startup"}, event
    started["lifespan"] += 1
    await send({"type": "lifespan.startup.complete"})
    event = await receive()
    assert event == {"type": "lifespan.shutdown"}, event
    print("shutdown: {} requests run".format(started.get("now", 0)), flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    name = scope["path"].removeprefix(scope["root_path"]).strip("/").partition("/")[0] or "hello"
    result = globals()[name](scope, receive, send)
    if result is not None:
        return await result
    return await not_awaitable(scope, receive, send)
