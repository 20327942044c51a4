"""The end of all live connections, spread so that their clients do not come back all at once."""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from sidecar.clock import Clock
from sidecar.model import CloseCode, Reason
from sidecar.policy.compiled import Drain
from sidecar.proxy.connections import Connections
from sidecar.proxy.relay import Closing, Link

__all__ = ["Draining"]

_PACE: Final = 0.05
"""Seconds from one look at the clock to the next."""

_SLICE: Final = 250
"""Connections that one turn of the loop ends."""

_CUT_OFF: Final = "cut off at the end of the grace"

_log = structlog.get_logger()


class Draining:
    """A drain, from its beginning on.

    Each connection that is there gets its close frame at a moment of its own within the spread,
    which `jitter` (a number from 0 to 1) finds for it. There must come no new ones.
    """

    def __init__(
        self,
        connections: Connections,
        rule: Drain,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._connections = connections
        self._rule = rule
        self._clock = clock
        begun = clock.monotonic()
        moments = [(begun + rule.spread * jitter(), link) for link in connections]
        self._left = deque(sorted(moments, key=lambda moment: moment[0]))
        self._hurried = False

    def hurry(self) -> None:
        """Send all that is left at once; the grace stays."""
        self._hurried = True
        _log.info("drain_hurried", untold=len(self._left))

    def advance(self) -> bool:
        """Send the close frames that are due by now, at most a slice; whether some are left."""
        now = self._clock.monotonic()
        for _ in range(_SLICE):
            if not self._left or not (self._hurried or self._left[0][0] <= now):
                break
            _, link = self._left.popleft()
            link.end(Reason.DRAINING, self._rule.close_code)
        return bool(self._left)

    async def run(self) -> int:
        """Walk through all, and wait until they have ended. At the end of the grace the rest is
        cut off; how many those were.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._rule.grace):
                while self.advance() and len(self._connections):  # noqa: ASYNC110  # goes by a clock
                    await asyncio.sleep(self._pause())
                await self._connections.idle()
        stragglers = len(self._connections)
        for link in self._connections:
            _cut_off(link)
        return stragglers

    def _pause(self) -> float:
        ahead = self._left[0][0] - self._clock.monotonic()
        return 0.0 if self._hurried else min(max(ahead, 0.0), _PACE)


def _cut_off(link: Link) -> None:
    """Cut both sockets. The record has the reason, also of one that was still to be told."""
    closing = link.closing or Closing(CloseCode.ABNORMAL, "sidecar", Reason.DRAINING.value)
    details = filter(None, (closing.detail, _CUT_OFF))
    link.closing = replace(closing, detail="; ".join(details))
    link.abort()
