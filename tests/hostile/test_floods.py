"""Pings, fragments and tiny frames without end, and messages that are too big."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support import frames
from tests.support.attacks import bearer, served
from tests.support.clients import Raw, head, raw
from tests.support.frames import CONTINUATION, PING, PONG, TEXT, close, frame
from tests.support.sidecars import policy_of, sidecar
from tests.support.upstreams import Recording, recording


async def flood(tmp_path: Path, limits: dict[str, Any], attack: bytes) -> tuple[bytes, bytes]:
    """What the client and what the upstream saw of an attack; the next client is served."""
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route={"limits": limits}), tmp_path) as running,
    ):
        async with raw(running.port) as client:
            await client.send(head("/ws", bearer()))
            await client.response()
            seen = await _send_all(client, attack)
        upstream.connections[0][1].close()
        await running.until_idle()
        got = upstream.forwarded
        await served(running, upstream)
    return seen, got


async def _send_all(client: Raw, attack: bytes) -> bytes:
    client.writer.write(attack)
    return await client.rest()


async def _send_for_ever(client: Raw) -> None:
    while True:
        await client.send(frame(TEXT, bytes(1000)))
        await asyncio.sleep(0)


@pytest.mark.parametrize("opcode", [PING, PONG])
@pytest.mark.parametrize("payload", [b"", bytes(125)])
async def test_a_flood_of_control_frames_ends(tmp_path: Path, opcode: int, payload: bytes) -> None:
    one = frame(opcode, payload)
    seen, got = await flood(tmp_path, {}, one * 20_000)
    assert seen == close(4429, "message_rate", masked=False)
    assert got.startswith(one * 10)
    assert len(got) < len(one) * 15 + 20


async def test_control_frames_between_fragments_count_too(tmp_path: Path) -> None:
    attack = frame(TEXT, b"a", fin=False) + frame(PING) * 5_000
    seen, _ = await flood(tmp_path, {}, attack)
    assert seen == close(4429, "message_rate", masked=False)


@pytest.mark.parametrize("size", [0, 1, 1023])
async def test_a_flood_of_fragments_ends(tmp_path: Path, size: int) -> None:
    limits = {"messages": {"rate": "10/minute"}, "message_size": None}
    piece = frame(CONTINUATION, bytes(size), fin=False)
    attack = frame(TEXT, b"a", fin=False) + piece * 5_000
    seen, got = await flood(tmp_path, limits, attack)
    assert seen == close(4429, "message_rate", masked=False)
    assert len(got) < 12 * len(piece) + 50


@pytest.mark.parametrize("payload", [b"", b"x"])
async def test_a_flood_of_tiny_messages_ends(tmp_path: Path, payload: bytes) -> None:
    one = frame(TEXT, payload)
    seen, got = await flood(tmp_path, {"messages": "10/minute"}, one * 20_000)
    assert seen == close(4429, "message_rate", masked=False)
    assert got.startswith(one * 10)
    assert len(got) < 11 * len(one) + 20


async def test_dropped_messages_never_reach_the_upstream(tmp_path: Path) -> None:
    limits = {"messages": {"rate": "10/hour", "burst": 3, "on_exceed": "drop"}}
    one = frame(TEXT, b"x")
    seen, got = await flood(tmp_path, limits, one * 5_000 + close(1000))
    assert seen == b""  # the upstream hung up without an answer only after the test did
    assert got == one * 3 + close(1000)


BIG = 1000
LIMIT: dict[str, Any] = {"message_size": f"{BIG}B"}


@pytest.mark.parametrize(
    "attack",
    [
        frame(TEXT, bytes(BIG + 1)),
        frame(TEXT, bytes(BIG), fin=False) + frame(CONTINUATION, b"x"),
        frame(TEXT, b"", fin=False) + frame(CONTINUATION, bytes(BIG + 1)),
        frame(TEXT, bytes(600), fin=False) + frame(PING) + frame(CONTINUATION, bytes(600)),
        b"\x82\xff" + (2**62).to_bytes(8, "big") + frames.MASK,
        b"\x82\xff" + (2**63 - 1).to_bytes(8, "big") + frames.MASK,
        frame(TEXT, b"x", fin=False) + b"\x80\xff" + (2**63 - 1).to_bytes(8, "big"),
    ],
)
async def test_a_message_over_the_limit_ends_before_its_last_frame(
    tmp_path: Path, attack: bytes
) -> None:
    seen, got = await flood(tmp_path, LIMIT, attack)
    assert seen == close(1009, "message_too_big", masked=False)
    assert len(got) <= len(attack) + 25
    assert bytes(BIG) not in got


async def test_an_upstream_that_sends_too_much_is_ended_too(tmp_path: Path) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route={"limits": LIMIT}), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer()))
        await client.response()
        await upstream.send(frame(TEXT, bytes(BIG + 1), masked=False))
        assert await client.rest() == close(1009, "message_too_big", masked=False)


async def test_a_client_that_goes_on_after_its_end_is_cut_off(tmp_path: Path) -> None:
    def quiet(upstream: Recording) -> bool:
        return upstream.eof + upstream.lost == 1

    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer()))
        await client.response()
        await client.send(frame(TEXT, b"x", masked=False))
        # neither hangs up: the sidecar does, after its 5 seconds, whatever is still sent
        await upstream.until(quiet, timeout=15)
        await running.until_idle()
        with pytest.raises(ConnectionError):
            await _send_for_ever(client)
