"""Start of the logger: PYTHON -I .../webserver/logger/__main__.py --control N."""

from __future__ import annotations

import signal
import sys
from pathlib import Path


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] != "--control":
        sys.stderr.write("usage: the supervisor starts the logger; see webserverd(8)\n")
        return 2
    # A terminal's Ctrl-C and a service manager's signals are the supervisor's business.
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGWINCH, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)

    from webserver.logger.outputs import OutputError
    from webserver.logger.server import Logger
    from webserver.wire.control import Control
    from webserver.wire.title import set_title

    set_title("webserver: logger")
    control = Control.from_descriptor(int(sys.argv[2]))
    received = control.receive()
    if received is None:
        return 1
    control.blocking = False
    try:
        logger = Logger(control, received[0]["record"])
    except OutputError as error:
        control.send({"op": "failed", "message": str(error)})
        return 1
    control.send({"op": "ready"})
    return logger.run()


if __name__ == "__main__":
    # Started by its path and with -I, so that nothing is looked for in the current directory.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
    sys.exit(main())
