"""What a live connection asks of its scanner: when it was active, and other limits."""

import pytest

from sidecar.wire.scanner import (
    ON_EXCEED_DELAY,
    ON_EXCEED_DROP,
    PASS,
    RATE,
    TOO_BIG,
    WAIT,
    Bucket,
    FrameScanner,
)
from tests.support.frames import BINARY, CONTINUATION, PING, PONG, TEXT, close, frame

pytestmark = pytest.mark.usefixtures("implementation")

SMALL, PINGED, PONGED = frame(TEXT, b"abc"), frame(PING, b"p"), frame(PONG, b"p")
BEGUN, MORE, ENDED = (
    frame(TEXT, b"abc", fin=False),
    frame(CONTINUATION, b"abc", fin=False),
    frame(CONTINUATION, b"abc"),
)


def one_a_day(on_exceed: int) -> Bucket:
    return Bucket(1, 86400, 1, on_exceed)


def limited(
    scanner: FrameScanner,
    max_message: int = 0,
    max_frame: int = 0,
    messages: Bucket | None = None,
    payload: Bucket | None = None,
    controls: Bucket | None = None,
) -> None:
    scanner.limit(
        max_message=max_message,
        max_frame=max_frame,
        messages=messages,
        payload=payload,
        controls=controls,
    )


@pytest.mark.parametrize(
    "data",
    [
        SMALL,
        SMALL + SMALL[:8],
        frame(BINARY, bytes(70_000)),
        BEGUN,
        PINGED,
        close(1000),
        PONGED + SMALL,
        SMALL + PONGED,
    ],
)
@pytest.mark.parametrize("metered", [False, True])
def test_a_frame_of_the_sides_own_is_activity(data: bytes, metered: bool) -> None:
    scanner = FrameScanner(masked=True, messages=Bucket(9, 1, 9, 0) if metered else None)
    assert scanner.active_at == 0.0
    scanner.feed(data, 7.5)
    assert scanner.active_at == 7.5


def test_a_pong_is_counted_and_is_no_activity() -> None:
    scanner = FrameScanner(masked=True)
    scanner.feed(PONGED + PONGED[:-1], 7.5)
    scanner.feed(PONGED[-1:], 8.5)
    scanner.feed(frame(PONG, bytes(125))[:7], 9.5)
    scanner.feed(bytes(1), 9.5)
    assert (scanner.pongs, scanner.active_at) == (3, 0.0)


def test_half_a_header_is_no_activity() -> None:
    scanner = FrameScanner(masked=True)
    scanner.feed(SMALL[:5], 7.5)
    assert scanner.active_at == 0.0


def test_the_inside_of_a_long_frame_is_activity() -> None:
    scanner = FrameScanner(masked=True)
    data = frame(BINARY, bytes(1000))
    for now, at in ((1.0, 0), (2.0, 300), (3.0, 600), (4.0, 900)):
        scanner.feed(data[at : at + 300], now)
        assert scanner.active_at == min(now, 3.0)


def test_a_message_that_is_left_out_is_activity() -> None:
    scanner = FrameScanner(masked=True, messages=one_a_day(ON_EXCEED_DROP))
    scanner.feed(SMALL, 1.0)
    assert scanner.feed(SMALL, 2.0) == b""
    assert scanner.active_at == 2.0


def test_a_fragmented_message_is_under_way_until_its_last_frame_began() -> None:
    scanner = FrameScanner(masked=True)
    seen = []
    for data in (SMALL, BEGUN, PINGED, MORE, ENDED[:7], ENDED[7:]):
        scanner.feed(data, 0.0)
        seen.append(scanner.fragmented)
    assert seen == [False, True, True, True, False, False]


def test_a_fragmented_message_that_is_left_out_is_not_under_way() -> None:
    scanner = FrameScanner(masked=True, messages=one_a_day(ON_EXCEED_DROP))
    scanner.feed(SMALL + BEGUN, 0.0)
    assert scanner.dropped == 1
    assert not scanner.fragmented


def test_a_lower_limit_holds_from_the_next_frame() -> None:
    scanner = FrameScanner(masked=True)
    big = frame(BINARY, bytes(100))
    assert scanner.feed(big + big[:50], 0.0) == big + big[:50]
    limited(scanner, max_frame=99)
    assert scanner.feed(big[50:] + SMALL, 0.0) == big[50:] + SMALL
    assert scanner.feed(big, 0.0) == b""
    assert (scanner.verdict, scanner.detail) == (TOO_BIG, "frame")


@pytest.mark.parametrize("size", [2, 5])
def test_a_message_under_way_is_held_to_the_new_size_at_its_next_frame(size: int) -> None:
    scanner = FrameScanner(masked=True)
    scanner.feed(BEGUN, 0.0)
    limited(scanner, max_message=size)
    assert scanner.feed(PINGED, 0.0) == PINGED
    assert scanner.feed(MORE, 0.0) == b""
    assert (scanner.verdict, scanner.detail) == (TOO_BIG, "message")


def test_a_higher_limit_lets_the_message_under_way_go_on() -> None:
    scanner = FrameScanner(masked=True, max_message=5)
    scanner.feed(BEGUN, 0.0)
    limited(scanner, max_message=6)
    assert scanner.feed(ENDED, 0.0) == ENDED
    assert scanner.feed(frame(TEXT, b"abcdefg"), 0.0) == b""
    assert scanner.verdict == TOO_BIG


def test_other_rates_hold_from_the_next_frame() -> None:
    scanner = FrameScanner(masked=True)
    assert scanner.feed(SMALL * 9 + PINGED * 9, 0.0)
    limited(scanner, messages=one_a_day(ON_EXCEED_DROP), controls=one_a_day(ON_EXCEED_DROP))
    assert scanner.feed(SMALL + SMALL + PINGED, 0.0) == SMALL + PINGED
    assert scanner.feed(PINGED, 0.0) == b""
    assert (scanner.verdict, scanner.detail) == (RATE, "control frames")


def test_a_rate_of_bytes_can_be_set_and_taken_away() -> None:
    scanner = FrameScanner(masked=True)
    limited(scanner, payload=one_a_day(ON_EXCEED_DELAY))
    assert scanner.feed(SMALL + SMALL, 0.0) == SMALL
    assert scanner.verdict == WAIT
    limited(scanner)
    assert scanner.feed(b"", 0.0) == SMALL
    assert scanner.verdict == PASS
