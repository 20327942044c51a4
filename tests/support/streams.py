"""A client's messages as a stream of frames, cut anywhere, and how to tell what came out of it."""

import json
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import strategies as st

from tests.support.frames import BINARY, CONTINUATION, PING, PONG, TEXT, mask

MAX_SIZE = 48
OWN_PONG = b"\x00own\xffpong"


class Refresh:
    """`{"do": "refresh", "token": ...}`, of at most 48 bytes, in any spelling."""

    max_size = MAX_SIZE
    needles = (b'"refresh"', b'"do"')
    escape = b"\\u00"

    def could_begin(self, prefix: bytes) -> bool:
        return prefix.lstrip()[:1] in (b"", b"{")

    def could_match(self, payload: bytes) -> bool:
        return b"\\u00" in payload or all(needle in payload for needle in self.needles)

    def match(self, payload: bytes) -> object | None:
        try:
            message = json.loads(payload.decode())
        except ValueError:
            return None
        if not isinstance(message, dict) or message.get("do") != "refresh":
            return None
        token: object = message.get("token", "no token")
        return token


@dataclass(frozen=True)
class Message:
    """A data message: its frames, with the control frames that stand before each."""

    payload: bytes
    frames: tuple[bytes, ...]
    controls: tuple[tuple[bytes, ...], ...]
    text: bool

    @property
    def token(self) -> object | None:
        """What is told of it where it is to be taken."""
        fits = self.text and len(self.payload) <= MAX_SIZE
        return Refresh().match(self.payload) if fits else None

    @property
    def data(self) -> bytes:
        """As it is sent."""
        pairs = zip(self.controls, self.frames, strict=True)
        return b"".join(b"".join(controls) + frame for controls, frame in pairs)


def split(data: bytes) -> list[bytes]:
    """Whole masked frames, and what is left behind the last."""
    found = []
    at = 0
    while len(data) - at >= 2:
        width = {126: 2, 127: 8}.get(data[at + 1] & 127, 0)
        length = data[at + 1] & 127
        if width:
            length = int.from_bytes(data[at + 2 : at + 2 + width])
        end = at + 6 + width + length
        if end > len(data):
            break
        found.append(data[at:end])
        at = end
    return [*found, data[at:]] if data[at:] else found


def is_control(frame: bytes) -> bool:
    return bool(frame[0] & 8)


def is_own_pong(frame: bytes) -> bool:
    return frame[0] == 0x8A and mask(frame[6:], frame[2:6]).startswith(OWN_PONG)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes in reads that end at these places, taken from the beginning again and again."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def masked(first: int, payload: bytes, key: bytes) -> bytes:
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2)
    return bytes([first]) + length + key + mask(payload, key)


def spelled(text: str, escaped: list[bool]) -> str:
    return "".join(
        f"\\u{ord(character):04x}" if hidden else character
        for character, hidden in zip(text, escaped, strict=True)
    )


keys = st.binary(min_size=4, max_size=4) | st.just(bytes(4))
blanks = st.text(" \n", max_size=3)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Messages of the pattern, most of them, in many spellings."""
    hidden = [False] * 7
    if draw(st.booleans()):
        hidden[draw(st.integers(0, 6))] = True
    token = draw(st.sampled_from(["", ',"token":"a"', ',"token":"bc"']))
    return f'{draw(blanks)}{{"do":{draw(blanks)}"{spelled("refresh", hidden)}"{token}}}'.encode()


payloads = (
    requests()
    | st.sampled_from(
        [
            *(b"", b"{", b"{}", b" ", b'{"do":"refresher"}', b'{"do":"re', b'[{"do":"refresh"}]'),
            b'{"do":"refresh","x":"' + b"x" * 40 + b'"}',
            b'{"text":"' + b"x" * 300 + b'"}',
            b'{"do":"r\\u00e9"}',
        ]
    )
    | st.binary(max_size=60)
)


@st.composite
def control_frames(draw: st.DrawFn) -> bytes:
    payload = draw(
        st.sampled_from([b"", OWN_PONG, OWN_PONG[:-1], OWN_PONG + b"!", bytes(125)])
        | st.binary(max_size=12)
    )
    return masked(draw(st.sampled_from([0x80 | PING, 0x80 | PONG])), payload, draw(keys))


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """A message, mostly text, in any frames, with control frames before and between."""
    payload = draw(payloads)
    text = draw(st.integers(0, 4)) > 0
    parts = pieces(payload, draw(st.lists(st.integers(0, 400), max_size=4)))
    frames, controls = [], []
    for number, part in enumerate(parts):
        opcode = CONTINUATION if number else TEXT if text else BINARY
        fin = 0x80 if number == len(parts) - 1 else 0
        frames.append(masked(fin | opcode, part, draw(keys)))
        controls.append(tuple(draw(st.lists(control_frames(), max_size=1))))
    return Message(payload, tuple(frames), tuple(controls), text)


cuts = st.lists(st.integers(0, 5000), max_size=30)
streams = st.lists(messages(), max_size=6)
