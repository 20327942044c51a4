"""Policies as text, and the keys and certificates that they name."""

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from sidecar.config.source import Loaded, load_policy
from sidecar.errors import ConfigError

ENVIRON = {"JWT_SECRET": "7f3c0e9a1b5d48e2a6c4f8b0d1e29375", "ADMIN_TOKEN": "b5f0c7d2e9a84163"}

Load = Callable[[str], Loaded]
Mistakes = Callable[[str], list[str]]


@pytest.fixture(scope="session")
def environ() -> Mapping[str, str]:
    return ENVIRON


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a policy from its text; its file is called policy.yaml."""
    monkeypatch.chdir(tmp_path)

    def load(text: str) -> Loaded:
        Path("policy.yaml").write_text(text)
        return load_policy([Path("policy.yaml")], ENVIRON)

    return load


@pytest.fixture
def mistakes(load: Load) -> Mistakes:
    """The problems of a policy, each as `line:column: key: what; remedy`."""

    def mistakes(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text)
        return [str(problem).removeprefix("policy.yaml:") for problem in caught.value.problems]

    return mistakes


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a policy may name: a certificate, its key, a key set, a secret."""
    folder = tmp_path_factory.mktemp("material")
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    numbers = key.public_key().public_numbers()
    x, y = (
        base64.urlsafe_b64encode(number.to_bytes(32)).rstrip(b"=").decode()
        for number in (numbers.x, numbers.y)
    )
    jwk = {"kty": "EC", "crv": "P-256", "kid": "k1", "x": x, "y": y}
    (folder / "tls.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "tls.key").write_bytes(private)
    (folder / "public.pem").write_bytes(public)
    (folder / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    (folder / "secret").write_text("0f4b8d27c6a95e1372d8e4f1b0c3a697\n")
    return folder


SMALL = """\
upstreams: {chat: {url: "ws://127.0.0.1:9000"}}
jwt: {providers: {app: {algorithms: [HS256], secrets: [{env: JWT_SECRET}]}}}
"""


@pytest.fixture(scope="session")
def small() -> str:
    """A policy that lacks nothing; further sections may follow it."""
    return SMALL
