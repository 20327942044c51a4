"""From a token to an identity, across providers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.auth.authenticator import Authenticator
from sidecar.auth.keys import KeyStore
from sidecar.model import Denial, Identity, Reason
from sidecar.policy.compiled import TokenRules
from sidecar.policy.providers import Provider, SecretRef, Secrets

if TYPE_CHECKING:
    from tests.auth.conftest import Issuer, MakeProvider, Mint

NOW = 1_700_000_000.0
MakeAuthenticator = Callable[..., Awaitable[Authenticator]]
OTHER = Secrets((SecretRef("value", "other-Secret_of-more-than-32-bytes!"),))


@pytest.fixture
async def authenticator(rules: Callable[..., TokenRules]) -> AsyncIterator[MakeAuthenticator]:
    """Start an authenticator for some providers; its keys are closed at the end."""
    stores: list[KeyStore] = []

    async def make(*providers: Provider) -> Authenticator:
        each = rules(*providers)
        stores.append(KeyStore(each, environ={}))
        await stores[-1].start()
        return Authenticator(each, stores[-1])

    yield make
    for store in stores:
        await store.close()


async def outcome(
    authenticator: Authenticator, token: str, allowed: tuple[str, ...] | None = None
) -> Any:
    return await authenticator.authenticate(token, allowed, NOW)


def reason(result: Identity | Denial) -> Reason:
    assert isinstance(result, Denial), result
    return result.reason


async def test_a_good_token_gives_its_identity(
    authenticator: MakeAuthenticator, mint: "Mint", provider: "MakeProvider"
) -> None:
    found = await outcome(await authenticator(provider()), mint.token())
    assert (found.user, found.provider) == ("alice", "app")


async def test_a_token_of_an_issuer_on_the_network_is_verified(
    authenticator: MakeAuthenticator, mint: "Mint", remote: "MakeProvider"
) -> None:
    guard = await authenticator(remote())
    found = await outcome(guard, mint.token(alg="RS256", key=mint.rsa, kid="rsa"))
    assert (found.user, found.provider) == ("alice", "corp")
    found = await outcome(guard, mint.token(alg="RS256", key=mint.rsa))
    assert found.user == "alice"
    found = await outcome(guard, mint.token(alg="RS256", key=mint.rsa, kid="../../dev/null"))
    assert reason(found) is Reason.TOKEN_INVALID


async def test_text_that_is_no_token_is_invalid(
    authenticator: MakeAuthenticator, provider: "MakeProvider"
) -> None:
    guard = await authenticator(provider())
    assert reason(await outcome(guard, "not a token")) is Reason.TOKEN_INVALID
    assert reason(await outcome(guard, "a" * 8193)) is Reason.TOKEN_INVALID


async def test_only_the_routes_providers_count(
    authenticator: MakeAuthenticator, mint: "Mint", provider: "MakeProvider"
) -> None:
    guard = await authenticator(provider(), provider(name="other", keys=OTHER))
    assert isinstance(await outcome(guard, mint.token(), ("app", "other")), Identity)
    for allowed in (("other",), ()):
        assert reason(await outcome(guard, mint.token(), allowed)) is Reason.TOKEN_INVALID


async def test_the_first_provider_that_verifies_wins(
    authenticator: MakeAuthenticator, mint: "Mint", provider: "MakeProvider"
) -> None:
    guard = await authenticator(
        provider(name="other", keys=OTHER), provider(name="second"), provider(name="third")
    )
    assert (await outcome(guard, mint.token())).provider == "second"


async def test_no_candidate_is_an_invalid_token(
    authenticator: MakeAuthenticator, mint: "Mint", provider: "MakeProvider"
) -> None:
    guard = await authenticator(provider(issuer="https://a.example"))
    assert await outcome(guard, mint.token()) == Denial(
        Reason.TOKEN_INVALID, "no provider of the route takes alg HS256 without an issuer"
    )


@pytest.mark.parametrize(
    ("alg", "issuer", "detail"),
    [
        ("RS256", "https://b.example", "alg RS256 of issuer https://b.example"),
        ("none", "corp", "alg none of issuer corp"),
        ("canary" * 9, "corp", "an unknown alg of issuer corp"),
        ("EdDSA", "x" * 80, "alg EdDSA of issuer " + "x" * 80),
        ("EdDSA", "x" * 81, "alg EdDSA of issuer " + "x" * 77 + "..."),
        ("ES256", "https://b.example/?canary=1", "alg ES256 of issuer https://b.example/"),
        ("ES256", 7, "alg ES256 without an issuer"),
    ],
)
async def test_an_issuer_and_algorithm_that_nobody_takes_are_named(
    authenticator: MakeAuthenticator,
    mint: "Mint",
    provider: "MakeProvider",
    alg: str,
    issuer: Any,
    detail: str,
) -> None:
    guard = await authenticator(provider(issuer="https://a.example"))
    denial = await outcome(guard, mint.crooked({"alg": alg}, {"iss": issuer}))
    assert denial == Denial(Reason.TOKEN_INVALID, f"no provider of the route takes {detail}")


async def test_of_several_denials_the_last_is_given_with_its_provider(
    authenticator: MakeAuthenticator, mint: "Mint", provider: "MakeProvider"
) -> None:
    guard = await authenticator(provider(name="other", keys=OTHER), provider(audience=("chat",)))
    denial = await outcome(guard, mint.token())
    assert denial == Denial(Reason.TOKEN_INVALID, "app: aud does not name this audience")


@pytest.mark.parametrize("expired_first", [True, False])
async def test_an_expired_token_is_called_expired(
    authenticator: MakeAuthenticator, mint: "Mint", provider: "MakeProvider", expired_first: bool
) -> None:
    providers = [provider(), provider(name="other", keys=OTHER)]
    guard = await authenticator(*(providers if expired_first else providers[::-1]))
    result = await outcome(guard, mint.token({"exp": NOW - 3600}))
    assert result == Denial(Reason.TOKEN_EXPIRED, "app: exp is over")


async def test_without_keys_the_answer_is_not_that_the_token_is_bad(
    authenticator: MakeAuthenticator,
    mint: "Mint",
    provider: "MakeProvider",
    remote: "MakeProvider",
    issuer: "Issuer",
) -> None:
    issuer.status = 500
    pem = SecretRef("value", mint.p521.as_pem(private=True).decode())
    local = provider(keys=None, algorithms=("ES512", "RS256"), private_key=pem)
    guard = await authenticator(remote(), local)
    denial = await outcome(guard, mint.token(alg="RS256", key=mint.rsa, kid="rsa"))
    assert denial == Denial(Reason.STATE_UNAVAILABLE, "no keys for provider corp")
    allowed = await outcome(guard, mint.token(alg="ES512", key=mint.p521), ("app", "corp"))
    assert allowed.user == "alice"


async def test_never_a_wrong_allow_while_the_issuer_is_down(
    authenticator: MakeAuthenticator, mint: "Mint", remote: "MakeProvider", issuer: "Issuer"
) -> None:
    guard = await authenticator(remote())
    assert await outcome(guard, mint.token(alg="RS256", key=mint.rsa, kid="rsa"))
    issuer.status = 500
    forged = mint.crooked({"alg": "RS256", "kid": "rsa"}, {"sub": "admin", "exp": NOW + 60})
    assert reason(await outcome(guard, forged)) is Reason.TOKEN_INVALID
    unknown = mint.token(alg="RS256", key=mint.rsa, kid="other")
    assert reason(await outcome(guard, unknown)) is Reason.TOKEN_INVALID
