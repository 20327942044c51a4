"""Clients that pretend to another address."""

import json
import struct
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from tests.support.attacks import bearer, served
from tests.support.clients import head, raw
from tests.support.sidecars import policy_of, sidecar
from tests.support.upstreams import fields, recording

SERVER: dict[str, Any] = {"listen": ["127.0.0.1:0"]}
CLAIMS = [
    ["X-Forwarded-For: 6.6.6.6"],
    ["X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: https"],
    ["Forwarded: for=6.6.6.6;proto=https"],
    ["X-Real-IP: 6.6.6.6"],
    ["X-Client-IP: 6.6.6.6", "True-Client-IP: 6.6.6.6", "CF-Connecting-IP: 6.6.6.6"],
    ["X_Forwarded_For: 6.6.6.6", "X_Forwarded_Proto: https"],
]


@pytest.mark.parametrize("lines", CLAIMS)
async def test_nobody_is_believed_by_default(tmp_path: Path, lines: list[str]) -> None:
    async with recording() as upstream, sidecar(policy_of(upstream.url), tmp_path) as running:
        seen = await served(running, upstream, bearer(), *lines)
    assert fields(seen)["x-forwarded-for"] == "127.0.0.1"
    assert fields(seen)["x-forwarded-proto"] == "http"
    assert b"6.6.6.6" not in seen


@pytest.mark.parametrize("trusted", ["10.0.0.0/8", "127.0.0.2/32", "::1/128"])
async def test_a_peer_that_is_not_listed_is_not_believed(tmp_path: Path, trusted: str) -> None:
    server = {**SERVER, "trusted_proxies": [trusted]}
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, server=server), tmp_path) as running,
    ):
        seen = await served(running, upstream, bearer(), "X-Forwarded-For: 6.6.6.6")
    assert fields(seen)["x-forwarded-for"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["X-Forwarded-For: 6.6.6.6, 9.9.9.9"], "9.9.9.9"),
        (["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 9.9.9.9"], "9.9.9.9"),
        (["X-Forwarded-For: 6.6.6.6, 9.9.9.9, 127.0.0.9"], "9.9.9.9"),
        (["X-Forwarded-For: 127.0.0.1, 9.9.9.9"], "9.9.9.9"),
        (["X-Forwarded-For: 6.6.6.6, evil, 127.0.0.9"], "127.0.0.9"),
        (["X-Forwarded-For: 6.6.6.6, evil"], "127.0.0.1"),
        (["X-Forwarded-For: 6.6.6.6, ::ffff:9.9.9.9"], "9.9.9.9"),
        (['Forwarded: for="6.6.6.6, for=9.9.9.9'], "9.9.9.9"),
        (["Forwarded: for=6.6.6.6", "X-Forwarded-For: 9.9.9.9"], "9.9.9.9"),
        (["X-Forwarded-For: " + "6.6.6.6, " * 500 + "9.9.9.9"], "9.9.9.9"),
    ],
)
async def test_hops_are_counted_from_the_right(
    tmp_path: Path, lines: list[str], address: str
) -> None:
    server = {**SERVER, "trusted_proxies": ["127.0.0.0/8"]}
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, server=server), tmp_path) as running,
    ):
        seen = await served(running, upstream, bearer(), *lines)
    assert fields(seen)["x-forwarded-for"] == address


async def test_a_stranger_cannot_claim_that_its_leg_was_tls(tmp_path: Path) -> None:
    server = {**SERVER, "require_tls": True, "trusted_proxies": ["10.0.0.0/8"]}
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, server=server), tmp_path) as running,
    ):
        for lines in CLAIMS:
            async with raw(running.port) as client:
                await client.send(head("/ws", bearer(), *lines))
                assert (await client.refusal())["reason"] == "tls_required"
        assert upstream.heads == []


def version_2(address: str, command: int = 0x21) -> bytes:
    body = IPv4Address(address).packed + IPv4Address("127.0.0.1").packed + struct.pack("!HH", 1, 2)
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([command, 0x11]) + struct.pack("!H", len(body)) + body


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"PROXY TCP4 6.6.6.6 127.0.0.1 1 2\n",
        b"PROXY TCP4 6.6.6.6\r\n",
        b"PROXY TCP6 6.6.6.6 ::1 1 2\r\n",
        b"PROXY TCP4 evil 127.0.0.1 1 2\r\n",
        b"PROXY " + b"a" * 200,
        b"PROXY \r\n\r\n\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0c" + bytes(12),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x04" + bytes(4),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff" + bytes(100),
        b"\r\n\r\n\0\r\nQUIT\n\x22\x11\x00\x0c" + bytes(12),
    ],
)
async def test_a_bad_proxy_header_ends_the_connection(tmp_path: Path, start: bytes) -> None:
    server = {**SERVER, "proxy_protocol": True, "trusted_proxies": ["127.0.0.0/8"]}
    server["handshake_timeout"] = "1s"
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, server=server), tmp_path) as running,
    ):
        async with raw(running.port) as client:
            await client.send(start + head("/ws", bearer()))
            assert await client.rest() == b""
        assert upstream.heads == []
        for good in (b"PROXY TCP4 9.9.9.9 127.0.0.1 1 2\r\n", version_2("9.9.9.9")):
            async with raw(running.port) as client:
                await client.send(good + head("/ws", bearer()))
                assert (await client.response()).startswith(b"HTTP/1.1 101 ")
            assert fields(upstream.heads[-1])["x-forwarded-for"] == "9.9.9.9"


async def test_a_proxy_header_from_a_stranger_ends_the_connection(tmp_path: Path) -> None:
    server = {**SERVER, "proxy_protocol": True, "trusted_proxies": ["10.0.0.0/8"]}
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, server=server), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(version_2("10.0.0.1") + head("/ws", bearer()))
        assert await client.rest() == b""
        assert upstream.heads == []


async def test_a_proxy_header_is_an_error_where_none_is_expected(tmp_path: Path) -> None:
    async with recording() as upstream, sidecar(policy_of(upstream.url), tmp_path) as running:
        for start in (b"PROXY TCP4 6.6.6.6 127.0.0.1 1 2\r\n", version_2("6.6.6.6")):
            async with raw(running.port) as client:
                await client.send(start + head("/ws", bearer()))
                answer = await client.rest()
                assert json.loads(answer.partition(b"\r\n\r\n")[2])["reason"] == "bad_handshake"
        assert upstream.heads == []
