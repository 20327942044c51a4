"""Logout tokens: what an issuer may say, and everything that must not pass for it."""

import json
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from joserfc.jwk import ECKey

from sidecar.auth.logout import MAX_AGE, Logout, once_of, revocations_of, verify_logout
from sidecar.auth.verify import LOGOUT_EVENT, parse, verify
from sidecar.model import Denial, Identity, Reason
from sidecar.policy.compiled import TokenRules
from sidecar.policy.keys import VerificationKey
from sidecar.policy.providers import Provider
from sidecar.state.base import Kind

if TYPE_CHECKING:
    from tests.auth.conftest import MakeProvider, Mint

NOW = 1_700_000_000.0
LEEWAY = 30.0
ISSUER = "https://login.example.com"
EVENTS: dict[str, Any] = {LOGOUT_EVENT: {}}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "chat",
    "iat": int(NOW) - 1,
    "exp": int(NOW) + 120,
    "jti": "l-1",
    "sub": "u-1",
    "sid": "s-1",
    "events": EVENTS,
}


def claims(*without: str, **changed: Any) -> dict[str, Any]:
    return {name: value for name, value in (CLAIMS | changed).items() if name not in without}


@pytest.fixture
def corp(provider: "MakeProvider") -> Provider:
    return provider(
        name="corp", issuer=ISSUER, audience=("chat",), require=("exp", "sub", "scope"), max_age=60
    )


def check(
    token: str, provider: Provider, keys: tuple[VerificationKey, ...], now: float = NOW
) -> Logout | Denial:
    unverified = parse(token, 8192)
    if isinstance(unverified, Denial):
        return unverified
    return verify_logout(unverified, provider, keys, leeway=LEEWAY, now=now)


def check_claims(mint: "Mint", provider: Provider, what: dict[str, Any], **header: Any) -> Any:
    token = mint.crooked({"alg": "HS256", **header}, what)
    return check(token, provider, mint.hmac_keys)


def invalid(outcome: object, detail: str, reason: Reason = Reason.TOKEN_INVALID) -> None:
    assert outcome == Denial(reason, detail)


# --- what is good


@pytest.mark.parametrize(
    ("alg", "name"), [("RS256", "rsa"), ("ES256", "p256"), ("EdDSA", "ed25519")]
)
def test_a_logout_token_of_an_independent_issuer_is_verified(
    mint: "Mint", provider: "MakeProvider", alg: str, name: str
) -> None:
    key = getattr(mint, name)
    corp = provider(name="corp", issuer=ISSUER, audience=("chat",), algorithms=(alg,))
    token = mint.token(CLAIMS, alg=alg, key=key, kid=name, typ="logout+jwt")
    found = check(token, corp, mint.keys_for(key, alg))
    assert found == Logout("corp", ISSUER, Kind.SID, "s-1", "l-1", NOW - 1 + MAX_AGE + LEEWAY)


@pytest.mark.parametrize("typ", ["logout+jwt", "LOGOUT+JWT", "application/logout+jwt", "JWT", None])
def test_the_type_is_its_own_or_none_in_particular(
    mint: "Mint", corp: Provider, typ: str | None
) -> None:
    header = {} if typ is None else {"typ": typ}
    assert isinstance(check_claims(mint, corp, CLAIMS, **header), Logout)


def test_without_a_session_the_subject_is_meant(mint: "Mint", corp: Provider) -> None:
    found = check_claims(mint, corp, claims("sid"))
    assert (found.kind, found.value) == (Kind.SUB, "u-1")


def test_a_session_alone_is_enough(mint: "Mint", corp: Provider) -> None:
    found = check_claims(mint, corp, claims("sub"))
    assert (found.kind, found.value) == (Kind.SID, "s-1")


def test_an_older_issuer_leaves_out_the_expiry(mint: "Mint", corp: Provider) -> None:
    assert isinstance(check_claims(mint, corp, claims("exp")), Logout)


def test_the_event_may_say_more(mint: "Mint", corp: Provider) -> None:
    events = {LOGOUT_EVENT: {"why": "idle"}, "urn:other": {}}
    assert isinstance(check_claims(mint, corp, claims(events=events)), Logout)


# --- what is not


def test_a_provider_without_an_issuer_takes_none(mint: "Mint", provider: "MakeProvider") -> None:
    outcome = check_claims(mint, provider(), claims("iss"))
    invalid(outcome, "the provider names no issuer, so it takes no logout tokens")


@pytest.mark.parametrize("alg", ["none", "noNe", "RS256", "HS512", ""])
def test_another_algorithm_is_refused(mint: "Mint", corp: Provider, alg: str) -> None:
    invalid(check_claims(mint, corp, CLAIMS, alg=alg), "the algorithm is not the provider's")


def test_an_unsigned_token_is_refused(mint: "Mint", corp: Provider) -> None:
    signing_input = mint.crooked({"alg": "HS256"}, CLAIMS).rpartition(".")[0]
    invalid(check(f"{signing_input}.", corp, mint.hmac_keys), "the signature is not base64url")
    forged = f"{signing_input}.{mint.encode(bytes(32))}"
    invalid(check(forged, corp, mint.hmac_keys), "the signature fits no key")


