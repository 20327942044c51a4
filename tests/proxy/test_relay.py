"""What real sockets do not show reliably: pipes and a link between transports that do nothing."""

import asyncio

import pytest

from sidecar.model import Reason
from sidecar.proxy.pipe import PEER_FULL, UNREAD
from sidecar.proxy.tail import Tail
from sidecar.wire.scanner import ON_EXCEED_DELAY, Bucket
from sidecar.wire.tap import TappedScanner
from tests.support.frames import PING, TEXT, close, frame
from tests.support.streams import Refresh
from tests.support.wires import Bench

HELLO = frame(TEXT, b"hello")
BACK = frame(TEXT, b"back", masked=False)


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    made.client.begin(b"")
    made.upstream.begin(b"")
    return made


async def test_a_pipe_reads_once_it_has_begun(bench: Bench) -> None:
    assert all(wire.reading for wire in bench.wires)


async def test_a_pipe_forwards_the_same_object(bench: Bench) -> None:
    client, upstream = bench.wires
    bench.client.data_received(HELLO)
    assert upstream.written == HELLO
    assert client.written == b""


async def test_early_data_that_its_peer_cannot_take_keeps_a_pipe_from_reading() -> None:
    bench = Bench()
    client, upstream = bench.wires
    bench.client.begin(b"")
    client.full = True
    bench.upstream.begin(BACK)
    assert client.written == BACK
    assert not upstream.is_reading()
    client.drained()
    assert upstream.is_reading()


async def test_early_data_that_ends_the_connection_keeps_a_pipe_from_reading() -> None:
    bench = Bench()
    _, upstream = bench.wires
    upstream.closing = True
    bench.upstream.begin(frame(PING, b"masked"))
    assert not upstream.is_reading()
    assert bench.link.closing


async def test_two_causes_hold_a_pipe_until_both_are_gone() -> None:
    bench = Bench(Bucket(1, 0.05, 1, ON_EXCEED_DELAY))
    client, upstream = bench.wires
    bench.client.begin(b"")
    bench.upstream.begin(b"")
    upstream.full = True
    bench.client.data_received(HELLO + HELLO)
    assert upstream.written == HELLO
    assert not client.is_reading()
    upstream.full = False
    bench.client.release(2)
    assert not client.is_reading()  # the peer is full still, and nothing more is written to it
    assert upstream.written == HELLO
    upstream.drained()
    assert upstream.written == HELLO  # the rate is exceeded still
    assert not client.is_reading()
    async with asyncio.timeout(5):
        while not client.is_reading():
            await asyncio.sleep(0.005)
    assert upstream.written == HELLO * 2


async def test_a_policys_code_is_told_for_a_violation_and_for_a_lost_upstream() -> None:
    codes = {"protocol_error": 4100, "upstream_lost": 4200}
    violated, lost = Bench(codes=codes), Bench(codes=codes)
    violated.client.data_received(frame(PING, b"not masked", masked=False))
    assert violated.wires[0].written == close(4100, "protocol_error", masked=False)
    lost.upstream.connection_lost(None)
    assert lost.wires[0].written == close(4200, "upstream_lost", masked=False)


async def test_a_side_that_left_while_it_was_not_read_is_noticed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[object] = []
    monkeypatch.setattr("sidecar.proxy.pipe.has_hung_up", lambda wire: wire in gone)
    client, _ = bench.wires
    bench.client.look_after()
    assert not client.aborted
    gone.append(client)
    bench.client.look_after()
    assert client.aborted


async def test_pipes_that_do_not_read_are_known(bench: Bench) -> None:
    bench.client.hold(PEER_FULL)
    bench.client.hold(UNREAD)
    assert bench.link.held == {bench.client}
    bench.client.release(PEER_FULL)
    assert bench.link.held == {bench.client}
    bench.client.release(UNREAD)
    assert bench.link.held == set()


