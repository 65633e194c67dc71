"""How PHP finds, compiles and configures scripts."""

from __future__ import annotations

import json
import os
import threading

import pytest
from php_site import prepare, script
from serving import Server, wait_until


@pytest.fixture
def php(server: Server) -> Server:
    return prepare(server)


def test_opcache_is_one_for_all_workers(php: Server) -> None:
    """A script that one worker has compiled is a hit in the other; preloaded ones are there from the start."""
    script(php, "before.php", "function before() { return 'preloaded'; }")
    script(
        php,
        "cached.php",
        "usleep(30000); echo json_encode([getmypid(), opcache_is_script_cached(__DIR__ . '/other.php'),"
        " opcache_is_script_cached(__DIR__ . '/before.php'), opcache_get_status()['opcache_statistics']['misses']]);",
    )
    script(php, "other.php", "usleep(30000); echo getmypid();")
    for name in ("before", "cached", "other"):
        # opcache does not keep what has been written a moment ago: opcache.file_update_protection.
        os.utime(php.directory / f"public/{name}.php", (1_700_000_000, 1_700_000_000))
    php.configure(php.config_file.read_text().replace("processes = 2", "processes = 2\n  preload = public/before.php"))
    php.start()
    php.get("/cached.php")
    compiled_by = int(php.get("/other.php").body)
    seen: dict[int, list[object]] = {}

    def both() -> bool:
        pid, *rest = json.loads(php.get("/cached.php").body)
        seen[pid] = rest
        return len(seen) == 2

    # Two at a time, so that both workers are asked.
    def ask() -> None:
        for _ in range(10):
            both()

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(seen) == 2
    assert compiled_by in seen
    misses = {rest[2] for rest in seen.values()}
    assert all(rest[:2] == [True, True] for rest in seen.values())
    assert len(misses) == 1


def test_ini_values_of_every_kind(server: Server) -> None:
    (server.directory / "public").mkdir(exist_ok=True)
    server.write(
        "[groups]\n[[blog]]\nlanguage = php\nprocesses = 1\n[[[ini]]]\n"
        "error_reporting = E_ALL & ~E_DEPRECATED\nerror_prepend_string = 'C:\\'\nauto_append_file = ''\n"
        "date.timezone = Europe/Vienna\nshort_open_tag = On\nsession.use_cookies = Off\ndisable_functions = system\nmax_execution_time = 7\n"
        "[sites]\n[[blog]]\nhosts = *\nroot = public\n[[[routes]]]\n.php = group:blog\n"
    )
    server.file(
        "public/ini.php",
        "<?php echo json_encode([error_reporting() === (E_ALL & ~E_DEPRECATED), ini_get('error_prepend_string'),"
        " date_default_timezone_get(), ini_get('short_open_tag'), function_exists('system'), "
        " ini_get('max_execution_time'), ini_get('max_input_time'), ini_get('session.use_cookies')]);",
    )
    server.start()
    assert json.loads(server.get("/ini.php").body) == [
        True, "C:\\", "Europe/Vienna", "1", False, "7", "60", ""]  # fmt: skip


def test_script_and_working_directory_are_looked_at_again(php: Server) -> None:
    """A look at the file holds a second; what a script does to the directory holds for itself alone."""
    php.file("public/sub/where.php", "<?php echo getcwd(); register_shutdown_function(fn() => print(' ' . getcwd()));")
    script(php, "where.php", "echo getcwd(); chdir('/');")
    script(php, "reads.php", "echo file_get_contents('sub/text');")
    php.file("public/sub/text", "beside it")
    php.start()
    public = str(php.directory / "public")
    for _ in range(3):
        assert php.get("/sub/where.php").text == f"{public}/sub {public}/sub"
        assert php.get("/where.php").text == public
        assert php.get("/where.php").text == public
        assert php.get("/reads.php").text == "beside it"
    (php.directory / "public/reads.php").unlink()
    php.allow("Failed to open stream", "Failed opening required", "PHP Warning", "PHP Fatal")
    wait_until(lambda: php.get("/reads.php").status == 404, "a script that is gone is still run", 10)
    # A release by symbolic link: the other tree is the working directory within a second.
    for name in ("one", "two"):
        php.file(f"releases/{name}/app.php", f"<?php echo '{name} ', getcwd(), ' ', file_get_contents('word');")
        php.file(f"releases/{name}/word", name)
    link = php.directory / "public/app"
    link.symlink_to("../releases/one")
    assert php.get("/app/app.php").text.split()[2] == "one"
    spare = php.directory / "spare"
    spare.symlink_to("../releases/two")
    spare.rename(link)
    wait_until(lambda: php.get("/app/app.php").text.split()[2] == "two", "the old release's directory is used", 10)


def test_unreadable_script(php: Server) -> None:
    script(php, "secret.php", "echo 1;")
    (php.directory / "public/secret.php").chmod(0)
    php.start()
    assert php.get("/secret.php").status == 403


def test_headers_and_head(php: Server) -> None:
    php.allow("not valid HTTP", "more than a single header", "Header may not contain")
    script(
        php,
        "headers.php",
        "header('X-A: 1'); header('X-A: 2'); header('X-B: 1'); header('X-B: 2', false); header('X-C: 1');"
        " header_remove('X-C'); header('Transfer-Encoding: chunked'); header(\"X-D: a\\r\\nX-E: b\");"
        " http_response_code(418); header_register_callback(fn() => header('X-Late: yes'));"
        " echo json_encode([headers_sent(), apache_request_headers()['X-Mine'] ?? null, http_response_code()]);",
    )
    script(php, "reason.php", "header('HTTP/1.1 451 Not For You'); echo 'x';")
    script(php, "empty.php", "http_response_code(204);")
    script(php, "length.php", "header('Content-Length: 5'); echo 'hello';")
    script(php, "modified.php", "header('Not-Modified: x', true, 304);")
    php.start()
    answer = php.get("/headers.php", X_Mine="yes")
    assert answer.status == 418
    assert json.loads(answer.body) == [False, "yes", 418]
    assert [value for name, value in answer.fields if name in ("X-A", "X-B", "X-C", "X-Late", "X-E")] == [
        "2", "1", "2", "yes"]  # fmt: skip
    assert php.raw(b"GET /reason.php HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 451 Not For You\r\n")
    assert (php.get("/empty.php").status, php.get("/empty.php").body) == (204, b"")
    assert php.get("/modified.php").status == 304
    answer = php.get("/length.php")
    assert (answer.field("Content-Length"), answer.body) == ("5", b"hello")
    head = php.request("HEAD", "/length.php")
    assert (head.status, head.field("Content-Length"), head.body) == (200, "5", b"")
