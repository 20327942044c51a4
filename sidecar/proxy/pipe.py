"""One side of a live connection: reads its transport, writes to the other side's."""

import asyncio
from collections.abc import Callable
from typing import Final, Literal, Protocol

from sidecar.proxy.sockets import has_hung_up
from sidecar.proxy.tail import Tail
from sidecar.wire import scanner as scan
from sidecar.wire.insertion import Insertion
from sidecar.wire.scanner import FrameScanner
from sidecar.wire.tap import Pattern, TappedScanner

__all__ = ["JUDGED", "PEER_FULL", "RATE", "UNREAD", "Inserting", "Owner", "Pipe", "Scanner"]

# Why a pipe does not read at the moment; it reads when no flag is left.
PEER_FULL: Final = 1
RATE: Final = 2
UNREAD: Final = 4
JUDGED: Final = 8

MAX_UNREAD: Final = 64 * 1024
"""Bytes that a side may leave unread before it has to, if it wants to be read itself: answers of
the sidecar's own would pile up otherwise.
"""


class Scanner(Protocol):
    """What a pipe needs of a scanner: see `FrameScanner`."""

    @property
    def verdict(self) -> int:
        """What to do after `feed`."""
        ...

    @property
    def remaining(self) -> int:
        """Bytes still to come of the frame that is being forwarded."""
        ...

    def feed(self, data: bytes, now: float) -> bytes:
        """What may be forwarded."""
        ...


class Inserting:
    """Takes a scanner's place while frames of the sidecar's own wait for a boundary."""

    DONE: Final = 101

    __slots__ = ("inner", "insertion")

    def __init__(self, inner: Scanner, *, fragmented: bool) -> None:
        self.inner = inner
        self.insertion = Insertion(inner.remaining, fragmented=fragmented)

    @property
    def remaining(self) -> int:
        """Bytes still to come of the frame that is being forwarded."""
        return self.inner.remaining

    @property
    def verdict(self) -> int:
        """The scanner's, and DONE where that has none and nothing waits any more."""
        if self.inner.verdict == scan.PASS and not self.insertion.waits:
            return self.DONE
        return self.inner.verdict

    def feed(self, data: bytes, now: float) -> bytes:
        """What may be forwarded, with what could be put in."""
        return self.insertion.pass_on(self.inner.feed(data, now))


class Owner(Protocol):
    """What a pipe tells of what it cannot decide: the connection that holds both pipes."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where its timers run."""
        ...

    @property
    def held(self) -> set["Pipe"]:
        """All pipes of this process that do not read at the moment."""
        ...

    def on_verdict(self, pipe: "Pipe") -> None:
        """The scanner of this pipe has something to say."""
        ...

    def on_eof(self, pipe: "Pipe") -> bool:
        """A side will send nothing more; True keeps its transport open for writing."""
        ...

    def on_lost(self, pipe: "Pipe") -> None:
        """A side's transport is gone."""
        ...