async def test_a_pipe_knows_when_it_was_read_and_released_last(bench: Bench) -> None:
    pipe = bench.client
    assert (pipe.read_at, pipe.released_at) == (0.0, 0.0)
    pipe.data_received(HELLO)
    assert (pipe.read_at, pipe.released_at) == (1000.0, 0.0)
    bench.clock.move(5)
    pipe.hold(PEER_FULL)
    pipe.hold(UNREAD)
    pipe.release(PEER_FULL)
    assert (pipe.read_at, pipe.released_at) == (1000.0, 0.0)
    pipe.release(UNREAD)
    assert (pipe.read_at, pipe.released_at) == (1005.0, 1005.0)


async def test_a_client_that_takes_nothing_is_not_stalled_by_others(bench: Bench) -> None:
    bench.client.hold(UNREAD)
    assert not bench.client.stalled
    bench.client.hold(PEER_FULL)
    assert bench.client.stalled


async def test_a_frame_that_waits_for_a_boundary_is_seen(bench: Bench) -> None:
    bench.upstream.data_received(BACK[:3])
    seen = [bench.client.awaits_boundary]
    bench.client.inject(frame(PING, b"", masked=False))
    seen.append(bench.client.awaits_boundary)
    bench.upstream.data_received(BACK[3:])
    seen.append(bench.client.awaits_boundary)
    assert seen == [False, True, False]


async def test_a_cause_that_is_not_there_is_not_released(bench: Bench) -> None:
    client, _ = bench.wires
    client.reading = False
    bench.client.release(1)
    assert not client.reading


async def test_a_pipe_that_is_closing_neither_stops_nor_goes_on_reading(bench: Bench) -> None:
    client, _ = bench.wires
    client.closing = True
    bench.client.hold(1)
    assert client.reading
    bench.client.release(1)
    assert client.reading


async def test_what_comes_from_a_side_whose_peer_is_gone_is_thrown_away(bench: Bench) -> None:
    client, _ = bench.wires
    bench.upstream.data_received(BACK[:4])
    client.closing = True
    bench.client.connection_lost(None)
    client.half_closed = True  # from here on a write would fail
    bench.upstream.data_received(BACK[4:] + BACK)
    assert client.written == BACK[:4]
    assert bench.upstream.meter.payload_bytes == 2


async def test_a_socket_is_closed_once(bench: Bench) -> None:
    client, upstream = bench.wires
    bench.client.data_received(close(1000))
    bench.upstream.data_received(close(1000, masked=False))
    assert (client.closes, upstream.closes) == (1, 0)
    bench.upstream.eof_received()
    bench.upstream.connection_lost(None)
    assert client.closes == 1
    bench.client.connection_lost(None)
    assert bench.ended == [bench.link]


async def test_a_side_that_waits_for_the_answer_is_kept_half_open(bench: Bench) -> None:
    bench.client.data_received(close(1000))
    assert bench.client.eof_received()
    assert not bench.upstream.eof_received()


async def test_a_side_is_not_kept_half_open_for_one_that_says_nothing_more(bench: Bench) -> None:
    bench.upstream.data_received(close(1000, masked=False))
    assert not bench.client.eof_received()
    assert not bench.upstream.eof_received()


async def test_a_side_that_waits_for_a_full_peer_is_read_again_when_that_is_gone(
    bench: Bench,
) -> None:
    client, upstream = bench.wires
    client.full = True
    bench.upstream.data_received(BACK)
    assert not upstream.is_reading()
    client.closing = True
    bench.client.connection_lost(None)
    assert upstream.is_reading()


async def test_a_side_whose_peer_is_gone_is_not_kept_half_open(bench: Bench) -> None:
    bench.upstream.data_received(close(1000, masked=False))
    bench.client.connection_lost(ConnectionResetError())
    assert not bench.upstream.eof_received()


async def test_a_close_frame_behind_the_frame_under_way_is_an_answer(bench: Bench) -> None:
    client, upstream = bench.wires
    bench.upstream.data_received(BACK[:3])
    bench.link.end(Reason.DRAINING)
    bench.upstream.data_received(BACK[3:] + close(1012, masked=False))
    assert client.written.startswith(BACK + b"\x88")
    assert bench.upstream.closed
    bench.client.data_received(close(1012))
    assert client.closes == 1
    assert upstream.closes == 0


async def test_what_comes_behind_a_close_frame_is_thrown_away(bench: Bench) -> None:
    _, upstream = bench.wires
    bench.client.data_received(close(1000))
    bench.client.data_received(HELLO)
    bench.client.data_received(close(1001))
    assert upstream.written == close(1000)
    assert bench.link.closing
    assert bench.link.closing.code == 1000


