"""Another policy in all workers, or in none: all prepare it, then all take it or all let it go."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from sidecar.config.source import compile_documents
from sidecar.errors import ConfigError, KeyMaterialError, WorkerError
from sidecar.observe.audit import HASH_KEY_VARIABLE
from sidecar.policy.compiled import Policy
from sidecar.policy.sharing import share
from sidecar.workers.channel import Body, Verb
from sidecar.workers.orders import Orders
from sidecar.workers.plain import CLOSED
from sidecar.workers.telling import Peer, Telling

__all__ = ["Change", "ReloadVerbs", "commit_all", "policy_of", "prepare_all"]

_PREPARE_TIMEOUT: Final = 60.0
"""Seconds to prepare: longer than the supervisor looks on at a worker that hangs."""


class Change(Protocol):
    """A policy that is prepared: `proxy.prepared.Prepared`."""

    def commit(self) -> None:
        """Put it in force."""
        ...

    async def discard(self) -> None:
        """Let go of it."""
        ...


def policy_of(orders: Orders) -> tuple[Policy, Mapping[str, str]]:
    """A worker's policy by these orders, and the environment that it goes by. Raises ConfigError,
    also for the secrets and certificates that the policy names.
    """
    environ = {**os.environ, HASH_KEY_VARIABLE: orders.hash_key}
    policy = compile_documents(orders.documents, environ).policy
    return share(policy, orders.workers), environ


class ReloadVerbs:
    """A worker's part. One thing after the other is done, in the order in which it is asked for:
    of a parent that has given up waiting too.
    """

    def __init__(self, prepare: Callable[[Policy], Awaitable[Change]]) -> None:
        self._prepare_policy = prepare
        self._prepared: Change | None = None
        self._turn = asyncio.Lock()
        self.verbs: Mapping[str, Verb] = {
            "reload_prepare": self._prepare,
            "reload_commit": self._commit,
            "reload_discard": self._discard,
        }

    async def _prepare(self, body: Body) -> Body:
        async with self._turn:
            try:
                policy, _ = await asyncio.to_thread(policy_of, Orders.from_json(body))
                self._prepared = await self._prepare_policy(policy)
            except (ConfigError, KeyMaterialError, OSError) as error:
                raise WorkerError(str(error)) from error
        return {}

    async def _commit(self, _: Body) -> Body:
        async with self._turn:
            if self._prepared is None:
                raise WorkerError("no policy is prepared")
            prepared, self._prepared = self._prepared, None
            prepared.commit()
        return CLOSED.put(0)

    async def _discard(self, _: Body) -> Body:
        async with self._turn:
            prepared, self._prepared = self._prepared, None
            if prepared is not None:
                await prepared.discard()
        return CLOSED.put(0)


async def prepare_all(workers: Sequence[Peer], orders: Orders, telling: Telling) -> None:
    """Let these workers prepare the policy of the orders. One that ends meanwhile is not missed.

    Raises WorkerError where one cannot; then they let it go.
    """
    try:
        await _prepared(workers, orders.to_json())
    except BaseException:
        await telling.settled(telling.begin(workers, "reload_discard", {}))
        raise


async def commit_all(workers: Sequence[Peer], telling: Telling) -> None:
    """Let these workers take what they have prepared."""
    await telling.settled(telling.begin(workers, "reload_commit", {}))


async def _prepared(workers: Sequence[Peer], body: Body) -> None:
    asking = (worker.ask("reload_prepare", body, _PREPARE_TIMEOUT) for worker in workers)
    found = await asyncio.gather(*asking, return_exceptions=True)
    for worker, answer in zip(workers, found, strict=True):
        if isinstance(answer, WorkerError):
            if worker.reachable:
                raise WorkerError(f"worker {worker.number}: {answer}")
        elif isinstance(answer, BaseException):
            raise answer
