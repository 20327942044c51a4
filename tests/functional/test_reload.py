"""Another policy for connections that are live: they go on by its rules, or end by them."""

import asyncio
import socket
from pathlib import Path
from time import time
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sidecar.config.source import load_policy
from sidecar.proxy.relay import Link
from tests.support.clients import head, raw
from tests.support.pairs import connected
from tests.support.reloads import reload, until
from tests.support.sidecars import ENVIRON, PROVIDER, Running, policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import Recording, recording, switching, websocket_server


def joined(it: Running, path: str = "/", **claims: Any) -> connect:
    return connect(it.url + path, additional_headers={"Authorization": "Bearer " + token(**claims)})


async def echoes(client: ClientConnection, message: str = "still here") -> bool:
    await client.send(message)
    return await asyncio.wait_for(client.recv(), 5) == message


async def end_of(client: ClientConnection) -> tuple[int | None, str | None]:
    await asyncio.wait_for(client.wait_closed(), 5)
    return client.close_code, client.close_reason


def routes_of(*names: str) -> list[dict[str, Any]]:
    """A route for each name, at its path."""
    return [
        {"name": name, "match": {"path": f"/{name}"}, "origins": {"missing": "allow"}}
        for name in names
    ]


async def test_a_connection_whose_route_is_gone_ends_and_the_others_do_not(tmp_path: Path) -> None:
    async with websocket_server() as url:
        before, after = (policy_of(url, routes=routes_of(*names)) for names in ("ab", "b"))
        async with (
            sidecar(before, tmp_path) as it,
            joined(it, "/a") as one,
            joined(it, "/b") as two,
        ):
            await reload(it, tmp_path, after)
            assert await end_of(one) == (4404, "no_route")
            assert await echoes(two)
            with pytest.raises(InvalidStatus) as refused:
                await joined(it, "/a")
            assert refused.value.response.status_code == 404


async def test_a_new_rule_ends_those_for_whom_it_does_not_hold(tmp_path: Path) -> None:
    rule = {"claim": "role", "equals": "admin", "reason": "not_an_admin"}
    async with websocket_server() as url:
        refuse = {"codes": {"not_an_admin": 4999}}
        async with (
            sidecar(policy_of(url), tmp_path) as it,
            joined(it, sub="alice", role="admin") as alice,
            joined(it, sub="bob") as bob,
        ):
            after = policy_of(url, route={"authorize": [rule], "refuse": refuse})
            await reload(it, tmp_path, after)
            assert await end_of(bob) == (4999, "not_an_admin")
            assert await echoes(alice)


async def test_a_provider_that_is_gone_takes_its_connections_along(tmp_path: Path) -> None:
    async with websocket_server() as url:
        before = policy_of(url, jwt={"providers": {"app": PROVIDER}})
        async with sidecar(before, tmp_path) as it, joined(it) as client:
            await reload(it, tmp_path, policy_of(url, jwt={"providers": {"other": PROVIDER}}))
            assert await end_of(client) == (4401, "token_invalid")
            async with joined(it) as again:
                assert await echoes(again)


async def test_lower_limits_hold_for_the_next_message(tmp_path: Path) -> None:
    async with (
        websocket_server() as url,
        sidecar(policy_of(url), tmp_path) as it,
        joined(it) as client,
    ):
        assert await echoes(client, "x" * 1000)
        limits = {"message_size": {"client": "10B"}}
        await reload(it, tmp_path, policy_of(url, route={"limits": limits}))
        assert await echoes(client, "x" * 10)
        await client.send("x" * 11)
        assert await end_of(client) == (1009, "message_too_big")


async def test_higher_limits_hold_for_the_next_message(tmp_path: Path) -> None:
    async with websocket_server() as url:
        before = policy_of(url, route={"limits": {"message_size": {"client": "10B"}}})
        async with sidecar(before, tmp_path) as it, joined(it) as client:
            await reload(it, tmp_path, policy_of(url))
            assert await echoes(client, "x" * 1000)


