"""The option table: every option once, with its section, kind, range, default and one sentence.

Reader, checker, -T and the manual pages work from these rows; model.py's names and types are held to them by a test.
A row's order is the order of the manual pages, and of working out defaults: a computed default may use the values of
rows above it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from webserver.config import kinds, languages, limits, units
from webserver.config.kinds import Kind
from webserver.config.machine import Machine

FRONTENDS = 32  # WIRE_FRONTENDS
SLOTS = 256  # WIRE_SLOTS, of one worker
FIELDS = 1000  # WIRE_FIELDS
MIME_TYPES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mime.types")


@dataclass(frozen=True)
class Context:
    """What a computed default may look at."""

    machine: Machine
    base: str  # directory of the file that holds the section
    values: dict[str, Any]  # of the section, as far as they are known


@dataclass(frozen=True)
class Computed:
    """A default that depends on something. `text` gives it as it would be written in a file; "" is unset."""

    sentence: str  # in the manual pages
    text: Callable[[Context], str]


@dataclass(frozen=True)
class Option:
    section: str  # server, logs, group, companion, site
    name: str
    kind: Kind
    help: str
    default: str | Computed | None = ""  # as it would be written; "": unset; None: must be given
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    opened_by: str = ""  # an option; where it is given, this one takes more than its choices
    many: bool = False
    repeats: bool = False  # an item may be given twice
    root: str = ""  # how running as root, or not, matters
    may_be_zero: bool = False  # 0 or its word stands for "none" though least is above it


def _run(context: Context) -> str:
    return "/run/webserver" if context.machine.root else "run"


def _open_files(context: Context) -> str:
    return str(min(65536, context.machine.open_files()))


def _connections(context: Context) -> str:
    return str(max(1, min(20000, most_connections(context.values["open_files"]))))


def most_connections(open_files: int) -> int:
    """A quarter of the descriptors is kept for files that are being sent, spool files, groups and logs."""
    return open_files - open_files // 4


def _user_group(context: Context) -> str:
    machine = context.machine
    user = machine.user(context.values["user"]) if context.values["user"] else None
    return machine.group_name(user.gid) if user and machine.root else ""


def _directory(context: Context) -> str:
    application: str = context.values["application"]
    if languages.find(context.values["language"]).plain:
        return "/"
    return application.rpartition("/")[0] or "/" if application.startswith("/") else "/"


def _plugin(context: Context) -> str:
    return languages.plugin(context.values["language"])


def _threads(context: Context) -> str:
    return "64" if context.values["interface"] == "asgi" else "1"


def _drain(context: Context) -> str:
    limit: float = context.values["request_timeout"]
    return units.seconds_text(limit + 30) if limit else "1h"


def _processes(context: Context) -> str:
    return str(context.values["processes"])


def _restart(context: Context) -> str:
    if context.values["every"] or context.values["at"]:
        return "never"
    return "failure" if context.values["ready"] == "finished" else "always"


_LIMITS = (
    ("nofile", kinds.COUNT_LIMIT, "Open files of each process", "RLIMIT_NOFILE; by default what the server was started"
     " with"),
    ("nproc", kinds.COUNT_LIMIT, "Processes and threads of the user, in all groups and sessions", "RLIMIT_NPROC"),
    ("core", kinds.SIZE_LIMIT, "Size of a core file", "RLIMIT_CORE"),
    ("as", kinds.SIZE_LIMIT, "Address space of each process", "RLIMIT_AS"),
    ("fsize", kinds.SIZE_LIMIT, "Size of a file that is written", "RLIMIT_FSIZE"),
    ("stack", kinds.SIZE_LIMIT, "Stack of each process's first thread", "RLIMIT_STACK"),
    ("memlock", kinds.SIZE_LIMIT, "Memory that each process may lock", "RLIMIT_MEMLOCK"),
)  # fmt: skip
_PRIMARY = Computed("the user's own", _user_group)


def _confined(section: str) -> tuple[Option, ...]:
    """As whom the processes of a group or a companion run, and what they may do."""
    its, own, who = {
        "group": ("the group's processes", "the application", "the group"),
        "companion": ("the program", "the program", "each instance of the companion"),
    }[section]
    whole = "a generation of the group" if section == "group" else who
    run, are = ("run", "are") if section == "group" else ("runs", "is")
    upper = who[0].upper() + who[1:]
    return (
        Option(section, "user", kinds.USER, f"The user that {its} {run} as.",
               root="Required when started as root, and never one with user id 0; without root only one's own name is"
               " possible."),
        Option(section, "group", kinds.USER_GROUP, f"The user group that {its} {run} as.", _PRIMARY,
               root="Has no meaning without root but for one's own."),
        Option(section, "groups", kinds.USER_GROUP, f"Further user groups that {its} {are} in. Its own group alone,"
               " given here, stands for none.",
               Computed("those that the user is a member of", lambda context: ""), many=True, root="Needs root."),
        Option(section, "umask", kinds.MODE, f"Permissions that files made by {own} do not get.", "022", 0, 0o777),
        Option(section, "no_new_privs", kinds.SWITCH, f"Programs that {own} runs gain no privileges; a mailer that is"
               " setuid or setgid needs no.", "yes"),
        Option(section, "capabilities", kinds.CAPABILITY, f"What {its}, and what is run by {own}, may do of what is"
               " root's: any of " + ", ".join(limits.KEEPABLE) + ".", many=True,
               root="Needs root, and no_new_privs = yes."),
        Option(section, "nice", kinds.WHOLE, f"Nice value of {its}: the higher, the less of a busy processor; 0 is the"
               " server's own.", "0", -20, 19, root="A lower one than the server's needs root."),
        *(Option(section, f"limit_{name}", kind, f"{what} ({source}).", "inherited",
                 root="Hard limits are raised by root alone.")
          for name, kind, what, source in _LIMITS),
        Option(section, "private_tmp", kinds.SIZE_OR_NO, f"{upper} has a /tmp and a /var/tmp that nobody else sees, in"
               " memory, each of at most this size; they begin empty with each start and restart.", "no", 65536,
               1 << 44, root="Needs root.", may_be_zero=True),
        Option(section, "namespaces", kinds.CHOICE, f"What {who} has for itself: ipc (System V memory, semaphores and"
               " queues, POSIX queues), uts (the host's name), net (no network at all but a loopback of its own; also"
               " no abstract unix sockets of others).", many=True, choices=("ipc", "uts", "net"), root="Needs root."),
        Option(section, "chroot", kinds.PATH, f"Directory that is / for {its}; other paths are those below it. What"
               " must be there: see Privileges.", root="Needs root."),
        Option(section, "memory_max", kinds.SIZE_OR_UNLIMITED, f"Memory that all processes of {whole} use together;"
               " above it they wait for memory to be written out, and then one is killed.", "unlimited", 1 << 20),
        Option(section, "cpu_weight", kinds.WHOLE, f"The share of a busy machine's processors that {who} has, where"
               " others have 100.", "100", 1, 10000),
        Option(section, "pids_max", kinds.WHOLE_OR_UNLIMITED, f"Processes and threads that {whole} has at most.",
               "unlimited", 1),
        Option(section, "environment_file", kinds.PATH, "File of NAME=value lines that are added to the environment. It"
               " may hold secrets: it is read before privileges are given up, must belong to the user who starts the"
               " server, and nobody else may read it."),
    )  # fmt: skip


OPTIONS = (
    # server: addresses and processes
    Option("server", "listen", kinds.LISTEN, "Where to accept connections.", "127.0.0.1:8080", many=True,
           root="Ports below 1024 need root or CAP_NET_BIND_SERVICE."),
    Option("server", "frontends", kinds.WHOLE, "Number of front-end processes.",
           Computed("one for each processor", lambda context: str(min(FRONTENDS, context.machine.cores()))),
           1, FRONTENDS),
    Option("server", "user", kinds.USER, "The user that front ends and the logger run as.",
           root="Required when started as root, and not root itself; without root only one's own name is possible."),
    Option("server", "group", kinds.USER_GROUP, "The user group that front ends and the logger run as.", _PRIMARY,
           root="Has no meaning without root but for one's own."),
    Option("server", "run", kinds.PATH,
           "Directory for the control socket, the process id and the sockets between front ends and workers;"
           " each running server needs one of its own. It is made if it is missing; its parent must be there.",
           Computed('"/run/webserver" as root, else "run"', _run)),
    Option("server", "include", kinds.PATTERN,
           "More files to read, in the order of their names; a pattern with * or ? may match none. It may also stand"
           " before the first section.", many=True),
    # server: limits
    Option("server", "open_files", kinds.WHOLE, "Limit of open files for each front end.",
           Computed("65536, or what the machine allows if that is less", _open_files), 256, 1 << 20,
           root="Without root at most the hard limit (ulimit -Hn)."),
    Option("server", "connections", kinds.WHOLE,
           "Client connections that one front end holds at most; three quarters of open_files is the highest value.",
           Computed("20000, or three quarters of open_files if that is less", _connections), 1, 1 << 20),
    Option("server", "head_timeout", kinds.TIME, "A request's head must have arrived this long after its first byte,"
           " and a new connection's first request this long after it was opened.", "20s", 0.1, 3600),
    Option("server", "body_timeout", kinds.TIME, "Longest wait for the next part of a request's body.", "60s",
           0.1, 3600),
    Option("server", "idle_timeout", kinds.TIME, "A connection is kept this long for a next request.", "75s",
           0.1, 3600),
    Option("server", "send_timeout", kinds.TIME, "A client that takes nothing of its answer for this long is"
           " disconnected.", "60s", 0.1, 3600),
    Option("server", "tunnel_timeout", kinds.TIME_OR_NONE, "A connection that an application has upgraded (to"
           " WebSocket, say) is cut when nothing has come through it for this long, in either direction.", "1h",
           0.1, 86400 * 30, may_be_zero=True),
    Option("server", "tunnel_grace", kinds.TIME_OR_NONE, "When the server ends, or a group is restarted, upgraded"
           " connections may go on for this long. Then the application is told that the client has ended, and two"
           " seconds later what is still open is cut. With none it is waited for.", "5s", 0.1, 86400,
           may_be_zero=True),
    Option("server", "shutdown_timeout", kinds.TIME, "When the server ends, or is upgraded, the requests that it has"
           " may go on for this long. What is left then is cut off.", "10m", 0.1, 86400 * 7),
    Option("server", "max_head", kinds.SIZE, "Largest request line and fields together.", "32k", 1024, 65536),
    Option("server", "max_line", kinds.SIZE, "Longest request target, and longest single field; no more than max_head.",
           "16k", 512, 65536),
    Option("server", "max_fields", kinds.WHOLE, "Largest number of fields in a request.", "100", 10, FIELDS),
    Option("server", "spool", kinds.PATH, "Directory for answers that are faster than their client, and for gathered"
           " bodies; the files in it have no name and vanish with their request.", "/var/tmp"),
    Option("server", "spool_memory", kinds.SIZE, "This much of an answer is kept in memory for a client that is slower"
           " than its worker. One that does not take as much in a tenth of a second has the rest kept in a file, so"
           " that the worker is free; for a faster one the worker waits.",
           "1m", 65536, 1 << 30),
    Option("server", "spool_limit", kinds.SIZE, "This much of an answer is kept in its file before the worker has to"
           " wait for the client; a body that a route gathers may be as large.", "1g", 0, 1 << 44),
    Option("server", "mime_types", kinds.PATH, "File of media types: a type and the file name extensions it belongs to"
           " on each line.", Computed("the table that comes with the server", lambda context: MIME_TYPES)),
    # logs
    Option("logs", "error_log", kinds.ERROR_LOG, 'File for errors and everything that applications report; "stderr" is'
           " the standard error of webserverd.", "stderr"),
    Option("logs", "access_log", kinds.ACCESS_LOG, 'File with one line for each request; "stdout" is the standard'
           ' output of webserverd, "off" writes none.', "off"),
    Option("logs", "access_format", kinds.CHOICE, "Form of the lines in access_log.", "combined",
           choices=("combined", "json")),
    # group: what it runs
    Option("group", "language", kinds.LANGUAGE, "The language of the application; any other word where plugin is"
           " given.", None, choices=tuple(languages.LANGUAGES), opened_by="plugin"),
    Option("group", "application", kinds.APPLICATION, "The file to run, or module:callable for Python; without it the"
           " requested file below the site's root is run."),
    Option("group", "interface", kinds.CHOICE, "How Python applications are called: wsgi, one at a time in each thread;"
           " or asgi, all of a worker's requests at a time in an event loop, WebSocket included.", "wsgi",
           choices=("wsgi", "asgi")),
    Option("group", "directory", kinds.PATH, "Working directory of the workers.",
           Computed('the directory of the application\'s file, else "/"', _directory)),
    Option("group", "preload", kinds.PRELOAD, "Modules or files that are loaded once, before workers are forked; what"
           " has a / or a script's extension is a file, and the value of application is the application itself.",
           many=True),
    Option("group", "python_path", kinds.PATH, "Directories where Python looks for modules first.", many=True),
    Option("group", "perl_path", kinds.PATH, "Directories where Perl looks for modules first.", many=True),
    Option("group", "arguments", kinds.TEXT, "Arguments that the application sees as its command line.", many=True,
           repeats=True),
    # group: a program that is an HTTP server itself
    Option("group", "listens_on", kinds.CHOICE, "What a program of language exec listens on: a unix socket that it"
           " makes where it is told to, a listening socket that it inherits as a descriptor, or a port of 127.0.0.1,"
           " where other users of the machine reach it too.", "socket", choices=("socket", "descriptor", "port")),
    Option("group", "strip_prefix", kinds.SWITCH, "Whether a program of language exec sees paths without the pattern of"
           " the route that chose the group.", "no"),
    Option("group", "forwarded", kinds.CHOICE, "What a program of language exec is told of where a request comes from:"
           " only what this server knows, or that added to what the request says, for a server behind a proxy of one's"
           " own.", "overwrite", choices=("overwrite", "append")),
    Option("group", "keepalive", kinds.SWITCH, "Connections to a program of language exec are kept for the next"
           " request; one that serves a single connection at a time needs no, or threads = 1.", "yes"),
    Option("group", "continue_timeout", kinds.TIME_OR_NONE, "A client that waits to be asked for its body is asked when"
           " a program of language exec does so, or after this time if it says nothing.", "5s", 0.1, 3600,
           may_be_zero=True),
    Option("group", "stop_timeout", kinds.TIME_OR_NONE, "A program of language exec that has been asked to end is"
           " killed after this time.", "30s", 0.1, 86400, may_be_zero=True),
    Option("group", "interpreter", kinds.PATH, "Python program that the group's processes are started with, 3.9 or"
           " newer; a virtual environment's bin/python makes its packages available.", "/usr/bin/python3"),
    Option("group", "plugin", kinds.PATH, "The language's plugin; where one for the interpreter's version lies beside"
           " it, as python3.12.so beside python.so, that one is taken.",
           Computed("the one that comes with the server", _plugin)),
    # group: as whom
    *_confined("group"),
    Option("group", "websocket_message", kinds.SIZE, "Largest WebSocket message that an ASGI application gets; a client"
           " that sends a larger one is disconnected with code 1009.", "16m", 1, 1 << 30),
    Option("group", "websocket_ping", kinds.TIME_OR_NONE, "A WebSocket's client is pinged this often, and disconnected"
           " if it has not answered when the next ping is due.", "20s", 0.1, 86400, may_be_zero=True),
    # group: how many, how long
    Option("group", "processes", kinds.WHOLE, "Number of workers, at most.", "2", 1, 256),
    Option("group", "processes_min", kinds.WHOLE, "Number of workers that are there when nothing is to be done; with 0"
           " the first request waits for the first worker's start.", Computed("the same as processes", _processes),
           0, 256),
    Option("group", "spare", kinds.WHOLE, "Number of workers, between processes_min and processes, that are to be free"
           " beside those that the running requests need.", "0", 0, 256),
    Option("group", "idle_after", kinds.TIME, "A worker above processes_min that has run nothing for this long ends.",
           "1m", 0.1, 86400),
    Option("group", "max_requests", kinds.WHOLE, "A worker is replaced when it has run this many requests, or up to a"
           " tenth fewer, so that not all go at once; 0 is never.", "0", 0, 1 << 40),
    Option("group", "max_age", kinds.TIME_OR_NONE, "A worker is replaced when it has run for this long, or up to a"
           " tenth less.", "none", 1, 86400 * 365, may_be_zero=True),
    Option("group", "max_cpu", kinds.TIME_OR_NONE, "A worker is replaced when it has used this much processor time.",
           "none", 1, 86400 * 365, may_be_zero=True),
    Option("group", "soft_memory", kinds.SIZE_OR_NONE, "A worker that has more private memory than this, what is"
           " swapped out included, is replaced, and finishes its requests.", "none", 1 << 20, 1 << 44,
           may_be_zero=True),
    Option("group", "hard_memory", kinds.SIZE_OR_NONE, "A worker that has more private memory than this is killed: its"
           " requests are answered with 502.", "none", 1 << 20, 1 << 44, may_be_zero=True),
    Option("group", "threads", kinds.WHOLE, "Requests that one worker runs at a time; with interface = asgi all of"
           " them, and the WebSockets, are in one thread.",
           Computed("1; with interface = asgi 64", _threads), 1, SLOTS),
    Option("group", "start_timeout", kinds.TIME, "A worker must have loaded its application in this time.", "60s",
           1, 3600),
    Option("group", "after", kinds.COMPANION, "Companions that must be ready before the group is started.", many=True),
    Option("group", "request_timeout", kinds.TIME_OR_NONE, "A request that has not been answered in this time gets 504,"
           " or is cut off if its answer has begun. If it still runs then, its stack goes to the error log, and its"
           " worker is replaced within a second.", "5m", 0.1, 86400, may_be_zero=True),
    Option("group", "slow_request", kinds.TIME_OR_NONE, "The stack of a request that runs for longer than this goes to"
           " the error log, once, with its line and id; the request goes on.", "none", 0.1, 86400, may_be_zero=True),
    Option("group", "drain_timeout", kinds.TIME, "A worker that is to go, as its group is restarted, reloaded or"
           " removed, may finish its requests for this long. What is left then ends with it.",
           Computed("30s more than request_timeout; 1h where that is none", _drain), 0.1, 86400 * 7),
    Option("group", "restart_extra", kinds.WHOLE_OR_ALL, "Workers that a restart has above processes at most: so many"
           " new ones are started and proven at a time before as many old ones go. More is faster and takes the memory"
           " of more; with all, each new one is proven before an old one goes.", "1", 1, 256, may_be_zero=True),
    Option("group", "touch", kinds.PATH, "Files whose change restarts the group, as webserverctl restart does. They"
           " need not be there.", many=True),
    Option("group", "watch", kinds.SWITCH, "Whether a change of a file that the application has loaded restarts the"
           " group.", "no"),
    Option("group", "quarantine", kinds.WHOLE, "A request, by site, method and target, that was running in so many"
           " workers in a row when they died, all within a minute, is not run for a minute and answered with 503; with"
           " 0 never.", "3", 0, 1000),
    Option("group", "queue_length", kinds.WHOLE, "Requests that wait for a worker at most, in each front end; one more"
           " is answered with 503. Each site has its turn; once somebody has waited for a second, or a quarter of"
           " queue_timeout, the newest come first, and who has waited longest is refused.", "1000", 0, 1000000),
    Option("group", "queue_timeout", kinds.TIME, "A request that has waited this long for a worker is answered with"
           " 503.", "30s", 0.01, 3600),
    # companion: what it runs, as whom
    Option("companion", "command", kinds.TEXT, "The program and its arguments, one by one, as it gets them: no shell"
           " reads them. In an argument {instance} stands for the number of the instance. The program must stay in the"
           " foreground.", None, many=True, repeats=True),
    Option("companion", "directory", kinds.PATH, "Working directory of the program.", "/"),
    *_confined("companion"),
    Option("companion", "instances", kinds.WHOLE, "How many of it run at a time.", "1", 1, 256),
    # companion: when
    Option("companion", "after", kinds.COMPANION, "Companions that must be ready before this one is started, and that"
           " end after it when the server does.", many=True),
    Option("companion", "ready", kinds.READINESS, "How it shows that it works, for those that wait for it.", "started"),
    Option("companion", "start_timeout", kinds.TIME, "It must be ready in this time; if it is not, it is killed and"
           " counts as failed. With ready = finished, its work may take this long.", "60s", 0.1, 86400),
    Option("companion", "every", kinds.TIME_OR_NONE, "It is run again and again, this long from one start to the next;"
           " for the first time this long after the start of the server.", "none", 1, 86400 * 366, may_be_zero=True),
    Option("companion", "at", kinds.MOMENT, "It is run at these times of day.", many=True),
    Option("companion", "timeout", kinds.TIME_OR_NONE, "A run at a time that takes longer than this is stopped, as"
           " stop_signal and stop_timeout say.", "none", 0.1, 86400 * 30, may_be_zero=True),
    Option("companion", "restart", kinds.CHOICE, "When it is started again after it has ended by itself: always, only"
           " after a failure (a status that is not 0, or a signal), or never.",
           Computed("always; with every or at: never; with ready = finished: failure", _restart),
           choices=("always", "failure", "never")),
    Option("companion", "stop_signal", kinds.CHOICE, "The signal that asks it to end in order.", "TERM",
           choices=("TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "WINCH", "KILL")),
    Option("companion", "stop_timeout", kinds.TIME_OR_NONE, "When it has been asked to end and this time is over, it is"
           " killed. With none it is waited for as long as it takes.", "10m", 0.1, 86400 * 30, may_be_zero=True),
    # site
    Option("site", "hosts", kinds.HOST, "Host names of the site: example.org, *.example.org for every name below it, or"
           " * for every name that no other site has.", None, many=True),
    Option("site", "root", kinds.PATH, "Directory of the site's files; without it only groups answer."),
    Option("site", "index", kinds.FILE_NAME, "Files that answer for a directory, the first that is there.",
           "index.html", many=True),
    Option("site", "symlinks", kinds.CHOICE, "Symbolic links below root: none are followed, only those whose owner is"
           " also that of what they point to, or all.", "owner", choices=("deny", "owner", "allow")),
    Option("site", "dotfiles", kinds.CHOICE, "Whether files and directories whose name begins with a dot are served.",
           "deny", choices=("deny", "allow")),
    Option("site", "sendfile", kinds.PATH, "Directories whose files a group may have sent by naming one in its answer:"
           " in X-Sendfile by its path, in X-Accel-Redirect by its path below one of them. Without it an answer with"
           " such a field becomes 500.", many=True),
    Option("site", "max_body", kinds.SIZE_OR_UNLIMITED, "Largest request body; a larger one is answered with 413.",
           "64m", 1),
    Option("site", "gather", kinds.ROUTE, "Routes whose request bodies arrive whole before a worker is taken, so that a"
           " slow upload holds none; the others hand a large body on as it arrives.", many=True),
    Option("site", "error_log", kinds.PATH, "File for what belongs to a request of this site: what its application"
           " reports, stacks of what takes too long, why something was refused. No symbolic link may be in its path."
           " Without it all of that goes to error_log in [logs]; so does what belongs to no request."),
)  # fmt: skip

TABLE: dict[str, dict[str, Option]] = {}
for _option in OPTIONS:
    TABLE.setdefault(_option.section, {})[_option.name] = _option

SUBSECTIONS: dict[str, tuple[str, ...]] = {
    "server": (),
    "logs": (),
    "group": ("environment", "ini", "settings"),
    "companion": ("environment",),
    "site": ("routes",),
}
