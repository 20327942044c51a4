"""The state of several workers: the parent has it, and each worker a copy for its handshakes.

A worker has all that is in force before it listens, and is told of each change in their order. So a
revocation reaches every process that has connections.

That is for an engine in the parent's memory. An engine that every process reaches by itself needs
no copies.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from sidecar.state.base import Once, Outcome, Page, Revocation, State, Subject, Subscriber
from sidecar.workers.channel import Body
from sidecar.workers.plain import REVOCATIONS
from sidecar.workers.telling import Peer, Telling

__all__ = ["CopiedState"]

_JOIN_TIMEOUT: Final = 60.0
_PAGE: Final = 10_000
_CHUNK: Final = 100
"""Revocations in one message: of the greatest size, they still fit."""


class CopiedState:
    """An engine's `State`, whose changes are confirmed by every worker that has joined."""

    def __init__(self, engine: State) -> None:
        self._engine = engine
        self._copies: set[Peer] = set()
        self._telling = Telling()
        # Changes are sent in the order in which the engine has made them.
        self._order = asyncio.Lock()

    async def join(self, worker: Peer, now: float) -> None:
        """Let a worker have all that is in force, and from now on every change.

        Raises WorkerError; then it has not joined.
        """
        self._copies.add(worker)
        try:
            await self._send_all(worker, now)
        except BaseException:
            self._copies.discard(worker)
            raise

    def leave(self, worker: Peer) -> None:
        """A worker has ended."""
        self._copies.discard(worker)

    async def close(self) -> None:
        """Tell nobody anything any more."""
        await self._telling.close()

    async def revoke(
        self, revocations: Sequence[Revocation], now: float, *, once: Once | None = None
    ) -> Outcome | None:
        """Remember all or none, and tell every worker; see `State.revoke`."""
        async with self._order:
            outcome = await self._engine.revoke(revocations, now, once=once)
            if outcome is None:
                return None
            body = REVOCATIONS.put(outcome.revocations)
            told = self._telling.begin(self._copies, "revoke", body)
        closed, confirmed = await self._telling.settled(told)
        return Outcome(
            outcome.revocations, outcome.closed + closed, outcome.confirmed and confirmed
        )

    async def withdraw(self, identifier: str, now: float) -> Revocation | None:
        """Take a revocation back. A worker that does not answer may refuse its tokens until it
        does.
        """
        async with self._order:
            withdrawn = await self._engine.withdraw(identifier, now)
            if withdrawn is None:
                return None
            told = self._telling.begin(self._copies, "withdraw", {"id": identifier})
        await self._telling.settled(told)
        return withdrawn

    @property
    def is_clear(self) -> bool:
        """Whether no revocation is in force."""
        return self._engine.is_clear

    async def revoked(self, subject: Subject, now: float) -> Revocation | None:
        """The revocation in force that means a token."""
        return await self._engine.revoked(subject, now)

    async def revocations(self, now: float, *, cursor: str | None, limit: int) -> Page:
        """A page of those in force."""
        return await self._engine.revocations(now, cursor=cursor, limit=limit)

    async def count(self, now: float) -> int:
        """How many revocations are in force."""
        return await self._engine.count(now)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Have a subscriber in this process told of every revocation from now on."""
        self._engine.subscribe(subscriber)

    async def _send_all(self, worker: Peer, now: float) -> None:
        cursor: str | None = None
        while True:
            async with self._order:
                page = await self._engine.revocations(now, cursor=cursor, limit=_PAGE)
                sending = asyncio.gather(*_chunks(worker, page.revocations))
            await sending
            cursor = page.next
            if cursor is None:
                return


def _chunks(worker: Peer, revocations: Sequence[Revocation]) -> list[Coroutine[Any, Any, Body]]:
    return [
        worker.ask(
            "revoke", REVOCATIONS.put(tuple(revocations[start : start + _CHUNK])), _JOIN_TIMEOUT
        )
        for start in range(0, len(revocations), _CHUNK)
    ]
