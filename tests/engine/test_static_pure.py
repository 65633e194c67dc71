"""Ranges, dates, entity-tags, escaping and path rules as functions, against models that are simpler than they are."""

from __future__ import annotations

import email.utils
import json
import re
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pure_static import pure, text

WHOLE, PARTS, UNSATISFIABLE = 0, 1, 2
NOW = 1_800_000_000  # 2027-01-15


def ranges(value: bytes, size: int) -> tuple[int, list[tuple[int, int]]]:
    ffi, lib = pure()
    out, count = ffi.new("struct range[32]"), ffi.new("size_t *")
    result = lib.ranges_parse(value, len(value), size, out, count)
    return result, [(out[i].first, out[i].size) for i in range(count[0])]


spec = st.one_of(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda p: b"%d-%d" % p),
    st.integers(0, 30).map(lambda n: b"%d-" % n),
    st.integers(0, 30).map(lambda n: b"-%d" % n),
)


@given(st.lists(spec, max_size=6), st.integers(0, 25))
def test_ranges_hold_what_was_asked_for(specs: list[bytes], size: int) -> None:
    result, found = ranges(b"bytes=" + b",".join(specs), size)
    asked: list[range] = []
    valid = bool(specs)
    for one in specs:
        first, last = one.split(b"-")
        if first == b"":
            asked.append(range(max(0, size - int(last)), size))
        elif last == b"":
            asked.append(range(int(first), size))
        else:
            valid = valid and int(first) <= int(last)
            asked.append(range(int(first), min(int(last) + 1, size)))
    wanted = [one for one in asked if len(one) > 0]
    if not valid or size == 0 or sum(map(len, wanted)) > size:
        assert result == WHOLE
    elif not wanted:
        assert result == UNSATISFIABLE
    else:
        assert result == PARTS
        assert set().union(*wanted) == set().union(*(range(first, first + length) for first, length in found))
        assert found[0][0] <= wanted[0][0] < found[0][0] + found[0][1]
        assert sum(length for _, length in found) <= size


@given(st.binary(max_size=40), st.integers(0, 2**64 - 1))
def test_ranges_of_anything(value: bytes, size: int) -> None:
    for whole in (value, b"bytes=" + value):
        result, found = ranges(whole, size)
        assert result in (WHOLE, PARTS, UNSATISFIABLE)
        assert all(length > 0 and first + length <= size for first, length in found)


@given(st.integers(0, 253402300799))
def test_dates_there_and_back(seconds: int) -> None:
    ffi, lib = pure()
    out, back = ffi.new("char[30]"), ffi.new("int64_t *")
    lib.date_format(seconds, out)
    written = ffi.string(out)
    assert written.decode() == email.utils.format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)
    assert lib.date_parse(written, 29, NOW, back) and back[0] == seconds
    when = datetime.fromtimestamp(seconds, UTC)
    asctime = time.asctime(when.utctimetuple()).encode()
    if when.year >= 1000:
        assert lib.date_parse(asctime, len(asctime), NOW, back) and back[0] == seconds


@given(st.integers(0, NOW + 40 * 365 * 86400))
def test_two_digit_years(seconds: int) -> None:
    ffi, lib = pure()
    when = datetime.fromtimestamp(seconds, UTC)
    if when.year <= 1978:  # more than 50 years ago seen from NOW: the digits mean the next century
        return
    value, back = when.strftime("%A, %d-%b-%y %H:%M:%S GMT").encode(), ffi.new("int64_t *")
    assert lib.date_parse(value, len(value), NOW, back) and back[0] == seconds


