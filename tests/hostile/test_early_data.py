"""Bytes that a client sends before it was let in."""

import asyncio
from pathlib import Path

import pytest

from tests.support import frames
from tests.support.attacks import bearer, refused
from tests.support.clients import head, raw
from tests.support.sidecars import policy_of, sidecar
from tests.support.upstreams import recording, switching

INTERNAL = b"GET /internal HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


async def test_early_bytes_of_a_handshake_that_the_upstream_refuses_are_lost(
    tmp_path: Path,
) -> None:
    async with (
        recording(lambda _: FORBIDDEN) as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer()) + INTERNAL + frames.frame(1, b"hi"))
        assert (await client.refusal())["reason"] == "upstream_refused"
        await upstream.until(lambda seen: seen.eof + seen.lost == 1)
        assert upstream.forwarded == b""
        assert len(upstream.heads) == 1


@pytest.mark.parametrize(
    "early", [INTERNAL, frames.frame(1, b"hi"), b"\0" * 100_000, head("/ws", bearer())]
)
async def test_early_bytes_of_a_handshake_without_a_token_are_lost(
    tmp_path: Path, early: bytes
) -> None:
    async with recording() as upstream, sidecar(policy_of(upstream.url), tmp_path) as running:
        await refused(running, upstream, head("/ws") + early, "token_missing")


async def test_early_frames_are_scanned_before_they_are_forwarded(tmp_path: Path) -> None:
    good, bad = frames.frame(1, b"good"), frames.frame(1, b"bad", masked=False)
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer()) + good + bad + INTERNAL)
        await client.response()
        assert b"\x03\xeaprotocol_error" in await client.rest()
        await upstream.until(lambda seen: len(seen.forwarded) > len(good))
        assert upstream.forwarded.startswith(good)
        assert upstream.forwarded[len(good)] == 0x80 | frames.CLOSE
        assert b"bad" not in upstream.forwarded
        assert b"GET" not in upstream.forwarded


# A proxy's parser and the sidecar's own check must agree on what is an upgrade, or the frames
# behind it are read as HTTP.
@pytest.mark.parametrize(
    "lines",
    [
        ["Upgrade: websocket"],
        ["Upgrade: WebSocket"],
        ["Upgrade: h2c, websocket"],
        ["Upgrade: websocket, h2c"],
        ["Upgrade: h2c", "Upgrade: websocket"],
        ["Upgrade: websocket", "Upgrade: h2c"],
        ["Upgrade: ,websocket"],
    ],
)
async def test_frames_behind_whatever_counts_as_an_upgrade_are_forwarded_or_it_is_refused(
    tmp_path: Path, lines: list[str]
) -> None:
    early = frames.frame(1, b"early")
    late = frames.frame(1, b"late")
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer(), *lines, without=["Upgrade"]) + early)
        answer = await client.response()
        if answer.startswith(b"HTTP/1.1 101 "):
            await client.send(late)
            await upstream.until(lambda seen: seen.forwarded.endswith(late))
            assert upstream.forwarded == early + late
        else:
            assert b" 400 " in answer
            assert upstream.heads == []


@pytest.mark.parametrize(
    "lines",
    [
        ["Connection: keep-alive, Upgrade"],
        ["Connection: keep-alive", "Connection: Upgrade"],
        ["Connection: upgrade, close"],
        ["Connection: close", "Connection: upgrade"],
        ["Connection: Upgrade, Upgrade"],
        ["Connection: ,,UPGRADE,,"],
        ["Connection: Upgrade\t"],
        ["Connection: xupgrade, upgrade"],
    ],
)
async def test_every_accepted_connection_field_hands_over_the_early_frames(
    tmp_path: Path, lines: list[str]
) -> None:
    early = frames.frame(1, b"early")
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer(), *lines, without=["Connection"]) + early)
        answer = await client.response()
        if answer.startswith(b"HTTP/1.1 101 "):
            await client.send(early)
            await upstream.until(lambda seen: len(seen.forwarded) >= 2 * len(early))
            assert upstream.forwarded == early * 2
        else:
            assert b" 400 " in answer
            assert upstream.heads == []


async def test_a_client_is_not_read_without_bound_while_the_upstream_thinks(
    tmp_path: Path,
) -> None:
    offered = 32 * 2**20
    async with (
        recording(lambda _: None) as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        client.writer.transport.set_write_buffer_limits(high=0)
        await client.send(head("/ws", bearer()))
        await upstream.until(lambda seen: len(seen.heads) == 1)
        client.writer.write(bytes(offered))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.writer.drain()
        # what the kernel's buffers of both ends took is gone, the rest was never read
        assert client.writer.transport.get_write_buffer_size() > offered / 2
        await upstream.send(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        await running.until_idle()
        assert upstream.forwarded == b""


async def test_a_subprotocol_of_the_early_answer_is_the_upstreams(tmp_path: Path) -> None:
    def answer(request: bytes) -> bytes:
        return switching(request, "Sec-WebSocket-Protocol: chat") + frames.frame(
            1, b"welcome", masked=False
        )

    async with (
        recording(answer) as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer(), "Sec-WebSocket-Protocol: chat, other"))
        assert b"Sec-WebSocket-Protocol: chat\r\n" in await client.response()
        assert await client.exactly(9) == frames.frame(1, b"welcome", masked=False)
