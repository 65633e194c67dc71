"""What a person's browser does for a test of a whole application: cookies, redirections, forms and uploads."""

from __future__ import annotations

import secrets
import urllib.parse
from dataclasses import dataclass, field
from html.parser import HTMLParser

from serving import Answer, Server

REDIRECTIONS = 5


@dataclass
class Form:
    action: str
    values: dict[str, str] = field(default_factory=dict)


class _Forms(HTMLParser):
    """The forms of a page with what their fields hold."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []
        self._area = ""
        self._select = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag == "form":
            self.found.append(Form(given.get("action", "")))
        elif self.found and given.get("name"):
            if tag == "input" and given.get("type") not in ("submit", "file", "image", "checkbox", "radio", "button"):
                self.found[-1].values[given["name"]] = given.get("value", "")
            elif tag == "textarea":
                self._area = given["name"]
                self.found[-1].values[self._area] = ""
            elif tag == "select":
                self._select = "" if "multiple" in given else given["name"]
        elif self._select and tag == "option":
            values = self.found[-1].values
            if self._select not in values or "selected" in given:
                values[self._select] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._area = ""
        elif tag == "select":
            self._select = ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self.found[-1].values[self._area] += data


def forms(answer: Answer) -> list[Form]:
    parser = _Forms()
    parser.feed(answer.text)
    return parser.found


class Browser:
    """One person's: what it has been told to remember goes with each request.

    With `says_from_where`, so does the page that it shows, as Referer; some applications go back there after a form.
    """

    def __init__(self, server: Server, says_from_where: bool = False) -> None:
        self.says_from_where = says_from_where
        self.server = server
        self.cookies: dict[str, str] = {}
        self.at = "/"  # the page that it shows

    def get(self, target: str) -> Answer:
        return self._ask("GET", target, None, {})

    def post(self, target: str, values: dict[str, str]) -> Answer:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._ask("POST", target, urllib.parse.urlencode(values).encode(), kind)

    def upload(self, target: str, values: dict[str, str], files: dict[str, tuple[str, bytes]]) -> Answer:
        """A form with files: name of the field -> (name of the file, content)."""
        boundary = secrets.token_hex(16)
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in values.items()
        ]
        for name, (file, content) in files.items():
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n'
            parts.append(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + content + b"\r\n")
        body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
        return self._ask("POST", target, body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})

    def send(self, method: str, target: str, body: bytes | None, fields: dict[str, str]) -> Answer:
        """One request, and no redirection is followed."""
        host = f"127.0.0.1:{self.server.port}"
        if self.says_from_where:
            fields = {"Referer": f"http://{host}{self.at.partition('#')[0]}", **fields}
        fields = {"Host": host, **fields}
        if self.cookies:
            fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        self.at = urllib.parse.urljoin(self.at, target)
        answer = self.server.request(method, self.at, body, fields)
        for name, value in answer.fields:
            if name.lower() == "set-cookie":
                self._remember(value)
        return answer

    def _ask(self, method: str, target: str, body: bytes | None, fields: dict[str, str]) -> Answer:
        answer = self.send(method, target, body, fields)
        for _ in range(REDIRECTIONS):
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            to = urllib.parse.urlsplit(answer.field("Location") or "")
            assert to.netloc in ("", f"127.0.0.1:{self.server.port}"), f"sent away to {to.geturl()}"
            path = to._replace(scheme="", netloc="", fragment="").geturl()
            if answer.status in (307, 308):
                answer = self.send(method, path, body, fields)
            else:
                answer = self.send("GET", path, None, {})
        raise AssertionError(f"redirected without end, last to {answer.field('Location')}")

    def _remember(self, cookie: str) -> None:
        pair, *attributes = cookie.split(";")
        name, _, value = pair.strip().partition("=")
        gone = any(a.strip().lower() in ("max-age=0", "expires=thu, 01 jan 1970 00:00:00 gmt") for a in attributes)
        if gone or value == "deleted":
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value
