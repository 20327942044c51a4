"""Tasks that nobody awaits, kept so that they are not lost."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["first_of", "spawn"]

T = TypeVar("T")


def spawn(work: Coroutine[Any, Any, T], tasks: set[asyncio.Task[T]]) -> asyncio.Task[T]:
    """Begin a task; it is among `tasks` until it is over."""
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


async def first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Wait until one of them is over, and give up the others."""
    tasks = [asyncio.create_task(work) for work in works]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
