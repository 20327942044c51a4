"""Tokens' facts and revocations of them."""

from typing import Any

from sidecar.state.base import Kind, Revocation, Subject

NOW = 1_700_000_000.0


def subject(**facts: Any) -> Subject:
    """Alice's token of the provider app, issued a minute before NOW; some facts replaced."""
    defaults: dict[str, Any] = {
        "provider": "app",
        "user": "alice",
        "sub": "u-1",
        "sid": "s-1",
        "jti": "t-1",
        "issued_at": NOW - 60,
    }
    return Subject(**{**defaults, **facts})


def revocation(kind: Kind = Kind.USER, value: str = "alice", **fields: Any) -> Revocation:
    """One of every token of alice, remembered for an hour from NOW; some fields replaced."""
    defaults: dict[str, Any] = {
        "id": f"{kind}-{value}",
        "kind": kind,
        "value": value,
        "provider": None,
        "before": None,
        "created_at": NOW,
        "expires_at": NOW + 3600,
    }
    return Revocation(**{**defaults, **fields})
