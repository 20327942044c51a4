"""Both ends of one relayed connection, on bare sockets."""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from sidecar.clock import Clock
from sidecar.proxy.relay import Link
from tests.support.clients import Raw, head
from tests.support.clocks import MovableClock
from tests.support.sidecars import SYSTEM_CLOCK, Running, policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import Streams, switching

LIMIT = 2**26


class Pair:
    """A client and its upstream: both have shaken hands, nothing else has been sent."""

    def __init__(self, running: Running, client: Raw, upstream: Raw, audit: Path) -> None:
        self.running = running
        self.client = client
        self.upstream = upstream
        self._audit = audit

    @property
    def link(self) -> Link:
        """The sidecar's own view of the connection."""
        (link,) = self.running.sidecar.connections
        return link

    async def closure(self) -> dict[str, Any]:
        """The audit event of the connection's end: there is exactly one, and nothing is left."""
        await self.running.until_idle()
        assert not len(self.running.sidecar.connections)
        events: list[dict[str, Any]] = [
            json.loads(line) for line in self._audit.read_text().splitlines()
        ]
        closures = [event for event in events if event["event"] == "connection_closed"]
        assert len(closures) == 1
        return closures[0]

    async def after(self, clock: MovableClock, seconds: float) -> None:
        """Let time go by, and what is due be done."""
        clock.move(seconds)
        await self.running.sidecar.tick()

    def hang_up(self) -> None:
        """Both sides close their sockets."""
        self.client.writer.close()
        self.upstream.writer.close()

    async def ending(self) -> tuple[int, str, str | None]:
        """Code, by whom and why of the end."""
        event = await self.closure()
        return event["code"], event["by"], event.get("reason")


@contextlib.asynccontextmanager
async def bare_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, Any]]:
    """A listener that hands out what it accepts: its port and a queue of streams."""
    accepted: asyncio.Queue[Streams] = asyncio.Queue()
    opened: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        accepted.put_nowait((reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=LIMIT, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], accepted
    finally:
        server.close()
        for writer in opened:
            writer.transport.abort()
        await asyncio.sleep(0)


async def connected(
    port: int, buffers: int | None = None, tls: ssl.SSLContext | None = None
) -> Raw:
    """A client's socket; `buffers` is the size of the kernel's, set before the connection."""
    sock = socket.socket()
    if buffers is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    name = "localhost" if tls else None
    streams = await asyncio.open_connection(sock=sock, limit=LIMIT, ssl=tls, server_hostname=name)
    return Raw(*streams)


@contextlib.asynccontextmanager
async def pair(
    folder: Path,
    *,
    limits: Mapping[str, Any] | None = None,
    early: bytes = b"",
    client_early: bytes = b"",
    buffers: int | None = None,
    server: Mapping[str, Any] | None = None,
    client_tls: ssl.SSLContext | None = None,
    upstream_tls: ssl.SSLContext | None = None,
    upstream: Mapping[str, Any] | None = None,
    session: Mapping[str, Any] | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> AsyncIterator[Pair]:
    """A relayed connection. `early` is what the upstream sends in one write with its answer,
    `client_early` what the client sends with its request.
    """
    audit = folder / "audit.jsonl"
    async with bare_server(upstream_tls) as (port, accepted):
        scheme = "wss" if upstream_tls else "ws"
        policy = policy_of(
            "",
            route={"limits": dict(limits or {}), "session": dict(session or {})},
            logging={"audit": {"file": str(audit)}},
            server=dict(server or {}),
            upstreams={"main": {"url": f"{scheme}://127.0.0.1:{port}", **(upstream or {})}},
        )
        async with sidecar(policy, folder, clock=clock) as running:
            client = await connected(running.port, buffers, client_tls)
            try:
                await client.send(head("/ws", "Authorization: Bearer " + token()) + client_early)
                back = Raw(*await accepted.get())
                await back.send(switching(await back.response()) + early)
                assert (await client.response()).startswith(b"HTTP/1.1 101 ")
                yield Pair(running, client, back, audit)
            finally:
                client.writer.transport.abort()
                await asyncio.sleep(0)
