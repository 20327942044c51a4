"""Close frames of a drain: who is told when."""

import asyncio
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import pytest
from structlog.testing import capture_logs

from sidecar.model import Reason
from sidecar.policy.compiled import Drain
from sidecar.proxy.connections import Connections
from sidecar.proxy.deadlines import Deadlines
from sidecar.proxy.draining import Draining
from sidecar.proxy.relay import Closing, Link
from tests.support.clocks import MovableClock

METER = SimpleNamespace(messages=0, payload_bytes=0)


class StandIn(SimpleNamespace):
    """A link that notes its end, or a pipe."""

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def end(self, reason: Reason, code: int) -> None:
        assert (reason, code) == (Reason.DRAINING, 1012)
        self.closing = Closing(code, "sidecar", reason.value, self.detail)
        self.told.append(self.identifier)

    def abort(self) -> None:
        self.told.append("cut off")


class Bench:
    """So many connections."""

    def __init__(self, count: int) -> None:
        self.clock = MovableClock()
        self.connections = Connections(count, Deadlines(self.clock, leeway=0.0))
        self.told: list[str] = []
        for number in range(count):
            self.connections.take_place()
            stand_in = StandIn(
                identifier=str(number),
                told=self.told,
                closing=None,
                detail="",
                route="main",
                client=StandIn(side="client", meter=METER),
                upstream=StandIn(side="upstream", meter=METER),
            )
            self.connections.add(cast(Link, stand_in))

    def drain(
        self,
        spread: float,
        *,
        grace: float = 30.0,
        jitter: Callable[[], float] = random.random,
    ) -> Draining:
        return Draining(self.connections, Drain(grace, 1012, spread), self.clock, jitter)


def numbers(*given: float) -> Callable[[], float]:
    left: Iterator[float] = iter(given)
    return lambda: next(left)


def test_each_is_told_at_a_moment_of_its_own() -> None:
    bench = Bench(4)
    drain = bench.drain(10.0, jitter=numbers(0.9, 0.1, 0.5, 0.3))
    told = []
    for _ in range(5):
        drain.advance()
        told.append(list(bench.told))
        bench.clock.move(2.5)
    assert told == [[], ["1"], ["1", "3", "2"], ["1", "3", "2"], ["1", "3", "2", "0"]]


def test_a_thousand_are_spread_over_the_time_in_an_order_of_chance() -> None:
    bench = Bench(1000)
    drain = bench.drain(10.0)
    told = [0]
    while drain.advance():
        told.append(len(bench.told))
        bench.clock.move(0.5)
    told.append(len(bench.told))
    assert told[-1] == 1000
    assert len(told) >= 20
    steps = [after - before for before, after in pairwise(told)]
    assert max(steps) < 120  # 50 on average
    assert bench.told != sorted(bench.told, key=int)


def test_no_spread_is_at_once_in_slices() -> None:
    bench = Bench(600)
    drain = bench.drain(0.0)
    left = [drain.advance() for _ in range(3)]
    assert (len(bench.told), left) == (600, [True, True, False])


def test_a_hurried_drain_is_spread_no_longer() -> None:
    bench = Bench(300)
    drain = bench.drain(10.0, jitter=lambda: 1.0)
    assert drain.advance()
    assert bench.told == []
    with capture_logs() as logs:
        drain.hurry()
    assert logs == [{"event": "drain_hurried", "untold": 300, "log_level": "info"}]
    while drain.advance():
        pass
    assert len(bench.told) == 300


@pytest.mark.parametrize("hurried", [True, False])
async def test_a_drain_walks_through_all_and_waits_for_their_ends(hurried: bool) -> None:
    bench = Bench(600)
    drain = bench.drain(10.0)
    task = asyncio.create_task(drain.run())
    if hurried:
        drain.hurry()
    else:
        bench.clock.move(10)
    async with asyncio.timeout(10):
        while len(bench.told) < 600:
            await asyncio.sleep(0)
    assert not task.done()
    for link in bench.connections:
        bench.connections.remove(link)
    async with asyncio.timeout(10):
        assert await task == 0


async def test_a_drain_does_not_wait_for_the_spread_when_all_have_gone() -> None:
    bench = Bench(1)
    task = asyncio.create_task(bench.drain(10.0, jitter=lambda: 1.0).run())
    await asyncio.sleep(0)
    for link in bench.connections:
        bench.connections.remove(link)
    async with asyncio.timeout(10):
        assert await task == 0
    assert bench.told == []


async def test_what_is_left_after_the_grace_is_cut_off() -> None:
    bench = Bench(2)
    first, second = bench.connections
    cast(StandIn, second).detail = "and why"
    assert await bench.drain(0.0, grace=0.05).run() == 2
    assert sorted(bench.told) == ["0", "1", "cut off", "cut off"]
    cut = "cut off at the end of the grace"
    assert first.closing == Closing(1012, "sidecar", "draining", cut)
    assert second.closing == Closing(1012, "sidecar", "draining", f"and why; {cut}")


async def test_who_was_to_be_told_after_the_grace_is_cut_off_untold() -> None:
    bench = Bench(1)
    (link,) = bench.connections
    assert await bench.drain(10.0, grace=0.05, jitter=lambda: 1.0).run() == 1
    assert bench.told == ["cut off"]
    cut = "cut off at the end of the grace"
    assert link.closing == Closing(1006, "sidecar", "draining", cut)
