"""Credentials: where a token is found, and what is left for the upstream when it is cut out."""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import unquote, unquote_plus

from sidecar.model import Denial, Handshake, Reason
from sidecar.policy.matching import MessagePattern
from sidecar.policy.replies import Reply

__all__ = [
    "Authenticate",
    "Credential",
    "MaxWaiting",
    "MessageSource",
    "Source",
    "SourceKind",
    "extract",
    "from_message",
    "why_missing",
]

_BEARER = re.compile(r"bearer(?:[ \t]+(.*))?", re.IGNORECASE | re.DOTALL)
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
# the form that Kubernetes' API server reads
_BASE64URL_PREFIX = "base64url.bearer.authorization.k8s.io."

_Headers = tuple[tuple[str, str], ...]


class SourceKind(StrEnum):
    """The places a token can come in."""

    HEADER = "header"
    COOKIE = "cookie"
    QUERY = "query"
    SUBPROTOCOL = "subprotocol"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Source:
    """One place in the handshake. `name` is the header's (default Authorization), cookie's, query
    parameter's or marker subprotocol's name.
    """

    kind: SourceKind
    name: str


@dataclass(frozen=True, slots=True)
class MaxWaiting:
    """How many accepted sockets of a route may be without a decision: of one client address, and
    in all.
    """

    per_ip: int = 100
    total: int = 1000


@dataclass(frozen=True, slots=True)
class MessageSource:
    """The first message on an accepted socket, which must be of the pattern and come within
    `timeout` seconds. `reply` and `failure` are what a good and a bad token are answered (None:
    nothing).
    """

    pattern: MessagePattern
    timeout: float = 30.0
    reply: Reply | None = None
    failure: Reply | None = None
    max_waiting: MaxWaiting = MaxWaiting()


@dataclass(frozen=True, slots=True)
class Authenticate:
    """A route's rule: which providers (names; None is all) and sources in the handshake, in order;
    whether no token at all is fine; the first message as the last source, where it is one.
    """

    providers: tuple[str, ...] | None
    sources: tuple[Source, ...]
    anonymous: bool = False
    message: MessageSource | None = None


class Credential(NamedTuple):
    """What was found, and the handshake's parts without any credential.

    `token` is None where there was none. `source` says where it came from. `query` is the raw
    query without token parameters, `headers` the fields (in order) without token-carrying
    Authorization values and without the token cookie, `subprotocols` the real ones that are left,
    `echo` the marker to answer with when the upstream selects none.
    """

    token: str | None
    source: SourceKind | None
    query: str
    headers: tuple[tuple[str, str], ...]
    subprotocols: tuple[str, ...]
    echo: str | None

    @property
    def selectable(self) -> str | None:
        """A subprotocol that the client can be told while the upstream has not selected one: a
        browser that offered any fails without. Never one that carries a token.
        """
        return next(iter(self.subprotocols), self.echo)


def extract(handshake: Handshake, sources: Sequence[Source]) -> Credential | Denial:
    """Find the token in the sources and cut it out of all of them.

    Denials: bad_handshake for a repeated token cookie, token_conflict for two different tokens.
    The same token in two places is one token. Sources that a route does not name are not looked
    at. An empty value is no token. A token of any text is handed on: verification judges it.
    Whatever else repeats the token (the Referer of a page whose address has it) goes with it.
    """
    query, headers, subprotocols = handshake.query, handshake.headers, handshake.subprotocols
    echo = None
    found: list[tuple[str, SourceKind]] = []
    for source in sources:
        match source.kind:
            case SourceKind.HEADER:
                tokens, headers = _cut_header(headers, source.name)
            case SourceKind.COOKIE:
                tokens, headers = _cut_cookie(headers, source.name)
                if len(tokens) > 1:
                    return Denial(Reason.BAD_HANDSHAKE, "the token cookie comes more than once")
            case SourceKind.QUERY:
                tokens, query = _cut_query(query, source.name)
            case SourceKind.SUBPROTOCOL:  # pragma: no branch (the handshake has no other kind)
                tokens, subprotocols, marker = _cut_subprotocols(subprotocols, source.name)
                echo = echo or marker
        found += [(token, source.kind) for token in tokens if token]
    if len({token for token, _ in found}) > 1:
        return Denial(Reason.TOKEN_CONFLICT, "the request carries two different tokens")
    if subprotocols != handshake.subprotocols:
        headers = _keep_subprotocols(headers, frozenset(subprotocols))
    if not found:
        return Credential(None, None, query, headers, subprotocols, echo)
    token, kind = found[0]
    return Credential(token, kind, query, _without(token, headers), subprotocols, echo)


def from_message(credential: Credential, token: str) -> Credential:
    """The credential of a handshake that had none, once its first message brought the token."""
    headers = _without(token, credential.headers)
    return credential._replace(token=token, source=SourceKind.MESSAGE, headers=headers)


