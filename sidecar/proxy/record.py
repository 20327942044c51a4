"""Tells the audit log and the metrics what happened: one decision for each handshake, one close
for each connection.
"""

import asyncio
import secrets
from typing import Final

from sidecar.clock import Clock
from sidecar.model import Denial, Handshake, Identity, Permit, Reason
from sidecar.observe.audit import Action, AuditLog, Closure, Decision, Event
from sidecar.observe.metrics import Metrics
from sidecar.policy.routes import Route
from sidecar.proxy.refusals import public_name
from sidecar.proxy.relay import Link

__all__ = ["CLIENT_LEFT", "Attempt", "Recorder"]

CLIENT_LEFT: Final = Denial(Reason.BAD_HANDSHAKE, "the client left during the handshake")


class Attempt:
    """What is known of a handshake so far.

    `address` and `secure` (TLS) are the socket's until the client behind it is known.
    `identifier` is its request id, and its connection's. `keeps_place` says that something that
    outlives the handshake holds its place among the connections. `waited` seconds of it were the
    client's own, for its first message.
    """

    __slots__ = (
        "address",
        "handshake",
        "identifier",
        "identity",
        "keeps_place",
        "path",
        "route",
        "secure",
        "started",
        "waited",
    )

    def __init__(self, address: str, *, secure: bool = False) -> None:
        self.identifier = secrets.token_hex(8)
        self.started = asyncio.get_running_loop().time()
        self.address = address
        self.secure = secure
        self.path = ""
        self.route: Route | None = None
        self.identity: Identity | None = None
        self.handshake: Handshake | None = None
        self.keeps_place = False
        self.waited = 0.0


class Recorder:
    """The one place that writes down decisions and ends."""

    def __init__(self, audit: AuditLog, metrics: Metrics, clock: Clock) -> None:
        self._audit = audit
        self._metrics = metrics
        self._clock = clock

    def refused(self, attempt: Attempt, denial: Denial) -> None:
        """A handshake was refused."""
        self._decision(attempt, denial=denial, permit=None)

    def dialled(self, permit: Permit, denial: Denial | None, seconds: float) -> None:
        """An upstream was dialled; `denial` says why in vain."""
        outcome = denial.reason.value if denial else "ok"
        self._metrics.upstream_connect(permit.upstream, seconds, outcome)

    def allowed(self, attempt: Attempt, permit: Permit) -> None:
        """A handshake became a connection."""
        self._decision(attempt, denial=None, permit=permit)
        self._metrics.opened(permit.route)
        for label in permit.shadowed:
            self._metrics.shadow_denial(permit.route, label)
        if permit.identity is not None and permit.identity.expires_at is not None:
            left = permit.identity.expires_at - self._clock.time()
            self._metrics.token_expiry(permit.route, left)

    def refreshed(self, link: Link, denial: Denial | None) -> None:
        """A live connection brought another token; `denial` says why it was not taken."""
        self._metrics.refresh(link.route, public_name(denial) if denial else "ok")
        identity = link.identity
        self._audit.action(
            Action(
                Event.REFRESH_REFUSED if denial else Event.REFRESHED,
                link.address,
                reason=public_name(denial) if denial else None,
                provider=identity.provider if identity else None,
                user=identity.user if identity else None,
                token_id=identity.token_id if identity else None,
                connection_id=link.identifier,
                detail=denial.detail if denial else "",
            )
        )

    def ended(self, link: Link) -> None:
        """A connection is over."""
        closing = link.closing
        assert closing is not None  # noqa: S101  # a link ends through one
        seconds = self._clock.monotonic() - link.opened
        route, identity = link.route, link.identity
        self._metrics.closed(route, closing.code, closing.by, closing.reason, seconds)
        if closing.by == "sidecar" and closing.reason is not None:
            self._metrics.violation(route, closing.reason)
        client, upstream = link.client.meter, link.upstream.meter
        self._audit.closed(
            Closure(
                connection_id=link.identifier,
                request_id=link.identifier,
                route=route,
                user=identity.user if identity else None,
                code=closing.code,
                by=closing.by,
                reason=closing.reason,
                detail=closing.detail,
                seconds=seconds,
                client_messages=client.messages,
                client_bytes=client.payload_bytes,
                upstream_messages=upstream.messages,
                upstream_bytes=upstream.payload_bytes,
            )
        )

    def _decision(self, attempt: Attempt, denial: Denial | None, permit: Permit | None) -> None:
        seconds = asyncio.get_running_loop().time() - attempt.started
        route = attempt.route.name if attempt.route else None
        reason = public_name(denial) if denial else None
        outcome = "refused" if denial else "allowed"
        self._metrics.handshake(route, outcome, reason, seconds - attempt.waited)
        identity = attempt.identity
        self._audit.decision(
            Decision(
                allowed=denial is None,
                reason=denial.reason.value if denial else None,
                rule=denial.rule if denial else None,
                detail=denial.detail if denial else "",
                route=route,
                user=identity.user if identity else None,
                provider=identity.provider if identity else None,
                token_id=identity.token_id if identity else None,
                address=attempt.address,
                path=attempt.path,
                request_id=attempt.identifier,
                connection_id=attempt.identifier if permit else None,
                shadowed=permit.shadowed if permit else (),
                seconds=seconds,
            )
        )
