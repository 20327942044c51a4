"""The one place that builds the upstream's request head.

Every header of the upstream's request is on an allow-list; identity headers are set or absent,
never the client's.
"""

import math
import re
import unicodedata
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote

from sidecar.policy.canonical import canonical_json
from sidecar.policy.pointers import ClaimPath

__all__ = [
    "NEVER_FORWARDED",
    "OWN_HEADERS",
    "Encoding",
    "ForwardToken",
    "IdentityHeader",
    "IdentityRules",
    "Sign",
    "build_head",
    "encode_value",
    "fold_name",
    "never_forwarded",
]

NEVER_FORWARDED: Final = frozenset(
    # Hop-by-hop and framing (RFC 9110 7.6.1, RFC 9112 6): they belong to the client's own leg.
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "content-length", "expect", "http2-settings"}
    | {"proxy-authenticate", "proxy-authorization", "proxy-authentication-info"}
    # CGI programs read a field Proxy as the variable HTTP_PROXY.
    | {"proxy"}
    # The handshake's own, which `build_head` writes itself.
    | {"host", "origin", "sec-websocket-key", "sec-websocket-version", "sec-websocket-accept"}
    | {"sec-websocket-protocol", "sec-websocket-extensions"}
)
"""Folded names of client headers that are never copied, whatever the policy names; nor is any
further name that starts with `proxy-` or `sec-websocket-` (see `never_forwarded`).
"""

OWN_HEADERS: Final = frozenset({"x-forwarded-for", "x-forwarded-proto", "x-request-id"})
"""Folded names of the headers that the sidecar sets itself."""

_MAX_TEXT: Final = 1024
_MAX_JSON: Final = 8 * 1024

_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))
_KEPT: Final = _VISIBLE.replace("%", "") + " "

_FOLD: Final = str.maketrans("_. \t", "----")

# What percent-encoding leaves as it is: visible ASCII but "%", with inner spaces.
_PLAIN: Final = re.compile(r"[!-$&-~](?:[ -$&-~]*[!-$&-~])?")
_TARGET: Final = re.compile(r"[\x21-\x7e]+")
# RFC 9110 5.5: visible ASCII, obs-text, inner spaces and tabs.
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Encoding(StrEnum):
    """How a claim becomes a header value."""

    TEXT = "text"
    BASE64URL_JSON = "base64url-json"


@dataclass(frozen=True, slots=True)
class IdentityHeader:
    """One header for the upstream.

    `claim` None with `user` True is the user's name; None with `user` False is all claims.
    `join` joins a list's elements (a list without `join` is refused for TEXT).
    """

    name: str
    user: bool = False
    claim: ClaimPath | None = None
    join: str | None = None
    encode: Encoding = Encoding.TEXT


@dataclass(frozen=True, slots=True)
class ForwardToken:
    """Hand the token on in this header (as `Bearer <token>` where it is Authorization)."""

    header: str


@dataclass(frozen=True, slots=True)
class Sign:
    """A fresh identity JWT for the upstream, signed by the named provider's key. ttl in seconds."""

    provider: str
    ttl: float
    header: str


@dataclass(frozen=True, slots=True)
class IdentityRules:
    """What the upstream is told of the identity. `names` holds the folded names of every header
    that these rules may inject.
    """

    headers: tuple[IdentityHeader, ...] = ()
    forward_token: ForwardToken | None = None
    sign: Sign | None = None

    names: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        injected = [header.name for header in self.headers]
        injected += [self.forward_token.header] if self.forward_token else []
        injected += [self.sign.header] if self.sign else []
        object.__setattr__(self, "names", frozenset(map(fold_name, injected)))


def fold_name(name: str) -> str:
    """The name as a careless server may read it: lower case, ``_``, ``.`` and spaces as ``-``,
    without outer spaces.
    """
    return name.strip(" \t").translate(_FOLD).lower()


def never_forwarded(name: str) -> bool:
    """Whether a client's header of this name is never copied to the upstream."""
    folded = fold_name(name)
    return folded in NEVER_FORWARDED or folded.startswith(("proxy-", "sec-websocket-"))


