"""A token and keys in, an Identity or a Denial out."""

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import OctKey

from sidecar.auth.verify import Unverified, choose_providers, parse, recheck, verify
from sidecar.model import Denial, Identity, Reason
from sidecar.policy.keys import VerificationKey, public_key
from sidecar.policy.pointers import ClaimPath
from sidecar.policy.providers import Provider

if TYPE_CHECKING:
    from tests.auth.conftest import MakeProvider, Mint

NOW = 1_700_000_000.0
LEEWAY = 30.0
LATEST = 253402300799
HEADER = {"alg": "HS256", "typ": "JWT"}
CLAIMS = {"sub": "alice", "exp": NOW + 600}


def check(
    token: str, provider: Provider, keys: tuple[VerificationKey, ...], now: float = NOW
) -> Identity | Denial:
    unverified = parse(token, 8192)
    if isinstance(unverified, Denial):
        return unverified
    return verify(unverified, provider, keys, leeway=LEEWAY, now=now)


def identity(outcome: Identity | Denial) -> Identity:
    assert isinstance(outcome, Identity), outcome
    return outcome


def invalid(outcome: object, detail: str, reason: Reason = Reason.TOKEN_INVALID) -> None:
    assert outcome == Denial(reason, detail)


# --- form


@pytest.mark.parametrize(
    ("alg", "name"),
    [(f"{family}{bits}", "rsa") for family in ("RS", "PS") for bits in (256, 384, 512)]
    + [("ES256", "p256"), ("ES384", "p384"), ("ES512", "p521")]
    + [("EdDSA", "ed25519"), ("EdDSA", "ed448")],
)
def test_a_token_of_an_independent_issuer_is_verified(
    mint: "Mint", provider: "MakeProvider", alg: str, name: str
) -> None:
    key = getattr(mint, name)
    token = mint.token(alg=alg, key=key, kid=name)
    outcome = check(token, provider(algorithms=(alg,)), mint.keys_for(key, alg))
    assert identity(outcome).user == "alice"
    forged = token[:-8] + ("AAAAAAAA" if token[-8:] != "AAAAAAAA" else "BBBBBBBB")
    outcome = check(forged, provider(algorithms=(alg,)), mint.keys_for(key, alg))
    invalid(outcome, "the signature fits no key")


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_a_token_with_a_shared_secret_is_verified(
    mint: "Mint", provider: "MakeProvider", alg: str
) -> None:
    outcome = check(mint.token(alg=alg), provider(algorithms=(alg,)), mint.hmac_keys)
    assert identity(outcome).user == "alice"


def test_an_identity_says_what_the_token_says(mint: "Mint", provider: "MakeProvider") -> None:
    claims = {"sub": "alice", "exp": NOW + 60.5, "jti": "t1", "roles": ["admin"]}
    found = identity(check(mint.token(claims), provider(), mint.hmac_keys))
    assert found == Identity("alice", claims, "app", NOW + 60.5, "t1")


def test_the_unverified_part_is_what_the_key_look_up_needs(mint: "Mint") -> None:
    found = parse(mint.token({"iss": "corp"}, kid="k1", typ="JWT"), 8192)
    assert isinstance(found, Unverified)
    assert (found.alg, found.kid, found.typ, found.issuer) == ("HS256", "k1", "JWT", "corp")
    assert "alice" not in repr(found)


def test_a_token_over_the_size_is_refused_before_decoding() -> None:
    invalid(parse("!" * (8 << 20), 8192), "the token is over max_token_size")


def test_the_size_is_inclusive(mint: "Mint") -> None:
    token = mint.token()
    assert isinstance(parse(token, len(token)), Unverified)
    invalid(parse(token, len(token) - 1), "the token is over max_token_size")


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.b.c.d", "a.b.c.d.e", "." * 8000])
def test_anything_but_three_parts_is_refused(token: str) -> None:
    invalid(parse(token, 8192), "the token has not three parts")


