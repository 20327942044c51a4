"""A ping of the sidecar's own, on its way to a client."""

from sidecar.proxy.pipe import Pipe
from sidecar.proxy.sockets import unsent
from sidecar.wire.frames import ping_frame

__all__ = ["Ping"]

_HEADER = 2
"""Bytes of the shortest header of a frame."""


class Ping:
    """A ping that was sent `at` this moment of the steady time and waits for a sign of life.

    It may have to wait for the end of a frame, and then stands behind what the client has not taken
    yet. A client that takes bytes is alive, so the time for its answer begins when the ping has
    arrived; one that takes none while there are some is as dead as one that does not answer.
    """

    __slots__ = ("_behind", "_taken", "_written", "at")

    def __init__(self, client: Pipe, payload: bytes, now: float) -> None:
        self.at = now
        left = unsent(client.transport)
        self._written = _written(client)
        self._taken = self._written - left
        self._behind = left > 0
        client.inject(ping_frame(payload))

    def is_under_way(self, client: Pipe, now: float) -> bool:
        """Whether it is no fault of the client's that the answer is late; it has its time anew
        from `now` on then.
        """
        written, left = _written(client), unsent(client.transport)
        if client.awaits_boundary:
            self._written = written  # all of it comes before the ping
        taken = written - left
        behind = client.awaits_boundary or left > written - self._written
        excused = (taken > self._taken or not left) if behind else self._behind
        self._behind, self._taken = behind, taken
        if excused:
            self.at = now
        return excused


def _written(client: Pipe) -> int:
    """Bytes that were passed on to this client, nearly: longer headers count as short ones."""
    meter = client.peer.meter
    return meter.payload_bytes + _HEADER * meter.frames
