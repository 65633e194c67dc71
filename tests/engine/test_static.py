"""Files through the engine, seen by a client: which file a path means, conditions, ranges, freshness, refusals."""

from __future__ import annotations

import email
import email.policy
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from static_host import EngineHost
from webserver.engine._engine import ffi, lib

BIG = bytes(range(256)) * 4096  # 1 MiB: not kept in memory
FRESH_SECONDS = 3  # a change must show after one; the rest is for a slow machine


def files_rule(method: bytes, host: bytes, path: bytes) -> dict[str, object]:
    """Every path from root 1, below "/"; after that a plain 404."""
    return {"scope": lib.SCOPE_PREFIX, "prefix": b"/", "choices": [(lib.CHOICE_FILE, 1, 1)]}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_bytes(b"0123456789")
    (root / "big.bin").write_bytes(BIG)
    (root / "empty.txt").write_bytes(b"")
    (root / "sub" / "index.html").write_bytes(b"<p>index")
    (root / ".secret").write_bytes(b"secret")
    (root / "sub" / ".git").mkdir()
    (root / "sub" / ".git" / "config").write_bytes(b"secret")
    (tmp_path / "outside.txt").write_bytes(b"outside")
    age(root)
    return root


def age(root: Path) -> None:
    """Files written long ago: their times can be trusted."""
    for name in root.rglob("*"):
        if not name.is_symlink():
            os.utime(name, ns=(0, 1_000_000_000_123_456_789))


@pytest.fixture
def host(site: Path) -> Iterator[EngineHost]:
    one = EngineHost(files_rule)
    one.root(1, site, lib.ROOT_SYMLINKS_DENY, (b"index.html",))
    assert lib.engine_mime(one.engine, b"txt", b"text/plain") == 0
    assert lib.engine_mime(one.engine, b".html", b"text/html; charset=utf-8") == 0
    yield one
    one.close()


def test_small_and_large(host: EngineHost) -> None:
    answer = host.ask("/a.txt")
    assert (answer.status, answer.body) == (200, b"0123456789")
    assert answer.field("content-type") == "text/plain"
    assert answer.field("last-modified") == "Sun, 09 Sep 2001 01:46:40 GMT"
    assert answer.field("etag") == f'"{1_000_000_000_123_456_789:x}-a"'
    assert answer.field("accept-ranges") == "bytes"
    answer = host.ask("/big.bin")
    assert (answer.status, answer.body) == (200, BIG)
    assert answer.field("content-type") == "application/octet-stream"
    answer = host.ask("/empty.txt")
    assert (answer.status, answer.body, answer.field("content-length")) == (200, b"", "0")
    assert len(host.asked) == 1


def test_head(host: EngineHost) -> None:
    for path, size in (("/a.txt", 10), ("/big.bin", len(BIG))):
        answer = host.ask(path, "HEAD")
        assert (answer.status, answer.field("content-length")) == (200, str(size))


def test_keep_alive_and_pipelining(host: EngineHost) -> None:
    stream = host.connect()
    stream.send(b"GET /a.txt HTTP/1.1\r\nHost: h\r\n\r\nHEAD /big.bin HTTP/1.1\r\nHost: h\r\n\r\n" * 3)
    for _ in range(3):
        first, second = stream.answer(), stream.answer(head=True)
        assert first is not None and first.body == b"0123456789"
        assert second is not None and second.field("content-length") == str(len(BIG))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods(host: EngineHost, method: str) -> None:
    answer = host.ask("/a.txt", method, "Content-Length: 3\r\n", "abc")
    assert (answer.status, answer.field("allow")) == (405, "GET, HEAD, OPTIONS")
    assert host.ask("/none", method, "Content-Length: 3\r\n", "abc").status == 404


def test_options(host: EngineHost) -> None:
    answer = host.ask("/a.txt", "OPTIONS")
    assert (answer.status, answer.field("allow")) == (204, "GET, HEAD, OPTIONS")


def test_body_too_large(host: EngineHost) -> None:
    assert host.ask("/a.txt", "POST", "Content-Length: 1001\r\n").status == 413


@pytest.mark.parametrize(
    "path",
    ["/none", "/none/", "/a.txt/", "/a.txt/x", "/.secret", "/sub/.git/config", "/sub/.git/", "/.", "/" + "x" * 300,
     "/" + "y/" * 4000, "/sub//..%2f..%2foutside.txt", "/%2e%2e/outside.txt", "/.%2e/outside.txt", "/..%5coutside.txt"],
)  # fmt: skip
def test_not_found(host: EngineHost, path: str) -> None:
    assert host.ask(path).status in (400, 404)


