"""From a token to what it says: the awaits between the pure steps."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, NamedTuple, Protocol, TypeVar

from sidecar.auth.keys import KeyStore
from sidecar.auth.logout import Logout, verify_logout
from sidecar.auth.verified import Name, Verified, VerifiedTokens, digest
from sidecar.auth.verify import (
    Unverified,
    choose_providers,
    parse,
    still_valid,
    unclaimed,
    verify,
)
from sidecar.errors import KeysUnavailable
from sidecar.model import Denial, Identity, Reason
from sidecar.policy.compiled import TokenRules
from sidecar.policy.keys import VerificationKey
from sidecar.policy.providers import Provider

__all__ = ["Authenticator"]

_TELLING = {Reason.TOKEN_EXPIRED: 2, Reason.STATE_UNAVAILABLE: 1}
"""Which denial to give when several providers said no: an expired token had a good signature, and
a provider without keys might have said yes.
"""

V = TypeVar("V", covariant=True)
W = TypeVar("W")


class _Verifier(Protocol[V]):
    """`verify`, or `verify_logout`."""

    def __call__(
        self,
        unverified: Unverified,
        provider: Provider,
        keys: Sequence[VerificationKey],
        /,
        *,
        leeway: float,
        now: float,
    ) -> V | Denial: ...


class _Found(NamedTuple, Generic[W]):
    """What a token says, by whose keys. `first` where no provider before had to say no."""

    value: W
    provider: Provider
    kid: str | None
    keys: Sequence[VerificationKey]
    first: bool


class Authenticator:
    """Verifies tokens by the policy's rules."""

    def __init__(self, rules: TokenRules, keys: KeyStore) -> None:
        self._rules = rules
        self._keys = keys
        self._verified = VerifiedTokens()

    async def authenticate(
        self, token: str, allowed: tuple[str, ...] | None, now: float
    ) -> Identity | Denial:
        """Who the token says the client is, at `now` (seconds since the epoch).

        `allowed` names the providers that the route takes, None is all. The candidates are tried
        in the policy's order and the first that verifies wins. A token that was good before, with
        the same keys, is checked for the time only.
        """
        name = digest(token), allowed
        known = await self._recall(name, now)
        if known is not None:
            return known
        found = await self._find(token, allowed, now, verify)
        if isinstance(found, Denial):
            return found
        if found.first:  # else another provider might say yes the next time
            verified = Verified(found.value, found.provider, found.kid, found.keys)
            self._verified.remember(name, verified, len(token))
        return found.value

    async def logout(self, token: str, now: float) -> Logout | Denial:
        """Which session the logout token says is over, at `now`."""
        found = await self._find(token, None, now, verify_logout)
        return found if isinstance(found, Denial) else found.value

    async def _recall(self, name: Name, now: float) -> Identity | None:
        """The identity of a token that was good before and would be found good again."""
        entry = self._verified.find(name)
        if entry is None:
            return None
        identity, provider = entry.identity, entry.provider
        with contextlib.suppress(KeysUnavailable):
            keys = await self._keys.keys_for(provider, entry.kid)
            if keys == entry.keys and still_valid(identity, provider, self._rules.leeway, now):
                return identity
        self._verified.forget(name)
        return None

    async def _find(
        self, token: str, allowed: tuple[str, ...] | None, now: float, verifier: _Verifier[W]
    ) -> _Found[W] | Denial:
        unverified = parse(token, self._rules.max_token_size)
        if isinstance(unverified, Denial):
            return unverified
        providers = [p for p in self._rules.providers if allowed is None or p.name in allowed]
        denials: list[Denial] = []
        for provider in choose_providers(unverified, providers):
            outcome = await self._try(unverified, provider, now, verifier, first=not denials)
            if not isinstance(outcome, Denial):
                return outcome
            denials.append(outcome)
        return max(
            reversed(denials),
            key=lambda each: _TELLING.get(each.reason, 0),
            default=unclaimed(unverified),
        )

    async def _try(
        self,
        unverified: Unverified,
        provider: Provider,
        now: float,
        verifier: _Verifier[W],
        *,
        first: bool,
    ) -> _Found[W] | Denial:
        try:
            keys = await self._keys.keys_for(provider, unverified.kid)
        except KeysUnavailable as error:
            return Denial(Reason.STATE_UNAVAILABLE, f"no keys for provider {error.provider}")
        outcome = verifier(unverified, provider, keys, leeway=self._rules.leeway, now=now)
        if isinstance(outcome, Denial):
            return replace(outcome, detail=f"{provider.name}: {outcome.detail}")
        return _Found(outcome, provider, unverified.kid, keys, first)
