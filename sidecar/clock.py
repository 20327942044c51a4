"""Where time comes from. One clock is made at wiring and handed to whoever waits or compares, so
that a test can move it.
"""

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Both kinds of time, in seconds."""

    def time(self) -> float:
        """The time of day since the epoch. Tokens speak of it; it can step either way."""
        ...

    def monotonic(self) -> float:
        """A steady time without a meaning of its own. Timeouts and rates are counted by it."""
        ...


class SystemClock:
    """The machine's clock."""

    def time(self) -> float:
        """The time of day, in seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """A steady time, in seconds."""
        return time.monotonic()
