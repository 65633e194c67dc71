"""Validators stand around the conformance applications, so that what passes there has broken none of their rules: Rack::Lint,
Plack::Middleware::Lint and wsgiref.validate each find a fault that is planted.
"""

from __future__ import annotations

import pytest
from serving import TREE, Server, wait_until

CONFIG = """
[groups]
[[app]]
language = {language}
application = {name}
processes = 1
[[[environment]]]
SCRATCH = {scratch}
[sites]
[[all]]
hosts = *
[[[routes]]]
/ = group:app
"""
# What each says of the field "Status".
SAYS = {
    ("python", "conformance.wsgi"): "AssertionError: The Status header cannot be used",
    ("perl", "conformance.psgi"): "Response headers MUST NOT contain a key named Status",
    ("ruby", "conformance.ru"): "header must not contain Status (Rack::Lint::LintError)",
}


@pytest.mark.parametrize(("language", "name"), SAYS, ids=[language for language, _ in SAYS])
def test_a_planted_fault_is_found(server: Server, language: str, name: str) -> None:
    server.file(name, (TREE / "tests/conformance/applications" / name).read_text())
    server.write(CONFIG.format(language=language, name=name, scratch=server.directory))
    server.allow(r"\[error\] group app")
    server.start()
    assert server.get("/hello").text == "hello, world"
    assert server.get("/lint").status == 500
    wait_until(lambda: SAYS[language, name] in server.log(), "it is not said why")
