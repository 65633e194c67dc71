"""What a manager says of what it has loaded. Claims of the group's user: cut to size, shown, and never acted upon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_ITEMS = 32
_TEXT = 300  # characters


@dataclass(frozen=True)
class Loaded:
    language_version: str = ""
    threads_left: tuple[str, ...] = ()  # by preloading, and no worker has them
    shared: tuple[str, ...] = ()  # descriptors that preloading left open, and all workers have

    @classmethod
    def claimed(cls, message: dict[str, Any]) -> Loaded:
        version = str(message.get("language_version", ""))[:100]
        return cls(version, _texts(message.get("threads_left")), _texts(message.get("shared")))


NOTHING_YET = Loaded()


def _texts(claimed: Any) -> tuple[str, ...]:
    return tuple(str(text)[:_TEXT] for text in claimed[:_ITEMS]) if isinstance(claimed, list) else ()
