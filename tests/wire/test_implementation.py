"""Both forms of the scanner do the same, to the last digit of every counter and wait."""

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.policy.limits import UNLIMITED
from sidecar.proxy.scanners import client_scanner
from sidecar.wire import implementation as implementation_in_use
from sidecar.wire.buckets import ON_EXCEED_CLOSE, ON_EXCEED_DELAY, ON_EXCEED_DROP
from sidecar.wire.scanner import TOO_BIG
from tests.support.frames import BINARY, CONTINUATION, PING, PONG, TEXT, close, frame
from tests.support.implementations import PYTHON, Implementation, compiled
from tests.support.streams import OWN_PONG, Message, Refresh, pieces, streams

LONGEST = 2**63 - 1
# Where a signed or a floating number of 64 bits ends, and above.
EDGES = [
    *(125, 126, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53, 2**53 + 1),
    *(2**62, LONGEST - 1, LONGEST, 2**63, 2**64 - 1),
]
ATTRIBUTES = (
    *("verdict", "detail", "wait", "remaining", "close_code", "close_reason"),
    *(
        "frames",
        "messages",
        "payload_bytes",
        "dropped",
        "pongs",
        "active_at",
        "fragmented",
        "_held",
    ),
)


class Rate(NamedTuple):
    amount: float
    seconds: float
    burst: float
    on_exceed: int = ON_EXCEED_CLOSE


class Rules(NamedTuple):
    masked: bool = False
    max_message: int = 0
    max_frame: int = 0
    messages: Rate | None = None
    payload: Rate | None = None
    controls: Rate | None = None


class Read(NamedTuple):
    data: bytes
    pause: float = 0.0


small = st.integers(1, 9) | st.floats(0.1, 300)
huge = st.sampled_from([2**53 + 1, LONGEST, 10**24]) | st.floats(1e15, 1e24)
exceeds = st.sampled_from([ON_EXCEED_CLOSE, ON_EXCEED_DROP, ON_EXCEED_DELAY])
rates = st.builds(Rate, small | huge, st.sampled_from([1, 60, 0.1]), small | huge, exceeds)
limits = st.sampled_from([0] * 8 + [300, 2**16, 2**53 + 1, LONGEST - 1, LONGEST, 2**63, 10**24])
rules = st.builds(
    Rules,
    st.booleans(),
    limits,
    limits,
    st.none() | rates,
    st.none() | rates,
    st.none() | rates,
)


def header(first: int, second: int, length: int) -> bytes:
    """A header with the length in the form that the second byte's lower bits say."""
    width = {126: 2, 127: 8}.get(second & 127, 0)
    return bytes([first, second]) + (length & (1 << 8 * width) - 1).to_bytes(width, "big")


@st.composite
def frames(draw: st.DrawFn, masked: bool, begun: list[bool]) -> bytes:
    """A frame, mostly a good one. `begun` holds whether a fragmented message is under way."""
    kind = draw(st.integers(0, 39))
    if kind == 0:
        return draw(st.binary(max_size=20))
    if kind == 1:
        second = draw(st.sampled_from([126, 127])) | masked << 7
        return header(
            draw(st.sampled_from([0x01, 0x82, 0x80])), second, draw(st.sampled_from(EDGES))
        )
    if kind == 2:
        return close(draw(st.sampled_from([None, 1000, 1005, 4999])), masked=masked)
    payload = bytes(draw(st.integers(0, 300) | st.sampled_from([1023, 1024, 65536])))
    if kind < 8:
        return frame(draw(st.sampled_from([PING, PONG])), payload[:125], masked=masked)
    fin = draw(st.sampled_from([True, False]))
    opcode = CONTINUATION if begun[-1] else draw(st.sampled_from([TEXT, BINARY]))
    begun.append(not fin)
    return frame(opcode, payload, fin=fin, masked=masked)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Rules, list[Read]]:
    """Rules, and bytes cut anywhere that come with pauses of any length, also backwards."""
    given_rules = draw(rules)
    begun = [False]
    count = draw(st.integers(0, 16))
    data = b"".join([draw(frames(given_rules.masked, begun)) for _ in range(count)])
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=12))
    pauses = st.just(0.0) | st.floats(0, 5) | st.floats(-1, 1e9)
    pieces = [data[start:end] for start, end in pairwise([0, *sorted(cuts), len(data)])]
    return given_rules, [Read(piece, draw(pauses)) for piece in [*pieces, b"", b""]]


def follow(
    form: Implementation, given_rules: Rules, given_reads: list[Read]
) -> list[tuple[object, ...]]:
    """All that can be seen of a scanner after each read; of very long output its length."""

    def bucket(rate: Rate | None) -> object:
        return None if rate is None else form.Bucket(*rate)

    masked, max_message, max_frame, *buckets = given_rules
    messages, payload, controls = map(bucket, buckets)
    scanner = form.FrameScanner(
        masked=masked,
        max_message=max_message,
        max_frame=max_frame,
        messages=messages,  # type: ignore[arg-type]
        payload=payload,  # type: ignore[arg-type]
        controls=controls,  # type: ignore[arg-type]
    )
    now, seen = 1_000.1, list[tuple[object, ...]]()
    for data, pause in given_reads:
        now += pause
        out = scanner.feed(data, now)
        told = out if len(out) < 2**20 else len(out)
        seen.append((told, out is data, *(getattr(scanner, name) for name in ATTRIBUTES)))
    return seen