def test_an_encrypted_token_is_refused(mint: "Mint") -> None:
    header = mint.encode(b'{"alg":"dir","enc":"A128GCM"}')
    invalid(parse(f"{header}..AAAA.AAAA.AAAA", 8192), "the token has not three parts")
    invalid(parse(mint.crooked({**HEADER, "enc": "A128GCM"}, CLAIMS), 8192), "the header has enc")


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("spoil", ["", "=", "==", " ", "\n", "+", "/", "\u00e9", "%", "\u0430"])
def test_each_part_is_base64url_and_nothing_else(mint: "Mint", part: int, spoil: str) -> None:
    parts = mint.token().split(".")
    name = ("header", "payload", "signature")[part]
    for spoiled in (parts[part] + spoil, spoil + parts[part]) if spoil else ("",):
        token = ".".join([*parts[:part], spoiled, *parts[part + 1 :]])
        invalid(parse(token, 8192), f"the {name} is not base64url")


def test_a_part_of_an_impossible_length_is_refused(mint: "Mint") -> None:
    header, payload, _ = mint.token().split(".")
    invalid(parse(f"{header}.{payload}.AAAAA", 8192), "the signature is not base64url")


def test_a_second_spelling_of_the_same_signature_is_refused(mint: "Mint") -> None:
    token = mint.token()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    sibling = alphabet[alphabet.index(token[-1]) ^ 1]
    invalid(parse(token[:-1] + sibling, 8192), "the signature is not canonical base64url")


NOT_STRICT = "not strict UTF-8 JSON"


@pytest.mark.parametrize(
    ("document", "wrong"),
    [
        (b"{", NOT_STRICT),
        (b"\xff{}", NOT_STRICT),
        (b"\xef\xbb\xbf" + json.dumps({**HEADER, **CLAIMS}).encode(), NOT_STRICT),
        (json.dumps({**HEADER, **CLAIMS}).encode("utf-16"), NOT_STRICT),
        (b'{"alg":"HS256","alg":"none","sub":"a","sub":"b"}', NOT_STRICT),
        (b'{"alg":"HS256","sub":"a","exp":NaN}', NOT_STRICT),
        (b'{"alg":"HS256","sub":"a","exp":1e999}', NOT_STRICT),
        (b'{"alg":"HS256","sub":"a\\ud800"}', NOT_STRICT),
        (b'{"a":' + b"[" * 2000, NOT_STRICT),
        (b'{"a":' + b"[" * 50 + b"]" * 50 + b"}", "nested too deeply"),
        (b'"alice"', "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
    ],
)
def test_header_and_payload_are_strict_json_objects(
    mint: "Mint", document: bytes, wrong: str
) -> None:
    invalid(parse(mint.crooked(document, CLAIMS), 8192), f"the header is {wrong}")
    invalid(parse(mint.crooked(HEADER, document), 8192), f"the payload is {wrong}")


# --- header


@pytest.mark.parametrize("crit", [[], ["exp"], ["b64"], None, "exp"])
def test_any_crit_is_refused(mint: "Mint", crit: Any) -> None:
    token = mint.crooked({**HEADER, "crit": crit, "exp": 1}, CLAIMS)
    invalid(parse(token, 8192), "the header has crit")


@pytest.mark.parametrize("b64", [True, False, None])
def test_b64_is_refused(mint: "Mint", b64: Any) -> None:
    invalid(parse(mint.crooked({**HEADER, "b64": b64}, CLAIMS), 8192), "the header has b64")


@pytest.mark.parametrize("name", ["alg", "kid", "typ"])
@pytest.mark.parametrize("value", [None, 1, True, ["HS256"], {"a": 1}])
def test_header_parameters_must_be_text(mint: "Mint", name: str, value: Any) -> None:
    token = mint.crooked({**HEADER, name: value}, CLAIMS)
    invalid(parse(token, 8192), f"the header's {name} is not text")


def test_a_header_without_alg_is_refused(mint: "Mint") -> None:
    invalid(parse(mint.crooked({"typ": "JWT"}, CLAIMS), 8192), "the header has no alg")


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "noNe", "", "hs256", "HS256 ", "HS512"])
def test_alg_is_compared_exactly(mint: "Mint", provider: "MakeProvider", alg: str) -> None:
    token = mint.crooked({"alg": alg}, CLAIMS)
    invalid(check(token, provider(), mint.hmac_keys), "the algorithm is not the provider's")
    unverified = parse(token, 8192)
    assert isinstance(unverified, Unverified)
    assert choose_providers(unverified, [provider()]) == ()


