"""A thousand reloads while a thousand connections talk: not a byte is lost, added or out of order.

It takes more than a minute, so it runs on one loop only.
"""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import pytest

from sidecar.config.source import load_policy
from sidecar.policy.compiled import Policy
from tests.support.clients import head
from tests.support.sidecars import ENVIRON, policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import switching

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])

CONNECTIONS: Final = 1000
RELOADS: Final = 1000
PAUSE: Final = 0.4
"""Seconds from an answer to the next frame of the same client."""

PAYLOAD: Final = 16
FROM_CLIENT: Final = b"\x82" + bytes([0x80 | PAYLOAD]) + bytes(4)  # masked with zeros
TO_CLIENT: Final = b"\x82" + bytes([PAYLOAD])


def numbered(client: int, number: int) -> bytes:
    return client.to_bytes(8, "big") + number.to_bytes(8, "big")


class Echo(asyncio.Protocol):
    """The upstream: sends back every frame, which is one of `FROM_CLIENT` with its payload."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.data = b""
        self.shaken = False

    def data_received(self, data: bytes) -> None:
        self.data += data
        if not self.shaken:
            request, end, self.data = self.data.partition(b"\r\n\r\n")
            assert end, "the head comes in one piece"
            self.transport.write(switching(request + end))
            self.shaken = True
        size = len(FROM_CLIENT) + PAYLOAD
        while len(self.data) >= size:
            frame, self.data = self.data[:size], self.data[size:]
            assert frame.startswith(FROM_CLIENT)
            self.transport.write(TO_CLIENT + frame[len(FROM_CLIENT) :])


class Talker(asyncio.Protocol):
    """A client: sends frames with growing numbers, some at once, and expects them back."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sent = 0
        self.received = b""
        self.wrong: str | None = None
        self.shaken = asyncio.Event()
        self.stopped = False
        self.expected = b""

    def itself(self) -> "Talker":
        return self

    @property
    def done(self) -> bool:
        return not self.expected or self.wrong is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(head("/ws", "Authorization: Bearer " + BEARER))

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.shaken.is_set():
            answer, end, self.received = self.received.partition(b"\r\n\r\n")
            if not end or not answer.startswith(b"HTTP/1.1 101 "):
                self.wrong = f"refused: {answer[:200]!r}"
            self.shaken.set()
            return
        if not self.expected.startswith(self.received):
            self.wrong = f"client {self.number} got {self.received[:80]!r}"
        elif len(self.received) == len(self.expected):
            self.received = self.expected = b""
            asyncio.get_running_loop().call_later(PAUSE, self.talk)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.stopped:
            self.wrong = f"client {self.number} lost its connection"
        self.shaken.set()

    def talk(self) -> None:
        """Send one to three frames, in two writes, the first of which ends within a frame."""
        if self.stopped or self.wrong:
            return
        numbers = range(self.sent, self.sent + 1 + self.sent % 3)
        self.sent = numbers.stop
        payloads = [numbered(self.number, number) for number in numbers]
        self.expected = b"".join(TO_CLIENT + payload for payload in payloads)
        frames = b"".join(FROM_CLIENT + payload for payload in payloads)
        middle = 1 + self.sent % (len(frames) - 1)
        self.transport.write(frames[:middle])
        asyncio.get_running_loop().call_soon(self.transport.write, frames[middle:])


BEARER: Final = token()


def policies(folder: Path, url: str) -> Iterator[Policy]:
    """Two in turn: with other limits, rates and close codes, and without an unrelated route."""

    def policy(number: int) -> Policy:
        limits = {
            "message_size": {"client": f"{number + 1}KiB"},
            "messages": {"rate": "1000000/second", "burst": 100 + number},
            "bytes": f"{number + 1}GiB/second",
        }
        main = {"name": "main", "match": {"path": "/ws"}, "origins": {"missing": "allow"}}
        other = {"name": "other", "match": {"path": "/other"}, "origins": {"missing": "allow"}}
        routes = [{**main, "limits": limits}, *([other] if number else [])]
        path = folder / f"{number}.yaml"
        path.write_text(policy_of(url, routes=routes))
        return load_policy([path], ENVIRON).policy

    return itertools.cycle([policy(1), policy(0)])


async def test_a_thousand_reloads_cost_no_connection_a_byte(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=CONNECTIONS)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with sidecar(policy_of(url), tmp_path) as it:
        talkers = [Talker(number) for number in range(CONNECTIONS)]
        for talker in talkers:
            await loop.create_connection(talker.itself, "127.0.0.1", it.port)
            await asyncio.wait_for(talker.shaken.wait(), 10)
            loop.call_later(PAUSE * talker.number / CONNECTIONS, talker.talk)
        links = set(it.sidecar.connections)
        order = policies(tmp_path, url)
        for _ in range(RELOADS):
            await it.sidecar.reload(next(order))
        for talker in talkers:
            talker.stopped = True
        async with asyncio.timeout(30):
            while not all(talker.done for talker in talkers):
                await asyncio.sleep(0.05)
        assert [talker.wrong for talker in talkers if talker.wrong] == []
        assert min(talker.sent for talker in talkers) > 10
        assert set(it.sidecar.connections) == links
        assert all(link.closing is None for link in links)
        for talker in talkers:
            talker.transport.abort()
        await it.until_idle()
    server.close()
