"""The hot path: reads frame headers of one direction, in front of the bytes' being forwarded.

Bytes come in, the bytes that may go on come out, with a verdict and counters; a payload is never
kept or looked at, but for that of a close frame. Nothing of a frame is forwarded before its header
was checked (RFC 6455 section 5.2), so a bad frame's first byte never reaches the other side.

Numbers are plain and sums fit into 64 bits with a sign: scanner.pxd has their types in C.
"""

from sidecar.wire import frames
from sidecar.wire.buckets import (
    ON_EXCEED_CLOSE,
    ON_EXCEED_DELAY,
    ON_EXCEED_DROP,
    Bucket,
    take_both,
)
from sidecar.wire.verdicts import CLOSED, PASS, PROTOCOL_ERROR, RATE, TAKEN, TOO_BIG, WAIT

__all__ = ["ON_EXCEED_CLOSE", "ON_EXCEED_DELAY", "ON_EXCEED_DROP", "Bucket", "FrameScanner"]
__all__ += ["CLOSED", "PASS", "PROTOCOL_ERROR", "RATE", "TAKEN", "TOO_BIG", "WAIT"]

# What becomes of one frame, beside the verdicts: it passes (a number once compiled) or is left out.
_PASS = PASS
_DROP = 6

# The longest payload, and the first byte of a frame (section 5.2).
_MAX_LENGTH = 2**63 - 1
_FIN = 0x80
_OPCODE = 0x0F
_CONTROL = 0x08
_FIN_TEXT = 0x81
_FIN_BINARY = 0x82
_FIN_CLOSE = 0x88
_FIN_PONG = 0x8A

_TINY = 1024  # bytes below which a fragment costs a message, or a million would cost one


