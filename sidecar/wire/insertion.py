"""Putting frames of the sidecar's own between those of a stream that is being forwarded."""

from sidecar.wire.frames import CLOSE, extended_length

__all__ = ["Insertion"]

_FIN = 0x80
_OPCODE = 0x0F
_CONTROL = 0x08
_MASK = 0x80


class Insertion:
    """Finds the places in a stream of frames that are known to be sound.

    A control frame may stand between any two frames, a message only where none has begun and not
    ended (RFC 6455 section 5.4). Nothing is put behind a close frame. The stream begins with
    `remaining` bytes of a payload, inside a message where it is `fragmented`; each header of it
    comes in one piece.
    """

    __slots__ = ("_controls", "_fragmented", "_messages", "_remaining")

    def __init__(self, remaining: int, *, fragmented: bool) -> None:
        self._remaining = remaining
        self._fragmented = fragmented
        self._controls: list[bytes] = []
        self._messages: list[bytes] = []

    def put(self, frame: bytes) -> None:
        """Have a whole frame put in as soon as it may be."""
        (self._controls if frame[0] & _CONTROL else self._messages).append(frame)

    @property
    def waits(self) -> bool:
        """Whether there is something left to put in."""
        return bool(self._controls or self._messages)

    @property
    def size(self) -> int:
        """Bytes of what is left."""
        return sum(map(len, self._controls)) + sum(map(len, self._messages))

    def pass_on(self, data: bytes) -> bytes:
        """The data with what could be put in. Once nothing `waits` it is not looked at any more."""
        pieces: list[bytes] = []
        start = at = 0
        while self.waits:
            step = min(self._remaining, len(data) - at)
            at += step
            self._remaining -= step
            if self._remaining:
                break
            pieces.append(data[start:at])
            pieces += self._due()
            start = at
            if at == len(data):
                break
            at = self._enter(data, at)
        pieces.append(data[start:])
        return b"".join(pieces)

    def _due(self) -> list[bytes]:
        due, self._controls = self._controls, []
        if not self._fragmented:
            due += self._messages
            self._messages = []
        return due

    def _enter(self, data: bytes, at: int) -> int:
        """Read the header at a boundary; where its payload begins."""
        first, second = data[at], data[at + 1]
        body = at + (6 if second & _MASK else 2)
        length = second & 0x7F
        if length > 125:
            body += 2 if length == 126 else 8
            length = extended_length(data, at + 2, length)
        if not first & _CONTROL:
            self._fragmented = not first & _FIN
        elif first & _OPCODE == CLOSE:
            self._messages.clear()
        self._remaining = length
        return body
