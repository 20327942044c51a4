"""A first message is put together, however it is cut into frames and reads."""

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.buckets import Bucket
from sidecar.wire.frames import pong_frame
from sidecar.wire.messages import MAX_FRAGMENTS, WHOLE, FirstMessage
from sidecar.wire.scanner import CLOSED, PASS, PROTOCOL_ERROR, RATE, TOO_BIG, FrameScanner
from tests.support.frames import BINARY, CONTINUATION, PING, PONG, TEXT, close, frame

MAX = 1000


def read(reads: Iterable[bytes], *, controls: Bucket | None = None) -> tuple[FirstMessage, bytes]:
    """The reader after these reads, with the pings it told of as pongs."""
    first = FirstMessage(MAX, controls)
    pings = [ping for data in reads for ping in first.feed(data, 0.0)]
    return first, b"".join(map(pong_frame, pings))


def one(data: bytes) -> FirstMessage:
    return read([data])[0]


def cut(data: bytes, places: Iterable[int]) -> Sequence[bytes]:
    """`data` in reads that end at these places."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


_PLACES = st.lists(st.integers(0, 10_000), max_size=12)
_CONTROLS = st.lists(st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)), max_size=2)


@given(
    parts=st.lists(st.tuples(_CONTROLS, st.binary(max_size=200)), min_size=1, max_size=5),
    opcode=st.sampled_from([TEXT, BINARY]),
    behind=st.binary(max_size=300),
    places=_PLACES,
)
def test_a_message_is_put_together_and_what_follows_is_untouched(
    parts: list[tuple[list[tuple[int, bytes]], bytes]],
    opcode: int,
    behind: bytes,
    places: list[int],
) -> None:
    data, pongs = b"", b""
    for index, (controls, part) in enumerate(parts):
        data += b"".join(frame(kind, payload) for kind, payload in controls)
        pongs += b"".join(pong_frame(payload) for kind, payload in controls if kind == PING)
        last = index == len(parts) - 1
        data += frame(CONTINUATION if index else opcode, part, fin=last)
    reads = cut(data, places)
    first, answered = read([*reads[:-1], reads[-1] + behind])
    assert first.verdict == WHOLE
    assert first.payload == b"".join(part for _, part in parts)
    assert first.text == (opcode == TEXT)
    assert first.rest == behind
    assert answered == pongs


@given(
    data=st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.builds(
                frame,
                st.integers(0, 15),
                st.binary(max_size=300),
                fin=st.booleans(),
                masked=st.sampled_from([True, True, True, False]),
                rsv=st.sampled_from([0, 0, 0, 4]),
            ),
            st.builds(close, st.sampled_from([None, 999, 1000, 1005, 1016, 4000])),
        ),
        max_size=6,
    ).map(b"".join),
    places=_PLACES,
)
def test_the_rules_are_those_of_the_scanner(data: bytes, places: list[int]) -> None:
    first, _ = read(cut(data, places))
    read_until = len(data) - len(first.rest)
    scanner = FrameScanner(masked=True, max_message=MAX)
    scanner.feed(data[:read_until], 0.0)
    if first.verdict == PASS and scanner.verdict in (PROTOCOL_ERROR, TOO_BIG):
        first.feed(bytes(12), 0.0)  # the scanner does not wait for the end of a bad header
    if first.verdict == WHOLE:
        assert (scanner.verdict, scanner.messages) == (PASS, 1)
    else:
        assert (first.verdict, first.close_code) == (scanner.verdict, scanner.close_code)
    assert scanner.detail in (first.detail, "message")


@given(places=_PLACES, size=st.integers(0, MAX))
def test_what_is_held_is_bounded(places: list[int], size: int) -> None:
    data = frame(TEXT, bytes(size // 2), fin=False) + frame(CONTINUATION, bytes(size))
    first = FirstMessage(MAX, None)
    for piece in cut(data, places):
        first.feed(piece, 0.0)
        assert len(first.payload) + len(first._held) <= MAX + 14 + len(piece)


def test_a_message_of_the_largest_size_passes_and_one_more_byte_does_not() -> None:
    assert one(frame(TEXT, bytes(MAX))).verdict == WHOLE
    assert one(frame(TEXT, bytes(MAX + 1))[:8]).verdict == TOO_BIG
    parts = frame(TEXT, bytes(MAX), fin=False) + frame(CONTINUATION, b"x")
    assert one(parts).verdict == TOO_BIG


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (frame(TEXT, b"x", masked=False)[:2], "frame is not masked"),
        (frame(TEXT, b"x", rsv=4)[:2], "reserved bit set"),
        (frame(CONTINUATION, b"x")[:2], "continuation without a message"),
        (frame(TEXT, fin=False) + frame(TEXT)[:2], "new message inside a fragmented one"),
        (b"\x82\xff\x80" + bytes(7 + 4), "length over 63 bits"),
        (b"\x82\xfe\x00\x7d" + bytes(4), "length not in its shortest form"),
        (close(1005), "close code not allowed"),
    ],
)
def test_a_bad_frame_ends_it_before_its_payload(data: bytes, detail: str) -> None:
    first = one(data)
    assert (first.verdict, first.detail) == (PROTOCOL_ERROR, detail)


@pytest.mark.parametrize(("data", "code"), [(close(), 1005), (close(4000, "bye"), 4000)])
def test_a_close_frame_ends_it(data: bytes, code: int) -> None:
    first = one(frame(TEXT, b"half", fin=False) + data)
    assert (first.verdict, first.close_code) == (CLOSED, code)


def test_control_frames_have_their_rate() -> None:
    first, pongs = read([frame(PING, b"a") + frame(PONG) + frame(PING)], controls=Bucket(1, 1, 2))
    assert (first.verdict, first.detail, pongs) == (RATE, "control frames", pong_frame(b"a"))


def test_empty_fragments_come_to_an_end() -> None:
    empty = frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * (MAX_FRAGMENTS - 2)
    assert one(empty + frame(CONTINUATION)).verdict == WHOLE
    first = one(empty + frame(CONTINUATION, fin=False) * 2)
    assert (first.verdict, first.detail) == (RATE, "fragments")


def test_after_the_end_nothing_is_read() -> None:
    first = one(close(1000))
    assert first.feed(frame(PING, b"late"), 0.0) == []
    assert first.verdict == CLOSED
