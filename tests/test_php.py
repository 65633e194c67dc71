"""PHP through the real server: what PHP programs expect of php-fpm behind nginx."""

from __future__ import annotations

import hashlib
import http.client
import json
from pathlib import Path

import pytest
from php_site import prepare, script
from serving import Server, read_all, wait_until


@pytest.fixture
def php(server: Server) -> Server:
    return prepare(server)


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
    assert php.logged_like(r"undefined function nothing_of_that_name\(\) in .*fatal\.php:1")
    assert php.logged_like(r"PHP Parse error.*syntax\.php")


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
    assert php.logged("later")


def test_large_answer_and_head(php: Server) -> None:
    script(php, "large.php", "header('X-Large: yes'); for ($i = 0; $i < 200; $i++) echo str_repeat('x', 50000);")
    php.start()
    assert php.get("/large.php").body == b"x" * 10_000_000
    answer = php.request("HEAD", "/large.php")
    assert (answer.status, answer.body, answer.field("X-Large")) == (200, b"", "yes")


def test_server_variables_are_php_fpm_s(php: Server) -> None:
    """Names and values as nginx's fastcgi_params give them; what may differ is listed."""
    script(php, "all.php", "echo json_encode(['server' => $_SERVER, 'get' => getenv('REMOTE_ADDR')]);")
    php.start()
    seen = json.loads(php.get("/all.php?x=1").body)
    names = set(seen["server"])
    fastcgi_params = (
        "QUERY_STRING REQUEST_METHOD SCRIPT_NAME REQUEST_URI DOCUMENT_URI DOCUMENT_ROOT SERVER_PROTOCOL REQUEST_SCHEME"
        " GATEWAY_INTERFACE SERVER_SOFTWARE REMOTE_ADDR REMOTE_PORT SERVER_ADDR SERVER_PORT SERVER_NAME"
        " REDIRECT_STATUS SCRIPT_FILENAME PHP_SELF REQUEST_TIME REQUEST_TIME_FLOAT HTTP_HOST"
    )
    assert set(fastcgi_params.split()) - names == set()
    assert not names & {"HTTPS", "PATH_INFO", "HTTP_PROXY", "PATH_TRANSLATED"}
    assert seen["get"] == "127.0.0.1"
    # Basic authentication, and a field that must never become a proxy's address.
    answer = php.get("/all.php", Authorization="Basic dXNlcjpwYXNz", Proxy="http://evil/")
    server = json.loads(answer.body)["server"]
    assert (server["PHP_AUTH_USER"], server["PHP_AUTH_PW"]) == ("user", "pass")
    assert "HTTP_PROXY" not in server


def test_every_way_of_a_body(php: Server) -> None:
    php.allow("POST Content-Length of")
    script(
        php,
        "body.php",
        "$in = fopen('php://input', 'r'); $first = fread($in, 3); rewind($in);"
        " echo json_encode([strlen(file_get_contents('php://input')), $first, md5(stream_get_contents($in)),"
        " $_POST['a'] ?? null, $_SERVER['REQUEST_METHOD'], $_SERVER['CONTENT_LENGTH'] ?? null]);",
    )
    php.start()
    content = bytes(range(256)) * 10_000
    digest = hashlib.md5(content).hexdigest()
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = php.request(method, "/body.php", content, {"Content-Type": "application/octet-stream"})
        assert json.loads(answer.body) == [len(content), "\0\x01\x02", digest, None, method, str(len(content))]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (b"a=he", b"llo", b"&b=2"))
    head = b"POST /body.php HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
    form = b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    answer_bytes = php.raw(head + form + chunks + b"0\r\n\r\n")
    assert b'[11,"a=h","%s","hello","POST",null]' % hashlib.md5(b"a=hello&b=2").hexdigest().encode() in answer_bytes
    # Above post_max_size (8M): the script runs, without $_POST, as everywhere.
    big = b"a=" + b"x" * 9_000_000
    answer = php.request("POST", "/body.php", big, {"Content-Type": "application/x-www-form-urlencoded"})
    assert json.loads(answer.body)[3] is None
    php.stop()
    assert php.logged("POST Content-Length of 9000002 bytes exceeds the limit")


def form(parts: list[tuple[str, str | None, bytes]]) -> tuple[bytes, dict[str, str]]:
    boundary = "----frontier"
    body = b""
    for name, filename, content in parts:
        file = f'; filename="{filename}"' if filename is not None else ""
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
        body += content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def test_several_uploads_and_one_too_large(php: Server) -> None:
    script(
        php,
        "upload.php",
        "foreach ($_FILES['f']['tmp_name'] as $i => $t) { $out[] = [$_FILES['f']['name'][$i],"
        " $_FILES['f']['error'][$i], $_FILES['f']['size'][$i], $t ? file_exists($t) : null]; $kept[] = $t; }"
        " move_uploaded_file($kept[0], $_SERVER['DOCUMENT_ROOT'] . '/../sessions/moved');"
        " file_put_contents($_SERVER['DOCUMENT_ROOT'] . '/../sessions/kept', implode(\"\\n\", array_filter($kept)));"
        " echo json_encode($out);",
    )
    php.start()
    body, fields = form(
        [
            ("f[]", "a.txt", b"first"),
            ("f[]", "large.bin", b"x" * 3_500_000),
            ("f[]", "", b""),
            ("f[]", "../../b.txt", b"second"),
        ]
    )
    answer = php.request("POST", "/upload.php", body, fields)
    assert json.loads(answer.body) == [
        ["a.txt", 0, 5, True],
        ["large.bin", 1, 0, None],
        ["", 4, 0, None],
        ["b.txt", 0, 6, True],
    ]
    assert (php.directory / "sessions/moved").read_bytes() == b"first"
    # What nobody has moved is gone when the request is.
    for name in (php.directory / "sessions/kept").read_text().split():
        assert not Path(name).exists()


