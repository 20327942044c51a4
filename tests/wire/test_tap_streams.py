"""However messages are cut into frames and the stream into reads, the same is taken out of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.scanner import PASS, FrameScanner
from sidecar.wire.tap import TappedScanner
from sidecar.wire.verdicts import TAKEN
from tests.support.streams import (
    MAX_SIZE,
    OWN_PONG,
    Message,
    Refresh,
    cuts,
    is_control,
    is_own_pong,
    pieces,
    split,
    streams,
)

pytestmark = pytest.mark.usefixtures("implementation")

# A held message's frames, a held control frame, and a header that is not complete.
MOST_HELD = 8 * MAX_SIZE + 131 + 13


def tapped(pattern: bool = True, pongs: bool = True) -> TappedScanner:
    inner = FrameScanner(masked=True)
    return TappedScanner(inner, Refresh() if pattern else None, OWN_PONG if pongs else None)


def data_frames(stream: list[Message], but: set[int] | None = None) -> list[bytes]:
    """Of all messages but those with these numbers."""
    left_out = but or set()
    kept = (message for number, message in enumerate(stream) if number not in left_out)
    return [frame for message in kept for frame in message.frames]


def control_frames(stream: list[Message], own: bool = False) -> list[bytes]:
    """All of them, with or without the pongs to the sidecar's own pings."""
    frames = [frame for message in stream for some in message.controls for frame in some]
    return [frame for frame in frames if own or not is_own_pong(frame)]


def tokens(stream: list[Message]) -> dict[int, object]:
    """What is to be taken, by the message's number."""
    found = ((number, message.token) for number, message in enumerate(stream))
    return {number: token for number, token in found if token is not None}


def check(out: bytes, data: list[bytes], controls: list[bytes]) -> None:
    frames = split(out)
    assert [frame for frame in frames if not is_control(frame)] == data
    assert [frame for frame in frames if is_control(frame)] == controls
    judge = FrameScanner(masked=True)
    assert judge.feed(out, 0.0) == out
    assert judge.verdict == PASS


@given(stream=streams, places=cuts)
def test_what_comes_out_is_what_went_in_without_what_was_taken(
    stream: list[Message], places: list[int]
) -> None:
    scanner, out, taken = tapped(), b"", []
    for piece in pieces(b"".join(message.data for message in stream), places):
        out += scanner.feed(piece, 0.0)
        found = scanner.take()
        assert scanner.verdict == (TAKEN if found else PASS)
        taken += found
    expected = tokens(stream)
    assert taken == list(expected.values())
    check(out, data_frames(stream, but=set(expected)), control_frames(stream))
    assert scanner.remaining == 0


@given(stream=streams)
def test_byte_by_byte_the_same_comes_out(stream: list[Message]) -> None:
    scanner, out = tapped(), b""
    for byte in b"".join(message.data for message in stream):
        out += scanner.feed(bytes([byte]), 0.0)
    expected = tokens(stream)
    assert scanner.take() == list(expected.values())
    check(out, data_frames(stream, but=set(expected)), control_frames(stream))


@given(stream=streams)
def test_frames_without_control_frames_between_keep_their_places(stream: list[Message]) -> None:
    whole = [m for m in stream if not any(m.controls[1:])]
    data = b"".join(m.data for m in whole)
    expected = b"".join(
        frame
        for m in whole
        for frame in (*m.controls[0], *(() if m.token is not None else m.frames))
        if not is_own_pong(frame)
    )
    assert tapped().feed(data, 0.0) == expected


@given(stream=streams, places=cuts, pongs=st.booleans())
def test_without_a_pattern_no_message_is_taken(
    stream: list[Message], places: list[int], pongs: bool
) -> None:
    scanner, out = tapped(pattern=False, pongs=pongs), b""
    for piece in pieces(b"".join(message.data for message in stream), places):
        out += scanner.feed(piece, 0.0)
    assert scanner.take() == []
    check(out, data_frames(stream), control_frames(stream, own=not pongs))


@given(stream=streams, places=cuts)
def test_at_any_time_little_is_held_and_the_rest_ends_with_a_frame(
    stream: list[Message], places: list[int]
) -> None:
    scanner = tapped(pongs=False)
    fed = passed = 0
    judge = FrameScanner(masked=True)
    for piece in pieces(b"".join(message.data for message in stream), places):
        fed += len(piece)
        out = scanner.feed(piece, 0.0)
        passed += len(out)
        judge.feed(out, 0.0)
        assert scanner.remaining == judge.remaining
        gone = sum(len(frame) for m in stream if m.token is not None for frame in m.frames)
        assert fed - passed <= MOST_HELD + gone


@given(stream=streams, places=cuts, before=st.integers(0, 5000))
def test_what_was_under_way_when_it_begins_passes(
    stream: list[Message], places: list[int], before: int
) -> None:
    data = b"".join(message.data for message in stream)
    inner = FrameScanner(masked=True)
    before %= len(data) + 1
    out = inner.feed(data[:before], 0.0)
    begun = {number for number in range(len(stream)) if is_begun(stream, number, len(out))}
    early = len([frame for frame in split(out) if is_control(frame)])
    scanner = TappedScanner(inner, Refresh(), OWN_PONG)
    for piece in pieces(data[before:], places):
        out += scanner.feed(piece, 0.0)
    expected = {number: token for number, token in tokens(stream).items() if number not in begun}
    assert scanner.take() == list(expected.values())
    every = control_frames(stream, own=True)
    late = [frame for frame in every[early:] if not is_own_pong(frame)]
    check(out, data_frames(stream, but=set(expected)), [*every[:early], *late])


def is_begun(stream: list[Message], number: int, passed: int) -> bool:
    """Whether the first frame of that message begins in the first bytes that passed."""
    start = sum(len(message.data) for message in stream[:number])
    return start + sum(map(len, stream[number].controls[0])) < passed


@given(stream=streams, places=cuts, after=st.integers(0, 5000))
def test_a_rule_that_goes_takes_what_it_holds_and_nothing_more(
    stream: list[Message], places: list[int], after: int
) -> None:
    data = b"".join(message.data for message in stream)
    after %= len(data) + 1
    inner = FrameScanner(masked=True)
    scanner, out = TappedScanner(inner, Refresh(), None), b""
    for piece in pieces(data[:after], places):
        out += scanner.feed(piece, 0.0)
    scanner.change(None, None)
    for piece in pieces(data[after:], places):
        out += scanner.feed(piece, 0.0)
    assert scanner.remaining == inner.remaining == 0
    numbers = list(tokens(stream))[: len(scanner.take())]
    check(out, data_frames(stream, but=set(numbers)), control_frames(stream, own=True))
