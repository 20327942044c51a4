"""From a token to an identity, across providers."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.auth import authenticator as module
from sidecar.auth.authenticator import Authenticator
from sidecar.auth.keys import KeyStore
from sidecar.auth.logout import Logout
from sidecar.auth.verified import MAX_BYTES, VerifiedTokens
from sidecar.auth.verify import verify
from sidecar.errors import KeysUnavailable
from sidecar.model import Denial, Identity, Reason
from sidecar.policy.compiled import TokenRules
from sidecar.policy.keys import VerificationKey
from sidecar.policy.providers import JwksFile, Provider, SecretRef, Secrets
from tests.auth.conftest import SECRET

if TYPE_CHECKING:
    from tests.auth.conftest import Issuer, MakeProvider, Mint, Sleeper

NOW = 1_700_000_000.0
MakeAuthenticator = Callable[..., Awaitable[Authenticator]]
OTHER = Secrets((SecretRef("value", "other-Secret_of-more-than-32-bytes!"),))


@pytest.fixture
async def authenticator(rules: Callable[..., TokenRules]) -> AsyncIterator[MakeAuthenticator]:
    """Start an authenticator for some providers; its keys are closed at the end."""
    stores: list[KeyStore] = []

    async def make(*providers: Provider, **options: Any) -> Authenticator:
        each = rules(*providers)
        stores.append(KeyStore(each, environ={}, **options))
        await stores[-1].start()
        return Authenticator(each, stores[-1])

    yield make
    for store in stores:
        await store.close()


async def outcome(
    authenticator: Authenticator,
    token: str,
    allowed: tuple[str, ...] | None = None,
    now: float = NOW,
) -> Any:
    return await authenticator.authenticate(token, allowed, now)


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


# Tokens that were good before


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The providers that tokens were verified for, in turn."""
    names: list[str] = []

    def counted(unverified: Any, provider: Provider, *keys: Any, **rest: Any) -> Any:
        names.append(provider.name)
        return verify(unverified, provider, *keys, **rest)

    monkeypatch.setattr(module, "verify", counted)
    return names


async def test_a_token_that_was_good_is_not_verified_again(
    authenticator: MakeAuthenticator,
    mint: "Mint",
    provider: "MakeProvider",
    remote: "MakeProvider",
    verified: list[str],
) -> None:
    guard = await authenticator(provider(), remote())
    for token, name in (
        (mint.token(), "app"),
        (mint.token(alg="RS256", key=mint.rsa, kid="rsa"), "corp"),
    ):
        first = await outcome(guard, token)
        assert isinstance(first, Identity)
        for _ in range(3):
            assert await outcome(guard, token, now=NOW + 60) == first
        assert verified == [name]
        verified.clear()


@pytest.mark.parametrize(
    ("claims", "later", "expected"),
    [
        ({"exp": NOW + 600}, 629, None),
        ({"exp": NOW + 600}, 630, Reason.TOKEN_EXPIRED),
        ({"iat": NOW, "exp": NOW + 9000}, 1029, None),
        ({"iat": NOW, "exp": NOW + 9000}, 1030, Reason.TOKEN_EXPIRED),
        # the clock was set back
        ({"iat": NOW, "nbf": NOW}, -30, None),
        ({"iat": NOW, "nbf": NOW}, -31, Reason.TOKEN_INVALID),
    ],
)
async def test_the_time_counts_for_a_token_that_was_good(
    authenticator: MakeAuthenticator,
    mint: "Mint",
    provider: "MakeProvider",
    verified: list[str],
    claims: dict[str, float],
    later: float,
    expected: Reason | None,
) -> None:
    guard = await authenticator(provider(max_age=1000))
    token = mint.token({"iat": NOW, **claims})
    assert isinstance(await outcome(guard, token), Identity)
    result = await outcome(guard, token, now=NOW + later)
    if expected is None:
        assert isinstance(result, Identity)
        assert verified == ["app"]
        return
    fresh = await authenticator(provider(max_age=1000))
    assert reason(result) is expected
    assert result == await outcome(fresh, token, now=NOW + later)
    assert len(remembered(guard)) == 0


