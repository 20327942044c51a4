"""Who the client is, seen through trusted proxies."""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from sidecar.model import Peer

__all__ = ["Network", "counted_as", "resolve_peer"]

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address

_MAX_HOPS = 32
"""Proxies in a row that are looked at; who sends more wants to keep the process busy."""

_LOOPBACK = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
# RFC 7239 section 6: an address with an optional port, which may be obfuscated
_NODE = re.compile(r"(?:\[([^\[\]]+)\]|([0-9.]+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")
_PAIR = re.compile(
    r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)|"((?:[^"\\]|\\.)*)")"""
)


def resolve_peer(
    address: str,
    secure: bool,
    headers: Sequence[tuple[str, str]],
    trusted: Sequence[Network],
) -> Peer:
    """The client behind the accepted socket.

    `address` is the socket's (after the PROXY protocol, where used; "unix" for a Unix socket,
    which is trusted only where `trusted` holds the loopback address), `secure` whether TLS ends
    here. Where the address is trusted, X-Forwarded-For (or Forwarded, RFC 7239) is walked from
    the right past trusted addresses; the first that is not trusted is the client. A hop that is
    not an IP address ends the walk at the last good one. X-Forwarded-Proto (or Forwarded's proto)
    counts only from a trusted peer: its last value. Where both Forwarded and X-Forwarded-* are
    present, X-Forwarded-* count. IPv4 addresses mapped to IPv6 are IPv4 addresses.
    """
    if not trusted and ":" not in address:
        return Peer(address, secure)  # an IPv4 address as the kernel writes it, or "unix"
    client = _parse_address(address)
    if not _is_trusted(_LOOPBACK if address == "unix" else (client,), trusted):
        return Peer(str(client or address), secure)
    hops, protocols = _forwarding(headers)
    for hop in reversed(hops):
        found = _parse_node(hop)
        if found is None:
            break
        client = found
        if not _is_trusted((found,), trusted):
            break
    if protocols and protocols[-1]:
        secure = protocols[-1].lower() in ("https", "wss")
    return Peer(str(client or address), secure)


def counted_as(address: str) -> str | None:
    """What stands for a client where clients are counted: the /64 of an IPv6 address, all of which
    one client may have; None for a Unix socket, which anybody may be behind.
    """
    if ":" not in address:
        return None if address == "unix" else address
    return str(IPv6Network((address, 64), strict=False))


def _parse_address(text: str) -> _Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    # without the scope ("%eth0"): the zone is this machine's name for a link
    return address.ipv4_mapped or IPv6Address(int(address))


def _parse_node(text: str) -> _Address | None:
    node = _NODE.fullmatch(text)
    return _parse_address(node[1] or node[2] if node else text)


def _is_trusted(addresses: Iterable[_Address | None], trusted: Sequence[Network]) -> bool:
    return any(
        address is not None and address in network for address in addresses for network in trusted
    )


def _forwarding(headers: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """The hops and the protocols that proxies report, the nearest proxy's last."""
    hops = _list(headers, "x-forwarded-for")
    protocols = _list(headers, "x-forwarded-proto")
    if hops or protocols:
        return hops, protocols
    elements = [_parse_element(element) for element in _list(headers, "forwarded")]
    return [e.get("for", "") for e in elements], [e.get("proto", "") for e in elements]


def _list(headers: Sequence[tuple[str, str]], name: str) -> list[str]:
    """The last elements of a list field (RFC 9110 section 5.6.1), over all fields of the name."""
    joined = ",".join(value for field, value in headers if field.lower() == name)
    elements = joined.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]
    return [element for element in map(str.strip, elements) if element]


def _parse_element(element: str) -> dict[str, str]:
    """The parameters of one element of Forwarded (RFC 7239 section 4); {} where it is malformed.

    The client writes what stands on the left, so an open quote there must not swallow what a
    proxy appended: elements end at every comma and parameters at every semicolon, even in quotes.
    Neither stands in an address or a protocol.
    """
    parameters: dict[str, str] = {}
    for text in filter(None, map(str.strip, element.split(";"))):
        pair = _PAIR.fullmatch(text)
        if pair is None or pair[1].lower() in parameters:
            return {}
        parameters[pair[1].lower()] = pair[2] or re.sub(r"\\(.)", r"\1", pair[3])
    return parameters
