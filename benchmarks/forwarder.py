"""A forwarder in front of a proxy, so that clients without TLS can load one that speaks it.

    python benchmarks/forwarder.py --port 18001 --to 18002 [--ca server.pem]

What comes in at one port goes to the other, with TLS where a CA is named. It runs on the load's
cores: only what it asks of the proxy counts.
"""

import argparse
import asyncio
import ssl
from typing import cast

import uvloop

__all__ = ["main"]

_BACKLOG = 4096


class _Side(asyncio.Protocol):
    """One end; what it reads goes to the other end, at the pace at which that takes it."""

    transport: asyncio.Transport
    other: "_Side"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.other.transport.close()

    def pause_writing(self) -> None:
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self.other.transport.resume_reading()


class _Front(_Side):
    """The client's end; what comes before the proxy's end is open is kept."""

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        self._port = port
        self._context = context
        self._joined = False
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._dial = asyncio.get_running_loop().create_task(self._join())

    def data_received(self, data: bytes) -> None:
        if self._joined:
            super().data_received(data)
        else:
            self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        if self._joined:
            super().connection_lost(exc)

    async def _join(self) -> None:
        try:
            _, self.other = await asyncio.get_running_loop().create_connection(
                self._back, "127.0.0.1", self._port, ssl=self._context
            )
        except OSError:
            self.transport.close()
            return
        self._joined = True
        self.other.transport.write(self._early)
        if self.transport.is_closing():
            self.other.transport.close()

    def _back(self) -> _Side:
        side = _Side()
        side.other = self
        return side


async def _serve(port: int, to: int, ca: str | None) -> None:
    context = ssl.create_default_context(cafile=ca) if ca else None
    server = await asyncio.get_running_loop().create_server(
        lambda: _Front(to, context), "127.0.0.1", port, backlog=_BACKLOG
    )
    await server.serve_forever()


def main() -> None:
    """Forward until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", type=int, required=True, metavar="PORT")
    parser.add_argument("--ca", metavar="FILE")
    args = parser.parse_args()
    uvloop.run(_serve(args.port, args.to, args.ca))


if __name__ == "__main__":
    main()
