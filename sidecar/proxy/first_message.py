"""Clients that were accepted without a token, and have to bring it in their first message.

    accepted (101) ── message in time, of the pattern ──► decided: verified, authorised, dialled
      │                                                     │                        │
      ├── late, of another pattern, a bad frame ────────────┴──► told, closed        └──► a link
      └── gone, or a close frame ──► answered

Until the link nothing is dialled that was not authorised, and no byte goes to an upstream. There
is one timer for all that wait, and a task for each from its message on.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

from sidecar.clock import Clock
from sidecar.errors import UpstreamError
from sidecar.model import CloseCode, Denial, Permit, Reason
from sidecar.policy.credentials import MessageSource
from sidecar.policy.decide import Preflight
from sidecar.policy.matching import BadToken
from sidecar.policy.peers import counted_as
from sidecar.policy.replies import Reply
from sidecar.proxy.answers import answer_frame
from sidecar.proxy.connections import Connections
from sidecar.proxy.farewell import Farewells
from sidecar.proxy.front import MAX_EARLY, Front
from sidecar.proxy.record import CLIENT_LEFT, Attempt, Recorder
from sidecar.proxy.refusals import closable, close_code, public_name
from sidecar.proxy.relay import VIOLATIONS
from sidecar.proxy.rules import Rules
from sidecar.proxy.scanners import control_bucket
from sidecar.proxy.tasks import give_up, spawn
from sidecar.proxy.timeouts import Timeouts
from sidecar.proxy.upstream import Dialled
from sidecar.wire import scanner as scan
from sidecar.wire.frames import pong_frame
from sidecar.wire.handshake import accept_key, switching_protocols
from sidecar.wire.messages import WHOLE, FirstMessage

__all__ = ["FirstMessages", "Waiting"]

_MAX_UNSENT: Final = 4096
"""Bytes of pongs that a client leaves unread before it gets no more of them."""


class Waiting(asyncio.Protocol):
    """One accepted socket without a decision.

    `rules` are those that its handshake was judged by. `since` is the
    loop's time of its 101.
    """

    __slots__ = (
        "_held",
        "_owner",
        "_reader",
        "admitted",
        "attempt",
        "counted",
        "rules",
        "since",
        "source",
        "task",
        "transport",
    )

    def __init__(
        self,
        owner: "FirstMessages",
        transport: asyncio.Transport,
        attempt: Attempt,
        rules: Rules,
        admitted: Preflight,
        source: MessageSource,
    ) -> None:
        self._owner = owner
        self.transport = transport
        self.attempt = attempt
        self.rules = rules
        self.admitted = admitted
        self.source = source
        self.counted = _counted(admitted.route.name, counted_as(attempt.address))
        self.since = asyncio.get_running_loop().time()
        self.task: asyncio.Task[None] | None = None
        controls = control_bucket(admitted.route.limits)
        self._reader: FirstMessage | None = FirstMessage(source.pattern.max_size, controls)
        self._held = b""

    def data_received(self, data: bytes) -> None:
        """Read the first message; keep what comes behind it."""
        if self._reader is None:
            self._keep(data)
        else:
            self._read(self._reader, data)

    def eof_received(self) -> None:
        """Who will send nothing more has left; what it leaves unread need not reach it."""
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        self._owner.lost(self)

    def hand_over(self, make_protocol: Callable[[asyncio.Transport], asyncio.Protocol]) -> bytes:
        """Switch the socket to another protocol; returns what the client sent behind its message.
        Raises ConnectionResetError where the client has left.
        """
        transport = self.transport
        if transport.is_closing():
            raise ConnectionResetError("the client has left")
        self._owner.forget(self)
        transport.set_protocol(make_protocol(transport))
        if not transport.is_reading():
            transport.resume_reading()
        held, self._held = self._held, b""
        return held

    def _read(self, reader: FirstMessage, data: bytes) -> None:
        transport = self.transport
        for ping in reader.feed(data, asyncio.get_running_loop().time()):
            # RFC 6455 section 5.5.3 lets pings go unanswered where another follows.
            if transport.get_write_buffer_size() < _MAX_UNSENT:
                transport.write(pong_frame(ping))
        if reader.verdict == scan.PASS:
            return
        self._reader = None
        if reader.verdict == scan.CLOSED:
            self._owner.leave(self, reader.close_code)
        elif reader.verdict == WHOLE:
            self._keep(reader.rest)
            self._match(bytes(reader.payload) if reader.text else b"")
        else:
            self._owner.refuse(self, Denial(VIOLATIONS[reader.verdict], reader.detail))

    def _match(self, payload: bytes) -> None:
        token = self.source.pattern.match(payload)
        if token is None:
            detail = "the first message is not of the pattern"
            self._owner.refuse(self, Denial(Reason.TOKEN_MISSING, detail))
        elif isinstance(token, BadToken):
            self._owner.refuse(self, Denial(Reason.TOKEN_INVALID, token.detail))
        else:
            self._owner.begin(self, token)

    def _keep(self, data: bytes) -> None:
        self._held += data
        if len(self._held) >= MAX_EARLY:
            self.transport.pause_reading()


class FirstMessages:
    """Every `Waiting` of this process, within bounds.

    `decide` takes one with its token to a link or to `refuse`.
    """

    def __init__(
        self,
        decide: Callable[[Waiting, str], Coroutine[Any, Any, None]],
        connections: Connections,
        farewells: Farewells,
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self._decide = decide
        self._connections = connections
        self._farewells = farewells
        self._recorder = recorder
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._timeouts: Timeouts[Waiting] = Timeouts(self._late)
        self._waiting: set[Waiting] = set()
        self._counts: Counter[tuple[str, str | None]] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many are without a decision."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether strangers have as many places as they may: those who wait, and those who are told
        why they were refused, must not take the places of those who could be let in.
        """
        return len(self) + len(self._farewells) >= self._connections.limit // 2

    def crowded(self, attempt: Attempt, admitted: Preflight, source: MessageSource) -> str | None:
        """Why nobody more may wait; None where one may."""
        if self.full:
            return "half of all connections are without a token"
        route, client = admitted.route.name, counted_as(attempt.address)
        if self._counts[route, None] >= source.max_waiting.total:
            return f"{source.max_waiting.total} wait on this route already (max_waiting.total)"
        if client is not None and self._counts[route, client] >= source.max_waiting.per_ip:
            return f"{source.max_waiting.per_ip} wait on this route already (max_waiting.per_ip)"
        return None

    def accept(
        self,
        front: Front,
        attempt: Attempt,
        rules: Rules,
        admitted: Preflight,
        source: MessageSource,
    ) -> None:
        """Tell the client 101, and wait for its message. From here on its place is freed when its
        socket is gone. Raises ConnectionResetError where the client has left.
        """
        accepted: list[Waiting] = []

        def make_waiting(transport: asyncio.Transport) -> Waiting:
            accept = accept_key(admitted.handshake.key)
            told = admitted.credential.selectable
            transport.write(switching_protocols(accept, told, request_id=attempt.identifier))
            accepted.append(Waiting(self, transport, attempt, rules, admitted, source))
            return accepted[0]

        early = front.hand_over(make_waiting)
        attempt.keeps_place = True
        (waiting,) = accepted
        self._waiting.add(waiting)
        self._counts.update(waiting.counted)
        self._timeouts.add(waiting, source.timeout)
        if early:
            waiting.data_received(early)

    def begin(self, waiting: Waiting, token: str) -> None:
        """The message is there: decide."""
        self._stop(waiting)
        waiting.task = spawn(self._decide(waiting, token), self._tasks)

    def greeting(self, waiting: Waiting, permit: Permit, dialled: Dialled) -> bytes:
        """What a client that is let in is told. Raises UpstreamError where the upstream did not
        select the subprotocol that the client was told.
        """
        if permit.offered and dialled.subprotocol is None:
            detail = "it selected no subprotocol, and the client was told one"
            raise UpstreamError(Reason.UPSTREAM_REFUSED, detail)
        return self._message(waiting, waiting.source.reply)

    def refuse(self, waiting: Waiting, denial: Denial) -> None:
        """Say why, and close. Nothing is said to a client that has left: `lost` follows."""
        transport = waiting.transport
        if waiting not in self._waiting or transport.is_closing():
            return
        self._stop(waiting)
        refuse, reason = waiting.admitted.route.refuse, denial.reason
        if reason is Reason.DRAINING:
            code = waiting.rules.policy.server.drain.close_code
        elif closable(reason):
            code = close_code(reason, denial.rule, refuse.codes)
        else:  # a head that cannot be built for the upstream
            code = CloseCode.BAD_REQUEST
        name = public_name(denial)
        self._recorder.refused(waiting.attempt, denial)
        transport.write(self._message(waiting, waiting.source.failure, name))
        waiting.hand_over(lambda it: self._farewells.bid(it, code, name, refuse.hold))

    def leave(self, waiting: Waiting, code: int) -> None:
        """The client sent a close frame: answer it (RFC 6455 section 5.5.1), and hang up."""
        self._stop(waiting)
        self._recorder.refused(waiting.attempt, CLIENT_LEFT)
        self.forget(waiting)
        farewell = self._farewells.bid(waiting.transport, code, "", 0)
        waiting.transport.set_protocol(farewell)
        farewell.hurry()
        if not waiting.transport.is_closing():
            waiting.transport.close()

    def lost(self, waiting: Waiting) -> None:
        """The socket is gone."""
        if waiting not in self._waiting:
            return  # at the program's end
        self._stop(waiting)
        self._recorder.refused(waiting.attempt, CLIENT_LEFT)
        self.forget(waiting)
        self._connections.free_place()
        if waiting.task is not None:
            waiting.task.cancel()

    def forget(self, waiting: Waiting) -> None:
        """It waits no more."""
        self._waiting.remove(waiting)
        self._counts.subtract(waiting.counted)
        for key in waiting.counted:
            if not self._counts[key]:
                del self._counts[key]

    def drain(self) -> None:
        """Send away all that have brought no token yet."""
        for waiting in list(self._waiting):
            if waiting.task is None:
                self.refuse(waiting, Denial(Reason.DRAINING))

    async def close(self) -> None:
        """Cut off all of them."""
        self._timeouts.close()
        for waiting in list(self._waiting):
            self.forget(waiting)
            self._connections.free_place()
            waiting.transport.abort()
        await give_up(self._tasks)

    def _late(self, waiting: Waiting) -> None:
        self.refuse(waiting, Denial(Reason.AUTH_TIMEOUT, "no message in time"))

    def _stop(self, waiting: Waiting) -> None:
        """The waiting for a message is over, if it was not before."""
        self._timeouts.discard(waiting, waiting.source.timeout)
        if not waiting.attempt.waited:
            waiting.attempt.waited = self._loop.time() - waiting.since

    def _message(self, waiting: Waiting, message: Reply | None, reason: str | None = None) -> bytes:
        if message is None:
            return b""
        return answer_frame(message, waiting.attempt.identity, self._clock.time(), reason)


def _counted(route: str, client: str | None) -> list[tuple[str, str | None]]:
    """As whom it is counted: as one of its route, and as one of its client there."""
    own = [] if client is None else [(route, client)]
    return [(route, None), *own]
