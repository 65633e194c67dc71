"""A site's [[[routes]]]: which patterns and targets there are, and which make sense together.

- pattern: /prefix or .extension
- targets of a prefix: files or data, then one of group:NAME, script:/path, =STATUS, /internal/path, status; or either
- target of an extension: group:NAME | =STATUS | files
"""

from __future__ import annotations

import re

from webserver.config.check import Values
from webserver.config.errors import Place, suggestion
from webserver.config.languages import find
from webserver.config.model import Route
from webserver.config.reader import Block, Document, Entry

_EXTENSION = re.compile(r"\.[A-Za-z0-9_]{1,32}")
_STATUS = re.compile(r"=([0-9]{3})")
_PREFIX_TARGETS = '"files", "data", "group:NAME", "script:/path", "=404", "/path" or "status"'
_EXTENSION_TARGETS = '"group:NAME", "=404" or "files"'


def path_problem(path: str) -> str:
    """Why no decoded request path could begin with this, or ""."""
    if any(part in (".", "..") for part in path.split("/")):
        return "a request's path has no . and .. in it"
    if "//" in path:
        return "two slashes follow each other"
    if "?" in path:
        return "the query is no part of the path"
    if re.search("%[0-9a-fA-F]{2}", path):
        return "paths are compared decoded: write the character itself"
    return ""


def check_routes(
    document: Document, site: Values, groups: dict[str, Values]
) -> tuple[tuple[Route, ...], dict[str, Place | None]]:
    """A site's routes, in order of the file, and where each stands (None: it follows from `root`)."""
    block = site.block.blocks.get("routes")
    routes: dict[str, Route] = {}
    places: dict[str, Place | None] = {}
    for pattern, entry in block.entries.items() if block else ():
        assert block is not None
        problem = _pattern_problem(pattern)
        if problem:
            document.error(entry.place, block.title, f'found the pattern "{pattern}", expected a path that begins with'
                           ' "/" or an extension that begins with "."', problem)  # fmt: skip
            continue
        twin = pattern.rstrip("/") if pattern.endswith("/") else f"{pattern}/"
        if pattern.startswith("/") and twin in routes:
            document.error(entry.place, block.title, f'found "{pattern}" and "{twin}", which are the same route')
        targets = _targets(document, pattern, f"{block.title}: {pattern}", entry, site, groups)
        upload = "gather" if pattern in site["gather"] else "stream"
        routes[pattern] = Route(pattern, targets, upload)
        places[pattern] = entry.place
    if block is not None:
        for name, inner in block.blocks.items():
            document.error(inner.place, block.title, f"found the unknown section [{name}]", "routes are written as"
                           f' "{name} = TARGET"')  # fmt: skip
    if "/" not in routes and site["root"]:
        routes["/"] = Route("/", ("files",), "gather" if "/" in site["gather"] else "stream")
        places["/"] = None
    if not routes and site.good("root"):
        document.error(site.block.place, site.block.title, "it has neither root nor routes, so there is no answer that"
                       " it could give")  # fmt: skip
    for pattern in site["gather"] if site.good("gather") else ():
        if pattern not in routes:
            document.error(site.place("gather"), site.subject("gather"), f'found "{pattern}", expected'
                           " the pattern of one of the site's routes", suggestion(pattern, routes))  # fmt: skip
    return tuple(routes.values()), places


def _pattern_problem(pattern: str) -> str:
    if pattern.startswith("/"):
        return path_problem(pattern)
    if pattern.startswith("."):
        return "" if _EXTENSION.fullmatch(pattern) else "an extension is one dot with letters and digits after it"
    return f'for files that end in it, write ".{pattern}"' if pattern.isalnum() else "it has another beginning"


def _targets(
    document: Document, pattern: str, subject: str, entry: Entry, site: Values, groups: dict[str, Values]
) -> tuple[str, ...]:
    targets = tuple(entry.items())
    expected = _EXTENSION_TARGETS if pattern.startswith(".") else _PREFIX_TARGETS
    for number, target in enumerate(targets):
        problem, advice = _target_problem(document, pattern, target, site, groups)
        always = target not in ("files", "data") or pattern.startswith(".")
        if not problem and number + 1 < len(targets) and always:
            problem = f'"{target}" always answers, so "{targets[number + 1]}" after it would never be used'
        elif not problem and target in targets[:number]:
            problem = f'found "{target}" twice'
        if problem:
            document.error(entry.place, subject, problem, advice)
    if not targets:
        document.error(entry.place, subject, f"found nothing, expected {expected}")
    return targets