def remembered(guard: Authenticator) -> VerifiedTokens:
    return guard._verified


def replace(path: Path, text: str | bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.replace(fresh, path)


async def test_a_secret_that_is_rotated_refuses_its_tokens_at_once(
    authenticator: MakeAuthenticator,
    mint: "Mint",
    provider: "MakeProvider",
    sleeper: "Sleeper",
    tmp_path: Path,
) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    keys = Secrets((SecretRef("file", str(path)),))
    guard = await authenticator(provider(keys=keys), sleep=sleeper)
    token = mint.token()
    assert isinstance(await outcome(guard, token), Identity)
    replace(path, "another-Secret_of-more-than-32-bytes!")
    await sleeper.wake()
    assert reason(await outcome(guard, token)) is Reason.TOKEN_INVALID
    assert len(remembered(guard)) == 0
    replace(path, SECRET)
    await sleeper.wake()
    assert isinstance(await outcome(guard, token), Identity)


async def test_a_key_that_left_its_set_refuses_its_tokens_at_once(
    authenticator: MakeAuthenticator,
    mint: "Mint",
    provider: "MakeProvider",
    verified: list[str],
    sleeper: "Sleeper",
    tmp_path: Path,
) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(mint.jwks(mint.p256, mint.p521))
    each = provider(keys=JwksFile(str(path)), algorithms=("ES256", "ES512"))
    guard = await authenticator(each, sleep=sleeper)
    going = mint.token(alg="ES256", key=mint.p256, kid="p256")
    staying = mint.token(alg="ES512", key=mint.p521, kid="p521")
    for token in (going, staying):
        assert isinstance(await outcome(guard, token), Identity)
    replace(path, mint.jwks(mint.p521))
    await sleeper.wake()
    verified.clear()
    assert isinstance(await outcome(guard, staying), Identity)
    assert verified == []
    assert reason(await outcome(guard, going)) is Reason.TOKEN_INVALID


async def test_without_keys_a_token_that_was_good_is_not_known_any_more(
    authenticator: MakeAuthenticator,
    mint: "Mint",
    provider: "MakeProvider",
    verified: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def gone(each: Provider, _: str | None) -> Sequence[VerificationKey]:
        raise KeysUnavailable(each.name, "no keys")

    guard = await authenticator(provider())
    assert isinstance(await outcome(guard, mint.token()), Identity)
    with monkeypatch.context() as patch:
        patch.setattr(guard._keys, "keys_for", gone)
        assert reason(await outcome(guard, mint.token())) is Reason.STATE_UNAVAILABLE
    assert isinstance(await outcome(guard, mint.token()), Identity)
    assert verified == ["app", "app"]


async def test_a_token_is_good_for_the_providers_it_was_tried_with_alone(
    authenticator: MakeAuthenticator, mint: "Mint", provider: "MakeProvider", verified: list[str]
) -> None:
    guard = await authenticator(provider(), provider(name="other", keys=OTHER))
    token = mint.token()
    for allowed in (None, ("app",), ("app", "other")):
        assert isinstance(await outcome(guard, token, allowed), Identity)
    assert verified == ["app"] * 3
    assert reason(await outcome(guard, token, ("other",))) is Reason.TOKEN_INVALID
    assert reason(await outcome(guard, token, ())) is Reason.TOKEN_INVALID
    verified.clear()
    for allowed in (None, ("app",), ("app", "other")):
        assert isinstance(await outcome(guard, token, allowed), Identity)
    assert verified == []


async def test_a_token_that_only_a_later_provider_took_is_verified_each_time(
    authenticator: MakeAuthenticator, mint: "Mint", provider: "MakeProvider", verified: list[str]
) -> None:
    guard = await authenticator(provider(name="other", keys=OTHER), provider())
    for _ in range(2):
        assert (await outcome(guard, mint.token())).provider == "app"
    assert verified == ["other", "app"] * 2
    assert len(remembered(guard)) == 0


async def test_a_bad_token_is_never_remembered(
    authenticator: MakeAuthenticator, mint: "Mint", provider: "MakeProvider"
) -> None:
    guard = await authenticator(provider())
    good = mint.token()
    assert isinstance(await outcome(guard, good), Identity)
    bad = [
        mint.token({"exp": NOW - 3600}),
        mint.crooked({"alg": "none"}, {"sub": "alice"}),
        mint.crooked({"alg": "HS256"}, {"sub": "alice", "exp": NOW + 60}, key=b"x" * 64),
        good[:-1],
        good + "=",
        good.swapcase(),
        "",
    ]
    for token in bad * 2:
        assert isinstance(await outcome(guard, token), Denial)
    assert len(remembered(guard)) == 1


@pytest.mark.parametrize("token", ["\ud800", "a.\udfff.b", "\udcff" * 9000])
async def test_half_a_surrogate_pair_in_a_token_is_no_error(
    authenticator: MakeAuthenticator, provider: "MakeProvider", token: str
) -> None:
    guard = await authenticator(provider())
    assert reason(await outcome(guard, token)) is Reason.TOKEN_INVALID


async def test_the_tokens_that_are_remembered_are_bounded_by_their_bytes(
    authenticator: MakeAuthenticator,
    mint: "Mint",
    provider: "MakeProvider",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guard = await authenticator(provider())
    tokens = [mint.token({"n": number}) for number in range(10, 15)]
    size = len(tokens[0])
    assert {len(token) for token in tokens} == {size}
    assert remembered(guard)._max_bytes == MAX_BYTES
    monkeypatch.setattr(remembered(guard), "_max_bytes", 3 * size)
    for token in tokens:
        assert isinstance(await outcome(guard, token), Identity)
    assert len(remembered(guard)) == 3


# --- logout tokens

ISSUER = "https://login.example.com"
LOGOUT = {
    "iss": ISSUER,
    "aud": "chat",
    "iat": int(NOW),
    "jti": "l-1",
    "sid": "s-1",
    "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
}


async def test_a_logout_token_is_verified_with_the_issuers_keys(
    authenticator: MakeAuthenticator, mint: "Mint", remote: "MakeProvider"
) -> None:
    guard = await authenticator(remote(issuer=ISSUER))
    token = mint.token(LOGOUT, alg="RS256", key=mint.rsa, kid="rsa", typ="logout+jwt")
    found = await guard.logout(token, NOW)
    assert isinstance(found, Logout)
    assert (found.provider, found.value) == ("corp", "s-1")
    assert reason(await outcome(guard, token)) == Reason.TOKEN_INVALID


async def test_a_token_of_a_client_logs_nobody_out(
    authenticator: MakeAuthenticator, mint: "Mint", provider: "MakeProvider"
) -> None:
    guard = await authenticator(provider(issuer=ISSUER))
    denial = await guard.logout(mint.token({"iss": ISSUER, "jti": "t", "aud": "a"}), NOW)
    assert isinstance(denial, Denial)


async def test_a_logout_token_over_the_size_is_refused(
    authenticator: MakeAuthenticator, provider: "MakeProvider"
) -> None:
    denial = await (await authenticator(provider())).logout("x" * 8193, NOW)
    assert denial == Denial(Reason.TOKEN_INVALID, "the token is over max_token_size")


async def test_no_provider_without_an_issuer_takes_a_logout_token(
    authenticator: MakeAuthenticator, mint: "Mint", provider: "MakeProvider"
) -> None:
    denial = await (await authenticator(provider())).logout(mint.token(LOGOUT), NOW)
    assert isinstance(denial, Denial)
    assert denial.detail.startswith("app: the provider names no issuer")
