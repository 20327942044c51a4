"""The grammar of values: durations, sizes, rates, addresses, and the other small texts.

Each parser takes what the YAML gave and raises `BadValueError` with what is wrong and what would be
right. Durations are in seconds, sizes in bytes.
"""

import difflib
import re
from collections.abc import Callable, Iterable
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple

from sidecar.policy.compiled import Address
from sidecar.policy.peers import Network
from sidecar.policy.pointers import ClaimPath

__all__ = [
    "MAX_WORKERS",
    "BadValueError",
    "RateValue",
    "address",
    "byte_rate",
    "choice",
    "close_code",
    "count_rate",
    "did_you_mean",
    "duration",
    "header_name",
    "identifier",
    "network",
    "own_reason",
    "pointer",
    "positive",
    "show",
    "size",
    "text",
    "workers",
]

MAX_WORKERS: Final = 256


class BadValueError(ValueError):
    """A value that its key cannot take: `wrong` says why, `remedy` what would be right."""

    def __init__(self, wrong: str, remedy: str) -> None:
        self.wrong = wrong
        self.remedy = remedy
        super().__init__(f"{wrong}; {remedy}")


class RateValue(NamedTuple):
    """`amount` (a count or bytes) each `seconds`."""

    amount: int
    seconds: int


_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER: Final = r"([0-9]{1,9}(?:\.[0-9]{1,6})?)"
_DURATION: Final = re.compile(
    "".join(rf"(?:{_NUMBER}{unit})?" for unit in ("d", "h", "m(?!s)", "s", "ms"))
)
_SIZES: Final = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE: Final = re.compile(r"([0-9]{1,12})([KMGT]i?B|B)")
_PERIODS: Final = {"second": 1, "minute": 60, "hour": 3600}
_COUNT: Final = re.compile(r"[0-9]{1,12}")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_REASON: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/]+)):([0-9]{1,5})")
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_CLOSE_CODES: Final = frozenset({1000, 1001, 1008, 1011, 1012, 1013, 1014, *range(3000, 5000)})


def show(value: object) -> str:
    """A value for a message: short, on one line, quoted where it is text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, str):
        shown = value if len(value) <= 60 else f"{value[:57]}..."
        return f"'{shown}'" if shown.isprintable() else ascii(shown)
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else str(value)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """The known name that is nearest to a misspelt one, where one is near."""
    folded = {candidate.replace("-", "_").lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name[:64].replace("-", "_").lower(), folded, n=1)
    return folded[near[0]] if near else None


def duration(value: object) -> float:
    """``30s``, ``1h30m``, ``250ms``: units from large to small, each at most once."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None or not value:
        raise BadValueError(
            f"{show(value)} is not a duration", "write a number with its unit: 250ms, 30s, 1h30m"
        )
    factors = _UNITS.values()
    return sum(
        float(number) * factor
        for number, factor in zip(match.groups(), factors, strict=True)
        if number
    )


def positive(parse: Callable[[object], float]) -> Callable[[object], float]:
    """The parser, without zero."""

    def parse_positive(value: object) -> float:
        parsed = parse(value)
        if not parsed:
            raise BadValueError(f"{show(value)} is zero", "give more than zero")
        return parsed

    return parse_positive


