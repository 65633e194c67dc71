"""The kinds of value an option can have: how each is read, how it is written, and how its form is described.

A reader is given the text and the directory that a relative path starts at, and raises ValueError, with a reason where
"found X, expected Y" would not say enough.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from webserver.config import addresses, companion_times, limits, units
from webserver.config.model import Limit, Listen


@dataclass(frozen=True)
class Kind:
    name: str  # in the manual pages
    expected: str  # completes "expected ..."
    read: Callable[[str, str], Any]
    write: Callable[[Any], str]
    value: type  # of what read returns; a test compares it with the model


def _alone(read: Callable[[str], Any]) -> Callable[[str, str], Any]:
    return lambda text, base: read(text)


def _matching(pattern: str, reason: str = "") -> Callable[[str, str], str]:
    compiled = re.compile(pattern)

    def read(text: str, base: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(reason)
        return text

    return read


def path(text: str, base: str) -> str:
    """An absolute path without "." and ".." in it; symbolic links stay as they are."""
    if not text:
        raise ValueError("it is empty")
    return os.path.normpath(os.path.join(base, text))


def _path_or(*words: str) -> Callable[[str, str], str]:
    return lambda text, base: text if text in words else path(text, base)


def _application(text: str, base: str) -> str:
    if not text:
        raise ValueError("it is empty")
    return text if MODULE.fullmatch(text) else path(text, base)


def _preload(text: str, base: str) -> str:
    """A file, told by a "/" or its extension, or the name of a module."""
    if not text:
        raise ValueError("it is empty")
    return path(text, base) if "/" in text or text.endswith(SCRIPTS) else text


def _readiness(text: str, base: str) -> str:
    """How a companion shows that it works, as its warden (webserver/warden/warden.h) is told."""
    word, colon, rest = text.partition(":")
    if text in ("started", "finished", "notify"):
        return text
    if word in ("output", "file") and colon:
        if not rest:
            raise ValueError(f"something must follow {word}:")
        return text if word == "output" else f"file:{path(rest, base)}"
    if not colon:
        raise ValueError("")
    # An address is kept with its family, and so may be written.
    address = addresses.listen(text.removeprefix(f"{word}:") if word in ("inet", "inet6") else text, base)
    return f"{address.family}:{addresses.listen_text(address).removeprefix('unix:')}"


def _readiness_text(value: str) -> str:
    return value.removeprefix("inet:").removeprefix("inet6:")


def _host(text: str, base: str) -> str:
    return addresses.host(text)


# module:callable, or module:factory(), which no file name in use looks like
MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(\))?")
SCRIPTS = (".php", ".py", ".wsgi", ".pl", ".pm", ".psgi", ".rb", ".ru", ".lua")
# Names of programs: a file that ends in one of these is run, or not answered, unless its site says that it is a file.
PROGRAMS = (*SCRIPTS, ".php3", ".php4", ".php5", ".php7", ".php8", ".phtml", ".phar", ".cgi", ".fcgi")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")  # of groups and sites: in process titles, logs and file names

WHOLE = Kind("number", "a whole number", _alone(units.whole), str, int)
WHOLE_OR_ALL = Kind("number", 'a whole number, or "all"', _alone(units.whole_or_all), units.whole_or_all_text, int)
SIZE = Kind("size", "a size in bytes such as 512, 16k, 64m or 1g", _alone(units.size), units.size_text, int)
SIZE_OR_UNLIMITED = Kind(
    "size",
    'a size in bytes such as 16k, 64m or 1g, or "unlimited"',
    _alone(units.size_or_unlimited),
    units.size_or_unlimited_text,
    int,
)
SIZE_OR_NONE = Kind(
    "size",
    'a size in bytes such as 64m or 1g, or "none"',
    _alone(units.size_or_none),
    units.size_or_none_text,
    int,
)
TIME = Kind("time", "a time such as 500ms, 30s, 5m or 1h", _alone(units.seconds), units.seconds_text, float)
TIME_OR_NONE = Kind(
    "time",
    'a time such as 500ms, 30s, 5m or 1h, or "none"',
    _alone(units.seconds_or_none),
    units.seconds_or_none_text,
    float,
)
WHOLE_OR_UNLIMITED = Kind(
    "number",
    'a whole number, or "unlimited"',
    _alone(limits.whole_or_unlimited),
    limits.whole_or_unlimited_text,
    int,
)
SIZE_OR_NO = Kind(
    "size", 'a size in bytes such as 16k, 64m or 1g, or "no"', _alone(limits.size_or_no), limits.size_or_no_text, int
)
COUNT_LIMIT = Kind(
    "limit",
    'a number, SOFT:HARD, "unlimited" or "inherited"',
    limits.limit(units.whole),
    limits.limit_text(str),
    Limit,
)
SIZE_LIMIT = Kind(
    "limit",
    'a size in bytes such as 16k or 1g, SOFT:HARD, "unlimited" or "inherited"',
    limits.limit(units.size),
    limits.limit_text(units.size_text),
    Limit,
)
CAPABILITY = Kind("capability", "a name of capabilities(7) such as net_bind_service", limits.capability, str, str)
SWITCH = Kind("switch", "yes or no", _alone(units.switch), units.switch_text, bool)
MODE = Kind("mask", "a file mode mask in octal, such as 022", _alone(units.mode), units.mode_text, int)
CHOICE = Kind("word", "one of the words", _matching(".*"), str, str)  # its words are the option's
LANGUAGE = Kind("word", "one of the words", _matching(r"[A-Za-z][A-Za-z0-9_+.#-]{0,31}"), str, str)
TEXT = Kind("text", "text", _matching(r".*"), str, str)
USER = Kind("user", "the name of a user", _matching(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?"), str, str)
USER_GROUP = Kind("user group", "the name of a user group", _matching(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?"), str, str)
PATH = Kind("path", "a path", path, str, str)
PATTERN = Kind("pattern", "a path, which may hold * and ?", _matching(r".+", "it is empty"), str, str)
ERROR_LOG = Kind("path", 'a path, or "stderr"', _path_or("stderr"), str, str)
ACCESS_LOG = Kind("path", 'a path, "stdout" or "off"', _path_or("stdout", "off"), str, str)
APPLICATION = Kind("application", "a file, or module:callable", _application, str, str)
PRELOAD = Kind("module", "a module's name, or a file", _preload, str, str)
LISTEN = Kind(
    "address",
    "an address such as 127.0.0.1:8080, [::1]:8080, *:80, [::]:80 or unix:PATH",
    addresses.listen,
    addresses.listen_text,
    Listen,
)
COMPANION = Kind("companion", "the name of a companion", _matching(NAME.pattern), str, str)
READINESS = Kind(
    "readiness",
    "started, finished, notify, output:EXPRESSION, file:PATH, unix:PATH or an address such as 127.0.0.1:6379",
    _readiness,
    _readiness_text,
    str,
)
MOMENT = Kind(
    "time of day",
    "a time of day such as 03:15, sun 03:15 or mon-fri 22:00",
    _alone(companion_times.moment_text),
    str,
    str,
)
HOST = Kind("host name", "a host name such as example.org, *.example.org or *", _host, str, str)
FILE_NAME = Kind("file name", 'a file name without "/"', _matching(r"(?!\.{1,2}$)[^/\0]+"), str, str)
ROUTE = Kind(
    "route", 'the pattern of a route of the site, such as "/upload/" or ".php"', _matching(r"[/.].*"), str, str
)