def test_dot_files_when_allowed(host: EngineHost, site: Path) -> None:
    host.root(1, site, lib.ROOT_SYMLINKS_DENY | lib.ROOT_DOTFILES, (b"index.html",))
    assert host.ask("/.secret").body == b"secret"
    assert host.ask("/sub/.git/config").body == b"secret"
    assert host.ask("/sub/..%2f..%2foutside.txt").status in (400, 404)


def test_directories(host: EngineHost) -> None:
    answer = host.ask("/sub?q=1")
    assert answer.status == 301
    assert str(answer.field("location")).endswith("/sub/?q=1")
    assert host.ask("/sub/").body == b"<p>index"
    assert host.ask("/sub/").field("content-type") == "text/html; charset=utf-8"
    assert host.ask("/sub//").body == b"<p>index"
    assert host.ask("/").status == 404


def test_special_files(host: EngineHost, site: Path) -> None:
    os.mkfifo(site / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(site / "sock"))
        assert host.ask("/fifo").status == 404
        assert host.ask("/sock").status == 404


# ---- links


def test_links(host: EngineHost, site: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (site / "inside").symlink_to("a.txt")
    (site / "out").symlink_to("../outside.txt")
    (site / "absolute").symlink_to(site.parent / "outside.txt")
    (site / "loop").symlink_to("loop")
    (site / "dangling").symlink_to("nothing")
    (site / "linked").symlink_to("sub")
    (site / "proc").symlink_to("/proc/self/root")
    assert [host.ask(f"/{name}").status for name in ("inside", "out", "absolute", "loop")] == [403] * 4
    assert host.ask("/linked/index.html").status == 403
    assert "symlinks = deny" in capfd.readouterr().err
    for rule in (lib.ROOT_SYMLINKS_OWNER, lib.ROOT_SYMLINKS_ALLOW):
        host.root(1, site, rule, (b"index.html",))
        assert host.ask("/inside").body == b"0123456789"
        assert host.ask("/out").body == b"outside"
        assert host.ask("/absolute").body == b"outside"
        assert host.ask("/linked/index.html").body == b"<p>index"
        assert host.ask("/linked").status == 301
        assert host.ask("/loop").status == 403
        assert host.ask("/dangling").status == 404
    assert host.ask(f"/proc{site}/a.txt").status == 403  # a magic link, also where links are allowed


def test_owner_of_links(host: EngineHost, site: Path) -> None:
    """Only root can make files of two owners; others find theirs by looking at what root made."""
    host.root(1, site, lib.ROOT_SYMLINKS_OWNER)
    if os.geteuid() == 0:
        (site / "foreign").symlink_to("a.txt")
        os.lchown(site / "foreign", 65534, 65534)
        (site / "chain").symlink_to("foreign")
        (site / "directory").symlink_to("sub")
        os.lchown(site / "directory", 65534, 65534)
        names = ["foreign", "chain", "directory/index.html"]
    else:
        (site / "foreign").symlink_to("/etc/hostname")
        names = ["foreign"]
    assert [host.ask(f"/{name}").status for name in names] == [403] * len(names)


def test_unreadable(host: EngineHost, site: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() == 0:
        return  # root reads everything; tests/ with real users show this row
    (site / "a.txt").chmod(0)
    assert host.ask("/a.txt").status == 403
    assert "may not read" in capfd.readouterr().err


# ---- conditions


def test_conditions(host: EngineHost) -> None:
    etag = host.ask("/a.txt").field("etag")
    date, earlier = "Sun, 09 Sep 2001 01:46:40 GMT", "Sun, 09 Sep 2001 01:46:39 GMT"
    table = [
        (f"If-None-Match: {etag}\r\n", 304),
        (f"If-None-Match: W/{etag}\r\n", 304),
        (f'If-None-Match: "x", {etag}\r\n', 304),
        (f'If-None-Match: "x"\r\nIf-None-Match: {etag}\r\n', 304),
        ("If-None-Match: *\r\n", 304),
        ('If-None-Match: "x"\r\n', 200),
        (f'If-None-Match: "x"\r\nIf-Modified-Since: {date}\r\n', 200),
        (f"If-Modified-Since: {date}\r\n", 304),
        (f"If-Modified-Since: {earlier}\r\n", 200),
        ("If-Modified-Since: yesterday\r\n", 200),
        (f"If-Modified-Since: {date}\r\nIf-Modified-Since: {date}\r\n", 200),
        (f"If-Match: {etag}\r\n", 200),
        ("If-Match: *\r\n", 200),
        (f"If-Match: W/{etag}\r\n", 412),
        ('If-Match: "x"\r\n', 412),
        (f"If-Unmodified-Since: {date}\r\n", 200),
        (f"If-Unmodified-Since: {earlier}\r\n", 412),
        (f"If-Match: {etag}\r\nIf-Unmodified-Since: {earlier}\r\n", 200),
        (f"If-Match: {etag}\r\nIf-None-Match: {etag}\r\n", 304),
    ]
    for fields, status in table:
        answer = host.ask("/a.txt", fields=fields)
        assert answer.status == status, fields
        if status == 304:
            assert answer.field("etag") == etag
            assert answer.field("content-type") is None
            assert answer.field("content-length") is None
            assert host.ask("/a.txt", "HEAD", fields).status == 304


# ---- ranges


def test_single_ranges(host: EngineHost) -> None:
    for path, content in (("/a.txt", b"0123456789"), ("/big.bin", BIG)):
        size = len(content)
        table = [
            ("bytes=0-3", 0, 3), ("bytes=2-", 2, size - 1), ("bytes=-3", size - 3, size - 1), ("BYTES=5-5", 5, 5),
            (f"bytes=3-{10**30}", 3, size - 1), (f"bytes=-{10**30}", 0, size - 1), ("bytes=0-1,2-3", 0, 3),
            ("bytes=, 1-2 ,", 1, 2),
        ]  # fmt: skip
        for value, first, last in table:
            answer = host.ask(path, fields=f"Range: {value}\r\n")
            assert (answer.status, answer.body) == (206, content[first : last + 1]), value
            assert answer.field("content-range") == f"bytes {first}-{last}/{size}"


def test_ranges_that_do_not_count(host: EngineHost) -> None:
    for value in ("bytes=3-2", "bytes=a-b", "lines=0-1", "bytes=0-9,0-9", "bytes=" + ",".join(["1-1"] * 33), "bytes="):
        answer = host.ask("/a.txt", fields=f"Range: {value}\r\n")
        assert (answer.status, answer.body) == (200, b"0123456789"), value
    assert host.ask("/a.txt", fields="Range: bytes=0-1\r\nRange: bytes=0-1\r\n").status == 200
    assert host.ask("/empty.txt", fields="Range: bytes=0-\r\n").status == 200
    assert host.ask("/a.txt", "HEAD", "Range: bytes=0-1\r\n").field("content-length") == "10"


def test_unsatisfiable_range(host: EngineHost) -> None:
    answer = host.ask("/a.txt", fields="Range: bytes=10-\r\n")
    assert (answer.status, answer.field("content-range")) == (416, "bytes */10")
    assert host.ask("/a.txt", fields="Range: bytes=-0\r\n").status == 416


@pytest.mark.parametrize("path", ["/a.txt", "/big.bin"])
def test_several_ranges(host: EngineHost, path: str) -> None:
    whole = host.ask(path).body
    answer = host.ask(path, fields="Range: bytes=0-1,4-5,-2\r\n")
    assert answer.status == 206
    kind = str(answer.field("content-type"))
    boundary = re.fullmatch(r"multipart/byteranges; boundary=([0-9a-f]{32})", kind)
    assert boundary is not None
    assert host.ask(path, fields="Range: bytes=0-1,4-5,-2\r\n").field("content-type") != kind
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + answer.body, policy=email.policy.HTTP)
    parts = [(str(part["Content-Range"]), part.get_payload(decode=True)) for part in message.iter_parts()]  # type: ignore[attr-defined]
    size = len(whole)
    assert parts == [
        (f"bytes 0-1/{size}", whole[0:2]),
        (f"bytes 4-5/{size}", whole[4:6]),
        (f"bytes {size - 2}-{size - 1}/{size}", whole[-2:]),
    ]


def test_if_range(host: EngineHost) -> None:
    etag, date = host.ask("/a.txt").field("etag"), "Sun, 09 Sep 2001 01:46:40 GMT"
    for value, status in ((etag, 206), (date, 206), (f"W/{etag}", 200), ('"x"', 200), ("nonsense", 200),
                          ("Sun, 09 Sep 2001 01:46:41 GMT", 200)):  # fmt: skip
        assert host.ask("/a.txt", fields=f"Range: bytes=0-1\r\nIf-Range: {value}\r\n").status == status, value


# ---- freshness


def until(host: EngineHost, path: str, status: int, body: bytes | None = None) -> float:
    """Ask until the answer is this one. Seconds it took."""
    start = time.monotonic()
    while True:
        answer = host.ask(path)
        if answer.status == status and body in (None, answer.body):
            return time.monotonic() - start
        assert time.monotonic() - start < FRESH_SECONDS, (answer.status, answer.body[:100])


def test_changes_show_within_a_second(host: EngineHost, site: Path) -> None:
    for name in ("a.txt", "big.bin"):
        host.ask(f"/{name}")
        (site / name).write_bytes(b"rewritten!")  # a.txt: same size as before
        until(host, f"/{name}", 200, b"rewritten!")
        (site / "new").write_bytes(b"renamed over")
        (site / "new").rename(site / name)
        until(host, f"/{name}", 200, b"renamed over")
        (site / name).unlink()
        until(host, f"/{name}", 404)
        (site / name).write_bytes(b"back")
        until(host, f"/{name}", 200, b"back")
        (site / name).unlink()
        (site / name).symlink_to("../outside.txt")
        until(host, f"/{name}", 403)


def test_root_is_replaced(host: EngineHost, site: Path) -> None:
    assert host.ask("/a.txt").body == b"0123456789"
    site.rename(site.parent / "old")
    until(host, "/a.txt", 404)
    site.mkdir()
    (site / "a.txt").write_bytes(b"deployed")
    until(host, "/a.txt", 200, b"deployed")


def test_two_writes_in_one_tick_of_the_clock(host: EngineHost, site: Path) -> None:
    """A file that is young when it is read is read again, even if its times are as they were."""
    times = time.time_ns()
    (site / "a.txt").write_bytes(b"one")
    os.utime(site / "a.txt", ns=(times, times))
    until(host, "/a.txt", 200, b"one")
    (site / "a.txt").write_bytes(b"two")
    os.utime(site / "a.txt", ns=(times, times))
    until(host, "/a.txt", 200, b"two")


def test_file_shrinks_while_it_is_sent(host: EngineHost, site: Path) -> None:
    size = 64 << 20
    with open(site / "shrinks", "wb") as file:
        file.truncate(size)
    stream = host.connect()
    stream.send(b"GET /shrinks HTTP/1.1\r\nHost: h\r\n\r\n")
    head = stream.head()
    assert head is not None and head[0] == 200
    os.truncate(site / "shrinks", 1000)
    with pytest.raises((EOFError, ConnectionResetError)):
        stream.exactly(size)


def test_many_files(host: EngineHost, site: Path) -> None:
    """More than the cache holds (10), small and large: each is right, and descriptors stay bounded."""
    before = len(os.listdir("/proc/self/fd"))
    for i in range(50):
        (site / f"small{i}").write_bytes(b"%d" % i)
        (site / f"large{i}").write_bytes(b"%d" % i * 20000)
    for _ in range(2):
        for i in range(50):
            assert host.ask(f"/small{i}").body == b"%d" % i
            assert host.ask(f"/large{i}").body == b"%d" % i * 20000
            assert host.ask(f"/none{i}").status == 404
    host.drain_turns()
    assert len(os.listdir("/proc/self/fd")) - before <= 12


def test_known_files_are_not_looked_at_again(host: EngineHost) -> None:
    stream = host.connect()
    stream.send(b"GET /a.txt HTTP/1.1\r\nHost: h\r\n\r\nGET /none HTTP/1.1\r\nHost: h\r\n\r\n" * 5)
    for _ in range(10):
        assert stream.answer() is not None
    assert host.stat("files_missed") <= 4
    assert host.stat("files_hit") >= 6


def test_client_resets_in_the_middle(host: EngineHost) -> None:
    for _ in range(3):
        stream = host.connect()
        stream.send(b"GET /big.bin HTTP/1.1\r\nHost: h\r\n\r\n")
        stream.head()
        client = host.clients.pop()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        host.drain_turns()
    assert host.ask("/a.txt").status == 200


def test_invalid_tables(host: EngineHost) -> None:
    engine, none = host.engine, ffi.NULL
    assert lib.engine_root(engine, 2, b"relative", 0, none, 0, none, 0) == lib.ENGINE_INVALID
    assert lib.engine_root(engine, 2, b"/x", 3, none, 0, none, 0) == lib.ENGINE_INVALID
    assert lib.engine_root(engine, 2, b"", 0, none, 0, none, 0) == 0
    assert lib.engine_root(engine, 0xFFFFFFFF, b"/x", 0, none, 0, none, 0) == lib.ENGINE_INVALID
    for extension, kind in ((b"", b"a/b"), (b"x" * 40, b"a/b"), (b"x", b"nothing"), (b"x", b"a/b\r\nX: y")):
        assert lib.engine_mime(engine, extension, kind) == lib.ENGINE_INVALID
