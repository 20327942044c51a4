"""Keys of one run and tokens for each algorithm, in the forms that the peers read."""

import json
import secrets
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

__all__ = ["ALGORITHMS", "BEARER", "Credentials", "forge", "write_certificate"]

ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")

BEARER = "Authorization: Bearer "
"""What stands before a token, where nothing else is said."""

_LIFETIME = 24 * 3600


@dataclass(frozen=True)
class Credentials:
    """The shared secret, by algorithm a good token and the key that signs; files in `folder`."""

    secret: str
    tokens: Mapping[str, str]
    keys: Mapping[str, "_Key"]
    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Credentials":
        """New keys in `folder`: `<algorithm>.jwks`, `.pem` of public keys, and RSA's `.key`."""
        secret = secrets.token_hex(32)
        rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        ec_key = ec.generate_private_key(ec.SECP256R1())
        ed_key = ed25519.Ed25519PrivateKey.generate()
        jwks: dict[str, dict[str, Any]] = {
            "HS256": {"kty": "oct", "k": urlsafe_b64encode(secret.encode()).decode().rstrip("=")},
            "RS256": RSAAlgorithm.to_jwk(rsa_key.public_key(), as_dict=True),
            "ES256": ECAlgorithm.to_jwk(ec_key.public_key(), as_dict=True),
            "EdDSA": OKPAlgorithm.to_jwk(ed_key.public_key(), as_dict=True),
        }
        for name, jwk in jwks.items():
            document = {"keys": [jwk | {"kid": name, "alg": name, "use": "sig"}]}
            (folder / f"{name}.jwks").write_text(json.dumps(document))
        _write_public(folder / "RS256.pem", rsa_key.public_key())
        _write_public(folder / "ES256.pem", ec_key.public_key())
        _write_private(folder / "RS256.key", rsa_key)
        keys: dict[str, _Key] = {
            "HS256": secret,
            "RS256": rsa_key,
            "ES256": ec_key,
            "EdDSA": ed_key,
        }
        tokens = {name: _token(name, key) for name, key in keys.items()}
        return cls(secret, tokens, keys, folder)

    def different(
        self, algorithm: str, count: int, carrier: str = BEARER, forged: bool = False
    ) -> Path:
        """A file with so many tokens, no two alike, one in a line behind the carrier.

        It is written when it is asked for first: a signature with RSA takes its time.
        """
        kind = "forged" if forged else "good"
        path = self.folder / f"{algorithm}-{count}-{kind}-{carrier.partition(':')[0]}.headers"
        if not path.exists():
            key = self.keys[algorithm]
            tokens = (_token(algorithm, key) for _ in range(count))
            lines = (f"{carrier}{forge(token) if forged else token}\n" for token in tokens)
            path.write_text("".join(lines))
        return path


def forge(token: str) -> str:
    """The token with a signature that is not its own."""
    return f"{token[:-8]}AAAAAAAA"


_Key = str | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def _token(algorithm: str, key: _Key) -> str:
    """A good token of a user whom no other token names."""
    now = int(time.time())
    claims = {
        "sub": str(uuid.uuid4()),
        "jti": str(uuid.uuid4()),
        "email": "alice@example.com",
        "roles": ["member", "editor"],
        "rooms": ["lobby", algorithm],
        "iat": now,
        "exp": now + _LIFETIME,
    }
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": algorithm})


def _write_public(path: Path, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> None:
    path.write_bytes(
        key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def _write_private(path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def write_certificate(folder: Path) -> None:
    """`server.pem` and `server.key`: a certificate for 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "server.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_private(folder / "server.key", key)
