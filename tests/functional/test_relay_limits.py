"""Limits of size and rate: nothing of the offending frame goes on, both sides are told why."""

import asyncio
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Raw
from tests.support.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, mask
from tests.support.pairs import Pair, pair

pytestmark = pytest.mark.usefixtures("implementation")

KIB = b"k" * 1024
ONE = frame(TEXT, b"1")

FROM_CLIENT = [
    pytest.param(
        {"message_size": "1KiB"},
        [frame(TEXT, KIB)],
        frame(TEXT, KIB + b"!"),
        1009,
        "message_too_big",
        id="message-in-one-frame",
    ),
    pytest.param(
        {"message_size": {"client": "1KiB"}},
        [frame(TEXT, KIB[:1000], fin=False), frame(CONTINUATION, KIB[:24], fin=False)],
        frame(CONTINUATION, b"!"),
        1009,
        "message_too_big",
        id="message-in-fragments",
    ),
    pytest.param(
        {"frame_size": "1KiB"},
        [frame(TEXT, KIB, fin=False), frame(CONTINUATION, KIB)],
        frame(BINARY, KIB + b"!"),
        1009,
        "message_too_big",
        id="frame",
    ),
    pytest.param(
        {"messages": {"rate": "2/hour", "burst": 2}},
        [ONE, frame(PING), ONE],
        ONE,
        4429,
        "message_rate",
        id="messages",
    ),
    pytest.param(
        {"messages": {"rate": "2/hour", "burst": 2}},
        [frame(TEXT, b"a", fin=False), frame(CONTINUATION, b"b", fin=False)],
        frame(CONTINUATION, b"c", fin=False),
        4429,
        "message_rate",
        id="tiny-fragments",
    ),
    pytest.param(
        {"bytes": {"rate": "1KiB/hour", "burst": "2KiB", "on_exceed": "close"}},
        [frame(BINARY, KIB), frame(BINARY, KIB)],
        frame(BINARY, KIB),
        4429,
        "message_rate",
        id="bytes",
    ),
    pytest.param(
        {"control_frames": {"rate": "2/hour", "burst": 2}},
        [ONE, frame(PING, b"p"), ONE, frame(PONG)],
        frame(PING, b"p"),
        4429,
        "message_rate",
        id="control-frames",
    ),
]


async def close_to_client(client: Raw) -> tuple[int, str]:
    """Code and reason of the close frame that comes next to a client."""
    first, size = await client.exactly(2)
    assert first == 0x80 | CLOSE
    payload = await client.exactly(size)
    return struct.unpack("!H", payload[:2])[0], payload[2:].decode()


async def close_to_upstream(upstream: Raw) -> tuple[int, str]:
    """The same to an upstream, where it is masked."""
    first, size = await upstream.exactly(2)
    assert first == 0x80 | CLOSE
    assert size & 0x80
    key = await upstream.exactly(4)
    payload = mask(await upstream.exactly(size & 0x7F), key)
    return struct.unpack("!H", payload[:2])[0], payload[2:].decode()


async def both_are_told(p: Pair, code: int, reason: str) -> None:
    assert await close_to_upstream(p.upstream) == (code, reason)
    assert await close_to_client(p.client) == (code, reason)
    assert await p.client.reader.read(1) == b""
    p.hang_up()
    assert await p.upstream.rest() == b""
    assert await p.ending() == (code, "sidecar", reason)


@pytest.mark.parametrize(("limits", "good", "bad", "code", "reason"), FROM_CLIENT)
async def test_a_client_over_a_limit_is_closed_before_the_frame_goes_on(
    tmp_path: Path,
    limits: Mapping[str, Any],
    good: list[bytes],
    bad: bytes,
    code: int,
    reason: str,
) -> None:
    async with pair(tmp_path, limits=limits) as p:
        allowed = b"".join(good)
        await p.client.send(allowed + bad)
        assert await p.upstream.exactly(len(allowed)) == allowed
        await both_are_told(p, code, reason)