def size(value: object) -> int:
    """``512B``, ``64KiB``, ``100KB``: KB is 1000 bytes, KiB 1024; never zero."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise BadValueError(
            f"{show(value)} is not a size",
            "write a whole number with its unit: 512B, 64KiB, 1MiB, 100KB",
        )
    if not int(match[1]):
        raise BadValueError(f"{show(value)} is zero", "give more than zero")
    return int(match[1]) * _SIZES[match[2]]


def count_rate(value: object) -> RateValue:
    """``100/second``, ``60/minute``, ``10/hour``."""
    return _rate(value, _count, "100/second, 60/minute or 10/hour")


def byte_rate(value: object) -> RateValue:
    """``1MiB/second``: a size each second, minute or hour."""
    return _rate(value, size, "1MiB/second, 100KiB/second or 10MB/minute")


def _count(value: object) -> int:
    if not (isinstance(value, str) and _COUNT.fullmatch(value) and int(value)):
        raise BadValueError(f"{show(value)} is not a count of at least 1", "write a whole number")
    return int(value)


def _rate(value: object, amount: Callable[[object], int], examples: str) -> RateValue:
    count, _, period = value.partition("/") if isinstance(value, str) else ("", "", "")
    try:
        return RateValue(amount(count), _PERIODS[period])
    except (BadValueError, KeyError):
        raise BadValueError(f"{show(value)} is not a rate", f"write {examples}") from None


def address(value: object) -> Address:
    """``host:port``, ``[v6]:port`` or ``unix:/path.sock``."""
    if isinstance(value, str) and value.startswith("unix:/") and "\0" not in value:
        return Address(unix=value.removeprefix("unix:"))
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match and int(match[3]) <= 65535:
        host = match[1] or match[2]
        if _is_ip(host, version=6) if match[1] else _HOST.fullmatch(host):
            return Address(host.lower(), int(match[3]))
    raise BadValueError(
        f"{show(value)} is not an address",
        "write host:port such as 127.0.0.1:8080, [::1]:8080, or unix:/path.sock",
    )


def _is_ip(host: str, version: int) -> bool:
    try:
        return ip_address(host).version == version
    except ValueError:
        return False


def network(value: object) -> Network:
    """An IP network in CIDR form, or one address."""
    try:
        found = ip_network(text(value), strict=True)
    except ValueError as error:
        if "host bits" in str(error):
            right = ip_network(text(value), strict=False)
            raise BadValueError(
                f"{show(value)} has bits beyond its mask", f"write {right}"
            ) from None
        raise BadValueError(
            f"{show(value)} is not a network", "write a CIDR such as 10.0.0.0/8 or fd00::/8"
        ) from None
    if found.version == 6 and found.subnet_of(_MAPPED):
        bits = found.prefixlen - _MAPPED.prefixlen
        raise BadValueError(
            f"{show(value)} would never match: addresses in it are taken as the IPv4 ones",
            f"write {found.network_address.ipv4_mapped}/{bits}",
        )
    return found


def text(value: object) -> str:
    """Text that is not empty."""
    if not isinstance(value, str):
        if isinstance(value, dict):
            raise BadValueError("is a mapping where text belongs", 'put quotes around it: "{…}"')
        # The value is not repeated: it may be a secret.
        raise BadValueError("is not text", "put quotes around it if it is meant as text")
    if not value:
        raise BadValueError("is empty", "give it a text or remove the key")
    return value


def _matching(pattern: re.Pattern[str], value: object, wrong: str, remedy: str) -> str:
    name = text(value)
    if not pattern.fullmatch(name):
        raise BadValueError(f"{show(name)} {wrong}", remedy)
    return name


def header_name(value: object) -> str:
    """A field name (RFC 9110 section 5.1)."""
    return _matching(
        _TOKEN, value, "is not a header name", "use letters, digits and hyphens: X-User-Id"
    )


def identifier(value: object) -> str:
    """The name of a route, provider or upstream: it becomes a label of metrics."""
    return _matching(
        _IDENTIFIER,
        value,
        "is not a usable name",
        "use at most 64 letters, digits, _ . and -, beginning with a letter or digit",
    )


def own_reason(value: object) -> str:
    """A rule's own reason, which clients see."""
    return _matching(
        _REASON,
        value,
        "is not a usable reason",
        "use at most 64 lower-case letters, digits and _: not_a_member",
    )


def pointer(value: object) -> ClaimPath:
    """A place in a message: an RFC 6901 JSON pointer."""
    source = text(value)
    if not source.startswith("/"):
        raise BadValueError(
            f"{show(source)} is not a pointer", "begin it with a slash, such as /data/token"
        )
    try:
        return ClaimPath.parse(source)
    except ValueError as error:
        wrong, _, remedy = str(error).partition("; ")
        raise BadValueError(wrong, remedy) from None


def close_code(value: object) -> int:
    """A code that a close frame may carry for a refusal or a restart (RFC 6455 section 7.4)."""
    if isinstance(value, bool) or not isinstance(value, int) or value not in _CLOSE_CODES:
        raise BadValueError(
            f"{show(value)} is not a close code that may be sent here",
            "use 4000-4999, 3000-3999, or one of 1000, 1001, 1008, 1011-1014",
        )
    return value


def workers(value: object) -> int | None:
    """A number of processes; None for `auto`."""
    if value == "auto":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_WORKERS:
        raise BadValueError(
            f"{show(value)} is not a number of workers", f"give 1 to {MAX_WORKERS}, or auto"
        )
    return value


def choice(*known: str, later: tuple[str, ...] = ()) -> Callable[[object], str]:
    """A parser for one word of a closed set; those of `later` are not supported yet."""

    def parse(value: Any) -> str:
        if value in known:
            return str(value)
        words = " or ".join(known)
        if value in later:
            raise BadValueError(f"{show(value)} is not supported yet", f"use {words}")
        raise BadValueError(f"{show(value)} is not one of its values", f"use {words}")

    return parse
