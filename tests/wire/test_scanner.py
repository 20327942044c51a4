"""The rules of RFC 6455 for one direction: what is forwarded, what is not, and why."""

import pytest

from sidecar.wire.frames import apply_mask, close_frame
from sidecar.wire.scanner import CLOSED, PASS, PROTOCOL_ERROR, TOO_BIG, FrameScanner

pytestmark = pytest.mark.usefixtures("implementation")

MASK = b"\x01\x02\x03\x04"
TEXT, BINARY, PING, PONG = 0x81, 0x82, 0x89, 0x8A
TEXT_BEGUN, CONTINUED, ENDED = 0x01, 0x00, 0x80


def frame(first: int, payload: bytes = b"", *, masked: bool = True) -> bytes:
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 65536:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    if not masked:
        return bytes([first]) + length + payload
    return bytes([first, length[0] | 0x80]) + length[1:] + MASK + payload


def closing(payload: bytes, *, masked: bool = True) -> bytes:
    return frame(0x88, apply_mask(payload, MASK) if masked else payload, masked=masked)


def refused(data: bytes, *, masked: bool = True, verdict: int = PROTOCOL_ERROR) -> str:
    """Feed a good frame, the data and another good frame; only the first may pass."""
    good = frame(PING, b"good", masked=masked)
    scanner = FrameScanner(masked=masked, max_message=1000, max_frame=800)
    assert scanner.feed(good + data, 0.0) == good
    assert scanner.verdict == verdict
    assert scanner.feed(good, 0.0) == b""
    assert scanner.frames == 1
    assert scanner.remaining == 0
    return scanner.detail


SIZES = [*range(9), 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_a_message_of_any_size_passes_as_the_same_object(size: int, masked: bool) -> None:
    scanner = FrameScanner(masked=masked)
    data = frame(BINARY, b"x" * size, masked=masked)
    assert scanner.feed(data, 0.0) is data
    assert (scanner.verdict, scanner.remaining) == (PASS, 0)
    assert (scanner.frames, scanner.messages, scanner.payload_bytes) == (1, 1, size)


def test_many_frames_in_one_read_pass_as_the_same_object() -> None:
    scanner = FrameScanner(masked=True)
    data = frame(TEXT, b"a") + frame(PING) + frame(BINARY, b"b" * 300) + frame(PONG, b"c")
    assert scanner.feed(data, 0.0) is data
    assert (scanner.frames, scanner.messages, scanner.payload_bytes) == (4, 2, 302)


def test_a_payload_in_pieces_passes_as_the_same_objects() -> None:
    scanner = FrameScanner(masked=True)
    data = frame(TEXT, b"x" * 3000)
    for piece, remaining in ((data[:1000], 2008), (data[1000:2000], 1008), (data[2000:], 0)):
        assert scanner.feed(piece, 0.0) is piece
        assert scanner.remaining == remaining
    assert (scanner.frames, scanner.payload_bytes) == (1, 3000)


def test_the_payload_counts_as_it_passes_not_as_it_is_announced() -> None:
    scanner = FrameScanner(masked=False)
    scanner.feed(b"\x82\x7f\x7f" + b"\xff" * 7 + b"abc", 0.0)
    assert scanner.payload_bytes == 3
    assert scanner.remaining == 2**63 - 1 - 3


def test_nothing_in_gives_nothing_out() -> None:
    scanner = FrameScanner(masked=True)
    assert scanner.feed(b"", 0.0) == b""
    assert scanner.verdict == PASS


@pytest.mark.parametrize("size", [3, 300, 70000])
def test_an_incomplete_header_is_kept_back(size: int) -> None:
    data = frame(TEXT, b"x" * size)
    header = len(data) - size
    scanner = FrameScanner(masked=True)
    for at in range(header - 1):
        assert scanner.feed(data[at : at + 1], 0.0) == b""
        assert scanner.remaining == 0
    assert scanner.feed(data[header - 1 : header], 0.0) == data[:header]
    assert scanner.remaining == size


def test_a_fragmented_message_passes_with_control_frames_inside() -> None:
    scanner = FrameScanner(masked=True)
    data = frame(TEXT_BEGUN, b"a") + frame(PING, b"p") + frame(CONTINUED) + frame(ENDED, b"b")
    data += frame(TEXT, b"c")
    assert scanner.feed(data, 0.0) is data
    assert (scanner.frames, scanner.messages, scanner.payload_bytes) == (5, 2, 4)


# Bad frames


def test_an_unmasked_frame_of_a_client_is_refused() -> None:
    assert refused(frame(TEXT, b"hello", masked=False)) == "frame is not masked"
    assert refused(b"\x89\x00") == "frame is not masked"


def test_a_masked_frame_of_a_server_is_refused() -> None:
    assert refused(frame(TEXT, b"hello"), masked=False) == "frame is masked"


@pytest.mark.parametrize("bit", [0x40, 0x20, 0x10, 0x70])
@pytest.mark.parametrize("first", [TEXT, PING, 0x88, ENDED])
def test_a_reserved_bit_is_refused(first: int, bit: int) -> None:
    assert refused(frame(first | bit)) == "reserved bit set"


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF])
@pytest.mark.parametrize("fin", [0x80, 0])
def test_an_unknown_opcode_is_refused(opcode: int, fin: int) -> None:
    assert refused(frame(opcode | fin)) == "unknown opcode"


