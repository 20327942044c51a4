"""A token and keys in, an Identity or a Denial out. Pure: time comes in as `now`.

The rules, in the order in which they are checked:

1. Form: a JWS in compact form (RFC 7515 section 7.1), strict base64url and strict JSON. Only `alg`,
   `kid` and `typ` of the header count. Keys inside it (jku, jwk, x5u, x5c) are never looked at,
   extensions that must be understood (crit, b64) and encrypted tokens (enc) are refused.
2. Provider: by the exact `iss`, else by `alg`; a provider's algorithm list is the only say.
3. Signature: with keys that are bound to this algorithm (RFC 8725 section 3.1).
4. Claims: times, issuer, audience, required claims, the user (RFC 7519 section 4.1).

A logout token (OpenID Connect Back-Channel Logout 1.0) is signed with the same keys for the same
audience; `auth.logout` takes it, and it is never good for a handshake (section 4.1 there).

A denial's detail names the check and holds nothing of the token, but for the issuer and algorithm
that no provider takes.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, NamedTuple

from jwt.algorithms import get_default_algorithms

from sidecar.model import Denial, Identity, Reason
from sidecar.policy.keys import ASYMMETRIC, SYMMETRIC, VerificationKey
from sidecar.policy.providers import Provider
from sidecar.policy.strict_json import json_object

__all__ = [
    "LOGOUT_EVENT",
    "LOGOUT_TYPE",
    "Refused",
    "Unverified",
    "check",
    "choose_providers",
    "name_text",
    "parse",
    "recheck",
    "still_valid",
    "unclaimed",
    "verify",
]

LATEST: Final = 253402300799
"""The last second of the year 9999: a later time is a mistake or an attack."""
FUTURE_IAT: Final = 60
"""Seconds that an issuer's clock may be ahead of ours."""
MAX_USER_BYTES: Final = 1024
"""A user's name travels in a header of the upstream's request."""
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
"""The member of `events` that makes a logout token (Back-Channel Logout 1.0 section 2.4)."""
LOGOUT_TYPE: Final = "logout+jwt"
"""The `typ` of a logout token, as far as it has one of its own."""

_ALGORITHMS: Final = {
    name: algorithm
    for name, algorithm in get_default_algorithms().items()
    if name in SYMMETRIC | ASYMMETRIC
}
_TELLABLE: Final = frozenset({*_ALGORITHMS, "none"})
_MAX_ISSUER: Final = 80  # characters in a detail
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_REMEMBERED: Final = 512  # characters of a header
_REFUSED_PARAMETERS: Final = ("crit", "b64", "enc")


@dataclass(frozen=True, slots=True, repr=False)
class Unverified:
    """A well-formed token whose signature nobody has checked yet.

    `kid` and `typ` are None where absent, `issuer` where the claim is absent or not text.
    """

    alg: str
    kid: str | None
    typ: str | None
    issuer: str | None
    claims: Mapping[str, Any]
    signing_input: bytes
    signature: bytes


class Refused(Exception):  # noqa: N818 - a way out of nested checks, not an error
    """Carries the denial from a check to `parse` or `verify`."""

    def __init__(self, detail: str, reason: Reason = Reason.TOKEN_INVALID) -> None:
        self.denial = Denial(reason, detail)
        super().__init__(detail)


def parse(token: str, max_size: int) -> Unverified | Denial:
    """Take a token apart. `max_size` is in bytes; a longer token is refused before decoding."""
    if len(token) > max_size:
        return Denial(Reason.TOKEN_INVALID, "the token is over max_token_size")
    try:
        return _parse(token)
    except Refused as refused:
        return refused.denial


def _parse(token: str) -> Unverified:
    parts = token.split(".")
    if len(parts) != 3:
        raise Refused("the token has not three parts")
    # An issuer's tokens have few headers, which are short.
    read = _header if len(parts[0]) <= _MAX_REMEMBERED else _header.__wrapped__
    header = read(parts[0])
    claims = _json_part(parts[1], "payload")
    signature = _base64url(parts[2], "signature")
    issuer = claims.get("iss")
    return Unverified(
        alg=header.alg,
        kid=header.kid,
        typ=header.typ,
        issuer=issuer if isinstance(issuer, str) else None,
        claims=claims,
        signing_input=f"{parts[0]}.{parts[1]}".encode("ascii"),
        signature=signature,
    )


class _Header(NamedTuple):
    alg: str
    kid: str | None
    typ: str | None


