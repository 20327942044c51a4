"""Tokens of issuers of every kind, by every way that keys come in."""

import asyncio
import base64
import hmac
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import unused_port
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from tests.support.clients import head, raw
from tests.support.issuers import Issuer, issuing
from tests.support.sidecars import ENVIRON, PROVIDER, Running, policy_of, sidecar
from tests.support.tokens import SECRET, token
from tests.support.upstreams import Recording, fields, recording

pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")

Key = RSAKey | ECKey | OKPKey

RSA = RSAKey.generate_key(2048, auto_kid=True)
KEYS: Mapping[str, Key] = {
    "RS256": RSA,
    "PS256": RSA,
    "ES256": ECKey.generate_key("P-256", auto_kid=True),
    "EdDSA": OKPKey.generate_key("Ed25519", auto_kid=True),
}
OTHERS: Mapping[str, Key] = {
    "RS256": RSAKey.generate_key(2048, auto_kid=True),
    "ES256": ECKey.generate_key("P-256", auto_kid=True),
}


def signed(algorithm: str, key: Key | OctKey, *, kid: str | None = None, **claims: Any) -> str:
    """A token of alice with this key."""
    now = int(time.time())
    payload = {"sub": "alice", "iat": now, "exp": now + 600} | claims
    header = {"alg": algorithm} | ({"kid": kid} if kid else {})
    return jwt.encode(header, payload, key, algorithms=[algorithm])


def keyed_with(secret: bytes) -> str:
    """An HS256 token whose secret is something public; libraries refuse to make one."""
    header, payload = {"alg": "HS256"}, {"sub": "alice", "exp": int(time.time()) + 600}
    pieces = [base64url(json.dumps(part).encode()) for part in (header, payload)]
    signature = hmac.digest(secret, ".".join(pieces).encode(), "sha256")
    return ".".join([*pieces, base64url(signature)])


def base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def jwk_set(*keys: Key) -> dict[str, Any]:
    return {"keys": [{**key.as_dict(private=False), "kid": key.kid} for key in keys]}


async def status(running: Running, text: str) -> tuple[int, str | None]:
    """101, or the refusal's status and reason."""
    async with raw(running.port) as client:
        await client.send(head("/ws", "Authorization: Bearer " + text))
        answer = await client.response()
        number = int(answer.split()[1])
        if number == 101:
            return number, None
        return number, json.loads(await client.rest())["reason"]


async def readiness(running: Running) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(running.admin_url + "/readyz") as answer,
    ):
        return answer.status, await answer.json()


async def until_ready(running: Running) -> None:
    for _ in range(500):
        if not running.sidecar.readiness():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(running.sidecar.readiness())


def with_providers(up: Recording, **providers: Mapping[str, Any]) -> str:
    route = {"identity": {"headers": {"X-User-Id": "user", "X-Tenant": "claims.iss"}}}
    return policy_of(up.url, route=route, jwt={"providers": providers})


@pytest.mark.parametrize("algorithm", KEYS)
async def test_a_pem_public_key_verifies(tmp_path: Path, algorithm: str) -> None:
    key = KEYS[algorithm]
    pem = tmp_path / "key.pem"
    pem.write_bytes(key.as_pem(private=False))
    provider = {"algorithms": [algorithm], "public_key": {"file": str(pem)}}
    async with recording() as up, sidecar(with_providers(up, corp=provider), tmp_path) as s:
        assert await status(s, signed(algorithm, key)) == (101, None)
        assert await status(s, signed(algorithm, key, kid="any")) == (101, None)
        assert await status(s, token()) == (401, "token_invalid")
        assert await status(s, keyed_with(pem.read_bytes())) == (401, "token_invalid")
        assert len(up.heads) == 2


