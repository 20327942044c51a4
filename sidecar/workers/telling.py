"""Telling every worker of a change, so that none is without it.

The channel loses nothing: a worker that hangs hears of the change when it goes on. One that cannot
take it is ended, and another one takes its place by what is in force then. So in the end every
process that has connections has the change.
"""

import asyncio
from collections.abc import Iterable, Mapping
from math import inf
from typing import Final, Protocol

import structlog

from sidecar.errors import WorkerError
from sidecar.proxy.tasks import give_up, spawn
from sidecar.workers.channel import Body
from sidecar.workers.plain import CLOSED

__all__ = ["PATIENCE", "Peer", "Telling"]

PATIENCE: Final = 2.0
"""Seconds that whoever asks for a change waits for the workers."""

_log = structlog.get_logger()


class Peer(Protocol):
    """A worker that can be told."""

    @property
    def number(self) -> int:
        """Its number."""
        ...

    @property
    def reachable(self) -> bool:
        """Whether it is there to answer."""
        ...

    async def ask(self, verb: str, body: Body, within: float) -> Body:
        """Its answer within so many seconds. Raises WorkerError."""
        ...

    def kill(self) -> None:
        """End it by force."""
        ...

    async def over(self) -> None:
        """Wait until it runs no more."""
        ...


Told = Mapping[asyncio.Task[int], Peer]


class Telling:
    """Changes that workers are being told of. Each verb answers how many connections it ended."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[int]] = set()

    def begin(self, workers: Iterable[Peer], verb: str, body: Body) -> Told:
        """Tell these workers; each hears of changes in the order in which they are begun."""
        # Tasks begin in the order in which they are made, and each sends before it waits.
        return {spawn(_told(worker, verb, body), self._tasks): worker for worker in workers}

    async def settled(self, told: Told) -> tuple[int, bool]:
        """How many connections all have ended in time, and whether all were in time; the others
        are still being told.
        """
        if not told:
            return 0, True
        done, late = await asyncio.wait(told, timeout=PATIENCE)
        for task in late:
            _log.error("worker_behind", worker=told[task].number)
            task.add_done_callback(lambda task: _caught_up(task, told[task].number))
        return sum(task.result() for task in done), not late

    async def close(self) -> None:
        """Tell nobody anything any more."""
        await give_up(self._tasks)


async def _told(worker: Peer, verb: str, body: Body) -> int:
    """How many connections it has ended. Whatever comes, it has the change or is over then."""
    try:
        return CLOSED.get(await worker.ask(verb, body, inf))
    except WorkerError as error:
        if worker.reachable:
            _log.error("worker_not_told", worker=worker.number, verb=verb, error=str(error))
            worker.kill()
        await worker.over()
        return 0


def _caught_up(task: asyncio.Task[int], worker: int) -> None:
    if not task.cancelled():
        _log.info("worker_caught_up", worker=worker, closed=task.result())
