"""The clock that all connections share: who is touched when, and what is done."""

import asyncio
import json
from dataclasses import replace
from itertools import count
from typing import cast

import pytest
from structlog.testing import capture_logs

from sidecar.model import Identity, Permit, Reason
from sidecar.policy.limits import UNLIMITED
from sidecar.policy.replies import Reply
from sidecar.policy.session import Expiry, Heartbeat, Session, Warn
from sidecar.proxy.deadlines import SLICE, Deadlines
from sidecar.proxy.pipe import PEER_FULL, Pipe
from sidecar.proxy.relay import Link
from sidecar.proxy.scanners import Scanners
from sidecar.wire.scanner import FrameScanner
from tests.support.clocks import MovableClock
from tests.support.frames import PING, PONG, TEXT, close, frame
from tests.support.wires import Wire, standing

WARN = Warn(60.0, Reply({"type": "token_expiring", "in": "{expires_in}", "user": "{user}"}))
BEAT = Session(heartbeat=Heartbeat(30.0, 10.0))
HELLO = frame(TEXT, b"hello")


class Bench:
    """Links on wires, and the clock that looks at them."""

    def __init__(self, leeway: float = 0.0) -> None:
        self.clock = MovableClock()
        self.deadlines = Deadlines(self.clock, leeway)
        self.ended: list[Link] = []
        self._numbers = count()

    def link(self, session: Session, ttl: float | None = None) -> Link:
        """A connection that begins now, with a token for so many seconds."""
        now = self.clock.monotonic
        client = Pipe("client", Wire(), FrameScanner(masked=True), now)
        upstream = Pipe("upstream", Wire(), FrameScanner(masked=False), now)
        expires_at = None if ttl is None else self.clock.time() + ttl
        identity = Identity("alice", {}, "app", expires_at, None)
        permit = Permit("main", "main", b"", "", (), None, identity)
        made = Link(
            f"c{next(self._numbers)}",
            permit,
            client,
            upstream,
            {},
            self.ended.append,
            scanners=Scanners(UNLIMITED),
            standing=standing(),
            session=session,
            opened=now(),
            opened_at=self.clock.time(),
        )
        client.begin(b"")
        upstream.begin(b"")
        self.deadlines.add(made)
        return made

    def tick(self, seconds: float = 0.0) -> None:
        """Let time go by in the steps in which it is looked at."""
        while True:
            while self.deadlines.advance():
                pass
            if seconds <= 0:
                return
            step = min(seconds, 0.5)
            self.clock.move(step)
            seconds -= step


@pytest.fixture
async def bench() -> Bench:
    return Bench()


def said(link: Link) -> bytes:
    """What its client was sent since the last question."""
    assert isinstance(link.client.transport, Wire)
    sent, link.client.transport.written = link.client.transport.written, b""
    return sent


def reason(link: Link) -> str | None:
    return link.closing.reason if link.closing else None


async def test_a_link_without_an_end_takes_no_place(bench: Bench) -> None:
    bench.link(Session())
    bench.link(Session(expiry=Expiry.IGNORE, warn=None), ttl=5)
    bench.tick()
    assert len(bench.deadlines) == 0


async def test_a_token_ends_its_connection_within_a_second() -> None:
    bench = Bench(leeway=2.0)
    link = bench.link(Session(), ttl=10)
    bench.tick(11.9)
    assert link.closing is None
    bench.tick(1)
    assert said(link) == close(4401, "token_expired", masked=False)


async def test_a_token_that_expired_during_the_handshake_ends_it_at_once(bench: Bench) -> None:
    link = bench.link(Session(), ttl=-1)
    bench.tick()
    assert reason(link) == "token_expired"


@pytest.mark.parametrize("step", [3600, -3600])
async def test_a_step_of_the_time_of_day_moves_the_ends_of_tokens(
    bench: Bench, step: float
) -> None:
    soon, late = bench.link(Session(), ttl=1800), bench.link(Session(), ttl=7200)
    lifetime = bench.link(Session(max_lifetime=7200))
    bench.tick(1)
    bench.clock.step(step)
    bench.tick()
    assert (reason(soon) == "token_expired") == (step > 0)
    bench.tick(3597)
    assert late.closing is None
    bench.tick(3)
    assert (reason(late) == "token_expired") == (step > 0)
    assert lifetime.closing is None
    bench.tick(3600)
    assert reason(soon) == "token_expired"
    assert reason(lifetime) == "session_lifetime"


