"""From a token to an identity: the awaits between the pure steps."""

from dataclasses import replace

from sidecar.auth.keys import KeyStore
from sidecar.auth.verify import Unverified, choose_providers, parse, unclaimed, verify
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

    async def authenticate(
        self, token: str, allowed: tuple[str, ...] | None, now: float
    ) -> Identity | Denial:
        """Who the token says the client is, at `now` (seconds since the epoch).

        `allowed` names the providers that the route takes, None is all. The candidates are tried
        in the policy's order and the first that verifies wins.
        """
        unverified = parse(token, self._rules.max_token_size)
        if isinstance(unverified, Denial):
            return unverified
        providers = [p for p in self._rules.providers if allowed is None or p.name in allowed]
        denials: list[Denial] = []
        for provider in choose_providers(unverified, providers):
            outcome = await self._try(unverified, provider, now)
            if isinstance(outcome, Identity):
                return outcome
            denials.append(outcome)
        return max(
            reversed(denials),
            key=lambda each: _TELLING.get(each.reason, 0),
            default=unclaimed(unverified),
        )

    async def _try(
        self, unverified: Unverified, provider: Provider, now: float
    ) -> Identity | Denial:
        try:
            keys = await self._keys.keys_for(provider, unverified.kid)
        except KeysUnavailable as error:
            return Denial(Reason.STATE_UNAVAILABLE, f"no keys for provider {error.provider}")
        outcome = verify(unverified, provider, keys, leeway=self._rules.leeway, now=now)
        if isinstance(outcome, Denial):
            return replace(outcome, detail=f"{provider.name}: {outcome.detail}")
        return outcome
