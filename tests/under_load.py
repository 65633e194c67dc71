"""A site of an echo group and a Python one, and clients that count: restarts, upgrades and broken changes meet them."""

from __future__ import annotations

import http.client
import socket
import threading
from typing import Any

from serving import Server, read_all, wait_until

GROUPS = """
[groups]
  [[plain]]
  language = echo
  processes = 2
  [[shop]]
  language = python
  application = app.wsgi
  processes = 4
  {more}
"""
SITES = """
[sites]
  [[all]]
  hosts = *
  root = public
    [[[routes]]]
    / = files
    /plain/ = group:plain
    /shop/ = group:shop
"""
WSGI = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'%s']\n"
PATHS = ["/plain/x", "/shop/x", "/index.html"]


def write_files(server: Server) -> None:
    server.file("app.wsgi", WSGI % "first")
    server.file("public/index.html", "static")


def all_serve(server: Server) -> Server:
    """A group serves with its first worker, and another may still be loading what a test is about to change."""

    def serves(group: dict[str, Any]) -> bool:
        return bool(group["workers"]["idle"] + group["workers"]["busy"] >= group["processes_min"])

    wait_until(lambda: all(map(serves, server.status()["groups"])), "not all workers serve")
    return server


def busy(server: Server, group: str) -> int:
    return sum(process.get("busy", 0) for process in server.status()["processes"] if process.get("group") == group)


class Load:
    """Clients on keep-alive connections that count what they asked for and what they got. They never ask again."""

    def __init__(self, server: Server, paths: list[str], clients: int = 4) -> None:
        self._server = server
        self._paths = paths
        self._end = threading.Event()
        self.asked = 0
        self.answers: dict[int, int] = {}
        self.lost: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def progress(self, more: int = 200) -> None:
        """Wait until so many more requests have been answered."""
        goal = sum(self.answers.values()) + more
        wait_until(lambda: sum(self.answers.values()) >= goal or self.lost, "the load stands still", 60)

    def _run(self, number: int) -> None:
        connection: http.client.HTTPConnection | None = None
        fresh = True
        count = 0
        while not self._end.is_set():
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=30)
                fresh = True
            path = self._paths[(count + number) % len(self._paths)]
            count += 1
            with self._lock:
                self.asked += 1
            try:
                connection.request("GET", f"{path}?{number}.{count}")
                answer = connection.getresponse()
                answer.read()
                with self._lock:
                    self.answers[answer.status] = self.answers.get(answer.status, 0) + 1
                fresh = False
                if answer.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    # An idle connection may be closed before its next request has been seen; nothing else may happen.
                    reset = isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError)
                    if fresh or not reset:
                        self.lost.append(f"{path}: {error!r}")
                    else:
                        self.asked -= 1
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


class Caller:
    """A client that makes a new connection for each request."""

    def __init__(self, family: int, address: object) -> None:
        self._family, self._address = family, address
        self.answered = self.refused = 0
        self.lost: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            with socket.socket(self._family) as sock:
                sock.settimeout(20)
                try:
                    sock.connect(self._address)
                except (ConnectionRefusedError, FileNotFoundError):
                    self.refused += 1
                    self._end.wait(0.002)
                    continue
                try:
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    answer = read_all(sock)
                except OSError as error:
                    self.lost.append(repr(error))
                    continue
                if answer.startswith(b"HTTP/1.1 200"):
                    self.answered += 1
                else:
                    self.lost.append(repr(answer[:100]))
