"""A connection ends when its token does, or when it has lived long enough."""

import asyncio
from dataclasses import replace
from pathlib import Path
from time import time

from websockets.asyncio.client import connect

from tests.support.clocks import MovableClock
from tests.support.sidecars import policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import websocket_server


async def test_a_connection_ends_with_its_token(tmp_path: Path) -> None:
    async with websocket_server() as url:
        policy = policy_of(url, jwt={"leeway": "0s"})
        async with (
            sidecar(policy, tmp_path) as it,
            connect(it.url, additional_headers={"Authorization": "Bearer " + token(ttl=3)}) as one,
            connect(it.url, additional_headers={"Authorization": "Bearer " + token("bob")}) as two,
        ):
            await asyncio.wait_for(one.wait_closed(), 10)
            assert (one.close_code, one.close_reason) == (4401, "token_expired")
            await two.send("still here")
            assert await two.recv() == "still here"


async def test_a_connection_ends_after_its_longest_life(tmp_path: Path) -> None:
    clock = MovableClock(time())
    async with (
        websocket_server() as url,
        sidecar(policy_of(url), tmp_path, clock=clock) as it,
        connect(it.url, additional_headers={"Authorization": "Bearer " + token()}) as client,
    ):
        (link,) = it.sidecar.connections
        link.session = replace(link.session, max_lifetime=600)
        clock.move(601)
        await asyncio.wait_for(client.wait_closed(), 10)
        assert (client.close_code, client.close_reason) == (4408, "session_lifetime")