@pytest.mark.parametrize(
    "value",
    [b"", b"Sun, 06 Nov 1994 08:49:37", b"Sun, 06 Nov 1994 08:49:37 GMT ", b"Sun, 06 Nov 1994 08:49:37 UTC",
     b"Sun, 6 Nov 1994 08:49:37 GMT", b"Sun, 31 Feb 1994 08:49:37 GMT", b"Sun, 00 Nov 1994 08:49:37 GMT",
     b"Sun, 06 Nov 1994 24:49:37 GMT", b"Sun, 06 Nov 1994 08:60:37 GMT", b"Sun, 06 Nov 1994 08:49:61 GMT",
     b"sun, 06 nov 1994 08:49:37 gmt", b"Sun, 06 Nov 94 08:49:37 GMT", b"Sunday, 06-Nov-1994 08:49:37 GMT",
     b"Sun Nov 06 08:49:37 1994 GMT", b"784111777", b"Thu, 29 Feb 1900 00:00:00 GMT"],
)  # fmt: skip
def test_dates_that_are_none(value: bytes) -> None:
    ffi, lib = pure()
    assert not lib.date_parse(value, len(value), NOW, ffi.new("int64_t *"))


@given(st.binary(max_size=40))
def test_dates_of_anything(value: bytes) -> None:
    ffi, lib = pure()
    lib.date_parse(value, len(value), NOW, ffi.new("int64_t *"))


tag = st.tuples(st.booleans(), st.sampled_from([b'"a"', b'"b"', b'""', b'"a,b"', b'"\xff"']))


@given(st.lists(tag, max_size=5), st.sampled_from([b'"a"', b'"a,b"', b'"c"']), st.booleans())
def test_entity_tag_lists(tags: list[tuple[bool, bytes]], wanted: bytes, weakly: bool) -> None:
    _, lib = pure()
    value = b" , ".join((b"W/" if weak else b"") + opaque for weak, opaque in tags)
    expected = any(opaque == wanted and (weakly or not weak) for weak, opaque in tags)
    list_text, keep = text(value)
    wanted_text, keep_wanted = text(wanted)
    assert lib.etag_list_has(list_text, wanted_text, weakly) == expected
    broken, keep_broken = text(value + b',"a')
    assert not lib.etag_list_has(broken, wanted_text, weakly)


@given(st.binary(max_size=60), st.integers(0, 60))
def test_combined_escaping(value: bytes, room: int) -> None:
    ffi, lib = pure()
    out = ffi.new("char[512]")
    size = lib.escape_combined(out, 512, value, len(value)) - out
    written = bytes(ffi.buffer(out, size))
    assert re.fullmatch(rb"(?:[ -!#-\[\]-~]|\\x[0-9a-f]{2})*", written)
    assert written.decode("unicode_escape").encode("latin-1") == value
    short = lib.escape_combined(out, room, value, len(value)) - out
    assert short <= room
    assert written.startswith(bytes(ffi.buffer(out, short)))


@given(st.one_of(st.binary(max_size=60), st.text(max_size=30).map(lambda s: s.encode("utf-8", "surrogatepass"))))
def test_json_escaping(value: bytes) -> None:
    ffi, lib = pure()
    out = ffi.new("char[512]")
    for room in (512, 7):
        size = lib.escape_json(out, room, value, len(value)) - out
        assert size <= room
        written = json.loads(b'"' + bytes(ffi.buffer(out, size)) + b'"')
        try:
            assert room == 7 or written == value.decode()
        except UnicodeDecodeError:
            # What is well formed stays, whatever stands around it.
            assert "\ufffd" in written
            assert written.replace("\ufffd", "") == value.decode(errors="replace").replace("\ufffd", "")


@given(st.lists(st.sampled_from([b"a", b".", b"..", b"...", b".git", b"a.b", b"", b"a\x00"]), max_size=5))
def test_path_rules(segments: list[bytes]) -> None:
    _, lib = pure()
    path = b"/".join(segments)
    value, keep = text(path)
    fine = path != b"" and not path.startswith(b"/") and b"\x00" not in path
    assert lib.path_allowed(value, 0) == (fine and not any(s.startswith(b".") for s in segments))
    assert lib.path_allowed(value, 4) == (fine and not any(s in (b".", b"..") for s in segments))