class FrameScanner:
    """Checks the frames of one direction of one connection.

    `masked` says whether its frames must be masked (a client's) or must not be (a server's),
    RFC 6455 section 5.1. `max_message` and `max_frame` are bytes of payload of a data message and
    of one data frame; 0 is no limit.

    A data message costs 1 of `messages` at its first frame, and so does a continuation frame that
    is not final and shorter than 1 KiB. A data frame costs its payload's length of `payload`, a
    ping or pong 1 of `controls`. `messages` is asked before `payload`; when `payload` refuses,
    `messages` gets back what it charged, so a frame is charged to both or to none. The bucket that
    refuses says what happens. ON_EXCEED_CLOSE ends with RATE. ON_EXCEED_DROP leaves the whole
    message out, at no cost and with control frames between its fragments passing; in the middle
    of a message of which a part has been forwarded already it ends with RATE. ON_EXCEED_DELAY
    gives WAIT. For `controls` it is always RATE.

    Attributes to read after `feed`:

    verdict        one of sidecar.wire.verdicts, but for TAKEN
    detail         why a verdict is PROTOCOL_ERROR, TOO_BIG, RATE or WAIT; for the log
    wait           seconds until a WAIT is worth another try
    remaining      payload bytes still to come of the frame that is being forwarded; 0: what was
                   forwarded ends at a frame boundary
    close_code     code of the close frame, 1005 for an empty one, 0: none seen
    close_reason   its reason's bytes, unmasked; not checked to be UTF-8
    frames, messages, payload_bytes
                   frames forwarded, data messages begun, and payload bytes forwarded of all
                   frames; without what was dropped
    dropped        data messages left out
    pongs          pongs forwarded
    active_at      `now` of the last data frame, ping or close frame, and of the inside of a long
                   frame; 0.0: none yet
    """

    __slots__ = (
        *("verdict", "detail", "wait", "remaining", "close_code", "close_reason"),
        *("frames", "messages", "payload_bytes", "dropped", "pongs", "active_at"),
        *("_mask_bit", "_head", "_max_message", "_max_frame", "_metered"),
        *("_messages_bucket", "_payload_bucket", "_controls_bucket"),
        *("_held", "_skip", "_message", "_fragmented", "_dropping"),
    )

    verdict: int
    detail: str
    wait: float
    remaining: int
    close_code: int
    close_reason: bytes
    frames: int
    messages: int
    payload_bytes: int
    dropped: int
    pongs: int
    active_at: float
    _mask_bit: int
    _head: int  # bytes of a header without extended length
    _max_message: int
    _max_frame: int
    _messages_bucket: Bucket | None
    _payload_bucket: Bucket | None
    _controls_bucket: Bucket | None
    _metered: bool  # data frames cost something
    _held: bytes  # an incomplete header or close frame; with WAIT all that was not scanned
    _skip: int  # payload bytes still to come of a frame that is left out
    _message: int  # payload bytes so far of the fragmented message
    _fragmented: bool  # a fragmented message has begun and not ended
    _dropping: bool  # and it is left out

    def __init__(
        self,
        *,
        masked: bool,
        max_message: int = 0,
        max_frame: int = 0,
        messages: Bucket | None = None,
        payload: Bucket | None = None,
        controls: Bucket | None = None,
    ) -> None:
        self.verdict, self.detail, self.wait = _PASS, "", 0.0
        self.remaining = 0
        self.close_code = 0
        self.close_reason = b""
        self.frames = 0
        self.messages = 0
        self.payload_bytes = 0
        self.dropped = 0
        self.pongs = 0
        self.active_at = 0.0
        self._mask_bit = 0x80 if masked else 0
        self._head = 6 if masked else 2
        self._held = b""
        self._skip = self._message = 0
        self._fragmented = self._dropping = False
        self.limit(
            max_message=max_message,
            max_frame=max_frame,
            messages=messages,
            payload=payload,
            controls=controls,
        )

    def limit(
        self,
        *,
        max_message: int,
        max_frame: int,
        messages: Bucket | None,
        payload: Bucket | None,
        controls: Bucket | None,
    ) -> None:
        """Set every limit anew, as the constructor does, from the next header on.

        A fragmented message under way is held to the new size at its next frame.
        """
        self._max_message = min(max_message or _MAX_LENGTH, _MAX_LENGTH)
        self._max_frame = min(max_frame or _MAX_LENGTH, _MAX_LENGTH)
        self._messages_bucket = messages
        self._payload_bucket = payload
        self._controls_bucket = controls
        self._metered = messages is not None or payload is not None

    @property
    def fragmented(self) -> bool:
        """Whether a message is under way of which a frame has been forwarded, and not the last."""
        return self._fragmented and not self._dropping

    def feed(self, data: bytes, now: float) -> bytes:
        """Scan what was read at `now` (seconds of a steady clock); return what may be forwarded.

        That is `data` itself when all of it may. A header that is not complete is kept until it
        is, and so is a close frame: at most 139 bytes, but for WAIT.
        """
        if self.verdict != _PASS or self._held:
            data = self._go_on(data)
        end = len(data)
        at = 0  # everything before it is decided: forwarded or dropped
        start = 0  # the first byte not passed on to `kept` or dropped
        kept: list[bytes] | None = None
        mask_bit, head = self._mask_bit, self._head
        max_frame, max_message = self._max_frame, self._max_message
        if self.remaining:
            if self.remaining > 125:  # else it could be the rest of a pong
                self.active_at = now
            if self.remaining > end:
                self.remaining -= end
                self.payload_bytes += end
                return data
            at = self.remaining
            self.payload_bytes += at
            self.remaining = 0
        elif self._skip:
            if self._skip > end:
                self._skip -= end
                return b""
            at = start = self._skip
            self._skip = 0
        if not self._fragmented:
            at = self._whole_messages(data, at, now)
        while end - at >= 2:
            first = data[at]
            second = data[at + 1]
            # a message in one frame, the common case, needs no other rule
            whole = _FIN_TEXT <= first <= _FIN_BINARY and not self._fragmented
            if (second & 0x80 != mask_bit or not whole) and self._forbidden(first, second):
                break
            length = second & 0x7F
            body = at + head
            if length > 125:
                # section 5.2: 126 is followed by 16 bits of length, 127 by 64
                body += 2 if length == 126 else 8
                if end - at < 4 or (length == 127 and end - at < 10):
                    break
                length = frames.extended_length(data, at + 2, length)
                if length < 0:
                    self._fail(PROTOCOL_ERROR, frames.LENGTH_ERRORS[length])
                    break
            if not first & _CONTROL and (
                length > max_frame or length > max_message - self._message
            ):
                self._fail(TOO_BIG, "frame" if length > max_frame else "message")
                break
            if body > end:
                break
            if first == _FIN_CLOSE:
                # its code has to be checked before a byte of it goes on, so it must be whole
                if length <= end - body and self._closed(data, body, length):
                    self.active_at = now
                    at = body + length
                break
            if whole and not self._metered:
                self.messages += 1
                self.active_at = now
                fate = _PASS
            else:
                fate = self._admit(first, length, now)
            if fate == _PASS:
                self.frames += 1
                if length > end - body:
                    self.remaining = length - (end - body)
                    self.payload_bytes += end - body
                    at = end
                else:
                    self.payload_bytes += length
                    at = body + length
            elif fate == _DROP:
                if kept is None:
                    kept = []
                kept.append(data[start:at])
                if length > end - body:
                    self._skip = length - (end - body)
                    at = end
                else:
                    at = body + length
                start = at
            else:
                break
        if at < end and (self.verdict == _PASS or self.verdict == WAIT):
            self._held = data[at:]
        if kept is not None:
            kept.append(data[start:at])
            return b"".join(kept)
        if start == 0 and at == end:
            return data
        return data[start:at]

    def _go_on(self, data: bytes) -> bytes:
        """What is to be scanned, with what was kept before; nothing after a final verdict."""
        if self.verdict not in (_PASS, WAIT):
            return b""
        data = self._held + data
        self.verdict, self.detail, self.wait, self._held = _PASS, "", 0.0, b""
        return data

    def _whole_messages(self, data: bytes, at: int, now: float) -> int:
        """Pass the messages in one short frame each that stand at `at`, all at once; where the
        first other frame begins. With too many for a rate none passes: each is then asked for.
        """
        end = len(data)
        start = at
        count = 0
        headers = 0
        mask_bit = self._mask_bit
        head = self._head
        extended = mask_bit | 126
        longest = min(self._max_frame, self._max_message)
        last = end - 4  # with 16 bits of length a header has four bytes at least
        while at <= last:
            first = data[at]
            if first != _FIN_TEXT and first != _FIN_BINARY:
                break
            second = data[at + 1]
            if second == extended:
                length = data[at + 2] << 8 | data[at + 3]
                body = at + head + 2
                if length < 126:
                    break
            else:
                length = second - mask_bit
                body = at + head
                if length < 0 or length > 125:
                    break
            if length > longest or length > end - body:
                break
            headers += body - at
            at = body + length
            count += 1
        payload = at - start - headers
        if count == 0 or (
            self._metered
            and not take_both(self._messages_bucket, count, self._payload_bucket, payload, now)
        ):
            return start
        self.frames += count
        self.messages += count
        self.payload_bytes += payload
        self.active_at = now
        return at

    def _admit(self, first: int, length: int, now: float) -> int:
        """Charge a frame that is not a close and note it: PASS, _DROP or the verdict."""
        if first & _CONTROL:
            bucket = self._controls_bucket
            if bucket is not None and bucket.take(1.0, now) > 0.0:
                return self._fail(RATE, "control frames")
            if first == _FIN_PONG:
                self.pongs += 1
            else:
                self.active_at = now
            return _PASS
        fate = _DROP if self._dropping else self._charge(first, length, now)
        if fate != _PASS and fate != _DROP:
            return fate
        self.active_at = now
        self._dropping = fate == _DROP and first & _FIN == 0
        if first & _OPCODE:
            if fate == _PASS:
                self.messages += 1
            else:
                self.dropped += 1
        if first & _FIN:
            self._fragmented = False
            self._message = 0
        else:
            self._fragmented = True
            self._message += length
        return fate

    def _charge(self, first: int, length: int, now: float) -> int:
        """Charge a data frame to both buckets or none: PASS, _DROP or the verdict."""
        opening = first & _OPCODE != 0
        messages = self._messages_bucket
        if not opening and (first & _FIN or length >= _TINY):
            messages = None
        if messages is not None:
            wait = messages.take(1.0, now)
            if wait > 0.0:
                return self._exceed(messages.on_exceed, wait, opening, "messages")
        payload = self._payload_bucket
        if payload is not None:
            wait = payload.take(length, now)
            if wait > 0.0:
                if messages is not None:
                    messages.give_back(1.0)
                return self._exceed(payload.on_exceed, wait, opening, "bytes")
        return _PASS

    def _exceed(self, on_exceed: int, wait: float, opening: bool, what: str) -> int:
        if on_exceed == ON_EXCEED_DELAY:
            self.wait = wait
            return self._fail(WAIT, what)
        if on_exceed == ON_EXCEED_DROP and opening:
            return _DROP
        return self._fail(RATE, what)

    def _forbidden(self, first: int, second: int) -> bool:
        """Whether the first two bytes of a header break a rule; sets the verdict then."""
        wrong = frames.header_error(first, second, self._mask_bit, self._fragmented)
        if wrong:
            self._fail(PROTOCOL_ERROR, wrong)
        return wrong != ""

    def _closed(self, data: bytes, body: int, length: int) -> bool:
        """Read a complete close frame (section 5.5.1); False when its code is not allowed."""
        payload = data[body : body + length]
        if self._mask_bit:
            payload = frames.apply_mask(payload, data[body - 4 : body])
        self.close_code = frames.close_code(payload)
        if not self.close_code:
            self._fail(PROTOCOL_ERROR, "close code not allowed")
            return False
        self.close_reason = payload[2:]
        self.verdict = CLOSED
        self.frames += 1
        self.payload_bytes += length
        return True

    def _fail(self, verdict: int, detail: str) -> int:
        self.verdict = verdict
        self.detail = detail
        return verdict
