"""The end of a refused handshake that was accepted only to be told why (`refuse.with: close`)."""

import asyncio
from collections.abc import Callable

from sidecar.proxy.relay import CLOSE_TIMEOUT
from sidecar.proxy.sockets import half_close
from sidecar.wire.frames import close_frame

__all__ = ["Farewell", "Farewells"]


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
            if self._transport.can_write_eof():
                half_close(self._transport)
            else:  # TLS ends both ways at once; the other side's end is still read
                self._transport.close()
        self._timer = self._loop.call_later(CLOSE_TIMEOUT, self._transport.abort)


class Farewells:
    """Those under way. `on_end` is called for each, when its socket is gone."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self._hurried = False
        self._farewells: dict[asyncio.Transport, Farewell] = {}

    def __len__(self) -> int:
        return len(self._farewells)

    def bid(self, transport: asyncio.Transport, code: int, reason: str, hold: float) -> Farewell:
        """The protocol that a socket gets, to be told why."""

        def end() -> None:
            del self._farewells[transport]
            self._on_end()

        seconds = 0 if self._hurried else hold
        self._farewells[transport] = Farewell(transport, code, reason, seconds, end)
        return self._farewells[transport]

    def hurry(self) -> None:
        """Nobody is held any longer before being told, now and from now on."""
        self._hurried = True
        for farewell in self._farewells.values():
            farewell.hurry()

    def abort(self) -> None:
        """Cut off those who are not gone yet."""
        for transport in self._farewells:
            transport.abort()
