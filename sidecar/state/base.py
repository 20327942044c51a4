"""What an engine of shared state can do, and the values that go in and out.

A revocation says which tokens are no longer good: those of a user, of an OpenID Connect subject,
of a session, one token by its id, or all. It holds for tokens that were issued before a moment
(where it names one), of one provider or of all, until it is forgotten.

The token's own words are matched, by name: a revocation for a claim that a provider's tokens do
not have matches none of them.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from sidecar.model import Identity

__all__ = [
    "Key",
    "Kind",
    "Once",
    "Outcome",
    "Page",
    "Revocation",
    "State",
    "Subject",
    "Subscriber",
    "is_revoked",
    "keys_of",
    "merged",
    "moment_after",
]


class Kind(StrEnum):
    """What a revocation names its tokens by.

    `user` is the claim that the provider's `user` names, `sub` the claim sub (the two are often
    the same), `sid` the OpenID Connect session, `jti` one token, `issued_before` every token.
    """

    USER = "user"
    SUB = "sub"
    SID = "sid"
    JTI = "jti"
    ISSUED_BEFORE = "issued_before"


Key = tuple[Kind, str | None, str]
"""A revocation's kind, provider and value. There is one revocation at most for a key."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What revocations look at in a verified token.

    `issued_at` is in seconds since the epoch; None where the token does not say, which counts as
    before any moment. The others are None where the token has no such claim.
    """

    provider: str
    user: str
    sub: str | None
    sid: str | None
    jti: str | None
    issued_at: float | None

    @classmethod
    def of(cls, identity: Identity, seen_at: float) -> "Subject":
        """Read the facts of a token that was first seen at `seen_at`: its handshake's time.

        A token that was seen has been issued, whatever an issuer's clock that is ahead put into
        iat. So a revocation ends every connection that was there before it.
        """
        claims = identity.claims
        issued_at = claims.get("iat")
        return cls(
            provider=identity.provider,
            user=identity.user,
            sub=_text(claims.get("sub")),
            sid=_text(claims.get("sid")),
            jti=_text(claims.get("jti")),
            issued_at=None if issued_at is None else min(float(issued_at), seen_at),
        )


def _text(value: Any) -> str | None:
    """A claim as a revocation would spell it: a number too is named by its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tokens that are no longer good.

    `value` is "" where the kind needs none. Tokens issued before `before` are meant, None is all;
    `provider` None is every provider's. Times are in seconds since the epoch; at `expires_at` the
    revocation is forgotten. `reason` is for people.
    """

    id: str
    kind: Kind
    value: str
    provider: str | None
    before: float | None
    created_at: float
    expires_at: float
    reason: str = ""

    @property
    def key(self) -> Key:
        """What tells it from others."""
        return self.kind, self.provider, self.value

    def revokes(self, subject: Subject) -> bool:
        """Whether a token is among those that are meant, as long as this is in force."""
        return self.key in keys_of(subject) and self.is_after(subject.issued_at)

    def is_after(self, issued_at: float | None) -> bool:
        """Whether a token issued then is old enough to be meant."""
        return self.before is None or issued_at is None or issued_at < self.before


def keys_of(subject: Subject) -> tuple[Key, ...]:
    """The keys of every revocation that may mean a token, for one look-up of them all."""
    values = {
        Kind.USER: subject.user,
        Kind.SUB: subject.sub,
        Kind.SID: subject.sid,
        Kind.JTI: subject.jti,
        Kind.ISSUED_BEFORE: "",
    }
    return tuple(
        (kind, provider, value)
        for kind, value in values.items()
        if value is not None
        for provider in (subject.provider, None)
    )


def moment_after(now: float) -> float:
    """The `before` that means every token issued up to `now`.

    iat has whole seconds (RFC 7519 section 2 allows more, issuers do not give it): a token of this
    very second may be older than `now`, so the whole second is meant.
    """
    return float(int(now) + 1)


def merged(old: Revocation, new: Revocation) -> Revocation:
    """Two revocations with one key: what either forbids stays forbidden. The first one's id and
    time stay, so that whoever asked for it can still name it.
    """
    unlimited = old.before is None or new.before is None
    return Revocation(
        id=old.id,
        kind=old.kind,
        value=old.value,
        provider=old.provider,
        before=None if unlimited else max(old.before or 0.0, new.before or 0.0),
        created_at=old.created_at,
        expires_at=max(old.expires_at, new.expires_at),
        reason=new.reason or old.reason,
    )


@dataclass(frozen=True, slots=True)
class Once:
    """A name that is good for one use; it is remembered until `expires_at`."""

    name: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of revoking: the revocations as they are kept now, and how many live connections
    ended at once. `confirmed` is whether they are in force everywhere; where not, they will be
    without anybody's doing.
    """

    revocations: tuple[Revocation, ...]
    closed: int
    confirmed: bool = True


@dataclass(frozen=True, slots=True)
class Page:
    """Some revocations, oldest first, and the cursor of the next page: None after the last."""

    revocations: tuple[Revocation, ...]
    next: str | None


Subscriber = Callable[[Revocation], Awaitable[int]]
"""Ends the live connections that a revocation means; gives how many. It does not raise."""


class State(Protocol):
    """The verbs of shared state. Each is atomic; `now` is in seconds since the epoch."""

    async def revoke(
        self, revocations: Sequence[Revocation], now: float, *, once: Once | None = None
    ) -> Outcome | None:
        """Remember all the revocations or none, and tell the subscribers of each.

        One whose key is there already is merged with it, one that is over is left out. With
        `once`, only where its name has not been used before: else None. Raises StateFull where
        there is no room: nothing that is in force is ever forgotten to make some.
        """
        ...

    @property
    def is_clear(self) -> bool:
        """Whether it is known without asking that no revocation is in force. An engine that would
        have to ask says no.
        """
        ...

    async def revoked(self, subject: Subject, now: float) -> Revocation | None:
        """The revocation in force that means a token, if there is one. Asked at each handshake:
        one round trip, and no work in proportion to what is remembered.

        A token may be revoked between this question and the moment its connection begins: ask
        once more when the connection can be reached by the subscriber.
        """
        ...

    async def revocations(self, now: float, *, cursor: str | None, limit: int) -> Page:
        """A page of those in force, in the order in which they came. Raises ValueError for a
        cursor that no page gave.
        """
        ...

    async def withdraw(self, identifier: str, now: float) -> Revocation | None:
        """Take a revocation back; None where there is none in force with this id."""
        ...

    async def count(self, now: float) -> int:
        """How many revocations are in force."""
        ...

    def subscribe(self, subscriber: Subscriber) -> None:
        """Have a subscriber told of every revocation from now on, wherever it was asked for."""
        ...


async def is_revoked(state: State, identity: Identity | None, seen_at: float, now: float) -> bool:
    """Whether a revocation in force means a token that was first seen at `seen_at`."""
    if identity is None or state.is_clear:
        return False
    return await state.revoked(Subject.of(identity, seen_at), now) is not None
