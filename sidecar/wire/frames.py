"""Frames of RFC 6455: opcodes, the rules of a header, close codes, and the frames that the sidecar
itself writes.
"""

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "LENGTH_ERRORS",
    "MAX_CLOSE_REASON",
    "NO_STATUS",
    "PING",
    "PONG",
    "TEXT",
    "apply_mask",
    "close_code",
    "close_frame",
    "extended_length",
    "header_error",
    "ping_frame",
    "pong_frame",
    "text_frame",
    "valid_close_code",
]

# RFC 6455 section 5.2
CONTINUATION = 0x0
TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

_FIN = 0x80
_RSV = 0x70
_OPCODE = 0x0F
_CONTROL = 0x08

MAX_CLOSE_REASON = 123
"""Bytes of a close frame's reason: a control frame's 125 (section 5.5) less the code's two."""

NO_STATUS = 1005
"""Stands for an end without a code (RFC 6455 section 7.1.5)."""

LENGTH_ERRORS = {-1: "length over 63 bits", -2: "length not in its shortest form"}
"""What the negative results of `extended_length` mean."""


def valid_close_code(code: int) -> bool:
    """Whether a close frame may carry this code (RFC 6455 sections 7.4.1 and 7.4.2).

    1004 is reserved; 1005, 1006 and 1015 only stand for an end without a code; 1012 to 1014
    were added to the IANA registry later.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def close_code(payload: bytes) -> int:
    """The code of a close frame with this unmasked payload, 1005 for none; 0 where it has one that
    MUST NOT be set in a frame (section 7.4).
    """
    if not payload:
        return NO_STATUS
    code = payload[0] << 8 | payload[1]
    return code if valid_close_code(code) else 0


def header_error(first: int, second: int, mask_bit: int, fragmented: bool) -> str:
    """What is wrong with the first two bytes of a frame's header (section 5.2), "" for nothing.

    `mask_bit` is what the frame must have of 0x80, `fragmented` whether it stands in the middle of
    a message. A length over 125 is for whoever reads on.
    """
    opcode = first & _OPCODE
    if second & 0x80 != mask_bit:
        # section 5.1: a client masks every frame, a server none
        return "frame is not masked" if mask_bit else "frame is masked"
    if first & _RSV:
        # section 5.2: MUST be 0 unless an extension was negotiated, and none ever is
        return "reserved bit set"
    if opcode & _CONTROL:
        return _control_error(opcode, first & _FIN, second & 0x7F)
    if opcode > BINARY:
        return "unknown opcode"
    if fragmented and opcode:
        # section 5.4: fragments of one message must not be interleaved with another's
        return "new message inside a fragmented one"
    if not fragmented and not opcode:
        return "continuation without a message"
    return ""


def _control_error(opcode: int, fin: int, length: int) -> str:
    """The same for a control frame (section 5.5)."""
    if opcode > PONG:
        return "unknown opcode"
    if not fin:
        return "fragmented control frame"
    if length > 125:
        return "control frame over 125 bytes"
    if opcode == CLOSE and length == 1:
        # section 5.5.1: a body starts with a code of two bytes
        return "close frame of one byte"
    return ""


def extended_length(data: bytes, at: int, form: int) -> int:
    """The length at `at` (section 5.2), of 16 bits (form 126) or 64 (127); or of LENGTH_ERRORS."""
    if form == 126:
        length = data[at] << 8 | data[at + 1]
    elif data[at] & 0x80:
        return -1  # the most significant bit MUST be 0
    else:
        length = int.from_bytes(data[at : at + 8], "big")
    # the minimal number of bytes MUST be used
    return -2 if length < 126 or (form == 127 and length < 0x10000) else length


def close_frame(code: int, reason: str, mask: bytes | None) -> bytes:
    """A complete close frame (RFC 6455 section 5.5.1).

    `reason` is cut to 123 bytes of UTF-8 at a character. Code 1005 gives an empty payload.
    `mask` is the 4-byte key of a client's frame, None for a server's, which is not masked
    (section 5.1). Raises ValueError for a code that may not stand in a frame.
    """
    payload = b""
    if code != NO_STATUS:
        if not valid_close_code(code):
            raise ValueError(f"close code {code} may not stand in a frame")
        payload = code.to_bytes(2, "big") + _cut(reason)
    if mask is None:
        return bytes((0x80 | CLOSE, len(payload))) + payload
    return bytes((0x80 | CLOSE, 0x80 | len(payload))) + mask + apply_mask(payload, mask)


def text_frame(payload: bytes) -> bytes:
    """A server's text message in one frame (RFC 6455 section 5.6). `payload` is UTF-8."""
    size = len(payload)
    if size < 126:
        length = bytes((size,))
    elif size < 0x10000:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes((_FIN | TEXT,)) + length + payload


def ping_frame(payload: bytes) -> bytes:
    """A server's ping (RFC 6455 section 5.5.2) with a payload of at most 125 bytes."""
    return bytes((_FIN | PING, len(payload))) + payload


def pong_frame(payload: bytes) -> bytes:
    """A server's answer to a ping with this payload (RFC 6455 section 5.5.3)."""
    return bytes((_FIN | PONG, len(payload))) + payload


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask a payload with its key of 4 bytes (RFC 6455 section 5.3)."""
    size = len(payload)
    stream = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(stream)).to_bytes(size)


def _cut(reason: str) -> bytes:
    encoded = reason.encode("utf-8", "replace")[:MAX_CLOSE_REASON]
    return encoded.decode("utf-8", "ignore").encode()
