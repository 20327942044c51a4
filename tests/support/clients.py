"""A client on a bare socket, for what no library would send."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def head(
    path: str = "/ws",
    *extra: str,
    host: str = "127.0.0.1",
    method: str = "GET",
    version: str = "HTTP/1.1",
    without: Iterable[str] = (),
) -> bytes:
    """A request for upgrade, with further header lines, without the fields of these names."""
    lines = [
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
    ]
    left_out = {name.lower() for name in without}
    kept = [line for line in lines if line.partition(":")[0].lower() not in left_out]
    text = "\r\n".join([f"{method} {path} {version}", *kept, *extra]) + "\r\n\r\n"
    return text.encode("latin-1")


class Raw:
    """A socket to the sidecar."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def response(self, timeout: float = 5) -> bytes:
        """The response head."""
        async with asyncio.timeout(timeout):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, size: int, timeout: float = 5) -> bytes:
        async with asyncio.timeout(timeout):
            return await self.reader.readexactly(size)

    async def rest(self, timeout: float = 8) -> bytes:
        """Everything until the other side ends (an abort counts as an end)."""
        data = b""
        async with asyncio.timeout(timeout):
            with contextlib.suppress(ConnectionError):
                while piece := await self.reader.read(65536):
                    data += piece
        return data

    @property
    def transport(self) -> asyncio.Transport:
        return cast(asyncio.Transport, self.writer.transport)

    def stop_reading(self) -> None:
        """Leave what comes to the kernel."""
        self.transport.pause_reading()

    def read_again(self) -> None:
        self.transport.resume_reading()

    def reset(self) -> None:
        """Vanish: the other side gets an RST."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def refusal(self) -> dict[str, Any]:
        """The status and the problem of a refused handshake."""
        answer = await self.rest()
        first, _, body = answer.partition(b"\r\n\r\n")
        problem: dict[str, Any] = json.loads(body)
        assert int(first.split()[1]) == problem["status"]
        problem["head"] = first.decode("latin-1")
        return problem


@contextlib.asynccontextmanager
async def raw(port: int) -> AsyncIterator[Raw]:
    """A bare socket to this port; cut off with the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**26)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
