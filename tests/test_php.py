"""PHP through the real server: what PHP programs expect of php-fpm behind nginx."""

from __future__ import annotations

import http.client
import json
import re

import pytest
from serving import Server

CONFIG = """
[groups]
  [[blog]]
  language = php
  processes = 2
    [[[environment]]]
    COLOUR = green
    [[[ini]]]
    memory_limit = 77M
    upload_max_filesize = 3M
    session.save_path = {directory}/sessions
[sites]
  [[blog]]
  hosts = *
  root = public
  index = index.php, index.html
    [[[routes]]]
    / = files, /index.php
    .php = group:blog
"""


@pytest.fixture
def php(server: Server) -> Server:
    (server.directory / "sessions").mkdir(mode=0o777)
    (server.directory / "sessions").chmod(0o777)
    server.write(CONFIG.format(directory=server.directory))
    server.file("public/index.php", "<?php echo 'front:', $_SERVER['REQUEST_URI'];")
    return server


def script(server: Server, name: str, code: str) -> None:
    server.file(f"public/{name}", "<?php " + code)


def test_superglobals(php: Server) -> None:
    script(
        php,
        "show.php",
        "echo json_encode(['get' => $_GET, 'post' => $_POST, 'cookie' => $_COOKIE, 'server' => $_SERVER,"
        " 'env' => getenv('COLOUR'), 'fields' => getallheaders(), 'sapi' => php_sapi_name()]);",
    )
    php.start()
    answer = php.request(
        "POST",
        "/show.php/more/info?a=1&b[]=2",
        b"c=3&d=x%20y",
        {"Content-Type": "application/x-www-form-urlencoded", "Cookie": "k=v", "X-Test-Field": "t"},
    )
    seen = json.loads(answer.body)
    assert (seen["get"], seen["post"], seen["cookie"]) == (
        {"a": "1", "b": ["2"]},
        {"c": "3", "d": "x y"},
        {"k": "v"},
    )
    variables = seen["server"]
    expected = {
        "REQUEST_METHOD": "POST",
        "REQUEST_URI": "/show.php/more/info?a=1&b[]=2",
        "SCRIPT_NAME": "/show.php",
        "PATH_INFO": "/more/info",
        "PHP_SELF": "/show.php/more/info",
        "QUERY_STRING": "a=1&b[]=2",
        "SCRIPT_FILENAME": str(php.directory / "public/show.php"),
        "DOCUMENT_ROOT": str(php.directory / "public"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_X_TEST_FIELD": "t",
        "CONTENT_LENGTH": "11",
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_PORT": str(php.port),
        "GATEWAY_INTERFACE": "CGI/1.1",
    }
    assert {name: variables.get(name) for name in expected} == expected
    assert (seen["env"], seen["sapi"]) == ("green", "fpm-fcgi")
    assert seen["fields"]["X-Test-Field"] == "t"


@pytest.mark.parametrize(
    ("code", "status", "body"),
    [
        ("http_response_code(404); echo 'gone';", 404, b"gone"),
        ("header('HTTP/1.1 410 Left'); echo 'x';", 410, b"x"),
        ("header('Status: 403 No'); echo 'x';", 403, b"x"),
        ("header('Location: /elsewhere');", 302, b""),
        ("echo 'before'; exit(3);", 200, b"before"),
        ("ob_start(); echo 'a'; ob_end_clean(); echo 'b';", 200, b"b"),
        ("echo 'a'; flush(); echo 'b';", 200, b"ab"),
        ("echo file_get_contents('php://input');", 200, b"{}"),
    ],
)
def test_status_and_output(php: Server, code: str, status: int, body: bytes) -> None:
    script(php, "one.php", code)
    php.start()
    answer = php.request("POST", "/one.php", b"{}", {"Content-Type": "application/json"})
    assert (answer.status, answer.body) == (status, body)


def test_header_fields(php: Server) -> None:
    script(
        php,
        "fields.php",
        "header('X-One: 1'); header('X-One: 2', false); header('Connection: close'); setcookie('k', 'v');"
        " header('Content-Type: text/plain'); echo 'x';",
    )
    php.start()
    answer = php.get("/fields.php")
    assert [value for name, value in answer.fields if name == "X-One"] == ["1", "2"]
    assert answer.field("Set-Cookie") == "k=v"
    assert answer.field("Content-Type") == "text/plain;charset=UTF-8"
    assert answer.field("Connection") != "close"


def test_upload(php: Server) -> None:
    script(
        php,
        "upload.php",
        "echo json_encode([$_FILES['f']['name'], $_FILES['f']['error'], is_uploaded_file($_FILES['f']['tmp_name']),"
        " hash_file('sha256', $_FILES['f']['tmp_name']), $_POST['word']]);",
    )
    php.start()
    content = bytes(range(256)) * 8000
    boundary = "----frontier"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="word"\r\n\r\nhello\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="f"; filename="a.bin"\r\n\r\n'
    ).encode() + content
    body += f"\r\n--{boundary}--\r\n".encode()
    answer = php.request("POST", "/upload.php", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})
    import hashlib

    assert json.loads(answer.body) == ["a.bin", 0, True, hashlib.sha256(content).hexdigest(), "hello"]


