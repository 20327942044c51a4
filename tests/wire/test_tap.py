"""Taking messages of a pattern, and the pongs to the sidecar's pings, out of a stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.matching import BadToken, MessagePattern
from sidecar.policy.pointers import ClaimPath
from sidecar.wire import tap
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
from sidecar.wire.tap import TappedScanner
from sidecar.wire.verdicts import TAKEN
from tests.support.frames import BINARY, CONTINUATION, PING, PONG, TEXT, close, frame
from tests.support.streams import MAX_SIZE, OWN_PONG, Refresh, masked

pytestmark = pytest.mark.usefixtures("implementation")

REQUEST = b'{"do":"refresh","token":"abc"}'
TAKES = frame(TEXT, REQUEST)
OTHER = frame(TEXT, b'{"do":"something"}')
OURS = frame(PONG, OWN_PONG)


def tapped(inner: FrameScanner | None = None) -> TappedScanner:
    return TappedScanner(inner or FrameScanner(masked=True), Refresh(), OWN_PONG)


def in_fragments(payload: bytes, size: int) -> list[bytes]:
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    return [
        frame(CONTINUATION if number else TEXT, part, fin=number == len(parts) - 1)
        for number, part in enumerate(parts)
    ]


def test_a_message_of_the_pattern_is_taken() -> None:
    scanner = tapped()
    assert scanner.feed(OTHER + TAKES + OTHER, 0.0) == OTHER + OTHER
    assert scanner.verdict == TAKEN
    assert scanner.take() == ["abc"]
    assert scanner.take() == []
    assert scanner.feed(OTHER, 0.0) == OTHER
    assert scanner.verdict == PASS


def test_what_was_taken_is_told_until_somebody_takes_it() -> None:
    scanner = tapped()
    scanner.feed(TAKES, 0.0)
    scanner.feed(TAKES, 0.0)
    scanner.feed(OTHER, 0.0)
    assert scanner.verdict == TAKEN
    assert scanner.take() == ["abc", "abc"]


@pytest.mark.parametrize(
    "data",
    [
        OTHER,
        frame(TEXT),
        frame(TEXT, b"{"),
        frame(TEXT, b"hello"),
        frame(TEXT, b" " * 20),
        frame(TEXT, REQUEST[:-1]),
        frame(BINARY, REQUEST),
        frame(BINARY, bytes(70_000)),
        frame(TEXT, REQUEST[:-1] + b" " * MAX_SIZE + b"}"),
        frame(TEXT, b'{"a":"' + b"a" * 70_000 + b'"}'),
        frame(PONG, b"pong") + frame(PING, OWN_PONG),
    ],
)
def test_what_is_not_of_the_pattern_passes_uncopied(data: bytes) -> None:
    scanner = tapped()
    assert scanner.feed(data, 0.0) is data
    assert scanner.verdict == PASS
    half = len(data) // 2
    assert scanner.feed(data[:half], 0.0) + scanner.feed(data[half:], 0.0) == data


def test_no_part_of_a_message_that_could_be_one_is_forwarded() -> None:
    scanner = tapped()
    for at in range(len(TAKES)):
        assert scanner.feed(TAKES[at : at + 1], 0.0) == b""
        assert scanner.remaining == 0
    assert scanner.take() == ["abc"]


def test_a_message_goes_on_at_the_first_sign_that_it_is_none() -> None:
    scanner = tapped()
    data = frame(TEXT, b"  hello")
    assert scanner.feed(data[:8], 0.0) == b""
    assert scanner.remaining == 0
    assert scanner.feed(data[8:9], 0.0) == data[:9]
    assert scanner.remaining == 4
    assert scanner.feed(data[9:], 0.0) == data[9:]


@pytest.mark.parametrize("size", [1, 7, len(REQUEST) - 1])
def test_a_fragmented_message_is_taken(size: int) -> None:
    scanner = tapped()
    assert scanner.feed(b"".join(in_fragments(REQUEST, size)) + OTHER, 0.0) == OTHER
    assert scanner.take() == ["abc"]


def test_control_frames_pass_a_message_that_is_held() -> None:
    scanner = tapped()
    first, last = in_fragments(REQUEST, 20)
    ping, pong = frame(PING, b"ping"), frame(PONG, b"pong")
    assert scanner.feed(first + ping, 0.0) == ping
    assert scanner.feed(pong[:7], 0.0) == b""
    assert scanner.feed(pong[7:] + OURS + last, 0.0) == pong
    assert scanner.take() == ["abc"]


def test_a_message_that_gets_too_long_goes_on_before_the_frame_that_makes_it_so() -> None:
    scanner = tapped()
    begun = frame(TEXT, b'{"a":"', fin=False)
    fits = frame(CONTINUATION, b"x" * (MAX_SIZE - 6), fin=False)
    ended = frame(CONTINUATION, b'"}')
    assert scanner.feed(begun + fits, 0.0) == b""
    assert scanner.feed(ended[:7], 0.0) == begun + fits + ended[:7]
    assert scanner.remaining == 1
    assert scanner.feed(ended[7:] + TAKES, 0.0) == ended[7:]
    assert scanner.take() == ["abc"]


def test_a_fragmented_message_over_the_size_is_not_taken() -> None:
    scanner = tapped()
    data = b"".join(in_fragments(REQUEST.ljust(MAX_SIZE + 1), 20))
    assert scanner.feed(data, 0.0) == data
    assert scanner.take() == []


def test_a_message_of_one_byte_in_each_fragment_is_taken() -> None:
    scanner = tapped()
    longest = REQUEST.ljust(MAX_SIZE)
    assert scanner.feed(b"".join(in_fragments(longest, 1)), 0.0) == b""
    assert scanner.take() == ["abc"]


def test_a_flood_of_empty_fragments_is_not_held() -> None:
    scanner, held = tapped(), 0
    data = frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 1000
    for at in range(0, len(data), 6):
        held += 6 - len(scanner.feed(data[at : at + 6], 0.0))
        assert held <= 8 * MAX_SIZE
    assert held == 0


@pytest.mark.parametrize("cut", [*range(len(OURS) + 1)])
def test_a_pong_to_the_sidecars_ping_is_swallowed(cut: int) -> None:
    scanner = TappedScanner(FrameScanner(masked=True), None, OWN_PONG)
    assert scanner.feed(OTHER + OURS[:cut], 0.0) + scanner.feed(OURS[cut:] + OTHER, 0.0) == (
        OTHER + OTHER
    )
    assert scanner.verdict == PASS


def test_a_pong_that_only_resembles_one_passes() -> None:
    scanner = tapped()
    data = frame(PONG, b"X" + OWN_PONG)
    assert scanner.feed(data[:9], 0.0) == b""
    assert scanner.remaining == 0
    assert scanner.feed(data[9:], 0.0) == data
    short = frame(PONG, OWN_PONG[:-1])
    assert scanner.feed(short[:7], 0.0) == short[:7]


def test_with_nothing_to_look_for_everything_passes() -> None:
    scanner = TappedScanner(FrameScanner(masked=True), None, None)
    data = OURS + TAKES + frame(TEXT, b"", fin=False) + frame(CONTINUATION)
    assert scanner.feed(data, 0.0) is data


def test_what_is_taken_is_checked_charged_and_counted() -> None:
    inner = FrameScanner(masked=True, messages=Bucket(1, 1, 2, ON_EXCEED_CLOSE))
    scanner = tapped(inner)
    assert scanner.feed(TAKES + OTHER + TAKES, 0.0) == OTHER
    assert scanner.verdict == RATE
    assert scanner.take() == ["abc"]
    assert (inner.frames, inner.messages, inner.detail) == (2, 2, "messages")
    assert scanner.feed(OTHER, 9.0) == b""


def test_a_message_that_a_rate_leaves_out_is_not_taken() -> None:
    scanner = tapped(FrameScanner(masked=True, messages=Bucket(1, 1, 1, ON_EXCEED_DROP)))
    assert scanner.feed(OTHER + TAKES, 0.0) == OTHER
    assert (scanner.verdict, scanner.take()) == (PASS, [])


def test_a_wait_is_told_before_what_was_taken() -> None:
    scanner = tapped(FrameScanner(masked=True, messages=Bucket(1, 1, 1, ON_EXCEED_DELAY)))
    assert scanner.feed(TAKES + OTHER, 0.0) == b""
    assert scanner.verdict == WAIT
    assert scanner.feed(b"", 1.0) == OTHER
    assert (scanner.verdict, scanner.take()) == (TAKEN, ["abc"])


@pytest.mark.parametrize(
    ("data", "passed", "verdict"),
    [
        (close(1000), close(1000), CLOSED),
        (frame(TEXT, b"new"), b"", PROTOCOL_ERROR),
        (frame(CONTINUATION, bytes(200)), b"", TOO_BIG),
    ],
)
def test_what_is_held_at_the_end_goes_nowhere(data: bytes, passed: bytes, verdict: int) -> None:
    scanner = tapped(FrameScanner(masked=True, max_message=199))
    assert scanner.feed(in_fragments(REQUEST, 20)[0] + data, 0.0) == passed
    assert (scanner.verdict, scanner.remaining) == (verdict, 0)
    assert scanner.feed(OTHER, 0.0) == b""


def test_another_rule_holds_from_the_next_message_on() -> None:
    class Other(Refresh):
        def match(self, payload: bytes) -> object | None:
            return None

    scanner = tapped(FrameScanner(masked=True))
    first, *rest = in_fragments(REQUEST, 20)
    assert scanner.feed(first, 0.0) == b""
    scanner.change(Other(), None)
    scanner.change(None, None)  # the last one counts
    assert scanner.feed(b"".join(rest) + OTHER + frame(TEXT, REQUEST), 0.0) == OTHER + frame(
        TEXT, REQUEST
    )
    assert len(scanner.take()) == 1
    scanner.change(Refresh(), None)
    assert scanner.feed(frame(TEXT, REQUEST), 0.0) == b""


def test_own_pongs_change_at_once() -> None:
    scanner = tapped(FrameScanner(masked=True))
    own = frame(PONG, b"12345678")
    assert scanner.feed(in_fragments(REQUEST, 20)[0] + own, 0.0) == own
    scanner.change(None, b"12345678")
    assert scanner.feed(own, 0.0) == b""


# The quick look

REAL = MessagePattern(((ClaimPath.parse("/type"), "refresh"),), ClaimPath.parse("/token"), 4096)


class Anything(Refresh):
    """Takes whatever it is asked about."""

    def __init__(self, max_size: int, needle: bytes, escape: bytes) -> None:
        self.max_size = max_size
        self.needles = (needle,)  # type: ignore[assignment]
        self.escape = escape

    def could_match(self, payload: bytes) -> bool:
        return True

    def match(self, payload: bytes) -> object | None:
        return payload


@pytest.fixture(params=["as it is", "in loops"])
def _both_looks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loops are for the compiled form; here they run as Python too."""
    if request.param == "in loops":
        monkeypatch.setattr(tap, "_COMPILED", True)


