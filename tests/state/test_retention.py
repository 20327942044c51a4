import pytest

from sidecar.policy.compiled import TokenRules
from sidecar.policy.providers import Provider
from sidecar.state.retention import LONGEST, UNKNOWN, retention


def rules(**ages: float | None) -> TokenRules:
    providers = [Provider(name, ("HS256",), None, max_age=age) for name, age in ages.items()]
    return TokenRules(leeway=30.0, max_token_size=8192, providers=tuple(providers))


@pytest.mark.parametrize(
    ("provider", "seconds"), [("app", 3600 + 91), ("corp", 60 + 91), (None, 3600 + 91)]
)
def test_a_revocation_outlives_the_tokens_it_means(provider: str | None, seconds: float) -> None:
    assert retention(rules(app=3600.0, corp=60.0), provider) == seconds


def test_one_provider_without_a_longest_age_makes_all_unknown() -> None:
    several = rules(app=3600.0, corp=None)
    assert retention(several, None) == retention(several, "corp") == UNKNOWN
    assert retention(several, "app") < UNKNOWN


def test_without_providers_nothing_is_known() -> None:
    assert retention(rules(), None) == UNKNOWN


def test_nothing_is_remembered_for_longer_than_may_be_asked_for() -> None:
    assert retention(rules(app=1e12), "app") == LONGEST