def test_sessions(php: Server) -> None:
    script(php, "count.php", "session_start(); echo $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;")
    php.start()
    first = php.get("/count.php")
    cookie = (first.field("Set-Cookie") or "").partition(";")[0]
    assert first.body == b"1"
    assert [php.get("/count.php", Cookie=cookie).body for _ in range(3)] == [b"2", b"3", b"4"]


def test_errors_go_to_the_log_and_not_to_the_client(php: Server) -> None:
    php.allow("PHP (Fatal|Parse)", "Stack trace", r"#0 \{main\}", "thrown in")
    script(php, "fatal.php", "echo 'partly'; nothing_of_that_name();")
    script(php, "syntax.php", "echo (")
    php.start()
    for name in ("fatal.php", "syntax.php"):
        answer = php.get(f"/{name}")
        assert answer.status == 500
        assert b"Fatal" not in answer.body
        assert b"Parse" not in answer.body
    assert php.get("/").status == 200
    php.stop()
    assert re.search(r"undefined function nothing_of_that_name\(\) in .*fatal\.php:1", php.log())
    assert re.search(r"PHP Parse error.*syntax\.php", php.log())


def test_only_scripts_run_and_no_source_is_served(php: Server) -> None:
    php.file("public/picture.jpg", "<?php echo 'executed';")
    php.file("public/dir.php/inner.txt", "text")
    php.start()
    assert b"executed'" in php.get("/picture.jpg").body  # served as a file, source and all: it is not a script
    assert php.get("/picture.jpg/x.php").status == 404
    assert php.get("/dir.php").status == 404
    assert php.get("/missing.php").status == 404
    assert php.get("/missing").body == b"front:/missing"
    assert php.get("/").body == b"front:/"
    for path in ("/index.php", "/index.php/", "/./index.php", "/%69ndex.php", "//index.php"):
        assert b"<?php" not in php.get(path).body


def test_ini_values_of_the_group_and_of_the_directory(php: Server) -> None:
    script(php, "ini.php", "echo ini_get('memory_limit'), ' ', ini_get('upload_max_filesize');")
    php.file("public/sub/ini.php", "<?php echo ini_get('default_charset');")
    php.file("public/sub/.user.ini", "default_charset = latin1\n")
    php.start()
    assert php.get("/ini.php").body == b"77M 3M"
    assert php.get("/sub/ini.php").body == b"latin1"
    assert php.get("/sub/.user.ini").status != 200 or b"latin1" not in php.get("/sub/.user.ini").body


def test_opcache_is_shared_between_workers(php: Server) -> None:
    script(php, "cache.php", "echo getmypid(), ' ', opcache_get_status(false)['opcache_statistics']['hits'];")
    php.start()
    hits = [php.get("/cache.php").text.split() for _ in range(20)]
    # One counter for both workers: it never falls, whichever answers.
    counts = [int(count) for _, count in hits]
    assert counts == sorted(counts)


def test_finish_request_lets_the_client_go(php: Server) -> None:
    script(
        php, "finish.php", "echo 'done'; fastcgi_finish_request(); echo 'unseen'; usleep(300000); error_log('later');"
    )
    php.start()
    connection = http.client.HTTPConnection("127.0.0.1", php.port, timeout=20)
    connection.request("GET", "/finish.php")
    assert connection.getresponse().read() == b"done"
    connection.close()
    php.stop()
    assert "later" in php.log()


def test_large_answer_and_head(php: Server) -> None:
    script(php, "large.php", "header('X-Large: yes'); for ($i = 0; $i < 200; $i++) echo str_repeat('x', 50000);")
    php.start()
    assert php.get("/large.php").body == b"x" * 10_000_000
    answer = php.request("HEAD", "/large.php")
    assert (answer.status, answer.body, answer.field("X-Large")) == (200, b"", "yes")