@pytest.mark.parametrize("alg", ["none", "ES256K", "ES521"])
def test_an_algorithm_that_the_program_does_not_have_is_never_verified(
    mint: "Mint", provider: "MakeProvider", alg: str
) -> None:
    key = VerificationKey(None, frozenset({alg}), b"")
    outcome = check(mint.crooked({"alg": alg}, CLAIMS), provider(algorithms=(alg,)), (key,))
    invalid(outcome, "the algorithm is not supported")


def test_an_unsigned_token_is_refused(mint: "Mint", provider: "MakeProvider") -> None:
    head, body, _ = mint.crooked({"alg": "none"}, CLAIMS).split(".")
    invalid(check(f"{head}.{body}.", provider(), ()), "the signature is not base64url")


def test_the_public_key_is_no_shared_secret(mint: "Mint", provider: "MakeProvider") -> None:
    pem = mint.rsa.as_pem(private=False)
    jwk = json.dumps(mint.rsa.as_dict(private=False)).encode()
    keys = (public_key(pem, ["RS256"]), *mint.keys_for(mint.rsa, "RS256"))
    for secret in (pem, pem.strip(), jwk):
        token = mint.crooked({"alg": "HS256", "kid": "rsa"}, CLAIMS, secret)
        for algorithms in (("RS256",), ("RS256", "HS256")):
            outcome = check(token, provider(algorithms=algorithms), keys)
            assert isinstance(outcome, Denial)
            assert outcome.reason is Reason.TOKEN_INVALID


def test_a_key_verifies_its_own_algorithms_only(mint: "Mint", provider: "MakeProvider") -> None:
    token = mint.token(alg="PS256", key=mint.rsa)
    outcome = check(
        token, provider(algorithms=("RS256", "PS256")), mint.keys_for(mint.rsa, "RS256")
    )
    invalid(outcome, "the signature fits no key")


def test_keys_inside_the_header_are_not_looked_at(mint: "Mint", provider: "MakeProvider") -> None:
    other = OctKey.generate_key(256)
    header = {
        "jku": "https://evil.example/jwks",
        "x5u": "https://evil.example/cert",
        "jwk": other.as_dict(private=True),
        "x5c": ["AAAA"],
    }
    forged = mint.crooked({**HEADER, **header}, CLAIMS, other.raw_value)
    invalid(check(forged, provider(), mint.hmac_keys), "the signature fits no key")
    good = mint.crooked({**HEADER, **header}, CLAIMS)
    assert identity(check(good, provider(), mint.hmac_keys)).user == "alice"


def test_each_key_of_a_rotation_verifies(mint: "Mint", provider: "MakeProvider") -> None:
    new = VerificationKey(None, frozenset({"HS256"}), b"n" * 32)
    assert identity(check(mint.token(), provider(), (new, *mint.hmac_keys)))
    invalid(check(mint.token(), provider(), (new,)), "the signature fits no key")


def test_without_a_key_for_the_kid_the_token_is_invalid(
    mint: "Mint", provider: "MakeProvider"
) -> None:
    invalid(check(mint.token(kid="x"), provider(), ()), "no key has the token's kid")


def test_a_short_secret_verifies_only_where_weak_ones_are_allowed(
    mint: "Mint", provider: "MakeProvider"
) -> None:
    weak = VerificationKey(None, frozenset({"HS256"}), b"secret")
    token = mint.crooked(HEADER, CLAIMS, b"secret")
    invalid(check(token, provider(), (weak,)), "the signature fits no key")
    assert identity(check(token, provider(allow_weak_secret=True), (weak,))).user == "alice"


