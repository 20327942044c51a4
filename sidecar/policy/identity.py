"""What the upstream is told of a verified identity: header values, checked and encoded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from sidecar.model import Identity
from sidecar.policy.headers import IdentityHeader, Sign, encode_value
from sidecar.policy.keys import SigningKey
from sidecar.policy.mint import mint
from sidecar.policy.pointers import MISSING

__all__ = ["ISSUER", "TOKEN_TYPE", "carrying", "claim_headers", "signed_header"]

ISSUER: Final = "ws-auth-sidecar"
TOKEN_TYPE: Final = "ws-identity+jwt"  # noqa: S105
"""The iss of identity tokens."""


def claim_headers(headers: Sequence[IdentityHeader], identity: Identity) -> Mapping[str, str]:
    """The headers whose claim is there. Raises ValueError, naming the header and never the value,
    for a claim that cannot be a header value.
    """
    return dict(_encoded(headers, identity))


def _encoded(headers: Sequence[IdentityHeader], identity: Identity) -> Iterator[tuple[str, str]]:
    for header in headers:
        try:
            value = encode_value(_source(header, identity), header.join, header.encode)
        except ValueError as error:
            raise ValueError(f"the claim for {header.name} is refused: {error}") from None
        if value is not None:
            yield header.name, value


def _source(header: IdentityHeader, identity: Identity) -> Any:
    if header.user:
        return identity.user
    if header.claim is None:
        return identity.claims
    value = header.claim.find(identity.claims)
    return None if value is MISSING else value


def carrying(header: str, token: str) -> Mapping[str, str]:
    """A token in a header: with its scheme in Authorization (RFC 6750 section 2.1), else bare."""
    return {header: f"Bearer {token}" if header.lower() == "authorization" else token}


def signed_header(
    sign: Sign,
    identity: Identity,
    *,
    route: str,
    upstream: str,
    request_id: str,
    now: float,
    signing_key: Callable[[str], SigningKey],
) -> Mapping[str, str]:
    """A fresh JWT about the identity (RFC 7519 section 4.1), never valid longer than the client's.

    Its `typ` is its own, so that it is no token for a client: the upstream could otherwise come
    back with it as the user (RFC 8725 section 3.11). Times are whole seconds since the epoch.
    Raises ValueError for claims that are no strict JSON.
    """
    expires = now + sign.ttl
    if identity.expires_at is not None:
        expires = min(expires, identity.expires_at)
    claims = {
        "iss": ISSUER,
        "sub": identity.user,
        "aud": upstream,
        "iat": int(now),
        "exp": int(expires),
        "jti": request_id,
        "claims": dict(identity.claims),
        "provider": identity.provider,
        "route": route,
    }
    token = mint(claims, signing_key(sign.provider), token_type=TOKEN_TYPE)
    return carrying(sign.header, token)