@pytest.mark.parametrize("first", [0x08, 0x09, 0x0A])
def test_a_fragmented_control_frame_is_refused(first: int) -> None:
    assert refused(frame(first)) == "fragmented control frame"


@pytest.mark.parametrize("first", [0x88, PING, PONG])
@pytest.mark.parametrize("size", [126, 65536])
def test_a_control_frame_over_125_bytes_is_refused(first: int, size: int) -> None:
    assert refused(frame(first, b"x" * size)) == "control frame over 125 bytes"


def test_a_ping_of_125_bytes_passes() -> None:
    data = frame(PING, b"x" * 125)
    assert FrameScanner(masked=True).feed(data, 0.0) is data


@pytest.mark.parametrize(
    "length",
    [b"\xfe\x00\x00", b"\xfe\x00\x7d", b"\xff" + bytes(8), b"\xff" + bytes(6) + b"\xff\xff"],
)
def test_a_length_that_is_not_minimal_is_refused(length: bytes) -> None:
    assert refused(b"\x82" + length + MASK) == "length not in its shortest form"
    # before the mask has come
    assert refused(b"\x82" + length) == "length not in its shortest form"


def test_a_length_that_is_not_minimal_is_refused_at_the_very_start() -> None:
    scanner = FrameScanner(masked=True)
    assert scanner.feed(b"\x82\xfe\x00\x03" + MASK + b"abc", 0.0) == b""
    assert scanner.verdict == PROTOCOL_ERROR


def test_a_length_over_63_bits_is_refused() -> None:
    assert refused(b"\x82\xff\x80" + bytes(7)) == "length over 63 bits"
    assert refused(b"\x82\xff" + b"\xff" * 8 + MASK) == "length over 63 bits"


def test_a_new_message_inside_a_fragmented_one_is_refused() -> None:
    scanner = FrameScanner(masked=True)
    begun = frame(TEXT_BEGUN, b"a")
    assert scanner.feed(begun + frame(TEXT, b"b"), 0.0) == begun
    assert scanner.verdict == PROTOCOL_ERROR
    assert scanner.detail == "new message inside a fragmented one"


@pytest.mark.parametrize("first", [CONTINUED, ENDED])
def test_a_continuation_without_a_message_is_refused(first: int) -> None:
    assert refused(frame(first, b"x")) == "continuation without a message"
    assert refused(frame(first)) == "continuation without a message"


def test_a_continuation_after_the_end_of_a_message_is_refused() -> None:
    scanner = FrameScanner(masked=True)
    message = frame(TEXT_BEGUN, b"a") + frame(ENDED, b"b")
    assert scanner.feed(message + frame(ENDED, b"c"), 0.0) == message
    assert scanner.verdict == PROTOCOL_ERROR


# Close frames


@pytest.mark.parametrize("masked", [True, False])
def test_a_close_frame_ends_what_is_forwarded(masked: bool) -> None:
    scanner = FrameScanner(masked=masked)
    close = closing(b"\x0f\xa1bye", masked=masked)
    before = frame(TEXT, b"a", masked=masked)
    assert scanner.feed(before + close + before, 0.0) == before + close
    assert scanner.verdict == CLOSED
    assert (scanner.close_code, scanner.close_reason) == (4001, b"bye")
    assert (scanner.frames, scanner.messages, scanner.payload_bytes) == (2, 1, 6)
    assert scanner.feed(before, 0.0) == b""


