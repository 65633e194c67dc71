"""What a configuration is once it has been read and found right.

Frozen values only: no files are opened here and nothing is looked up. What each option means, its unit, range and
default is said once, in options.py; a test holds the names and types here to that table. Every process that needs
configuration gets it as a record (plain JSON values) made by `Config.to_record` and rebuilt by `Config.from_record`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Listen:
    """One address to listen on: TCP (address, port) or a unix socket (address is its path, port 0)."""

    family: str  # inet, inet6, unix
    address: str
    port: int


UNLIMITED, INHERITED = -1, -2  # of a Limit; the first is RLIM_INFINITY


@dataclass(frozen=True)
class Limit:
    """A resource limit, as setrlimit(2) has it."""

    soft: int
    hard: int


@dataclass(frozen=True)
class Server:
    listen: tuple[Listen, ...]
    frontends: int
    user: str  # "" when not root
    group: str  # "" when not root
    run: str  # absolute
    include: tuple[str, ...]  # as written
    open_files: int  # RLIMIT_NOFILE asked for
    connections: int  # per front end
    head_timeout: float  # seconds, as all timeouts
    body_timeout: float
    idle_timeout: float
    send_timeout: float
    tunnel_timeout: float  # 0: none
    tunnel_grace: float  # 0: none
    shutdown_timeout: float
    max_head: int  # bytes
    max_line: int
    max_fields: int
    spool: str  # directory for unlinked spool files, absolute
    spool_memory: int  # bytes of one answer kept in memory before it goes to a file
    spool_limit: int  # bytes of one answer in its file before the worker has to wait
    mime_types: str  # absolute path of the file that Config.mime_types was read from


@dataclass(frozen=True)
class Logs:
    error_log: str  # absolute path, or "stderr"
    access_log: str  # absolute path, "stdout", or "off"
    access_format: str  # combined, json


@dataclass(frozen=True)
class Confined:
    """As whom processes that are not the server's own run, and what they may do: a group's, or a companion's."""

    name: str
    user: str  # "" when not root
    group: str  # "" when not root
    groups: tuple[str, ...]  # supplementary; (): those of the user
    umask: int
    no_new_privs: bool
    capabilities: tuple[str, ...]  # kept ones
    nice: int
    limit_nofile: Limit
    limit_nproc: Limit
    limit_core: Limit  # bytes, as all that follow
    limit_as: Limit
    limit_fsize: Limit
    limit_stack: Limit
    limit_memlock: Limit
    private_tmp: int  # bytes in each of its own /tmp and /var/tmp; 0: the machine's
    namespaces: tuple[str, ...]  # ipc, uts, net
    chroot: str  # absolute, or ""
    memory_max: int  # bytes; units.UNLIMITED: none, as of pids_max
    cpu_weight: int
    pids_max: int
    environment_file: str  # absolute, or ""; its variables are in environment already
    environment: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Group(Confined):
    language: str
    plugin: str  # absolute path of the shared object
    application: str  # as written; a path is absolute; "" : the requested file
    interface: str  # wsgi, asgi; of a language that has no choice: wsgi, and without meaning
    directory: str
    interpreter: str
    preload: tuple[str, ...]
    python_path: tuple[str, ...]
    perl_path: tuple[str, ...]
    arguments: tuple[str, ...]
    listens_on: str  # socket, descriptor, port
    strip_prefix: bool
    forwarded: str  # overwrite, append
    keepalive: bool
    continue_timeout: float  # 0: none
    stop_timeout: float  # 0: none
    processes: int  # the most
    processes_min: int
    spare: int
    idle_after: float
    max_requests: int  # 0: none
    max_age: float  # 0: none
    max_cpu: float  # seconds; 0: none
    soft_memory: int  # bytes; 0: none
    hard_memory: int  # bytes; 0: none
    threads: int
    websocket_message: int
    websocket_ping: float  # 0: none
    queue_length: int
    queue_timeout: float
    request_timeout: float  # 0: none
    slow_request: float  # 0: none
    start_timeout: float
    drain_timeout: float
    restart_extra: int  # 0: as many as there are
    touch: tuple[str, ...]  # absolute
    watch: bool
    quarantine: int  # 0: none
    after: tuple[str, ...]  # companions
    ini: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Companion(Confined):
    """A program that is supervised beside the groups."""

    command: tuple[str, ...]  # argv; the first is an absolute path
    directory: str
    instances: int
    after: tuple[str, ...]  # companions
    ready: str  # started, finished, notify, output:EXPRESSION, file:PATH, unix:PATH, inet:A:P, inet6:A:P
    start_timeout: float
    restart: str  # always, failure, never
    stop_signal: str  # TERM, ...
    stop_timeout: float  # 0: none
    every: float  # 0: not set
    at: tuple[str, ...]
    timeout: float  # 0: none

    @property
    def timed(self) -> bool:
        """It is run at times, instead of for as long as the server runs."""
        return bool(self.every or self.at)


@dataclass(frozen=True)
class Route:
    """`pattern` is a path prefix ("/", "/shop/") or an extension (".php"); `targets` are tried in order."""

    pattern: str
    targets: tuple[str, ...]  # "files", "data", "group:NAME", "script:/path", "/internal/path", "=404"
    upload: str  # "stream", "gather"


@dataclass(frozen=True)
class Site:
    name: str
    hosts: tuple[str, ...]  # lower case; "*", "*.example.org", "example.org"
    root: str  # absolute, or "": no files
    index: tuple[str, ...]
    symlinks: str  # deny, owner, allow
    dotfiles: str  # deny, allow
    sendfile: tuple[str, ...]  # absolute
    max_body: int
    gather: tuple[str, ...]  # patterns of routes; what Route.upload was made of
    error_log: str  # absolute, or "": that of the server
    routes: tuple[Route, ...]


@dataclass(frozen=True)
class Config:
    file: str
    server: Server
    logs: Logs
    groups: tuple[Group, ...]  # by name
    sites: tuple[Site, ...]
    mime_types: tuple[tuple[str, str], ...]  # (extension without dot, type)
    companions: tuple[Companion, ...] = ()  # by name

    def to_record(self) -> dict[str, Any]:
        """This configuration as JSON values: objects, lists, texts, numbers and booleans."""
        record = _plain(self)
        assert isinstance(record, dict)
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Config:
        """The configuration that `to_record` was called on. ValueError for a record of another shape."""
        config = _typed(cls, record, "config")
        assert isinstance(config, cls)
        return config


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _typed(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _hints(kind)
        if not isinstance(value, dict) or value.keys() != hints.keys():
            raise ValueError(f"{where}: not a record of {kind}")
        return kind(**{name: _typed(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})
    if get_origin(kind) is tuple:
        items = get_args(kind)
        if not isinstance(value, list) or (items[-1] is not Ellipsis and len(value) != len(items)):
            raise ValueError(f"{where}: not a list that fits {kind}")
        if items[-1] is Ellipsis:
            items = (items[0],) * len(value)
        return tuple(_typed(item, part, where) for item, part in zip(items, value, strict=True))
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where}: {value!r} is not a {kind.__name__}")
    return value
