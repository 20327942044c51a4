"""Tells the audit log and the metrics what was done through the admin listener."""

from sidecar.model import Denial
from sidecar.observe.audit import Action, AuditLog, Event
from sidecar.observe.metrics import Metrics
from sidecar.state.base import Kind, Outcome, Revocation

__all__ = ["ActionRecorder"]


class ActionRecorder:
    """The one place that writes actions down. `address` is where each came from."""

    def __init__(self, audit: AuditLog, metrics: Metrics) -> None:
        self._audit = audit
        self._metrics = metrics

    def revoked(self, outcome: Outcome, address: str) -> None:
        """Revocations were added; the log says with the first how many connections all ended."""
        closed: int | None = outcome.closed
        for revocation in outcome.revocations:
            self._metrics.revocation(revocation.kind)
            self._audit.action(_action(Event.REVOCATION_ADDED, revocation, address, closed))
            closed = None

    def withdrawn(self, revocation: Revocation, address: str) -> None:
        """A revocation was taken back."""
        self._audit.action(_action(Event.REVOCATION_WITHDRAWN, revocation, address, None))

    def kicked(self, identifier: str, address: str) -> None:
        """A connection was ended."""
        self._audit.action(Action(Event.KICKED, address, connection_id=identifier))

    def logout_taken(self) -> None:
        """A logout token was good, and what it revokes is recorded as `revoked`."""
        self._metrics.logout_token("ok")

    def logout_put_off(self) -> None:
        """A logout token was not looked at, after too many that were no good."""
        self._metrics.logout_token("refused")

    def logout_refused(self, denial: Denial, address: str) -> None:
        """A logout token was not taken."""
        self._metrics.logout_token(denial.reason)
        self._audit.action(Action(Event.LOGOUT_REFUSED, address, detail=denial.detail))


def _action(event: Event, revocation: Revocation, address: str, closed: int | None) -> Action:
    named = {revocation.kind: revocation.value}
    return Action(
        event,
        address,
        revocation_id=revocation.id,
        kind=revocation.kind,
        provider=revocation.provider,
        user=named.get(Kind.USER, named.get(Kind.SUB)),
        session_id=named.get(Kind.SID),
        token_id=named.get(Kind.JTI),
        before=revocation.before,
        closed=closed,
        detail=revocation.reason,
    )
