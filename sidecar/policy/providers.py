"""Token providers: which tokens are good, and where their keys come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.policy.pointers import ClaimPath

__all__ = [
    "Discovery",
    "JwksFile",
    "JwksUrl",
    "KeySource",
    "Provider",
    "PublicKey",
    "SecretRef",
    "Secrets",
]


_SUB: Final = ClaimPath("sub", ("sub",))


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a secret text comes from: `kind` is "env", "file" or "value"; `ref` the variable's
    name, the path, or the text itself. The repr never shows a value.
    """

    kind: str
    ref: str

    def __repr__(self) -> str:
        return f"SecretRef({self.kind}: {'***' if self.kind == 'value' else self.ref})"


@dataclass(frozen=True, slots=True)
class Secrets:
    """Shared secrets: all verify, the first signs."""

    secrets: tuple[SecretRef, ...]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One PEM public key (or certificate)."""

    pem: SecretRef


@dataclass(frozen=True, slots=True)
class JwksFile:
    """A JWK set on disk, re-read when it changes."""

    path: str


@dataclass(frozen=True, slots=True)
class JwksUrl:
    """A JWK set on the network, fetched every `refresh` seconds."""

    url: str
    refresh: float
    allow_http: bool = False


@dataclass(frozen=True, slots=True)
class Discovery:
    """An OpenID Connect issuer whose metadata names the JWK set."""

    issuer: str
    refresh: float
    allow_http: bool = False


KeySource = Secrets | PublicKey | JwksFile | JwksUrl | Discovery


@dataclass(frozen=True, slots=True)
class Provider:
    """One issuer of tokens.

    `algorithms` are of one family. `issuer` None is any. `audience` () is any. `require` names
    claims that must be there. `max_age` is in seconds since iat. `token_types` are the accepted
    `typ` values in lower case; an absent typ is accepted where "jwt" is. `private_key` lets the
    program sign with an asymmetric provider (`identity.sign`, `ws-sidecar token`). `keys` None: the
    provider only signs, with `private_key`, and verifies with its public half.
    """

    name: str
    algorithms: tuple[str, ...]
    keys: KeySource | None
    issuer: str | None = None
    audience: tuple[str, ...] = ()
    require: tuple[str, ...] = ("exp", "sub")
    max_age: float | None = None
    user: ClaimPath = _SUB
    token_types: frozenset[str] = frozenset({"jwt", "at+jwt"})
    allow_weak_secret: bool = False
    private_key: SecretRef | None = None

    def end_of(self, claims: Mapping[str, Any]) -> float | None:
        """When a verified token with these claims ends: its exp, or the end of `max_age` where that
        comes before. In seconds since the epoch; None where it never does.
        """
        exp, iat = claims.get("exp"), claims.get("iat")
        ends = [] if exp is None else [float(exp)]
        if self.max_age is not None and iat is not None:
            ends.append(iat + self.max_age)
        return min(ends, default=None)
