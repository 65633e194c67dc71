"""Start of a manager: INTERPRETER .../webserver/manager/__main__.py --control N, as the group's user already."""

import io
import os
import signal
import sys
from typing import Any


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] != "--control":
        sys.stderr.write("usage: the supervisor starts managers; see webserverd(8)\n")
        return 2
    # Where this file is: Python puts it there unless -I or PYTHONSAFEPATH forbids it. Nobody looks among our modules.
    if sys.path and sys.path[0] == os.path.dirname(__file__):
        del sys.path[0]
    # A handler and not SIG_IGN, which programs that an application runs would inherit.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGWINCH):
        signal.signal(number, _pass_over)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    # Our own package is on the path for these imports only: an application's `import tests` must not find ours.
    tree = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path.insert(0, tree)
    from webserver.manager.server import Manager
    from webserver.wire.control import Control

    sys.path.remove(tree)
    # Nor does our package's name stand in the way of an application's `webserver`. What has been imported stays.
    for name in [name for name in sys.modules if name.partition(".")[0] == "webserver"]:
        del sys.modules[name]

    # What an application prints goes to the log as it is printed, not when the interpreter ends.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    control = Control.from_descriptor(int(sys.argv[2]))
    # The packet is read with descriptors; nobody else has this socket yet.
    received = control.receive()
    if received is None:
        return 1
    message, _ = received
    return Manager(control, message["record"]).run()


def _pass_over(number: int, frame: Any) -> None:
    """What comes from a terminal or a service manager is the supervisor's business."""


if __name__ == "__main__":
    sys.exit(main())
