"""What a body of N bytes holds: its own offsets, so that a byte that is lost, doubled or moved is seen."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=4)
def content(size: int) -> bytes:
    return b"".join(b"%015d\n" % at for at in range(0, size, 16))[:size]
