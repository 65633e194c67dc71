"""Who the group's processes are, what they are allowed, and whether there is a way to more."""

import ctypes
import errno
import os
import resource
import socket
from typing import Any, Dict, Iterator, List

from webserver.audit.tries import NOTE, OK, REACHABLE, Row, apart, compared, row

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_GET_SECUREBITS, _CLONE_NEWNS, _CLONE_NEWUSER = 27, 0x00020000, 0x10000000
_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def rights(record: Dict[str, Any]) -> Iterator[Row]:
    yield from _identity(record["expected"])
    yield from _walls(record["expected"])
    yield from _ways_up(record["expected"])


def _call(name: str, *words: object) -> int:
    result = int(getattr(_LIBC, name)(*words))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _status() -> Dict[str, str]:
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        return dict(line.rstrip("\n").partition(":\t")[::2] for line in lines)


def _identity(expected: Dict[str, Any]) -> Iterator[Row]:
    status = _status()
    yield compared("identity", "user ids", [expected["uid"]] * 4, [int(word) for word in status["Uid"].split()])
    yield compared("identity", "group ids", [expected["gid"]] * 4, [int(word) for word in status["Gid"].split()])
    yield compared("identity", "supplementary groups", sorted(expected["groups"]), sorted(os.getgroups()))
    yield compared("identity", "no_new_privs", int(expected["no_new_privs"]), int(status["NoNewPrivs"]))
    for name in _SETS:
        if name in expected["capabilities"]:
            yield compared("capabilities", name, expected["capabilities"][name], status[name])
    if expected["securebits"] is not None:
        bits = _call("prctl", _PR_GET_SECUREBITS, 0, 0, 0, 0)
        yield compared("capabilities", "securebits", "%#x" % expected["securebits"], "%#x" % bits)
    before = os.umask(0o077)
    os.umask(before)
    yield compared("limits", "umask", "%03o" % expected["umask"], "%03o" % before)
    if expected["nice"] is not None:
        yield compared("limits", "nice", expected["nice"], os.getpriority(os.PRIO_PROCESS, 0))
    for name, number, soft, hard in expected["limits"]:
        yield compared("limits", name, [soft, hard], list(resource.getrlimit(number)))
    # 0 to 2, the connection to the supervisor, and the one by which this is read.
    yield compared("identity", "descriptors", [0, 1, 2, 3], sorted(_descriptors()))


def _descriptors() -> List[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue
        found.append(int(name))
    return found


def _walls(expected: Dict[str, Any]) -> Iterator[Row]:
    """Each is (what, its mark outside, its mark here, whether they must differ)."""
    for name, outside in sorted(expected["namespaces"].items()):
        inside = os.readlink("/proc/self/ns/" + name)
        yield _wall("namespace " + name, outside, inside, name in expected["own_namespaces"])
    for path, outside in sorted(expected["temporary"].items()):
        yield _wall(path, outside, os.stat(path).st_dev, expected["private_tmp"])
    found = os.stat("/")
    yield _wall("root directory", expected["root"], [found.st_dev, found.st_ino], expected["chroot"])
    if expected["cgroup"]:
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as lines:
            own = [line[3:].rstrip("\n") for line in lines if line.startswith("0::")]
        yield compared("walls", "cgroup", [expected["cgroup"]], [os.path.basename(path) for path in own])


def _wall(what: str, outside: object, inside: object, own: bool) -> Row:
    if own:
        return Row("walls", what, "compared with the server's", *(
            ("its own", OK) if inside != outside else ("the server's, expected its own", REACHABLE)))  # fmt: skip
    return Row("walls", what, "compared with the server's", *(
        ("the server's", OK) if inside == outside else ("another than the server's", NOTE)))  # fmt: skip


def _ways_up(expected: Dict[str, Any]) -> Iterator[Row]:
    kept = expected["kept"]
    ids = (
        ("setuid(0)", apart(lambda: os.setuid(0))),
        ("seteuid(0)", apart(lambda: os.seteuid(0))),
        ("setresuid(0)", apart(lambda: os.setresuid(0, 0, 0))),
        ("setgid(0)", apart(lambda: os.setgid(0))),
        ("setegid(0)", apart(lambda: os.setegid(0))),
        ("setgroups(0)", apart(lambda: os.setgroups([0]))),
        ("setgroups()", apart(lambda: os.setgroups([]))),
    )
    yield row("ways up", "becoming somebody else", ids)
    kernel = (
        ("all capabilities", apart(_all_capabilities)),
        ("chroot", apart(lambda: os.chroot("/"))),
        ("mount", apart(lambda: _call("mount", b"none", b"/", None, ctypes.c_ulong(1 << 18), None))),
        ("a mount namespace", apart(lambda: _call("unshare", _CLONE_NEWNS))),
        ("a higher hard limit", apart(_raise_limit)),
    )
    yield row("ways up", "changing the machine", kernel)
    user_namespace = [("a user namespace", apart(lambda: _call("unshare", _CLONE_NEWUSER)))]
    yield row("ways up", "namespaces of one's own user", user_namespace,
              "the kernel gives them to every user (user.max_user_namespaces)")  # fmt: skip
    lower = os.getpriority(os.PRIO_PROCESS, 0) - 1
    nicer = [("a lower nice value", apart(lambda: os.setpriority(os.PRIO_PROCESS, 0, lower)))]
    yield row("ways up", "priority", nicer, "sys_nice is kept" if "sys_nice" in kept else "")
    raw = (
        ("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()),
        ("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()),
    )
    yield row("network", "raw sockets", raw, "net_raw is kept" if "net_raw" in kept else "")
    yield _low_port(kept)
    if not expected["no_new_privs"]:
        yield Row("ways up", "setuid programs", "-", "possible: no_new_privs = no", NOTE)


def _all_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)(*[0xFFFFFFFF, 0xFFFFFFFF, 0, 0x1FF, 0x1FF, 0])
    _call("capset", header, sets)


def _raise_limit() -> None:
    for number in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC, resource.RLIMIT_MEMLOCK):
        soft, hard = resource.getrlimit(number)
        if hard == resource.RLIM_INFINITY:
            continue
        try:
            resource.setrlimit(number, (soft, hard + 1))
        except ValueError:
            raise PermissionError(1, "not allowed to raise it") from None
        return
    raise PermissionError(1, "there is none")


def _low_port(kept: List[str]) -> Row:
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as stream:
            lowest = int(stream.read())
    except (OSError, ValueError):
        lowest = 1024
    if lowest <= 1:
        return Row("network", "ports below 1024", "-", "possible: the machine gives them to every user", NOTE)

    def bind() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            try:
                sock.bind(("127.0.0.1", lowest - 1))
            except OSError as error:
                # If somebody else has it, that is not what would keep us from it.
                if error.errno != errno.EADDRINUSE:
                    raise

    return row("network", "ports below %d" % lowest, [("listen", bind)],
               "net_bind_service is kept" if "net_bind_service" in kept else "")  # fmt: skip
