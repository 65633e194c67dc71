"""The languages that a group can have, and where their plugins are."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    name: str
    threads: bool  # a worker can run more than one
    callables: bool  # module:callable names an application
    files: bool  # a group without `application` runs the requested file
    ini: bool  # has [[[ini]]]
    preload: str  # what can be loaded before workers are forked: "module", "file", "module or file", or ""
    arguments: bool  # an application has a command line
    plain: bool = False  # `application` is a text that only the plugin understands
    program: bool = False  # `application` is a program, which is run
    settings: bool = False  # has [[[settings]]]


LANGUAGES = {
    language.name: language
    for language in (
        Language("echo", True, False, False, False, preload="", arguments=False, plain=True),
        Language("exec", True, False, False, False, preload="", arguments=True, program=True),
        Language("lua", False, False, True, False, preload="module or file", arguments=True),
        Language("perl", False, False, True, False, preload="module or file", arguments=True),
        Language("php", False, False, True, True, preload="file", arguments=False),
        Language("python", True, True, True, False, preload="module or file", arguments=True),
        Language("ruby", True, False, True, False, preload="module or file", arguments=True),
    )
}


def find(name: str) -> Language:
    """One of ours, or one that came with a plugin of its own, which says itself what it does not take."""
    return LANGUAGES.get(name) or Language(
        name, True, True, True, False, preload="module or file", arguments=True, settings=True
    )


PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PLUGIN_PLACES = (
    os.path.join(os.path.dirname(PACKAGE), "build", "lib", "{language}.so"),  # built in the source tree
    os.path.join(PACKAGE, "plugins", "{language}.so"),  # installed with the package
    "/usr/lib/webserver/plugins/{language}.so",
)


def plugin(language: str) -> str:
    """The path of a language's plugin: the first place that has it, else the first place."""
    places = [place.format(language=language) for place in PLUGIN_PLACES]
    return next(filter(os.path.exists, places), places[0])
