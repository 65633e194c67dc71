"""Sizes, times, modes, switches, addresses and host names: what is written reads back, anything else is refused."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webserver.config import Listen, addresses, units


@given(st.integers(0, 10**15 - 1))
def test_sizes_read_back(value: int) -> None:
    assert units.size(units.size_text(value)) == value


@given(st.integers(0, 10**6), st.sampled_from("kKmMgGtT"))
def test_sizes_have_units(value: int, unit: str) -> None:
    assert units.size(f"{value}{unit}") == value * 1024 ** (" kmgt".index(unit.lower()))


@given(st.integers(0, 10**9).map(lambda value: value / 1000))
def test_times_read_back(value: float) -> None:
    assert units.seconds(units.seconds_text(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("500ms", 0.5), ("7ms", 0.007), ("30", 30.0), ("30s", 30.0), ("1.5s", 1.5), ("5m", 300.0), ("1h", 3600.0),
     ("1d", 86400.0), ("2H", 7200.0), ("0", 0.0)],
)  # fmt: skip
def test_times_have_units(text: str, value: float) -> None:
    assert units.seconds(text) == value


@given(st.integers(0, 0o777))
def test_modes_read_back(value: int) -> None:
    assert units.mode(units.mode_text(value)) == value
    assert units.mode("0" + units.mode_text(value)) == value


@given(st.booleans())
def test_switches_read_back(value: bool) -> None:
    assert units.switch(units.switch_text(value)) is value


@pytest.mark.parametrize("word", ["unlimited", "Unlimited"])
def test_unlimited(word: str) -> None:
    assert units.size_or_unlimited(word) == units.UNLIMITED
    assert units.size_or_unlimited_text(units.UNLIMITED) == "unlimited"


def test_none() -> None:
    assert units.seconds_or_none("none") == units.seconds_or_none("0") == 0.0
    assert units.seconds_or_none_text(0.0) == "none"


READERS = [units.whole, units.size, units.seconds, units.mode, units.switch, addresses.host]


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@pytest.mark.parametrize(
    "text", ["", " ", "x", "1 ", " 1", "1_000", "٣", "+1", "1e3", "0x10", "1kk", "1.", "\n1", "1\n", "inf", "nan",
             "9" * 400, "1 k", "- 1"]
)  # fmt: skip
def test_nothing_else_is_read(read: object, text: str) -> None:
    if read is addresses.host and text in ("x", "1_000", "1e3", "0x10", "1kk", "inf", "nan"):
        return  # names that a host may have
    assert callable(read)
    with pytest.raises(ValueError, match=r"(?s).*"):
        read(text)


@given(st.text(max_size=20))
def test_readers_refuse_or_read_back(text: str) -> None:
    pairs = [(units.size, units.size_text), (units.switch, units.switch_text), (units.mode, units.mode_text)]
    for read, write in pairs:
        try:
            value = read(text)  # type: ignore[operator]
        except ValueError:
            continue
        assert read(write(value)) == value  # type: ignore[operator]


@given(st.ip_addresses(v=4), st.integers(1, 65535))
def test_ipv4_addresses_read_back(address: object, port: int) -> None:
    listen = addresses.listen(f"{address}:{port}", "/")
    assert listen == Listen("inet", str(address), port)
    assert addresses.listen(addresses.listen_text(listen), "/") == listen


@given(st.ip_addresses(v=6), st.integers(1, 65535))
def test_ipv6_addresses_read_back(address: object, port: int) -> None:
    listen = addresses.listen(f"[{address}]:{port}", "/")
    assert listen.family == "inet6"
    assert socket.inet_pton(socket.AF_INET6, listen.address) == address.packed  # type: ignore[attr-defined]
    assert addresses.listen(addresses.listen_text(listen), "/") == listen


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        listen = addresses.listen(text, "/base")
    except ValueError:
        return
    assert addresses.listen(addresses.listen_text(listen), "/") == listen
    assert listen.family == "unix" or 1 <= listen.port <= 65535


def test_usual_addresses() -> None:
    assert addresses.listen("*:80", "/") == Listen("inet", "0.0.0.0", 80)
    assert addresses.listen("[::]:80", "/") == Listen("inet6", "::", 80)
    assert addresses.listen("[0:0::1]:80", "/") == Listen("inet6", "::1", 80)
    assert addresses.listen("unix:web.sock", "/srv") == Listen("unix", "/srv/web.sock", 0)
    assert addresses.listen("unix:/run/web.sock", "/srv") == Listen("unix", "/run/web.sock", 0)


def test_a_unix_socket_has_room_for_107_bytes() -> None:
    assert addresses.listen("unix:" + "/" + "x" * 106, "/").family == "unix"
    with pytest.raises(ValueError, match="at most 107"):
        addresses.listen("unix:" + "/" + "é" * 54, "/")


@given(st.text(max_size=40))
def test_a_host_is_lower_case_ascii_or_refused(text: str) -> None:
    try:
        name = addresses.host(text)
    except ValueError:
        return
    assert name.isascii()
    assert name == name.lower() == addresses.host(name)
    assert not set(name) & set(" /:,#\"'") or name.startswith("[")


@pytest.mark.parametrize(
    ("text", "name"),
    [("Example.ORG", "example.org"), ("*.example.org", "*.example.org"), ("*", "*"), ("192.0.2.1", "192.0.2.1"),
     ("[2001:DB8::1]", "[2001:db8::1]"), ("_dmarc.example.org", "_dmarc.example.org"), ("localhost", "localhost")],
)  # fmt: skip
def test_usual_hosts(text: str, name: str) -> None:
    assert addresses.host(text) == name
