"""The benchmark's WSGI application: one file, unchanged, for every Python server.

The path's last segment chooses what happens, so that anything may stand before it:

    .../hello    12 bytes
    .../page     reads ten request fields, writes twelve response fields and 10,240 bytes
    .../upload   reads the body, answers its length and SHA-256
    .../stream   10 MiB in pieces of 64 KiB without Content-Length; ?bytes=N for another size
    .../sleep    sleeps 200 ms; ?ms=N for another time

With BENCH_COUNT=FILE in the environment each call appends one byte to FILE, so that the file's size is the number of
calls.  Only the verification round sets it; without it the counting wrapper is not even there.
"""

import hashlib
import os
import time

PIECE = b"0123456789abcdef" * 4096  # 64 KiB
STREAM_BYTES = 10 * 1024 * 1024
PAGE_BYTES = 10240
PAGE_FIELDS = (
    "HTTP_USER_AGENT",
    "HTTP_ACCEPT",
    "HTTP_ACCEPT_LANGUAGE",
    "HTTP_COOKIE",
    "HTTP_REFERER",
    "HTTP_CACHE_CONTROL",
    "HTTP_DNT",
    "HTTP_X_REQUEST_ID",
    "HTTP_X_TRACE",
    "HTTP_X_TENANT",
)


def query_number(environ, name, default):
    for part in environ.get("QUERY_STRING", "").split("&"):
        key, _, value = part.partition("=")
        if key == name:
            return int(value)
    return default


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "12")])
    return [b"hello, world"]


def page(environ, start_response):
    lines = ["%s: %s" % (name, environ.get(name, "")) for name in PAGE_FIELDS]
    lines.append("path: " + environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))
    lines.append("query: " + environ.get("QUERY_STRING", ""))
    body = ("\n".join(lines) + "\n").encode("latin-1").ljust(PAGE_BYTES, b".")
    start_response(
        "200 OK",
        [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Content-Language", "en"),
            ("Cache-Control", "private, max-age=0"),
            ("Vary", "Cookie"),
            ("Set-Cookie", "session=" + environ.get("HTTP_X_REQUEST_ID", "") + "; HttpOnly"),
            ("Set-Cookie", "seen=1; Path=/"),
            ("X-Request-Id", environ.get("HTTP_X_REQUEST_ID", "")),
            ("X-Frame-Options", "DENY"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "same-origin"),
            ("Content-Security-Policy", "default-src 'self'"),
        ],
    )
    return [body]


def upload(environ, start_response):
    stream = environ["wsgi.input"]
    left = int(environ.get("CONTENT_LENGTH") or 0)
    digest = hashlib.sha256()
    length = 0
    while left:
        piece = stream.read(min(left, 65536))
        if not piece:
            break
        digest.update(piece)
        length += len(piece)
        left -= len(piece)
    answer = ("%d %s" % (length, digest.hexdigest())).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


def pieces(total):
    while total >= len(PIECE):
        yield PIECE
        total -= len(PIECE)
    if total:
        yield PIECE[:total]


def stream(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return pieces(query_number(environ, "bytes", STREAM_BYTES))


def sleep(environ, start_response):
    time.sleep(query_number(environ, "ms", 200) / 1000)
    return hello(environ, start_response)


def missing(environ, start_response):
    start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    return []


HANDLERS = {"hello": hello, "page": page, "upload": upload, "stream": stream, "sleep": sleep}


def dispatch(environ, start_response):
    segment = environ.get("PATH_INFO", "").rpartition("/")[2]
    return HANDLERS.get(segment, missing)(environ, start_response)


if os.environ.get("BENCH_COUNT"):
    COUNT_FD = os.open(os.environ["BENCH_COUNT"], os.O_WRONLY | os.O_APPEND)

    def application(environ, start_response):
        os.write(COUNT_FD, b".")
        return dispatch(environ, start_response)

else:
    application = dispatch
