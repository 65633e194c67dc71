"""Sizes, times, switches and modes as people write them, and back.

Each reader raises ValueError for text that is not exactly of its form; each writer's text reads back as the same value.
"""

from __future__ import annotations

import re

UNLIMITED = 1 << 62  # bytes; above any size that can be sent or stored, and safe to add to
_SIZE = re.compile(r"([0-9]{1,15})([kmgt]?)b?", re.IGNORECASE)
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TIME = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d|)", re.IGNORECASE)
_TIMES = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SWITCH = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


def whole(text: str) -> int:
    if re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII) is None:
        raise ValueError(text)
    return int(text)


def whole_or_all(text: str) -> int:
    return 0 if text.lower() == "all" else whole(text)


def whole_or_all_text(value: int) -> str:
    return str(value) if value else "all"


def size(text: str) -> int:
    """Bytes: 512, 16k, 64m, 1g; k is 1024."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _SIZES[match[2].lower()]


def size_text(value: int) -> str:
    for unit in ("t", "g", "m", "k"):
        if value and value % _SIZES[unit] == 0:
            return f"{value // _SIZES[unit]}{unit}"
    return str(value)


def size_or_unlimited(text: str) -> int:
    return UNLIMITED if text.lower() == "unlimited" else size(text)


def size_or_unlimited_text(value: int) -> str:
    return "unlimited" if value == UNLIMITED else size_text(value)


def size_or_none(text: str) -> int:
    return 0 if text.lower() == "none" else size(text)


def size_or_none_text(value: int) -> str:
    return size_text(value) if value else "none"


def seconds(text: str) -> float:
    """Seconds: 30, 500ms, 1.5s, 5m, 1h, 1d."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    unit = match[2].lower()
    # Milliseconds are divided, not multiplied: 0.001 has no exact binary form, and 7ms must be what 0.007 is.
    return float(match[1]) / 1000 if unit == "ms" else float(match[1]) * _TIMES[unit]


def seconds_text(value: float) -> str:
    for unit in ("d", "h", "m"):
        if value and value % _TIMES[unit] == 0:
            return f"{int(value // _TIMES[unit])}{unit}"
    if value == int(value):
        return f"{int(value)}s"
    for digits in range(1, 10):
        if float(text := f"{value:.{digits}f}") == value:
            return f"{text}s" if digits <= 6 else f"{value * 1000:.{digits - 3}f}ms"
    return f"{value:.6f}s"


def seconds_or_none(text: str) -> float:
    return 0.0 if text.lower() == "none" else seconds(text)


def seconds_or_none_text(value: float) -> str:
    return seconds_text(value) if value else "none"


def switch(text: str) -> bool:
    try:
        return _SWITCH[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def switch_text(value: bool) -> str:
    return "yes" if value else "no"


def mode(text: str) -> int:
    """A file mode mask in octal: 022, 0027."""
    if re.fullmatch(r"0?[0-7]{3}", text) is None:
        raise ValueError(text)
    return int(text, 8)


def mode_text(value: int) -> str:
    return f"{value:03o}"
