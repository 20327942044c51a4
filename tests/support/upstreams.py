"""Upstreams that know nothing of authentication: one that records bytes, one that is real."""

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

from websockets.asyncio.server import Server, ServerConnection, serve

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def accept_key(head: bytes) -> str:
    """The Sec-WebSocket-Accept for a request head."""
    key = fields(head)["sec-websocket-key"]
    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()


def fields(head: bytes) -> dict[str, str]:
    """A head's fields by lower-case name (the last of several)."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def switching(head: bytes, *extra: str) -> bytes:
    """The right answer to an upgrade, with further lines."""
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(head)}",
        *extra,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Recording:
    """A bare upstream: keeps the head and exactly the bytes of each connection.

    `answer` makes the answer to a head (bytes behind it too); None never answers. `connections`
    holds the open streams, `heads` and `received` what came, in the order of the connections.
    """

    def __init__(self, answer: Callable[[bytes], bytes | None] = switching) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.received: list[bytearray] = []
        self.connections: list[Streams] = []
        self.eof = 0
        self.lost = 0
        self.reading = asyncio.Event()
        self.reading.set()
        self.port = 0
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def forwarded(self) -> bytes:
        """What the first connection got behind its head."""
        return bytes(self.received[0]) if self.received else b""

    async def send(self, data: bytes, connection: int = 0) -> None:
        writer = self.connections[connection][1]
        writer.write(data)
        await writer.drain()

    async def until(self, condition: Callable[["Recording"], bool], timeout: float = 5) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: condition(self))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.lost += 1
            await self._notify()
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        received = bytearray()
        self.heads.append(head)
        self.received.append(received)
        self.connections.append((reader, writer))
        answer = self.answer(head)
        if answer is not None:
            writer.write(answer)
        await self._notify()
        while True:
            await self.reading.wait()
            data = await reader.read(65536)
            if not data:
                break
            received += data
            await self._notify()
        self.eof += 1
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def recording(
    answer: Callable[[bytes], bytes | None] = switching,
) -> AsyncIterator[Recording]:
    """A running `Recording`."""
    upstream = Recording(answer)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=2**20)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        upstream.reading.set()
        for _, writer in upstream.connections:
            writer.transport.abort()
        await asyncio.sleep(0)


async def echo(connection: ServerConnection) -> None:
    """Send every message back."""
    async for message in connection:
        await connection.send(message)


@contextlib.asynccontextmanager
async def websocket_server(
    handler: Callable[[ServerConnection], Awaitable[None]] = echo, **options: object
) -> AsyncIterator[str]:
    """A real WebSocket server (the `websockets` library's); its URL."""
    server: Server
    async with serve(handler, "127.0.0.1", 0, max_size=2**26, **options) as server:  # type: ignore[arg-type]
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}"
