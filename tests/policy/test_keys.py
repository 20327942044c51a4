"""Key material: what may be used, what is refused."""

import base64
import datetime
import hashlib
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from sidecar.errors import KeyMaterialError
from sidecar.policy.keys import (
    ASYMMETRIC,
    MAX_KEYS,
    RSA_MAX_EXPONENT,
    hmac_key,
    jwk_set,
    private_key,
    public_half,
    public_key,
)

GOOD_SECRET = b"%kW9u$eT2!vQ7p@Lz4&nR8*xC6^bM3#f"
RSA_KEY = rsa.generate_private_key(65537, 2048)
P256_KEY = ec.generate_private_key(ec.SECP256R1())
EVERY = tuple(sorted(ASYMMETRIC))
RSA_ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


def pem_of(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem_of(key: Any, password: bytes | None = None) -> bytes:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return pem


def certificate_of(key: rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, day, day)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def number(value: int) -> str:
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def rsa_jwk(bits_or_n: int, exponent: int = 65537, **more: Any) -> dict[str, Any]:
    return {"kty": "RSA", "n": number(bits_or_n), "e": number(exponent), **more}


def jwk(**more: Any) -> dict[str, Any]:
    """A good RSA JWK with some members replaced."""
    return rsa_jwk(RSA_KEY.public_key().public_numbers().n, **{"kid": "k1", **more})


def a_set(*keys: Any) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


# --- shared secrets


def test_a_good_secret_is_bound_to_the_hmac_algorithms_of_the_list() -> None:
    key = hmac_key(GOOD_SECRET, ["HS256", "RS256"], allow_weak=False)
    assert key.algorithms == {"HS256"}
    assert key.material == GOOD_SECRET
    assert key.kid is None


def test_keys_do_not_show_their_material() -> None:
    assert "kW9u" not in repr(hmac_key(GOOD_SECRET, ["HS256"], allow_weak=False))
    assert "RSAPrivateKey" not in repr(private_key(private_pem_of(RSA_KEY), ["RS256"]))


def test_a_secret_for_asymmetric_algorithms_only_is_refused() -> None:
    with pytest.raises(KeyMaterialError, match="fits none of the algorithms"):
        hmac_key(GOOD_SECRET, ["RS256"], allow_weak=True)


@pytest.mark.parametrize(("algorithm", "minimum"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_shorter_than_the_hash_is_refused(algorithm: str, minimum: int) -> None:
    secret = bytes(range(100, 100 + minimum))
    assert hmac_key(secret, [algorithm], allow_weak=False).material == secret
    with pytest.raises(KeyMaterialError, match=f"{minimum - 1} bytes.*at least {minimum}"):
        hmac_key(secret[:-1], [algorithm], allow_weak=False)
    assert hmac_key(secret[:-1], [algorithm], allow_weak=True).algorithms == {algorithm}


def test_the_strongest_algorithm_sets_the_length() -> None:
    with pytest.raises(KeyMaterialError, match="at least 64"):
        hmac_key(GOOD_SECRET, ["HS256", "HS512"], allow_weak=False)


@pytest.mark.parametrize(
    "secret",
    [
        b"secret" * 6,
        b"secretsecretsecretsecretsecretse",
        b"SecretSecretSecretSecretSecretSecret",
        b"changeme" + b"!" * 30,
        b"changeme" + b"0" * 30,
        b"\0" * 26 + b"secret",
        b"your-256-bit-secret" + b"=" * 13,
        b"your-256-bit-secretyour-256-bit-secret",
        b"a-string-secret-at-least-256-bits-long",
        b"0123456789" * 4,
        b"1234567890123456789012345678901234567890",
        b"0123456789ABCDEF0123456789abcdef",
        b"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
    ],
)
def test_a_well_known_secret_is_refused_alone_padded_and_repeated(secret: bytes) -> None:
    with pytest.raises(KeyMaterialError, match=r"well known.*allow_weak_secret"):
        hmac_key(secret, ["HS256"], allow_weak=False)
    assert hmac_key(secret, ["HS256"], allow_weak=True).material == secret


@pytest.mark.parametrize("secret", [b"secret", b"your-256-bit-secret", b"CHANGEME", b"test"])
def test_the_secrets_of_tutorials_are_known(secret: bytes) -> None:
    with pytest.raises(KeyMaterialError, match="well known"):
        hmac_key(secret, ["HS256"], allow_weak=False)


@pytest.mark.parametrize("secret", [b"a" * 32, b"ab" * 32, b"\0" * 64, b"abcde" * 10])
def test_a_secret_of_few_characters_is_refused(secret: bytes) -> None:
    with pytest.raises(KeyMaterialError, match="repeats"):
        hmac_key(secret, ["HS256"], allow_weak=False)


@given(st.binary().map(lambda seed: hashlib.sha256(seed).digest()))
def test_random_secrets_are_accepted(secret: bytes) -> None:
    assert hmac_key(secret, ["HS256"], allow_weak=False).material == secret


@pytest.mark.parametrize("allow_weak", [False, True])
def test_an_empty_secret_is_always_refused(allow_weak: bool) -> None:
    with pytest.raises(KeyMaterialError, match="empty"):
        hmac_key(b"", ["HS256"], allow_weak=allow_weak)


@pytest.mark.parametrize("allow_weak", [False, True])
@pytest.mark.parametrize(
    "secret",
    [
        pem_of(RSA_KEY.public_key()),
        private_pem_of(RSA_KEY),
        certificate_of(RSA_KEY),
        RSA_KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk()).encode(),
        a_set(jwk()),
    ],
    ids=["public", "private", "certificate", "ssh", "der", "jwk", "set"],
)
def test_a_public_key_is_never_a_shared_secret(secret: bytes, allow_weak: bool) -> None:
    with pytest.raises(KeyMaterialError, match="asymmetric key, a certificate or a JWK"):
        hmac_key(secret, ["HS256"], allow_weak=allow_weak)


# --- PEM


@pytest.mark.parametrize(
    ("key", "fitting"),
    [
        (RSA_KEY, RSA_ALGORITHMS),
        (P256_KEY, {"ES256"}),
        (ec.generate_private_key(ec.SECP384R1()), {"ES384"}),
        (ec.generate_private_key(ec.SECP521R1()), {"ES512"}),
        (ed25519.Ed25519PrivateKey.generate(), {"EdDSA"}),
        (ed448.Ed448PrivateKey.generate(), {"EdDSA"}),
    ],
    ids=["rsa", "p256", "p384", "p521", "ed25519", "ed448"],
)
def test_a_key_is_bound_to_the_algorithms_of_its_type(key: Any, fitting: set[str]) -> None:
    pem = pem_of(key.public_key())
    assert public_key(pem, EVERY).algorithms == fitting
    assert public_half(private_pem_of(key), EVERY).algorithms == fitting
    assert private_key(private_pem_of(key), EVERY).algorithm in fitting
    with pytest.raises(KeyMaterialError, match="fits none"):
        public_key(pem, sorted(ASYMMETRIC - fitting))
    with pytest.raises(KeyMaterialError, match="fits none"):
        private_key(private_pem_of(key), ["HS256"])


def test_a_key_takes_only_the_algorithms_of_the_list() -> None:
    key = public_key(pem_of(RSA_KEY.public_key()), ["ES256", "PS256", "RS512"])
    assert key.algorithms == {"PS256", "RS512"}


def test_a_certificate_gives_its_key() -> None:
    key = public_key(certificate_of(RSA_KEY), ["RS256"])
    assert key.material.public_numbers() == RSA_KEY.public_key().public_numbers()


def test_a_private_key_signs_with_the_first_algorithm_that_fits() -> None:
    assert private_key(private_pem_of(RSA_KEY), ["ES256", "PS384", "RS256"]).algorithm == "PS384"


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.SECP224R1()),
        x25519.X25519PrivateKey.generate(),
        dsa.generate_private_key(1024),
    ],
    ids=["secp256k1", "p224", "x25519", "dsa"],
)
def test_other_types_of_keys_are_refused(key: Any) -> None:
    with pytest.raises(KeyMaterialError, match="fits none"):
        public_key(pem_of(key.public_key()), EVERY)
    with pytest.raises(KeyMaterialError, match="fits none"):
        private_key(private_pem_of(key), EVERY)