def test_the_sidecars_own_close_frame_passes_as_the_same_object() -> None:
    scanner = FrameScanner(masked=True)
    data = close_frame(1000, "x" * 123, MASK)
    assert scanner.feed(data, 0.0) is data
    assert (scanner.close_code, scanner.close_reason) == (1000, b"x" * 123)


def test_an_empty_close_frame_has_no_status() -> None:
    scanner = FrameScanner(masked=True)
    assert scanner.feed(closing(b""), 0.0) == closing(b"")
    assert (scanner.verdict, scanner.close_code, scanner.close_reason) == (CLOSED, 1005, b"")


def test_a_close_frame_may_come_inside_a_fragmented_message() -> None:
    scanner = FrameScanner(masked=True)
    data = frame(TEXT_BEGUN, b"a") + closing(b"\x03\xe8")
    assert scanner.feed(data, 0.0) is data
    assert scanner.verdict == CLOSED


def test_a_close_frame_is_kept_back_until_it_is_whole() -> None:
    scanner = FrameScanner(masked=True)
    close = closing(b"\x03\xe8" + b"x" * 123)
    for at in range(len(close) - 1):
        assert scanner.feed(close[at : at + 1], 0.0) == b""
        assert (scanner.verdict, scanner.remaining) == (PASS, 0)
    assert scanner.feed(close[-1:], 0.0) == close
    assert scanner.verdict == CLOSED


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535])
@pytest.mark.parametrize("masked", [True, False])
def test_a_close_code_that_may_not_be_sent_is_refused(code: int, masked: bool) -> None:
    data = closing(code.to_bytes(2, "big") + b"why", masked=masked)
    assert refused(data, masked=masked) == "close code not allowed"


def test_a_close_frame_of_one_byte_is_refused() -> None:
    assert refused(closing(b"\x03")) == "close frame of one byte"


def test_a_refused_close_frame_leaves_no_code() -> None:
    scanner = FrameScanner(masked=True)
    scanner.feed(closing(b"\x03\xee"), 0.0)
    assert (scanner.close_code, scanner.close_reason) == (0, b"")


# Sizes


def test_a_message_and_a_frame_of_exactly_the_limit_pass() -> None:
    scanner = FrameScanner(masked=True, max_message=1000, max_frame=800)
    data = frame(TEXT, b"x" * 800) + frame(TEXT_BEGUN, b"x" * 800) + frame(ENDED, b"x" * 200)
    assert scanner.feed(data + data, 0.0) == data + data
    assert scanner.verdict == PASS


def test_a_frame_over_the_limit_is_refused() -> None:
    assert refused(frame(TEXT, b"x" * 801), verdict=TOO_BIG) == "frame"


def test_a_message_over_the_limit_is_refused() -> None:
    scanner = FrameScanner(masked=True, max_message=1000)
    assert scanner.feed(frame(TEXT, b"x" * 1001), 0.0) == b""
    assert (scanner.verdict, scanner.detail) == (TOO_BIG, "message")


def test_a_fragmented_message_counts_its_whole_size() -> None:
    scanner = FrameScanner(masked=True, max_message=1000)
    begun = frame(TEXT_BEGUN, b"x" * 600) + frame(PING, b"x" * 100) + frame(CONTINUED, b"x" * 400)
    assert scanner.feed(begun, 0.0) is begun
    assert scanner.feed(frame(ENDED, b"x"), 0.0) == b""
    assert scanner.verdict == TOO_BIG


def test_an_announced_size_is_refused_before_any_of_the_payload_comes() -> None:
    for length in (b"\xfe\xff\xff", b"\xff\x7f" + b"\xff" * 7):
        assert refused(b"\x82" + length, verdict=TOO_BIG) == "frame"


def test_a_fragment_whose_size_would_overflow_the_sum_is_refused() -> None:
    scanner = FrameScanner(masked=True)
    begun = frame(TEXT_BEGUN, b"x")
    assert scanner.feed(begun, 0.0) is begun
    assert scanner.feed(b"\x80\xff\x7f" + b"\xff" * 7 + MASK, 0.0) == b""
    assert scanner.verdict == TOO_BIG


def test_control_frames_do_not_count_towards_sizes() -> None:
    scanner = FrameScanner(masked=True, max_message=10, max_frame=5)
    data = frame(PING, b"x" * 125)
    assert scanner.feed(data, 0.0) is data
