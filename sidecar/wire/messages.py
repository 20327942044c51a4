"""A client's first message, put together from its frames; and whole frames of the sidecar's own."""

from typing import Final

from sidecar.wire import frames
from sidecar.wire.buckets import Bucket
from sidecar.wire.scanner import CLOSED, PASS, PROTOCOL_ERROR, RATE, TOO_BIG

__all__ = ["MAX_FRAGMENTS", "WHOLE", "FirstMessage"]

WHOLE: Final = 50
"""A verdict beside the scanner's: the message is there."""

MAX_FRAGMENTS: Final = 1024
"""Frames that one message may come in: empty ones would be without end."""

_FIN: Final = 0x80
_OPCODE: Final = 0x0F
_CONTROL: Final = 0x08
_MASKED: Final = 0x80
_HEAD: Final = 6  # bytes of a client's header without extended length: two and the mask's four


class FirstMessage:
    """Reads what a client sends until its first data message is whole.

    The rules of frames are those of `wire.scanner` (RFC 6455 section 5); no payload is waited for
    whose header breaks one. The message may have `max_size` bytes of payload and MAX_FRAGMENTS
    frames, whatever a route's limits are: it goes no further. `controls` is charged for pings and
    pongs. What is held is less than the message, one frame's header and one read.

    Attributes to read after `feed`; every verdict but PASS is final:

    verdict        PASS: more is needed. WHOLE: `payload` and `rest` are there. CLOSED: the client
                   sent a close frame, with `close_code` (1005: without one). PROTOCOL_ERROR,
                   TOO_BIG, RATE: as the scanner's
    detail         why it is one of these three; for the log
    payload        the message's bytes, unmasked; not checked to be UTF-8
    text           whether the message is text; else it is binary
    rest           what came behind the message, as it came
    """

    __slots__ = (
        "_controls",
        "_fragments",
        "_held",
        "_max_size",
        "close_code",
        "detail",
        "payload",
        "rest",
        "text",
        "verdict",
    )

    def __init__(self, max_size: int, controls: Bucket | None) -> None:
        self._max_size = max_size
        self._controls = controls
        self._held = bytearray()  # what is not read yet: a part of a frame, between two reads
        self._fragments = 0
        self.verdict = PASS
        self.detail = ""
        self.payload = bytearray()
        self.text = False
        self.rest = b""
        self.close_code = 0

    def feed(self, data: bytes, now: float) -> list[bytes]:
        """Read what came at `now` (seconds of a steady clock). The payloads of the pings in it, to
        be answered in this order (section 5.5.2).
        """
        self._held += data
        pings: list[bytes] = []
        at = 0
        while self.verdict == PASS:
            end = self._frame(at, now, pings)
            if end == at:
                break
            at = end
        if self.verdict == WHOLE:
            self.rest = bytes(self._held[at:])
        del self._held[: at if self.verdict == PASS else None]
        return pings

    def _frame(self, at: int, now: float, pings: list[bytes]) -> int:
        """Read the frame at `at`; where it ends, or `at` itself where that cannot be done (yet)."""
        body = self._header(at)
        if body == at:
            return at
        held = self._held
        first, form = held[at], held[at + 1] & 0x7F
        length = form
        if form > 125:
            length = frames.extended_length(bytes(held[at + 2 : at + 10]), 0, form)
            if length < 0:
                return self._fail(PROTOCOL_ERROR, frames.LENGTH_ERRORS[length], at)
        if not first & _CONTROL and length > self._max_size - len(self.payload):
            return self._fail(TOO_BIG, "first message", at)
        end = body + length
        if end > len(held):
            return at
        payload = frames.apply_mask(bytes(held[body:end]), bytes(held[body - 4 : body]))
        if first & _CONTROL:
            return self._control(first & _OPCODE, payload, now, pings, at, end)
        return self._data(first, payload, at, end)

    def _header(self, at: int) -> int:
        """Where the payload of the frame at `at` begins; `at` for a header that is not whole."""
        held = self._held
        if len(held) - at < 2:
            return at
        first, second = held[at], held[at + 1]
        wrong = frames.header_error(first, second, _MASKED, self._fragments > 0)
        if wrong:
            return self._fail(PROTOCOL_ERROR, wrong, at)
        form = second & 0x7F
        body = at + _HEAD + (0 if form < 126 else 2 if form == 126 else 8)
        return body if body <= len(held) else at

    def _control(
        self, opcode: int, payload: bytes, now: float, pings: list[bytes], at: int, end: int
    ) -> int:
        if opcode == frames.CLOSE:
            code = int.from_bytes(payload[:2], "big") if payload else frames.NO_STATUS
            # section 7.4: some codes MUST NOT be set in a frame
            if payload and not frames.valid_close_code(code):
                return self._fail(PROTOCOL_ERROR, "close code not allowed", at)
            self.close_code = code
            self.verdict = CLOSED
            return end
        if self._controls is not None and self._controls.take(1.0, now) > 0.0:
            return self._fail(RATE, "control frames", at)
        if opcode == frames.PING:
            pings.append(payload)
        return end

    def _data(self, first: int, payload: bytes, at: int, end: int) -> int:
        if self._fragments == MAX_FRAGMENTS:
            return self._fail(RATE, "fragments", at)
        if not self._fragments:
            self.text = first & _OPCODE == frames.TEXT
        self._fragments += 1
        self.payload += payload
        if first & _FIN:
            self.verdict = WHOLE
        return end

    def _fail(self, verdict: int, detail: str, at: int) -> int:
        self.verdict = verdict
        self.detail = detail
        return at
