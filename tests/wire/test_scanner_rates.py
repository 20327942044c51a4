"""Rates: what the scanner does with frames over them. `now` is moved by hand."""

import pytest

from sidecar.wire.scanner import (
    CLOSED,
    ON_EXCEED_CLOSE,
    ON_EXCEED_DELAY,
    ON_EXCEED_DROP,
    PASS,
    PROTOCOL_ERROR,
    RATE,
    TOO_BIG,
    WAIT,
    Bucket,
    FrameScanner,
)

pytestmark = pytest.mark.usefixtures("implementation")

TEXT, PING, PONG = 0x81, 0x89, 0x8A
TEXT_BEGUN, CONTINUED, ENDED = 0x01, 0x00, 0x80


def frame(first: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    return bytes([first, 126]) + size.to_bytes(2, "big") + payload


def per_second(amount: float, on_exceed: int = ON_EXCEED_CLOSE) -> Bucket:
    """That many each second and at once."""
    return Bucket(amount, 1, amount, on_exceed)


def scanner_of(
    *,
    messages: Bucket | None = None,
    payload: Bucket | None = None,
    controls: Bucket | None = None,
    max_message: int = 0,
) -> FrameScanner:
    return FrameScanner(
        masked=False,
        max_message=max_message,
        messages=messages,
        payload=payload,
        controls=controls,
    )


A, B, C = frame(TEXT, b"a"), frame(TEXT, b"b"), frame(TEXT, b"c")


def test_messages_over_the_rate_end_the_connection() -> None:
    scanner = scanner_of(messages=per_second(2))
    assert scanner.feed(A + B + C, 0.0) == A + B
    assert (scanner.verdict, scanner.detail) == (RATE, "messages")
    assert scanner.feed(A, 100.0) == b""
    assert (scanner.messages, scanner.dropped) == (2, 0)


def test_messages_within_the_rate_pass_as_the_same_object() -> None:
    scanner = scanner_of(messages=per_second(2), payload=per_second(100), controls=per_second(1))
    data = A + frame(PING) + B
    for second in range(5):
        assert scanner.feed(data, float(second)) is data


def test_payload_over_the_rate_ends_the_connection() -> None:
    scanner = scanner_of(payload=per_second(10))
    first = frame(TEXT, b"x" * 8)
    assert scanner.feed(first + first, 0.0) == first
    assert (scanner.verdict, scanner.detail) == (RATE, "bytes")


def test_a_frame_over_the_burst_passes_when_the_bucket_is_full() -> None:
    scanner = scanner_of(payload=per_second(10))
    big = frame(TEXT, b"x" * 50)
    assert scanner.feed(big, 0.0) is big
    assert scanner.feed(A, 4.8) is A
    assert scanner.feed(big, 5.0) == b""
    assert scanner.verdict == RATE


def test_pings_and_pongs_over_the_rate_end_the_connection() -> None:
    scanner = scanner_of(controls=per_second(10, ON_EXCEED_DELAY))
    flood = (frame(PING) + frame(PONG)) * 50_000
    assert scanner.feed(flood, 0.0) == flood[: 10 * 2]
    assert (scanner.verdict, scanner.detail) == (RATE, "control frames")


def test_a_close_frame_costs_nothing() -> None:
    scanner = scanner_of(controls=per_second(1), messages=per_second(1))
    data = frame(PING) + A + frame(0x88)
    assert scanner.feed(data, 0.0) is data
    assert scanner.verdict == CLOSED


@pytest.mark.parametrize("on_exceed", [ON_EXCEED_CLOSE, ON_EXCEED_DROP])
def test_a_flood_of_one_byte_fragments_ends_the_connection(on_exceed: int) -> None:
    scanner = scanner_of(messages=per_second(20, on_exceed))
    flood = frame(TEXT_BEGUN, b"x") + frame(CONTINUED, b"x") * 1_000_000
    assert len(scanner.feed(flood, 0.0)) == 20 * 3
    assert scanner.verdict == RATE


def test_an_empty_fragment_is_a_tiny_one() -> None:
    scanner = scanner_of(messages=per_second(1))
    begun = frame(TEXT_BEGUN, b"x")
    assert scanner.feed(begun + frame(CONTINUED), 0.0) == begun
    assert scanner.verdict == RATE


def test_fragments_of_1_kib_and_the_last_one_cost_no_message() -> None:
    scanner = scanner_of(messages=per_second(1))
    data = frame(TEXT_BEGUN, b"x") + frame(CONTINUED, b"x" * 1024) * 3 + frame(ENDED, b"x")
    assert scanner.feed(data, 0.0) is data
    assert scanner.messages == 1


def test_a_fragment_of_1023_bytes_costs_a_message() -> None:
    scanner = scanner_of(messages=per_second(1))
    begun = frame(TEXT_BEGUN, b"x")
    assert scanner.feed(begun + frame(CONTINUED, b"x" * 1023), 0.0) == begun
    assert scanner.verdict == RATE


# drop


def test_messages_over_the_rate_are_dropped() -> None:
    scanner = scanner_of(messages=per_second(1, ON_EXCEED_DROP))
    assert scanner.feed(A + B + C, 0.0) == A
    assert scanner.verdict == PASS
    assert (scanner.frames, scanner.messages, scanner.payload_bytes) == (1, 1, 1)
    assert scanner.dropped == 2
    assert scanner.feed(B, 1.0) is B


def test_what_stands_between_dropped_messages_passes() -> None:
    scanner = scanner_of(payload=per_second(10, ON_EXCEED_DROP))
    big = frame(TEXT, b"x" * 200)
    full = frame(TEXT, b"x" * 9)
    assert scanner.feed(full + big + A + big + frame(PING), 0.0) == full + A + frame(PING)
    assert (scanner.dropped, scanner.messages, scanner.frames) == (2, 2, 3)


def test_a_dropped_message_is_dropped_with_all_its_fragments() -> None:
    scanner = scanner_of(messages=per_second(1, ON_EXCEED_DROP))
    ping, close = frame(PING, b"p"), frame(0x88, b"\x03\xe8")
    dropped = frame(TEXT_BEGUN, b"x") + ping + frame(CONTINUED, b"y") + ping
    assert scanner.feed(A + dropped, 0.0) == A + ping + ping
    # the rate would allow it by now, but the message's beginning is gone
    assert scanner.feed(frame(CONTINUED, b"y") + frame(ENDED, b"z") + B + close, 5.0) == B + close
    assert (scanner.dropped, scanner.messages, scanner.verdict) == (1, 2, CLOSED)


def test_the_payload_of_a_dropped_message_is_dropped_however_it_comes() -> None:
    scanner = scanner_of(messages=per_second(1, ON_EXCEED_DROP))
    big = frame(TEXT, b"x" * 1000)
    assert scanner.feed(A + big[:100], 0.0) == A
    assert scanner.remaining == 0
    assert scanner.feed(big[100:500], 0.0) == b""
    assert scanner.feed(big[500:] + frame(PING), 0.0) == frame(PING)
    assert scanner.payload_bytes == 1


def test_a_message_is_not_dropped_when_a_part_of_it_has_passed() -> None:
    scanner = scanner_of(payload=per_second(10, ON_EXCEED_DROP))
    begun = frame(TEXT_BEGUN, b"x" * 9)
    assert scanner.feed(begun + frame(ENDED, b"x" * 9), 0.0) == begun
    assert (scanner.verdict, scanner.dropped) == (RATE, 0)


def test_a_dropped_message_costs_nothing() -> None:
    scanner = scanner_of(
        messages=per_second(5, ON_EXCEED_DROP), payload=per_second(10, ON_EXCEED_DROP)
    )
    full, big = frame(TEXT, b"x" * 10), frame(TEXT_BEGUN, b"x" * 9)
    assert scanner.feed(full + (big + frame(ENDED, b"x" * 9)) * 20, 0.0) == full
    assert scanner.dropped == 20
    empty = frame(TEXT)
    assert scanner.feed(empty * 5, 0.0) == empty * 4


def test_a_dropped_message_keeps_to_the_protocol_and_the_sizes() -> None:
    for bad, verdict in ((A, PROTOCOL_ERROR), (frame(ENDED, b"x" * 60), TOO_BIG)):
        scanner = scanner_of(messages=per_second(1, ON_EXCEED_DROP), max_message=100)
        assert scanner.feed(A + frame(TEXT_BEGUN, b"x" * 60) + bad, 0.0) == A
        assert scanner.verdict == verdict


# delay


def test_messages_over_the_rate_are_delayed() -> None:
    scanner = scanner_of(messages=per_second(1, ON_EXCEED_DELAY))
    assert scanner.feed(A + B + C, 0.0) == A
    assert (scanner.verdict, scanner.detail) == (WAIT, "messages")
    assert scanner.wait == pytest.approx(1.0)
    assert scanner.remaining == 0
    assert scanner.feed(b"", 1.0) == B
    assert scanner.verdict == WAIT
    assert scanner.feed(b"", 2.0) == C
    assert (scanner.verdict, scanner.detail, scanner.wait) == (PASS, "", 0.0)
    assert (scanner.messages, scanner.dropped) == (3, 0)


def test_a_wait_that_is_not_over_goes_on() -> None:
    scanner = scanner_of(messages=per_second(1, ON_EXCEED_DELAY))
    assert scanner.feed(A + B, 0.0) == A
    assert scanner.feed(b"", 0.25) == b""
    assert scanner.verdict == WAIT
    assert scanner.wait == pytest.approx(0.75)


def test_what_comes_during_a_wait_stays_in_order() -> None:
    scanner = scanner_of(messages=per_second(1, ON_EXCEED_DELAY))
    assert scanner.feed(A + B, 0.0) == A
    assert scanner.feed(frame(PING) + C, 0.5) == b""
    assert scanner.feed(b"", 1.0) == B + frame(PING)
    assert scanner.feed(b"", 2.0) == C


def test_a_delayed_message_may_be_delayed_in_its_middle() -> None:
    scanner = scanner_of(payload=per_second(10, ON_EXCEED_DELAY))
    begun, ended = frame(TEXT_BEGUN, b"x" * 10), frame(ENDED, b"x" * 10)
    assert scanner.feed(begun + ended, 0.0) == begun
    assert (scanner.verdict, scanner.detail) == (WAIT, "bytes")
    assert scanner.wait == pytest.approx(1.0)
    assert scanner.feed(b"", 1.0) == ended


def test_a_delayed_frame_need_not_be_whole() -> None:
    scanner = scanner_of(payload=per_second(10, ON_EXCEED_DELAY))
    full = frame(TEXT, b"x" * 10)
    assert scanner.feed(full + full[:5], 0.0) == full
    assert scanner.feed(b"", 1.0) == full[:5]
    assert (scanner.verdict, scanner.remaining) == (PASS, 7)


# both buckets


@pytest.mark.parametrize("on_exceed", [ON_EXCEED_DROP, ON_EXCEED_DELAY])
def test_a_frame_is_charged_to_both_buckets_or_to_none(on_exceed: int) -> None:
    scanner = scanner_of(messages=per_second(2), payload=per_second(10, on_exceed))
    full = frame(TEXT, b"x" * 10)
    assert scanner.feed(full + full, 0.0) == full
    if on_exceed == ON_EXCEED_DELAY:
        assert scanner.feed(b"", 0.4) == b""
        assert scanner.verdict == WAIT
        assert scanner.feed(b"", 1.0) == full
    else:
        # the second message of this second, though another was tried
        assert scanner.feed(frame(TEXT), 0.0) == frame(TEXT)
    assert scanner.verdict == PASS


def test_a_large_fragment_gives_no_message_back() -> None:
    scanner = scanner_of(messages=per_second(1), payload=Bucket(1, 1, 2000, ON_EXCEED_DELAY))
    begun, more = frame(TEXT_BEGUN, b"x" * 1024), frame(CONTINUED, b"x" * 1024)
    assert scanner.feed(begun + more, 0.0) == begun
    assert scanner.verdict == WAIT
    assert scanner.feed(b"", 100.0) == more
    assert scanner.feed(frame(ENDED) + A + B, 200.0) == frame(ENDED) + A
    assert scanner.verdict == RATE


def test_the_bucket_of_messages_decides_first() -> None:
    scanner = scanner_of(
        messages=per_second(1, ON_EXCEED_DROP), payload=per_second(1, ON_EXCEED_CLOSE)
    )
    assert scanner.feed(A + B, 0.0) == A
    assert (scanner.verdict, scanner.dropped) == (PASS, 1)
