"""A small strict HTTP/1.1 client for verification: sends prepared bytes, reads one whole answer."""

import http.client
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        values = self.all(name)
        return values[0] if len(values) == 1 else ""


def connect(port: int, timeout: float = 60) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_answer(connection: socket.socket, method: str = "GET") -> tuple[Answer, bool]:
    """One answer and whether the connection stays open.  A cut answer raises OSError."""
    response = http.client.HTTPResponse(connection, method=method)
    try:
        response.begin()
        body = response.read()
        answer = Answer(response.status, response.getheaders(), body)
        return answer, not response.will_close
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"bad answer: {error!r}") from None
    finally:
        response.close()


def exchange(port: int, request: bytes, timeout: float = 60) -> Answer:
    with connect(port, timeout) as connection:
        connection.sendall(request)
        return read_answer(connection)[0]


class Session:
    """A keep-alive connection that opens itself again when the server closes it, as some peers do."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connection: socket.socket | None = None

    def exchange(self, request: bytes) -> Answer:
        if self.connection is None:
            self.connection = connect(self.port)
        self.connection.sendall(request)
        answer, stays = read_answer(self.connection)
        if not stays:
            self.close()
        return answer

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None