async def test_a_client_that_waits_for_its_rate_goes_on_when_that_is_lifted(
    tmp_path: Path,
) -> None:
    async with websocket_server() as url:
        slow = {"messages": {"rate": "1/hour", "burst": 1, "on_exceed": "delay"}}
        before = policy_of(url, route={"limits": slow})
        async with sidecar(before, tmp_path) as it, joined(it) as client:
            assert await echoes(client, "first")
            await client.send("second")
            (link,) = it.sidecar.connections
            await until(lambda: link.client in link.held)
            await reload(it, tmp_path, policy_of(url))
            assert await asyncio.wait_for(client.recv(), 5) == "second"
            assert await echoes(client)


async def test_a_rate_that_stays_is_as_used_up_as_before(tmp_path: Path) -> None:
    def policy(url: str, frame: str) -> str:
        rate = {"messages": {"rate": "3/hour", "burst": 3}, "frame_size": frame}
        return policy_of(url, route={"limits": rate})

    async with (
        websocket_server() as url,
        sidecar(policy(url, "1KiB"), tmp_path) as it,
        joined(it) as client,
    ):
        for size in (2, 3):
            assert await echoes(client)
            await reload(it, tmp_path, policy(url, f"{size}KiB"))
        assert await echoes(client)
        await client.send("one too many")
        assert await end_of(client) == (4429, "message_rate")


async def test_the_rules_for_a_session_hold_at_once(tmp_path: Path) -> None:
    async with (
        websocket_server() as url,
        sidecar(policy_of(url), tmp_path) as it,
        joined(it) as client,
    ):
        after = policy_of(url, route={"session": {"max_lifetime": "1s"}})
        await reload(it, tmp_path, after)
        assert await end_of(client) == (4408, "session_lifetime")


async def test_what_was_revoked_ends_when_the_route_heeds_revocations(tmp_path: Path) -> None:
    async with websocket_server() as url:
        before = policy_of(url, route={"session": {"revocable": False}})
        async with (
            sidecar(before, tmp_path) as it,
            joined(it, sub="alice") as alice,
            joined(it, sub="bob") as bob,
        ):
            await revoke(it, "alice")
            assert await echoes(alice)
            await reload(it, tmp_path, policy_of(url))
            assert await end_of(alice) == (4401, "token_revoked")
            assert await echoes(bob)


async def revoke(it: Running, user: str) -> None:
    async with (
        aiohttp.ClientSession(it.admin_url) as admin,
        admin.post("/api/revocations", json={"user": user}) as answer,
    ):
        assert answer.status == 201


async def test_a_handshake_under_way_is_judged_once_it_is_a_connection(tmp_path: Path) -> None:
    answers: list[bytes] = []

    def wait(request: bytes) -> None:
        answers.append(switching(request))

    async with recording(wait) as up:
        before, after = (policy_of(up.url, routes=routes_of(*names)) for names in ("ab", "b"))
        async with sidecar(before, tmp_path) as it, raw(it.port) as gone, raw(it.port) as stays:
            for client, path in ((gone, "/a"), (stays, "/b")):
                count = len(up.heads)
                await client.send(head(path, "Authorization: Bearer " + token()))
                await up.until(lambda seen, count=count: len(seen.heads) > count)  # type: ignore[misc]
            await reload(it, tmp_path, after)
            for number, answer in enumerate(answers):
                await up.send(answer, number)
            for client in (gone, stays):
                assert (await client.response()).startswith(b"HTTP/1.1 101 ")
            assert await gone.exactly(12) == b"\x88\x0a\x11\x34no_route"
            await up.send(b"\x81\x02hi", 1)
            assert await stays.exactly(4) == b"\x81\x02hi"


async def test_many_connections_are_judged_while_others_talk(tmp_path: Path) -> None:
    async with recording() as up:
        before, after = (policy_of(up.url, routes=routes_of(*names)) for names in ("ab", "b"))
        async with sidecar(before, tmp_path) as it:
            stays = await _raw_clients(it, up, "/b", 250)
            goes = await _raw_clients(it, up, "/a", 250)
            await reload(it, tmp_path, after)
            for client in goes:
                assert await client.exactly(12) == b"\x88\x0a\x11\x34no_route"
            assert sum(link.closing is None for link in it.sidecar.connections) == len(stays)
            for client in (*goes, *stays):
                client.writer.transport.abort()
            await asyncio.sleep(0)