def test_flush_reaches_the_client_before_the_script_ends(php: Server) -> None:
    script(
        php,
        "slowly.php",
        "while (ob_get_level()) ob_end_clean(); echo 'first'; flush();"
        " while (!file_exists('../sessions/go')) { usleep(10000); clearstatcache(); } echo 'second';",
    )
    php.start()
    with php.connect() as sock:
        sock.sendall(b"GET /slowly.php HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        data = b""
        while b"first" not in data:
            data += sock.recv(10_000)
        assert b"second" not in data
        (php.directory / "sessions/go").touch()
        while b"second" not in data:
            piece = sock.recv(10_000)
            assert piece
            data += piece


def test_end_of_a_script(php: Server) -> None:
    """Shutdown functions, destructors, exit, time and memory limits: what is answered, and that the worker goes on."""
    php.allow("PHP Fatal", "Stack trace", "thrown in", r"#0 ", r"\[error\]")
    mark = "function mark($w) { file_put_contents(__DIR__ . '/../sessions/marks', $w . ' ', FILE_APPEND); } "
    cases = {
        "exit": ("register_shutdown_function(fn() => print('-last')); echo 'x'; exit('-said');", 200, b"x-said-last"),
        "destruct": ("class D { function __destruct() { echo 'gone'; } } $d = new D; echo 'x-';", 200, b"x-gone"),
        "time": ("set_time_limit(1); while (true);", 500, b""),
        "memory": ("$s = []; while (true) $s[] = str_repeat('x', 1000000);", 500, b""),
        "throw": ("throw new Exception('nobody caught this');", 500, b""),
        "begun": ("while (ob_get_level()) ob_end_clean(); echo 'begun'; flush(); undefined_function();", 200, b"begun"),
        "deep": ("function f($n) { return f($n + 1) . 'x'; } f(0);", 500, b""),
    }
    for name, (code, _, _) in cases.items():
        script(php, f"{name}.php", mark + f"register_shutdown_function('mark', '{name}'); " + code)
    php.start()
    pids = php.pids("worker", "blog")
    for name, (_, status, body) in cases.items():
        answer = php.get(f"/{name}.php")
        assert (answer.status, answer.body) == (status, body), name
    marks = (php.directory / "sessions/marks").read_text().split()
    assert set(cases) - {"memory", "deep"} <= set(marks)
    for text in (
        "Maximum execution time of 1 second exceeded",
        "Allowed memory size of",
        "nobody caught this",
        "undefined_function()",
    ):
        wait_until(lambda text=text: text in php.log(), f"the log does not say {text!r}")
    assert php.pids("worker", "blog") == pids


def test_a_worker_that_dies_costs_its_own_request_only(php: Server) -> None:
    php.allow("SIGKILL", "exited", "died", r"\[error\]")
    script(php, "dies.php", "posix_kill(getmypid(), 9);")
    script(php, "long.php", "touch('../sessions/running'); while (!file_exists('../sessions/go')) usleep(10000);"
           " echo getmypid();")  # fmt: skip
    php.start()
    before = php.pids("worker", "blog")
    with php.connect() as sock:
        sock.sendall(b"GET /long.php HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        wait_until((php.directory / "sessions/running").exists, "the other request does not run")
        assert php.get("/dies.php").status == 502
        (php.directory / "sessions/go").touch()
        assert int(read_all(sock).rpartition(b"\r\n")[2] or 0) in before
    wait_until(lambda: len(php.pids("worker", "blog")) == 2, "no worker has followed")
    assert php.get("/").status == 200


def test_client_that_goes_away(php: Server) -> None:
    """The script ends at its next output, unless it asked to go on; connection_status() says so."""
    loop = (
        "%s while (ob_get_level()) ob_end_clean(); for ($i = 0; $i < 100000; $i++) { echo str_repeat('x', 10000);"
        " flush(); if (connection_status()) break; } echo 'x'; flush();"
        " file_put_contents('../sessions/%s', connection_status());"
    )
    at_end = "register_shutdown_function(fn() => file_put_contents('%s/sessions/ended', connection_status() . ' '"
    script(php, "ends.php", loop % (at_end % php.directory + " . connection_aborted()));", "reached"))
    script(php, "stays.php", loop % ("ignore_user_abort(true);", "stayed"))
    php.start()
    for name, file in (("ends", "ended"), ("stays", "stayed")):
        with php.connect() as sock:
            sock.sendall(b"GET /%s.php HTTP/1.1\r\nHost: h\r\n\r\n" % name.encode())
            assert sock.recv(1000)
        made = php.directory / "sessions" / file
        wait_until(lambda made=made: made.exists() and made.read_text(), f"{name}.php did not see it")
        assert made.read_text().split() == (["1", "1"] if name == "ends" else ["1"])
    assert not (php.directory / "sessions/reached").exists()
