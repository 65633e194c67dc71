"""A configuration as one file, with every value and where it comes from (webserverd -T).

What is printed reads back as the same configuration. Variables of an environment_file are not printed: the file may be
secret, this text need not be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from webserver.config.check import Values
from webserver.config.errors import Place
from webserver.config.loader import Loaded, load_with_origins
from webserver.config.machine import Machine
from webserver.config.options import TABLE, Option


def show(path: str, machine: Machine | None = None) -> str:
    """The text. Raises ConfigErrors as load does."""
    return "".join(f"{line}\n" for line in _lines(load_with_origins(path, machine)))


def _lines(loaded: Loaded) -> Iterator[str]:
    config = loaded.config
    yield "[server]"
    yield from _options(loaded.server, TABLE["server"], config.server)
    yield ""
    yield "[logs]"
    yield from _options(loaded.logs, TABLE["logs"], config.logs)
    yield ""
    yield "[groups]"
    for group in config.groups:
        yield f"[[{group.name}]]"
        yield from _options(loaded.groups[group.name], TABLE["group"], group)
        for section, pairs in (
            ("environment", group.environment),
            ("ini", group.ini),
            ("settings", group.settings),
        ):
            yield from _pairs(loaded, section, section, group.name, pairs)
    if config.companions:
        yield ""
        yield "[companions]"
    for companion in config.companions:
        yield f"[[{companion.name}]]"
        yield from _options(loaded.companions[companion.name], TABLE["companion"], companion)
        yield from _pairs(loaded, "environment", "companion environment", companion.name, companion.environment)
    yield ""
    yield "[sites]"
    for site in config.sites:
        yield f"[[{site.name}]]"
        yield from _options(loaded.sites[site.name], TABLE["site"], site)
        yield "[[[routes]]]"
        for route in site.routes:
            place = loaded.inner["routes", site.name, route.pattern]
            yield _line(_quoted_name(route.pattern), _listed(route.targets), place)


def _pairs(
    loaded: Loaded, section: str, origin: str, owner: str, pairs: tuple[tuple[str, str], ...]
) -> Iterator[str]:  # fmt: skip
    own = [(name, value, loaded.inner[origin, owner, name]) for name, value in pairs]
    own = [(name, value, place) for name, value, place in own if place is None or place.line]
    if own:
        yield f"[[[{section}]]]"
        for name, value, place in own:
            yield _line(name, _quoted(value), place)


def _options(values: Values, table: dict[str, Option], owner: Any) -> Iterator[str]:
    for name, option in table.items():
        value = getattr(owner, name)
        if value in ("", ()):
            text = "," if option.many else ""
        elif option.many:
            text = _listed(tuple(map(option.kind.write, value)))
        else:
            text = _quoted(option.kind.write(value))
        # An included file's content is all here already.
        unset = text == "" or (text == "," and values.places[name] is None) or name == "include"
        yield ("# " if unset else "") + _line(name, text, values.places[name])


def _line(name: str, text: str, place: Place | None) -> str:
    return f"{name} = {text}".rstrip().ljust(40) + f"  # {place or 'default'}"


def _listed(items: tuple[str, ...]) -> str:
    return ", ".join(map(_quoted, items)) + ("," if len(items) == 1 else "") if items else ","


def _quoted_name(name: str) -> str:
    return name if not set(name) & set("\"'=[]# ,") else f"'{name}'" if '"' in name else f'"{name}"'


def _quoted(text: str) -> str:
    """Text so that configobj reads it back as it is; it has no way to write a text with both triple quotes."""
    if "\n" in text or ('"' in text and "'" in text):
        return f"'''{text}'''" if '"""' in text or text.endswith('"') else f'"""{text}"""'
    if text and text == text.strip() and not set(text) & set("\"'#,"):
        return text
    return f"'{text}'" if '"' in text else f'"{text}"'
