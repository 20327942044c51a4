"""Frames of the sidecar's own, and messages that are taken out of a stream."""

import pytest

from sidecar.model import Reason
from sidecar.policy.matching import MessagePattern
from sidecar.policy.pointers import ClaimPath
from tests.support.frames import BINARY, CONTINUATION, PING, TEXT, close, frame
from tests.support.wires import Bench

OWN = frame(TEXT, b"own", masked=False)
PATTERN = MessagePattern([(ClaimPath.parse("/type"), "refresh")], ClaimPath.parse("/token"), 100)
BEGUN = frame(TEXT, b'{"type": "ref', fin=False)


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    made.client.begin(b"")
    made.upstream.begin(b"")
    return made


async def test_a_frame_goes_out_at_once_between_two_others(bench: Bench) -> None:
    bench.client.inject(OWN)
    assert bench.wires[0].written == OWN
    assert bench.upstream.scanner is bench.upstream.meter


async def test_a_frame_waits_for_the_end_of_the_one_under_way(bench: Bench) -> None:
    long = frame(BINARY, b"x" * 300, masked=False)
    bench.upstream.data_received(long[:100])
    bench.client.inject(OWN)
    bench.client.inject(OWN)
    assert bench.wires[0].written == long[:100]
    bench.upstream.data_received(long[100:] + long)
    assert bench.wires[0].written == long + OWN + OWN + long
    assert bench.upstream.scanner is bench.upstream.meter


async def test_a_control_frame_goes_between_fragments_and_a_message_does_not(bench: Bench) -> None:
    part = frame(TEXT, b"a", fin=False, masked=False)
    rest = frame(CONTINUATION, b"b", masked=False)
    ping = frame(PING, b"own", masked=False)
    bench.upstream.data_received(part)
    bench.client.inject(OWN)
    bench.client.inject(ping)
    assert bench.wires[0].written == part + ping
    bench.upstream.data_received(rest)
    assert bench.wires[0].written == part + ping + rest + OWN


async def test_a_violation_behind_it_still_ends_the_connection(bench: Bench) -> None:
    part = frame(TEXT, b"a", fin=False, masked=False)
    bench.upstream.data_received(part)
    bench.client.inject(OWN)
    bench.upstream.data_received(frame(TEXT, b"masked"))
    assert bench.wires[0].written == part + close(1002, "protocol_error", masked=False)


async def test_nothing_goes_behind_a_close_frame(bench: Bench) -> None:
    bench.link.end(Reason.KICKED)
    before = bench.wires[0].written
    bench.client.inject(OWN)
    assert bench.wires[0].written == before


async def test_nothing_goes_out_while_the_frame_before_the_close_ends(bench: Bench) -> None:
    long = frame(BINARY, b"x" * 300, masked=False)
    bench.upstream.data_received(long[:100])
    bench.link.end(Reason.KICKED)
    bench.client.inject(OWN)
    bench.upstream.data_received(long[100:])
    assert bench.wires[0].written == long + close(4403, "kicked", masked=False)


async def test_who_leaves_too_much_unread_is_not_read(bench: Bench) -> None:
    client, _ = bench.wires
    client.unsent = 2**17
    bench.client.inject(OWN)
    assert not client.reading
    client.unsent = 0
    client.drained()
    assert client.reading


async def test_a_rule_that_goes_lets_out_nothing_of_what_it_holds(bench: Bench) -> None:
    hello = frame(TEXT, b"hello")
    bench.client.tap(PATTERN, None)
    bench.client.data_received(BEGUN)
    bench.client.tap(None, None)
    bench.client.data_received(frame(CONTINUATION, b'resh", "token": "t"}') + hello)
    again = frame(TEXT, b'{"type": "refresh", "token": "t"}')
    bench.client.data_received(again)
    assert bench.wires[1].written == hello + again


async def test_without_a_rule_the_scanner_stands_alone(bench: Bench) -> None:
    bench.client.tap(None, None)
    assert bench.client.scanner is bench.client.meter


async def test_what_waits_for_its_place_counts_as_unread(bench: Bench) -> None:
    client, _ = bench.wires
    large = frame(TEXT, b"x" * 40_000, masked=False)
    bench.upstream.data_received(frame(TEXT, b"a", fin=False, masked=False))
    bench.client.inject(large)
    assert client.reading
    bench.client.inject(large)
    assert bench.client in bench.link.held
    bench.upstream.data_received(frame(CONTINUATION, b"b", masked=False))
    assert bench.client not in bench.link.held


async def test_an_ending_connection_takes_no_rule(bench: Bench) -> None:
    bench.link.end(Reason.KICKED)
    scanner = bench.client.scanner
    bench.client.tap(PATTERN, None)
    assert bench.client.scanner is scanner


async def test_what_was_taken_is_told_with_a_close_frame_behind_it() -> None:
    told: list[object] = []
    bench = Bench(on_tokens=lambda _link, tokens: told.extend(tokens))
    bench.client.begin(b"")
    bench.client.tap(PATTERN, None)
    bench.client.data_received(frame(TEXT, b'{"type": "refresh", "token": "t"}') + close(1000))
    assert told == ["t"]
    assert bench.wires[1].written == close(1000)