def test_a_changed_payload_is_refused(mint: "Mint", provider: "MakeProvider") -> None:
    header, _, signature = mint.token().split(".")
    payload = mint.encode(json.dumps({**CLAIMS, "sub": "admin"}).encode())
    outcome = check(f"{header}.{payload}.{signature}", provider(), mint.hmac_keys)
    invalid(outcome, "the signature fits no key")


@pytest.mark.parametrize(
    "typ", [None, "JWT", "jwt", "Jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/JWT"]
)
def test_the_usual_types_are_accepted(mint: "Mint", provider: "MakeProvider", typ: Any) -> None:
    header = {"alg": "HS256"} if typ is None else {"alg": "HS256", "typ": typ}
    assert identity(check(mint.crooked(header, CLAIMS), provider(), mint.hmac_keys))


@pytest.mark.parametrize("typ", ["", "JWE", "dpop+jwt", "logout+jwt", "text/jwt", "jwt "])
def test_tokens_made_for_something_else_are_refused(
    mint: "Mint", provider: "MakeProvider", typ: str
) -> None:
    token = mint.crooked({"alg": "HS256", "typ": typ}, CLAIMS)
    invalid(check(token, provider(), mint.hmac_keys), "the typ is not accepted")


def test_an_absent_typ_needs_jwt_among_the_types(mint: "Mint", provider: "MakeProvider") -> None:
    token = mint.crooked({"alg": "HS256"}, CLAIMS)
    only_access = provider(token_types=frozenset({"at+jwt"}))
    invalid(check(token, only_access, mint.hmac_keys), "the typ is not accepted")


# --- claims


def claims_outcome(
    mint: "Mint", provider: Provider, now: float = NOW, **claims: Any
) -> Identity | Denial:
    """What becomes of a well-signed token with these claims beside CLAIMS (... leaves one out)."""
    merged = {k: v for k, v in {**CLAIMS, **claims}.items() if v is not ...}
    return check(mint.crooked(HEADER, merged), provider, mint.hmac_keys, now)


def test_a_token_is_expired_at_its_exp_plus_leeway(mint: "Mint", provider: "MakeProvider") -> None:
    assert identity(claims_outcome(mint, provider(), exp=NOW - LEEWAY + 0.5))
    outcome = claims_outcome(mint, provider(), exp=NOW - LEEWAY)
    invalid(outcome, "exp is over", Reason.TOKEN_EXPIRED)


def test_a_token_is_good_from_its_nbf_less_leeway(mint: "Mint", provider: "MakeProvider") -> None:
    assert identity(claims_outcome(mint, provider(), nbf=NOW + LEEWAY))
    invalid(claims_outcome(mint, provider(), nbf=NOW + LEEWAY + 1), "nbf is in the future")


def test_an_issuer_may_be_a_minute_ahead(mint: "Mint", provider: "MakeProvider") -> None:
    assert identity(claims_outcome(mint, provider(), iat=NOW + 60))
    invalid(claims_outcome(mint, provider(), iat=NOW + 61), "iat is in the future")


def test_a_token_older_than_max_age_is_expired(mint: "Mint", provider: "MakeProvider") -> None:
    daily = provider(max_age=3600.0)
    assert identity(claims_outcome(mint, daily, iat=NOW - 3600 - LEEWAY + 1))
    outcome = claims_outcome(mint, daily, iat=NOW - 3600 - LEEWAY)
    invalid(outcome, "the token is older than max_age", Reason.TOKEN_EXPIRED)
    invalid(claims_outcome(mint, daily), "iat is missing, and max_age needs it")


