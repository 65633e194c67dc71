"""Files that change, shrink and fail under a running server, and the same answers as nginx gives."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from typing import Any

import pytest
from serving import ROOT, Answer, Server, read_all, wait_until
from small_site import causes, head, prepare, records, special_files, status_of


@pytest.fixture
def small(server: Server) -> Server:
    return prepare(server)


# ---- files


def test_file_that_shrinks_is_named(small: Server) -> None:
    path = small.directory / "public" / "shrinks"
    with open(small.file("public/shrinks", ""), "wb") as file:
        file.truncate(64 << 20)
    small.allow("shrinks: the file became shorter while it was sent")
    small.start()
    with small.connect() as sock:
        sock.sendall(head("/shrinks"))
        sock.recv(1)
        os.truncate(path, 1000)
        assert len(read_all(sock)) < 64 << 20
    (record,) = records(small, 1)
    assert (record["status"], record["complete"]) == (200, False)
    assert causes(small, record["id"]) == ["shrinks: the file became shorter while it was sent; the connection is cut"]


def test_disk_that_fails_is_named(small: Server) -> None:
    """strace makes sendfile fail as a broken disk does."""
    small.allow("big.bin: Input/output error")
    small.start()
    (pid,) = small.pids("front end")
    strace = shutil.which("strace")
    assert strace is not None
    tracer = subprocess.Popen(
        [strace, "-f", "-p", str(pid), "-e", "trace=sendfile", "-e", "inject=sendfile:error=EIO", "-o", "/dev/null"],
        stderr=subprocess.PIPE,
    )
    try:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        answer = small.raw(head("/big.bin"))
        assert status_of(answer) == 200
        assert len(answer) < 1000
    finally:
        tracer.terminate()
        tracer.wait()
        assert tracer.stderr is not None
        tracer.stderr.close()
    (record,) = records(small, 1)
    assert (record["bytes"], record["complete"]) == (0, False)
    assert causes(small, record["id"]) == ["big.bin: Input/output error while it was sent; the connection is cut"]


def until(server: Server, path: str, want: tuple[int, bytes]) -> float:
    begin = time.monotonic()

    def as_wanted() -> bool:
        answer = server.get(path)
        return (answer.status, answer.body if want[0] == 200 else b"") == want

    wait_until(as_wanted, f"{path} {want}", 5)
    return time.monotonic() - begin


def test_changes_are_seen_within_a_second(small: Server) -> None:
    small.start()
    for name, size in (("a.txt", 10), ("big.bin", 4 << 20)):
        path = small.directory / "public" / name
        assert small.get(f"/{name}").status == 200
        small.file(f"public/{name}", b"r" * size)  # rewritten, of the same size
        slowest = until(small, f"/{name}", (200, b"r" * size))
        os.rename(small.file("public/next", b"renamed"), path)
        slowest = max(slowest, until(small, f"/{name}", (200, b"renamed")))
        path.unlink()
        slowest = max(slowest, until(small, f"/{name}", (404, b"")))
        assert slowest < 1.5  # one second, and what a busy machine takes


def test_options_of_a_site(small: Server) -> None:
    """symlinks, dotfiles, index, mime_types and max_body: each value has its effect."""
    special_files(small)
    small.file("types", "application/x-note note\ntext/x-mine txt\n")
    small.file("public/a.note", "n")
    small.file("public/empty/start.htm", "start")
    (small.directory / "public" / "inside").symlink_to("a.txt")
    base = "hosts = *\nroot = public\n"

    def answers(options: str, *paths: str) -> list[tuple[int, str | None]]:
        small.write(f"[sites]\n[[one]]\n{base}{options}", "frontends = 1\nmime_types = types")
        if small.process is None:
            small.start()
        else:
            small.ctl("reload")
        return [(a.status, a.field("content-type")) for a in (small.get(path) for path in paths)]

    links = ["/inside"] + (["/foreign"] if ROOT else [])
    note, mine, octets, page = "application/x-note", "text/x-mine", "application/octet-stream", "text/html"
    closed = (403, page + "; charset=utf-8")
    assert answers("", "/a.note", "/a.txt", "/big.bin", *links) == [
        (200, note), (200, mine), (200, octets), (200, octets), *[closed] * (len(links) - 1)
    ]  # fmt: skip
    assert answers("symlinks = deny", *links) == [closed] * len(links)
    assert answers("symlinks = allow", *links) == [(200, octets)] * len(links)
    assert answers("symlinks = allow", "/loop") == [closed]
    assert [status for status, _ in answers("dotfiles = allow", "/.env", "/empty/")] == [200, 404]
    assert [status for status, _ in answers("index = start.htm", "/.env", "/empty/")] == [404, 200]
    for size, status in (("9", 413), ("10", 405)):
        answers(f"max_body = {size}")
        assert small.request("POST", "/a.txt", b"0123456789").status == status
    (small.directory / "public" / "shut").chmod(0o755)


def test_conditions_and_ranges_agree_with_nginx(small: Server) -> None:
    """The same files under both; what differs is in the table below, with the reason."""
    nginx = shutil.which("nginx")
    assert nginx is not None
    small.file("public/empty.txt", "")
    for path in (small.directory / "public").iterdir():
        os.utime(path, (10**9, 10**9))
    small.start()
    port_holder = socket.create_server(("127.0.0.1", 0))
    port = port_holder.getsockname()[1]
    port_holder.close()
    place = small.directory
    temporary = "".join(f"{kind}_temp_path {place}/logs/{kind};" for kind in
                        ("client_body", "proxy", "fastcgi", "scgi", "uwsgi"))  # fmt: skip
    user = "user www-data;" if ROOT else ""
    small.file("nginx.conf", f"""
        daemon off; {user} worker_processes 1; pid {place}/logs/nginx.pid; error_log {place}/logs/nginx.log;
        events {{}}
        http {{ {temporary} access_log off; default_type application/octet-stream; absolute_redirect off;
                server {{ listen 127.0.0.1:{port}; root {place}/public; }} }}
    """)  # fmt: skip
    peer = Server.__new__(Server)
    peer.port = port
    process = subprocess.Popen([nginx, "-c", place / "nginx.conf", "-e", place / "logs" / "nginx.log"])
    try:
        wait_until(lambda: answers_at(port), "nginx answers")
        compare(small, peer)
    finally:
        process.terminate()
        process.wait(20)


def answers_at(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return False
    return True


CHANGED = "Sun, 09 Sep 2001 01:46:40 GMT"
EARLIER = "Sun, 09 Sep 2001 01:46:39 GMT"
LATER = "Sun, 09 Sep 2001 01:46:41 GMT"
RANGES = ("bytes=0-3", "bytes=2-", "bytes=-3", "bytes=-0", "bytes=-99999999", "bytes=99999999999-", "BYTES=0-1",
          "bytes = 0-1", "lines=0-1", "bytes=0-1,4-5", "bytes=0-0,-1", "bytes=0-1,10-", "bytes=0-9999999")  # fmt: skip
CONDITIONS = (
    {"If-None-Match": "ETAG"}, {"If-None-Match": "W/ETAG"}, {"If-None-Match": "*"}, {"If-None-Match": '"x", ETAG'},
    {"If-None-Match": '"x"'}, {"If-Modified-Since": CHANGED}, {"If-Modified-Since": EARLIER},
    {"If-Modified-Since": "junk"}, {"If-None-Match": '"x"', "If-Modified-Since": CHANGED}, {"If-Match": "ETAG"},
    {"If-Match": "*"}, {"If-Match": '"x"'}, {"If-Match": "W/ETAG"}, {"If-Unmodified-Since": CHANGED},
    {"If-Unmodified-Since": EARLIER}, {"If-Unmodified-Since": LATER}, {"Range": "bytes=0-1", "If-Range": "ETAG"},
    {"Range": "bytes=0-1", "If-Range": "W/ETAG"}, {"Range": "bytes=0-1", "If-Range": CHANGED},
    {"Range": "bytes=0-1", "If-Range": EARLIER}, {"Range": "bytes=0-1", "If-Range": '"x"'},
    {"Range": "bytes=0-1", "If-None-Match": "ETAG"}, {"Range": "bytes=20-", "If-Range": '"x"'},
)  # fmt: skip
# Left out above: If-Modified-Since later than the file (nginx wants it exact), malformed dates in If-Unmodified-Since
# (RFC 9110, section 13.1.4: ignored), malformed ranges (14.2: ignored or refused), Range with HEAD (14.2: GET only), a
# range of an empty file (no browser can use a 416), ranges that touch (joined here, 15.3.7.2).


def compare(ours: Server, peer: Server) -> None:
    asked = [("/big.bin", {"Range": value}) for value in RANGES]
    asked += [("/a.txt", {"Range": value}) for value in RANGES if value != "bytes=0-1,10-"]
    asked += [(path, fields) for path in ("/a.txt", "/big.bin") for fields in CONDITIONS]
    asked += [(path, {}) for path in ("/a.txt", "/big.bin", "/empty.txt", "/none", "/a.txt/", "//a.txt", "/%61.txt")]
    for path, fields in asked:
        for method in ("GET",) if "Range" in fields else ("GET", "HEAD"):
            seen = [essence(server, method, path, fields) for server in (ours, peer)]
            assert seen[0] == seen[1], (method, path, fields)


def essence(server: Server, method: str, path: str, fields: dict[str, str]) -> dict[str, Any]:
    """What a client goes by. The entity tag's own text, and how parts are separated, are each server's."""
    etag = str(server.request("GET", "/a.txt" if path == "/none" else path).field("etag"))
    answer = server.request(method, path, None, {name: value.replace("ETAG", etag) for name, value in fields.items()})
    told: dict[str, Any] = {"status": answer.status, "range": answer.field("content-range")}
    if answer.status < 400:
        told["modified"] = answer.field("last-modified")
        told["tag"] = answer.field("etag") == etag
    if answer.status == 200:
        told["length"] = answer.field("content-length")
        told["ranges"] = answer.field("accept-ranges")
    if answer.status < 400:
        told["body"] = parts(answer)
    return told


def parts(answer: Answer) -> list[bytes]:
    kind = str(answer.field("content-type"))
    found = re.fullmatch(r"multipart/byteranges; boundary=(\w+)", kind)
    if found is None:
        return [answer.body]
    pieces = answer.body.split(b"--" + found[1].encode())
    heads = [re.search(rb"content-range: (.*)\r\n", piece, re.I) for piece in pieces[1:-1]]
    return [one[1] if one else b"" for one in heads] + [piece.partition(b"\r\n\r\n")[2] for piece in pieces[1:-1]]
