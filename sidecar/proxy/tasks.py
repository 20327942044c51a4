"""Tasks that nobody awaits, kept so that they are not lost."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import structlog

__all__ = ["first_of", "give_up", "once", "repeat", "spawn"]

T = TypeVar("T")

_log = structlog.get_logger()


def spawn(work: Coroutine[Any, Any, T], tasks: set[asyncio.Task[T]]) -> asyncio.Task[T]:
    """Begin a task; it is among `tasks` until it is over."""
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


async def give_up(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel them, and wait until they are over, whatever comes of them."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


async def first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Wait until one of them is over, and give up the others."""
    tasks = [asyncio.create_task(work) for work in works]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


async def repeat(work: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Do something again and again, with a pause; where it fails the log says so, and it is tried
    again.
    """
    while True:
        await once(work)
        await asyncio.sleep(seconds)


async def once(work: Callable[[], Awaitable[None]]) -> None:
    """Do something; where it fails the log says so."""
    try:
        await work()
    except Exception as error:
        _log.error("internal_error", exc_info=error)
