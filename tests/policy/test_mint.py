"""Making tokens; joserfc, another implementation, reads them."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from sidecar.policy.keys import SigningKey
from sidecar.policy.mint import mint

SECRET = b"0123456789abcdef0123456789abcdef-and-more"


def pem(private: Any) -> bytes:
    data: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data


def test_a_shared_secret_signs() -> None:
    token = mint({"sub": "ana", "n": 1}, SigningKey(None, "HS256", SECRET))
    read = jwt.decode(token, OctKey.import_key(SECRET), algorithms=["HS256"])
    assert read.claims == {"sub": "ana", "n": 1}
    assert read.header == {"alg": "HS256", "typ": "JWT"}


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize(
    ("algorithm", "private", "key_class"),
    [
        ("RS256", rsa.generate_private_key(65537, 2048), RSAKey),
        ("ES256", ec.generate_private_key(ec.SECP256R1()), ECKey),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate(), OKPKey),
    ],
)
def test_a_private_key_signs_and_its_kid_is_named(
    algorithm: str, private: Any, key_class: Any
) -> None:
    token = mint({"sub": "ana"}, SigningKey("k1", algorithm, private))
    read = jwt.decode(token, key_class.import_key(pem(private)), algorithms=[algorithm])
    assert read.claims == {"sub": "ana"}
    assert read.header == {"alg": algorithm, "typ": "JWT", "kid": "k1"}


def test_the_type_can_be_another() -> None:
    token = mint({}, SigningKey(None, "HS256", SECRET), token_type="at+jwt")
    read = jwt.decode(token, OctKey.import_key(SECRET), algorithms=["HS256"])
    assert read.header["typ"] == "at+jwt"


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(ValueError, match="strict JSON"):
        mint({"sub": "admin\ud800"}, SigningKey(None, "HS256", SECRET))
