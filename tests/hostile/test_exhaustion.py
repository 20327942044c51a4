"""Requests of strangers that cost much more than they should."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.attacks import bearer, served
from tests.support.clients import head, raw
from tests.support.sidecars import policy_of, sidecar
from tests.support.upstreams import recording

LINE = 8_000

ATTACKS: dict[str, list[str]] = {
    "subprotocols": [
        "Sec-WebSocket-Protocol: " + ",".join(f"{index:x}" for index in range(start, start + 1500))
        for start in range(0, 1500 * 55, 1500)
    ],
    "tokens of Connection": [f"Connection: {',a' * (LINE // 2)}"] * 55,
    "empty tokens of Upgrade": [f"Upgrade: {',' * LINE}"] * 55,
    "cookies": [f"Cookie: {';a=b' * (LINE // 4)}"] * 55,
    "hops": [f"X-Forwarded-For: {'127.0.0.1,' * (LINE // 10)}"] * 55,
    "elements of Forwarded": [f"Forwarded: {'for=127.0.0.1,' * (LINE // 14)}"] * 55,
    "one quoted element": ['Forwarded: for="' + "\\\\" * (LINE // 4) + '"'] * 55,
    "fields that nobody reads": [bearer(), *(f"X-{index}: {'a' * LINE}" for index in range(55))],
}
ROUTE: dict[str, Any] = {
    "origins": {"missing": "allow"},
    "authenticate": {
        "sources": ["header", {"cookie": "session"}, {"query": "token"}, {"subprotocol": "bearer"}]
    },
}
SERVER: dict[str, Any] = {"listen": ["127.0.0.1:0"], "trusted_proxies": ["127.0.0.0/8"]}


@pytest.mark.parametrize("name", ATTACKS)
async def test_a_head_of_many_long_fields_is_refused_before_its_lists_are_read(
    tmp_path: Path, name: str
) -> None:
    request = head("/ws", *ATTACKS[name])
    assert len(request) > 2**17
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=ROUTE, server=SERVER), tmp_path) as running,
    ):
        async with raw(running.port) as client:
            await client.send(request)
            assert b" 400 " in await client.response()
        assert upstream.heads == []
        await served(running, upstream)


async def test_a_hundred_and_twenty_eight_fields_are_refused(tmp_path: Path) -> None:
    lines = [f"X-{index}: a" for index in range(128)]
    async with recording() as upstream, sidecar(policy_of(upstream.url), tmp_path) as running:
        async with raw(running.port) as client:
            await client.send(head("/ws", bearer(), *lines))
            assert b" 400 " in await client.response()
        assert upstream.heads == []


async def test_eight_megabytes_of_token_reach_nobody(tmp_path: Path) -> None:
    async with recording() as upstream, sidecar(policy_of(upstream.url), tmp_path) as running:
        async with raw(running.port) as client:
            client.writer.write(head("/ws", bearer("a" * 8 * 2**20)))
            await client.rest()
        assert upstream.heads == []
        await running.until_idle()
        await served(running, upstream)