class Pipe(asyncio.Protocol):
    """One side of a connection: reads its transport, writes to the peer's.

    `meter` is the scanner that counted this side's frames, for the whole life of the connection.
    `now` is the steady time. By it something was read at `read_at` last, or could be again from
    then on, and the last time at which it could not was over at `released_at`; 0.0 is never.
    """

    __slots__ = (
        "_holds",
        "_now",
        "_rate_timer",
        "closed",
        "eof",
        "farewell",
        "link",
        "lost",
        "meter",
        "peer",
        "read_at",
        "released_at",
        "scanner",
        "side",
        "transport",
    )

    link: "Owner"
    peer: "Pipe"

    def __init__(
        self,
        side: Literal["client", "upstream"],
        transport: asyncio.Transport,
        scanner: FrameScanner,
        now: Callable[[], float],
    ) -> None:
        self.side: Literal["client", "upstream"] = side
        self.transport = transport
        self.meter = scanner
        self.scanner: Scanner = scanner
        self._now = now
        self._holds = 0
        self._rate_timer: asyncio.TimerHandle | None = None
        self.read_at = 0.0
        self.released_at = 0.0
        self.closed = False  # its close frame has passed
        self.eof = False
        self.lost = False
        self.farewell = False  # it has been sent a close frame, the sidecar's or its peer's

    def begin(self, early: bytes) -> None:
        """Take over the transport, which may not read, with what came from it before."""
        transport = self.transport
        transport.set_protocol(self)
        if early:
            self.data_received(early)
        if not self._holds and not transport.is_closing() and not transport.is_reading():
            transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Scan, forward, and only then look at the verdict: the whole hot path."""
        scanner = self.scanner
        self.read_at = now = self._now()
        out = scanner.feed(data, now)
        if out:
            self.peer.transport.write(out)
        if scanner.verdict:
            self.link.on_verdict(self)

    def eof_received(self) -> bool:
        """Whether the transport stays open for writing."""
        return self.link.on_eof(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self.link.on_lost(self)

    def pause_writing(self) -> None:
        """This side does not keep up: stop reading the other."""
        self.peer.hold(PEER_FULL)

    def resume_writing(self) -> None:
        """This side has caught up."""
        self.peer.release(PEER_FULL)
        self.release(UNREAD)

    @property
    def stalled(self) -> bool:
        """Whether it is not read at the moment for another cause than that it does not take what it
        is sent.
        """
        return bool(self._holds & ~UNREAD)

    @property
    def awaits_boundary(self) -> bool:
        """Whether a frame of the sidecar's own still waits for its place in what this side gets."""
        scanner = self.peer.scanner
        return isinstance(scanner, Inserting) and scanner.insertion.waits

    def hold(self, flag: int) -> None:
        """Stop reading for this cause too."""
        if not self._holds:
            self.link.held.add(self)
            if not self.transport.is_closing():
                self.transport.pause_reading()
        self._holds |= flag

    def release(self, flag: int) -> None:
        """Forget this cause; go on reading where none is left, with what was kept back first."""
        if not self._holds & flag:
            return
        self._holds &= ~flag
        if self._holds:
            return
        self.link.held.discard(self)
        self.read_at = self.released_at = self._now()
        if self.scanner.verdict == scan.WAIT:
            self.data_received(b"")
        if not self._holds and not self.transport.is_closing():
            self.transport.resume_reading()

    def look_after(self) -> None:
        """Notice that a side is gone while it is not read, because of a rate or of its peer."""
        if not self.lost and has_hung_up(self.transport):
            self.transport.abort()

    def wait(self, seconds: float) -> None:
        """Do not read for that long: a rate is exceeded that delays."""
        self.hold(RATE)
        self._rate_timer = self.link.loop.call_later(seconds, self.release, RATE)

    def retry(self) -> None:
        """Look again whether the rate lets it read: it may be another one by now."""
        if self._rate_timer is not None:
            self._rate_timer.cancel()
        self.release(RATE)

    def inject(self, frame: bytes) -> None:
        """Send a frame of the sidecar's own to this side: a control frame at the next boundary
        between two frames of what its peer sends, a message at the next one between two messages.
        Nothing is sent behind a close frame.
        """
        source = self.peer
        if self.farewell or self.lost or self.transport.is_closing():
            return
        scanner, meter = source.scanner, source.meter
        if isinstance(scanner, Tail):
            return
        if not isinstance(scanner, Inserting):
            scanner = source.scanner = Inserting(scanner, fragmented=meter.fragmented)
        scanner.insertion.put(frame)
        source.data_received(b"")
        if self.transport.get_write_buffer_size() + scanner.insertion.size > MAX_UNREAD:
            self.hold(UNREAD)

    def tap(self, pattern: Pattern | None, own_pong: bytes | None) -> None:
        """Take out of what this side sends, from now on: messages of this pattern, and pongs to
        pings of the sidecar's own, which begin so. None: neither.
        """
        scanner = self.scanner
        wanted = pattern is not None or own_pong is not None
        if isinstance(scanner, TappedScanner):
            scanner.change(pattern, own_pong)
        elif wanted and scanner is self.meter:  # else it is ending
            self.scanner = TappedScanner(self.meter, pattern, own_pong)

    def inserted(self) -> None:
        """What was injected has gone out: scan as before."""
        if isinstance(self.scanner, Inserting):
            self.scanner = self.scanner.inner
            self.peer.release(UNREAD)

    def finish_frame(self) -> Tail:
        """From here on forward only what is left of the frame under way."""
        if isinstance(self.scanner, Tail):
            return self.scanner
        inner = self.meter if self.meter.verdict == scan.PASS else None
        self.scanner = tail = Tail(inner, self.scanner.remaining)
        if self._rate_timer is not None:
            self._rate_timer.cancel()
        self.release(RATE)
        return tail

    def discard(self) -> None:
        """From here on forward nothing: there is nobody to take it."""
        self.finish_frame().remaining = 0

    def hang_up(self) -> None:
        """Close once what is written has gone out. Once only: asyncio's TLS transport that is
        closed twice cannot be aborted any more.
        """
        if not self.transport.is_closing():
            self.transport.close()
