"""Frames of the sidecar's own between those of a stream, however it is cut."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.insertion import Insertion
from tests.support.frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, frame

OWN_PING = frame(PING, b"own", masked=False)
OWN_TEXT = frame(TEXT, b'{"own": 1}', masked=False)
SIZES = st.sampled_from([0, 1, 125, 126, 300, 0x10000])


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Frames of sound messages, some of them fragmented, with control frames between."""
    frames: list[bytes] = []
    for number in range(draw(st.integers(0, 4))):
        count = draw(st.integers(1, 3))
        for part in range(count):
            opcode = CONTINUATION if part else draw(st.sampled_from([TEXT, BINARY]))
            payload = bytes([number]) * draw(SIZES)
            frames.append(frame(opcode, payload, fin=part == count - 1, masked=False))
            if draw(st.booleans()):
                frames.append(frame(PING, b"theirs", masked=False))
    return frames


def is_message_boundary(frames: list[bytes], index: int) -> bool:
    """Whether no message is under way before the frame with this number."""
    last = [each for each in frames[:index] if not each[0] & 0x08]
    return not last or bool(last[-1][0] & 0x80)


def cut(data: bytes, headers: set[int], marks: list[int]) -> list[bytes]:
    """The data in pieces; no header is cut."""
    at = sorted({mark for mark in marks if mark < len(data)} - headers)
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


def insides(frames: list[bytes]) -> set[int]:
    """Where a cut would go through a header."""
    found: set[int] = set()
    start = 0
    for one in frames:
        length = one[1] & 0x7F
        size = 2 if length < 126 else 4 if length == 126 else 10
        found |= set(range(start + 1, start + size))
        start += len(one)
    return found


@given(streams(), st.lists(st.integers(0, 100_000), max_size=6), st.integers(0, 6))
def test_each_is_put_in_once_and_at_the_first_boundary(
    frames: list[bytes], marks: list[int], after: int
) -> None:
    data = b"".join(frames)
    pieces = cut(data, insides(frames), marks)
    after = min(after, len(pieces))
    done = len(b"".join(pieces[:after]))
    ends = [len(b"".join(frames[:count])) for count in range(len(frames) + 1)]
    under_way = max(index for index, end in enumerate(ends) if end <= done)
    inside = ends[under_way] < done
    opened = under_way + 1 if inside else under_way
    insertion = Insertion(
        ends[opened] - done if inside else 0,
        fragmented=not is_message_boundary(frames, opened),
    )
    insertion.put(OWN_PING)
    insertion.put(OWN_TEXT)
    out = b"".join(insertion.pass_on(piece) for piece in [b"", *pieces[after:]])

    between = next(
        (n for n in range(opened, len(frames) + 1) if is_message_boundary(frames, n)), None
    )
    expected = data[done : ends[opened]] + OWN_PING
    if between is None:
        assert insertion.waits
        expected += data[ends[opened] :]
    else:
        assert not insertion.waits
        expected += data[ends[opened] : ends[between]] + OWN_TEXT + data[ends[between] :]
    assert out == expected


def test_nothing_is_put_behind_a_close_frame() -> None:
    insertion = Insertion(0, fragmented=True)
    insertion.put(OWN_TEXT)
    data = frame(CLOSE, b"\x03\xe8", masked=False)
    assert insertion.pass_on(data) == data
    assert not insertion.waits


def test_headers_of_masked_frames_are_longer() -> None:
    insertion = Insertion(3, fragmented=True)
    insertion.put(OWN_TEXT)
    rest = frame(CONTINUATION, b"x" * 200)
    assert insertion.pass_on(b"abc" + rest + rest) == b"abc" + rest + OWN_TEXT + rest


def test_its_size_is_what_waits() -> None:
    insertion = Insertion(3, fragmented=True)
    insertion.put(OWN_TEXT)
    insertion.put(OWN_PING)
    assert insertion.size == len(OWN_TEXT) + len(OWN_PING)
    insertion.pass_on(b"abc")
    assert insertion.size == len(OWN_TEXT)
