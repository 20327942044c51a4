"""WebSocket frames, well-formed or not (RFC 6455 section 5.2)."""

import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MASK = b"\x11\x22\x33\x44"


def mask(payload: bytes, key: bytes = MASK) -> bytes:
    """`payload` masked (or unmasked) with `key`."""
    stream = key * (len(payload) // 4 + 1)
    size = len(payload)
    number = int.from_bytes(payload, "big") ^ int.from_bytes(stream[:size], "big")
    return number.to_bytes(size, "big")


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, rsv: int = 0
) -> bytes:
    """A frame as a client (masked) or a server (not masked) sends it."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = bytes([first, bit | size])
    elif size < 65536:
        head = bytes([first, bit | 126]) + struct.pack("!H", size)
    else:
        head = bytes([first, bit | 127]) + struct.pack("!Q", size)
    return head + (MASK + mask(payload) if masked else payload)


def close(code: int | None = None, reason: str = "", *, masked: bool = True) -> bytes:
    """A close frame."""
    payload = b"" if code is None else struct.pack("!H", code) + reason.encode()
    return frame(CLOSE, payload, masked=masked)