@pytest.mark.parametrize("drift", [0.1, -0.1])
async def test_a_clock_that_wanders_ends_nobody_early_and_nobody_late(
    bench: Bench, drift: float
) -> None:
    link = bench.link(Session(), ttl=100)
    assert link.expires_at is not None
    while link.closing is None:
        bench.tick(0.5)
        late = bench.clock.time() - link.expires_at
        bench.clock.step(drift / 2)
    assert 0 <= late < 1


async def test_a_step_with_nobody_there_is_no_work(bench: Bench) -> None:
    bench.clock.step(99)
    bench.tick()
    assert len(bench.deadlines) == 0


async def test_a_client_is_warned_once_of_each_end(bench: Bench) -> None:
    link = bench.link(Session(warn=WARN), ttl=100)
    bench.tick(39.5)
    assert said(link) == b""
    bench.tick(1)
    message = frame(TEXT, b'{"type":"token_expiring","in":60,"user":"alice"}', masked=False)
    assert said(link) == message
    bench.tick(20)
    assert said(link) == b""
    link.expires_at = bench.clock.time() + 100  # as after a refresh
    bench.deadlines.reschedule(link)
    bench.tick(41)
    assert said(link).startswith(b"\x81")
    bench.tick(60)
    assert reason(link) == "token_expired"


async def test_a_connection_that_begins_late_is_warned_at_once(bench: Bench) -> None:
    link = bench.link(Session(warn=WARN), ttl=30)
    bench.tick()
    assert json.loads(said(link)[2:])["in"] == 30


async def test_a_warning_waits_for_the_end_of_a_message(bench: Bench) -> None:
    link = bench.link(Session(warn=WARN), ttl=30)
    begun = frame(TEXT, b"one", fin=False, masked=False)
    link.upstream.data_received(begun)
    bench.tick()
    assert said(link) == begun
    rest = frame(0, b"two", masked=False)
    link.upstream.data_received(rest)
    assert said(link).startswith(rest + b"\x81")


async def test_a_refreshed_token_moves_the_end_and_a_withdrawn_rule_takes_it_away(
    bench: Bench,
) -> None:
    refreshed, freed = bench.link(Session(), ttl=10), bench.link(Session(), ttl=10)
    bench.tick(5)
    refreshed.expires_at = bench.clock.time() + 100
    freed.session = Session(expiry=Expiry.IGNORE)
    bench.deadlines.reschedule(refreshed)
    bench.deadlines.reschedule(freed)
    bench.tick(99)
    assert (refreshed.closing, freed.closing) == (None, None)
    bench.tick(1)
    assert reason(refreshed) == "token_expired"
    assert freed.closing is None


async def test_what_a_client_does_moves_its_idle_end(bench: Bench) -> None:
    link = bench.link(Session(idle_timeout=60))
    for data in (HELLO, frame(PING, b"?")):
        bench.tick(50)
        link.client.data_received(data)
    bench.tick(59)
    link.client.data_received(frame(PONG, b"!"))
    link.upstream.data_received(frame(TEXT, b"news", masked=False))
    assert link.closing is None
    bench.tick(1.5)
    assert said(link).endswith(close(4408, "idle_timeout", masked=False))


async def test_time_in_which_a_client_is_not_read_is_not_idle(bench: Bench) -> None:
    link = bench.link(Session(idle_timeout=60))
    bench.tick(50)
    link.client.hold(PEER_FULL)
    bench.tick(500)
    link.client.release(PEER_FULL)
    bench.tick(59)
    assert link.closing is None
    bench.tick(1.5)
    assert reason(link) == "idle_timeout"


async def test_a_silent_client_is_pinged_and_ends_where_it_does_not_answer(bench: Bench) -> None:
    link = bench.link(BEAT)
    bench.tick(29.5)
    assert said(link) == b""
    bench.tick(1)
    assert said(link) == frame(PING, link.ping_id, masked=False)
    assert len(link.ping_id) == 8
    bench.tick(9)
    assert link.closing is None
    bench.tick(1.5)
    assert said(link) == close(4408, "heartbeat_timeout", masked=False)
    await asyncio.sleep(0)
    client, upstream = link.client.transport, link.upstream.transport
    assert isinstance(client, Wire)
    assert isinstance(upstream, Wire)
    assert client.aborted
    assert upstream.written[0] == 0x88
    assert not upstream.aborted


