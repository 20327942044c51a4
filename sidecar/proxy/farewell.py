"""The end of a refused handshake that was accepted only to be told why (`refuse.with: close`)."""

import asyncio
from collections.abc import Callable

from sidecar.proxy.relay import CLOSE_TIMEOUT
from sidecar.proxy.sockets import half_close
from sidecar.wire.frames import close_frame

__all__ = ["Farewell"]


class Farewell(asyncio.Protocol):
    """Reads and forgets what the client sends; after `hold` seconds sends a close frame, then
    half-closes and waits for the client to hang up, for CLOSE_TIMEOUT seconds at most.

    `on_end` is called once, when the transport is gone.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        code: int,
        reason: str,
        hold: float,
        on_end: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._frame = close_frame(code, reason, None)
        self._on_end = on_end
        self._said = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(hold, self._say)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has hung up, or was cut off."""
        self._timer.cancel()
        self._on_end()

    def hurry(self) -> None:
        """Send the close frame now, if it has not been sent."""
        if not self._said:
            self._timer.cancel()
            self._say()

    def _say(self) -> None:
        self._said = True
        if not self._transport.is_closing():
            self._transport.write(self._frame)
            half_close(self._transport)
        self._timer = self._loop.call_later(CLOSE_TIMEOUT, self._transport.abort)