@pytest.mark.parametrize("algorithm", KEYS)
async def test_a_jwks_file_verifies_by_kid(tmp_path: Path, algorithm: str) -> None:
    key = KEYS[algorithm]
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(jwk_set(key)))
    provider = {"algorithms": [algorithm], "jwks_file": str(path)}
    async with recording() as up, sidecar(with_providers(up, corp=provider), tmp_path) as s:
        assert await status(s, signed(algorithm, key, kid=key.kid)) == (101, None)
        jwk = json.dumps(key.as_dict(private=False)).encode()
        assert await status(s, keyed_with(jwk)) == (401, "token_invalid")
        for kid in ("unknown", "../../dev/null", "' OR 1", "file:///etc/passwd"):
            assert await status(s, signed(algorithm, key, kid=kid)) == (401, "token_invalid")
        assert len(up.heads) == 1


async def test_an_algorithm_beside_the_providers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(jwk_set(RSA)))
    provider = {"algorithms": ["RS256"], "jwks_file": str(path)}
    async with recording() as up, sidecar(with_providers(up, corp=provider), tmp_path) as s:
        assert await status(s, signed("PS256", RSA, kid=RSA.kid)) == (401, "token_invalid")
        assert up.heads == []


async def test_a_jwks_url_verifies_and_an_unknown_kid_fetches_once_more(tmp_path: Path) -> None:
    old, new = KEYS["ES256"], OTHERS["ES256"]
    async with issuing(Issuer(unused_port())) as issuer, recording() as up:
        issuer.keys = jwk_set(old)
        provider = {
            "algorithms": ["ES256"],
            "jwks_url": issuer.url + "/keys.json",
            "allow_http": True,
        }
        async with sidecar(with_providers(up, corp=provider), tmp_path) as s:
            assert await status(s, signed("ES256", old, kid=old.kid)) == (101, None)
            issuer.keys = jwk_set(old, new)
            assert await status(s, signed("ES256", new, kid=new.kid)) == (101, None)
            for number in range(5):
                text = signed("ES256", new, kid=f"random-{number}")
                assert await status(s, text) == (401, "token_invalid")
        assert issuer.asked == ["/keys.json", "/keys.json"]


async def test_symmetric_keys_of_the_network_are_dropped(tmp_path: Path) -> None:
    key = KEYS["ES256"]
    secret = OctKey.import_key(SECRET).as_dict(private=True)
    async with issuing(Issuer(unused_port())) as issuer, recording() as up:
        issuer.keys = jwk_set(key)
        issuer.keys["keys"].append({**secret, "kid": "oct", "alg": "HS256"})
        provider = {
            "algorithms": ["ES256"],
            "jwks_url": issuer.url + "/keys.json",
            "allow_http": True,
        }
        async with sidecar(with_providers(up, corp=provider), tmp_path) as s:
            assert await status(s, signed("ES256", key, kid=key.kid)) == (101, None)
            forged = signed("HS256", OctKey.import_key(SECRET), kid="oct")
            assert await status(s, forged) == (401, "token_invalid")


async def test_a_redirect_to_keys_is_not_followed(tmp_path: Path) -> None:
    key = KEYS["ES256"]
    async with issuing(Issuer(unused_port())) as issuer, recording() as up:
        issuer.keys = jwk_set(key)
        provider = {"algorithms": ["ES256"], "jwks_url": issuer.url + "/moved", "allow_http": True}
        async with sidecar(with_providers(up, corp=provider), tmp_path) as s:
            text = signed("ES256", key, kid=key.kid)
            assert await status(s, text) == (503, "state_unavailable")
        assert set(issuer.asked) == {"/moved"}
        assert up.heads == []


