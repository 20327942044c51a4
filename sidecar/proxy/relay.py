"""Two pipes between a client and its upstream, and how a connection ends.

After the handshake nothing of HTTP is left. Each side's transport has a `Pipe`; what it reads goes
past a `FrameScanner` and, as the same bytes, to the other side's transport. A `Link` holds both
pipes and is the one place that knows how a connection ends:

    open ── a side's close frame passed ──────► closing: the other side may still answer
      │                                          (5 s), then both sockets are closed
      ├── a side is gone without one ──────────► closing: the other side gets 1001 or 1014
      └── the sidecar ends it ─────────────────► closing: both sides get a close frame

A frame of the sidecar's own goes out only at a frame boundary of that direction. Where a direction
is inside a frame that does not end within a second, that socket is aborted instead. Nothing
outlives CLOSE_TIMEOUT.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import structlog

from sidecar.model import CloseCode, Identity, Permit, Reason
from sidecar.policy.decide import Standing
from sidecar.policy.matching import MessagePattern
from sidecar.policy.routes import Route
from sidecar.policy.session import DEFAULT_SESSION, Session
from sidecar.proxy.heartbeat import Ping
from sidecar.proxy.pipe import PEER_FULL, Inserting, Pipe
from sidecar.proxy.refusals import close_code
from sidecar.proxy.scanners import Scanners
from sidecar.proxy.sockets import half_close, probe
from sidecar.proxy.tail import Tail
from sidecar.wire import scanner as scan
from sidecar.wire.buckets import Bucket
from sidecar.wire.frames import close_frame
from sidecar.wire.tap import TappedScanner

__all__ = ["CLOSE_TIMEOUT", "FRAME_TIMEOUT", "VIOLATIONS", "By", "Closing", "Link"]

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a side has to answer a close frame and to hang up (RFC 6455 section 7.1.1)."""

FRAME_TIMEOUT: Final = 1.0
"""Seconds that a frame under way has to end, before the socket is aborted instead."""

_log = structlog.get_logger()

By = Literal["client", "upstream", "sidecar"]

VIOLATIONS: Final = {
    scan.PROTOCOL_ERROR: Reason.PROTOCOL_ERROR,
    scan.TOO_BIG: Reason.MESSAGE_TOO_BIG,
    scan.RATE: Reason.MESSAGE_RATE,
}
"""What a scanner's verdict is called outside."""


@dataclass(frozen=True, slots=True)
class Closing:
    """Why and by whom a connection ended. `reason` is None where a side closed it properly."""

    code: int
    by: By
    reason: str | None
    detail: str = ""


def _ignore(_link: "Link", _tokens: Sequence[object]) -> None:
    """Nobody wants the tokens."""


