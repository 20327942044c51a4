"""What the upstream is told of a verified identity."""

from types import MappingProxyType
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from sidecar.model import Identity
from sidecar.policy.headers import Encoding, IdentityHeader, Sign
from sidecar.policy.identity import carrying, claim_headers, signed_header
from sidecar.policy.keys import SigningKey
from sidecar.policy.pointers import ClaimPath

SECRET = b"0123456789abcdef0123456789abcdef-and-more"
EMAIL = IdentityHeader("X-User-Email", claim=ClaimPath.parse("email"))
ROLES = IdentityHeader("X-User-Roles", claim=ClaimPath.parse("/realm/roles"), join=",")
USER = IdentityHeader("X-User-Id", user=True)
ALL = IdentityHeader("X-Auth-Claims", encode=Encoding.BASE64URL_JSON)


def identity(user: str = "ana", expires_at: float | None = 2000.0, **claims: object) -> Identity:
    return Identity(user, MappingProxyType(claims), "app", expires_at, "t1")


def signing_key(provider: str) -> SigningKey:
    assert provider == "internal"
    return SigningKey("k1", "HS256", SECRET)


def signed_claims(who: Identity, *, ttl: float = 60, now: float = 1000.9) -> dict[str, object]:
    headers = signed_header(
        Sign("internal", ttl, "X-Identity"),
        who,
        route="chat-route",
        upstream="chat",
        request_id="r1",
        now=now,
        signing_key=signing_key,
    )
    (token,) = headers.values()
    assert list(headers) == ["X-Identity"]
    return jwt.decode(token, OctKey.import_key(SECRET), algorithms=["HS256"]).claims


def test_headers_whose_claim_is_there_are_set() -> None:
    who = identity(email="ana@example.com", realm={"roles": ["a", "b"]})
    assert claim_headers((USER, EMAIL, ROLES), who) == {
        "X-User-Id": "ana",
        "X-User-Email": "ana@example.com",
        "X-User-Roles": "a,b",
    }


@pytest.mark.parametrize("claims", [{}, {"email": None, "realm": {"roles": []}}])
def test_headers_whose_claim_is_absent_null_or_an_empty_list_are_left_out(
    claims: dict[str, Any],
) -> None:
    assert claim_headers((EMAIL, ROLES), identity(**claims)) == {}


def test_all_claims_in_one_header() -> None:
    assert claim_headers((ALL,), identity(b=1, a="é")) == {
        "X-Auth-Claims": "eyJhIjoiw6kiLCJiIjoxfQ"
    }


@pytest.mark.parametrize("email", ["evil\r\nX-Admin: 1", "evil\ud800", "", {"evil": 1}, ["evil"]])
def test_a_refusal_names_the_header_and_not_the_value(email: object) -> None:
    with pytest.raises(ValueError, match=r"^the claim for X-User-Email is refused: ") as caught:
        claim_headers((USER, EMAIL), identity(email=email))
    assert "evil" not in str(caught.value)


def test_a_token_is_a_bearer_in_authorization_and_bare_elsewhere() -> None:
    assert carrying("authorization", "t.o.k") == {"authorization": "Bearer t.o.k"}
    assert carrying("X-Token", "t.o.k") == {"X-Token": "t.o.k"}


def test_an_identity_token_says_who_for_whom_and_how_long() -> None:
    assert signed_claims(identity(sub="ana", roles=["a"])) == {
        "iss": "ws-auth-sidecar",
        "sub": "ana",
        "aud": "chat",
        "iat": 1000,
        "exp": 1060,
        "jti": "r1",
        "claims": {"sub": "ana", "roles": ["a"]},
        "provider": "app",
        "route": "chat-route",
    }


def test_an_identity_token_never_outlives_the_clients() -> None:
    assert signed_claims(identity(expires_at=1030.5))["exp"] == 1030
    assert signed_claims(identity(expires_at=None), ttl=1e6)["exp"] == 1001000


def test_claims_that_are_no_strict_json_are_not_signed() -> None:
    with pytest.raises(ValueError, match="strict JSON"):
        signed_claims(identity("admin\ud800"))
