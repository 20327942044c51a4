"""However the bytes are cut, the outcome is that of a plain parser that sees them all at once."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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

MASK = b"\xa5\x5a\x0f\xf0"
SIZES = [*range(9), 100, 124, 125, 126, 127, 128, 1023, 1024, 65535, 65536]
CODES = [*range(998, 1017), 2999, 3000, 4999, 5000]


@dataclass(frozen=True)
class Rules:
    masked: bool
    max_message: int
    max_frame: int
    messages: tuple[int, int] | None  # burst, on_exceed; time stands still
    payload: tuple[int, int] | None
    controls: int | None

    def scanner(self) -> FrameScanner:
        def bucket(rate: tuple[int, int] | None) -> Bucket | None:
            return None if rate is None else Bucket(1, 1, *rate)

        return FrameScanner(
            masked=self.masked,
            max_message=self.max_message,
            max_frame=self.max_frame,
            messages=bucket(self.messages),
            payload=bucket(self.payload),
            controls=bucket(None if self.controls is None else (self.controls, ON_EXCEED_CLOSE)),
        )


@dataclass
class Outcome:
    out: bytes = b""
    verdict: int = PASS
    remaining: int = 0
    close_code: int = 0
    close_reason: bytes = b""
    frames: int = 0
    messages: int = 0
    payload_bytes: int = 0
    dropped: int = 0


class Reference:
    """RFC 6455 section 5 read top to bottom, one whole frame after the other."""

    def __init__(self, rules: Rules, data: bytes) -> None:
        self.rules = rules
        self.data = data
        self.outcome = Outcome()
        self.message: int | None = None
        self.dropping = False
        self.spent = {"messages": 0, "payload": 0, "controls": 0}

    def run(self) -> Outcome:
        while self.outcome.verdict == PASS and len(self.data) >= 2 and self.frame():
            pass
        return self.outcome

    def end(self, verdict: int) -> bool:
        self.outcome.verdict = verdict
        return False

    def affords(self, bucket: str, burst: int, cost: int) -> bool:
        spent = self.spent[bucket]
        return spent == 0 if cost > burst else spent + cost <= burst

    def frame(self) -> bool:
        data, rules = self.data, self.rules
        fin, rsv, opcode = data[0] >> 7, data[0] >> 4 & 7, data[0] & 15
        masked, length = data[1] >> 7, data[1] & 127
        control = opcode >= 8
        if bool(masked) != rules.masked or rsv or opcode not in (0, 1, 2, 8, 9, 10):
            return self.end(PROTOCOL_ERROR)
        if control and (not fin or length > 125 or (opcode == 8 and length == 1)):
            return self.end(PROTOCOL_ERROR)
        if not control and (opcode == 0) != (self.message is not None):
            return self.end(PROTOCOL_ERROR)
        header = 2
        for marker, width, least in ((126, 2, 126), (127, 8, 65536)):
            if data[1] & 127 == marker:
                header = 2 + width
                if len(data) < header:
                    return False
                length = int.from_bytes(data[2:header], "big")
                if not least <= length < 2**63:
                    return self.end(PROTOCOL_ERROR)
        total = (self.message or 0) + length
        if not control and (
            0 < rules.max_frame < length or 0 < rules.max_message < total or total >= 2**63
        ):
            return self.end(TOO_BIG)
        header += 4 * masked
        if len(data) < header:
            return False
        if opcode == 8:
            return self.close(data[header - 4 : header] if masked else bytes(4), header, length)
        passes = self.charge(bool(fin), opcode, length)
        if self.outcome.verdict != PASS:
            return False
        if not control:
            self.message = None if fin else total
            self.dropping = not passes and not fin
            self.outcome.messages += passes and opcode > 0
            self.outcome.dropped += not passes and opcode > 0
        if passes:
            self.outcome.frames += 1
            self.outcome.out += data[: header + length]
            self.outcome.payload_bytes += len(data[header : header + length])
            self.outcome.remaining = max(0, header + length - len(data))
        self.data = data[header + length :]
        return True

    def charge(self, fin: bool, opcode: int, length: int) -> bool:
        rules = self.rules
        costs: list[tuple[str, tuple[int, int] | None, int]] = []
        if opcode >= 8:
            limit = None if rules.controls is None else (rules.controls, ON_EXCEED_CLOSE)
            costs.append(("controls", limit, 1))
        elif self.dropping:
            return False
        else:
            if opcode or (not fin and length < 1024):
                costs.append(("messages", rules.messages, 1))
            costs.append(("payload", rules.payload, length))
        for bucket, limit, cost in costs:
            if limit is not None and not self.affords(bucket, limit[0], cost):
                if limit[1] == ON_EXCEED_DROP and opcode:
                    return False
                return self.end(WAIT if limit[1] == ON_EXCEED_DELAY else RATE)
        for bucket, _, cost in costs:
            self.spent[bucket] += cost
        return True

    def close(self, mask: bytes, header: int, length: int) -> bool:
        payload = self.data[header : header + length]
        if len(payload) < length:
            return False
        plain = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        code = int.from_bytes(plain[:2], "big") if plain else 1005
        sendable = {*range(1000, 1015), *range(3000, 5000)} - {1004, 1005, 1006}
        if plain and code not in sendable:
            return self.end(PROTOCOL_ERROR)
        outcome = self.outcome
        outcome.close_code, outcome.close_reason = code, plain[2:]
        outcome.frames += 1
        outcome.payload_bytes += length
        outcome.out += self.data[: header + length]
        return self.end(CLOSED)


def read(scanner: FrameScanner, out: bytes) -> Outcome:
    return Outcome(
        out,
        scanner.verdict,
        scanner.remaining,
        scanner.close_code,
        scanner.close_reason,
        scanner.frames,
        scanner.messages,
        scanner.payload_bytes,
        scanner.dropped,
    )


def header(first: int, size: int, form: int, masked: bool) -> bytes:
    """A header with the length in the form asked for, be it the shortest or not."""
    if form == 126 and size < 65536:
        length = b"\x7e" + size.to_bytes(2, "big")
    elif form == 127 or size > 125:
        length = b"\x7f" + size.to_bytes(8, "big")
    else:
        length = bytes([size])
    mask = MASK if masked else b""
    return bytes([first, length[0] | masked << 7]) + length[1:] + mask


@st.composite
def frames(draw: Callable[..., int], masked: bool) -> bytes:
    kind = draw(st.integers(0, 19))
    size = draw(st.sampled_from(SIZES))
    if kind == 0:
        return draw(st.binary(max_size=20))  # type: ignore[return-value]
    if kind == 1:
        code = draw(st.sampled_from(CODES)).to_bytes(2, "big")
        payload = code + b"why" * min(size, 40)
        if masked:
            payload = bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload))
        return header(0x88, len(payload), 0, masked) + payload
    if kind == 2:
        form = draw(st.sampled_from([126, 127]))
        return header(draw(st.integers(0, 255)), size, form, masked) + b"x" * size
    if kind == 3:
        return header(0x82, draw(st.integers(0, 2**64 - 1)), 127, masked)
    if kind < 7:
        return header(draw(st.sampled_from([0x89, 0x8A])), min(size, 125), 0, masked) + b"p" * min(
            size, 125
        )
    first = draw(st.sampled_from([0x81, 0x82, 0x81, 0x82, 0x01, 0x00, 0x00, 0x80]))
    form = 0 if size < 126 else 126 if size < 65536 else 127
    return header(first, size, form, masked) + b"x" * size


@st.composite
def cases(draw: Callable[..., object]) -> tuple[Rules, bytes]:
    masked = bool(draw(st.booleans()))
    exceed = st.sampled_from([ON_EXCEED_CLOSE, ON_EXCEED_DROP, ON_EXCEED_DELAY])
    rules: Rules = draw(  # type: ignore[assignment]
        st.builds(
            Rules,
            masked=st.just(masked),
            max_message=st.sampled_from([0, 0, 127, 2000, 70000]),
            max_frame=st.sampled_from([0, 0, 126, 65535]),
            messages=st.none() | st.tuples(st.integers(1, 5), exceed),
            payload=st.none() | st.tuples(st.sampled_from([5, 200, 3000, 70000]), exceed),
            controls=st.none() | st.integers(1, 3),
        )
    )
    parts: list[bytes] = draw(st.lists(frames(masked), max_size=12))  # type: ignore[assignment]
    return rules, b"".join(parts)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


FREE = Rules(False, 0, 0, None, None, None)


@given(case=cases())
def test_bytes_in_one_read_give_what_the_reference_gives(case: tuple[Rules, bytes]) -> None:
    rules, data = case
    scanner = rules.scanner()
    out = scanner.feed(data, 7.0)
    assert read(scanner, out) == Reference(rules, data).run()
    assert out is data or out != data


@given(case=cases(), cuts=st.lists(st.integers(0, 2**20), max_size=30))
@example(case=(FREE, b"\x01\x01a\x88\x03\x03\xe8w\x81\x00"), cuts=list(range(10)))
def test_any_split_gives_what_the_reference_gives(
    case: tuple[Rules, bytes], cuts: list[int]
) -> None:
    rules, data = case
    scanner = rules.scanner()
    out = b"".join(scanner.feed(piece, 7.0) for piece in pieces(data, cuts))
    assert read(scanner, out) == Reference(rules, data).run()


@given(case=cases())
def test_byte_by_byte_gives_what_the_reference_gives(case: tuple[Rules, bytes]) -> None:
    rules, data = case
    data = data[:3000]
    scanner = rules.scanner()
    out = b"".join(scanner.feed(data[at : at + 1], 7.0) for at in range(len(data)))
    assert read(scanner, out) == Reference(rules, data).run()


@given(case=cases(), cuts=st.lists(st.integers(0, 2**20), max_size=30))
def test_no_more_than_139_bytes_are_kept_without_a_wait(
    case: tuple[Rules, bytes], cuts: list[int]
) -> None:
    rules, data = case
    scanner = rules.scanner()
    for piece in pieces(data, cuts):
        scanner.feed(piece, 7.0)
        assert scanner.verdict == WAIT or len(scanner._held) <= 139


@given(data=st.binary(max_size=300), masked=st.booleans(), cuts=st.lists(st.integers(0, 300)))
def test_what_is_forwarded_of_garbage_is_its_beginning(
    data: bytes, masked: bool, cuts: list[int]
) -> None:
    scanner = FrameScanner(masked=masked)
    out = b"".join(scanner.feed(piece, 7.0) for piece in pieces(data, cuts))
    assert data.startswith(out)
