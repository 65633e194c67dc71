"""The ASGI application of tests/test_websocket.py: many small ones, chosen by the path. Run inside the server."""

import asyncio

happened = []


async def accepted(receive, send, **more):
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **more})


async def echo(scope, receive, send):
    await accepted(receive, send)
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            happened.append("echo: {code} {reason}".format(**event))
            return
        await send({**event, "type": "websocket.send"})


async def scope_of(scope, receive, send):
    await accepted(receive, send)
    await send({"type": "websocket.send", "text": repr({k: v for k, v in scope.items() if k != "extensions"})})
    await send({"type": "websocket.send", "text": repr(sorted(scope["extensions"]))})
    await send({"type": "websocket.close"})


async def protocol(scope, receive, send):
    wanted = scope["subprotocols"][-1]
    headers = [(b"x-own", b"1"), (b"Set-Cookie", b"a=b"), (b"connection", b"close")]
    await accepted(receive, send, subprotocol=wanted, headers=headers)
    await send({"type": "websocket.send", "text": repr(scope["subprotocols"])})


async def denies(scope, receive, send):
    await receive()
    await send({"type": "websocket.close", "code": 4000})
    happened.append("denies: {type} {code}".format(**await receive()))


async def answers(scope, receive, send):
    await receive()
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"are you?"})


async def closes(scope, receive, send):
    await accepted(receive, send)
    await send({"type": "websocket.close", "code": 4321, "reason": "é" * 80})
    happened.append("closes: {type} {code}".format(**await receive()))
    try:
        await send({"type": "websocket.send", "text": "more"})
    except RuntimeError:
        happened.append("closes: RuntimeError")


async def returns(scope, receive, send):
    await accepted(receive, send)


async def raises(scope, receive, send):
    await accepted(receive, send)
    raise KeyError("in a WebSocket")


async def raises_first(scope, receive, send):
    raise KeyError("before accept")


async def silent(scope, receive, send):
    pass


async def deaf(scope, receive, send):
    """Receives nothing, for as long as it is asked to."""
    await accepted(receive, send)
    await asyncio.sleep(float(scope["query_string"]))
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            happened.append("deaf: {code}".format(**event))
            return
        await send({**event, "type": "websocket.send"})


async def floods(scope, receive, send):
    """As much as the client takes; send() raises when it is gone."""
    await accepted(receive, send)
    try:
        while True:
            await send({"type": "websocket.send", "bytes": b"x" * 100000})
            happened[:] = [event for event in happened if not event.startswith("floods")]
            floods.sent = getattr(floods, "sent", 0) + 1
            happened.append(f"floods: {floods.sent}")
    except OSError as error:
        happened.append(f"flooded: {type(error).__name__}")
        raise


async def mistakes(scope, receive, send):
    await accepted(receive, send)
    for event in (
        {"type": "websocket.accept"},
        {"type": "http.response.start", "status": 200},
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": None, "bytes": None},
        {"type": "websocket.send", "text": b"x"},
        {"type": "websocket.send", "bytes": "x"},
        {"type": "websocket.close", "code": 1005},
        {"type": "websocket.close", "code": 999},
    ):
        try:
            await send(event)
            text = f"taken: {event}"
        except Exception as error:
            text = type(error).__name__
        await send({"type": "websocket.send", "text": text})


async def both(scope, receive, send):
    """A task receives while another sends."""
    await accepted(receive, send)

    async def ticks():
        for number in range(1000):
            await send({"type": "websocket.send", "text": str(number)})

    task = asyncio.create_task(ticks())
    total = 0
    while total < 1000:
        total += len((await receive())["bytes"])
    await task
    await send({"type": "websocket.send", "text": f"received {total}"})


async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": "\n".join(happened).encode()})
    else:
        assert scope["type"] == "websocket"
        await globals()[scope["path"].strip("/")](scope, receive, send)
