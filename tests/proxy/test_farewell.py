import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

import pytest

from sidecar.proxy.farewell import Farewell, Farewells
from tests.support.clients import Raw, raw
from tests.support.frames import TEXT, close, frame

FRAME = close(4401, "token_missing", masked=False)


@contextlib.asynccontextmanager
async def farewell(
    hold: float, made: list[Farewell] | None = None
) -> AsyncIterator[tuple[Raw, "asyncio.Future[None]"]]:
    """A client that is told why, and what is done when its socket is gone."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        ended.set_result(None)

    class Switch(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            client = cast(asyncio.Transport, transport)
            one = Farewell(client, 4401, "token_missing", hold, end)
            client.set_protocol(one)
            if made is not None:
                made.append(one)

    server = await loop.create_server(Switch, "127.0.0.1", 0)
    async with server, raw(server.sockets[0].getsockname()[1]) as client:
        yield client, ended


async def test_the_client_gets_a_close_frame_and_the_end() -> None:
    async with farewell(0) as (client, ended):
        assert await client.rest() == FRAME
        assert not ended.done()
        client.writer.close()
        await asyncio.wait_for(ended, 5)


async def test_what_the_client_sends_is_thrown_away() -> None:
    async with farewell(0.05) as (client, ended):
        await client.send(frame(TEXT, b"x" * 100_000))
        assert await client.rest() == FRAME
        client.writer.close()
        await asyncio.wait_for(ended, 5)


async def test_a_client_that_leaves_before_is_not_waited_for() -> None:
    async with farewell(3600) as (client, ended):
        client.writer.close()
        await asyncio.wait_for(ended, 5)


async def test_a_client_that_is_held_can_be_told_at_once() -> None:
    made: list[Farewell] = []
    async with farewell(3600, made) as (client, ended):
        while not made:
            await asyncio.sleep(0.001)
        made[0].hurry()
        made[0].hurry()
        assert await client.rest() == FRAME
        client.writer.close()
        await asyncio.wait_for(ended, 5)


async def test_a_client_that_stays_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.proxy.farewell.CLOSE_TIMEOUT", 0.05)
    async with farewell(0) as (client, ended):
        await asyncio.wait_for(ended, 5)
        assert await client.rest() == FRAME


async def test_nothing_is_written_to_a_socket_that_closes() -> None:
    class Closing(asyncio.Transport):
        """Any other call fails."""

        def is_closing(self) -> bool:
            return True

    ended: list[bool] = []
    said = Farewell(Closing(), 4401, "", 0, lambda: ended.append(True))
    await asyncio.sleep(0.01)
    said.connection_lost(None)
    assert ended == [True]


async def test_after_a_hurry_nobody_is_held() -> None:
    ended: list[bool] = []
    farewells = Farewells(lambda: ended.append(True))
    written: list[bytes] = []

    class Told(asyncio.Transport):
        def is_closing(self) -> bool:
            return False

        def can_write_eof(self) -> bool:
            return False

        def write(self, data: bytes | bytearray | memoryview) -> None:
            written.append(bytes(data))

        def close(self) -> None:
            written.append(b"closed")

    transport = Told()
    farewells.hurry()
    said = farewells.bid(transport, 4401, "token_missing", 3600)
    async with asyncio.timeout(5):
        while not written:
            await asyncio.sleep(0.001)
    assert (written, len(farewells)) == ([FRAME, b"closed"], 1)
    said.connection_lost(None)
    assert (ended, len(farewells)) == ([True], 0)
