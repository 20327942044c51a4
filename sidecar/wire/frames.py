"""Frames of RFC 6455: opcodes, close codes, and the control frames the sidecar itself writes."""

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "MAX_CLOSE_REASON",
    "PING",
    "PONG",
    "TEXT",
    "apply_mask",
    "close_frame",
    "valid_close_code",
]

# RFC 6455 section 5.2
CONTINUATION = 0x0
TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

MAX_CLOSE_REASON = 123
"""Bytes of a close frame's reason: a control frame's 125 (section 5.5) less the code's two."""

_NO_STATUS = 1005


def valid_close_code(code: int) -> bool:
    """Whether a close frame may carry this code (RFC 6455 sections 7.4.1 and 7.4.2).

    1004 is reserved; 1005, 1006 and 1015 only stand for an end without a code; 1012 to 1014
    were added to the IANA registry later.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def close_frame(code: int, reason: str, mask: bytes | None) -> bytes:
    """A complete close frame (RFC 6455 section 5.5.1).

    `reason` is cut to 123 bytes of UTF-8 at a character. Code 1005 gives an empty payload.
    `mask` is the 4-byte key of a client's frame, None for a server's, which is not masked
    (section 5.1). Raises ValueError for a code that may not stand in a frame.
    """
    payload = b""
    if code != _NO_STATUS:
        if not valid_close_code(code):
            raise ValueError(f"close code {code} may not stand in a frame")
        payload = code.to_bytes(2, "big") + _cut(reason)
    if mask is None:
        return bytes((0x80 | CLOSE, len(payload))) + payload
    return bytes((0x80 | CLOSE, 0x80 | len(payload))) + mask + apply_mask(payload, mask)


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask a control frame's payload, at most 125 bytes (RFC 6455 section 5.3)."""
    return bytes(byte ^ mask[index & 3] for index, byte in enumerate(payload))


def _cut(reason: str) -> bytes:
    encoded = reason.encode("utf-8", "replace")[:MAX_CLOSE_REASON]
    return encoded.decode("utf-8", "ignore").encode()
