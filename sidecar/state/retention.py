"""How long a revocation is remembered: until no token that it means can still be good."""

from typing import Final

from sidecar.policy.compiled import TokenRules

__all__ = ["LONGEST", "UNKNOWN", "retention"]

UNKNOWN: Final = 30 * 86_400.0
"""Seconds for tokens of a provider without `max_age`: they may live as long as their issuer likes.
Too long only takes memory, too short would make a revoked token good again.
"""
LONGEST: Final = 366 * 86_400.0
"""Seconds that may be asked for."""
_SKEW: Final = 61.0
"""Seconds that a token's iat may be ahead of the revocation: an issuer's clock a minute ahead is
believed, and a revocation means the whole second it is made in.
"""


def retention(rules: TokenRules, provider: str | None) -> float:
    """The seconds for tokens of one provider, None for those of all: the longest `max_age` with
    what is added to it when a token is verified.
    """
    ages = [each.max_age for each in rules.providers if provider in (None, each.name)]
    known = [age for age in ages if age is not None]
    if not known or len(known) < len(ages):
        return UNKNOWN
    return min(max(known) + rules.leeway + _SKEW, LONGEST)
