"""What clients ask for: pure, from a seed. Everything about an answer can be worked out from what was asked.

A request's id is in its query and nowhere else twice, so that logs, ledgers and clients speak of the same thing.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

SELDOM = "seldom"  # a group that nobody asks most of the time
LANGUAGES = ("python", "perl", "ruby", "php")
STATIC = {"small.bin": 900, "large.bin": 150_000}
UNIT = 64  # bytes of the text that is repeated
PIECE = 65536  # bytes that a stream hands on at a time
# In a thousand requests; what is left is a plain GET.
SHARES = {"static": 60, "small upload": 200, "large upload": 40, "chunked upload": 20, "gathered": 15, "stream": 60}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request."""

    id: str
    kind: str
    language: str  # "" for a file
    method: str
    target: str
    upload: int = 0  # bytes of body
    chunked: bool = False
    out: int = 0  # bytes of the answer
    vanish: str = ""  # head, upload, answer: where the client goes away on purpose

    def body(self) -> bytes:
        return repeated(f"{self.id}/body", self.upload) if self.upload else b""

    def answer(self) -> bytes:
        """The text that the answer repeats."""
        return hashlib.sha256(self.id.encode()).hexdigest().encode()


def repeated(seed: str, size: int) -> bytes:
    text = hashlib.sha256(seed.encode()).hexdigest().encode()
    return (text * (size // UNIT + 1))[:size]


def static(name: str) -> bytes:
    return repeated(name, STATIC[name])


class Mix:
    """The requests of one client."""

    def __init__(self, seed: int, client: str) -> None:
        self._random = random.Random(f"{seed}/{client}")
        self._client = client
        self._count = 0

    def keeps(self) -> int:
        """After how many requests the client opens a new connection."""
        return self._random.choice((1, 2, 10, 50))

    def plain(self) -> Iterator[Ask]:
        while True:
            yield self._one(self._kind(), "")

    def slow(self) -> Iterator[Ask]:
        """Large streams, for clients that read slowly."""
        while True:
            yield self._one("slow", "")

    def seldom(self) -> Iterator[Ask]:
        while True:
            yield self._one("seldom", "")

    def vanishing(self) -> Iterator[Ask]:
        while True:
            where = self._random.choice(("head", "upload", "answer"))
            yield self._one({"head": "get", "upload": "large upload", "answer": "stream"}[where], where)

    def _kind(self) -> str:
        at = self._random.randrange(1000)
        for kind, share in SHARES.items():
            at -= share
            if at < 0:
                return kind
        return "get"

    def _one(self, kind: str, vanish: str) -> Ask:
        draw = self._random
        self._count += 1
        name = f"{self._client}.{self._count}"
        if kind == "static":
            file = draw.choice(sorted(STATIC))
            return Ask(name, kind, "", "GET", f"/static/{file}?id={name}", out=STATIC[file], vanish=vanish)
        # What a .php file gets is not told apart by its path, so its uploads are all streamed.
        language = draw.choice(LANGUAGES if kind != "gathered" else LANGUAGES[:3])
        if kind == "seldom":
            language = SELDOM
        upload = {
            "small upload": draw.randrange(1, 4096),
            "large upload": draw.randrange(100_000, 600_000),
            "chunked upload": draw.randrange(1000, 200_000),
            "gathered": draw.randrange(100_000, 400_000),
        }.get(kind, 0)
        streams = kind in ("stream", "slow")
        out = draw.randrange(100, 700) if not streams else draw.randrange(20, 60) * 1000
        out = UNIT * (out // UNIT if not streams else out // UNIT * 12)
        if kind == "slow":
            out = 6 << 20
        work = draw.choice((0, 0, 0, 1, 2, 5, 20))
        folder = "gather" if kind == "gathered" else "run"
        target = f"/{language}/{folder}{'.php' if language == 'php' else ''}"
        target += f"?id={name}&work={work}&out={out}&stream={int(streams)}"
        method = "POST" if upload else "GET"
        return Ask(name, kind, language, method, target, upload, kind == "chunked upload", out, vanish)