@lru_cache(maxsize=256)
def _header(part: str) -> _Header:
    header = _json_part(part, "header")
    for name in _REFUSED_PARAMETERS:
        if name in header:
            raise Refused(f"the header has {name}")
    alg = _text_parameter(header, "alg")
    if alg is None:
        raise Refused("the header has no alg")
    return _Header(alg, _text_parameter(header, "kid"), _text_parameter(header, "typ"))


def _base64url(part: str, name: str) -> bytes:
    """RFC 7515 section 2: no padding, white space or line breaks; RFC 4648 section 3.5: the
    unused bits are zero, so that a token has one spelling only.
    """
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:  # the decoder's, or that of what is not ASCII
        raise Refused(f"the {name} is not base64url") from None
    # The decoder leaves out what is not of its alphabet; this finds it.
    if not data or base64.urlsafe_b64encode(data).rstrip(b"=") != part.encode("ascii"):
        form = "canonical base64url" if _BASE64URL.fullmatch(part) else "base64url"
        raise Refused(f"the {name} is not {form}")
    return data


def _json_part(part: str, name: str) -> dict[str, Any]:
    try:
        return json_object(_base64url(part, name))
    except ValueError as error:
        raise Refused(f"the {name} is {error}") from None


def _text_parameter(header: Mapping[str, Any], name: str) -> str | None:
    if name not in header:
        return None
    value = header[name]
    if not isinstance(value, str):
        raise Refused(f"the header's {name} is not text")
    return value


def choose_providers(unverified: Unverified, providers: Sequence[Provider]) -> tuple[Provider, ...]:
    """The providers that may have issued the token, in the policy's order.

    Where a provider names the token's issuer, such providers only; else those that name none.
    Of them, those that have the token's exact algorithm. Several that are left differ by their
    keys, so the caller tries each.
    """
    exact = [p for p in providers if p.issuer == unverified.issuer]
    candidates = exact or [p for p in providers if p.issuer is None]
    return tuple(p for p in candidates if unverified.alg in p.algorithms)


def unclaimed(unverified: Unverified) -> Denial:
    """The denial of a token that no provider takes. The detail has its algorithm where that is
    one, and the start of its issuer, which is a URL without a query (OpenID Connect Core 1.0
    section 2) or should be.
    """
    alg = f"alg {unverified.alg}" if unverified.alg in _TELLABLE else "an unknown alg"
    issuer = "without an issuer"
    if unverified.issuer is not None:
        text = unverified.issuer.partition("?")[0]
        short = text if len(text) <= _MAX_ISSUER else f"{text[: _MAX_ISSUER - 3]}..."
        issuer = f"of issuer {short}"
    return Denial(Reason.TOKEN_INVALID, f"no provider of the route takes {alg} {issuer}")


def verify(
    unverified: Unverified,
    provider: Provider,
    keys: Sequence[VerificationKey],
    *,
    leeway: float,
    now: float,
) -> Identity | Denial:
    """Check a token against one provider. `leeway` is in seconds, `now` since the epoch.

    A token whose signature is good but whose time is over gives token_expired, everything else
    that is wrong token_invalid. At its `exp` (plus leeway) a token is expired, at its `nbf` (less
    leeway) it is good (RFC 7519 sections 4.1.4 and 4.1.5).
    """
    try:
        check(unverified, provider, keys, leeway=leeway, now=now)
        _refuse_logout_token(unverified)
        user = _user(provider.user.find(unverified.claims))
    except Refused as refused:
        return refused.denial
    token_id = unverified.claims.get("jti")
    return Identity(
        user=user,
        claims=unverified.claims,
        provider=provider.name,
        expires_at=provider.end_of(unverified.claims),
        token_id=token_id if isinstance(token_id, str) else None,
    )


def still_valid(identity: Identity, provider: Provider, leeway: float, now: float) -> bool:
    """Whether a token that was verified before still is good at `now`: only time has changed."""
    try:
        _check_times(identity.claims, provider.max_age, leeway, now)
    except Refused:
        return False
    return True


def recheck(identity: Identity, provider: Provider, *, leeway: float, now: float) -> Denial | None:
    """Whether a token that was verified once is still good by what the provider says now: issuer,
    audience, required claims and the user's claim, then its end and its age.

    Its form, algorithm and signature, nbf and a future iat are not judged again.
    """
    try:
        _check_claims(identity.claims, provider)
        if _user(provider.user.find(identity.claims)) != identity.user:
            raise Refused("the user claim is another one")
        _check_age(identity.claims, provider.max_age, leeway, now)
    except Refused as refused:
        return replace(refused.denial, detail=f"{provider.name}: {refused.denial.detail}")
    return None