def _target_problem(
    document: Document, pattern: str, target: str, site: Values, groups: dict[str, Values]
) -> tuple[str, str]:
    """What is wrong with one target, and advice; ("", "") if nothing is."""
    extension = pattern.startswith(".")
    if target == "status" and not extension:
        return "", ""
    if target == "files" or (target == "data" and not extension):
        if not site["root"] and site.good("root"):
            return "files need a directory to come from", f'give "root" in {site.block.title}'
        return "", ""
    if status := _STATUS.fullmatch(target):
        if not 400 <= int(status[1]) <= 599:
            return f'found "{target}", expected a status from =400 to =599', ""
        return "", ""
    if target.startswith("/") and not extension:
        problem = path_problem(target)
        return (f'found the path "{target}"', problem) if problem else ("", "")
    if target.startswith("script:") and not extension:
        return _script_problem(target.removeprefix("script:"), site)
    if target.startswith("group:"):
        return _group_problem(document, pattern, target.removeprefix("group:"), site, groups)
    near = f'did you mean "group:{target}"?' if target in groups else ""
    words = ["files"] if extension else ["files", "data", "status"]
    near = near or suggestion(target, [*words, *(f"group:{name}" for name in groups)])
    return f'found "{target}", expected {_EXTENSION_TARGETS if extension else _PREFIX_TARGETS}', near


def _group_problem(
    document: Document, pattern: str, name: str, site: Values, groups: dict[str, Values]
) -> tuple[str, str]:
    group = groups.get(name)
    if group is None:
        if not document.whole:
            return "", ""  # it may be in the file that could not be read
        return f'there is no group "{name}"', suggestion(name, groups) or f"add it as [[{name}]] in [groups]"
    language = find(group["language"])
    # Of a plugin that is not ours nobody knows whether it needs one.
    free = language.plain or language.program or language.settings
    named = group["application"] or free or not group.good("application", "language")
    if pattern.startswith("."):
        if not site["root"] and site.good("root"):
            return "an extension's files need a directory to be in", f'give "root" in {site.block.title}'
    elif not named:
        example = f'"{_extension(group["language"])} = group:{name}"'
        return (f'group "{name}" has no application, so it can only answer for an extension, such as {example}',
                f'give "application" in {group.block.title}')  # fmt: skip
    return "", ""


def _script_problem(path: str, site: Values) -> tuple[str, str]:
    if not path.startswith("/"):
        return f'found "script:{path}", expected a path below root that begins with "/"', f"write script:/{path}"
    if problem := path_problem(path):
        return f'found the path "{path}"', problem
    if not site["root"] and site.good("root"):
        return "a script needs a directory to be in", f'give "root" in {site.block.title}'
    routes = site.block.blocks["routes"].entries
    given = [pattern for pattern in routes if pattern.startswith(".") and path.endswith(pattern)]
    if not any(target.startswith("group:") for pattern in given for target in routes[pattern].items()):
        extension = "." + path.rpartition("/")[2].rpartition(".")[2]
        return (f'found the script "{path}", and no route says which group runs files of its extension',
                f"add {extension} = group:NAME")  # fmt: skip
    return "", ""


def _extension(language: str) -> str:
    names = {"python": ".wsgi", "ruby": ".ru", "perl": ".psgi"}
    return names.get(language, f".{language}")


def check_hosts(document: Document, sites: dict[str, Values]) -> None:
    """No host name may belong to two sites."""
    owners: dict[str, Values] = {}
    for site in sites.values():
        for host in site["hosts"]:
            first = owners.setdefault(host, site)
            if first is not site:
                document.error(site.place("hosts"), site.subject("hosts"), f'found "{host}", which is a host of'
                               f" {first.block.title} already ({first.place('hosts')})")  # fmt: skip


def pairs(document: Document, block: Block | None, name_pattern: re.Pattern[str], what: str) -> dict[str, Entry]:
    """The entries of a free-form section (environment, ini) whose names and values can be used."""
    found: dict[str, Entry] = {}
    if block is None:
        return found
    for name, inner in block.blocks.items():
        document.error(inner.place, block.title, f"found the section [{name}], expected {what}")
    for name, entry in block.entries.items():
        if name_pattern.fullmatch(name) is None:
            document.error(entry.place, block.title, f'found "{name}", expected {what}')
        elif isinstance(entry.value, list):
            document.error(entry.place, f"{block.title}: {name}", "found a list, expected one text",
                           "a comma inside a value needs quotes around the value")  # fmt: skip
        else:
            found[name] = entry
    return found
