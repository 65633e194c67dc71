"""WebSocket, RFC 6455: handshakes, keepalive, the end. Compiled into the plugin; runs in asgi.py's names.

Frames are websocket.c's, the application's events socket.c's. Section numbers are that RFC's.
"""

import base64
import binascii
import hashlib

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # 1.3
_OURS = (b"connection", b"upgrade", b"sec-websocket-accept", b"sec-websocket-extensions")
_CLOSE_WAIT = 10.0  # seconds for the other side's close frame
_GOING_AWAY, _INTERNAL_ERROR, _RESTART = 1001, 1011, 1012

_sockets = set()  # exchanges that have said yes


def handshake(exchange, scope):
    """True: scope is a WebSocket's now, and the key of its answer is known. False: it has been refused."""
    found = {}
    for name, value in scope["headers"]:
        if name.startswith(b"sec-websocket-"):
            found.setdefault(name, []).append(value)
    versions = found.get(b"sec-websocket-version", [])
    keys = found.get(b"sec-websocket-key", [])
    if scope["method"] != "GET" or scope["http_version"] == "1.0":
        return _refuse(exchange, 400, "a WebSocket is opened by GET, from HTTP/1.1 on")
    if [version.strip() for version in versions] != [b"13"]:
        return _refuse(exchange, 426, "of WebSocket there is version 13", [(b"Sec-WebSocket-Version", b"13")])
    if len(keys) != 1 or not _is_key(keys[0]):
        return _refuse(exchange, 400, "Sec-WebSocket-Key is not 16 bytes in base64")
    exchange.accept = base64.b64encode(hashlib.sha1(keys[0] + _GUID).digest())
    del scope["method"]
    scope["type"] = "websocket"
    scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
    offered = b",".join(found.get(b"sec-websocket-protocol", [])).decode("latin-1")
    scope["subprotocols"] = [word.strip() for word in offered.split(",") if word.strip()]
    own = scope["extensions"]["webserver"]
    scope["extensions"] = {"websocket.http.response": {}, "webserver": own}
    return True


def _is_key(key):
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False


def _refuse(exchange, status, why, fields=()):
    exchange.log(_NOTICE, "WebSocket handshake refused: " + why)
    exchange.refuse(status, (why + "\n").encode(), list(fields))
    return False


def accept(exchange, event, key):
    """The fields of a 101 (4.2.2)."""
    fields = [(b"Upgrade", b"websocket"), (b"Sec-WebSocket-Accept", key)]
    protocol = event.get("subprotocol")
    if protocol is not None:
        fields.append((b"Sec-WebSocket-Protocol", protocol.encode("latin-1")))
    for name, value in event.get("headers") or ():
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError("send: websocket.accept: headers must be pairs of bytes, not %r" % ((name, value),))
        if name.lower() not in _OURS and (protocol is None or name.lower() != b"sec-websocket-protocol"):
            fields.append((name, value))
    _sockets.add(exchange)
    if _PING:
        exchange.timer = _loop.call_later(_PING, _ping, exchange)
    if _leaving:
        _loop.call_soon(exchange.close, _RESTART, "the server is restarted")
    return fields


def _ping(exchange):
    """A client that has not answered the last ping is not there any more, though its connection is."""
    exchange.timer = None
    if exchange.over or exchange.gone:
        return
    if exchange.ping():
        exchange.timer = _loop.call_later(_PING, _ping, exchange)
    else:
        exchange.log(_NOTICE, "the client does not answer pings")
        exchange.close(_INTERNAL_ERROR, "ping timeout")
        exchange.cut()


def close_later(exchange):
    """The application has returned, and the other side's close frame has not come yet."""
    if exchange.timer is not None:
        exchange.timer.cancel()
    exchange.timer = _loop.call_later(_CLOSE_WAIT, exchange.cut)


def socket_over(exchange):
    _sockets.discard(exchange)
    if exchange.timer is not None:
        exchange.timer.cancel()
        exchange.timer = None


def close_sockets():
    """The orderly end of a worker: what would last for ever is ended."""
    for exchange in list(_sockets):
        exchange.close(_RESTART, "the server is restarted")
