"""Takes messages of a pattern, and the pongs to the sidecar's own pings, out of a client's stream.

Stands behind a FrameScanner, which has checked and charged every frame before it comes here, and
gives whole headers only. What cannot be of the pattern by its frames' headers alone is not looked
at. What could be is held back, and goes on as the same bytes at the first sign that it is not:

    a text message in one frame that is there as a whole     looked at where it stands
    one that is not there as a whole, or is fragmented       held until it is complete
    control frames between the fragments of one that is held   pass as soon as they are complete

So while anything is held, what was forwarded ends at the end of a frame.
"""

from inspect import isfunction
from typing import Protocol

from sidecar.wire.frames import apply_mask, extended_length
from sidecar.wire.scanner import FrameScanner
from sidecar.wire.verdicts import PASS, TAKEN

__all__ = ["Pattern", "TappedScanner"]

# The first byte of a frame (RFC 6455 section 5.2).
_FIN = 0x80
_CONTROL = 0x08
_TEXT = 0x01
_FIN_TEXT = 0x81
_FIN_BINARY = 0x82
_FIN_PONG = 0x8A

_PASS = PASS
_NEVER = 126  # bytes that no control frame has

# A one-byte fragment takes 7 bytes on the wire. Beyond 8 it is empty fragments that fill memory.
_RAW = 8

_BEGINNING = 64  # bytes after which it is not asked any more whether a message could begin so
_FIRST_BYTES = b"{ \t\r\n\xef"  # of a JSON object, blanks or a byte order mark before it

# What `_glance` unmasks at once, how much of a needle it compares, and the room for both.
_BLOCK = 1024
_NEEDLE = 16
_SCRATCH = bytearray(_BLOCK + _NEEDLE)


class Pattern(Protocol):
    """Which messages are taken out; all of them are JSON objects."""

    @property
    def max_size(self) -> int:
        """The largest message of the pattern, in bytes."""
        ...

    @property
    def needles(self) -> tuple[bytes, ...]:
        """What stands in every message of the pattern that has no `escape`, of at least two bytes
        each; the first, if any, is looked for before anything else.
        """
        ...

    @property
    def escape(self) -> bytes:
        """What hides a needle, of at least one byte."""
        ...

    def could_begin(self, prefix: bytes) -> bool:
        """Whether a message that begins so can be of the pattern. Never wrongly false."""
        ...

    def could_match(self, payload: bytes) -> bool:
        """Whether it is worth asking `match`. Never wrongly false."""
        ...

    def match(self, payload: bytes) -> object | None:
        """What is told of the message; None where it is none of the pattern."""
        ...


