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

    peer: "Side"
    transport: asyncio.Transport

    def __init__(self, upstream: int | None) -> None:
        self._upstream = upstream
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket; a client's gets its upstream before it is read."""
        self.transport = cast(asyncio.Transport, transport)
        if self._upstream is not None:
            self.transport.pause_reading()
            self._task = asyncio.create_task(self._dial(self._upstream))

    async def _dial(self, port: int) -> None:
        self.peer = Side(None)
        self.peer.peer = self
        await asyncio.get_running_loop().create_connection(lambda: self.peer, "127.0.0.1", port)
        for side in (self, self.peer):  # as the sidecar does: writes go out at once
            side.transport.set_write_buffer_limits(high=1, low=0)
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self.peer.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side goes too."""
        if not self.peer.transport.is_closing():
            self.peer.transport.close()

    def pause_writing(self) -> None:
        """Stop reading the other side."""
        if not self.peer.transport.is_closing():
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read the other side again."""
        if not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()


async def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True)
    args = parser.parse_args()
    server = await asyncio.get_running_loop().create_server(
        lambda: Side(args.upstream), "127.0.0.1", args.port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