async def test_discovery_finds_the_keys_and_pins_the_issuer(tmp_path: Path) -> None:
    key = KEYS["RS256"]
    async with issuing(Issuer(unused_port())) as issuer, recording() as up:
        issuer.keys = jwk_set(key)
        provider = {
            "algorithms": ["RS256"],
            "discovery": issuer.url,
            "allow_http": True,
            "audience": ["chat"],
        }
        async with sidecar(with_providers(up, corp=provider), tmp_path) as s:
            good = {"iss": issuer.url, "aud": ["other", "chat"]}
            assert await status(s, signed("RS256", key, kid=key.kid, **good)) == (101, None)
            wrongs: tuple[dict[str, Any], ...] = (
                {"iss": "https://other.example"},
                {"iss": issuer.url + "/"},
                {"iss": None},
                {"aud": "chatter"},
                {"aud": []},
            )
            for wrong in wrongs:
                text = signed("RS256", key, kid=key.kid, **{**good, **wrong})
                assert await status(s, text) == (401, "token_invalid")
        assert issuer.asked[:2] == ["/.well-known/openid-configuration", "/keys.json"]
        assert fields(up.heads[0])["x-tenant"] == issuer.url
        assert len(up.heads) == 1


async def test_metadata_of_another_issuer_gives_no_keys(tmp_path: Path) -> None:
    key = KEYS["RS256"]
    async with issuing(Issuer(unused_port())) as issuer, recording() as up:
        issuer.keys = jwk_set(key)
        issuer.metadata["issuer"] = "https://login.example.com"
        provider = {"algorithms": ["RS256"], "discovery": issuer.url, "allow_http": True}
        async with sidecar(with_providers(up, corp=provider), tmp_path) as s:
            text = signed("RS256", key, kid=key.kid, iss=issuer.url)
            assert await status(s, text) == (503, "state_unavailable")
        assert up.heads == []


async def test_the_issuer_of_a_token_chooses_its_provider(tmp_path: Path) -> None:
    sets = {"one": KEYS["ES256"], "two": OTHERS["ES256"]}
    providers: dict[str, Any] = {"app": {**PROVIDER, "issuer": "https://app.example"}}
    for name, key in sets.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(jwk_set(key)))
        providers[name] = {
            "algorithms": ["ES256"],
            "jwks_file": str(tmp_path / f"{name}.json"),
            "issuer": f"https://{name}.example",
        }
    async with recording() as up, sidecar(with_providers(up, **providers), tmp_path) as s:
        for name, key in sets.items():
            issuer = f"https://{name}.example"
            assert await status(s, signed("ES256", key, iss=issuer)) == (101, None)
            assert fields(up.heads[-1])["x-tenant"] == issuer
        assert await status(s, token(iss="https://app.example")) == (101, None)
        swapped = signed("ES256", sets["one"], iss="https://two.example")
        assert await status(s, swapped) == (401, "token_invalid")
        for issuer_name in ("https://three.example", "https://one.example/", None):
            assert (await status(s, token(iss=issuer_name)))[0] == 401
        assert len(up.heads) == 3


async def test_a_route_takes_only_its_providers(tmp_path: Path) -> None:
    other = {"algorithms": ["HS512"], "secrets": [{"env": "OTHER"}]}
    environ = {**ENVIRON, "OTHER": SECRET[::-1]}
    async with recording() as up:
        policy = policy_of(
            up.url,
            route={"authenticate": {"providers": ["app"]}},
            jwt={"providers": {"app": PROVIDER, "other": other}},
        )
        async with sidecar(policy, tmp_path, environ) as s:
            assert await status(s, token()) == (101, None)
            foreign = token(secret=environ["OTHER"], algorithm="HS512")
            assert await status(s, foreign) == (401, "token_invalid")


async def test_a_sidecar_starts_while_its_issuer_is_down_and_recovers(tmp_path: Path) -> None:
    key = KEYS["ES256"]
    issuer = Issuer(unused_port())
    issuer.keys = jwk_set(key)
    provider = {"algorithms": ["ES256"], "discovery": issuer.url, "allow_http": True}
    async with recording() as up:
        policy = with_providers(up, corp=provider, app=PROVIDER)
        async with sidecar(policy, tmp_path) as s:
            text = signed("ES256", key, kid=key.kid, iss=issuer.url)
            assert await status(s, text) == (503, "state_unavailable")
            assert await status(s, token()) == (101, None)  # the other issuer's users come in
            code, body = await readiness(s)
            assert (code, list(body["problems"])) == (503, ["keys of corp"])
            async with issuing(issuer):
                await until_ready(s)
                assert (await readiness(s))[0] == 200
                assert await status(s, text) == (101, None)
            assert await status(s, text) == (101, None)  # down again: the keys are still good
        assert len(up.heads) == 3


