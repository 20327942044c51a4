"""What is left of one direction when a connection ends."""

from typing import Final

from sidecar.wire import scanner as scan
from sidecar.wire.scanner import FrameScanner

__all__ = ["Tail"]


class Tail:
    """Takes a scanner's place when a connection ends: lets the frame under way finish.

    Bytes after it are thrown away, but still scanned (where the stream was sound so far) for the
    answering close frame. `verdict` is CLOSED once that has come, and DONE when the frame under
    way has ended.
    """

    DONE: Final = 100

    __slots__ = ("_inner", "remaining", "verdict")

    def __init__(self, inner: FrameScanner | None, remaining: int) -> None:
        self._inner = inner
        self.remaining = remaining
        self.verdict = scan.PASS if remaining else self.DONE

    def feed(self, data: bytes, now: float) -> bytes:
        """The part of `data` that belongs to the frame under way."""
        out = data[: self.remaining]
        self.remaining -= len(out)
        if self._inner is not None:
            self._look(self._inner, data, now, len(out))
        if not self.remaining and self.verdict == scan.PASS:
            self.verdict = self.DONE
        return out

    def _look(self, inner: FrameScanner, data: bytes, now: float, forwarded: int) -> None:
        """Look for the close frame; nothing is counted but the payload that goes on."""
        frames, messages, payload = inner.frames, inner.messages, inner.payload_bytes
        inner.feed(data, now)
        inner.frames, inner.messages = frames, messages
        inner.payload_bytes = payload + forwarded
        if inner.verdict != scan.PASS:
            if inner.verdict == scan.CLOSED:
                self.verdict = scan.CLOSED
            self._inner = None
