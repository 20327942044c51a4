"""When a late answer to a ping is no fault of the client's."""

import pytest

from sidecar.model import Permit
from sidecar.policy.limits import UNLIMITED
from sidecar.proxy.heartbeat import Ping
from sidecar.proxy.pipe import Pipe
from sidecar.proxy.relay import Link
from sidecar.proxy.scanners import Scanners
from sidecar.wire.scanner import FrameScanner
from tests.support.frames import PING, TEXT, frame
from tests.support.wires import Wire, standing

NEWS = frame(TEXT, b"n" * 100, masked=False)


class Bench:
    """A link whose client is pinged."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.client = Pipe("client", self.wire, FrameScanner(masked=True), lambda: 0.0)
        self.upstream = Pipe("upstream", Wire(), FrameScanner(masked=False), lambda: 0.0)
        permit = Permit("main", "main", b"", "", (), None, None)
        self.link = Link(
            *("id", permit, self.client, self.upstream, {}, lambda _: None),
            scanners=Scanners(UNLIMITED),
            standing=standing(),
        )
        self.client.begin(b"")
        self.upstream.begin(b"")

    def send(self, data: bytes, *, stuck: bool = True) -> None:
        """The upstream sends this, and the client takes it or not."""
        self.upstream.data_received(data)
        self.wire.unsent += len(data) if stuck else 0


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_a_ping_that_has_arrived_has_to_be_answered(bench: Bench) -> None:
    ping = Ping(bench.client, b"12345678", 30.0)
    assert bench.wire.written == frame(PING, b"12345678", masked=False)
    bench.send(NEWS, stuck=False)
    assert not ping.is_under_way(bench.client, 40.0)
    assert ping.at == 30.0


async def test_a_client_that_takes_nothing_is_dead(bench: Bench) -> None:
    bench.send(NEWS)
    ping = Ping(bench.client, b"12345678", 30.0)
    bench.wire.unsent += 10
    assert not ping.is_under_way(bench.client, 40.0)


async def test_a_slow_client_has_time_until_the_ping_has_reached_it(bench: Bench) -> None:
    for _ in range(3):
        bench.send(NEWS)
    ping = Ping(bench.client, b"12345678", 30.0)
    bench.wire.unsent += 10
    for now in (40.0, 50.0, 60.0):
        bench.wire.unsent -= 100
        assert ping.is_under_way(bench.client, now)
        assert ping.at == now
    bench.wire.unsent = 0
    assert ping.is_under_way(bench.client, 70.0)  # it has arrived in the last ten seconds
    assert not ping.is_under_way(bench.client, 80.0)


async def test_what_is_sent_behind_a_ping_gives_it_no_more_time(bench: Bench) -> None:
    ping = Ping(bench.client, b"12345678", 30.0)
    bench.send(NEWS)
    assert not ping.is_under_way(bench.client, 40.0)


async def test_a_ping_that_waits_for_a_boundary_is_no_fault_of_a_client_that_takes_bytes(
    bench: Bench,
) -> None:
    bench.send(NEWS[:20])
    ping = Ping(bench.client, b"12345678", 30.0)
    bench.send(NEWS[20:40], stuck=False)
    assert ping.is_under_way(bench.client, 40.0)
    bench.send(NEWS[40:60])
    assert not ping.is_under_way(bench.client, 50.0)


async def test_a_ping_behind_a_frame_that_the_upstream_does_not_end_is_not_counted(
    bench: Bench,
) -> None:
    bench.send(NEWS[:20], stuck=False)
    ping = Ping(bench.client, b"12345678", 30.0)
    assert ping.is_under_way(bench.client, 40.0)
    assert ping.is_under_way(bench.client, 50.0)
    bench.send(NEWS[20:], stuck=False)
    assert bench.wire.written == NEWS + frame(PING, b"12345678", masked=False)
    assert ping.is_under_way(bench.client, 60.0)  # it has just gone out
    assert not ping.is_under_way(bench.client, 70.0)