@pytest.mark.parametrize(
    ("limits", "good", "bad"),
    [
        ({"message_size": {"client": "1B", "upstream": "1KiB"}}, [], KIB + b"!"),
        ({"message_size": "1KiB"}, [KIB, KIB], KIB + b"!"),
        ({"frame_size": "512B"}, [KIB[:512]], KIB[:513]),
    ],
)
async def test_an_upstream_over_a_size_is_closed_before_the_frame_goes_on(
    tmp_path: Path, limits: Mapping[str, Any], good: list[bytes], bad: bytes
) -> None:
    async with pair(tmp_path, limits=limits) as p:
        allowed = b"".join(frame(BINARY, payload, masked=False) for payload in good)
        await p.upstream.send(allowed + frame(BINARY, bad, masked=False))
        assert await p.client.exactly(len(allowed)) == allowed
        await both_are_told(p, 1009, "message_too_big")


async def test_a_fragmented_message_of_the_upstream_counts_its_whole_size(tmp_path: Path) -> None:
    async with pair(tmp_path, limits={"message_size": "1KiB"}) as p:
        allowed = frame(TEXT, KIB, fin=False, masked=False) + frame(PING, masked=False)
        await p.upstream.send(allowed + frame(CONTINUATION, b"!", masked=False))
        assert await p.client.exactly(len(allowed)) == allowed
        await both_are_told(p, 1009, "message_too_big")


async def test_rates_do_not_concern_the_upstream(tmp_path: Path) -> None:
    limits = {"messages": "1/hour", "control_frames": "1/hour"}
    script = (frame(PING, masked=False) + frame(TEXT, b"x", masked=False)) * 5
    async with pair(tmp_path, limits=limits) as p:
        await p.upstream.send(script)
        assert await p.client.exactly(len(script)) == script


async def test_with_drop_a_message_over_the_rate_is_left_out(tmp_path: Path) -> None:
    limits = {"messages": {"rate": "2/hour", "burst": 2, "on_exceed": "drop"}}
    async with pair(tmp_path, limits=limits) as p:
        lost = frame(TEXT, b"lost", fin=False)
        await p.client.send(ONE + ONE + lost + frame(PING, b"p") + frame(CONTINUATION, KIB) + ONE)
        await p.client.send(frame(PING, b"end"))
        expected = ONE + ONE + frame(PING, b"p") + frame(PING, b"end")
        assert await p.upstream.exactly(len(expected)) == expected
        assert p.link.client.meter.dropped == 2


@pytest.mark.parametrize(
    ("limits", "message", "seconds"),
    [
        ({"messages": {"rate": "20/second", "burst": 1, "on_exceed": "delay"}}, b"x", 0.05),
        (
            {"bytes": {"rate": "640KiB/second", "burst": "32KiB", "on_exceed": "delay"}},
            KIB * 32,
            0.05,
        ),
    ],
)
async def test_with_delay_every_message_arrives_no_faster_than_the_rate(
    tmp_path: Path, limits: Mapping[str, Any], message: bytes, seconds: float
) -> None:
    script = b"".join(frame(TEXT, message) for _ in range(5))
    async with pair(tmp_path, limits=limits) as p:
        started = asyncio.get_running_loop().time()
        sending = asyncio.create_task(p.client.send(script))
        assert await p.upstream.exactly(len(script)) == script
        assert asyncio.get_running_loop().time() - started > 4 * seconds - 0.02
        await sending


async def test_a_client_that_waits_for_its_rate_can_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.proxy.relay.CLOSE_TIMEOUT", 0.2)
    limits = {"messages": {"rate": "1/hour", "burst": 1, "on_exceed": "delay"}}
    async with pair(tmp_path, limits=limits) as p:
        await p.client.send(ONE + ONE)
        assert await p.upstream.exactly(len(ONE)) == ONE
        async with asyncio.timeout(5):
            while p.link.client.transport.is_reading():
                await asyncio.sleep(0.005)
        await p.upstream.send(frame(CLOSE, struct.pack("!H", 1000), masked=False))
        assert await close_to_client(p.client) == (1000, "")
        p.hang_up()
        assert await p.ending() == (1000, "upstream", None)
