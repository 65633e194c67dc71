"""From a process record to a process: fork, confine, exec.

What goes wrong before exec comes back on a close-on-exec pipe as "step, errno, text"; end of file without a word means
that exec has happened. The supervisor reads that pipe from its loop and never waits for it: an interpreter on a file
system that hangs must not hang the supervisor.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from webserver.config.trusted import Untrusted
from webserver.supervisor import kernel
from webserver.supervisor.confine import STEPS
from webserver.supervisor.process import Plan, ProcessRecord
from webserver.supervisor.rights import SETPCAP, NotConfined

Steps = Sequence[tuple[str, Callable[[Plan], None]]]

EXIT_NOT_CONFINED = 127
REPORT_LIMIT = 4096  # bytes; below PIPE_BUF, so one write is one report


@dataclass(frozen=True)
class Spawned:
    pid: int
    report: int  # read end, non-blocking, the caller's: see `read_report`


@dataclass(frozen=True)
class Refusal:
    """A step between fork and exec failed; the process has ended or is about to."""

    step: str
    number: int  # errno, or 0
    text: str

    def __str__(self) -> str:
        return f"{self.step}: {self.text}"


def spawn(record: ProcessRecord, steps: Steps = STEPS) -> Spawned:
    """Start a process. Raises OSError if not even fork worked; what fails later is told by the report."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    everything = signal.valid_signals()
    # A signal in the child before its handlers are reset would be told to the parent, which shares the wake-up pipe.
    before = signal.pthread_sigmask(signal.SIG_SETMASK, everything)
    try:
        plan = planned(record)
        pid = os.fork()
        if pid == 0:
            _child(plan, writer, steps)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.set_blocking(reader, False)
    return Spawned(pid, reader)


def planned(record: ProcessRecord) -> Plan:
    change = record.identity.is_change
    able = bool(kernel.capabilities()[0] >> SETPCAP & 1)
    # A root without CAP_SETPCAP, as in some containers, cannot lock anything. With no_new_privs that gives nothing
    # away: no exec adds to the sets, which are empty or what was asked for.
    return Plan(record, os.getpid(), change, locks=change and able and record.no_new_privs)


def read_report(reader: int) -> Refusal | bool:
    """What a new process says of itself: a Refusal, True once exec has happened, False while nothing is known."""
    try:
        data = os.read(reader, REPORT_LIMIT)
    except BlockingIOError:
        return False
    if not data:
        return True
    step, _, rest = data.decode("utf-8", "replace").partition("\0")
    number, _, text = rest.partition("\0")
    return Refusal(step, int(number) if number.isdigit() else 0, text)


def _child(plan: Plan, writer: int, steps: Steps) -> NoReturn:
    """Never returns, whatever happens: above is the supervisor's own loop."""
    step = "descriptors"
    try:
        writer = _arrange(plan.record, writer)
        _default_signals()
        for name, function in steps:
            step = name
            function(plan)
        step, number, text = "exec", 0, "exec came back"
    except BaseException as error:
        number = getattr(error, "errno", None) or 0
        text = os.strerror(number) if number else _told(error)
        if step == "exec":
            inside = f" inside chroot {plan.record.jail}" if plan.record.jail else ""
            text = f"{plan.record.argv[0]}{inside}: {text}" + _advice(plan, number)
    try:
        os.write(writer, f"{step}\0{number}\0{text}".encode("utf-8", "replace")[:REPORT_LIMIT])
    finally:
        os._exit(EXIT_NOT_CONFINED)


def _told(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "no memory; limit_as may be too small"
    return str(error) if isinstance(error, (NotConfined, Untrusted)) else f"{type(error).__name__}: {error}"


def _advice(plan: Plan, number: int) -> str:
    """What the kernel means by an error of exec that can only be understood by who knows the record."""
    if number == errno.EAGAIN:
        return "; user " + plan.record.identity.user + " has as many processes as limit_nproc allows already"
    if number == errno.ENOENT and plan.record.jail:
        return "; the interpreter and the libraries that it is linked to must be inside"
    return ""


def _arrange(record: ProcessRecord, writer: int) -> int:
    """Put the descriptors where the record wants them, close all others; returns where the report's pipe is now."""
    # First all out of the way, then into place: a target may be another's source.
    base = max([2, *record.descriptors]) + 1
    moved = {target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, base) for target, source in record.descriptors.items()}
    report = fcntl.fcntl(writer, fcntl.F_DUPFD_CLOEXEC, base)
    for target, source in moved.items():
        os.dup2(source, target, inheritable=True)
    keep = sorted({report, *record.descriptors})
    low = 0
    for number in keep:
        if low < number:  # closerange(0, 0) would close everything
            os.closerange(low, number)
        low = number + 1
    os.closerange(low, 0x7FFFFFFF)
    return report


def _default_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        # PIPE and XFSZ, which the interpreter ignores, too. Real-time signals were never touched.
        if number not in (signal.SIGKILL, signal.SIGSTOP) and number < signal.SIGRTMIN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def package_file(*parts: str) -> str:
    """The absolute path of a file of this package."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), *parts)


def python() -> str:
    """The interpreter that runs us; in a virtual environment, that environment's."""
    return os.path.abspath(sys.executable)
