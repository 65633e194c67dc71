"""Which timed rows there are, as data.  A row is one load, on each server that can serve it.

Rows that need more than one wrk call (sleeper, idle, big, start-up, memory, ...) are in EXTRA and have files of their
own.  The names are what --only selects, by prefix.
"""

from dataclasses import dataclass

PYTHON = ("ours-python", "nginx-uwsgi")
PYTHON_ALL = (*PYTHON, "gunicorn-sync", "gunicorn-gevent", "mod_wsgi")
PHP = ("ours-php", "nginx-fpm")
PERL = ("ours-perl", "nginx-uwsgi-psgi", "nginx-starman")
RUBY = ("ours-ruby", "puma-2x1")
THREADS = ("ours-ruby-2x8", "puma-2x8")
STATIC = ("ours-static", "nginx-static", "nginx-static-cache")
STREAM_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True)
class Row:
    """kind: the request kind (requests.py).  unit_bytes: count bytes/unit instead of answers, where an answer is so
    large that a cell ends in the middle of many.  pinned: client and server on one core.  slow: longer cells."""

    name: str
    language: str
    kind: str
    connections: int
    servers: tuple[str, ...]
    unit_bytes: int = 0
    pinned: bool = False
    access_log: bool = False
    slow: float = 1.0


def _at(connections: int, language: str, kind: str, servers: tuple[str, ...], **more: object) -> Row:
    return Row(f"{kind}-{language}-{connections}", language, kind, connections, servers, **more)  # type: ignore[arg-type]


def _application(language: str, two: tuple[str, ...], all_: tuple[str, ...]) -> list[Row]:
    rows = []
    for connections in (1, 64, 512):
        servers = all_ if connections == 64 else two
        hello = PYTHON_ALL if language == "python" else all_
        rows.append(_at(connections, language, "hello", hello))
        rows.append(_at(connections, language, "page", servers))
        slow = 3.0 if connections == 512 else 1.0  # so that every connection gets its turn
        rows.append(_at(connections, language, "upload", servers, slow=slow))
        streaming = (*servers, f"{two[1]}-nospool")
        rows.append(_at(connections, language, "stream", streaming, unit_bytes=STREAM_BYTES, slow=slow))
    rows.append(_at(64, language, "hello-onepath", two))
    return rows


def _other(language: str, servers: tuple[str, ...], kinds: tuple[str, ...]) -> list[Row]:
    """A language of which only the rows are asked for that have a floor."""
    return [_at(64, language, kind, servers, unit_bytes=STREAM_BYTES if kind == "stream" else 0) for kind in kinds]


def _static() -> list[Row]:
    def row(name: str, kind: str, connections: int, unit_bytes: int = 0) -> Row:
        return Row(f"{name}-{connections}", "static", kind, connections, STATIC, unit_bytes)

    rows = [row("static-1k", "static1k", c) for c in (1, 64, 512)]
    rows += [row("static-100k", "static100k", c) for c in (1, 64, 512)]
    rows.append(row("static-10m", "static10m", 64, STREAM_BYTES))
    rows.append(row("static-304", "static304", 64))
    rows.append(row("static-range", "static206", 64))
    rows.append(row("static-10000paths", "staticmany", 64))
    rows.append(row("static-onepath", "staticmany-onepath", 64))
    return rows


ECHO = ("ours-echo", "nginx-return")

ROWS: tuple[Row, ...] = (
    *(Row(f"echo-{c}", "echo", "hello", c, ECHO) for c in (1, 64, 512)),
    *_application("python", PYTHON, PYTHON_ALL),
    *_application("php", PHP, PHP),
    *_other("perl", PERL, ("hello", "page", "upload", "stream")),
    *_other("ruby", RUBY, ("hello", "page", "upload", "stream")),
    *_other("lua", ("ours-lua", "ours-perl"), ("hello", "page")),
    Row("threads-ruby-64", "ruby", "hello", 64, THREADS),
    Row("sleep20-ruby-64", "ruby", "sleep20", 64, THREADS, slow=3.0),  # the first 20 ms bring nothing
    Row("sleep20-python-64", "python", "sleep20", 64, ("ours-python-2x8",), slow=3.0),
    *_static(),
    Row("pinned-python-1", "python", "hello", 1, PYTHON_ALL, pinned=True),
    Row("pinned-php-1", "php", "hello", 1, PHP, pinned=True),
    Row("accesslog-python-64", "python", "hello", 64, PYTHON_ALL, access_log=True),
    Row("accesslog-php-64", "php", "hello", 64, PHP, access_log=True),
    Row("accesslog-static-64", "static", "static1k", 64, STATIC, access_log=True),
    Row("accesslog-echo-64", "echo", "hello", 64, ECHO, access_log=True),
    Row("fpmkeepalive-php-64", "php", "hello", 64, ("nginx-fpm", "nginx-fpm-keepalive")),
)

# name: servers
EXTRA: dict[str, tuple[str, ...]] = {
    "sleeper-python": PYTHON,
    "sleeper-php": PHP,
    "idle-python": PYTHON,
    "bigstream-python": PYTHON,
    "bigupload-python": PYTHON,
    "bigstream-php": PHP,
    "startup": ("ours-python", "ours-php", "nginx-uwsgi", "nginx-fpm", "gunicorn-sync", "mod_wsgi"),
    "freshness": STATIC,
    "wakeups": (),  # every server that runs
    "memory": (),
}


def selected(patterns: list[str]) -> tuple[list[Row], list[str]]:
    """Rows and extra rows whose name begins with one of the patterns; all without patterns."""
    begins = tuple(patterns) or ("",)
    return [row for row in ROWS if row.name.startswith(begins)], [name for name in EXTRA if name.startswith(begins)]