def check(
    unverified: Unverified,
    provider: Provider,
    keys: Sequence[VerificationKey],
    *,
    leeway: float,
    now: float,
) -> None:
    """Check what holds for every token of a provider, whatever it is for: header, signature,
    times, issuer, audience and required claims. Raises Refused.
    """
    _check_header(unverified, provider)
    _check_signature(unverified, provider, keys)
    _check_times(unverified.claims, provider.max_age, leeway, now)
    _check_claims(unverified.claims, provider)


def _refuse_logout_token(unverified: Unverified) -> None:
    """Whatever types the provider takes; and a logout token may have none (section 4.1)."""
    events = unverified.claims.get("events")
    is_logout = isinstance(events, dict) and LOGOUT_EVENT in events
    if is_logout or _type_of(unverified) == LOGOUT_TYPE:
        raise Refused("this is a logout token")


def _check_header(unverified: Unverified, provider: Provider) -> None:
    if unverified.alg not in provider.algorithms:
        raise Refused("the algorithm is not the provider's")
    if _type_of(unverified) not in provider.token_types:
        raise Refused("the typ is not accepted")


def _type_of(unverified: Unverified) -> str:
    """`typ` as a media type whose "application/" may be left out (RFC 7515 section 4.1.9)."""
    typ = "jwt" if unverified.typ is None else unverified.typ.lower()
    return typ.removeprefix("application/")


def _check_signature(
    unverified: Unverified, provider: Provider, keys: Sequence[VerificationKey]
) -> None:
    algorithm = _ALGORITHMS.get(unverified.alg)
    if algorithm is None:
        raise Refused("the algorithm is not supported")
    for key in keys:
        if unverified.alg not in key.algorithms:
            continue
        if algorithm.check_key_length(key.material) and not provider.allow_weak_secret:
            continue
        if algorithm.verify(unverified.signing_input, key.material, unverified.signature):
            return
    raise Refused("the signature fits no key" if keys else "no key has the token's kid")


def _check_times(
    claims: Mapping[str, Any], max_age: float | None, leeway: float, now: float
) -> None:
    """Check exp, nbf, iat and the age."""
    iat = _check_age(claims, max_age, leeway, now)
    nbf = _time(claims, "nbf")
    if nbf is not None and nbf > now + leeway:
        raise Refused("nbf is in the future")
    if iat is not None and iat > now + FUTURE_IAT:
        raise Refused("iat is in the future")


def _check_age(
    claims: Mapping[str, Any], max_age: float | None, leeway: float, now: float
) -> float | None:
    """Check exp and the age; give iat."""
    exp, iat = _time(claims, "exp"), _time(claims, "iat")
    if exp is not None and exp <= now - leeway:
        raise Refused("exp is over", Reason.TOKEN_EXPIRED)
    if max_age is not None:
        if iat is None:
            raise Refused("iat is missing, and max_age needs it")
        if iat <= now - leeway - max_age:
            raise Refused("the token is older than max_age", Reason.TOKEN_EXPIRED)
    return iat


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2): a JSON number in a sane range."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"{name} is not a number")
    if not 0 <= value <= LATEST:
        raise Refused(f"{name} is out of range")
    return float(value)


def _check_claims(claims: Mapping[str, Any], provider: Provider) -> None:
    for name in provider.require:
        if claims.get(name) is None:
            raise Refused(f"the required claim {name} is missing")
    if not isinstance(claims.get("iss", ""), str):
        raise Refused("iss is not text")
    if provider.issuer is not None and claims.get("iss") != provider.issuer:
        raise Refused("iss is not the provider's issuer")
    audience = _audience(claims)
    if provider.audience and not audience.intersection(provider.audience):
        raise Refused("aud does not name this audience")


def _audience(claims: Mapping[str, Any]) -> frozenset[str]:
    """The audiences of a token. A provider without an audience of its own accepts any of them:
    the policy has said that it does not tell them apart.
    """
    value = claims.get("aud", [])
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries):
        raise Refused("aud is neither text nor a list of texts")
    return frozenset(entries)


def _user(value: Any) -> str:
    """The user's name: text as it stands, or an integer in decimal."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return name_text(value, "the user claim", "neither text nor an integer")


def name_text(value: Any, what: str, otherwise: str = "not text") -> str:
    """A claim that names somebody or something. Raises Refused where it is missing, another type
    (`otherwise`), over 1 KiB, or has control characters.
    """
    if not isinstance(value, str) or not value:
        raise Refused(f"{what} is missing, or {otherwise}")
    if _CONTROL.search(value) is not None:
        raise Refused(f"{what} has control characters")
    if len(value.encode("utf-8")) > MAX_USER_BYTES:
        raise Refused(f"{what} is over 1 KiB")
    return value
