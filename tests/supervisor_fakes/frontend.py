"""A front end without a network: says what a front end says. Started by the real supervisor in the real one's place.

Files in the directory above the first generation's `ipc` steer it: "hang-N" stops the beat, "stay" ignores drain,
"mute" never says that a generation serves, "tell-N" holds one packet to be sent
as it is, once.
"""

import faulthandler
import json
import os
import select
import signal
import socket
import sys
import time

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, TREE)

from webserver.wire.control import Control  # the path is set above
from webserver.wire.title import set_title

faulthandler.register(signal.SIGUSR2)
control = Control.from_descriptor(int(sys.argv[2]))
message, fds = control.receive()
record = message["record"]
ordinal = record["ordinal"]
set_title(f"webserver: front end {ordinal}")
base = os.path.dirname(record["config"]["server"]["run"])
listeners = {one["id"]: fds[one["fd"]] for one in record["listeners"]}
accept = set(record["accept"])
sockets = {}
served = set()
told = set()


def say(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def generation(order):
    path = os.path.join(order["directory"], f"f{record['incarnation']}")
    before = os.umask(0o117)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    os.umask(before)
    sockets[order["group"], order["generation"]] = sock
    control.send({"op": "bound", "group": order["group"], "generation": order["generation"], "path": path})


def main():
    for order in record["groups"]:
        generation(order)
    control.send({"op": "ready"})
    if "access" in fds:
        os.write(fds["access"], b"access line of %d\n" % ordinal)
    beat = time.monotonic()
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        while os.path.exists(f"{base}/hang-{ordinal}"):
            time.sleep(0.05)
        if time.monotonic() >= beat:
            beat += 0.2
            control.send({"op": "beat", "stats": {"engine": {"accept": sorted(accept)}, "groups": {}}})
        tell = f"{base}/tell-{ordinal}"
        if os.path.exists(tell) and tell not in told:
            told.add(tell)
            with open(tell) as stream:
                control.send(json.load(stream))
        if poll.poll(50):
            received = control.receive()
            if received is None:
                return 1
            if obey(*received):
                return 0


def obey(order, given):
    op = order["op"]
    named = {name: order[name] for name in ("group", "generation") if name in order}
    if op == "generation":
        generation(order)
    elif op == "worker":
        os.close(given["page"])
        key = (order["group"], order["generation"], order["worker"])
        if key not in served and not os.path.exists(base + "/mute"):
            served.add(key)
            control.send({"op": "serving", **named, "worker": order["worker"]})
    elif op == "worker-gone":
        say(f"front end {ordinal}: worker gone: {order['cause']}")
    elif op == "drain-generation":
        control.send({"op": "drained", **named})
    elif op == "close-generation":
        sock = sockets.pop((order["group"], order["generation"]), None)
        if sock is not None:
            sock.close()
    elif op == "config":
        control.send({"op": "configured", "generation": order["generation"]})
    elif op == "listeners":
        for number in order["remove"]:
            os.close(listeners.pop(number))
        for one in order["add"]:
            listeners[one["id"]] = given[one["fd"]]
        say(f"front end {ordinal}: listeners {len(listeners)}")
    elif op == "accept":
        accept.clear()
        accept.update(order["listeners"])
    elif op == "drain":
        return not os.path.exists(base + "/stay")
    return False


sys.exit(main())
