"""Clients that are let in, and what the upstream sees of them."""

from tests.support.clients import head, raw
from tests.support.sidecars import Running
from tests.support.upstreams import Recording


async def seen_by(up: Recording, running: Running, *lines: str, path: str = "/ws") -> bytes:
    """The head that the upstream gets for a client that is let in."""
    before = len(up.heads)
    async with raw(running.port) as client:
        await client.send(head(path, *lines))
        answer = await client.response()
        assert answer.startswith(b"HTTP/1.1 101 "), answer + await client.rest()
    up.connections[before][1].transport.abort()
    return up.heads[before]


async def reason_for(running: Running, *lines: str, path: str = "/ws") -> str:
    """The reason for which a client is refused."""
    async with raw(running.port) as client:
        await client.send(head(path, *lines))
        return str((await client.refusal())["reason"])
