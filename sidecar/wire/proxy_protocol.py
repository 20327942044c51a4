"""The PROXY protocol's header (HAProxy's specification, versions 1 and 2): whom a proxy speaks for.

The header stands before everything else on a connection, also before TLS, and is read from the
bare socket in exact pieces so that not a byte behind it is taken.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

__all__ = [
    "MAX_V1_LINE",
    "PREFIX_SIZE",
    "V2_HEAD_REST",
    "is_v1",
    "is_v2",
    "parse_v1",
    "parse_v2",
    "v2_body_size",
]

PREFIX_SIZE: Final = 12
"""Bytes that tell the versions apart; the shortest header of either is longer."""

V2_HEAD_REST: Final = 4
"""Bytes of version 2's fixed head behind the signature."""

MAX_V1_LINE: Final = 107
"""Bytes of the longest line of version 1, with its CR LF."""

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_MAX_V2_BODY: Final = 2048

_FAMILIES: Final = {"TCP4": IPv4Address, "TCP6": IPv6Address}
_PORT: Final = re.compile(r"[0-9]{1,5}")

# Version 2's address families: length of one address.
_ADDRESS_SIZE: Final = {1: 4, 2: 16}


def is_v1(prefix: bytes) -> bool:
    """Whether a header of version 1 begins with these bytes."""
    return prefix.startswith(b"PROXY ")


def is_v2(prefix: bytes) -> bool:
    """Whether a header of version 2 begins with these bytes."""
    return prefix == _SIGNATURE


def parse_v1(line: bytes) -> str | None:
    """The client's address from a whole line; None for UNKNOWN. Raises ValueError."""
    if not line.endswith(b"\r\n"):
        raise ValueError("the line does not end with CR LF")
    words = line[:-2].decode("ascii", "replace").split(" ")
    if words[:2] == ["PROXY", "UNKNOWN"]:
        return None
    if len(words) != 6 or words[0] != "PROXY" or words[1] not in _FAMILIES:
        raise ValueError("not PROXY TCP4|TCP6 source destination port port")
    parse = _FAMILIES[words[1]]
    source, _ = parse(words[2]), parse(words[3])
    if "%" in words[2]:
        raise ValueError("an address with a zone")
    if any(_PORT.fullmatch(port) is None or int(port) > 65535 for port in words[4:]):
        raise ValueError("not a port")
    return str(source)


def v2_body_size(head: bytes) -> int:
    """How many bytes follow the fixed head (`head`: what is behind the signature). Raises
    ValueError for another version or a body of unreasonable size.
    """
    if head[0] >> 4 != 2:
        raise ValueError("not version 2")
    size = int.from_bytes(head[2:4], "big")
    if size > _MAX_V2_BODY:
        raise ValueError("the header is too long")
    return size


def parse_v2(head: bytes, body: bytes) -> str | None:
    """The client's address; None for LOCAL (the proxy's own health check) and for families
    without an IP address. Raises ValueError.
    """
    command = head[0] & 0x0F
    if command == 0:
        return None
    if command != 1:
        raise ValueError("neither LOCAL nor PROXY")
    size = _ADDRESS_SIZE.get(head[1] >> 4)
    if size is None:
        return None
    if len(body) < 2 * size + 4:
        raise ValueError("the addresses are cut off")
    return str(ip_address(body[:size]))
