"""Tokens, made with a library that the sidecar does not use."""

import time
from typing import Any

from joserfc import jwt
from joserfc.jwk import OctKey

SECRET = "a secret of the tests that is long enough for HS512, which takes 64 bytes at least"


def token(
    user: str | None = "alice",
    *,
    ttl: float = 3600,
    secret: str = SECRET,
    algorithm: str = "HS256",
    **claims: Any,
) -> str:
    """A token of `user` that is good for `ttl` seconds; a claim of None is left out."""
    now = int(time.time())
    payload = {"sub": user, "iat": now, "exp": now + int(ttl)} | claims
    payload = {name: value for name, value in payload.items() if value is not None}
    key = OctKey.import_key(secret)
    return jwt.encode({"alg": algorithm, "typ": "JWT"}, payload, key, algorithms=[algorithm])
