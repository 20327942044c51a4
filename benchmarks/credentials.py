"""Keys of one run and a token for each algorithm, in the forms that the peers read."""

import json
import secrets
import time
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


@dataclass(frozen=True)
class Credentials:
    """The shared secret, and a good token by algorithm."""

    secret: str
    tokens: Mapping[str, str]

    @classmethod
    def make(cls, folder: Path, seconds: int = 24 * 3600) -> "Credentials":
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
        signing: dict[str, str | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {
            "HS256": secret,
            "RS256": rsa_key,
            "ES256": ec_key,
        }
        claims = _claims(seconds)
        return cls(
            secret,
            {
                name: jwt.encode(claims, key, algorithm=name, headers={"kid": name})
                for name, key in signing.items()
            },
        )


def _claims(seconds: int) -> dict[str, Any]:
    now = int(time.time())
    return {
        "sub": "3f0c6f0e-7a53-4c0e-9a35-3c1b8f2f7d11",
        "email": "alice@example.com",
        "roles": ["member", "editor"],
        "iat": now,
        "exp": now + seconds,
    }


def _write_public(path: Path, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> None:
    path.write_bytes(
        key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
