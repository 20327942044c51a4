"""Shared state of one process, in its own memory. It ends with the process."""

from collections.abc import Sequence
from heapq import nsmallest
from typing import Final

from sidecar.errors import StateFull
from sidecar.state.base import (
    Key,
    Once,
    Outcome,
    Page,
    Revocation,
    Subject,
    Subscriber,
    keys_of,
    merged,
)
from sidecar.state.expiring import Expiring

__all__ = ["CAPACITY", "MemoryState"]

CAPACITY: Final = 100_000
"""Revocations, and as many names for one use: 90 MB or so when all are taken."""


class MemoryState:
    """The engine of `state.backend: memory`. `capacity` bounds what it remembers."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._revocations: Expiring[Key, Revocation] = Expiring(lambda each: each.expires_at)
        self._keys: dict[str, Key] = {}
        self._used: Expiring[str, Once] = Expiring(lambda each: each.expires_at)
        self._subscribers: list[Subscriber] = []

    async def revoke(
        self, revocations: Sequence[Revocation], now: float, *, once: Once | None = None
    ) -> Outcome | None:
        """Remember all or none; see `State.revoke`."""
        self._drop(now)
        revocations = [each for each in revocations if each.expires_at > now]
        if once is not None and self._used.get(once.name, now) is not None:
            return None
        added = {each.key for each in revocations if self._revocations.get(each.key, now) is None}
        if len(self._revocations) + len(added) > self._capacity:
            raise StateFull(self._capacity, "revocations")
        if once is not None:
            if len(self._used) >= self._capacity:
                raise StateFull(self._capacity, "names for one use")
            self._used.put(once.name, once)
        kept = tuple(self._keep(each, now) for each in revocations)
        return Outcome(kept, await self._tell(kept))

    def _keep(self, revocation: Revocation, now: float) -> Revocation:
        old = self._revocations.get(revocation.key, now)
        kept = revocation if old is None else merged(old, revocation)
        self._revocations.put(kept.key, kept)
        self._keys[kept.id] = kept.key
        return kept

    async def _tell(self, revocations: Sequence[Revocation]) -> int:
        closed = 0
        for revocation in revocations:
            for subscriber in self._subscribers:
                closed += await subscriber(revocation)
        return closed

    @property
    def is_clear(self) -> bool:
        """Whether no revocation is in force."""
        return not self._revocations

    async def revoked(self, subject: Subject, now: float) -> Revocation | None:
        """The revocation in force that means a token."""
        if not self._revocations:
            return None
        for key in keys_of(subject):
            found = self._revocations.get(key, now)
            if found is not None and found.is_after(subject.issued_at):
                return found
        return None

    async def revocations(self, now: float, *, cursor: str | None, limit: int) -> Page:
        """A page of those in force, oldest first."""
        self._drop(now)
        after = None if cursor is None else _position(cursor)
        rest = (each for each in self._revocations if after is None or _order(each) > after)
        found = nsmallest(limit + 1, rest, key=_order)
        page = tuple(found[:limit])
        return Page(page, _cursor(page[-1]) if len(found) > limit else None)

    async def withdraw(self, identifier: str, now: float) -> Revocation | None:
        """Take a revocation back."""
        self._drop(now)
        key = self._keys.pop(identifier, None)
        if key is None:
            return None
        return self._revocations.pop(key)

    async def count(self, now: float) -> int:
        """How many revocations are in force."""
        self._drop(now)
        return len(self._revocations)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Have a subscriber told of every revocation from now on."""
        self._subscribers.append(subscriber)

    def _drop(self, now: float) -> None:
        self._used.drop(now)
        for revocation in self._revocations.drop(now):
            del self._keys[revocation.id]


def _order(revocation: Revocation) -> tuple[float, str]:
    return revocation.created_at, revocation.id


def _cursor(revocation: Revocation) -> str:
    return f"{revocation.created_at!r}~{revocation.id}"


def _position(cursor: str) -> tuple[float, str]:
    """The order of the last revocation of a page. Raises ValueError where it is none's."""
    created_at, tilde, identifier = cursor.partition("~")
    if not tilde:
        raise ValueError("not a cursor")
    return float(created_at), identifier