class Link:
    """A live connection: both pipes and its end.

    `route`, `server` (its upstream's name) and `identity` are what admitted it (the request's head
    is not kept but for its `standing`, which another policy can judge it by), `address` is the
    client's, `identifier` its id in logs. It began at `opened` of the steady time and `opened_at`
    of the day's; its token was verified at `verified_at` and ends at `expires_at` of the day's
    time, where it does, and `session` is the route's rule for that and more. Of the end at
    `warned_of` its client has been told; the payload of its pings is `ping_id` (empty before there
    are any), and `ping` one without an answer. `scanners` are those of both pipes, and `held` all
    pipes that do not read at the moment. `codes` overrides close codes by reason. `on_tokens` is
    given what the client's messages of the refresh rule brought, whose rate is `refreshes`;
    `on_end` is called once, when both transports are gone.
    """

    __slots__ = (
        "_codes",
        "_on_end",
        "_on_tokens",
        "_timers",
        "address",
        "bad_tokens",
        "client",
        "closing",
        "expires_at",
        "held",
        "identifier",
        "identity",
        "loop",
        "opened",
        "opened_at",
        "ping",
        "ping_id",
        "refreshes",
        "route",
        "scanners",
        "server",
        "session",
        "standing",
        "upstream",
        "verified_at",
        "warned_of",
    )

    def __init__(
        self,
        identifier: str,
        permit: Permit,
        client: Pipe,
        upstream: Pipe,
        codes: Mapping[str, int],
        on_end: Callable[["Link"], None],
        *,
        scanners: Scanners,
        standing: Standing,
        session: Session = DEFAULT_SESSION,
        address: str = "",
        opened: float = 0.0,
        opened_at: float = 0.0,
        on_tokens: Callable[["Link", Sequence[object]], None] = _ignore,
        held: set[Pipe] | None = None,
    ) -> None:
        self.identifier = identifier
        self.address = address
        self.route = permit.route
        self.server = permit.upstream
        self.opened_at = self.verified_at = opened_at
        self.scanners = scanners
        self.standing = standing
        self.bad_tokens = 0
        self.refreshes: Bucket | None = None
        self.session = session
        self.expires_at = permit.identity.expires_at if permit.identity else None
        self.identity = permit.identity
        self.loop = asyncio.get_running_loop()
        self.opened = opened
        self.held: set[Pipe] = set() if held is None else held
        self.warned_of: float | None = None
        self.ping: Ping | None = None
        self.ping_id = b""
        self.client = client
        self.upstream = upstream
        self.closing: Closing | None = None
        self._codes = codes
        self._on_end = on_end
        self._on_tokens = on_tokens
        self._timers: tuple[asyncio.TimerHandle, ...] = ()
        for pipe, peer in ((client, upstream), (upstream, client)):
            pipe.link = self
            pipe.peer = peer
            # What is not sent stops the reading of the other side: a stalled connection costs one
            # read (at most 256 KiB; two where the stalled side is TLS), whatever its other side
            # offers. Not 0: with that, asyncio's TLS takes an empty buffer for a full one.
            pipe.transport.set_write_buffer_limits(high=1, low=0)
        self.tap()

    def tap(self) -> None:
        """Look for what the session's rules want to see in what the client sends, from now on."""
        pattern, pongs = _looked_for(self.session)
        if pongs and not self.ping_id:
            self.ping_id = os.urandom(8)
        self.client.tap(pattern, self.ping_id if pongs else None)

    def renew(self, identity: Identity, at: float) -> None:
        """The connection goes on with another token, which was verified at that time of day."""
        self.identity = identity
        self.expires_at = identity.expires_at
        self.verified_at = at
        self.bad_tokens = 0

    def adopt(self, route: Route) -> None:
        """Go by another policy's rules from now on; what they leave as it was goes on untouched."""
        before, self.session = self.session, route.session
        self._codes = route.refuse.codes
        if _looked_for(before) != _looked_for(route.session):
            self.tap()
        if before.heartbeat != route.session.heartbeat:
            probe(self.upstream.transport, route.session.heartbeat)
        if route.limits != self.scanners.limits and self.scanners.adopt(route.limits):
            self.client.retry()

    def end(
        self,
        reason: Reason,
        code: int | None = None,
        detail: str = "",
        rule: str | None = None,
    ) -> None:
        """End the connection from the sidecar's side: a close frame to both. `rule` is the name
        that an authorize rule gave itself.
        """
        number = close_code(reason, rule, self._codes) if code is None else code
        if self.closing is None:
            self._begin(Closing(number, "sidecar", rule or reason.value, detail))
            self._bid_farewell(self.client)
            self._bid_farewell(self.upstream)

    def fail(self, error: Exception) -> None:
        """End it for an error of the program's own, which the log tells."""
        _log.error("internal_error", connection_id=self.identifier, exc_info=error)
        self.end(Reason.INTERNAL_ERROR)

    def abort(self) -> None:
        """Cut both sockets."""
        if self.closing is None:
            self.closing = Closing(CloseCode.ABNORMAL, "sidecar", None)
        for pipe in (self.client, self.upstream):
            if not pipe.lost:
                pipe.transport.abort()

    def on_verdict(self, pipe: Pipe) -> None:
        """The scanner of this pipe has something to say."""
        scanner = pipe.scanner
        if isinstance(scanner, TappedScanner) and (taken := scanner.take()):
            self._on_tokens(self, taken)
        verdict = scanner.verdict
        if verdict == scan.WAIT:
            pipe.wait(pipe.meter.wait)
        elif verdict == scan.CLOSED:
            self._on_close_frame(pipe)
        elif verdict in (scan.PASS, scan.TAKEN):
            pass
        elif verdict == Inserting.DONE:
            pipe.inserted()
        elif verdict == Tail.DONE:
            self._say_farewell(pipe.peer)
        elif self.closing is None:
            self.end(VIOLATIONS[verdict], detail=pipe.meter.detail)
        else:
            self._bid_farewell(pipe.peer)
            self._settle()

    def on_eof(self, pipe: Pipe) -> bool:
        """A side will send nothing more; True keeps its transport open for writing.

        Only a side that sent a close frame and still waits for the answer is kept, and only while
        the other side can give one: were both kept, the connection would never end. TLS ends both
        ways at once.
        """
        pipe.eof = True
        if self.closing is None:
            self._lose(pipe)
        owed = pipe.closed and not pipe.farewell and pipe.transport.can_write_eof()
        return owed and not pipe.peer.eof

    def on_lost(self, pipe: Pipe) -> None:
        """A side's transport is gone."""
        pipe.lost = True
        if self.closing is None:
            self._lose(pipe)
        peer = pipe.peer
        if not peer.lost:
            peer.discard()
            peer.release(PEER_FULL)
            self._bid_farewell(peer)
            self._settle()
            return
        for timer in self._timers:
            timer.cancel()
        self._on_end(self)

    def _begin(self, closing: Closing) -> None:
        self.closing = closing
        # The kernel still delivers what it has been given.
        self._timers += (self.loop.call_later(CLOSE_TIMEOUT, self.abort),)

    def _on_close_frame(self, pipe: Pipe) -> None:
        if not pipe.closed:
            pipe.closed = True
            if self.closing is None:
                self._begin(Closing(pipe.meter.close_code, pipe.side, None))
            if isinstance(pipe.scanner, Tail):
                self._say_farewell(pipe.peer)
            else:
                pipe.peer.farewell = True
            self._settle()

    def _settle(self) -> None:
        """Hang up where both close frames have passed: of each leg the server does so first
        (RFC 6455 section 7.1.1), so the client's leg at once and the upstream's after its end.
        """
        client, upstream = self.client, self.upstream
        if client.closed and client.farewell and not client.lost:
            client.hang_up()
        if upstream.eof and upstream.farewell and not upstream.lost:
            upstream.hang_up()

    def _lose(self, pipe: Pipe) -> None:
        """A side went away without a close frame."""
        if pipe.side == "client":
            self._begin(Closing(CloseCode.ABNORMAL, "client", None))
        else:
            reason = Reason.UPSTREAM_LOST
            code = close_code(reason, overrides=self._codes)
            self._begin(Closing(code, "upstream", reason.value))
        self._bid_farewell(pipe.peer)

    def _bid_farewell(self, pipe: Pipe) -> None:
        """Send a close frame as soon as what is written to this side is at a frame boundary."""
        source = pipe.peer
        source.finish_frame()
        if not source.scanner.remaining:
            self._say_farewell(pipe)
        elif source.eof or source.lost:
            pipe.hang_up()  # inside a frame that will never end
        else:
            self._timers += (self.loop.call_later(FRAME_TIMEOUT, self._cut, pipe),)

    def _say_farewell(self, pipe: Pipe) -> None:
        closing = self.closing
        if pipe.farewell or pipe.lost or closing is None or pipe.transport.is_closing():
            return
        pipe.farewell = True
        code = CloseCode.GOING_AWAY if closing.code == CloseCode.ABNORMAL else closing.code
        mask = os.urandom(4) if pipe.side == "upstream" else None
        pipe.transport.write(close_frame(code, closing.reason or "", mask))
        if pipe.side == "client":
            half_close(pipe.transport)

    def _cut(self, pipe: Pipe) -> None:
        if not pipe.farewell and not pipe.lost:
            pipe.transport.abort()


def _looked_for(session: Session) -> tuple[MessagePattern | None, bool]:
    """The messages that are looked for, and whether pongs are."""
    pattern = session.refresh.pattern if session.refresh else None
    return pattern, session.heartbeat is not None