async def test_any_byte_is_a_sign_of_life(bench: Bench) -> None:
    link = bench.link(BEAT)
    for data in (b"\x8a", b"\x80", b"\x00\x00\x00\x00", HELLO[:3], HELLO[3:]):
        bench.tick(29)
        link.client.data_received(data)
    assert said(link) == b""
    bench.tick(31)
    assert said(link) == frame(PING, link.ping_id, masked=False)
    link.client.data_received(frame(PONG, link.ping_id))
    bench.tick(29)
    assert said(link) == b""
    bench.tick(1.5)
    assert said(link) == frame(PING, link.ping_id, masked=False)
    assert link.closing is None


async def test_a_client_that_is_not_read_is_not_pinged(bench: Bench) -> None:
    link = bench.link(BEAT)
    bench.tick(31)
    assert said(link)
    link.client.hold(PEER_FULL)
    bench.tick(300)
    assert (link.closing, said(link)) == (None, b"")
    link.client.release(PEER_FULL)
    bench.tick(29)
    assert said(link) == b""
    bench.tick(1.5)
    assert said(link) == frame(PING, link.ping_id, masked=False)


async def test_a_removed_link_is_not_looked_at(bench: Bench) -> None:
    gone, stays = bench.link(Session(), ttl=5), bench.link(Session(), ttl=5)
    bench.deadlines.remove(gone)
    bench.deadlines.remove(gone)
    bench.tick(6)
    assert gone.closing is None
    assert reason(stays) == "token_expired"


async def test_a_link_that_ends_by_itself_is_left_alone(bench: Bench) -> None:
    link = bench.link(Session(), ttl=5)
    bench.tick()
    link.end(Reason.KICKED)
    bench.tick(6)
    assert reason(link) == "kicked"
    assert len(bench.deadlines) == 0


async def test_a_link_that_cannot_be_judged_ends_and_stops_nobody(bench: Bench) -> None:
    broken, sound = bench.link(Session(), ttl=5), bench.link(Session(), ttl=5)
    broken.session = cast(Session, None)
    with capture_logs() as logs:
        bench.tick(6)
    assert (reason(broken), reason(sound)) == ("internal_error", "token_expired")
    assert [line["event"] for line in logs] == ["internal_error"]


async def test_ten_thousand_that_expire_together_end_in_slices(bench: Bench) -> None:
    links = [bench.link(Session(), ttl=60) for _ in range(10_000)]
    bench.tick(59.5)
    bench.clock.move(0.5)
    slices = []
    more = True
    while more:
        more = bench.deadlines.advance()
        slices.append(sum(link.closing is not None for link in links))
    assert slices[-1] == 10_000
    ended = [after - before for before, after in zip([0, *slices], slices, strict=False)]
    assert max(ended) == SLICE


async def test_a_tick_touches_only_links_that_are_due(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8,000 idle connections with all rules on: what a second of them costs, counted."""
    session = replace(BEAT, warn=WARN, idle_timeout=600, max_lifetime=86400)
    for _ in range(8_000):
        bench.link(session, ttl=3600)
    bench.tick()
    touched: list[Link] = []
    step = Deadlines._step

    def counting(self: Deadlines, link: Link) -> object:
        touched.append(link)
        return step(self, link)

    monkeypatch.setattr(Deadlines, "_step", counting)
    bench.tick(29)
    assert touched == []
    bench.tick(1)
    assert len(touched) == 8_000


async def test_ended_links_leave_nothing_behind(bench: Bench) -> None:
    for _ in range(100):
        links = [bench.link(Session(max_lifetime=99), ttl=3600) for _ in range(10)]
        bench.tick(0.5)
        for link in links:
            bench.deadlines.remove(link)
    assert len(bench.deadlines) == 0
    assert bench.deadlines._slots == {}


async def test_looking_at_all_with_a_slice_left_is_the_end(bench: Bench) -> None:
    for _ in range(SLICE + 1):
        bench.link(Session(), ttl=-1)
    assert [bench.deadlines.advance() for _ in range(2)] == [True, False]
