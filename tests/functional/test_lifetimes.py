"""A connection ends when its token does, or when it has lived or been silent for long enough."""

import asyncio
import contextlib
import json
import struct
from pathlib import Path
from time import time
from typing import Any

from websockets.asyncio.client import connect

from tests.support.clients import Raw, head, raw
from tests.support.clocks import MovableClock
from tests.support.frames import PONG, TEXT, close, frame
from tests.support.pairs import bare_server, pair
from tests.support.sidecars import policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import recording, switching, websocket_server

WARNING = {"type": "token_expiring", "in": "{expires_in}"}


def bearer(**claims: Any) -> dict[str, str]:
    return {"Authorization": "Bearer " + token(**claims)}


async def test_a_connection_ends_with_its_token(tmp_path: Path) -> None:
    async with websocket_server() as url:
        policy = policy_of(url, jwt={"leeway": "0s"})
        async with (
            sidecar(policy, tmp_path) as it,
            connect(it.url, additional_headers=bearer(ttl=3)) as one,
            connect(it.url, additional_headers=bearer(user="bob")) as two,
        ):
            await asyncio.wait_for(one.wait_closed(), 10)
            assert (one.close_code, one.close_reason) == (4401, "token_expired")
            await two.send("still here")
            assert await two.recv() == "still here"


async def test_an_end_that_the_route_ignores_ends_nothing(tmp_path: Path) -> None:
    clock = MovableClock(time())
    route = {"session": {"expiry": "ignore"}}
    async with (
        websocket_server() as url,
        sidecar(policy_of(url, route=route), tmp_path, clock=clock) as it,
        connect(it.url, additional_headers=bearer()) as client,
    ):
        clock.move(7200)
        await it.sidecar.tick()
        await client.send("still here")
        assert await client.recv() == "still here"


async def test_a_token_that_expires_while_the_upstream_is_dialled_ends_at_once(
    tmp_path: Path,
) -> None:
    clock = MovableClock(time())
    async with (
        bare_server() as (port, accepted),
        sidecar(policy_of(f"ws://127.0.0.1:{port}"), tmp_path, clock=clock) as it,
        raw(it.port) as client,
    ):
        await client.send(head("/ws", "Authorization: Bearer " + token(ttl=60)))
        upstream = Raw(*await accepted.get())
        request = await upstream.response()
        clock.move(120)
        await upstream.send(switching(request))
        assert (await client.response()).startswith(b"HTTP/1.1 101 ")
        assert await client.rest() == close(4401, "token_expired", masked=False)


async def test_a_client_is_warned_before_and_its_upstream_is_not(tmp_path: Path) -> None:
    clock = MovableClock(time())
    route = {"session": {"warn": {"before": "60s", "message": WARNING}}}
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=route, jwt={"leeway": "0s"}), tmp_path, clock=clock) as it,
        connect(it.url, additional_headers=bearer(ttl=600)) as client,
    ):
        clock.move(560)
        warning = json.loads(await asyncio.wait_for(client.recv(), 10))
        assert warning["type"] == "token_expiring"
        assert 30 <= warning["in"] <= 40
        clock.move(100)
        await asyncio.wait_for(client.wait_closed(), 10)
        assert (client.close_code, client.close_reason) == (4401, "token_expired")
        assert up.forwarded[:1] == b"\x88"
        up.connections[0][1].transport.abort()


async def test_a_connection_that_begins_within_the_warning_time_is_warned(tmp_path: Path) -> None:
    route = {"session": {"warn": {"before": "2h", "message": WARNING}}}
    async with (
        websocket_server() as url,
        sidecar(policy_of(url, route=route), tmp_path) as it,
        connect(it.url, additional_headers=bearer()) as client,
    ):
        warning = json.loads(await asyncio.wait_for(client.recv(), 10))
        assert 3500 <= warning["in"] <= 3600


async def test_a_clock_that_is_set_moves_the_end_of_a_token_only(tmp_path: Path) -> None:
    clock = MovableClock(time())
    route = {"session": {"max_lifetime": "10m"}}
    async with (
        websocket_server() as url,
        sidecar(policy_of(url, route=route), tmp_path, clock=clock) as it,
        connect(it.url, additional_headers=bearer(ttl=7200)) as first,
        connect(it.url, additional_headers=bearer(ttl=7200)) as second,
    ):
        clock.step(-3600)
        clock.move(1)
        await it.sidecar.tick()
        await second.send("still here")
        assert await second.recv() == "still here"
        (link, other) = it.sidecar.connections
        other.session = type(other.session)()
        clock.move(600)
        await asyncio.wait_for(first.wait_closed(), 10)
        assert (first.close_code, first.close_reason) == (4408, "session_lifetime")
        assert (link.closing is None, other.closing) == (False, None)
        clock.step(3 * 3600)
        await asyncio.wait_for(second.wait_closed(), 10)
        assert (second.close_code, second.close_reason) == (4401, "token_expired")


async def test_a_connection_ends_after_its_longest_life(tmp_path: Path) -> None:
    clock = MovableClock(time())
    route = {"session": {"max_lifetime": "10m"}}
    async with (
        websocket_server() as url,
        sidecar(policy_of(url, route=route), tmp_path, clock=clock) as it,
        connect(it.url, additional_headers=bearer()) as client,
    ):
        clock.move(599)
        await it.sidecar.tick()
        await client.send("still here")
        assert await client.recv() == "still here"
        clock.move(2)
        await asyncio.wait_for(client.wait_closed(), 10)
        assert (client.close_code, client.close_reason) == (4408, "session_lifetime")


async def test_an_idle_client_ends_whatever_its_upstream_sends(tmp_path: Path) -> None:
    clock = MovableClock(time())
    async with pair(tmp_path, session={"idle_timeout": "1m"}, clock=clock) as p:
        for sent, message in ((b"one", TEXT), (b"two", TEXT), (b"alive", PONG)):
            await p.after(clock, 40)
            data = frame(message, sent)
            await p.client.send(data)
            assert await p.upstream.exactly(len(data)) == data
        news = frame(TEXT, b"news", masked=False)
        await p.upstream.send(news)
        assert await p.client.exactly(len(news)) == news
        await p.after(clock, 21)  # 61 since the last message
        assert await p.client.rest() == close(4408, "idle_timeout", masked=False)
        p.hang_up()
        assert await p.ending() == (4408, "sidecar", "idle_timeout")


async def test_five_hundred_that_expire_together_are_all_told(tmp_path: Path) -> None:
    clock = MovableClock(time())
    expires_at = int(time()) + 600
    credential = "Authorization: Bearer " + token(exp=expires_at)
    farewell = close(4401, "token_expired", masked=False)
    async with (
        recording() as up,
        sidecar(policy_of(up.url), tmp_path, clock=clock) as it,
        contextlib.AsyncExitStack() as stack,
    ):
        clients = []
        for _ in range(500):
            client = await stack.enter_async_context(raw(it.port))
            await client.send(head("/ws", credential))
            await client.response(30)
            clients.append(client)
        clock.move(700)
        told = await asyncio.gather(*(one.exactly(len(farewell), 60) for one in clients))
        assert set(told) == {farewell}
        assert struct.unpack("!H", farewell[2:4]) == (4401,)
