"""The groups of limits and rights that a group's processes can have: their names, and how each is written in a file.

Names of limits are those of setrlimit(2) and ulimit, of capabilities those of capabilities(7) without CAP_.
"""

from __future__ import annotations

from collections.abc import Callable

from webserver.config import units
from webserver.config.model import INHERITED, UNLIMITED, Limit

TEMPORARY = ("/tmp", "/var/tmp")  # what private_tmp makes a group's own
LIMITS = ("nofile", "nproc", "core", "as", "fsize", "stack", "memlock")  # limit_NAME

# By number, so the order is the kernel's.
CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip
# What a group may keep. Each of the others is a way back to root, into another group or past its own limits.
KEEPABLE = (
    "net_bind_service", "net_broadcast", "net_raw", "ipc_lock", "sys_nice", "sys_time", "lease", "audit_write",
    "wake_alarm", "block_suspend",
)  # fmt: skip

_WORDS = {"unlimited": UNLIMITED, "infinity": UNLIMITED}


def limit(number: Callable[[str], int]) -> Callable[[str, str], Limit]:
    """A reader of "N", "SOFT:HARD" and "inherited", whose numbers are read by `number`."""

    def one(text: str) -> int:
        word = text.strip().lower()
        value = _WORDS[word] if word in _WORDS else number(word)
        if value < 0 and word not in _WORDS:
            raise ValueError(text)
        return value

    def read(text: str, base: str) -> Limit:
        if text.lower() == "inherited":
            return Limit(INHERITED, INHERITED)
        soft, colon, hard = text.partition(":")
        found = Limit(one(soft), one(hard if colon else soft))
        if found.hard != UNLIMITED and (found.soft == UNLIMITED or found.soft > found.hard):
            raise ValueError("the soft limit, before the colon, is above the hard one")
        return found

    return read


def limit_text(number: Callable[[int], str]) -> Callable[[Limit], str]:
    def one(value: int) -> str:
        return "unlimited" if value == UNLIMITED else number(value)

    def write(value: Limit) -> str:
        if value.soft == INHERITED:
            return "inherited"
        return one(value.soft) if value.soft == value.hard else f"{one(value.soft)}:{one(value.hard)}"

    return write


def capability(text: str, base: str) -> str:
    name = text.lower().removeprefix("cap_")
    if name not in CAPABILITIES:
        raise ValueError(text)
    return name


def size_or_no(text: str) -> int:
    return 0 if text.lower() in ("no", "off", "false") else units.size(text)


def size_or_no_text(value: int) -> str:
    return units.size_text(value) if value else "no"


def whole_or_unlimited(text: str) -> int:
    return units.UNLIMITED if text.lower() == "unlimited" else units.whole(text)


def whole_or_unlimited_text(value: int) -> str:
    return "unlimited" if value == units.UNLIMITED else str(value)
