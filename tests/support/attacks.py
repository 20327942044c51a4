"""What "refused" means, in one place, and a policy to attack."""

from typing import Any

from tests.support.clients import head, raw
from tests.support.sidecars import Running
from tests.support.tokens import token
from tests.support.upstreams import Recording


def bearer(text: str | None = None) -> str:
    """An Authorization line, with a good token or with this one."""
    return f"Authorization: Bearer {token() if text is None else text}"


async def refused(
    running: Running, upstream: Recording, request: bytes, reason: str
) -> dict[str, Any]:
    """Send these bytes; they must be refused for this reason, without a byte to the upstream, with
    the connection closed behind the answer and the next client served.
    """
    before = len(upstream.heads), upstream.lost
    async with raw(running.port) as client:
        await client.send(request)
        problem = await client.refusal()
    assert problem["reason"] == reason
    await running.until_idle()
    assert (len(upstream.heads), upstream.lost) == before
    await served(running, upstream)
    return problem


async def served(running: Running, upstream: Recording, *lines: str, path: str = "/ws") -> bytes:
    """A client with a good token must be let in; the request head that the upstream got."""
    count = len(upstream.heads)
    async with raw(running.port) as client:
        await client.send(head(path, *(lines or [bearer()])))
        answer = await client.response()
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        await upstream.until(lambda seen: len(seen.heads) > count)
        upstream.connections[-1][1].close()
        await client.rest()
    await running.until_idle()
    assert len(upstream.heads) == count + 1
    return upstream.heads[-1]