LONG_FRAME = header(0x82, 127, LONGEST)
LONG_FRAGMENT = header(0x02, 127, LONGEST - 1)


@given(case=cases())
@example((Rules(), [Read(LONG_FRAME + b"x"), Read(b"x" * 99)]))
@example((Rules(), [Read(LONG_FRAGMENT), Read(b"x" * 99)]))
@example((Rules(max_message=2**64, max_frame=10**24), [Read(LONG_FRAME)]))
@example((Rules(payload=Rate(1, 1, 2**53 + 1)), [Read(LONG_FRAME), Read(b"", 1.0)]))
@example((Rules(payload=Rate(1, 1, 1, ON_EXCEED_DELAY)), [Read(b"\x81\x01a" + LONG_FRAME)]))
@example((Rules(payload=Rate(1, 1, 1, ON_EXCEED_DROP)), [Read(b"\x81\x01a" + LONG_FRAME + b"x")]))
def test_any_bytes_in_any_pieces_leave_the_same(case: tuple[Rules, list[Read]]) -> None:
    assert follow(compiled(), *case) == follow(PYTHON, *case)


@given(data=st.binary(max_size=200), masked=st.booleans(), step=st.integers(1, 9))
def test_garbage_leaves_the_same(data: bytes, masked: bool, step: int) -> None:
    reads = [Read(data[at : at + step]) for at in range(0, len(data), step)]
    assert follow(compiled(), Rules(masked), reads) == follow(PYTHON, Rules(masked), reads)


@pytest.mark.parametrize("on_exceed", [None, ON_EXCEED_DROP])
def test_a_message_of_many_gigabytes_is_counted_the_same(on_exceed: int | None) -> None:
    size, chunk = 5 * 2**30, b"\xff" * 2**24  # which no frame begins with
    messages = None if on_exceed is None else Rate(1, 1e6, 1, on_exceed)
    reads = [
        Read(b"\x81\x00" if on_exceed is not None else b""),
        *[Read(header(0x02, 127, size)), *[Read(chunk)] * 320],
        *[Read(header(0x00, 127, size)), *[Read(chunk)] * 320],
        Read(header(0x80, 126, 2000)),
    ]
    seen = follow(compiled(), Rules(max_message=2 * size + 1999, messages=messages), reads)
    assert seen == follow(PYTHON, Rules(max_message=2 * size + 1999, messages=messages), reads)
    assert TOO_BIG in seen[-1]


def follow_tap(form: Implementation, given_reads: list[bytes]) -> list[tuple[object, ...]]:
    """The same of what takes messages and pongs out."""
    inner = form.FrameScanner(masked=True)
    scanner = form.TappedScanner(inner, Refresh(), OWN_PONG)
    seen: list[tuple[object, ...]] = []
    for data in given_reads:
        out = scanner.feed(data, 1.0)
        seen.append((out, out is data, scanner.verdict, scanner.remaining, scanner.take()))
    return seen


BEGUN_REFRESH = frame(TEXT, b'{"do":"re', fin=False)


@given(stream=streams, end=st.binary(max_size=20), cuts=st.lists(st.integers(0, 5000)))
@example([], BEGUN_REFRESH + header(0x80, 0xFF, LONGEST - 9) + bytes(4), [])
@example([], header(0x81, 0xFF, LONGEST) + bytes(5), [])
def test_the_same_is_taken_out(stream: list[Message], end: bytes, cuts: list[int]) -> None:
    reads = pieces(b"".join(message.data for message in stream) + end, cuts)
    assert follow_tap(compiled(), reads) == follow_tap(PYTHON, reads)


costs = st.integers(0, LONGEST) | st.integers(0, 50) | st.floats(0, 1e19)
steps = st.lists(st.tuples(st.booleans(), costs, st.floats(-1, 1e9)), max_size=40)


@given(rate=rates, steps=steps)
@example(Rate(1, 1, 2**53 + 1), [(False, 2**53, 0.0), (False, 1, 0.0)])
def test_a_bucket_gives_the_same_waits(rate: Rate, steps: list[tuple[bool, float, float]]) -> None:
    one, other = PYTHON.Bucket(*rate), compiled().Bucket(*rate)
    now = 1_760_000_000.7
    for gives_back, cost, pause in steps:
        now += pause
        if gives_back:
            one.give_back(cost)
            other.give_back(cost)
        assert one.take(cost, now) == other.take(cost, now)


def test_limits_beyond_any_length_are_no_limits(implementation: Implementation) -> None:
    for limit in (LONGEST, 2**63, 10**24):
        scanner = implementation.FrameScanner(masked=False, max_message=limit, max_frame=limit)
        assert scanner.feed(LONG_FRAME, 0.0) is LONG_FRAME
        assert scanner.remaining == LONGEST


def test_the_program_says_which_one_runs(implementation: Implementation) -> None:
    assert implementation_in_use() == implementation.name
    assert type(client_scanner(UNLIMITED)) is implementation.FrameScanner


def test_the_two_are_not_one() -> None:
    assert compiled().FrameScanner is not PYTHON.FrameScanner
    assert compiled().Bucket is not PYTHON.Bucket
