"""Tokens that a careless verifier would take."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from tests.support.attacks import bearer, refused, served
from tests.support.clients import head, raw
from tests.support.forgery import LATER, base64url, signed, unsigned
from tests.support.sidecars import PROVIDER, policy_of, sidecar
from tests.support.tokens import SECRET, token
from tests.support.upstreams import recording

GOOD: dict[str, Any] = {"sub": "alice", "exp": LATER}


@pytest.fixture(scope="module")
def private_key() -> RSAPrivateKey:
    return generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def pem(private_key: RSAPrivateKey) -> bytes:
    public = private_key.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def header(**parameters: Any) -> dict[str, Any]:
    return {"alg": "HS256", "typ": "JWT"} | parameters


async def assert_refused(tmp_path: Path, text: str, reason: str = "token_invalid") -> None:
    async with recording() as upstream, sidecar(policy_of(upstream.url), tmp_path) as running:
        problem = await refused(running, upstream, head("/ws", bearer(text)), reason)
    assert problem["status"] == 401


async def test_the_token_that_these_tests_spoil_is_good(tmp_path: Path) -> None:
    async with recording() as upstream, sidecar(policy_of(upstream.url), tmp_path) as running:
        await served(running, upstream, bearer(signed(GOOD)))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "noNe", "", " none", "none\0", None])
async def test_an_unsigned_token_is_refused(tmp_path: Path, alg: Any) -> None:
    await assert_refused(tmp_path, unsigned(GOOD, {"alg": alg}))
    await assert_refused(tmp_path, signed(GOOD, {"alg": alg}))


@pytest.mark.parametrize(
    "alg", ["hs256", "HS256 ", "HS384", "HS512", "RS256", "HS1", "HS256\n", ["HS256"], 256, True]
)
async def test_another_algorithm_than_the_providers_is_refused(tmp_path: Path, alg: Any) -> None:
    await assert_refused(tmp_path, signed(GOOD, header(alg=alg)))


@pytest.mark.parametrize("form", ["pem", "pem without line end", "jwk", "der", "n"])
async def test_a_public_key_is_no_shared_secret(
    tmp_path: Path, pem: bytes, private_key: RSAPrivateKey, form: str
) -> None:
    public = private_key.public_key()
    jwk = RSAAlgorithm.to_jwk(public)
    secrets = {
        "pem": pem,
        "pem without line end": pem.strip(),
        "jwk": jwk.encode(),
        "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "n": json.loads(jwk)["n"].encode(),
    }
    (tmp_path / "key.pem").write_bytes(pem)
    provider = {"algorithms": ["RS256"], "public_key": {"file": str(tmp_path / "key.pem")}}
    jwt = {"providers": {"app": provider, "shared": PROVIDER}}
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, jwt=jwt), tmp_path) as running,
    ):
        for alg, digest in (("HS256", "sha256"), ("HS512", "sha512"), ("RS256", "sha256")):
            text = signed(GOOD, header(alg=alg), key=secrets[form], digest=digest)
            await refused(running, upstream, head("/ws", bearer(text)), "token_invalid")


@pytest.mark.parametrize(
    "parameters",
    [
        {"kid": "../../dev/null"},
        {"kid": "/dev/null"},
        {"kid": "' OR 1"},
        {"kid": "file:///etc/passwd"},
        {"kid": "\0"},
        {"kid": "x" * 4000},
        {"jku": "http://127.0.0.1:1/jwks.json"},
        {"x5u": "file:///etc/passwd"},
        {"x5c": ["MIIB"]},
        {"jwk": {"kty": "oct", "k": ""}},
    ],
)
async def test_a_header_cannot_bring_its_own_key(
    tmp_path: Path, parameters: dict[str, Any]
) -> None:
    for key in (b"", b"\0", b"attacker"):
        await assert_refused(tmp_path, signed(GOOD, header(**parameters), key=key))


@pytest.mark.parametrize(
    "parameters",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": None},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": True},
        {"enc": "A256GCM"},
        {"kid": 1},
        {"kid": None},
        {"kid": ["a"]},
        {"typ": "JWE"},
        {"typ": "id_token"},
        {"typ": "logout+jwt"},
        {"typ": None},
        {"typ": 1},
        {"typ": ""},
    ],
)
async def test_a_header_that_asks_for_something_else_is_refused(
    tmp_path: Path, parameters: dict[str, Any]
) -> None:
    await assert_refused(tmp_path, signed(GOOD, header(**parameters)))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": "9999999999"},
        {"exp": "9_999_999_999"},
        {"exp": True},
        {"exp": None},
        {"exp": -1},
        {"exp": []},
        {"exp": {}},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": 1e300},
        {"exp": 10**400},
        {"exp": 253402300800},
        {"nbf": LATER},
        {"nbf": "0"},
        {"nbf": None},
        {"nbf": -1},
        {"iat": LATER},
        {"iat": True},
        {"iat": "now"},
        {"iss": 1},
        {"iss": ["a"]},
        {"iss": None},
        {"aud": 1},
        {"aud": ["chat", 1]},
        {"aud": [["chat"]]},
        {"aud": {"chat": 1}},
        {"aud": None},
        {"sub": ""},
        {"sub": None},
        {"sub": 1.5},
        {"sub": True},
        {"sub": ["alice"]},
        {"sub": "alice\n"},
    ],
)
async def test_claims_of_another_form_are_refused(tmp_path: Path, claims: dict[str, Any]) -> None:
    await assert_refused(tmp_path, signed(GOOD | claims))


@pytest.mark.parametrize("missing", ["exp", "sub"])
async def test_a_token_without_what_the_policy_requires_is_refused(
    tmp_path: Path, missing: str
) -> None:
    await assert_refused(tmp_path, signed({k: v for k, v in GOOD.items() if k != missing}))


async def test_an_expired_token_is_told_so_only_when_its_signature_is_good(
    tmp_path: Path,
) -> None:
    await assert_refused(tmp_path, signed(GOOD | {"exp": 1}), "token_expired")
    await assert_refused(tmp_path, signed(GOOD | {"exp": 1}, key="x"), "token_invalid")


PLAIN = b'{"sub":"alice","exp":4000000000}'


@pytest.mark.parametrize(
    "payload",
    [
        b'{"sub":"alice","sub":"admin","exp":4000000000}',
        b'{"sub":"alice","exp":1,"exp":4000000000}',
        b'{"sub":"alice","\\u0073ub":"admin","exp":4000000000}',
        b'{"sub":"alice","exp":4000000000,"a":{"b":1,"b":2}}',
        b'{"sub":"alice","exp":1e999}',
        b'{"sub":"alice","exp":Infinity}',
        b'{"sub":"alice","exp":4000000000,"a":NaN}',
        b'{"sub":"alice","exp":0x7fffffff}',
        b'{"sub":"alice","exp":4000000000}x',
        b'{"sub":"alice","exp":4000000000}\0',
        b"{'sub':'alice','exp':4000000000}",
        b'{"sub":"alice","exp":4000000000,}',
        b'/**/{"sub":"alice","exp":4000000000}',
        b'{"sub":"alice\xff","exp":4000000000}',
        b'{"sub":"\\ud800","exp":4000000000}',
        b'{"sub":"ali\nce","exp":4000000000}',
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.decode().encode("utf-16"),
        PLAIN.decode().encode("utf-16-le"),
        PLAIN.decode().encode("utf-32"),
        b"[" + PLAIN + b"]",
        b'"alice"',
        b"null",
        b"",
        b"{}",
        b'{"sub":"alice","exp":4000000000,"a":' + b"[" * 33 + b"]" * 33 + b"}",
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b"[" * 5000,
        b'{"sub":"alice","exp":4000000000,"a":' + b"9" * 5000 + b"}",
    ],
)
async def test_a_payload_that_is_no_strict_json_is_refused(tmp_path: Path, payload: bytes) -> None:
    await assert_refused(tmp_path, signed(payload))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text + ".",
        lambda text: text + ".a.b",
        lambda text: "." + text,
        lambda text: text.rpartition(".")[0],
        lambda text: text.rpartition(".")[0] + ".",
        lambda text: text + "=",
        lambda text: text + "A",
        lambda text: text[:-1] + ("A" if text[-1] != "A" else "E"),
        lambda text: text.replace(".", "%2e"),
        lambda text: text.replace(".", ". "),
        lambda text: text.replace("_", "/").replace("-", "+") + "=",
        lambda text: text + "\xe9",
        lambda text: "." * 8000,
        lambda text: "a" * 8000,
        lambda text: "....",
        lambda text: "..",
    ],
)
async def test_a_token_has_exactly_one_spelling(tmp_path: Path, spoil: Any) -> None:
    await assert_refused(tmp_path, spoil(signed(GOOD)))


@pytest.mark.parametrize("last", "BCDEFGH")
async def test_unused_bits_of_a_signature_are_not_a_second_spelling(
    tmp_path: Path, last: str
) -> None:
    text = signed(GOOD)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # the last of 43 digits holds four bits, and two that a lenient decoder throws away
    digit = alphabet[alphabet.index(text[-1]) | 1]
    assert digit != text[-1]
    await assert_refused(tmp_path, text[:-1] + digit)
    await assert_refused(tmp_path, text[:-1] + last + digit)


async def test_an_encrypted_token_is_refused(tmp_path: Path) -> None:
    jwe = base64url(b'{"alg":"dir","enc":"A256GCM"}') + "..AAAA.AAAA.AAAA"
    await assert_refused(tmp_path, jwe)


async def test_the_token_of_another_issuer_is_refused(tmp_path: Path) -> None:
    other = {"algorithms": ["HS256"], "secrets": [{"value": "x7" + SECRET[::-1]}]}
    jwt = {
        "providers": {
            "app": {**PROVIDER, "issuer": "https://a.example"},
            "other": {**other, "issuer": "https://b.example"},
        }
    }
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, jwt=jwt), tmp_path) as running,
    ):
        good = bearer(token(iss="https://a.example"))
        assert await served(running, upstream, good)
        for issuer in ("https://b.example", "https://a.example/", "HTTPS://a.example", "", None):
            text = token(iss=issuer)
            before = len(upstream.heads)
            request = head("/ws", bearer(text))
            problem = await _refusal(running.port, request)
            assert problem["reason"] == "token_invalid"
            assert len(upstream.heads) == before


async def _refusal(port: int, request: bytes) -> dict[str, Any]:
    async with raw(port) as client:
        await client.send(request)
        return await client.refusal()


async def test_a_giant_token_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    async with recording() as upstream, sidecar(policy_of(upstream.url), tmp_path) as running:
        over = signed(GOOD | {"pad": "a" * 8 * 1024})
        await refused(running, upstream, head("/ws", bearer(over)), "token_invalid")
        async with raw(running.port) as client:
            await client.send(head("/ws", bearer(signed(GOOD | {"pad": "a" * 2**16}))))
            # the answer may be lost, since the rest of the head is never read
            assert b" 101 " not in await client.rest()
        assert len(upstream.heads) == 1  # the good client that `refused` sends
        await served(running, upstream)


async def test_a_token_a_little_over_the_limit_is_an_invalid_token(tmp_path: Path) -> None:
    text = signed(GOOD)
    limit = {"max_token_size": f"{len(text) - 1}B", "providers": {"app": PROVIDER}}
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, jwt=limit), tmp_path) as running,
    ):
        problem = await _refusal(running.port, head("/ws", bearer(text)))
        assert problem["reason"] == "token_invalid"
        assert upstream.heads == []
