"""A revocation ends the live connections that it means, and lets no new ones in."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.support.sidecars import Running, policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import websocket_server


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Running, aiohttp.ClientSession]]:
    async with (
        websocket_server() as url,
        sidecar(policy_of(url), folder) as it,
        aiohttp.ClientSession(it.admin_url) as admin,
    ):
        yield it, admin


def joined(it: Running, **claims: Any) -> connect:
    return connect(it.url, additional_headers={"Authorization": "Bearer " + token(**claims)})


async def end_of(client: ClientConnection) -> tuple[int | None, str | None]:
    await asyncio.wait_for(client.wait_closed(), 5)
    return client.close_code, client.close_reason


async def test_a_revoked_user_is_cut_off_and_others_are_not(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as (it, admin),
        joined(it, sub="alice") as alice,
        joined(it, sub="bob") as bob,
    ):
        async with admin.post("/api/revocations", json={"user": "alice"}) as answer:
            assert answer.status == 201
            assert (await answer.json())["closed"] == 1
        assert await end_of(alice) == (4401, "token_revoked")
        with pytest.raises(InvalidStatus) as refused:
            async with joined(it, sub="alice"):
                raise AssertionError
        assert refused.value.response.status_code == 401
        await bob.send("still here")
        assert await bob.recv() == "still here"


async def test_a_withdrawn_revocation_lets_the_user_in_again(tmp_path: Path) -> None:
    async with running(tmp_path) as (it, admin):
        async with admin.post("/api/revocations", json={"jti": "t-1"}) as answer:
            identifier = (await answer.json())["id"]
        with pytest.raises(InvalidStatus):
            async with joined(it, jti="t-1"):
                raise AssertionError
        async with admin.delete(f"/api/revocations/{identifier}") as answer:
            assert answer.status == 204
        async with joined(it, jti="t-1") as client:
            await client.send("back")
            assert await client.recv() == "back"


async def test_a_kicked_connection_ends_and_may_come_back(tmp_path: Path) -> None:
    async with running(tmp_path) as (it, admin), joined(it) as client:
        async with admin.get("/api/connections", params={"user": "alice"}) as answer:
            (shown,) = (await answer.json())["connections"]
        assert (shown["route"], shown["address"]) == ("main", "127.0.0.1")
        async with admin.delete(f"/api/connections/{shown['id']}") as answer:
            assert answer.status == 204
        assert await end_of(client) == (4403, "kicked")
        async with joined(it) as again:
            await again.send("hello")
            assert await again.recv() == "hello"
        async with admin.delete("/api/connections/none") as answer:
            assert answer.status == 404
