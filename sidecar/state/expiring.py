"""A mapping that forgets each entry at its time, without a look at the others."""

from collections.abc import Callable, Hashable, Iterator
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

__all__ = ["Expiring"]

_SLACK: Final = 64
"""Items of the queue whose entries are gone, beside as many as there are entries."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Expiring(Generic[K, V]):
    """Entries by key, each until `ends(value)`, in seconds since the epoch.

    An entry that is over is not given any more; its memory is freed by the next `drop`, which
    takes time in proportion to what it drops.
    """

    def __init__(self, ends: Callable[[V], float]) -> None:
        self._ends = ends
        self._entries: dict[K, V] = {}
        # When to look whether an entry is over: the number keeps keys from being compared.
        self._queue: list[tuple[float, int, K]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[V]:
        return iter(self._entries.values())

    def get(self, key: K, now: float) -> V | None:
        """The entry of a key; None where there is none or it is over."""
        value = self._entries.get(key)
        return None if value is None or self._ends(value) <= now else value

    def put(self, key: K, value: V) -> None:
        """Set an entry. One that replaces another has its place in the order."""
        if key not in self._entries:
            self._enqueue(key, value)
        self._entries[key] = value

    def pop(self, key: K) -> V:
        """Take an entry out, which must be there."""
        taken = self._entries.pop(key)
        if len(self._queue) > 2 * len(self._entries) + _SLACK:
            self._queue = [self._item(left, value) for left, value in self._entries.items()]
            heapify(self._queue)
        return taken

    def drop(self, now: float) -> list[V]:
        """Free what is over, and give it."""
        dropped: list[V] = []
        while self._queue and self._queue[0][0] <= now:
            _, _, key = heappop(self._queue)
            value = self._entries.get(key)
            if value is None:
                continue  # taken out before its time
            if self._ends(value) > now:
                self._enqueue(key, value)  # replaced by one that ends later
            else:
                dropped.append(self._entries.pop(key))
        return dropped

    def _enqueue(self, key: K, value: V) -> None:
        heappush(self._queue, self._item(key, value))

    def _item(self, key: K, value: V) -> tuple[float, int, K]:
        self._number += 1
        return self._ends(value), self._number, key
