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
    plain: bool = False  # `application` is a text that only the plugin understands


LANGUAGES = {
    language.name: language
    for language in (
        Language("echo", threads=True, callables=False, files=False, ini=False, plain=True),
        Language("lua", threads=False, callables=False, files=True, ini=False),
        Language("perl", threads=False, callables=False, files=True, ini=False),
        Language("php", threads=False, callables=False, files=True, ini=True),
        Language("python", threads=True, callables=True, files=True, ini=False),
        Language("ruby", threads=True, callables=False, files=True, ini=False),
    )
}

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PLUGIN_PLACES = (
    os.path.join(os.path.dirname(_PACKAGE), "build", "lib", "{language}.so"),  # built in the source tree
    os.path.join(_PACKAGE, "plugins", "{language}.so"),  # installed with the package
    "/usr/lib/webserver/plugins/{language}.so",
)


def plugin(language: str) -> str:
    """The path of a language's plugin: the first place that has it, else the first place."""
    places = [place.format(language=language) for place in PLUGIN_PLACES]
    return next(filter(os.path.exists, places), places[0])
