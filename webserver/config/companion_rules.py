"""Rules between the options of a companion, between companions and groups, and between them and the machine."""

from __future__ import annotations

import os

from webserver.config.check import Values
from webserver.config.companion_order import circle
from webserver.config.confinement_rules import Inside, check_confinement
from webserver.config.errors import suggestion
from webserver.config.languages import PLUGIN_PLACES
from webserver.config.machine import Machine, User
from webserver.config.reader import Document
from webserver.config.rules import check_identity
from webserver.config.sight import SEARCH

_EXTENDED, _NO_PLACES = 1, 8  # REG_EXTENDED, REG_NOSUB of regex.h


def warden() -> str:
    """The path of the program that stands between the supervisor and a companion: see webserver/warden/warden.h."""
    places = [os.path.join(os.path.dirname(place), "warden") for place in PLUGIN_PLACES]
    return next(filter(os.path.exists, places), places[0])


def check_companion(document: Document, companion: Values, machine: Machine) -> User | None:
    """Returns the companion's user, as root."""
    user = check_identity(document, companion, machine, "companions")
    # Paths of one in a jail are those that it sees there.
    jail = companion["chroot"] if companion.good("chroot") and machine.root else ""
    _check_command(document, companion, machine, user, jail)
    directory = companion["directory"]
    problem = machine.missing(directory, "directory", user, jail) or machine.denied(directory, user, SEARCH, jail)
    if problem and companion.good("directory"):
        document.error(companion.place("directory"), companion.subject("directory"), problem)
    check_confinement(document, companion, machine, user, _inside(companion))
    _check_times(document, companion)
    way, _, expression = companion["ready"].partition(":")
    if companion.good("ready") and way == "output" and (problem := _expression_problem(expression)):
        document.error(companion.place("ready"), companion.subject("ready"), f"not an expression: {problem}",
                       "it is a POSIX extended regular expression: regex(7)")  # fmt: skip
    return user


def _inside(companion: Values) -> Inside:
    command = companion["command"] if companion.good("command") else ()
    paths = {"command": tuple(command[:1]), "directory": (companion["directory"],)}
    # The warden is linked to nothing, so it needs nothing else.
    shown = ("/proc", os.path.dirname(warden()))
    return Inside("companion", "companion", 16, "what looks after it has descriptors of its own", paths, shown)


def _check_command(document: Document, companion: Values, machine: Machine, user: User | None, jail: str) -> None:
    if not companion.good("command"):
        return
    place, subject = companion.place("command"), companion.subject("command")
    words = companion["command"]
    if not words or not words[0]:
        document.error(place, subject, "found nothing, expected a program and its arguments")
        return
    entry = companion.block.entries["command"]
    program = os.path.normpath(os.path.join(entry.base, words[0]))
    companion.values["command"] = (program, *words[1:])
    if problem := machine.missing(program, "file", user, jail) or machine.denied(program, user, SEARCH, jail):
        problem = f"{problem}, in {jail}" if jail else problem
        advice = ""
        if " " in words[0]:
            advice = "words are separated by commas: command = " + ", ".join(words[0].split())
        elif "/" not in words[0]:
            advice = "programs are not looked for: write the whole path"
        document.error(place, subject, problem, advice)


def _check_times(document: Document, companion: Values) -> None:
    """What is run at times is not there for anybody to wait for, and runs once at a time."""

    def wrong(name: str, problem: str, advice: str = "") -> None:
        document.error(companion.place(name), companion.subject(name), problem, advice)

    if not companion.good("every", "at", "instances", "ready", "restart", "timeout"):
        return
    timed = companion["every"] or companion["at"]
    name = "every" if companion["every"] else "at"
    if companion["every"] and companion["at"]:
        wrong("at", "is given together with every, expected one of them")
    if timed and companion["instances"] > 1:
        wrong("instances", f"found {companion['instances']}, expected 1: with {name}, never two run at a time")
    if timed and companion["ready"] != "started":
        wrong("ready", f"found {companion['ready']}, expected started: with {name}, nobody can wait for it")
    if companion["restart"] == "always" and (timed or companion["ready"] == "finished"):
        cause = name if timed else "ready = finished"
        wrong("restart", f"found always, expected failure or never: with {cause}, its end is what it is started for")
    if companion["timeout"] and not timed:
        wrong("timeout", "is for what runs at times, with every or at", "start_timeout limits how long a start takes")


def _expression_problem(expression: str) -> str:
    """What the C library, by which the warden matches, has to say against an expression."""
    import ctypes  # only a companion with an expression pays for it

    library = ctypes.CDLL(None)
    compiled = ctypes.create_string_buffer(1024)  # a regex_t is smaller
    try:
        code = library.regcomp(compiled, ctypes.c_char_p(expression.encode()), _EXTENDED | _NO_PLACES)
    except ValueError:
        return "it holds a NUL"
    if not code:
        library.regfree(compiled)
        return ""
    text = ctypes.create_string_buffer(256)
    library.regerror(code, compiled, text, ctypes.c_size_t(len(text)))
    return text.value.decode(errors="replace")


def check_companions(
    document: Document, companions: dict[str, Values], groups: dict[str, Values], machine: Machine,
    users: dict[str, User],
) -> None:  # fmt: skip
    """What concerns all of them: names, who waits for whom, and what they are started with."""
    for companion in list(companions.values())[:1]:
        if problem := machine.missing(warden(), "file", next(iter(users.values()), None)):
            document.error(companion.block.place, companion.block.title, problem,
                           "what companions are started with is not built or not installed")  # fmt: skip
    for name, companion in companions.items():
        if name in groups:
            document.error(companion.block.place, companion.block.title, "there is a group of this name in"
                           f" {groups[name].block.place}", "webserverctl takes names of both")  # fmt: skip
    for one in (*companions.values(), *groups.values()):
        for name in one["after"]:
            found = companions.get(name)
            problem = ""
            if found is None:
                problem = f'there is no companion "{name}"' if name not in groups else f'"{name}" is a group'
            elif found["every"] or found["at"]:
                problem = f'found "{name}", which is run at times: nobody can wait for it'
            if problem:
                document.error(one.place("after"), one.subject("after"), problem,
                               suggestion(name, companions) if found is None else "")  # fmt: skip
    after = {name: companion["after"] for name, companion in companions.items()}
    while names := circle(after):
        first = companions[names[0]]
        way = " waits for ".join([*names, names[0]])
        document.error(first.place("after"), first.subject("after"), f"a circle, in which none can be the first: {way}")
        for name in names:
            del after[name]
