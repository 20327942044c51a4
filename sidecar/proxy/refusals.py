"""The one table from a reason to what the client is told: HTTP status, close code, body."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from sidecar.model import CloseCode, Denial, Reason

__all__ = [
    "REFUSALS",
    "HttpRefusal",
    "Refusal",
    "closable",
    "close_code",
    "http_refusal",
    "public_name",
]


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a reason looks from outside. None: it never takes that form.

    `retry_after` is in seconds.
    """

    status: int | None
    code: int | None
    retry_after: int | None = None


REFUSALS: Final[Mapping[Reason, Refusal]] = {
    Reason.BAD_HANDSHAKE: Refusal(400, None),
    Reason.NO_ROUTE: Refusal(404, CloseCode.NOT_FOUND),
    Reason.TLS_REQUIRED: Refusal(403, CloseCode.FORBIDDEN),
    Reason.ORIGIN_DENIED: Refusal(403, CloseCode.FORBIDDEN),
    Reason.ORIGIN_MISSING: Refusal(403, CloseCode.FORBIDDEN),
    Reason.TOKEN_MISSING: Refusal(401, CloseCode.UNAUTHORIZED),
    Reason.TOKEN_INVALID: Refusal(401, CloseCode.UNAUTHORIZED),
    Reason.TOKEN_EXPIRED: Refusal(401, CloseCode.UNAUTHORIZED),
    Reason.TOKEN_REVOKED: Refusal(401, CloseCode.UNAUTHORIZED),
    Reason.TOKEN_CONFLICT: Refusal(400, CloseCode.BAD_REQUEST),
    Reason.CLAIMS_DENIED: Refusal(403, CloseCode.FORBIDDEN),
    Reason.OVERLOADED: Refusal(503, CloseCode.TRY_AGAIN_LATER, retry_after=5),
    Reason.DRAINING: Refusal(503, CloseCode.SERVICE_RESTART, retry_after=1),
    Reason.STATE_UNAVAILABLE: Refusal(503, CloseCode.TRY_AGAIN_LATER, retry_after=5),
    Reason.UPSTREAM_UNREACHABLE: Refusal(502, CloseCode.BAD_GATEWAY),
    Reason.UPSTREAM_REFUSED: Refusal(502, CloseCode.BAD_GATEWAY),
    Reason.UPSTREAM_TIMEOUT: Refusal(504, CloseCode.BAD_GATEWAY),
    Reason.INTERNAL_ERROR: Refusal(500, CloseCode.INTERNAL_ERROR),
    Reason.PROTOCOL_ERROR: Refusal(None, CloseCode.PROTOCOL_ERROR),
    Reason.MESSAGE_TOO_BIG: Refusal(None, CloseCode.MESSAGE_TOO_BIG),
    Reason.MESSAGE_RATE: Refusal(None, CloseCode.TOO_MANY_REQUESTS),
    Reason.UPSTREAM_LOST: Refusal(None, CloseCode.BAD_GATEWAY),
    Reason.AUTH_TIMEOUT: Refusal(None, CloseCode.SESSION_OVER),
    Reason.IDLE_TIMEOUT: Refusal(None, CloseCode.SESSION_OVER),
    Reason.HEARTBEAT_TIMEOUT: Refusal(None, CloseCode.SESSION_OVER),
    Reason.SESSION_LIFETIME: Refusal(None, CloseCode.SESSION_OVER),
    Reason.KICKED: Refusal(None, CloseCode.FORBIDDEN),
}

_CHALLENGES: Final[Mapping[Reason, str]] = {
    # RFC 6750 section 3.1: no error code where no token was given.
    Reason.TOKEN_MISSING: "Bearer",
    Reason.TOKEN_INVALID: 'Bearer error="invalid_token"',
    Reason.TOKEN_EXPIRED: 'Bearer error="invalid_token"',
    Reason.TOKEN_REVOKED: 'Bearer error="invalid_token"',
}


@dataclass(frozen=True, slots=True)
class HttpRefusal:
    """An HTTP answer: status, header fields and the body of an application/problem+json."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def public_name(denial: Denial) -> str:
    """What the client is told: the rule's own reason where it has one."""
    return denial.rule or denial.reason.value


def closable(reason: Reason) -> bool:
    """Whether this reason can be told in a close frame (of an accepted handshake)."""
    return REFUSALS[reason].code is not None


def close_code(
    reason: Reason, rule: str | None = None, overrides: Mapping[str, int] | None = None
) -> int:
    """The close code for a reason; a route's `refuse.codes` come first, a rule's own name before
    the reason's. Raises KeyError for a reason that is never told in a close frame.
    """
    names = (rule, reason.value) if rule else (reason.value,)
    for name in names:
        if overrides and name in overrides:
            return overrides[name]
    code = REFUSALS[reason].code
    if code is None:
        raise KeyError(reason)
    return int(code)


def http_refusal(
    denial: Denial, request_id: str, *, unsupported_version: bool = False
) -> HttpRefusal:
    """The HTTP answer to a refused handshake (RFC 9457 problem details)."""
    entry = REFUSALS[denial.reason]
    status = entry.status or HTTPStatus.INTERNAL_SERVER_ERROR.value
    headers = {
        "Cache-Control": "no-store",
        "Content-Type": "application/problem+json",
        "Server": "ws-sidecar",
    }
    if unsupported_version:
        status = HTTPStatus.UPGRADE_REQUIRED.value
        headers["Sec-WebSocket-Version"] = "13"
        headers["Upgrade"] = "websocket"
    if entry.retry_after is not None:
        headers["Retry-After"] = str(entry.retry_after)
    if denial.reason in _CHALLENGES:
        headers["WWW-Authenticate"] = _CHALLENGES[denial.reason]
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "reason": public_name(denial),
        "request_id": request_id,
    }
    return HttpRefusal(status, headers, json.dumps(problem).encode())
