"""Addresses to listen on and names of hosts, as people write them, and back."""

from __future__ import annotations

import os
import re
import socket

from webserver.config.model import Listen

UNIX_PATH = 107  # bytes in sockaddr_un.sun_path, less the NUL (unix(7))
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")  # RFC 1123, and "_" because it is met


def listen(text: str, base: str) -> Listen:
    """127.0.0.1:8080, [::1]:8080, *:80 (each IPv4 address), [::]:80, unix:PATH (from `base` on if relative)."""
    if text.startswith("unix:"):
        path = text[5:]
        if not path or "\0" in path:
            raise ValueError("a path must follow unix:")
        path = os.path.normpath(os.path.join(base, path))
        if len(path.encode()) > UNIX_PATH:
            raise ValueError(f"the path has {len(path.encode())} bytes, a unix socket's has at most {UNIX_PATH}")
        return Listen("unix", path, 0)
    host, colon, port = text.rpartition(":")
    if not colon and text.isdecimal():
        raise ValueError(f"for this port at every IPv4 address write *:{text}")
    if not colon or re.fullmatch(r"[1-9][0-9]{0,4}", port, re.ASCII) is None or int(port) > 65535:
        raise ValueError("a port from 1 to 65535 must follow the last colon")
    if host == "*":
        return Listen("inet", "0.0.0.0", int(port))
    if host.startswith("[") and host.endswith("]"):
        return Listen("inet6", _numeric(socket.AF_INET6, host[1:-1], "[...] must hold an IPv6 address"), int(port))
    if "/" in host:
        raise ValueError("an address has no scheme")
    if ":" in host:
        raise ValueError("an IPv6 address is written in brackets")
    address = _numeric(socket.AF_INET, host, "a numeric address is needed, as names are not looked up")
    return Listen("inet", address, int(port))


def _numeric(family: socket.AddressFamily, text: str, problem: str) -> str:
    """The one usual way to write an address, so that two that are equal compare equal."""
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except (OSError, ValueError):
        raise ValueError(problem) from None


def listen_text(value: Listen) -> str:
    if value.family == "unix":
        return f"unix:{value.address}"
    return f"[{value.address}]:{value.port}" if value.family == "inet6" else f"{value.address}:{value.port}"


def host(text: str) -> str:
    """example.org, *.example.org, *, 192.0.2.1 or [2001:db8::1], without a port; lower case is returned."""
    name = text.lower()
    if name == "*":
        return name
    if name.startswith("[") and name.endswith("]"):
        return f"[{_numeric(socket.AF_INET6, name[1:-1], '[...] must hold an IPv6 address')}]"
    if not name.isascii():
        try:
            ascii_form = text.encode("idna").decode()
        except UnicodeError:
            raise ValueError("not a host name") from None
        raise ValueError(f'write its ASCII form, "{ascii_form}"')
    if ":" in name:
        raise ValueError("a host is named without port or scheme")
    plain = name.removeprefix("*.")
    if len(plain) > 253 or not all(map(_LABEL.fullmatch, plain.split("."))):
        raise ValueError("a * stands alone or before the first dot" if "*" in plain else "not a host name")
    return name