def test_a_token_ends_by_exp_or_by_its_age(mint: "Mint", provider: "MakeProvider") -> None:
    aging, ageless = provider(max_age=3600.0), provider()
    for maker in (aging, ageless):
        found = identity(claims_outcome(mint, maker, iat=NOW, exp=NOW + 600))
        assert found.expires_at == maker.end_of(found.claims) == NOW + 600
    found = identity(claims_outcome(mint, aging, iat=NOW, exp=NOW + 7200))
    assert found.expires_at == aging.end_of(found.claims) == NOW + 3600
    endless = provider(max_age=60.0, require=("sub",))
    assert endless.end_of({"sub": "alice", "iat": NOW}) == NOW + 60
    assert endless.end_of({"sub": "alice"}) is None


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", ["9999999999", "9_999_999_999", True, False, None, [1], {}])
def test_times_are_numbers(mint: "Mint", provider: "MakeProvider", name: str, value: Any) -> None:
    invalid(claims_outcome(mint, provider(), **{name: value}), f"{name} is not a number")


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", [-1, -0.5, LATEST + 1, 1e300, 10**400, -(10**400)])
def test_times_are_in_a_sane_range(
    mint: "Mint", provider: "MakeProvider", name: str, value: Any
) -> None:
    invalid(claims_outcome(mint, provider(), **{name: value}), f"{name} is out of range")


def test_the_ends_of_the_range_are_in_it(mint: "Mint", provider: "MakeProvider") -> None:
    found = identity(claims_outcome(mint, provider(), exp=LATEST, nbf=0, iat=0.0))
    assert found.expires_at == LATEST


@pytest.mark.parametrize("value", [..., None])
@pytest.mark.parametrize("name", ["exp", "sub", "email"])
def test_required_claims_are_there_and_not_null(
    mint: "Mint", provider: "MakeProvider", name: str, value: Any
) -> None:
    strict = provider(require=("exp", "sub", "email"))
    outcome = claims_outcome(mint, strict, **{"email": "a@example.com", name: value})
    assert isinstance(outcome, Denial)
    assert outcome.detail in {f"the required claim {name} is missing", f"{name} is not a number"}


def test_a_token_without_exp_passes_where_it_is_not_required(
    mint: "Mint", provider: "MakeProvider"
) -> None:
    outcome = claims_outcome(mint, provider(require=("sub",)), exp=...)
    assert identity(outcome).expires_at is None


@pytest.mark.parametrize("issuer", ["https://a.example/", "https://A.example", "", ...])
def test_the_issuer_is_compared_exactly(
    mint: "Mint", provider: "MakeProvider", issuer: Any
) -> None:
    corp = provider(issuer="https://a.example")
    assert identity(claims_outcome(mint, corp, iss="https://a.example"))
    invalid(claims_outcome(mint, corp, iss=issuer), "iss is not the provider's issuer")


@pytest.mark.parametrize("issuer", [["https://a.example"], 1, None, {}])
def test_an_issuer_that_is_no_text_is_refused(
    mint: "Mint", provider: "MakeProvider", issuer: Any
) -> None:
    invalid(claims_outcome(mint, provider(), iss=issuer), "iss is not text")


@pytest.mark.parametrize("audience", ["chat", "api", ["chat"], ["other", "api"]])
def test_one_common_audience_is_enough(
    mint: "Mint", provider: "MakeProvider", audience: Any
) -> None:
    assert identity(claims_outcome(mint, provider(audience=("chat", "api")), aud=audience))


@pytest.mark.parametrize("audience", ["Chat", "chat ", "", "chatapi", [], ["other"], ...])
def test_another_audience_is_refused(mint: "Mint", provider: "MakeProvider", audience: Any) -> None:
    outcome = claims_outcome(mint, provider(audience=("chat",)), aud=audience)
    invalid(outcome, "aud does not name this audience")


@pytest.mark.parametrize("audience", [1, None, True, {"chat": 1}, ["chat", 1], ["chat", None]])
def test_an_audience_of_mixed_types_is_refused(
    mint: "Mint", provider: "MakeProvider", audience: Any
) -> None:
    for each in (provider(audience=("chat",)), provider()):
        outcome = claims_outcome(mint, each, aud=audience)
        invalid(outcome, "aud is neither text nor a list of texts")


