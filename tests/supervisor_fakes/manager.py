"""A manager without a language: its workers are processes that sleep. MODE in its environment says how it behaves."""

import ctypes
import json
import os
import select
import signal
import sys
import time

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, TREE)

from webserver.wire.control import Control, close_all  # the path is set above
from webserver.wire.title import set_title

control = Control.from_descriptor(int(sys.argv[2]))
message, _ = control.receive()
record = message["record"]
mode = record["environment"].get("MODE", "")
set_title("webserver: manager " + record["group"])
workers = {}
retiring = set()


def say(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main():
    if mode == "broken":
        say("Traceback of the application")
        control.send({"op": "failed", "message": "/app.py:3: it is broken"})
        return 1
    if mode == "crash":
        os.abort()
    if mode == "flood":
        while True:
            control.send({"op": "beat"})
    if mode.startswith("say "):
        control.send(json.loads(mode[4:]))
    say("environment " + " ".join(sorted(os.environ)))
    say("settings " + json.dumps(record["settings"]))
    control.send({"op": "loaded", "language_version": "0", "threads_left": [], "shared": []})
    if mode != "idle":
        for number in range(record["processes"]):
            control.send({"op": "grant", "number": number, "slots": record["threads"]})
    poll = select.poll()
    poll.register(control, select.POLLIN)
    draining = False
    beat = time.monotonic()
    while not (draining and not workers):
        if time.monotonic() >= beat:
            beat += 1.0
            control.send({"op": "beat"})
        if poll.poll(20):
            received = control.receive()
            if received is None:
                return 1
            order, fds = received
            if order["op"] == "granted":
                granted(order, fds)
            elif order["op"] == "drain":
                draining = True
                for pid in workers:
                    os.kill(pid, signal.SIGTERM)
            elif order["op"] == "retire":
                for pid, worker in workers.items():
                    if worker["worker"] == order["worker"]:
                        retiring.add(pid)
                        os.kill(pid, signal.SIGTERM)
            elif order["op"] == "frontends":
                say("front ends now " + json.dumps([one["incarnation"] for one in order["frontends"]]))
            close_all(fds.values())
        reap(draining)
    return 0


def granted(order, fds):
    manager = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.dup2(fds["log"], 2)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != manager:
            os._exit(1)
        os.execv("/bin/sleep", ["sleep", "1000"])
    workers[pid] = order
    who = {"number": order["number"], "worker": order["worker"], "pid": pid}
    control.send({"op": "up", **who})
    if mode == "unready":
        os.kill(pid, signal.SIGKILL)
    else:
        control.send({"op": "ready", "number": order["number"], "worker": order["worker"]})


def reap(draining):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        order = workers.pop(pid)
        asked = draining or pid in retiring
        number = 0 if asked else status & 0x7F
        cause = "retired" if asked else f"killed by signal {number}"
        who = {"number": order["number"], "worker": order["worker"], "pid": pid}
        control.send({"op": "gone", **who, "cause": cause, "code": 0 if asked else -1, "signal": number})
        if not draining:
            time.sleep(0.05)
            control.send({"op": "grant", "number": order["number"], "slots": record["threads"]})


sys.exit(main())
