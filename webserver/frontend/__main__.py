"""Start of a front end: PYTHON -I .../webserver/frontend --control N. Its record comes on the control connection."""

from __future__ import annotations

import faulthandler
import signal
import sys
from pathlib import Path


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] != "--control":
        sys.stderr.write("usage: the supervisor starts front ends; see webserverd(8)\n")
        return 2
    # A terminal's Ctrl-C and a service manager's signals are the supervisor's business.
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGWINCH, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    # The supervisor asks a front end that hangs for its stack before it kills it.
    faulthandler.register(signal.SIGUSR2, all_threads=True)

    from webserver.frontend.server import FrontEnd
    from webserver.wire.control import Control
    from webserver.wire.title import set_title

    control = Control.from_descriptor(int(sys.argv[2]))
    received = control.receive()
    if received is None:
        return 1
    message, fds = received
    control.blocking = False
    record = message["record"]
    set_title(f"webserver: front end {record['ordinal']}")
    FrontEnd(control, record, fds).run()
    return 0


if __name__ == "__main__":
    # The supervisor names this file, not a module, so that nothing is looked for in the current directory.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
    sys.exit(main())