def test_a_provider_without_an_audience_takes_any(mint: "Mint", provider: "MakeProvider") -> None:
    assert identity(claims_outcome(mint, provider(), aud="something else"))


@pytest.mark.parametrize(
    ("value", "user"),
    [
        ("alice", "alice"),
        ("日本", "日本"),
        ("a b", "a b"),
        (42, "42"),
        (0, "0"),
        (-7, "-7"),
        ("x" * 1024, "x" * 1024),
        ("é" * 512, "é" * 512),
    ],
)
def test_the_user_is_text_or_an_integer(
    mint: "Mint", provider: "MakeProvider", value: Any, user: str
) -> None:
    assert identity(claims_outcome(mint, provider(), sub=value)).user == user


@pytest.mark.parametrize("value", ["", True, False, 1.0, 1.5, [], ["alice"], {"a": 1}])
def test_a_user_of_another_type_is_refused(
    mint: "Mint", provider: "MakeProvider", value: Any
) -> None:
    outcome = claims_outcome(mint, provider(), sub=value)
    invalid(outcome, "the user claim is missing, or neither text nor an integer")


@pytest.mark.parametrize("spoil", ["\r\nX-Admin: 1", "\n", "\0", "\t", "\x7f", "\x85", "\x9f"])
def test_a_user_with_control_characters_is_refused(
    mint: "Mint", provider: "MakeProvider", spoil: str
) -> None:
    outcome = claims_outcome(mint, provider(), sub=f"a{spoil}")
    invalid(outcome, "the user claim has control characters")


@pytest.mark.parametrize("value", ["x" * 1025, "é" * 513, 10**1024])
def test_a_user_over_one_kibibyte_is_refused(
    mint: "Mint", provider: "MakeProvider", value: Any
) -> None:
    invalid(claims_outcome(mint, provider(), sub=value), "the user claim is over 1 KiB")


def test_the_user_may_be_another_claim(mint: "Mint", provider: "MakeProvider") -> None:
    system = provider(user=ClaimPath("/profile/id", ("profile", "id")), require=("exp",))
    assert identity(claims_outcome(mint, system, profile={"id": "bob"})).user == "bob"
    outcome = claims_outcome(mint, system)
    invalid(outcome, "the user claim is missing, or neither text nor an integer")


@pytest.mark.parametrize("value", [1, None, ["a"], ...])
def test_a_token_id_that_is_no_text_is_none(
    mint: "Mint", provider: "MakeProvider", value: Any
) -> None:
    assert identity(claims_outcome(mint, provider(), jti=value)).token_id is None


# --- the choice of a provider


def chosen(mint: "Mint", providers: list[Provider], **claims: Any) -> list[str]:
    unverified = parse(mint.crooked(HEADER, {**CLAIMS, **claims}), 8192)
    assert isinstance(unverified, Unverified)
    return [each.name for each in choose_providers(unverified, providers)]


def test_a_provider_is_chosen_by_issuer_then_by_algorithm(
    mint: "Mint", provider: "MakeProvider"
) -> None:
    providers = [
        provider(name="a", issuer="https://a.example"),
        provider(name="a rsa", issuer="https://a.example", algorithms=("RS256",)),
        provider(name="any"),
        provider(name="any rsa", algorithms=("RS256",)),
        provider(name="any too"),
    ]
    assert chosen(mint, providers, iss="https://a.example") == ["a"]
    assert chosen(mint, providers, iss="https://b.example") == ["any", "any too"]
    assert chosen(mint, providers, iss="https://A.example") == ["any", "any too"]
    assert chosen(mint, providers) == ["any", "any too"]
    assert chosen(mint, providers, iss=["https://a.example"]) == ["any", "any too"]


def test_a_named_issuer_is_never_left_to_a_provider_that_names_none(
    mint: "Mint", provider: "MakeProvider"
) -> None:
    corp = provider(name="corp", issuer="https://a.example", algorithms=("RS256",))
    assert chosen(mint, [corp, provider(name="any")], iss="https://a.example") == []


