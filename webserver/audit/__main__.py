"""Start of an audit: INTERPRETER .../webserver/audit/__main__.py --control N, as the group's user already."""

import os
import sys


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] != "--control":
        sys.stderr.write("usage: the supervisor starts audits; see webserverctl(8)\n")
        return 2
    if sys.path and sys.path[0] == os.path.dirname(__file__):
        del sys.path[0]
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from webserver.audit.places import places
    from webserver.audit.processes import processes
    from webserver.audit.rights import rights
    from webserver.wire.control import Control

    control = Control.from_descriptor(int(sys.argv[2]))
    received = control.receive()
    if received is None:
        return 1
    record = received[0]["record"]
    for rows in (rights(record), processes(record), places(record)):
        for row in rows:
            control.send({"op": "row", "row": row._asdict()})
    control.send({"op": "done"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
