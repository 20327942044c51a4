"""The closed sets of label values: whatever comes in from outside, no new time series appears."""

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Final

from sidecar.model import CloseCode, Reason
from sidecar.policy.compiled import Policy
from sidecar.policy.routes import Route

__all__ = ["NONE", "OTHER", "Labels"]

NONE: Final = "none"
"""The value for something that is not there, such as the route before one was found."""

OTHER: Final = "other"
"""The value for everything outside its closed set."""

_SIDES: Final = frozenset({"client", "upstream", "sidecar"})
_OUTCOMES: Final = frozenset({"allowed", "refused", "ok", "error"})
_KINDS: Final = frozenset({"user", "sub", "sid", "jti", "issued_before"})


@dataclass(frozen=True, slots=True)
class Labels:
    """The label values that a policy knows. `codes` are the close codes beyond the RFC's that
    the sidecar or the policy names.
    """

    routes: frozenset[str]
    upstreams: frozenset[str]
    providers: frozenset[str]
    reasons: frozenset[str]
    rules: frozenset[str]
    codes: frozenset[int]

    @classmethod
    def of(cls, policy: Policy) -> "Labels":
        """Read the sets from a policy."""
        rules = [rule for route in policy.routes for rule in route.authorize]
        return cls(
            routes=frozenset(route.name for route in policy.routes),
            upstreams=frozenset(policy.upstreams),
            providers=frozenset(provider.name for provider in policy.tokens.providers),
            reasons=frozenset(Reason) | {rule.reason for rule in rules if rule.reason is not None},
            rules=frozenset(rule.label for rule in rules),
            codes=_codes(policy.routes) | {policy.server.drain.close_code},
        )

    def joined(self, other: "Labels") -> "Labels":
        """The values of both: what was counted under a name keeps it."""
        return Labels(
            routes=self.routes | other.routes,
            upstreams=self.upstreams | other.upstreams,
            providers=self.providers | other.providers,
            reasons=self.reasons | other.reasons,
            rules=self.rules | other.rules,
            codes=self.codes | other.codes,
        )

    def route(self, name: str | None) -> str:
        """A route's name; "none" where no route was found."""
        return _known(name, self.routes)

    def upstream(self, name: str) -> str:
        """An upstream's name."""
        return _known(name, self.upstreams)

    def provider(self, name: str) -> str:
        """A provider's name."""
        return _known(name, self.providers)

    def reason(self, name: str | None) -> str:
        """A reason's name, or the reason that an authorize rule gave itself."""
        return _known(name, self.reasons)

    def rule(self, label: str) -> str:
        """An authorize rule's label."""
        return _known(label, self.rules)

    def outcome(self, name: str) -> str:
        """allowed, refused, ok, error, or the reason of a failure."""
        return name if name in _OUTCOMES else _known(name, self.reasons)

    def kind(self, name: str) -> str:
        """A kind of revocation."""
        return _known(name, _KINDS)

    def side(self, name: str) -> str:
        """client, upstream or sidecar."""
        return _known(name, _SIDES)

    def code(self, code: int) -> str:
        """A close code: each of RFC 6455 section 7.4.1's and of those that the policy or the
        sidecar names; the ranges of section 7.4.2 for others.
        """
        if 1000 <= code <= 1014 or code in self.codes:
            return str(code)
        if 3000 <= code <= 4999:
            return f"{code // 1000}xxx"
        return OTHER


def _known(value: str | None, values: Container[str]) -> str:
    if value is None:
        return NONE
    return value if value in values else OTHER


def _codes(routes: Iterable[Route]) -> frozenset[int]:
    named = {code for route in routes for code in route.refuse.codes.values()}
    return frozenset(named) | frozenset(int(code) for code in CloseCode)
