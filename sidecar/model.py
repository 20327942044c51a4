"""The nouns of the program: frozen values, no behaviour.

A handshake comes in as a `Handshake`; pure functions turn it into a `Permit` or a `Denial`;
only a `Permit` can dial the upstream. What every handshake makes is a NamedTuple: as frozen as a
frozen dataclass, and made in a third of the time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

__all__ = [
    "CloseCode",
    "Denial",
    "Handshake",
    "Identity",
    "Peer",
    "Permit",
    "Reason",
]


class Reason(StrEnum):
    """Why a handshake was refused or a connection ended: one closed set for responses,
    close frames, logs, metrics and tests. `proxy.refusals` maps each to its status and code.
    """

    # the handshake
    BAD_HANDSHAKE = "bad_handshake"
    NO_ROUTE = "no_route"
    TLS_REQUIRED = "tls_required"
    ORIGIN_DENIED = "origin_denied"
    ORIGIN_MISSING = "origin_missing"
    TOKEN_MISSING = "token_missing"
    TOKEN_INVALID = "token_invalid"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_REVOKED = "token_revoked"
    TOKEN_CONFLICT = "token_conflict"
    CLAIMS_DENIED = "claims_denied"
    OVERLOADED = "overloaded"
    DRAINING = "draining"
    STATE_UNAVAILABLE = "state_unavailable"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_REFUSED = "upstream_refused"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    INTERNAL_ERROR = "internal_error"
    # the live connection
    PROTOCOL_ERROR = "protocol_error"
    MESSAGE_TOO_BIG = "message_too_big"
    MESSAGE_RATE = "message_rate"
    UPSTREAM_LOST = "upstream_lost"
    AUTH_TIMEOUT = "auth_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    HEARTBEAT_TIMEOUT = "heartbeat_timeout"
    SESSION_LIFETIME = "session_lifetime"
    KICKED = "kicked"


class CloseCode(IntEnum):
    """Close codes that the sidecar itself sends or records (RFC 6455 section 7.4 and the
    IANA registry; 44xx are the product's own, formed like the HTTP status they stand for).
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    NO_STATUS = 1005
    ABNORMAL = 1006
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    BAD_REQUEST = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    NOT_FOUND = 4404
    SESSION_OVER = 4408
    TOO_MANY_REQUESTS = 4429


@dataclass(frozen=True, slots=True)
class Denial:
    """A decision against the client.

    `reason` is public: it is the body's `reason` and the close frame's text. `rule` is the name
    that an authorize rule gave itself; where it is set, it is public instead of the reason's
    name. `detail` is for the log alone and never holds a token, a cookie or a query.
    """

    reason: Reason
    detail: str = ""
    rule: str | None = None


class Peer(NamedTuple):
    """Who is at the other end of the accepted socket.

    `address` is the client's IP address (or "unix") after trusted proxies were believed,
    `secure` whether the client's own leg is TLS.
    """

    address: str
    secure: bool


class Handshake(NamedTuple):
    """A request for upgrade that is valid by RFC 6455 section 4.2.1.

    `path` and `query` are the raw ASCII of the request target; `query` is without its "?" and
    "" where there is none. `headers` holds every field in the client's order and spelling;
    values are the bytes as Latin-1 text, without surrounding white space. `host` is the Host
    field in lower case, `subprotocols` the offered names in order.
    """

    path: str
    query: str
    host: str
    headers: tuple[tuple[str, str], ...]
    key: str
    origin: str | None
    subprotocols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified token: who the client is.

    `user` is the text of the claim that names the user, `expires_at` the token's end in seconds
    since the epoch (None where the policy lets tokens without one pass), `token_id` its jti.
    """

    user: str
    claims: Mapping[str, Any]
    provider: str
    expires_at: float | None
    token_id: str | None


class Permit(NamedTuple):
    """An admitted handshake. Nothing without one can be dialled.

    `head` is the whole request head for the upstream, ready to be written. `key` is the
    Sec-WebSocket-Key in it, `offered` the subprotocols in it. `echo` is the subprotocol that the
    client is told when the upstream selects none (a browser that offered `bearer, <token>`
    fails without an answer). `shadowed` names the rules that failed but are not enforced.
    `identity` is None for an anonymous client.
    """

    route: str
    upstream: str
    head: bytes
    key: str
    offered: tuple[str, ...]
    echo: str | None
    identity: Identity | None
    shadowed: tuple[str, ...] = ()
