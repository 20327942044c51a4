"""Keys of one run and tokens for each algorithm, in the forms that the peers read."""

import json
import secrets
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

__all__ = ["ALGORITHMS", "Credentials"]

ALGORITHMS = ("HS256", "RS256", "ES256")

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
        """New keys: `<algorithm>.jwks` and, of public keys, `<algorithm>.pem` in `folder`."""
        secret = secrets.token_hex(32)
        rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        ec_key = ec.generate_private_key(ec.SECP256R1())
        jwks: dict[str, dict[str, Any]] = {
            "HS256": {"kty": "oct", "k": urlsafe_b64encode(secret.encode()).decode().rstrip("=")},
            "RS256": RSAAlgorithm.to_jwk(rsa_key.public_key(), as_dict=True),
            "ES256": ECAlgorithm.to_jwk(ec_key.public_key(), as_dict=True),
        }
        for name, jwk in jwks.items():
            document = {"keys": [jwk | {"kid": name, "alg": name, "use": "sig"}]}
            (folder / f"{name}.jwks").write_text(json.dumps(document))
        _write_public(folder / "RS256.pem", rsa_key.public_key())
        _write_public(folder / "ES256.pem", ec_key.public_key())
        keys: dict[str, _Key] = {"HS256": secret, "RS256": rsa_key, "ES256": ec_key}
        tokens = {name: _token(name, key) for name, key in keys.items()}
        return cls(secret, tokens, keys, folder)

    def different(self, algorithm: str, count: int) -> Path:
        """A file with so many good tokens, no two alike, as Authorization headers, one in a line.

        It is written when it is asked for first: a signature with RSA takes its time.
        """
        path = self.folder / f"{algorithm}-{count}.headers"
        if not path.exists():
            key = self.keys[algorithm]
            tokens = (_token(algorithm, key) for _ in range(count))
            path.write_text("".join(f"Authorization: Bearer {token}\n" for token in tokens))
        return path


_Key = str | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def _token(algorithm: str, key: _Key) -> str:
    """A good token of a user whom no other token names."""
    now = int(time.time())
    claims = {
        "sub": str(uuid.uuid4()),
        "jti": str(uuid.uuid4()),
        "email": "alice@example.com",
        "roles": ["member", "editor"],
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
