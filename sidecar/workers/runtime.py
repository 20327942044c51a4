"""What every process of the program runs on: its event loop, and how it keeps its memory."""

import asyncio
import gc
from collections.abc import Callable
from typing import Final

__all__ = ["loop_factory", "settle_memory"]

_GC_THRESHOLDS: Final = (10_000, 20, 50)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where there is one; None for asyncio's own."""
    try:
        import uvloop
    except ImportError:  # not on Windows
        return None
    return uvloop.new_event_loop


def settle_memory() -> None:
    """What is there now stays: the garbage collector need not look at it again, nor as often at
    the rest, of which next to nothing is in cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