def encode_value(value: Any, join: str | None, encoding: Encoding) -> str | None:
    """A claim value as a header value of visible ASCII and inner spaces; None: leave it out.

    Text beyond ASCII, "%" itself and outer spaces are UTF-8 percent-encoded (RFC 3986 section 2.1).
    JSON null and, as text, an empty list are None. true and false are "true" and "false", integral
    numbers have no point. BASE64URL_JSON is canonical JSON in base64url without padding (RFC 4648
    section 5).

    Raises ValueError, without the value in its text, for what is refused: control characters, lone
    surrogates, over 1 KiB encoded (8 KiB for base64url-json), empty text, a mapping or a list
    without `join` or encoding, a list whose joined text splits into other elements.
    """
    if value is None:
        return None
    if encoding is Encoding.BASE64URL_JSON:
        encoded = urlsafe_b64encode(canonical_json(value)).rstrip(b"=").decode()
        return _within(encoded, _MAX_JSON)
    if isinstance(value, list) and join and not value:
        return None
    text = _joined(value, join) if isinstance(value, list) else _scalar(value)
    return _within(_percent_encoded(text), _MAX_TEXT)


def _joined(elements: Sequence[Any], join: str | None) -> str:
    if not join:
        raise ValueError("a list needs `join` to become one text")
    texts = [_scalar(element) for element in elements]
    text = join.join(texts)
    if text.split(join) != texts:
        raise ValueError("an element holds the text that joins the elements")
    return text


def _scalar(value: Any) -> str:
    match value:
        case "":
            raise ValueError("empty text")
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if value.is_integer():
            return str(int(value))
        case float() if math.isfinite(value):
            return repr(value)
    raise ValueError("neither text, a finite number nor a boolean")


def _percent_encoded(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    # Cc are the control characters of Latin-1 too, Cs the lone surrogates.
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        raise ValueError("a control character or half a surrogate pair")
    inner = text.strip(" ")
    start = text.index(inner)
    end = len(text) - len(inner) - start
    return "%20" * start + quote(inner, safe=_KEPT) + "%20" * end


def _within(encoded: str, limit: int) -> str:
    if len(encoded) > limit:
        raise ValueError(f"over {limit} bytes")
    return encoded


def build_head(
    *,
    target: str,
    host: str,
    key: str,
    origin: str | None,
    subprotocols: Sequence[str],
    client_headers: Sequence[tuple[str, str]],
    forward: frozenset[str],
    own: Mapping[str, str],
    identity: Mapping[str, str],
    identity_names: frozenset[str],
) -> bytes:
    """The upstream's request head, ending with an empty line (RFC 6455 section 4.1).

    In this order: the request line, Host, Upgrade, `Connection: Upgrade`, the Sec-WebSocket-*
    fields, Origin, the allowed client headers (`forward` holds names in lower case), `own` (the
    sidecar's X-Forwarded-For, X-Forwarded-Proto, X-Request-Id), then `identity`.

    A client header is copied where it has such a name to the letter (case aside: with `user-agent`,
    `User_Agent` is not copied), where that name is neither in `identity_names` nor the sidecar's
    own nor `never_forwarded`, and where its value holds no control character but tabs: else the
    header is left out. Sec-WebSocket-Extensions is never sent: what was not offered cannot be
    accepted. Raises ValueError where any other part could not stand on its line.
    """
    if not _TARGET.fullmatch(target):
        raise ValueError("the request target is not visible ASCII")
    fields = [("Host", host), ("Upgrade", "websocket"), ("Connection", "Upgrade")]
    fields += [("Sec-WebSocket-Key", key), ("Sec-WebSocket-Version", "13")]
    fields += [("Sec-WebSocket-Protocol", ", ".join(subprotocols))] if subprotocols else []
    fields += [("Origin", origin)] if origin is not None else []
    fields += _allowed(client_headers, forward, identity_names)
    fields += [*own.items(), *identity.items()]
    _check_values(fields)
    lines = [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def _allowed(
    headers: Sequence[tuple[str, str]], forward: frozenset[str], injected: frozenset[str]
) -> Iterator[tuple[str, str]]:
    ours = injected | OWN_HEADERS
    for name, value in headers:
        if name.lower() not in forward or fold_name(name) in ours or never_forwarded(name):
            continue
        if _VALUE.fullmatch(value):
            yield name, value


def _check_values(fields: Sequence[tuple[str, str]]) -> None:
    together = "".join([value for _, value in fields])
    if together.isascii() and together.isprintable():
        return  # as nearly always: all of it is visible ASCII and spaces
    for name, value in fields:
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of {name} cannot stand in a header")
