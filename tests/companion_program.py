"""A program for the tests of companions: python companion_program.py PLACE NAME [OPTION=VALUE ...]

It notes in PLACE/notes what happens to it, one line each: "start NAME", "ready NAME", "end NAME". Options:

    go=FILE         is ready only when this is there
    show=notify     says so with sd_notify(3); also output, file:PATH, tcp:PORT, unix:PATH
    exit=STATUS     ends then
    lasts=SECONDS   ends with status 0 after this time
    term=ignore     what the stop signal does; also until:FILE (ends when that is there), or a number of seconds
    tree=yes        starts a process that has left its session and its parent and ignores every signal
    lock=FILE       notes "twice" if somebody else has it locked
    say=FILE        writes a line to its standard error for each that FILE has, as they come
    look=yes        writes what it finds itself to be to PLACE/NAME.json
"""

import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
import time

place, name, *words = sys.argv[1:]
options = dict(word.split("=", 1) for word in words)


def note(text):
    number = os.open(f"{place}/notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(number, f"{text} {name}\n".encode())
    os.close(number)


def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.01)


def asked(number, frame):
    term = options.get("term", "0")
    note("asked")
    if term == "ignore":
        return
    if term.startswith("until:"):
        wait_for(term[6:])
    else:
        time.sleep(float(term))
    note("end")
    os._exit(0)


def daemon():
    """Twice forked, in a session of its own."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with open(f"{place}/{name}.daemon", "w") as file:
        file.write(str(os.getpid()))
    time.sleep(1000)


def look():
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    mask = os.umask(0)
    os.umask(mask)
    found = {
        "argv": sys.argv, "pid": os.getpid(), "parent": os.getppid(), "directory": os.getcwd(), "umask": mask,
        "environment": dict(os.environ), "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
        "securebits": ctypes.CDLL(None).prctl(27, 0, 0, 0, 0), "status": status, "group": os.getpgid(0) == os.getpid(),
        "descriptors": [int(number) for number in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{number}")],
    }  # fmt: skip
    with open(f"{place}/{name}.new", "w") as file:
        json.dump(found, file)
    os.rename(f"{place}/{name}.new", f"{place}/{name}.json")


listeners = []


def show(how):
    kind, _, value = how.partition(":")
    if kind == "notify":
        where = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"STATUS=it works\nREADY=1", where)
    elif kind == "output":
        print("first line", flush=True)
        print("this is port 4711, ready to serve", file=sys.stderr, flush=True)
    elif kind == "file":
        with open(value, "w") as file:
            file.write("here\n")
    elif kind == "tcp":
        listeners.append(socket.create_server(("127.0.0.1", int(value))))
    elif kind == "unix":
        listeners.append(socket.socket(socket.AF_UNIX))
        listeners[-1].bind(value)
        listeners[-1].listen()


for one in (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR2):
    signal.signal(one, asked)
if "lock" in options:
    held = os.open(options["lock"], os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("twice")
note("start")
if "look" in options:
    look()
if "tree" in options:
    daemon()
if "go" in options:
    wait_for(options["go"])
note("ready")
show(options.get("show", ""))
if "lasts" in options:
    time.sleep(float(options["lasts"]))
    note("end")
elif "exit" in options:
    os._exit(int(options["exit"]))
elif "say" in options:
    with open(options["say"]) as file:
        while True:
            sys.stderr.write(file.readline())
            sys.stderr.flush()
            time.sleep(0.01)
else:
    while True:
        time.sleep(1000)
