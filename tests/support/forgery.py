"""Tokens put together by hand, for what no library would sign."""

import base64
import hashlib
import hmac
import json
from typing import Any, Final

from tests.support.tokens import SECRET

LATER: Final = 4_000_000_000
"""A time in the year 2096, in seconds since the epoch."""


def base64url(data: bytes) -> str:
    """Without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def document(value: Any) -> bytes:
    """JSON of anything, NaN and lone surrogates too; bytes and text stay as they are."""
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def signed(
    claims: Any, header: Any = None, *, key: bytes | str = SECRET, digest: str = "sha256"
) -> str:
    """A token with an HMAC of these very bytes. `claims` and `header` may be raw JSON."""
    default = {"alg": "HS256", "typ": "JWT"}
    parts = [base64url(document(default if header is None else header))]
    parts.append(base64url(document(claims)))
    secret = key.encode() if isinstance(key, str) else key
    mac = hmac.digest(secret, ".".join(parts).encode(), getattr(hashlib, digest))
    return ".".join([*parts, base64url(mac)])


def unsigned(claims: Any, header: Any) -> str:
    """A token with an empty signature."""
    return f"{base64url(document(header))}.{base64url(document(claims))}."