async def _raw_clients(it: Running, up: Recording, path: str, count: int) -> list[Any]:
    clients = []
    for _ in range(count):
        client = await connected(it.port)
        await client.send(head(path, "Authorization: Bearer " + token()))
        assert (await client.response()).startswith(b"HTTP/1.1 101 ")
        clients.append(client)
    return clients


async def test_a_bad_policy_changes_nothing(tmp_path: Path) -> None:
    async with (
        websocket_server() as url,
        sidecar(policy_of(url), tmp_path) as it,
        joined(it) as client,
    ):
        port = it.port
        for bad in (
            {"server": {"listen": ["127.0.0.1:0", f"127.0.0.1:{port}"]}},
            {"logging": {"audit": {"file": str(tmp_path / "no" / "such" / "folder")}}},
        ):
            with pytest.raises(Exception, match="cannot"):
                await reload(it, tmp_path, policy_of(url, **bad))
            assert len(it.sidecar.public) == 1
            assert await echoes(client)
            async with joined(it) as other:
                assert await echoes(other)


async def test_a_policy_that_is_discarded_leaves_nothing(tmp_path: Path) -> None:
    async with (
        websocket_server() as url,
        sidecar(policy_of(url), tmp_path) as it,
        joined(it) as client,
    ):
        path = tmp_path / "next.yaml"
        unix = tmp_path / "new.sock"
        path.write_text(
            policy_of(
                url,
                server={"listen": ["127.0.0.1:0", f"unix:{unix}"]},
                admin={"listen": f"unix:{tmp_path}/admin.sock"},
                logging={"audit": {"file": str(tmp_path / "audit.jsonl")}},
            )
        )
        prepared = await it.sidecar.prepare(load_policy([path], ENVIRON).policy)
        assert unix.exists()
        await prepared.discard()
        assert not unix.exists()
        assert await echoes(client)
        assert it.admin_url.startswith("http://127.0.0.1:")


async def test_a_closed_client_is_not_in_the_way(tmp_path: Path) -> None:
    async with websocket_server() as url, sidecar(policy_of(url), tmp_path) as it:
        async with joined(it) as client:
            await client.close()
            await reload(it, tmp_path, policy_of(url))
        with pytest.raises(ConnectionClosed):
            await client.send("gone")


async def test_a_heartbeat_that_comes_and_goes_reaches_the_upstreams_socket(
    tmp_path: Path,
) -> None:
    def idle(link: Link) -> int:
        sock = link.upstream.transport.get_extra_info("socket")
        return int(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))

    async with (
        websocket_server() as url,
        sidecar(policy_of(url), tmp_path) as it,
        joined(it) as client,
    ):
        (link,) = it.sidecar.connections
        usual = idle(link)
        beats = {"heartbeat": {"interval": "17s"}}
        await reload(it, tmp_path, policy_of(url, route={"session": beats}))
        assert idle(link) == 17
        await reload(it, tmp_path, policy_of(url))
        assert idle(link) == usual
        assert await echoes(client)


async def test_the_age_of_a_token_is_counted_by_the_new_policy(tmp_path: Path) -> None:
    old = {"app": {**PROVIDER, "max_age": "2h"}}
    new = {"app": {**PROVIDER, "max_age": "1h"}}
    async with websocket_server() as url:
        before = policy_of(url, jwt={"providers": old})
        async with sidecar(before, tmp_path) as it, joined(it, iat=int(time()) - 60, ttl=90_000):
            (link,) = it.sidecar.connections
            assert link.identity is not None
            issued_at = link.identity.claims["iat"]
            assert link.expires_at == issued_at + 7200
            await reload(it, tmp_path, policy_of(url, jwt={"providers": new}))
            assert link.expires_at == issued_at + 3600