def test_a_short_rsa_key_is_refused() -> None:
    short = rsa.generate_private_key(65537, 1024)
    for load in (
        lambda: public_key(pem_of(short.public_key()), ["RS256"]),
        lambda: private_key(private_pem_of(short), ["RS256"]),
        lambda: public_half(private_pem_of(short), ["RS256"]),
    ):
        with pytest.raises(KeyMaterialError, match=r"1024 bits.*2048"):
            load()


def test_a_huge_rsa_key_is_refused() -> None:
    huge = rsa.RSAPublicNumbers(65537, 2**8192 + 1).public_key()
    with pytest.raises(KeyMaterialError, match="8193 bits"):
        public_key(pem_of(huge), ["RS256"])


def test_an_unusual_rsa_exponent_is_refused() -> None:
    modulus = RSA_KEY.public_key().public_numbers().n
    odd = rsa.RSAPublicNumbers(RSA_MAX_EXPONENT + 1, modulus).public_key()
    with pytest.raises(KeyMaterialError, match="exponent"):
        public_key(pem_of(odd), ["RS256"])
    small = rsa.RSAPublicNumbers(3, modulus).public_key()
    assert public_key(pem_of(small), ["RS256"]).algorithms == {"RS256"}


@pytest.mark.parametrize(
    ("pem", "wrong"),
    [
        (b"", "exactly one PEM block"),
        (b"secret", "exactly one PEM block"),
        (pem_of(RSA_KEY.public_key()) * 2, "exactly one PEM block"),
        (private_pem_of(RSA_KEY), "private key"),
        (private_pem_of(RSA_KEY) + pem_of(RSA_KEY.public_key()), "private key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a PEM public key"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not a PEM public"),
    ],
)
def test_what_is_not_one_public_key_is_refused(pem: bytes, wrong: str) -> None:
    with pytest.raises(KeyMaterialError, match=wrong):
        public_key(pem, EVERY)


@pytest.mark.parametrize(
    "pem",
    [b"", b"secret", pem_of(RSA_KEY.public_key()), private_pem_of(RSA_KEY, b"password")],
    ids=["empty", "text", "public", "encrypted"],
)
def test_what_is_not_a_plain_private_key_is_refused(pem: bytes) -> None:
    with pytest.raises(KeyMaterialError, match="unencrypted PEM private key"):
        private_key(pem, EVERY)
    with pytest.raises(KeyMaterialError, match="unencrypted PEM private key"):
        public_half(pem, EVERY)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_give_a_pem_key(pem: bytes) -> None:
    with pytest.raises(KeyMaterialError):
        public_key(pem, EVERY)
    with pytest.raises(KeyMaterialError):
        private_key(pem, EVERY)


# --- JWK sets


@pytest.mark.parametrize("strict", [True, False])
def test_a_set_of_every_type_gives_keys_bound_to_their_algorithms(strict: bool) -> None:
    keys: list[RSAKey | ECKey | OKPKey] = [
        RSAKey.generate_key(2048, {"kid": "rsa"}),
        ECKey.generate_key("P-256", {"kid": "p256"}),
        ECKey.generate_key("P-384", {"kid": "p384"}),
        ECKey.generate_key("P-521", {"kid": "p521"}),
        OKPKey.generate_key("Ed25519", {"kid": "ed25519"}),
        OKPKey.generate_key("Ed448", {"kid": "ed448"}),
    ]
    found = jwk_set(a_set(*(key.as_dict(private=False) for key in keys)), EVERY, strict=strict)
    assert {key.kid: key.algorithms for key in found} == {
        "rsa": RSA_ALGORITHMS,
        "p256": {"ES256"},
        "p384": {"ES384"},
        "p521": {"ES512"},
        "ed25519": {"EdDSA"},
        "ed448": {"EdDSA"},
    }


def test_alg_narrows_a_key() -> None:
    (key,) = jwk_set(a_set(jwk(alg="RS512")), EVERY, strict=True)
    assert key.algorithms == {"RS512"}


def test_keys_without_a_kid_are_no_duplicates() -> None:
    first, second = jwk(), jwk()
    del first["kid"], second["kid"]
    assert [key.kid for key in jwk_set(a_set(first, second), EVERY, strict=True)] == [None, None]


UNUSABLE = {
    "symmetric": OctKey.generate_key(256).as_dict(private=True),
    "symmetric in disguise": jwk(k="AAAA"),
    "private": jwk(d="AAAA"),
    "for encryption": jwk(use="enc"),
    "with a use that is no text": jwk(use=["sig"]),
    "for signing only": jwk(key_ops=["sign"]),
    "with key_ops that are no list": jwk(key_ops="verify"),
    "with another alg": jwk(alg="RSA-OAEP"),
    "with the alg of another type": jwk(alg="ES256"),
    "with a symmetric alg": jwk(alg="HS256"),
    "with an alg that is no text": jwk(alg=["RS256"]),
    "with a kid that is no text": jwk(kid=7),
    "of an unknown type": jwk(kty="XYZ"),
    "of a type that is no text": jwk(kty=["RSA"]),
    "without a type": {"kid": "a"},
    "without parameters": {"kty": "RSA", "kid": "a"},
    "with a parameter that is no text": jwk(n=7),
    "with a parameter that is no base64": jwk(n="A"),
    "off its curve": {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43},
    "on an unknown curve": {"kty": "EC", "crv": "P-1", "x": "A" * 43, "y": "A" * 43},
    "for key agreement": {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
    "too short": rsa_jwk(2**1023 + 1),
    "too long": rsa_jwk(2**8192 + 1),
    "with an even exponent": jwk(e=number(65536)),
    "with the exponent 1": jwk(e="AQ"),
    "no object": "RSA",
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_key_is_refused_in_a_file_and_left_out_of_what_was_fetched(name: str) -> None:
    good = jwk(kid="good")
    with pytest.raises(KeyMaterialError, match=r"^keys\[1\]: "):
        jwk_set(a_set(good, UNUSABLE[name]), EVERY, strict=True)
    found = jwk_set(a_set(good, UNUSABLE[name]), EVERY, strict=False)
    assert [key.kid for key in found] == ["good"]
    with pytest.raises(KeyMaterialError, match="no usable key"):
        jwk_set(a_set(UNUSABLE[name]), EVERY, strict=False)


def test_two_keys_with_one_kid_are_refused_in_a_file_and_both_left_out_of_what_was_fetched() -> (
    None
):
    document = a_set(jwk(kid="twice"), jwk(kid="once"), jwk(kid="twice"))
    with pytest.raises(KeyMaterialError, match="same kid"):
        jwk_set(document, EVERY, strict=True)
    assert [key.kid for key in jwk_set(document, EVERY, strict=False)] == ["once"]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("document", "wrong"),
    [
        (b"", "strict UTF-8 JSON"),
        (b"<html>", "strict UTF-8 JSON"),
        (b'{"keys": [], "keys": []}', "strict UTF-8 JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "no list of keys"),
        (b'{"keys": {}}', "no list of keys"),
        (b'{"keys": []}', "no usable key"),
        (a_set(*(jwk(kid=str(index)) for index in range(MAX_KEYS + 1))), "101 keys"),
    ],
    ids=["empty", "html", "twice", "list", "other", "object", "no keys", "too many"],
)
def test_what_is_no_jwk_set_is_refused(document: bytes, wrong: str, strict: bool) -> None:
    with pytest.raises(KeyMaterialError, match=wrong):
        jwk_set(document, EVERY, strict=strict)


JWK_MEMBERS = st.sampled_from(["kty", "kid", "use", "key_ops", "alg", "crv", "n", "e", "x", "y"])
JWK_VALUES = (
    st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "sig", "verify", "AQAB", "RS256"])
    | st.text(max_size=60)
    | st.integers()
    | st.none()
    | st.lists(st.text(max_size=5), max_size=3)
)


@given(st.lists(st.dictionaries(JWK_MEMBERS, JWK_VALUES), min_size=1, max_size=3))
def test_arbitrary_keys_raise_nothing_but_the_clean_error(keys: list[dict[str, Any]]) -> None:
    for strict in (True, False):
        try:
            found = jwk_set(a_set(*keys), EVERY, strict=strict)
        except KeyMaterialError:
            continue
        assert all(key.algorithms for key in found)