def test_another_issuers_key_is_refused(mint: "Mint", provider: "MakeProvider") -> None:
    corp = provider(issuer=ISSUER, algorithms=("ES256",))
    stranger = ECKey.generate_key("P-256", {"kid": "p256"})
    token = mint.token(CLAIMS, alg="ES256", key=stranger, kid="p256", typ="logout+jwt")
    invalid(check(token, corp, mint.keys_for(mint.p256, "ES256")), "the signature fits no key")


@pytest.mark.parametrize("typ", ["at+jwt", "logout", "secevent+jwt", "", "logout+jwt "])
def test_another_type_is_refused(mint: "Mint", corp: Provider, typ: str) -> None:
    invalid(check_claims(mint, corp, CLAIMS, typ=typ), "the typ is not accepted")


@pytest.mark.parametrize("name", ["iss", "aud", "iat", "jti"])
@pytest.mark.parametrize("is_null", [True, False])
def test_a_required_claim_must_be_there(
    mint: "Mint", corp: Provider, name: str, is_null: bool
) -> None:
    what = claims(**{name: None}) if is_null and name != "iat" else claims(name)
    detail = f"the required claim {name} is missing"
    missing = "iat is missing, and max_age needs it" if name == "iat" else detail
    invalid(check_claims(mint, corp, what), missing)


@pytest.mark.parametrize("audience", ["other", ["other"], [], "Chat"])
def test_a_logout_of_another_client_is_refused(
    mint: "Mint", corp: Provider, audience: object
) -> None:
    invalid(check_claims(mint, corp, claims(aud=audience)), "aud does not name this audience")


@pytest.mark.parametrize("issuer", ["https://evil.example", f"{ISSUER}/"])
def test_another_issuer_is_refused(mint: "Mint", corp: Provider, issuer: str) -> None:
    invalid(check_claims(mint, corp, claims(iss=issuer)), "iss is not the provider's issuer")


def test_an_expired_token_is_refused(mint: "Mint", corp: Provider) -> None:
    outcome = check_claims(mint, corp, claims(exp=NOW - LEEWAY))
    invalid(outcome, "exp is over", Reason.TOKEN_EXPIRED)


def test_an_old_token_is_refused_whatever_its_expiry(mint: "Mint", corp: Provider) -> None:
    old = claims(iat=NOW - MAX_AGE - LEEWAY, exp=NOW + 9999)
    invalid(check_claims(mint, corp, old), "the token is older than max_age", Reason.TOKEN_EXPIRED)
    assert isinstance(check_claims(mint, corp, old | {"iat": old["iat"] + 1}), Logout)


def test_a_token_from_the_future_is_refused(mint: "Mint", corp: Provider) -> None:
    invalid(check_claims(mint, corp, claims(iat=NOW + 61)), "iat is in the future")


@pytest.mark.parametrize(
    "events",
    [
        None, [], [LOGOUT_EVENT], LOGOUT_EVENT, {}, True, 1,
        {LOGOUT_EVENT: None}, {LOGOUT_EVENT: True}, {LOGOUT_EVENT: []}, {LOGOUT_EVENT: "{}"},
        {f"{LOGOUT_EVENT}/": {}}, {LOGOUT_EVENT.upper(): {}}, {"backchannel-logout": {}},
    ],
)  # fmt: skip
def test_the_event_must_be_there(mint: "Mint", corp: Provider, events: object) -> None:
    invalid(check_claims(mint, corp, claims(events=events)), "events has no logout event")


@pytest.mark.parametrize("nonce", ["n-1", "", None, 0])
def test_a_nonce_is_refused(mint: "Mint", corp: Provider, nonce: object) -> None:
    invalid(check_claims(mint, corp, claims(nonce=nonce)), "a logout token has no nonce")


def test_somebody_must_be_named(mint: "Mint", corp: Provider) -> None:
    invalid(check_claims(mint, corp, claims("sid", "sub")), "there is neither sid nor sub")


@pytest.mark.parametrize("name", ["sid", "sub", "jti"])
@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("", "is missing, or not text"),
        (7, "is missing, or not text"),
        (["s-1"], "is missing, or not text"),
        ("a\r\nb", "has control characters"),
        ("x" * 1025, "is over 1 KiB"),
    ],
)
def test_a_name_is_short_text(
    mint: "Mint", corp: Provider, name: str, value: object, wrong: str
) -> None:
    invalid(check_claims(mint, corp, claims(**{name: value})), f"{name} {wrong}")


# --- neither passes for the other


@pytest.mark.parametrize("extra", [{}, {"nonce": "n-1"}, {"events": {"urn:other": {}}}])
def test_an_access_or_id_token_is_no_logout_token(
    mint: "Mint", corp: Provider, extra: dict[str, Any]
) -> None:
    token = mint.crooked({"alg": "HS256", "typ": "JWT"}, claims("events", scope="chat", **extra))
    invalid(check(token, corp, mint.hmac_keys), "events has no logout event")
    unverified = parse(token, 8192)
    assert not isinstance(unverified, Denial)
    found = verify(unverified, corp, mint.hmac_keys, leeway=LEEWAY, now=NOW)
    assert isinstance(found, Identity)


