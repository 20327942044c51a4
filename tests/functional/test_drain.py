"""A drain ends every connection, spread over time, and a second signal ends the spread."""

import asyncio
import contextlib
import signal
from pathlib import Path
from time import time

import pytest
from websockets.asyncio.client import connect
from websockets.protocol import State

from tests.support.clients import Raw, head, raw
from tests.support.clocks import MovableClock
from tests.support.programs import serving
from tests.support.sidecars import Running, policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import recording, websocket_server

BEARER = {"Authorization": "Bearer " + token()}
REQUEST = head("/ws", f"Authorization: {BEARER['Authorization']}")
FAREWELL = b"\x88\x0a\x03\xf4draining"
CLIENTS = 1000


async def joined(running: Running, stack: contextlib.AsyncExitStack) -> Raw:
    client = await stack.enter_async_context(raw(running.port))
    await client.send(REQUEST)
    assert (await client.response(30)).startswith(b"HTTP/1.1 101 ")
    return client


async def test_a_thousand_clients_are_all_told_one_after_the_other(tmp_path: Path) -> None:
    clock = MovableClock(time())
    drain = {"grace": "10m", "spread": "100s"}
    async with (
        recording() as up,
        sidecar(policy_of(up.url, server={"drain": drain}), tmp_path, clock=clock) as it,
        contextlib.AsyncExitStack() as stack,
    ):
        clients = [await joined(it, stack) for _ in range(CLIENTS)]
        told: list[int] = []

        async def listen(number: int, client: Raw) -> None:
            assert await client.exactly(len(FAREWELL), 60) == FAREWELL
            told.append(number)

        listening = [asyncio.create_task(listen(*one)) for one in enumerate(clients)]
        it.sidecar.drain()
        async with asyncio.timeout(60):
            for second in range(10, 101, 10):
                clock.move(10)
                links = list(it.sidecar.connections)
                due = sum(link.closing is not None for link in links)
                while due < CLIENTS * second / 200:  # half of what is to be expected
                    await asyncio.sleep(0.01)
                    due = sum(link.closing is not None for link in links)
                assert second == 100 or due < CLIENTS
            await asyncio.gather(*listening)
        assert sorted(told) == list(range(CLIENTS))
        assert told != sorted(told)


@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_spread(
    tmp_path: Path, workers: int, number: signal.Signals
) -> None:
    server = {"workers": workers, "drain": {"grace": "2h", "spread": "1h"}}
    async with (
        websocket_server() as url,
        serving(policy_of(url, server=server), tmp_path) as program,
    ):
        clients = [await connect(program.url, additional_headers=BEARER) for _ in range(10)]
        program.process.process.send_signal(signal.SIGTERM)
        await program.until(lambda: len(program.logged("draining")) == workers)
        open_still = [client for client in clients if client.state is State.OPEN]
        assert len(open_still) > 5  # each had an hour to be told
        program.process.process.send_signal(number)
        async with asyncio.timeout(20):
            await asyncio.gather(*(client.wait_closed() for client in clients))
        assert {client.close_code for client in clients} == {1012}
        assert len(program.logged("drain_hurried")) == workers
        assert await program.process.ended() == 0
