"""What the upstream is told: identity, forwarded headers, the path, and where the client stands."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws, jwt
from joserfc.jwk import OctKey

from tests.support.admitted import reason_for, seen_by
from tests.support.audits import audit_to, events
from tests.support.clients import head, raw
from tests.support.refused import bearer
from tests.support.sidecars import ENVIRON, PROVIDER, policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import fields, recording

HEADERS = {
    "X-User-Id": "user",
    "X-User-Email": "claims.email",
    "X-User-Roles": {"claim": "roles", "join": ","},
    "X-Org": "claims./org/id",
    "X-Auth-Claims": {"claims": "all", "encode": "base64url-json"},
}
INTERNAL = "a second secret of the tests that signs what the upstream is told of the client"


def decoded(text: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


async def test_identity_headers_say_what_the_token_says(tmp_path: Path) -> None:
    route = {"identity": {"headers": HEADERS}}
    claims = {"email": "a@example.com", "roles": ["editor", "admin"], "org": {"id": 7}}
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        found = fields(await seen_by(up, s, bearer(**claims)))
    assert found["x-user-id"] == "alice"
    assert found["x-user-email"] == "a@example.com"
    assert found["x-user-roles"] == "editor,admin"
    assert found["x-org"] == "7"
    assert "=" not in found["x-auth-claims"]
    assert decoded(found["x-auth-claims"]).items() >= {"sub": "alice", **claims}.items()


async def test_a_claim_that_is_not_there_leaves_its_header_out(tmp_path: Path) -> None:
    route = {"identity": {"headers": HEADERS}}
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        seen = await seen_by(up, s, bearer(roles=[]), "X-User-Email: forged", "X-Org: forged")
    assert b"forged" not in seen
    assert not fields(seen).keys() & {"x-user-email", "x-user-roles", "x-org"}


ALIASES = [
    "X-User-Id",
    "x-USER-id",
    "X_User_Id",
    "X.User.Id",
    "X_USER-ID",
    "x.user_id",
]


@pytest.mark.parametrize("alias", ALIASES)
async def test_no_spelling_of_an_identity_header_comes_through(tmp_path: Path, alias: str) -> None:
    route = {"identity": {"headers": {"X-User-Id": "user"}}, "forward_headers": ["User-Agent"]}
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        lines = (f"{alias}: forged", "User-Agent: kept", f"{alias}:   forged again  ")
        seen = await seen_by(up, s, bearer(), *lines)
    assert b"forged" not in seen
    assert seen.lower().count(b"user-id") == 1
    assert (fields(seen)["x-user-id"], fields(seen)["user-agent"]) == ("alice", "kept")


async def test_connection_cannot_name_an_identity_header(tmp_path: Path) -> None:
    route = {"identity": {"headers": {"X-User-Id": "user"}}}
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        async with raw(s.port) as client:
            lines = (bearer(), "Connection: keep-alive, Upgrade, X-User-Id")
            await client.send(head("/ws", *lines, without=["Connection"]))
            await client.response()
        seen = fields(up.heads[0])
    assert (seen["connection"], seen["x-user-id"]) == ("Upgrade", "alice")


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("日本", "%E6%97%A5%E6%9C%AC"),
        ("100% café", "100%25 caf%C3%A9"),
        (" padded ", "%20padded%20"),
        ('a, b; c="d"', 'a, b; c="d"'),
        (True, "true"),
        (1.0, "1"),
        (2.5, "2.5"),
    ],
)
async def test_values_are_encoded_in_one_way(tmp_path: Path, claim: Any, value: str) -> None:
    route = {"identity": {"headers": {"X-Value": "claims.value"}}}
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        assert fields(await seen_by(up, s, bearer(value=claim)))["x-value"] == value


@pytest.mark.parametrize(
    "claim",
    ["a\r\nX-Admin: 1", "a\nb", "a\0b", "\x7f", "", "x" * 1025, ["a"], {"a": 1}],
)
async def test_a_value_that_cannot_be_a_header_refuses_the_handshake(
    tmp_path: Path, claim: Any
) -> None:
    route = {"identity": {"headers": {"X-Value": "claims.value"}}}
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        assert await reason_for(s, bearer(value=claim)) == "claims_denied"
        assert up.heads == []


async def test_half_a_surrogate_pair_refuses_the_handshake(tmp_path: Path) -> None:
    """Some clients of HTTP drop it, which would make another name of `admin\\ud800`."""
    payload = {"sub": "alice", "exp": int(time.time()) + 60, "value": "admin\ud800"}
    key = OctKey.import_key(ENVIRON["JWT_SECRET"])
    text = jws.serialize_compact({"alg": "HS256"}, json.dumps(payload).encode(), key)
    route = {"identity": {"headers": {"X-Value": "claims.value"}}}
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        assert await reason_for(s, "Authorization: Bearer " + text) == "token_invalid"
        assert up.heads == []


async def test_an_element_with_the_separator_in_it_is_refused(tmp_path: Path) -> None:
    route = {"identity": {"headers": {"X-User-Roles": {"claim": "roles", "join": ","}}}}
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        assert await reason_for(s, bearer(roles=["user,admin"])) == "claims_denied"
        assert up.heads == []


async def test_the_signed_identity_is_verified_by_another_library(tmp_path: Path) -> None:
    sign = {"provider": "internal", "ttl": "60s", "header": "X-Identity"}
    internal = {"algorithms": ["HS512"], "secrets": [{"env": "INTERNAL"}]}
    async with recording() as up:
        policy = policy_of(
            up.url,
            route={"identity": {"sign": sign}, "authenticate": {"providers": ["app"]}},
            jwt={"providers": {"app": PROVIDER, "internal": internal}},
            logging=audit_to(tmp_path / "audit.jsonl"),
        )
        async with sidecar(policy, tmp_path, {**ENVIRON, "INTERNAL": INTERNAL}) as s:
            client_token = token(rooms=["blue"])
            lines = ("Authorization: Bearer " + client_token, "x_identity: forged")
            seen = await seen_by(up, s, *lines)
    text = fields(seen)["x-identity"]
    signed = jwt.decode(text, OctKey.import_key(INTERNAL), algorithms=["HS512"])
    now = time.time()
    claims = signed.claims
    assert signed.header == {"alg": "HS512", "typ": "ws-identity+jwt"}
    assert (claims["sub"], claims["aud"], claims["provider"]) == ("alice", "main", "app")
    assert (claims["route"], claims["claims"]["rooms"]) == ("main", ["blue"])
    assert now - 30 < claims["iat"] <= now < claims["exp"] <= claims["iat"] + 60
    assert claims["jti"] == events(tmp_path / "audit.jsonl")[0]["request_id"]
    assert client_token not in seen.decode()
    assert b"forged" not in seen


async def test_the_signed_identity_is_no_token_for_a_client(tmp_path: Path) -> None:
    sign = {"provider": "app", "ttl": "60s", "header": "X-Identity"}
    async with recording() as up:
        policy = policy_of(up.url, route={"identity": {"sign": sign}})
        async with sidecar(policy, tmp_path) as s:
            signed = fields(await seen_by(up, s, bearer()))["x-identity"]
            assert await reason_for(s, "Authorization: Bearer " + signed) == "token_invalid"


async def test_the_signed_identity_ends_with_the_clients_token(tmp_path: Path) -> None:
    sign = {"provider": "app", "ttl": "1h", "header": "Authorization"}
    route = {"identity": {"sign": sign}}
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        seen = fields(await seen_by(up, s, bearer(ttl=20)))
    scheme, _, text = seen["authorization"].partition(" ")
    assert scheme == "Bearer"
    key = OctKey.import_key(ENVIRON["JWT_SECRET"])
    claims = jwt.decode(text, key, algorithms=["HS256"]).claims
    assert claims["exp"] <= time.time() + 20


async def test_only_named_headers_go_on(tmp_path: Path) -> None:
    route = {"forward_headers": ["User-Agent", "Accept-Language"]}
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        seen = await seen_by(
            up,
            s,
            bearer(),
            "User-Agent: test",
            "accept-language: de",
            "Accept-Language: en",
            "Cookie: a=1",
            "X-Other: 1",
            "User_Agent: forged",
            "Sec-WebSocket-Extensions: permessage-deflate",
        )
    names = [line.partition(b":")[0].lower() for line in seen.split(b"\r\n")[1:] if line]
    assert sorted(names) == sorted(
        [
            b"host",
            b"upgrade",
            b"connection",
            b"sec-websocket-key",
            b"sec-websocket-version",
            b"user-agent",
            b"accept-language",
            b"accept-language",
            b"x-forwarded-for",
            b"x-forwarded-proto",
            b"x-request-id",
        ]
    )


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/ws/blue/files/a/b?x=1", "/rooms/blue/a/b?x=1"),
        ("/ws/blue/files/", "/rooms/blue/"),
        ("/ws/caf%C3%A9/files/x%20y", "/rooms/caf%C3%A9/x%20y"),
        ("/ws/a:b@c/files/d", "/rooms/a:b@c/d"),
    ],
)
async def test_the_upstreams_path_is_made_of_captures(
    tmp_path: Path, path: str, target: str
) -> None:
    route = {
        "match": {"path": "/ws/{room}/files/{rest...}"},
        "upstream_path": "/rooms/{room}/{rest}",
    }
    async with recording() as up:
        policy = policy_of(up.url + "/v1", route=route)
        async with sidecar(policy, tmp_path) as s:
            seen = await seen_by(up, s, bearer(), path=path)
    assert seen.startswith(f"GET /v1{target} HTTP/1.1\r\n".encode())


async def test_the_path_goes_on_as_it_came(tmp_path: Path) -> None:
    async with recording() as up, sidecar(policy_of(up.url), tmp_path) as s:
        seen = await seen_by(up, s, bearer(), path="/a%20b/%C3%BC?q=%2e%2e/&&=")
    assert seen.startswith(b"GET /a%20b/%C3%BC?q=%2e%2e/&&= HTTP/1.1\r\n")


# Where the client stands.


async def test_forwarding_headers_of_strangers_are_not_believed(tmp_path: Path) -> None:
    async with recording() as up, sidecar(policy_of(up.url), tmp_path) as s:
        lines = ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", "X_Request_Id: forged")
        seen = await seen_by(up, s, bearer(), *lines, "Forwarded: for=6.6.6.6;proto=https")
    found = fields(seen)
    assert (found["x-forwarded-for"], found["x-forwarded-proto"]) == ("127.0.0.1", "http")
    assert b"6.6.6.6" not in seen
    assert b"forged" not in seen


@pytest.mark.parametrize(
    ("lines", "address", "scheme"),
    [
        (["X-Forwarded-For: 6.6.6.6, 198.51.100.7, 10.0.0.1"], "198.51.100.7", "http"),
        (["X-Forwarded-For: 198.51.100.7", "X-Forwarded-Proto: https"], "198.51.100.7", "https"),
        (["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 2001:db8::1"], "2001:db8::1", "http"),
        (['Forwarded: for="[2001:db8::9]:4711";proto=https'], "2001:db8::9", "https"),
        (["X-Forwarded-For: nonsense"], "127.0.0.1", "http"),
    ],
)
async def test_trusted_proxies_are_believed_from_the_right(
    tmp_path: Path, lines: list[str], address: str, scheme: str
) -> None:
    async with recording() as up:
        policy = policy_of(
            up.url,
            server={"trusted_proxies": ["127.0.0.1/32", "10.0.0.0/8"]},
            logging=audit_to(tmp_path / "audit.jsonl"),
        )
        async with sidecar(policy, tmp_path) as s:
            found = fields(await seen_by(up, s, bearer(), *lines))
    assert (found["x-forwarded-for"], found["x-forwarded-proto"]) == (address, scheme)
    logged = events(tmp_path / "audit.jsonl")[0]
    assert logged["address"] == address
    assert logged["request_id"] == found["x-request-id"]
