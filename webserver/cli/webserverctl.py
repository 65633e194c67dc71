"""webserverctl: ask a running server for something and wait until it is done. See webserverctl(8)."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Callable
from typing import Any

from webserver.cli import memory
from webserver.cli.arguments import DEFAULT_CONFIG, UsageError, parse
from webserver.cli.table import printable

OPTIONS = {"--config": True, "--json": False, "--help": False}
USAGE = (
    "usage: webserverctl [--config FILE] status | reload | restart NAME | upgrade | stack GROUP | start COMPANION |"
    " stop [COMPANION] | audit GROUP [--json]"
)
# command: how many words may follow it, each the name of a group or companion
WORDS = {
    "status": (0,), "reload": (0,), "restart": (1,), "upgrade": (0,), "stack": (1,), "start": (1,), "stop": (0, 1),
    "audit": (1,),
}  # fmt: skip
PROGRESS = frozenset({"restart", "upgrade", "stop"})  # commands that say how far they are


class Unreachable(Exception):
    """No answer; the text says why."""


def main() -> int:
    try:
        given, words = parse(sys.argv[1:], OPTIONS)
        if "--help" in given:
            sys.stdout.write(USAGE + "\n")
            return 0
        if not words or words[0] not in WORDS:
            raise UsageError(f"unknown command {words[0]!r}" if words else "a command is missing")
        if len(words) - 1 not in WORDS[words[0]]:
            needs = {
                "restart": "needs one group or companion",
                "stack": "needs one group",
                "audit": "needs one group",
                "start": "needs one companion",
                "stop": "takes one name",
            }
            raise UsageError(f"{words[0]} {needs.get(words[0], 'takes no words')}")
    except UsageError as error:
        sys.stderr.write(f"webserverctl: {error}\n{USAGE}\n")
        return 2
    path = os.path.abspath(given.get("--config", DEFAULT_CONFIG))
    request: dict[str, Any] = {"op": words[0], **({"group": words[1]} if len(words) > 1 else {})}
    request["progress"] = words[0] in PROGRESS
    if words[0] == "audit":
        from webserver.cli import audit

        request["files"] = audit.files(path, words[1])
    try:
        answer = _ask(_control_socket(path), request, _tell_json if "--json" in given else _tell)
    except Unreachable as error:
        answer = {"ok": False, "errors": [str(error)]}
    except KeyboardInterrupt:
        sys.stderr.write("webserverctl: no longer waiting; what was asked for goes on\n")
        return 1
    if answer.get("ok") and words[0] == "status":
        memory.add(answer)
    if "--json" in given:
        sys.stdout.write(json.dumps(answer) + "\n")
    elif answer.get("ok") and words[0] == "status":
        from webserver.cli.table import status_text

        sys.stdout.write(status_text(answer))
    elif words[0] == "stack":
        from webserver.cli.table import stack_text

        sys.stdout.write(stack_text(answer))
    elif answer.get("ok") and words[0] == "audit":
        sys.stdout.write(audit.text(answer))
    for text in answer.get("errors", []):
        sys.stderr.write(f"webserverctl: {printable(text)}\n")
    if "--json" not in given:
        for text in answer.get("notes", []):
            sys.stderr.write(f"webserverctl: {printable(text)}\n")
    if words[0] == "audit" and answer.get("ok") and audit.reachable(answer):
        return 1
    return 0 if answer.get("ok") is True else 1


def _control_socket(path: str) -> str:
    """Where the server of this configuration listens for us.

    From the value of `run` alone: a configuration with mistakes elsewhere is what `reload` has to tell about.
    """
    from webserver.config import ConfigErrors
    from webserver.config.check import check
    from webserver.config.machine import Machine
    from webserver.config.reader import read

    try:
        document = read(path, named=False)
        values = check(document, document.server, "server", Machine())
    except ConfigErrors as errors:
        raise Unreachable(str(errors)) from None
    if not document.whole and "run" not in document.server.entries and (found := _run_by_sight(path)):
        return os.path.join(found, "control.sock")
    if path not in document.files and document.errors:
        raise Unreachable("\n".join(str(error) for error in document.sorted_errors()))
    if not values.good("run"):
        raise Unreachable("\n".join(str(error) for error in document.sorted_errors()))
    return os.path.join(str(values["run"]), "control.sock")


def _run_by_sight(path: str) -> str:
    """The value of `run` in a file whose form is so wrong that nothing in it counts; "" if there is none.

    Such a file must keep nobody from stopping the server, or from hearing from `reload` what is wrong with it.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            found = re.search(r"""^[ \t]*run[ \t]*=[ \t]*(?:"([^"\n]*)"|'([^'\n]*)'|([^#\n]*))""", file.read(), re.M)
    except OSError:
        return ""
    value = next((text.strip() for text in found.groups() if text), "") if found else ""
    return os.path.join(os.path.dirname(path), value) if value else ""


def _tell(text: str) -> None:
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def _tell_json(text: str) -> None:
    # Standard output has the answer and nothing else, so that it can be read as one object.
    sys.stderr.write(json.dumps({"progress": text}) + "\n")
    sys.stderr.flush()


def _ask(path: str, request: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """The answer; `tell` gets what comes before it, as it comes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            raise Unreachable(f"no server runs here ({path})") from None
        except OSError as error:
            raise Unreachable(f"{path}: {error.strerror}") from None
        try:
            sock.sendall(json.dumps(request).encode("ascii") + b"\n")
            with sock.makefile("rb") as lines:
                for line in lines:
                    value = json.loads(line)
                    if not isinstance(value, dict):
                        break
                    if "progress" not in value:
                        return value
                    tell(str(value["progress"]))
        except OSError as error:
            raise Unreachable(f"the server ended before it answered: {error.strerror}") from None
        except ValueError:
            pass
    raise Unreachable("the server ended before it answered; its error log may say why")


if __name__ == "__main__":
    sys.exit(main())
