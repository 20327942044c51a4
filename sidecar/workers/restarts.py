"""When a worker that has died is started again."""

from typing import Final

__all__ = ["Restarts"]

_YOUNG: Final = 60.0
"""Seconds after which a worker's life counts as a good one."""

_SHORTEST: Final = 1.0
_LONGEST: Final = 30.0


class Restarts:
    """The pauses of one worker: none at first, then 1 s, doubling to 30 s, as long as each one
    dies young.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def pause(self, lived: float) -> float:
        """Seconds to wait after a worker that has lived for so many."""
        pause = 0.0 if lived >= _YOUNG else self._next
        self._next = min(_LONGEST, 2 * pause or _SHORTEST)
        return pause
