"""Making tokens: a JWT (RFC 7519) signed with one of the policy's keys."""

from collections.abc import Mapping
from typing import Any

from jwt import PyJWS

from sidecar.policy.canonical import canonical_json
from sidecar.policy.keys import SigningKey

__all__ = ["mint"]

_JWS = PyJWS()


def mint(claims: Mapping[str, Any], key: SigningKey, *, token_type: str = "JWT") -> str:  # noqa: S107
    """A signed JWT in compact form (RFC 7515 section 7.1) with exactly these claims.

    `token_type` becomes the header's `typ`; `kid` is set where the key has one. Raises ValueError
    for claims that strict JSON cannot say.
    """
    headers = {"typ": token_type} | ({} if key.kid is None else {"kid": key.kid})
    return _JWS.encode(canonical_json(claims), key.material, key.algorithm, headers)
