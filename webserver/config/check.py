"""Entries to values: each option of a section against its row of the table.

A mistake is reported and the option's default takes its place, so that one run finds all of them; `Values.bad` tells
the rules between options which values not to judge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from webserver.config.errors import Place, nearest, suggestion
from webserver.config.machine import Machine
from webserver.config.options import SUBSECTIONS, TABLE, Computed, Context, Option
from webserver.config.reader import SECTIONS, Block, Document, Entry


@dataclass
class Values:
    """The values of one section, where each was given (None: default), and the options that had a mistake."""

    block: Block
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Place | None] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)
    misspelt: set[str] = field(default_factory=set)  # options that are not missing: an unknown name stands for each

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def good(self, *names: str) -> bool:
        return self.bad.isdisjoint(names)

    def place(self, name: str) -> Place:
        """Where an option is given, or else the section begins."""
        return self.places.get(name) or self.block.place

    def given(self, name: str) -> bool:
        return self.places.get(name) is not None

    def subject(self, name: str) -> str:
        return f"{self.block.title}: {name}"


def check(document: Document, block: Block, section: str, machine: Machine) -> Values:
    """The values of a section: `section` is server, logs, group, companion or site."""
    table = TABLE[section]
    result = Values(block)
    for name, entry in block.entries.items():
        if name not in table:
            _unknown_option(document, block, section, name, entry)
            result.misspelt.add(nearest(name, table))
    for name, inner in block.blocks.items():
        if name not in SUBSECTIONS[section]:
            advice = suggestion(name, SUBSECTIONS[section])
            if name in table and name not in SECTIONS:
                advice = f'"{name}" is an option: {name} = ...'
            document.error(inner.place, block.title, f"found the unknown section [{name}]", advice)
    for name, option in table.items():
        given = block.entries.get(name)
        result.places[name] = given.place if given else None
        value: Any = None
        if given is not None:
            value = _value(document, result, option, given)
        elif option.default is None:
            result.bad.add(name)
            if name not in result.misspelt:
                document.error(block.place, block.title, f'"{name}" is missing, expected {described(option)}')
        if value is None:
            value = _default(option, Context(machine, block.base, result.values))
        result.values[name] = value
    return result


def described(option: Option) -> str:
    """What an option takes, to follow "expected"."""
    if option.choices:
        text = " or ".join(filter(None, (", ".join(option.choices[:-1]), option.choices[-1])))
    else:
        text = option.kind.expected
    write = option.kind.write
    if option.least is not None and option.most is not None:
        text += f" ({write(_typed(option, option.least))} to {write(_typed(option, option.most))})"
    elif option.least is not None:
        text += f" (at least {write(_typed(option, option.least))})"
    return text


def _typed(option: Option, number: float) -> Any:
    return option.kind.value(number)


def _unknown_option(document: Document, block: Block, section: str, name: str, entry: Entry) -> None:
    advice = suggestion(name, TABLE[section])
    if name in SUBSECTIONS[section]:
        advice = f"it is a section: [[[{name}]]], in a file of its own [{name}]"
    elif not advice or name not in TABLE[section]:
        elsewhere = [other for other in TABLE if name in TABLE[other]]
        places = {"server": "[server]", "logs": "[logs]", "group": "a group", "companion": "a companion",
                  "site": "a site"}  # fmt: skip
        if name in SUBSECTIONS["site"] + SUBSECTIONS["group"]:
            advice = f"it is a section of a {'site' if name in SUBSECTIONS['site'] else 'group'}"
        elif elsewhere:
            advice = "it belongs in " + " or ".join(places[other] for other in elsewhere)
    document.error(entry.place, block.title, f'found the unknown option "{name}"', advice)


def _value(document: Document, result: Values, option: Option, entry: Entry) -> Any:
    """The entry's value, or None after a mistake has been reported."""
    subject = result.subject(option.name)
    if option.many:
        items = [_item(document, subject, option, entry, text) for text in entry.items()]
        if None in items:
            result.bad.add(option.name)
            return None
        for number, item in enumerate(items):
            if item in items[:number] and not option.repeats:
                document.error(entry.place, subject, f"found {option.kind.write(item)} twice")
        return tuple(items if option.repeats else dict.fromkeys(items))
    if isinstance(entry.value, list):
        value = None
        document.error(entry.place, subject, f"found a list of {len(entry.value)}, expected {described(option)}",
                       "a comma inside a value needs quotes around the value")  # fmt: skip
    else:
        value = _item(document, subject, option, entry, entry.value, option.opened_by in result.block.entries)
    if value is None:
        result.bad.add(option.name)
    return value


def _item(document: Document, subject: str, option: Option, entry: Entry, text: str, opened: bool = False) -> Any:
    try:
        value = option.kind.read(text, entry.base)
    except ValueError as error:
        reason = str(error)
        problem = f'found "{text}", expected {described(option)}'
        document.error(entry.place, subject, problem, reason if reason != text else "")
        return None
    if option.choices and value not in option.choices and (not opened or _misspelt(value, option.choices)):
        document.error(entry.place, subject, f'found "{text}", expected {described(option)}',
                       suggestion(text, option.choices))  # fmt: skip
        return None
    if not _in_range(option, value):
        document.error(entry.place, subject, f"found {text}, expected {described(option)}")
        return None
    return value


def _misspelt(word: str, choices: tuple[str, ...]) -> bool:
    """One letter too many, too few or in the wrong place; "luajit" and "php8" are meant as they are."""
    near = nearest(word, choices)
    return bool(near) and word.isalpha() and abs(len(word) - len(near)) <= 1


def _in_range(option: Option, value: Any) -> bool:
    if not isinstance(value, (int, float)) or (option.may_be_zero and value == 0):
        return True
    return (option.least is None or value >= option.least) and (option.most is None or value <= option.most)


def _default(option: Option, context: Context) -> Any:
    text = option.default.text(context) if isinstance(option.default, Computed) else option.default
    if text is None:
        text = option.choices[0] if option.choices else ""
    if text == "":
        return () if option.many else ""
    if option.many:
        return tuple(option.kind.read(item.strip(), context.base) for item in text.split(","))
    return option.kind.read(text, context.base)