# --- whatever comes


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_arbitrary_text_is_a_denial(token: str) -> None:
    assert isinstance(parse(token, 8192), Denial)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["sub", "exp", "nbf", "iat", "iss", "aud", "jti"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(codec="utf-8"))
        | st.lists(st.text(max_size=3)),
    )
)
def test_arbitrary_claims_give_an_identity_or_a_denial_that_tells_nothing(
    mint: "Mint", provider: "MakeProvider", claims: dict[str, Any]
) -> None:
    outcome = check(mint.crooked(HEADER, claims), provider(max_age=60.0), mint.hmac_keys)
    if isinstance(outcome, Identity):
        assert outcome.user
        assert outcome.expires_at is not None
    else:
        assert outcome.reason in {Reason.TOKEN_INVALID, Reason.TOKEN_EXPIRED}


def test_denials_hold_nothing_of_the_token(mint: "Mint", provider: "MakeProvider") -> None:
    claims: list[dict[str, Any]] = [
        {"sub": "canary\n"},
        {"iss": "canary"},
        {"aud": "canary"},
        {"exp": "canary"},
        {"sub": ["canary"]},
    ]
    strict = provider(issuer="https://a.example", audience=("chat",))
    for each in claims:
        outcome = claims_outcome(mint, strict, **each)
        assert isinstance(outcome, Denial)
        assert "canary" not in outcome.detail
    for header in ({"alg": "canary"}, {"alg": "HS256", "typ": "canary"}):
        outcome = check(mint.crooked(header, CLAIMS), strict, mint.hmac_keys)
        assert isinstance(outcome, Denial)
        assert "canary" not in outcome.detail


# --- again, under another policy


def verified(**claims: Any) -> Identity:
    """An identity that was verified once."""
    said = {**CLAIMS, "iat": NOW - 100, "iss": "me", "aud": ["chat"], **claims}
    return Identity("alice", said, "app", said["exp"], None)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"issuer": "me", "audience": ("mail", "chat"), "require": ("exp", "iat"), "max_age": 100.0},
        {"algorithms": ("ES256",), "token_types": frozenset({"other"})},
    ],
)
def test_a_token_that_the_provider_still_takes_stays_good(
    provider: "MakeProvider", change: dict[str, Any]
) -> None:
    assert recheck(verified(), provider(**change), leeway=LEEWAY, now=NOW) is None


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"issuer": "you"}, "iss is not the provider's issuer"),
        ({"audience": ("mail",)}, "aud does not name this audience"),
        ({"require": ("email",)}, "the required claim email is missing"),
        ({"user": ClaimPath.parse("iss")}, "the user claim is another one"),
        (
            {"user": ClaimPath.parse("name")},
            "the user claim is missing, or neither text nor an integer",
        ),
    ],
)
def test_a_token_that_the_provider_takes_no_longer_is_invalid(
    provider: "MakeProvider", change: dict[str, Any], detail: str
) -> None:
    denial = recheck(verified(), provider(**change), leeway=LEEWAY, now=NOW)
    assert denial == Denial(Reason.TOKEN_INVALID, f"app: {detail}")


def test_a_token_is_over_at_its_exp_and_beyond_its_age(provider: "MakeProvider") -> None:
    end = NOW + 600 + LEEWAY
    assert recheck(verified(), provider(), leeway=LEEWAY, now=end - 1) is None
    denial = recheck(verified(), provider(), leeway=LEEWAY, now=end)
    assert denial == Denial(Reason.TOKEN_EXPIRED, "app: exp is over")
    denial = recheck(verified(), provider(max_age=50.0), leeway=LEEWAY, now=NOW)
    assert denial == Denial(Reason.TOKEN_EXPIRED, "app: the token is older than max_age")


def test_a_clock_that_was_set_back_ends_no_connection(provider: "MakeProvider") -> None:
    early = verified(nbf=NOW - 100)
    assert recheck(early, provider(), leeway=LEEWAY, now=NOW - 86400) is None