async def test_a_frame_that_breaks_a_rule_is_no_answer(bench: Bench) -> None:
    bench.link.end(Reason.DRAINING)
    bench.client.data_received(frame(TEXT, b"not masked", masked=False))
    bench.client.data_received(close(1012))
    assert not bench.client.closed


async def test_a_socket_whose_frame_has_ended_is_not_cut(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.proxy.relay.FRAME_TIMEOUT", 0)
    client, _ = bench.wires
    bench.upstream.data_received(BACK[:3])
    bench.link.end(Reason.DRAINING)
    bench.upstream.data_received(BACK[3:])
    await asyncio.sleep(0.01)
    assert not client.aborted
    assert client.half_closed


async def test_a_link_that_has_lost_a_side_cuts_the_other_only(bench: Bench) -> None:
    client, upstream = bench.wires
    bench.client.connection_lost(None)
    bench.link.abort()
    assert (client.aborted, upstream.aborted) == (False, True)


async def test_nothing_is_said_to_a_socket_that_closes(bench: Bench) -> None:
    client, _ = bench.wires
    client.closing = True
    bench.link.end(Reason.DRAINING)
    assert client.written == b""


async def test_a_code_may_be_given_for_an_end(bench: Bench) -> None:
    bench.link.end(Reason.DRAINING, 4000, "by hand")
    closing = bench.link.closing
    assert closing is not None
    assert (closing.code, closing.by, closing.detail) == (4000, "sidecar", "by hand")


@pytest.mark.parametrize("fin", [True, False])
async def test_a_message_that_is_held_when_the_connection_ends_is_not_forwarded(
    bench: Bench, fin: bool
) -> None:
    _, upstream = bench.wires
    bench.client.scanner = TappedScanner(bench.client.meter, Refresh(), None)
    held = frame(TEXT, b'{"do": "refresh"', fin=fin)
    bench.client.data_received(HELLO + held[: len(held) - fin])
    bench.link.end(Reason.DRAINING)
    assert bench.upstream.farewell
    bench.client.data_received(held[len(held) - fin :] + close(1012))
    assert upstream.written.startswith(HELLO + b"\x88")
    assert len(upstream.written) == len(HELLO + close(1012, Reason.DRAINING.value))
    assert bench.client.closed
    assert bench.client.meter.frames == 2


async def test_a_frame_that_has_passed_in_part_is_finished(bench: Bench) -> None:
    _, upstream = bench.wires
    bench.client.scanner = TappedScanner(bench.client.meter, Refresh(), None)
    bench.client.data_received(HELLO[:8])
    bench.link.end(Reason.DRAINING)
    assert not bench.upstream.farewell
    bench.client.data_received(HELLO[8:] + HELLO)
    assert upstream.written.startswith(HELLO + b"\x88")


async def test_a_tail_that_is_at_a_boundary_is_done() -> None:
    assert Tail(None, 0).verdict == Tail.DONE
    tail = Tail(None, 3)
    assert tail.feed(b"12", 0.0) == b"12"
    assert tail.verdict != Tail.DONE
    assert tail.feed(b"345", 0.0) == b"3"
    assert tail.verdict == Tail.DONE


async def test_a_rules_own_name_is_what_the_client_is_told(bench: Bench) -> None:
    client, _ = bench.wires
    bench.link.end(Reason.CLAIMS_DENIED, rule="not_an_admin")
    assert client.written == close(4403, "not_an_admin", masked=False)


async def test_a_rules_own_name_may_have_its_own_code() -> None:
    bench = Bench(codes={"not_an_admin": 4999})
    bench.link.end(Reason.CLAIMS_DENIED, rule="not_an_admin")
    assert bench.wires[0].written == close(4999, "not_an_admin", masked=False)


async def test_a_pipe_that_does_not_wait_for_a_rate_is_not_moved_by_another(bench: Bench) -> None:
    client, upstream = bench.wires
    bench.client.hold(PEER_FULL)
    bench.client.retry()
    assert not client.reading
    assert upstream.written == b""
