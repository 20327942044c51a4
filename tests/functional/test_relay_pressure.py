"""A side that does not read stops the other one: what is kept in between stays small."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.proxy.pipe import Pipe
from tests.support.certificates import authority
from tests.support.clients import Raw
from tests.support.frames import BINARY, TEXT, frame
from tests.support.pairs import Pair, pair

KIB = 1024
OFFERED = 256 * KIB * KIB
MESSAGE = 256 * KIB
BOUND = 256 * KIB  # of user space, per stalled connection
TLS_OVERHEAD = 4 * KIB  # of the records that hold them
KERNEL = 16 * KIB * KIB  # more than all socket buffers of one direction hold


class Flood:
    """Offers messages to a socket, as fast as it takes them."""

    def __init__(self, end: Raw, *, masked: bool, total: int = OFFERED) -> None:
        self.end = end
        self.offered = 0
        self.digest = hashlib.sha256()
        self.total = total
        self.masked = masked
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        for number in range(self.total // MESSAGE):
            data = frame(BINARY, number.to_bytes(4, "big") * (MESSAGE // 4), masked=False)
            if self.masked:  # a key of zeros: the payload as it is
                data = data[:1] + bytes([data[1] | 0x80]) + data[2:10] + bytes(4) + data[10:]
            self.digest.update(data)
            await self.end.send(data)
            self.offered += len(data)


async def stalled(source: Pipe, sink: Pipe) -> int:
    """Wait until nothing moves any more; the most that was kept for `sink` in user space."""
    most = still = 0
    async with asyncio.timeout(10):
        while still < 20:
            await asyncio.sleep(0.01)
            most = max(most, sink.transport.get_write_buffer_size())
            still = 0 if source.transport.is_reading() else still + 1
    return most


async def arrives(end: Raw, flood: Flood, before: bytes = b"") -> None:
    """Everything that was offered comes out, in order."""
    digest = hashlib.sha256()
    missing = flood.total // MESSAGE * (MESSAGE + (14 if flood.masked else 10))
    if before:
        assert await end.exactly(len(before)) == before
    async with asyncio.timeout(20):
        while missing:
            data = await end.reader.read(min(missing, KIB * KIB))
            assert data
            missing -= len(data)
            digest.update(data)
        await flood.task
    assert digest.digest() == flood.digest.digest()


async def test_a_client_that_does_not_read_stops_the_upstream(tmp_path: Path) -> None:
    async with pair(tmp_path, buffers=4096) as p:
        p.client.stop_reading()
        flood = Flood(p.upstream, masked=False)
        assert 0 < await stalled(p.link.upstream, p.link.client) <= BOUND
        assert flood.offered < KERNEL
        p.client.read_again()
        await arrives(p.client, flood)


async def test_an_upstream_that_does_not_read_stops_the_client(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        p.upstream.stop_reading()
        flood = Flood(p.client, masked=True)
        assert 0 < await stalled(p.link.client, p.link.upstream) <= BOUND
        assert flood.offered < KERNEL
        p.upstream.read_again()
        await arrives(p.upstream, flood)


async def test_early_data_that_the_client_does_not_take_stops_the_upstream(tmp_path: Path) -> None:
    early = frame(TEXT, b"early" * 100_000, masked=False)
    async with pair(tmp_path, buffers=4096, early=early) as p:
        p.client.stop_reading()
        flood = Flood(p.upstream, masked=False, total=OFFERED // 4)
        assert 0 < await stalled(p.link.upstream, p.link.client) <= BOUND
        p.client.read_again()
        await arrives(p.client, flood, before=early)


async def test_a_stalled_direction_does_not_hold_up_the_other(tmp_path: Path) -> None:
    async with pair(tmp_path, buffers=4096) as p:
        p.client.stop_reading()
        flood = Flood(p.upstream, masked=False, total=OFFERED // 16)
        await stalled(p.link.upstream, p.link.client)
        await p.client.send(frame(TEXT, b"still here"))
        assert await p.upstream.exactly(16) == frame(TEXT, b"still here")
        p.client.read_again()
        await arrives(p.client, flood)


async def test_a_client_that_stays_stalled_is_cut_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.proxy.relay.FRAME_TIMEOUT", 0.1)
    monkeypatch.setattr("sidecar.proxy.relay.CLOSE_TIMEOUT", 0.2)
    async with pair(tmp_path, buffers=4096) as p:
        p.client.stop_reading()
        flood = Flood(p.upstream, masked=False)
        await stalled(p.link.upstream, p.link.client)
        p.running.sidecar.drain()
        assert await p.ending() == (1012, "sidecar", "draining")
        flood.task.cancel()
        await asyncio.wait([flood.task])


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[Pair]:
    """A relayed connection with TLS on both legs."""
    made = authority(tmp_path)
    certificate, key = made.issue("localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with pair(
        tmp_path,
        server={"tls": {"certificate": str(certificate), "key": str(key)}},
        client_tls=ssl.create_default_context(cafile=made.ca),
        upstream_tls=context,
        upstream={"tls": {"ca": str(made.ca), "server_name": "localhost"}},
    ) as p:
        yield p


async def test_messages_flow_over_tls(secure: Pair) -> None:
    for number in range(20):
        there, back = frame(TEXT, b"%d" % number), frame(TEXT, b"%d" % number, masked=False)
        await secure.client.send(there)
        assert await secure.upstream.exactly(len(there)) == there
        await secure.upstream.send(back)
        assert await secure.client.exactly(len(back)) == back


async def test_one_side_alone_may_talk_over_tls(secure: Pair) -> None:
    for number in range(20):
        message = frame(TEXT, b"%d" % number, masked=False)
        await secure.upstream.send(message)
        assert await secure.client.exactly(len(message)) == message


async def test_a_stalled_client_stops_the_upstream_over_tls(secure: Pair) -> None:
    secure.client.stop_reading()
    flood = Flood(secure.upstream, masked=False, total=OFFERED // 4)
    assert await stalled(secure.link.upstream, secure.link.client) <= BOUND + TLS_OVERHEAD
    assert flood.offered < KERNEL
    secure.client.read_again()
    await arrives(secure.client, flood)
