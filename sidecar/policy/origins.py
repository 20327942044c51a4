"""Origins: from which web pages a browser may open the socket (RFC 6454, RFC 6455 10.2)."""

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

__all__ = [
    "DEFAULT_PORTS",
    "Origin",
    "OriginPattern",
    "OriginRule",
    "is_address",
    "parse_authority",
]

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([1-9][0-9]{0,4}))?")
# "_" is in no host name of RFC 1123, but in many a container's
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_ORIGIN = re.compile(r"(https?)://(.+)")


def parse_authority(text: str) -> tuple[str, int | None] | None:
    """The host in lower case (IPv6 in brackets, shortest form) and the port of ``host[:port]``.

    None for user-info, a trailing dot, a host that is not ASCII (RFC 5890 A-labels are), an
    address that is none, and a port that is empty, 0, over 65535 or has leading zeros.
    """
    parts = _AUTHORITY.fullmatch(text.lower()) if text.isascii() else None
    host = _host(parts[1]) if parts else None
    if parts is None or host is None:
        return None
    port = int(parts[2]) if parts[2] else None
    return (host, port) if port is None or port <= 65535 else None


def _host(text: str) -> str | None:
    labels = text.split(".")
    try:
        if text.startswith("["):
            return f"[{IPv6Address(text[1:-1]).compressed}]"
        if labels[-1].isdigit():
            return str(IPv4Address(text))
    except ValueError:
        return None
    return text if len(text) <= 253 and all(map(_LABEL.fullmatch, labels)) else None


def is_address(host: str) -> bool:
    """Whether a host that `parse_authority` gave is an IP address and no name."""
    return host.startswith("[") or host.rpartition(".")[2].isdigit()


@dataclass(frozen=True, slots=True)
class Origin:
    """A parsed Origin field: scheme, host in lower case (IPv6 in brackets), effective port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Origin | None":
        """Parse strictly; None for null, user-info, a path, a trailing dot, a list, non-ASCII,
        a scheme other than http and https, a bad port, or anything else that is not an origin.
        """
        # the text is checked for ASCII first: some letters beyond it have ASCII lower cases
        parts = _ORIGIN.fullmatch(text.lower()) if text.isascii() else None
        authority = parse_authority(parts[2]) if parts else None
        if parts is None or authority is None:
            return None
        host, port = authority
        return cls(parts[1], host, port or DEFAULT_PORTS[parts[1]])

    def __str__(self) -> str:
        """The origin as a browser writes it (RFC 6454 section 6.2)."""
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"


@dataclass(frozen=True, slots=True)
class OriginPattern:
    """``https://app.example.com``, ``https://*.example.org`` (one label or more), or ``*``."""

    source: str
    scheme: str
    host: str
    port: int
    subdomains: bool = False
    anything: bool = False

    @classmethod
    def parse(cls, source: str) -> "OriginPattern":
        """Parse a pattern. Raises ValueError with what is wrong and what would be right."""
        if source == "*":
            return cls(source, "", "", 0, anything=True)
        scheme, separator, rest = source.partition("://")
        subdomains = rest.startswith("*.")
        origin = Origin.parse(scheme + separator + rest.removeprefix("*."))
        if origin is None:
            raise ValueError(_mistake(source, scheme, rest.removeprefix("*.")))
        if subdomains and is_address(origin.host):
            raise ValueError('"*." stands before an address; an address has no subdomains')
        return cls(source, origin.scheme, origin.host, origin.port, subdomains)

    def matches(self, origin: Origin) -> bool:
        """Whether the origin fits. ``*`` fits every well-formed one."""
        if self.anything:
            return True
        if (origin.scheme, origin.port) != (self.scheme, self.port):
            return False
        if self.subdomains:
            return origin.host.endswith(f".{self.host}")
        return origin.host == self.host


def _mistake(source: str, scheme: str, rest: str) -> str:
    """What is wrong with a pattern that is no origin, and what would be right."""
    if not rest:
        return "an origin has a scheme and a host; write it as https://app.example.com"
    if scheme.lower() not in DEFAULT_PORTS:
        return "the scheme is not that of a web page; write https:// (or http://)"
    if not source.isascii():
        return "the host is not ASCII; write it in Punycode, as browsers send it (xn--...)"
    if "@" in rest:
        return 'an origin has no user; leave out what stands before "@"'
    if re.search(r"[/?#]", rest):
        return f"an origin has no path; write {scheme}://{re.split(r'[/?#]', rest)[0]}"
    if "*" in rest:
        return '"*" stands for whole labels in front; write https://*.example.com, or * alone'
    return "the host or the port is not valid; write scheme://host or scheme://host:port"


@dataclass(frozen=True, slots=True)
class OriginRule:
    """A route's rule. `allow` None is the same host as the Host field (port included, the
    origin's default port where the Host names none), and https where the client's leg is TLS: a
    page that came in clear may be anybody's. `missing_allowed` lets requests without an
    Origin pass (programs, not browsers); a token from a cookie takes that permission away.
    """

    allow: tuple[OriginPattern, ...] | None = None
    missing_allowed: bool = False
    _exact: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The text that browsers send for the patterns that one origin fits: no need to parse it.
        single = [one for one in self.allow or () if not (one.anything or one.subdomains)]
        texts = {str(Origin(one.scheme, one.host, one.port)) for one in single}
        object.__setattr__(self, "_exact", frozenset(texts))

    def permits(self, origin: str, host: str, *, secure: bool) -> bool:
        """Whether a request with this Origin field, sent to this Host (over TLS or not), passes."""
        if origin in self._exact:
            return True
        parsed = Origin.parse(origin)
        if parsed is None:
            return False
        if self.allow is None:
            return _same_host(parsed, host) and (parsed.scheme == "https" or not secure)
        return any(pattern.matches(parsed) for pattern in self.allow)


def _same_host(origin: Origin, host: str) -> bool:
    authority = parse_authority(host)
    if authority is None:
        return False
    name, port = authority
    return (origin.host, origin.port) == (name, port or DEFAULT_PORTS[origin.scheme])
