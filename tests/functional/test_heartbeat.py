"""The heartbeat finds clients that are gone, and leaves alone those that only seem so."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from time import time

from tests.support.audits import audit_to, events
from tests.support.clocks import MovableClock
from tests.support.frames import BINARY, PING, PONG, TEXT, close, frame, mask
from tests.support.pairs import Pair, pair
from tests.support.sidecars import policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import websocket_server

SESSION = {"heartbeat": {"interval": "30s", "timeout": "10s"}}
DEAD = close(4408, "heartbeat_timeout", masked=False)
PING_SIZE = 10
NEWS = frame(BINARY, b"n" * 65536, masked=False)

CLIENT = """
import asyncio, sys
from websockets.asyncio.client import connect

async def main():
    headers = {"Authorization": "Bearer " + sys.argv[2]}
    async with connect(sys.argv[1], additional_headers=headers) as client:
        await client.send("here")
        print(await client.recv(), flush=True)
        await client.wait_closed()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def beating(folder: Path) -> AsyncIterator[tuple[Pair, MovableClock]]:
    clock = MovableClock(time())
    async with pair(folder, session=SESSION, clock=clock, buffers=65536) as p:
        yield p, clock


async def pinged(p: Pair, clock: MovableClock) -> bytes:
    """The payload of the ping that comes after the interval."""
    await p.after(clock, 31)
    header, payload = (await p.client.exactly(2)), await p.client.exactly(8)
    assert header == b"\x89\x08"
    return payload


async def test_a_client_that_does_not_answer_is_gone(tmp_path: Path) -> None:
    async with beating(tmp_path) as (p, clock):
        await pinged(p, clock)
        await p.after(clock, 9)
        assert p.link.closing is None
        await p.after(clock, 2)
        # Its socket ends without its doing anything.
        assert await p.client.rest() == DEAD
        farewell = await p.upstream.exactly(6 + len(DEAD) - 2)
        assert farewell[:2] == bytes((0x88, 0x80 | len(DEAD) - 2))
        assert mask(farewell[6:], farewell[2:6]) == DEAD[2:]
        p.upstream.writer.close()
        assert await p.ending() == (4408, "sidecar", "heartbeat_timeout")


async def test_a_client_that_answers_lives_and_is_asked_again(tmp_path: Path) -> None:
    async with beating(tmp_path) as (p, clock):
        for _ in range(3):
            payload = await pinged(p, clock)
            read_at = p.link.client.read_at
            await p.client.send(frame(PONG, payload))
            async with asyncio.timeout(5):
                while p.link.client.read_at == read_at:
                    await asyncio.sleep(0.01)
            await p.after(clock, 11)
            assert p.link.closing is None


async def test_the_answer_to_a_ping_does_not_reach_the_upstream(tmp_path: Path) -> None:
    async with beating(tmp_path) as (p, clock):
        payload = await pinged(p, clock)
        await p.client.send(frame(PONG, payload) + frame(PONG, b"its own") + frame(TEXT, b"hello"))
        expected = frame(PONG, b"its own") + frame(TEXT, b"hello")
        assert await p.upstream.exactly(len(expected)) == expected


async def test_a_busy_upstream_does_not_keep_a_gone_client_alive(tmp_path: Path) -> None:
    """A client that takes nothing: its buffers fill, and no ping gets through."""
    async with beating(tmp_path) as (p, clock):
        p.client.stop_reading()
        writing = asyncio.create_task(flood(p))
        await until_stuck(p)
        await p.after(clock, 31)
        assert p.link.ping is not None
        await p.after(clock, 11)
        closing = p.link.closing
        assert closing is not None
        assert closing.reason == "heartbeat_timeout"
        writing.cancel()
        p.upstream.writer.transport.abort()
        assert (await p.closure())["reason"] == "heartbeat_timeout"


async def test_a_slow_client_that_takes_bytes_is_alive(tmp_path: Path) -> None:
    async with beating(tmp_path) as (p, clock):
        p.client.stop_reading()
        writing = asyncio.create_task(flood(p))
        await until_stuck(p)
        await p.after(clock, 31)
        assert p.link.ping is not None
        for _ in range(3):
            taken = p.link.upstream.meter.payload_bytes
            p.client.read_again()
            async with asyncio.timeout(20):
                while p.link.upstream.meter.payload_bytes < taken + 2**20:
                    await p.client.reader.read(65536)
            p.client.stop_reading()
            await until_stuck(p)
            await p.after(clock, 11)
            assert p.link.closing is None
        writing.cancel()


async def test_a_ping_behind_an_unfinished_frame_is_not_held_against_the_client(
    tmp_path: Path,
) -> None:
    async with beating(tmp_path) as (p, clock):
        await p.upstream.send(NEWS[:5000])
        assert await p.client.exactly(5000) == NEWS[:5000]
        await p.after(clock, 31)
        await p.after(clock, 11)
        await p.after(clock, 11)
        assert p.link.closing is None
        await p.upstream.send(NEWS[5000:])
        rest = await p.client.exactly(len(NEWS) - 5000 + PING_SIZE)
        assert rest == NEWS[5000:] + frame(PING, p.link.ping_id, masked=False)


async def test_a_client_that_is_not_read_is_not_asked(tmp_path: Path) -> None:
    async with beating(tmp_path) as (p, clock):
        p.upstream.stop_reading()
        writing = asyncio.create_task(flood_upstream(p))
        async with asyncio.timeout(20):
            while not p.link.client.stalled:
                await asyncio.sleep(0.01)
        for _ in range(3):
            await p.after(clock, 50)
        assert (p.link.closing, p.link.ping) == (None, None)
        writing.cancel()
        p.upstream.writer.transport.abort()
        p.client.writer.transport.abort()


async def test_a_client_whose_process_is_stopped_is_gone(tmp_path: Path) -> None:
    clock, audit = MovableClock(time()), tmp_path / "audit.jsonl"
    route = {"session": SESSION}
    async with (
        websocket_server() as url,
        sidecar(policy_of(url, route=route, logging=audit_to(audit)), tmp_path, clock=clock) as it,
    ):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CLIENT, it.url, token()), stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        try:
            assert await asyncio.wait_for(child.stdout.readline(), 30) == b"here\n"
            (link,) = it.sidecar.connections
            clock.move(31)
            await it.sidecar.tick()
            async with asyncio.timeout(10):
                while link.client.read_at < clock.monotonic():
                    await asyncio.sleep(0.01)
            os.kill(child.pid, signal.SIGSTOP)
            clock.move(31)
            await it.sidecar.tick()
            assert link.ping is not None
            clock.move(11)
            await it.sidecar.tick()
            await it.until_idle()
            (closure,) = events(audit, "connection_closed")
            assert closure["reason"] == "heartbeat_timeout"
        finally:
            child.kill()
            await child.wait()


async def flood(p: Pair) -> None:
    while True:
        await p.upstream.send(NEWS)


async def flood_upstream(p: Pair) -> None:
    while True:
        await p.client.send(frame(BINARY, b"c" * 65536))


async def until_stuck(p: Pair) -> None:
    """Wait until the client's buffers are full and nothing moves any more."""
    before = -1
    async with asyncio.timeout(20):
        while p.link.upstream.meter.payload_bytes != before or p.link.upstream not in p.link.held:
            before = p.link.upstream.meter.payload_bytes
            await asyncio.sleep(0.1)
