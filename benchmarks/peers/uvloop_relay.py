"""A relay on uvloop that looks at nothing: what Python's event loop alone costs.

Between this and the bare C relay lies the price of the platform; between this and the sidecar lies
what the sidecar does. `--port`, `--upstream`: ports on 127.0.0.1.
"""

import argparse
import asyncio
from typing import cast

import uvloop


class Side(asyncio.Protocol):
    """One socket of a pair: what it reads goes to the other."""

    transport: asyncio.Transport

    def __init__(self, peer: "Side | None" = None) -> None:
        self.peer = peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=1, low=0)  # as the sidecar's

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self.peer is not None:
            self.peer.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side goes too."""
        if self.peer is not None and not self.peer.transport.is_closing():
            self.peer.transport.close()

    def pause_writing(self) -> None:
        """Stop reading the other side."""
        if self.peer is not None and not self.peer.transport.is_closing():
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read the other side again."""
        if self.peer is not None and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()


class Client(Side):
    """A client's socket: its first bytes wait until there is an upstream."""

    def __init__(self, upstream: int) -> None:
        super().__init__()
        self._upstream = upstream
        self._early = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Dial the upstream."""
        super().connection_made(transport)
        self._task = asyncio.create_task(self._dial())

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        peer = Side()
        await loop.create_connection(lambda: peer, "127.0.0.1", self._upstream)
        peer.transport.write(self._early)
        side = Side(peer)  # of this one nothing is needed any more
        side.transport = self.transport
        peer.peer = side
        self.transport.set_protocol(side)

    def data_received(self, data: bytes) -> None:
        """Keep it."""
        self._early += data


async def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True)
    args = parser.parse_args()
    server = await asyncio.get_running_loop().create_server(
        lambda: Client(args.upstream), "127.0.0.1", args.port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