class TappedScanner:
    """A client's FrameScanner, `inner`, and behind it what takes messages and pongs out.

    `pattern` says which text messages are taken, None for none. A pong whose payload begins with
    `own_pong` is swallowed, none for None. It may begin in the middle of the stream: the frame and
    the fragmented message that are under way then pass. Frames, and what is taken too, are
    counted by `inner`.

    Attributes to read after `feed`:

    verdict        the inner scanner's; TAKEN where that is PASS and `take` has something to give
    remaining      payload bytes still to come of the frame that is being forwarded, 0 where it
                   is held: what is held when a connection ends is not to be forwarded
    """

    __slots__ = (
        *("verdict", "remaining", "_inner", "_pattern", "_max_size", "_own_pong", "_pong_size"),
        *("_needle", "_escape", "_taken", "_ready"),
        *("_raw", "_text", "_key", "_last", "_control", "_next"),
    )

    verdict: int
    remaining: int
    _inner: FrameScanner
    _pattern: Pattern | None
    _max_size: int
    _own_pong: bytes
    _pong_size: int  # bytes that a pong of the sidecar's has at least
    _needle: bytes  # the beginning of the first one
    _escape: bytes
    _taken: list[object]
    _ready: bytes  # what goes on in place of the bytes that were dealt with last
    _raw: bytearray  # the frames of the message that is held
    _text: bytearray  # and its payload
    _key: bytes  # the mask of what comes next of it
    _last: bool  # its last frame has begun
    _control: bytearray  # an incomplete control frame that is held
    _next: list[Pattern | None] | None  # what is looked for once nothing is held

    def __init__(
        self, inner: FrameScanner, pattern: Pattern | None, own_pong: bytes | None
    ) -> None:
        self._inner = inner
        self.verdict = inner.verdict
        self.remaining = inner.remaining
        self._taken = []
        self._ready = b""
        self._raw = bytearray()
        self._text = bytearray()
        self._key = b""
        self._last = False
        self._control = bytearray()
        self.change(pattern, own_pong)

    def feed(self, data: bytes, now: float) -> bytes:
        """As FrameScanner's: what may be forwarded now, `data` itself when all of it may."""
        inner = self._inner
        at = inner.remaining  # the frame under way ends here
        pongs = inner.pongs
        data = inner.feed(data, now)
        end = len(data)
        start = 0  # the first byte not passed on to `kept` or held
        kept: list[bytes] | None = None
        if self._raw or self._control:
            at = start = self._go_on(data, min(at, end), at <= end)
            kept = [self._given()]
        elif self._max_size < 0 and inner.pongs == pongs:
            at = end
        while at < end:
            first = data[at]
            length = data[at + 1] & 0x7F
            body = at + 6
            if length == 126:
                length = data[at + 2] << 8 | data[at + 3]
                body = at + 8
            elif length == 127:
                length = extended_length(data, at + 2, length)
                body = at + 14
            whole = length <= end - body
            after = body + length if whole else end
            if first == _FIN_TEXT and whole:
                asked = 1 < length <= self._max_size and self._could(data, body, after)
            else:
                asked = first != _FIN_BINARY and self._looked_at(first, length)
            if asked and self._kept_back(data, at, body, length, whole):
                if kept is None:
                    kept = []
                kept.append(data[start:at])
                kept.append(self._given())
                start = after
            at = after
        self.remaining = 0 if self._raw or self._control else inner.remaining
        self.verdict = inner.verdict
        if self._taken and self.verdict == _PASS:
            self.verdict = TAKEN
        if kept is not None:
            kept.append(data[start:])
            return b"".join(kept)
        return data

    def take(self) -> list[object]:
        """What `match` gave of the messages that were taken since the last time, in order."""
        taken = self._taken
        self._taken = []
        return taken

    def change(self, pattern: Pattern | None, own_pong: bytes | None) -> None:
        """Take these out from now on. A message that is held still is of the pattern before or not:
        a rule that goes must not let half a token out.
        """
        self._own_pong = own_pong or b""
        self._pong_size = _NEVER if own_pong is None else len(own_pong)
        if self._raw:
            self._next = [pattern]
        else:
            self._look_for(pattern)

    def _look_for(self, pattern: Pattern | None) -> None:
        needles = () if pattern is None else pattern.needles
        self._pattern = pattern
        self._max_size = -1 if pattern is None else pattern.max_size
        self._needle = needles[0][:_NEEDLE] if needles else b""
        self._escape = b"" if pattern is None else pattern.escape
        self._next = None

    def _given(self) -> bytes:
        ready = self._ready
        self._ready = b""
        return ready

    def _looked_at(self, first: int, length: int) -> bool:
        """Whether a frame is not passed by its header alone."""
        if first & _CONTROL:
            return len(self._raw) > 0 or (first == _FIN_PONG and length >= self._pong_size)
        if first & _TEXT:
            return length <= self._max_size
        return len(self._raw) > 0

    def _kept_back(self, data: bytes, at: int, body: int, length: int, whole: bool) -> bool:
        """Deal with the frame at `at`: False where it passes as it stands. Else `_ready` is what
        goes on in its place.
        """
        first = data[at]
        after = body + length if whole else len(data)
        if first & _CONTROL:
            return self._keep_control(data, at, body, length, whole)
        if first == _FIN_TEXT and whole:
            return self._take(apply_mask(data[body:after], data[body - 4 : body]))
        size = len(self._text) + length
        if size > self._max_size or len(self._raw) + body - at + length > _RAW * self._max_size:
            self._ready = self._flush() + data[at:after]
            return True
        self._raw += data[at:body]
        self._key = data[body - 4 : body]
        self._last = first & _FIN != 0
        self._grow(data, body, after, whole)
        return True

    def _keep_control(self, data: bytes, at: int, body: int, length: int, whole: bool) -> bool:
        """The same for a control frame: one that is not whole waits until it is."""
        if not whole:
            self._control += data[at:]
            return True
        if data[at] != _FIN_PONG or length < self._pong_size:
            return False
        beginning = data[body : body + self._pong_size]
        return apply_mask(beginning, data[body - 4 : body]) == self._own_pong

    def _go_on(self, data: bytes, end: int, whole: bool) -> int:
        """Deal with the rest of the frame that is held, which ends at `end`; where that is."""
        if not self._control:
            self._grow(data, 0, end, whole)
            return end
        self._control += data[:end]
        if whole:
            frame = bytes(self._control)
            self._control = bytearray()
            if not self._keep_control(frame, 0, 6, len(frame) - 6, True):
                self._ready = frame
        return end

    def _grow(self, data: bytes, start: int, end: int, whole: bool) -> None:
        """Hold that much more of the payload, and let the message go on where it is none."""
        before = len(self._text)
        self._raw += data[start:end]
        self._text += apply_mask(data[start:end], self._key)
        turn = (end - start) & 3
        self._key = self._key[turn:] + self._key[:turn]
        if whole and self._last:
            taken = self._take(bytes(self._text))
            raw = self._flush()
            self._ready = b"" if taken else raw
        elif before < _BEGINNING and not self._begins():
            self._ready = self._flush()

    def _begins(self) -> bool:
        pattern = self._pattern
        return pattern is not None and pattern.could_begin(bytes(self._text[:_BEGINNING]))

    def _take(self, payload: bytes) -> bool:
        """Whether a whole message is of the pattern, and so taken."""
        pattern = self._pattern
        found = pattern.match(payload) if pattern and pattern.could_match(payload) else None
        if found is not None:
            self._taken.append(found)
        return found is not None

    def _flush(self) -> bytes:
        raw = bytes(self._raw)
        self._raw, self._text = bytearray(), bytearray()
        if self._next is not None:
            self._look_for(self._next[0])
        return raw

    def _could(self, data: bytes, body: int, after: int) -> bool:
        """Whether a message that stands whole in one frame is worth a closer look."""
        if _COMPILED:
            return self._glance(data, body, after)
        if data[body] ^ data[body - 4] not in _FIRST_BYTES:
            return False
        payload = apply_mask(data[body:after], data[body - 4 : body])
        return self._needle in payload or self._escape in payload

    def _glance(self, data: bytes, body: int, after: int) -> bool:
        """The same in loops that a C compiler makes one instruction of for many bytes; sometimes
        wrongly true, as what is left of the last block may follow the end of the last one.
        """
        key = body - 4
        at = body
        first = 0x20
        while first <= 0x20 and at < after:
            first = data[at] ^ data[key + (at - body & 3)]
            at += 1
        if (first != 0x7B and first != 0xEF) or not self._needle:
            return first == 0x7B or first == 0xEF
        at = body
        while not self._in_block(data, key, at, min(after - at, _BLOCK)):
            at += _BLOCK - _NEEDLE
            if at + _NEEDLE >= after:
                return False
        return True

    def _in_block(self, data: bytes, key: int, start: int, size: int) -> bool:
        """Unmask that much, and look for some bytes of the escape and of the needle."""
        target = _SCRATCH
        mask0, mask1, mask2, mask3 = data[key], data[key + 1], data[key + 2], data[key + 3]
        fours = size & ~3
        for at in range(0, fours, 4):
            target[at] = data[start + at] ^ mask0
            target[at + 1] = data[start + at + 1] ^ mask1
            target[at + 2] = data[start + at + 2] ^ mask2
            target[at + 3] = data[start + at + 3] ^ mask3
        for at in range(fours, size):
            target[at] = data[start + at] ^ data[key + (at & 3)]
        needle, escape = self._needle, self._escape
        end, tail = len(needle) - 1, len(escape) - 1
        byte0, byte1, byte2 = needle[0], needle[1], needle[end]
        escape0, escape1 = escape[0], escape[tail]
        found = 0
        for at in range(size):
            found |= (
                (target[at] == byte0) & (target[at + 1] == byte1) & (target[at + end] == byte2)
            ) | ((target[at] == escape0) & (target[at + tail] == escape1))
        return found != 0


_COMPILED = not isfunction(TappedScanner.feed)
