"""How ASGI applications come up, in whatever form they are, and what keeps them from it."""

from __future__ import annotations

import subprocess

import pytest
from asgi_site import CONFIG, DATA
from serving import TREE, Server, program, wait_until

STARTS = {
    "failed": ("await send({'type': 'lifespan.startup.failed', 'message': 'no database'})", "no database"),
    "wrong": ("await send({'type': 'lifespan.startup'})", "expected lifespan.startup.complete"),
}
APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        {lifespan}
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body", "body": b"here"}})
"""


@pytest.mark.parametrize("case", STARTS)
def test_a_startup_that_fails_fails_the_group(server: Server, case: str) -> None:
    code, words = STARTS[case]
    lifespan = f"await receive(); {code}; await receive()"
    server.allow(".")
    server.write(CONFIG.format(processes=1, threads=4, more=""))
    server.file("work/app.py", APPLICATION.format(lifespan=lifespan))
    server.start()
    wait_until(lambda: words in server.log(), f"{words} is not in the log")
    wait_until(lambda: server.pids("worker", "app") == [], "it is there all the same")


@pytest.mark.parametrize(
    "lifespan",
    ["assert scope['type'] == 'http'", "return", "await receive(); raise ValueError('a mistake')"],
    ids=["raises", "returns", "raises-late"],
)
def test_an_application_without_lifespan(server: Server, lifespan: str) -> None:
    server.allow("a mistake", "Traceback")
    server.write(CONFIG.format(processes=1, threads=4, more=""))
    server.file("work/app.py", APPLICATION.format(lifespan=lifespan))
    server.start()
    assert server.get("/").body == b"here"
    if "mistake" in lifespan:
        assert server.logged("a mistake")
    else:
        assert "a mistake" not in server.log()


OTHERS = {
    "wsgi": ("def application(environ, start_response): pass", "asgi", "interface = wsgi"),
    "asgi2": ("def application(scope): pass", "asgi", "as ASGI 2 had it"),
    "asgi2-class": ("class application:\n    def __init__(self, scope): pass", "asgi", "as ASGI 2 had it"),
    "none": ("def application(): pass", "asgi", "cannot be called with scope, receive and send"),
    "missing": ("x = 1", "asgi", "has no application"),
    "asgi": ("async def application(scope, receive, send): pass", "wsgi", "interface = asgi"),
    "asgi-object": (
        "class A:\n    async def __call__(self, scope, receive, send): pass\napplication = A()",
        "wsgi",
        "interface = asgi",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_interface_is_refused(server: Server, case: str) -> None:
    code, interface, words = OTHERS[case]
    server.allow(".")
    server.write(CONFIG.format(processes=1, threads=1, more="").replace("= asgi", f"= {interface}"))
    server.file("work/app.py", code + "\n")
    server.start()
    wait_until(lambda: words in server.log(), f"{words} is not in the log")


def test_event_loops(server: Server) -> None:
    """uvloop where the group's interpreter has it, asyncio's own where it has not."""
    server.file("without/uvloop.py", "raise ImportError('there is none')\n")
    text = CONFIG.format(processes=1, threads=16, more="")
    group = text.partition("[[app]]")[2].partition("[sites]")[0]
    other = f"[[other]]{group}python_path = without\n[sites]"
    server.write(text.replace("[sites]", other) + "/other = group:other\n")
    server.file("work/app.py", (TREE / "tests/asgi_application.py").read_text())
    server.file("work/data", DATA)
    server.start()
    kinds = []
    for at in ("", "/other"):
        kinds.append(server.get(f"{at}/loop_kind").text)
        assert server.get(f"{at}/large?5000003").body[-3:] == b"xxx"
        assert server.get(f"{at}/pathsend").body == DATA
        assert server.get(f"{at}/timeout").body == b"cancelled"
        assert server.get(f"{at}/subprocess").body == b"from a program\n"
        assert server.request("POST", f"{at}/echo", DATA).body == DATA
    assert kinds == ["uvloop True", "asyncio.unix_events True"]


def test_other_forms_of_applications(server: Server) -> None:
    """A class whose instances are awaited, and a factory of a module."""
    server.write(
        CONFIG.format(processes=1, threads=4, more="python_path = work").replace("work/app.py", "forms:make()")
    )
    server.file(
        "work/forms.py",
        """
import asyncio
asyncio.get_running_loop()  # an application is loaded in its loop

class App:
    def __init__(self, scope, receive, send):
        self.scope, self.send = scope, send
    def __await__(self):
        return self.run().__await__()
    async def run(self):
        assert self.scope["type"] == "http"
        await self.send({"type": "http.response.start", "status": 200})
        await self.send({"type": "http.response.body", "body": b"a class"})

def make():
    return App
""",
    )
    server.start()
    assert server.get("/").body == b"a class"


def test_an_error_of_configuration(server: Server) -> None:
    server.write(CONFIG.format(processes=1, threads=1, more="").replace("application = work/app.py", ""))
    result = subprocess.run(
        [program("webserverd"), "-t", "--config", str(server.config_file)], capture_output=True, text=True
    )
    assert result.returncode != 0
    assert "found asgi, which needs an application" in result.stderr
