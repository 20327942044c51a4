import socket
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.proxy_protocol import (
    MAX_V1_LINE,
    PREFIX_SIZE,
    V2_HEAD_REST,
    is_v1,
    is_v2,
    parse_v1,
    parse_v2,
    v2_body_size,
)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
PORTS = st.integers(0, 65535)
V4 = st.ip_addresses(v=4).map(str)
V6 = st.ip_addresses(v=6).map(str)


def head(version: int = 2, command: int = 1, family: int = 0x11, size: int = 12) -> bytes:
    """What follows the signature."""
    return struct.pack("!BBH", version << 4 | command, family, size)


def test_the_versions_are_told_apart_by_the_same_number_of_bytes() -> None:
    assert len(SIGNATURE) == PREFIX_SIZE
    assert is_v2(SIGNATURE)
    assert not is_v1(SIGNATURE)
    assert is_v1(b"PROXY TCP4 1")
    assert not is_v2(b"PROXY TCP4 1")


@pytest.mark.parametrize("prefix", [b"GET /ws HTTP", b"proxy tcp4 1", b"PROXY\tTCP4 1", bytes(12)])
def test_anything_else_is_no_header(prefix: bytes) -> None:
    assert not is_v1(prefix)
    assert not is_v2(prefix)


@given(V4, V4, PORTS, PORTS)
def test_version_1_tells_an_ipv4_address(source: str, to: str, port: int, to_port: int) -> None:
    assert parse_v1(f"PROXY TCP4 {source} {to} {port} {to_port}\r\n".encode()) == source


@given(V6, V6, PORTS, PORTS)
def test_version_1_tells_an_ipv6_address(source: str, to: str, port: int, to_port: int) -> None:
    line = f"PROXY TCP6 {source} {to} {port} {to_port}\r\n".encode()
    assert len(line) <= MAX_V1_LINE
    told = parse_v1(line)
    assert told is not None
    assert ip_address(told) == ip_address(source)


@pytest.mark.parametrize("rest", [b"", b" ffff::1 ffff::2 1 2", b" whatever follows"])
def test_version_1_may_leave_the_client_unknown(rest: bytes) -> None:
    assert parse_v1(b"PROXY UNKNOWN" + rest + b"\r\n") is None


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2",
        b"\r\n",
        b"PROXY\r\n",
        b"PROXY \r\n",
        b"PROXIES UNKNOWN\r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 elsewhere 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 123456\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 99999 2\r\n",
        b"PROXY TCP6 fe80::1%\x1b[2J ::1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4\r\nX: 5.6.7.8 1 2\r\n",
        "PROXY TCP4 １.2.3.4 5.6.7.8 1 2\r\n".encode(),
    ],
)
def test_a_crooked_line_of_version_1_is_an_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_v1(line)


@given(st.binary(max_size=120))
def test_any_line_of_version_1_is_an_address_or_an_error(rest: bytes) -> None:
    for line in (rest, b"PROXY " + rest + b"\r\n", b"PROXY TCP6 " + rest + b" ::1 1 1\r\n"):
        try:
            told = parse_v1(line)
        except ValueError:
            continue
        assert told is None or ip_address(told)


@given(st.ip_addresses(v=4), PORTS, st.binary(max_size=40))
def test_version_2_tells_an_ipv4_address(source: object, port: int, extensions: bytes) -> None:
    body = socket.inet_aton(str(source)) + bytes(4) + struct.pack("!HH", port, 80) + extensions
    assert parse_v2(head(size=len(body)), body) == str(source)


@given(st.ip_addresses(v=6), PORTS, st.binary(max_size=40))
def test_version_2_tells_an_ipv6_address(source: object, port: int, extensions: bytes) -> None:
    packed = socket.inet_pton(socket.AF_INET6, str(source))
    body = packed + bytes(16) + struct.pack("!HH", port, 80) + extensions
    told = parse_v2(head(family=0x21), body)
    assert told is not None
    assert ip_address(told) == source


def test_the_proxys_own_health_check_has_no_client() -> None:
    assert parse_v2(head(command=0), b"") is None


@pytest.mark.parametrize("family", [0x00, 0x31, 0x40])
def test_a_family_without_ip_addresses_has_no_client(family: int) -> None:
    assert parse_v2(head(family=family), bytes(216)) is None


@pytest.mark.parametrize(("family", "size"), [(0x11, 11), (0x21, 35), (0x11, 0)])
def test_addresses_that_are_cut_off_are_an_error(family: int, size: int) -> None:
    with pytest.raises(ValueError, match="cut off"):
        parse_v2(head(family=family, size=size), bytes(size))


@pytest.mark.parametrize("command", [2, 15])
def test_an_unknown_command_of_version_2_is_an_error(command: int) -> None:
    with pytest.raises(ValueError, match="neither LOCAL nor PROXY"):
        parse_v2(head(command=command), bytes(12))


def test_the_head_of_version_2_tells_how_much_follows() -> None:
    assert len(head()) == V2_HEAD_REST
    assert v2_body_size(head(size=0)) == 0
    assert v2_body_size(head(size=2048)) == 2048


@pytest.mark.parametrize(
    ("crooked", "why"),
    [(head(version=1), "version"), (head(version=3), "version"), (head(size=2049), "too long")],
)
def test_a_crooked_head_of_version_2_is_an_error(crooked: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        v2_body_size(crooked)


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=60))
def test_any_header_of_version_2_is_an_address_or_an_error(start: bytes, body: bytes) -> None:
    try:
        told = parse_v2(start, body[: v2_body_size(start)])
    except ValueError:
        return
    assert told is None or ip_address(told)
