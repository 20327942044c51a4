"""Logout tokens of OpenID Connect Back-Channel Logout 1.0: an issuer says that a session is over.

Pure: time comes in as `now`. A logout token is checked like any token of its provider (signature,
iss, aud, times; section 2.6), and beyond that:

- the provider names an issuer: without one nobody could say whose session is meant;
- `typ` is logout+jwt, JWT or absent (section 4.1 lets issuers leave it out);
- iss, aud, iat and jti are there, and iat is at most five minutes old, so that a name to tell a
  replay by has to be remembered for no longer. `exp` counts where it is there: the errata of 2023
  require it, and issuers that are older leave it out;
- `events` is an object with the logout event, whose value is an object; there is no `nonce`, so
  that no ID token passes; and there is a `sub`, a `sid` or both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from sidecar.auth.verify import LOGOUT_EVENT, LOGOUT_TYPE, Refused, Unverified, check, name_text
from sidecar.model import Denial
from sidecar.policy.compiled import TokenRules
from sidecar.policy.keys import VerificationKey
from sidecar.policy.providers import Provider
from sidecar.state.base import Kind, Once, Revocation, moment_after
from sidecar.state.retention import retention

__all__ = ["MAX_AGE", "Logout", "once_of", "revocations_of", "verify_logout"]

MAX_AGE: Final = 300.0
"""Seconds from iat. Issuers send the token at once; section 4 asks for two minutes at most."""

_REQUIRED: Final = ("iss", "aud", "iat", "jti")
_NAMES: Final = (Kind.SID, Kind.SUB)  # the narrower first


@dataclass(frozen=True, slots=True)
class Logout:
    """A verified logout token: what is over, as the issuer of a provider says.

    `kind` is Kind.SID where the token names a session, else Kind.SUB: then every session of the
    subject is meant (section 2.4). `value` is its name. `good_until` is when the token itself is
    over, in seconds since the epoch.
    """

    provider: str
    issuer: str
    kind: Kind
    value: str
    jti: str
    good_until: float


def verify_logout(
    unverified: Unverified,
    provider: Provider,
    keys: Sequence[VerificationKey],
    *,
    leeway: float,
    now: float,
) -> Logout | Denial:
    """Check a logout token against one provider. `leeway` is in seconds, `now` since the epoch."""
    try:
        return _logout(unverified, provider, keys, leeway, now)
    except Refused as refused:
        return refused.denial


def _logout(
    unverified: Unverified,
    provider: Provider,
    keys: Sequence[VerificationKey],
    leeway: float,
    now: float,
) -> Logout:
    if provider.issuer is None:
        raise Refused("the provider names no issuer, so it takes no logout tokens")
    check(unverified, _for_logout(provider), keys, leeway=leeway, now=now)
    claims = unverified.claims
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        raise Refused("events has no logout event")
    if "nonce" in claims:
        raise Refused("a logout token has no nonce")
    names = {kind: name_text(claims[kind], kind) for kind in _NAMES if kind in claims}
    if not names:
        raise Refused("there is neither sid nor sub")
    kind, value = next(iter(names.items()))
    return Logout(
        provider=provider.name,
        issuer=provider.issuer,
        kind=kind,
        value=value,
        jti=name_text(claims["jti"], "jti"),
        good_until=float(claims["iat"]) + MAX_AGE + leeway,
    )


def _for_logout(provider: Provider) -> Provider:
    """The provider with what its logout tokens have instead of what its other tokens have."""
    return replace(
        provider,
        require=_REQUIRED,
        token_types=frozenset({LOGOUT_TYPE, "jwt"}),
        max_age=MAX_AGE,
    )


def once_of(logout: Logout) -> Once:
    """By what a logout token is known again (section 2.6, step 8)."""
    name = sha256(f"{logout.issuer}\0{logout.jti}".encode()).hexdigest()
    return Once(f"logout:{name}", logout.good_until)


def revocations_of(
    logout: Logout, rules: TokenRules, now: float, new_id: Callable[[], str]
) -> tuple[Revocation, ...]:
    """What is revoked by a logout at `now`: the session, or where none is named every token of the
    subject so far, so that it may log in again. Once for each provider of the issuer.
    """
    return tuple(
        Revocation(
            id=new_id(),
            kind=logout.kind,
            value=logout.value,
            provider=provider.name,
            before=moment_after(now) if logout.kind is Kind.SUB else None,
            created_at=now,
            expires_at=now + retention(rules, provider.name),
            reason="back-channel logout",
        )
        for provider in rules.providers
        if provider.issuer == logout.issuer
    )
