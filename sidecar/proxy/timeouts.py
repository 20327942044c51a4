"""Many things that each have to be done with in time, and one timer for all of them."""

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import structlog

__all__ = ["Timeouts"]

T = TypeVar("T", bound=Hashable)

_log = structlog.get_logger()


class Timeouts(Generic[T]):
    """Calls `late` with each thing that is still here when its seconds are over.

    Things with the same number of seconds come due in the order in which they were added; so no
    more is looked at than one of each number.
    """

    def __init__(self, late: Callable[[T], None]) -> None:
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._queues: dict[float, dict[T, float]] = {}  # by seconds, the eldest first
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # when the timer is

    def add(self, thing: T, seconds: float) -> None:
        """A thing has so many seconds from now on."""
        due = self._loop.time() + seconds
        self._queues.setdefault(seconds, {})[thing] = due
        if self._timer is None or due < self._due:
            self._set(due)

    def discard(self, thing: T, seconds: float) -> bool:
        """A thing that was given so many seconds is done; False where it was before."""
        return self._queues.get(seconds, {}).pop(thing, None) is not None

    def close(self) -> None:
        """Forget everything."""
        self._queues.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._ring)
        self._due = due

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.time()
        over = [thing for queue in self._queues.values() for thing in _due(queue, now)]
        self._queues = {seconds: queue for seconds, queue in self._queues.items() if queue}
        if self._queues:
            self._set(min(next(iter(queue.values())) for queue in self._queues.values()))
        for thing in over:
            try:
                self._late(thing)
            except Exception as error:  # the others are late all the same
                _log.error("internal_error", exc_info=error)


def _due(queue: dict[T, float], now: float) -> list[T]:
    """Take out what is over."""
    over: list[T] = []
    for thing, due in queue.items():
        if due > now:
            break
        over.append(thing)
    for thing in over:
        del queue[thing]
    return over
