"""ASGI 3: the loop, lifespan, errors, deadlines and the end. Compiled into the plugin; runs in loader.py's names.

turn(), descriptor() and log() are asgi.c's; an exchange is one request (exchange.c).
"""

import asyncio
import contextlib
import inspect
import os
import time

_NAMES = ("application", "app")
_ERROR, _WARNING, _NOTICE = 0, 1, 2
_PIECE = 196608  # LANGPLUGIN_WRITE
_LATE = "cancelled by the server"
_leaving = False
_GRACE = 30.0  # seconds for lifespan.shutdown, and then for tasks that the application has left


class ClientDisconnected(ConnectionResetError):
    """send() for a client that is not there any more."""


# ---- one request


async def serve(exchange, scope, receive, send):
    """The application's task for one request."""
    try:
        await _application(scope, receive, send)
    except GeneratorExit:
        raise  # the loop is closed: nobody is there to be answered
    except BaseException as error:  # also SystemExit: it ends the request, not the worker
        try:
            _failed(exchange, error)
        finally:
            exchange.fail()
    else:
        exchange.finish()
    if exchange.timer is not None and exchange not in _sockets:
        exchange.timer.cancel()
        exchange.timer = None


def _failed(exchange, error):
    source = _source(error) if exchange.gone else None
    if source is not None and source.args[:1] == (_LATE,):
        pass  # said when it was cancelled
    elif source is not None:
        exchange.log(_NOTICE, "the client went away before its request or its answer was complete")
    else:
        exchange.log(_ERROR, report(error)[0])


def _source(error):
    """What of ours an exception comes from: a client that goes away is no mistake of the application's, and frameworks
    wrap what send() has raised."""
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, (ClientDisconnected, asyncio.CancelledError)):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def gone(exchange):
    """The client has gone or the deadline has passed. The application hears of it by http.disconnect; what still runs
    at its deadline is cancelled, since a request that does not end costs the worker."""
    deadline = exchange.deadline
    if exchange in _sockets:
        deadline = time.monotonic() + _GRACE  # the handshake's is long over
        if exchange.timer is not None:
            exchange.timer.cancel()
    if deadline is None or exchange.over:
        return
    left = deadline - time.monotonic()
    if left > 0:
        exchange.timer = _loop.call_later(left, _overdue, exchange)
    else:
        _overdue(exchange)


def _overdue(exchange):
    exchange.timer = None
    task = exchange.task
    if exchange.over or task is None:
        return
    late = "ran on after its client had gone" if exchange in _sockets else "has run for longer than request_timeout"
    exchange.log(_WARNING, "cancelled: it %s. It was here:\n%s" % (late, _stack(task)))
    task.cancel(_LATE)


async def send_file(exchange, event):
    """http.response.pathsend, and http.response.zerocopysend."""
    if event["type"] == "http.response.pathsend":
        fd, offset, count, more = os.open(event["path"], os.O_RDONLY | os.O_CLOEXEC), 0, None, False
    else:
        file = event["file"]
        fd, count, more = os.dup(file.fileno()), event.get("count"), event.get("more_body", False)
        offset = event.get("offset")
        if offset is None:
            offset = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        while count is None or count > 0:
            data = await _read_at(fd, _PIECE if count is None else min(count, _PIECE), offset)
            if not data:
                break
            offset += len(data)
            if count is not None:
                count -= len(data)
            await exchange.send({"type": "http.response.body", "body": data, "more_body": True})
    finally:
        os.close(fd)
    await exchange.send({"type": "http.response.body", "body": b"", "more_body": more})


async def _read_at(fd, size, offset):
    """Of what the kernel has in memory at once; the disk is waited for in another thread."""
    buffer = bytearray(size)
    try:
        got = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
    except OSError:
        return await _loop.run_in_executor(None, os.pread, fd, size, offset)
    return bytes(memoryview(buffer)[:got])


# ---- the application


def _check(application, where):
    """ASGI 3 is called with three arguments; what takes one or two is something else."""
    try:
        signature = inspect.signature(application)
    except (TypeError, ValueError):
        return  # written in C, or too clever: the first request shows
    for count, meaning in (
        (3, None),
        (1, "it takes one argument, as ASGI 2 had it; asgiref.compatibility.guarantee_single_callable makes it ASGI 3"),
        (2, "it takes two arguments, as WSGI has it: interface = wsgi"),
    ):
        try:
            signature.bind(*[None] * count)
        except TypeError:
            continue
        if meaning is not None:
            raise TypeError("%s is not an ASGI 3 application: %s" % (where, meaning))
        return
    raise TypeError("%s is not an ASGI 3 application: it cannot be called with scope, receive and send" % where)