@pytest.mark.usefixtures("_both_looks")
@pytest.mark.parametrize("escape", [b"\\", b"\\u", b"\\u00"])
@pytest.mark.parametrize("needle", [b'""', b'"refresh"', b'"' + b"long" * 10 + b'"'])
def test_a_needle_is_found_wherever_it_stands(needle: bytes, escape: bytes) -> None:
    @given(
        hidden=st.booleans(),
        before=st.integers(0, 40) | st.integers(950, 1100) | st.integers(1950, 2100),
        after=st.integers(0, 9),
        key=st.binary(min_size=4, max_size=4),
        start=st.sampled_from([b"{", b" \n{", b"\xef\xbb\xbf{"]),
    )
    def found(hidden: bool, before: int, after: int, key: bytes, start: bytes) -> None:
        payload = start + b"x" * before + (escape if hidden else needle) + b"y" * after
        pattern = Anything(4096, needle, escape)
        scanner = TappedScanner(FrameScanner(masked=True), pattern, None)
        assert scanner.feed(masked(0x81, payload, key), 0.0) == b""
        assert scanner.take() == [payload]

    found()


@pytest.mark.usefixtures("_both_looks")
@pytest.mark.parametrize("size", [0, 1, 30, 1010, 1030, 3000])
@pytest.mark.parametrize("start", [b"{", b"[", b"  ", b"  {"])
def test_a_message_without_needle_and_escape_is_not_asked_about(size: int, start: bytes) -> None:
    pattern = Anything(4096, b'"refresh"', b"\\u00")
    scanner = TappedScanner(FrameScanner(masked=True), pattern, None)
    # twice: what is left of another message must not be found behind a shorter one for good
    for _ in range(2):
        data = frame(TEXT, start + b"x" * size)
        assert scanner.feed(data, 0.0) is data


@pytest.mark.usefixtures("_both_looks")
def test_without_a_needle_every_object_is_asked_about() -> None:
    pattern = Anything(4096, b"", b"\\u")
    pattern.needles = ()  # type: ignore[assignment]
    scanner = TappedScanner(FrameScanner(masked=True), pattern, None)
    assert scanner.feed(frame(TEXT, b"[]") + frame(TEXT, b"{}"), 0.0) == frame(TEXT, b"[]")
    assert scanner.take() == [b"{}"]


@pytest.mark.usefixtures("_both_looks")
@pytest.mark.parametrize(
    ("message", "told"),
    [
        ('{"type": "refresh", "token": "a.b"}', "a.b"),
        ('{"type": "\\u0072efresh", "token": "a.b"}', "a.b"),
        ('\ufeff{"type": "refresh", "token": "a.b"}', BadToken),
        ('{"type": "refresh", "type": "x", "token": "a.b"}', BadToken),
    ],
)
def test_a_policys_pattern_is_one(message: str, told: object) -> None:
    scanner = TappedScanner(FrameScanner(masked=True), REAL, None)
    assert scanner.feed(frame(TEXT, message.encode()), 0.0) == b""
    (found,) = scanner.take()
    assert found == told or type(found) is told