@pytest.mark.parametrize("typ", ["logout+jwt", "JWT", "at+jwt", None])
@pytest.mark.parametrize("types", [("jwt", "at+jwt"), ("jwt", "at+jwt", "logout+jwt")])
@pytest.mark.parametrize("event", [{}, None])
def test_a_logout_token_lets_nobody_in(
    mint: "Mint", provider: "MakeProvider", typ: str | None, types: tuple[str, ...], event: object
) -> None:
    """Whatever its type says, and whatever types the policy takes (section 4.1)."""
    header = {"alg": "HS256"} if typ is None else {"alg": "HS256", "typ": typ}
    unverified = parse(mint.crooked(header, claims(events={LOGOUT_EVENT: event})), 8192)
    assert not isinstance(unverified, Denial)
    corp = provider(issuer=ISSUER, audience=("chat",), token_types=frozenset(types))
    outcome = verify(unverified, corp, mint.hmac_keys, leeway=LEEWAY, now=NOW)
    refused = typ == "logout+jwt" and "logout+jwt" not in types
    invalid(outcome, "the typ is not accepted" if refused else "this is a logout token")


def test_the_type_alone_makes_a_logout_token(mint: "Mint", provider: "MakeProvider") -> None:
    token = mint.crooked({"alg": "HS256", "typ": "application/Logout+JWT"}, claims("events"))
    unverified = parse(token, 8192)
    assert not isinstance(unverified, Denial)
    corp = provider(issuer=ISSUER, token_types=frozenset({"logout+jwt"}))
    outcome = verify(unverified, corp, mint.hmac_keys, leeway=LEEWAY, now=NOW)
    invalid(outcome, "this is a logout token")


@pytest.mark.parametrize("events", [["x"], "x", {"urn:other": {}}, None, 7])
def test_other_events_are_an_applications_own(mint: "Mint", corp: Provider, events: object) -> None:
    unverified = parse(mint.crooked({"alg": "HS256"}, claims(events=events, scope="x")), 8192)
    assert not isinstance(unverified, Denial)
    outcome = verify(unverified, corp, mint.hmac_keys, leeway=LEEWAY, now=NOW)
    assert isinstance(outcome, Identity)


# --- what comes of it


def logout(kind: Kind = Kind.SID, **fields: Any) -> Logout:
    return Logout(
        **{
            "provider": "corp",
            "issuer": ISSUER,
            "kind": kind,
            "value": "s-1",
            "jti": "l-1",
            "good_until": NOW + 329,
            **fields,
        }
    )


def rules(*providers: Provider) -> TokenRules:
    return TokenRules(leeway=LEEWAY, max_token_size=8192, providers=providers)


def test_a_session_is_over_for_good(corp: Provider) -> None:
    (found,) = revocations_of(logout(), rules(corp), NOW, lambda: "r-1")
    assert (found.id, found.kind, found.value, found.provider) == ("r-1", "sid", "s-1", "corp")
    assert (found.before, found.created_at, found.expires_at) == (None, NOW, NOW + 60 + 30 + 61)


def test_a_subject_may_log_in_again(corp: Provider) -> None:
    (found,) = revocations_of(logout(Kind.SUB, value="u-1"), rules(corp), NOW + 0.5, lambda: "r")
    assert (found.kind, found.value, found.before) == (Kind.SUB, "u-1", NOW + 1)


def test_every_provider_of_the_issuer_is_meant(corp: Provider, provider: "MakeProvider") -> None:
    number = count()
    same = provider(name="corp-ec", issuer=ISSUER, algorithms=("ES256",))
    other = provider(name="other", issuer="https://other.example")
    found = revocations_of(
        logout(), rules(corp, other, same, provider()), NOW, lambda: f"r-{next(number)}"
    )
    assert [(each.id, each.provider) for each in found] == [("r-0", "corp"), ("r-1", "corp-ec")]


def test_a_token_is_known_again_by_issuer_and_jti() -> None:
    once = once_of(logout())
    assert once == once_of(logout(Kind.SUB, value="x", provider="corp-ec"))
    others = (logout(jti="l-2"), logout(issuer="https://other.example"), logout(jti="l-1\0"))
    assert len({once.name, *(once_of(other).name for other in others)}) == 4


def test_a_token_is_remembered_for_as_long_as_it_is_good(mint: "Mint", corp: Provider) -> None:
    token = mint.crooked({"alg": "HS256"}, claims("exp", iat=NOW + 60))
    found = check(token, corp, mint.hmac_keys)
    assert isinstance(found, Logout)
    until = once_of(found).expires_at
    assert isinstance(check(token, corp, mint.hmac_keys, until - 0.001), Logout)
    assert isinstance(check(token, corp, mint.hmac_keys, until), Denial)


def test_a_name_for_one_use_has_a_bounded_size() -> None:
    huge = once_of(logout(jti="x" * 1000))
    assert len(json.dumps(huge.name)) < 100