def _without(token: str, headers: _Headers) -> _Headers:
    return tuple([pair for pair in headers if token not in pair[1]])


def why_missing(handshake: Handshake, sources: Sequence[Source]) -> str:
    """For the log: where `extract` has found no token, by the policy's names, and what is amiss
    with an Authorization that was looked at. What the client sent is not repeated: without its
    scheme, a token stands where the scheme should.
    """
    places = ", ".join(f"{source.kind} {source.name}" for source in sources)
    names = {source.name.lower() for source in sources if source.kind is SourceKind.HEADER}
    hints = [
        f"; {_authorization_hint(value)}"
        for field, value in handshake.headers
        if field.lower() == "authorization" and "authorization" in names
    ]
    return f"no token in {places}{''.join(hints)}"


def _authorization_hint(value: str) -> str:
    if _BEARER.fullmatch(value):
        return "Authorization has Bearer without a token"
    if " " in value:
        return "Authorization has another scheme than Bearer"
    return 'Authorization does not begin with "Bearer "'


def _cut_header(headers: _Headers, name: str) -> tuple[list[str], _Headers]:
    """Tokens in fields of this name (RFC 6750 section 2.1) and the headers without them.

    Authorization with a scheme other than Bearer is somebody else's and stays; any other header
    may hold the token alone.
    """
    tokens, kept = [], []
    wanted = name.lower()
    for field, value in headers:
        if field.lower() != wanted:
            kept.append((field, value))
            continue
        bearer = _BEARER.fullmatch(value)
        if bearer is None and wanted == "authorization":
            kept.append((field, value))
        else:
            tokens.append(bearer[1] or "" if bearer else value)
    return tokens, tuple(kept)


def _cut_cookie(headers: _Headers, name: str) -> tuple[list[str], _Headers]:
    """Values of this cookie (RFC 6265 section 4.2.1) and the headers without it."""
    tokens: list[str] = []
    kept = []
    for field, value in headers:
        if field.lower() != "cookie":
            kept.append((field, value))
            continue
        pairs = value.split(";")
        others = [pair for pair in pairs if not _is_cookie(pair, name)]
        if len(others) == len(pairs):
            kept.append((field, value))
        elif left := ";".join(others).strip(" \t;"):
            kept.append((field, left))
        tokens += [_cookie_value(pair) for pair in pairs if _is_cookie(pair, name)]
    return tokens, tuple(kept)


def _is_cookie(pair: str, name: str) -> bool:
    # white space around the name is not in the grammar, but servers trim it
    found, separator, _ = pair.partition("=")
    return bool(separator) and found.strip() == name


def _cookie_value(pair: str) -> str:
    value = pair.partition("=")[2].strip()
    quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return value[1:-1] if quoted else value


def _cut_query(query: str, name: str) -> tuple[list[str], str]:
    """Decoded values of this parameter and the raw query without it."""
    tokens, kept = [], []
    for parameter in query.split("&"):
        raw_name, _, raw_value = parameter.partition("=")
        if unquote_plus(raw_name) == name:
            tokens.append(unquote(raw_value))  # "+" is a character of RFC 6750 tokens
        else:
            kept.append(parameter)
    return tokens, "&".join(kept)


def _cut_subprotocols(
    offered: tuple[str, ...], marker: str
) -> tuple[list[str], tuple[str, ...], str | None]:
    """Tokens among the offered subprotocols, the real ones, and the marker if it stood alone."""
    tokens, kept, echo = [], [], None
    names = iter(offered)
    for name in names:
        if name == marker:
            tokens.append(next(names, ""))
            echo = marker
        elif name.startswith(_BASE64URL_PREFIX):
            tokens.append(_decode(name.removeprefix(_BASE64URL_PREFIX)))
        elif name.startswith(f"{marker}."):
            tokens.append(name.removeprefix(f"{marker}."))
        else:
            kept.append(name)
    return tokens, tuple(kept), echo


def _decode(encoded: str) -> str:
    """The text of unpadded base64url (RFC 4648 section 5), or as it came where it is not that."""
    if not _BASE64URL.fullmatch(encoded):
        return encoded
    try:
        octets = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except binascii.Error:
        return encoded
    return octets.decode(errors="replace")


def _keep_subprotocols(headers: _Headers, real: frozenset[str]) -> _Headers:
    """The headers with only the real names left in Sec-WebSocket-Protocol."""
    kept = []
    for field, value in headers:
        if field.lower() != "sec-websocket-protocol":
            kept.append((field, value))
        elif left := [name for name in map(str.strip, value.split(",")) if name in real]:
            kept.append((field, ", ".join(left)))
    return tuple(kept)
