"""The faults that an operator makes: reloads, restarts, good and broken configuration, broken applications.

One after another, on a thread of their own, since the server does them one after another too and each may take a while.
What must not happen is that something broken is accepted. That something good is refused may be another fault's doing;
it is counted and told.
"""

from __future__ import annotations

import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable

from trial.faults import Done, Planned
from trial.place import FILES, GROUPS, Place, put

KINDS = frozenset({"reload", "restart", "restart-touch", "upgrade", "config-good", "config-broken", "deploy-broken"})
UPGRADE = 90.0  # seconds for another program to serve
UNANSWERED = 2  # commands without an answer after which no more are given
NO_UPGRADE = 1.0  # seconds without one that is on its way, after which there will be none
# What a human being writes at night: text to look for, what to write instead.
BROKEN = (
    ("processes = 2", "processors = 2"),
    ("processes = 3", "processes = many"),
    ("threads = 4", "threads = 0"),
    ("/perl/ = group:perl", "/perl/ = group:pearl"),
    ("language = ruby", "language = rubby"),
    ("[sites]", "[sites"),
    ("hosts = *", "host = *"),
    ("[logs]", "not an option\n[logs]"),
    ("request_timeout = 60s", "request_timeout = soon"),
    ("application = app/app.psgi", "application = app/absent.psgi"),
    ("connections = 200", "connections = 5000"),
    ("user = nobody", "user = root"),
    ("processes_min = 2", "processes_min = 20"),
    ("max_age = 20s", "max_age = often"),
)
UNREADABLE = {"python": b"def application(:\n", "perl": b"sub { my ($env) = @_;\n", "ruby": b"run(lambda do |env|\n"}
Tell = Callable[[Done], None]


class Operator:
    def __init__(self, place: Place, tell: Tell) -> None:
        self._place = place
        self._tell = tell
        self._work: queue.SimpleQueue[Planned | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="operator", daemon=True)
        self._edition = 0

    def start(self) -> None:
        self._thread.start()

    def give(self, planned: Planned) -> None:
        self._work.put(planned)

    def finish(self) -> None:
        self._work.put(None)
        self._thread.join()

    def settle(self) -> list[str]:
        """When all is quiet: what was refused before must work now. Returns what does not."""
        self._place.configure(self._place.config)
        wrong = []
        for words in (("reload",), *(("restart", group) for group in GROUPS)):
            result = self._place.ctl(*words)
            if result.returncode:
                wrong.append(f"{' '.join(words)} fails though nothing disturbs it: {result.stderr.strip()[:400]}")
        return wrong

    def _run(self) -> None:
        unanswered = 0
        while (planned := self._work.get()) is not None:
            if unanswered >= UNANSWERED:
                continue  # it is known by now; the run is to end some time
            began = time.time()
            target, group, note, wrong = "", "", "", ""
            try:
                target, group, note, wrong = {
                    "reload": self._reload,
                    "restart": self._restart,
                    "restart-touch": self._touch,
                    "upgrade": self._upgrade,
                    "config-good": self._good,
                    "config-broken": self._broken,
                    "deploy-broken": self._deploy,
                }[planned.kind](planned)
            except subprocess.TimeoutExpired as error:
                unanswered += 1
                wrong = f"{' '.join(error.cmd[-2:])} has not answered within {error.timeout:g} s"
            self._tell(Done(planned, began, time.time(), target, group, note=note, wrong=wrong))

    # Each returns target, group, what is worth telling, what is wrong.

    def _reload(self, planned: Planned) -> tuple[str, str, str, str]:
        if planned.other < 0.3:
            self._place.signal(signal.SIGHUP)
            return "by HUP", "", "", ""
        return "", "", refused(self._place.ctl("reload")), ""

    def _restart(self, planned: Planned) -> tuple[str, str, str, str]:
        group = sorted(GROUPS)[int(planned.pick * len(GROUPS))]
        return group, group, refused(self._place.ctl("restart", group)), ""

    def _touch(self, planned: Planned) -> tuple[str, str, str, str]:
        """The server looks at it by itself, and restarts the group in its own time."""
        group = sorted(GROUPS)[int(planned.pick * len(GROUPS))]
        path = self._place.directory / f"app/touched-{group}"
        path.touch()
        return group, group, "", ""

    def _upgrade(self, planned: Planned) -> tuple[str, str, str, str]:
        if planned.other < 0.5:
            return "by webserverctl", "", refused(self._place.ctl("upgrade")), ""
        before = self._place.pid
        self._place.signal(signal.SIGUSR2)
        last, deadline = time.monotonic(), time.monotonic() + UPGRADE
        while self._place.pid == before:
            time.sleep(0.05)
            now = time.monotonic()
            last = now if self._place.follower(before) else last
            if now - last > NO_UPGRADE:
                return "by USR2", "", "refused: the old program goes on", ""
            if now > deadline:
                return "by USR2", "", "", f"no other program serves within {UPGRADE:g} s, and the old one says nothing"
        return "by USR2", "", "", ""

    def _good(self, planned: Planned) -> tuple[str, str, str, str]:
        """A changed group, a larger one, a changed site, or one more listener for a while."""
        place = self._place
        self._edition += 1
        group = sorted(GROUPS)[int(planned.pick * len(GROUPS))]
        what = ("group", "pool", "site", "listener")[int(planned.other * 4)]
        if what in ("group", "pool"):
            head, mark, tail = place.config.partition(f"[[{group}]]")
            old, new = "EDITION = 0", f"EDITION = {self._edition}"
            if what == "pool":
                old, new = (f"processes = {GROUPS[group].processes + more}\n" for more in (0, 1))
            text = head + mark + tail.replace(old, new, 1)
        elif what == "site":
            group = ""
            text = place.config.replace("root = public", f"root = public\n  max_body = {64 + self._edition % 8}m")
        else:
            group = ""
            text = place.config.replace(f":{place.port}\n", f":{place.port}, unix:run/{self._edition}.sock\n")
        place.configure(text)
        note = refused(place.ctl("reload"))
        if what == "listener":  # and away with it again, by the next reload at the latest
            place.configure(place.config)
        return f"{what} {group}".strip(), group, note, ""

    def _broken(self, planned: Planned) -> tuple[str, str, str, str]:
        place = self._place
        known = [pair for pair in BROKEN if pair[0] in place.config]
        before, after = known[int(planned.pick * len(known))]
        place.configure(place.config.replace(before, after))
        try:
            result = place.ctl("reload")
        finally:
            place.configure(place.config)
        name = after.strip().splitlines()[0]
        if result.returncode == 0:
            return name, "", "", "a broken configuration was accepted"
        # What cannot be opened just now is no mistake of the file's, and says so in its own words.
        if str(place.config_file) not in result.stderr and "absent" not in after:
            return name, "", f"refused for another reason: {result.stderr.strip()[:200]}", ""
        return name, "", "", ""

    def _deploy(self, planned: Planned) -> tuple[str, str, str, str]:
        place = self._place
        group = sorted(FILES)[int(planned.pick * len(FILES))]
        path = place.directory / FILES[group]
        good = path.read_bytes()
        put(path, UNREADABLE[group])
        try:
            result = place.ctl("restart", group)
        finally:
            put(path, good)
        wrong = "" if result.returncode else "a broken application was accepted"
        return group, group, "", wrong


def refused(result: subprocess.CompletedProcess[str]) -> str:
    return f"refused: {result.stderr.strip()[:200]}" if result.returncode else ""
