"""The languages that the suite runs for, one row each, and what is left out for which reason: two tables.

A clause is a word with which tests are marked: `@clause("trailers")`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

APPLICATIONS = Path(__file__).resolve().parent / "applications"


@dataclass(frozen=True)
class Language:
    """How a group runs the conformance application."""

    name: str  # in test ids
    language: str  # of the group
    application: str  # a file in applications/, or an absolute path
    threads: int = 1  # of the group that runs several requests in one process; 1: it has several processes instead
    plugin: str = ""  # absolute path; "": the server's own
    lines: str = ""  # more lines of the group

    @property
    def path(self) -> Path:
        return APPLICATIONS / self.application


LANGUAGES = (
    Language("python", "python", "conformance.wsgi", threads=4),
    Language("asgi", "python", "conformance_asgi.py", threads=4, lines="interface = asgi"),
    Language("php", "php", "conformance.php"),
    Language("exec", "exec", "conformance.exec", threads=4, lines="strip_prefix = yes"),
    Language("lua", "lua", "conformance.lua"),
    Language("ruby", "ruby", "conformance.ru", threads=4),
    Language("perl", "perl", "conformance.psgi"),
)

# (language, clause): why the interface cannot express it.
CANNOT = {
    ("exec", "deadline"): "HTTP has no field for the time that is left",
    ("exec", "error-late"): "an answer that a program breaks off before any of it has left becomes 502",
    ("exec", "pid"): "who answers is the worker's program, not the worker",
    ("exec", "request-id"): "what a program prints belongs to no request; X-Request-ID tells it the id",
    ("python", "upgrade"): "PEP 3333 has no way to change the protocol",
    ("asgi", "reason"): "ASGI gives a status without a reason",
    ("asgi", "upgrade"): "ASGI changes to WebSocket alone",
    ("php", "error-late"): "PHP ends an answer that has begun in order, as under php-fpm",
    ("php", "trailers"): "PHP has no trailers",
    ("php", "upgrade"): "PHP has no way to change the protocol",
    ("perl", "reason"): "PSGI's status is a number",
    ("perl", "trailers"): "PSGI has no trailers",
    ("ruby", "reason"): "Rack's status is a number",
}

# (language, clause): what is still to be built.
NOT_YET: dict[tuple[str, str], str] = {}


def left_out(language: str, clause: str, without: frozenset[str] = frozenset()) -> str:
    """Why a clause is not tried for a language, or ""."""
    if (language, clause) in CANNOT:
        return CANNOT[language, clause]
    if (language, clause) in NOT_YET:
        return f"not built yet: {NOT_YET[language, clause]}"
    return "left out by --without" if clause in without else ""