def _make_loop():
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def start(application, version):
    """What requests need: create_task and create_future of the loop, and the state of lifespan."""
    global _loop, _application, _lifespan
    _loop = _make_loop()
    asyncio.set_event_loop(_loop)

    async def begin():
        # In the running loop: what is made while a module is imported may ask for it.
        global _application, _lifespan
        _application = load(application)
        _lifespan = _Lifespan(version)
        await _lifespan.startup()

    _loop.run_until_complete(begin())
    return _loop.create_task, _loop.create_future, _lifespan.state


class _Lifespan:
    """Startup and shutdown, for an application that knows them."""

    def __init__(self, version):
        self.state = {}
        self._version = version
        self._events = asyncio.Queue()
        self._answers = asyncio.Queue()
        self._task = None
        self._asked = False  # the application has received lifespan.startup

    async def _receive(self):
        event = await self._events.get()
        self._asked = True
        return event

    async def _send(self, event):
        self._answers.put_nowait(event)

    async def _run(self):
        scope = {"type": "lifespan", "asgi": dict(self._version), "state": self.state}
        try:
            await _application(scope, self._receive, self._send)
        except GeneratorExit:
            raise
        except BaseException as error:
            self._answers.put_nowait(error)
        else:
            self._answers.put_nowait(None)

    async def _ask(self, name):
        """The answer to an event: its dict; None or an exception when the application has returned or raised."""
        self._events.put_nowait({"type": "lifespan." + name})
        answer = await self._answers.get()
        if isinstance(answer, dict):
            kind = answer.get("type")
            if kind == "lifespan.%s.failed" % name:
                return answer
            if kind != "lifespan.%s.complete" % name:
                raise RuntimeError(
                    "lifespan: found the event %r, expected lifespan.%s.complete or .failed" % (kind, name)
                )
        return answer

    async def startup(self):
        self._task = _loop.create_task(self._run())
        answer = await self._ask("startup")
        if isinstance(answer, dict):
            if answer["type"] == "lifespan.startup.failed":
                raise RuntimeError("lifespan.startup.failed: " + str(answer.get("message") or "without a message"))
            return
        # Spec: one that raises or returns knows no lifespan, and goes without. What it raised may be a mistake, though.
        self._task = None
        if self._asked and isinstance(answer, BaseException):
            log(
                _WARNING,
                "the application raised at lifespan.startup; it goes on without lifespan:\n" + report(answer)[0],
            )

    async def shutdown(self):
        if self._task is None or self._task.done():
            return
        try:
            answer = await asyncio.wait_for(self._ask("shutdown"), _GRACE)
        except asyncio.TimeoutError:
            log(_ERROR, "lifespan.shutdown was not answered within %d s" % _GRACE)
            return
        if isinstance(answer, BaseException):
            log(_ERROR, "lifespan.shutdown:\n" + report(answer)[0])
        elif answer is not None and answer["type"] == "lifespan.shutdown.failed":
            log(_ERROR, "lifespan.shutdown.failed: " + str(answer.get("message") or "without a message"))


# ---- the loop


def _turn():
    state = turn()
    if state != 1:
        _leave(state)


def _leave(state):
    global _leaving
    if not _leaving:
        _leaving = True
        close_sockets()
    if state == 0:
        _loop.remove_reader(_descriptor)
        _loop.stop()


def run():
    """Until the orderly end is over."""
    global _descriptor
    _descriptor = descriptor()
    _loop.add_reader(_descriptor, _turn)
    try:
        _loop.run_forever()
    finally:
        _loop.run_until_complete(_end())
        _loop.close()


async def _end():
    await _lifespan.shutdown()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        _, still = await asyncio.wait(left, timeout=_GRACE)
        for task in still:
            log(_WARNING, "a task of the application does not end:\n" + _stack(task))
    with contextlib.suppress(Exception):
        await _loop.shutdown_asyncgens()


# ---- where tasks are


def _stack(task):
    """Where a task waits, outermost first, as in a traceback."""
    lines = []
    awaited = task.get_coro()
    while awaited is not None:
        frame = (
            getattr(awaited, "cr_frame", None)
            or getattr(awaited, "gi_frame", None)
            or getattr(awaited, "ag_frame", None)
        )
        if frame is not None and not frame.f_code.co_filename.startswith(__file__):
            code = frame.f_code
            lines.append('  File "%s", line %d, in %s' % (code.co_filename, frame.f_lineno, code.co_name))
        inner = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
        awaited = inner or getattr(awaited, "ag_await", None)
    return "\n".join(lines) or "  not begun"


def tasks():
    """Every task. The loop may run meanwhile, on another thread."""
    stacks = ["Task %s:\n%s\n" % (task.get_name(), _stack(task)) for task in asyncio.all_tasks(_loop)]
    return "tasks of the event loop, each where it waits:\n" + "".join(stacks) if stacks else ""
