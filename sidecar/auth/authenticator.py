"""From a token to an identity: the awaits between the pure steps."""

import contextlib
from dataclasses import replace

from sidecar.auth.keys import KeyStore
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
from sidecar.policy.providers import Provider

__all__ = ["Authenticator"]

_TELLING = {Reason.TOKEN_EXPIRED: 2, Reason.STATE_UNAVAILABLE: 1}
"""Which denial to give when several providers said no: an expired token had a good signature, and
a provider without keys might have said yes.
"""


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
        unverified = parse(token, self._rules.max_token_size)
        if isinstance(unverified, Denial):
            return unverified
        providers = [p for p in self._rules.providers if allowed is None or p.name in allowed]
        denials: list[Denial] = []
        for provider in choose_providers(unverified, providers):
            outcome = await self._try(unverified, provider, now)
            if isinstance(outcome, Verified):
                if not denials:  # else another provider might say yes the next time
                    self._verified.remember(name, outcome, len(token))
                return outcome.identity
            denials.append(outcome)
        return max(
            reversed(denials),
            key=lambda each: _TELLING.get(each.reason, 0),
            default=unclaimed(unverified),
        )

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

    async def _try(
        self, unverified: Unverified, provider: Provider, now: float
    ) -> Verified | Denial:
        try:
            keys = await self._keys.keys_for(provider, unverified.kid)
        except KeysUnavailable as error:
            return Denial(Reason.STATE_UNAVAILABLE, f"no keys for provider {error.provider}")
        outcome = verify(unverified, provider, keys, leeway=self._rules.leeway, now=now)
        if isinstance(outcome, Denial):
            return replace(outcome, detail=f"{provider.name}: {outcome.detail}")
        return Verified(outcome, provider, unverified.kid, keys)
