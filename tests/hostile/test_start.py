"""Policies that must not run: weak keys, exposed upstreams, an exposed admin listener."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey, OctKey, RSAKey

from sidecar.config.source import load_policy
from sidecar.errors import ConfigError, KeyMaterialError
from tests.support.sidecars import PROVIDER, policy_of, sidecar, sidecar_process


async def assert_does_not_start(tmp_path: Path, policy: str, secret: str = "") -> str:
    environ = {"JWT_SECRET": secret}
    with pytest.raises((ConfigError, KeyMaterialError)) as caught:
        async with sidecar(policy, tmp_path, environ):
            pass
    if secret:
        assert secret not in str(caught.value) or len(secret) < 8
    return str(caught.value)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "secret",
        "your-256-bit-secret",
        "YOUR-256-BIT-SECRET",
        "a-string-secret-at-least-256-bits-long",
        "k" * 31,
        "0123456789abcdef0123456789abcde",
        "a" * 64,
        "ab" * 32,
        "changeme" * 8,
        "secret" + " " * 40,
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7 someone@somewhere",
        '{"kty":"RSA","n":"AQAB","e":"AQAB","padding":"padding"}',
    ],
)
async def test_a_weak_secret_is_not_started_with(tmp_path: Path, secret: str) -> None:
    await assert_does_not_start(tmp_path, policy_of("ws://127.0.0.1:9"), secret)


def providers(**provider: Any) -> str:
    return policy_of("ws://127.0.0.1:9", jwt={"providers": {"app": provider}})


@pytest.mark.parametrize("bits", [1024, 2047])
async def test_a_short_rsa_key_is_not_started_with(tmp_path: Path, bits: int) -> None:
    public = generate_private_key(65537, bits).public_key()
    pem = tmp_path / "key.pem"
    pem.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    key = {"file": str(pem)}
    await assert_does_not_start(tmp_path, providers(algorithms=["RS256"], public_key=key))


def _sets() -> dict[str, list[dict[str, Any]]]:
    good = RSAKey.generate_key(2048).as_dict(private=False)
    plain = {name: good[name] for name in ("kty", "n", "e")}
    return {
        "two with the same kid": [plain | {"kid": "a"}, plain | {"kid": "a"}],
        "use enc": [plain | {"use": "enc"}],
        "key_ops sign": [plain | {"key_ops": ["sign"]}],
        "alg of another family": [plain | {"alg": "HS256"}],
        "a curve that does not fit": [ECKey.generate_key("P-256").as_dict(private=False)],
        "a shared secret": [plain, OctKey.generate_key(256).as_dict()],
        "a private key": [RSAKey.generate_key(2048).as_dict(private=True)],
        "exponent 1": [plain | {"e": "AQ"}],
        "none": [],
    }


_SETS = _sets()


@pytest.mark.parametrize("name", _SETS)
async def test_a_key_set_with_a_bad_key_is_not_started_with(tmp_path: Path, name: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": _SETS[name]}))
    await assert_does_not_start(tmp_path, providers(algorithms=["RS256"], jwks_file=str(path)))


@pytest.mark.parametrize(
    "algorithms",
    [["none"], ["HS256", "RS256"], ["hs256"], ["HS256", "none"], ["RS256"], ["ES256K"], []],
)
async def test_a_provider_has_one_family_of_algorithms(
    tmp_path: Path, algorithms: list[str]
) -> None:
    policy = providers(**{**PROVIDER, "algorithms": algorithms})
    await assert_does_not_start(tmp_path, policy, "k3y" * 5 + "0123456789 abcdefghijk")


@pytest.mark.parametrize(
    "url",
    [
        "ws://10.0.0.1:9000",
        "ws://example.com",
        "ws://0.0.0.0:9000",
        "ws://[::]:9000",
        "ws://127.0.0.1.evil.com",
        "ws://localhost.evil.com",
        "ws://127.0.0.1@evil.com",
        "ws://evil.com#@127.0.0.1",
        "ws://evil.com?127.0.0.1",
        "ws://2130706433",
        "ws://0x7f.1",
        "ws://[::ffff:10.0.0.1]:9000",
        "ws://169.254.169.254",
        "http://127.0.0.1",
        "//127.0.0.1",
        "unix:relative.sock",
        "ws://127.0.0.1/../x",
        "ws://127.0.0.1/%2e%2e",
    ],
)
def test_an_upstream_that_is_not_on_this_host_must_be_asked_for(tmp_path: Path, url: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(policy_of(url))
    with pytest.raises(ConfigError, match=r"upstreams\.main"):
        load_policy([path], {"JWT_SECRET": "k3y" * 5 + "0123456789 abcdefghijk"})


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "10.0.0.1:9090", "example.com:9090"])
async def test_the_admin_listener_is_not_exposed_without_a_token(
    tmp_path: Path, listen: str
) -> None:
    policy = policy_of("ws://127.0.0.1:9", admin={"listen": listen})
    text = await assert_does_not_start(tmp_path, policy, "k3y" * 5 + "0123456789 abcdefghijk")
    assert "admin.listen" in text


async def test_the_program_ends_with_the_reason_and_without_the_secret(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(policy_of("ws://127.0.0.1:9"))
    weak = {"JWT_SECRET": "your-384-bit-secret"}
    async with sidecar_process("serve", "-c", str(path), environ=weak) as process:
        assert await process.ended() == 1
    assert "well known" in process.output
    assert weak["JWT_SECRET"] not in process.output
    assert "Traceback" not in process.output
