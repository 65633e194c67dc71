"""Start of the logger: PYTHON -I .../webserver/logger/__main__.py --control N, as the user that owns the logs."""

from __future__ import annotations

import os
import signal
import sys

# TERM is the supervisor's death; all others are the supervisor's business.
IGNORED = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] != "--control":
        sys.stderr.write("usage: the supervisor starts the logger; see webserverd(8)\n")
        return 2
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)

    from webserver.logger.server import Logger
    from webserver.wire.control import Control
    from webserver.wire.title import set_title

    set_title("webserver: logger")
    return Logger(Control.from_descriptor(int(sys.argv[2]), blocking=False)).run()


if __name__ == "__main__":
    # Started by its path and with -I, so that nothing is looked for in the current directory.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    sys.exit(main())