async def test_a_503_for_want_of_keys_says_when_to_come_back(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{unused_port()}/keys.json"
    provider = {"algorithms": ["ES256"], "jwks_url": url, "allow_http": True}
    async with (
        recording() as up,
        sidecar(with_providers(up, corp=provider), tmp_path) as s,
        raw(s.port) as client,
    ):
        text = signed("ES256", KEYS["ES256"])
        await client.send(head("/ws", "Authorization: Bearer " + text))
        problem = await client.refusal()
    assert fields(problem["head"].encode())["retry-after"] == "5"
    assert up.heads == []


async def test_secrets_rotate_by_file(tmp_path: Path) -> None:
    old, new = "o" * 31 + "ld secret of the tests", "n" * 31 + "ew secret of the tests"
    paths = tmp_path / "current", tmp_path / "previous"
    paths[0].write_text(old + "\n")
    paths[1].write_text("u" * 31 + "nused secret of the tests")
    provider = {"algorithms": ["HS256"], "secrets": [{"file": str(path)} for path in paths]}
    async with recording() as up, sidecar(with_providers(up, app=provider), tmp_path) as s:
        assert await status(s, token(secret=old)) == (101, None)
        assert await status(s, token(secret=new)) == (401, "token_invalid")
        replace(paths[1], old)
        replace(paths[0], new)
        await until_good(s, token(secret=new))
        assert await status(s, token(secret=old)) == (101, None)
        replace(paths[1], new)
        await until_refused(s, token(secret=old))
        replace(paths[0], "short")  # cannot be used: the good ones stay
        replace(paths[1], new + " again")
        assert await status(s, token(secret=new)) == (101, None)


async def test_the_secret_that_comes_first_signs(tmp_path: Path) -> None:
    first, second = SECRET, SECRET[::-1]
    provider = {"algorithms": ["HS256"], "secrets": [{"env": "FIRST"}, {"env": "SECOND"}]}
    sign = {"provider": "app", "header": "X-Identity"}
    async with recording() as up:
        policy = policy_of(
            up.url, route={"identity": {"sign": sign}}, jwt={"providers": {"app": provider}}
        )
        async with sidecar(policy, tmp_path, {"FIRST": first, "SECOND": second}) as s:
            assert await status(s, token(secret=second)) == (101, None)
    text = fields(up.heads[0])["x-identity"]
    assert jwt.decode(text, OctKey.import_key(first), algorithms=["HS256"]).claims["sub"] == "alice"


async def test_a_private_key_signs_what_its_public_half_verifies(tmp_path: Path) -> None:
    key = KEYS["ES256"]
    pem = tmp_path / "key.pem"
    pem.write_bytes(key.as_pem(private=True))
    internal = {"algorithms": ["ES256"], "private_key": {"file": str(pem)}}
    async with recording() as up:
        policy = policy_of(
            up.url,
            route={"identity": {"sign": {"provider": "internal"}}},
            jwt={"providers": {"app": PROVIDER, "internal": internal}},
        )
        async with sidecar(policy, tmp_path) as s:
            assert await status(s, token()) == (101, None)
    identity = jwt.decode(fields(up.heads[0])["x-identity"], key, algorithms=["ES256"])
    assert (identity.claims["sub"], identity.claims["iss"]) == ("alice", "ws-auth-sidecar")


def replace(path: Path, text: str) -> None:
    """Write a file as a secret's mount does: a new one in its place."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)


async def until_good(running: Running, text: str) -> None:
    for _ in range(100):
        if (await status(running, text))[0] == 101:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the new secret is not taken up")


async def until_refused(running: Running, text: str) -> None:
    for _ in range(100):
        if (await status(running, text))[0] == 401:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the old secret is still good")
