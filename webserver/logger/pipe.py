"""A pipe that the logger reads: whose it is, and the line in it that has no end yet."""

from __future__ import annotations

from dataclasses import dataclass, field

from webserver.logger.lines import Splitter


@dataclass(eq=False)
class Pipe:
    id: int
    fd: int
    kind: str  # error, access
    source: str
    pid: int = 0
    group: str | None = ""  # whose processes write to it; "": nobody's; None: a front end, which has every site
    splitter: Splitter = field(default_factory=Splitter)
    carry: bytes = b""  # of an access line
    unread_until: float = 0.0  # not read before, unless its process is named

    @property
    def rest(self) -> bytes:
        """A line that has no end yet."""
        return self.carry if self.kind == "access" else self.splitter.rest

    @rest.setter
    def rest(self, data: bytes) -> None:
        if self.kind == "access":
            self.carry = data
        else:
            self.splitter.rest = data
