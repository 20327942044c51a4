"""Which keys may be used: key material in, checked keys out.

A key is bound to the algorithms that fit its type (RFC 8725 sections 3.1 and 3.2): a token's
`alg` can only pick a key that was meant for it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from sidecar.errors import KeyMaterialError
from sidecar.policy.strict_json import json_object

__all__ = [
    "ASYMMETRIC",
    "MAX_SET_BYTES",
    "SYMMETRIC",
    "SigningKey",
    "VerificationKey",
    "hmac_key",
    "jwk_set",
    "private_key",
    "public_half",
    "public_key",
]

_DIGEST_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

SYMMETRIC: Final = frozenset(_DIGEST_BYTES)
"""The algorithms of shared secrets (RFC 7518 section 3.2)."""

ASYMMETRIC: Final = _RSA | frozenset(_CURVES.values()) | {"EdDSA"}
"""The algorithms of key pairs (RFC 7518 sections 3.3 to 3.5, RFC 8037 section 3.1)."""

RSA_MIN_BITS: Final = 2048
"""RFC 7518 section 3.3."""
RSA_MAX_BITS: Final = 8192
"""A longer key only makes each handshake slower."""
RSA_MAX_EXPONENT: Final = 2**32
"""Above it a verification costs as much as a signature."""
MAX_SET_BYTES: Final = 512 * 1024
"""A set of a hundred keys with their certificate chains is smaller; readers stop here."""
MAX_KEYS: Final = 100
"""Keys of one set: a token without a kid is tried against each."""
MIN_DISTINCT_BYTES: Final = 6
"""A random secret of 32 characters has more than twice as many, in hexadecimal too."""

_WELL_KNOWN: Final = (
    b"0123456789",
    b"0123456789abcdef",
    b"1234567890",
    b"a-string-secret-at-least-256-bits-long",
    b"abcdefghijklmnopqrstuvwxyz",
    b"admin",
    b"change-me",
    b"change_me",
    b"change_this",
    b"changeit",
    b"changeme",
    b"changethis",
    b"default",
    b"example",
    b"insecure",
    b"jwt-secret",
    b"jwt_secret",
    b"jwtsecret",
    b"key",
    b"letmein",
    b"my-secret",
    b"my-secret-key",
    b"my_secret",
    b"my_secret_key",
    b"mysecret",
    b"mysecretkey",
    b"password",
    b"qwerty",
    b"qwertyuiopasdfghjklzxcvbnm123456",
    b"secret",
    b"secret-key",
    b"secret_key",
    b"secretkey",
    b"shared-secret",
    b"shhhhh",
    b"super-secret",
    b"super-secret-key",
    b"super_secret",
    b"supersecret",
    b"supersecretkey",
    b"test",
    b"test-secret",
    b"token",
    b"top-secret",
    b"topsecret",
    b"your-256-bit-secret",
    b"your-384-bit-secret",
    b"your-512-bit-secret",
    b"your-secret",
    b"your-secret-key",
    b"your-secret-key-here",
    b"your_jwt_secret",
    b"your_secret_key",
)
_PADDING: Final = b"\0\t\r\n !#*+-.0=_x"
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

_READERS: Final[Mapping[str, Callable[[dict[str, Any]], Any]]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}
_UNREADABLE: Final = (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError)


@dataclass(frozen=True, slots=True, repr=False)
class VerificationKey:
    """A key bound to the algorithms it may verify. `material` is what PyJWT takes."""

    kid: str | None
    algorithms: frozenset[str]
    material: Any


@dataclass(frozen=True, slots=True, repr=False)
class SigningKey:
    """A key that signs with one algorithm."""

    kid: str | None
    algorithm: str
    material: Any


def hmac_key(secret: bytes, algorithms: Sequence[str], *, allow_weak: bool) -> VerificationKey:
    """Check a shared secret. Raises KeyMaterialError where it is shorter than the hash of the
    strongest algorithm, well known, or a PEM or JWK (a sign of confusion); with `allow_weak`
    only for an empty one or a PEM or JWK.
    """
    fitting = SYMMETRIC.intersection(algorithms)
    if not fitting:
        raise KeyMaterialError(
            "a shared secret fits none of the algorithms", "use HS256, HS384 or HS512"
        )
    if not secret:
        raise KeyMaterialError("the secret is empty", "use at least 32 random bytes")
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except PyJWTError:
        raise KeyMaterialError(
            "the secret is an asymmetric key, a certificate or a JWK",
            "use at least 32 random bytes, or public_key or jwks_file with their algorithms",
        ) from None
    if not allow_weak:
        _refuse_weak_secret(secret, max(_DIGEST_BYTES[name] for name in fitting))
    return VerificationKey(None, fitting, secret)


def _refuse_weak_secret(secret: bytes, minimum: int) -> None:
    """RFC 7518 section 3.2 for the length, RFC 8725 section 3.5 for the entropy."""
    remedy = f"use at least {minimum} random bytes, or set allow_weak_secret"
    if _is_well_known(secret):
        raise KeyMaterialError("the secret is well known", remedy)
    if len(secret) < minimum:
        raise KeyMaterialError(
            f"the secret has {len(secret)} bytes, fewer than the hash's {minimum}", remedy
        )
    if len(set(secret)) < MIN_DISTINCT_BYTES:
        raise KeyMaterialError("the secret repeats a few characters", remedy)


def _is_well_known(secret: bytes) -> bool:
    """Whether it is a known word in any case: alone, padded, or repeated to its length."""
    folded = secret.lower()
    bare = folded.strip(_PADDING)
    return any(
        bare == word or (folded.startswith(word) and _repeats(folded, len(word)))
        for word in _WELL_KNOWN
    )


def _repeats(secret: bytes, period: int) -> bool:
    return secret[period:] == secret[: len(secret) - period]


def public_key(pem: bytes, algorithms: Sequence[str]) -> VerificationKey:
    """Load a PEM public key or certificate. Raises KeyMaterialError for RSA under 2048 bits, a
    curve that does not fit the algorithms, a private key, or anything else.

    Of a certificate only the key counts: neither its dates nor its issuer are looked at.
    """
    remedy = "give one PEM public key or certificate"
    if b"PRIVATE KEY-----" in pem:
        raise KeyMaterialError("this is a private key", remedy)
    if pem.count(b"-----BEGIN ") != 1:
        raise KeyMaterialError("this is not exactly one PEM block", remedy)
    try:
        if b"-----BEGIN CERTIFICATE-----" in pem:
            material: Any = x509.load_pem_x509_certificate(pem).public_key()
        else:
            material = load_pem_public_key(pem)
    except _UNREADABLE:
        raise KeyMaterialError("this is not a PEM public key", remedy) from None
    return VerificationKey(None, _bind(material, algorithms), material)


def private_key(pem: bytes, algorithms: Sequence[str]) -> SigningKey:
    """Load an unencrypted PEM private key for signing with the first algorithm that fits it.

    Raises KeyMaterialError for a weak key, one that fits no algorithm, or anything else.
    """
    material = _load_private(pem)
    fitting = _bind(material.public_key(), algorithms)
    return SigningKey(None, next(name for name in algorithms if name in fitting), material)


def public_half(pem: bytes, algorithms: Sequence[str]) -> VerificationKey:
    """The key that verifies what the PEM private key signs. Raises as `private_key` does."""
    material = _load_private(pem).public_key()
    return VerificationKey(None, _bind(material, algorithms), material)


def _load_private(pem: bytes) -> Any:
    try:
        return load_pem_private_key(pem, password=None)
    except _UNREADABLE:
        raise KeyMaterialError(
            "this is not an unencrypted PEM private key", "give one in PKCS #8 form"
        ) from None


def jwk_set(
    document: bytes, algorithms: Sequence[str], *, strict: bool
) -> tuple[VerificationKey, ...]:
    """Parse a JWK set (RFC 7517 section 5).

    Symmetric keys, private keys, keys with another `use` than sig, `key_ops` without verify, or an
    `alg` or type that does not fit are left out (`strict`, for files: refused). Weak keys and
    duplicate kids raise KeyMaterialError when `strict`, else are left out (both keys of a duplicate
    pair). Raises KeyMaterialError for a document that is no JWK set, that has more than 100 keys,
    or with no usable key.
    """
    keys: list[VerificationKey] = []
    for index, entry in enumerate(_entries(document)):
        try:
            keys.append(_jwk(entry, algorithms))
        except KeyMaterialError as error:
            if strict:
                raise KeyMaterialError(f"keys[{index}]: {error.wrong}", error.remedy) from None
    counts = Counter(key.kid for key in keys)
    unique = tuple(key for key in keys if key.kid is None or counts[key.kid] == 1)
    if strict and len(unique) < len(keys):
        raise KeyMaterialError("two keys have the same kid", "give each key a kid of its own")
    if not unique:
        raise KeyMaterialError(
            "the JWK set has no usable key", f"it needs a public key for {', '.join(algorithms)}"
        )
    return unique


def _entries(document: bytes) -> list[Any]:
    try:
        keys = json_object(document).get("keys")
    except ValueError as error:
        raise KeyMaterialError(f"the JWK set is {error}", "see RFC 7517 section 5") from None
    if not isinstance(keys, list):
        raise KeyMaterialError("the JWK set has no list of keys", "see RFC 7517 section 5")
    if len(keys) > MAX_KEYS:
        raise KeyMaterialError(f"the JWK set has {len(keys)} keys", f"{MAX_KEYS} are the most")
    return keys


def _jwk(entry: Any, algorithms: Sequence[str]) -> VerificationKey:
    """One key of a set (RFC 7517 section 4). Raises KeyMaterialError where it is of no use."""
    if not isinstance(entry, dict):
        raise KeyMaterialError("not a JSON object", "see RFC 7517 section 4")
    kid = entry.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise KeyMaterialError("the kid is not text", "see RFC 7517 section 4.5")
    _check_purpose(entry)
    try:
        material = _READERS[entry["kty"]](entry)
    except (KeyError, *_UNREADABLE):
        raise KeyMaterialError("not a valid public key", "use kty RSA, EC or OKP") from None
    return VerificationKey(kid, _bind(material, _narrow(entry, algorithms)), material)


def _check_purpose(entry: Mapping[str, Any]) -> None:
    if not _PRIVATE_MEMBERS.isdisjoint(entry):
        raise KeyMaterialError("a secret or private key", "publish public keys only")
    if entry.get("use", "sig") != "sig":
        raise KeyMaterialError("the use is not sig", "see RFC 7517 section 4.2")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise KeyMaterialError("key_ops has no verify", "see RFC 7517 section 4.3")


def _narrow(entry: Mapping[str, Any], algorithms: Sequence[str]) -> Sequence[str]:
    """The provider's algorithms, or the one of them that the key's own alg names."""
    if "alg" not in entry:
        return algorithms
    return [name for name in algorithms if name == entry["alg"]]


def _bind(material: Any, algorithms: Sequence[str]) -> frozenset[str]:
    """The algorithms that a public key may verify. Raises KeyMaterialError: none, or weak."""
    fitting = _fitting(material).intersection(algorithms)
    if not fitting:
        raise KeyMaterialError(
            "the key fits none of the provider's algorithms",
            "RSA fits RS* and PS*, P-256 ES256, P-384 ES384, P-521 ES512, Ed25519 and Ed448 EdDSA",
        )
    if isinstance(material, RSAPublicKey):
        _refuse_weak_rsa(material)
    return fitting


def _fitting(material: Any) -> frozenset[str]:
    if isinstance(material, RSAPublicKey):
        return _RSA
    if isinstance(material, EllipticCurvePublicKey):
        return frozenset({_CURVES.get(material.curve.name, "")})
    if isinstance(material, Ed25519PublicKey | Ed448PublicKey):
        return frozenset({"EdDSA"})
    return frozenset()


def _refuse_weak_rsa(key: RSAPublicKey) -> None:
    if not RSA_MIN_BITS <= key.key_size <= RSA_MAX_BITS:
        raise KeyMaterialError(
            f"the RSA key has {key.key_size} bits",
            f"use {RSA_MIN_BITS} to {RSA_MAX_BITS} bits",
        )
    # cryptography itself refuses to load an even exponent, or one under 3.
    if key.public_numbers().e > RSA_MAX_EXPONENT:
        raise KeyMaterialError("the RSA key's exponent is unusual", "use the exponent 65537")
