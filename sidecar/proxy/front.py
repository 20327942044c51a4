"""An accepted socket until its handshake is decided.

A `Front` reads one request head with a real HTTP parser (llhttp), has it decided, and then either
answers and hangs up or gives the socket to whoever takes it over. There is one task for a
handshake and one timer for all that wait for their head; an HTTP server's own machinery for a
connection (requests that follow, bodies, two tasks) would cost more than all that is decided here.
"""

import asyncio
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, NamedTuple, cast

import httptools

from sidecar.model import Denial, Reason
from sidecar.proxy.refusals import HttpRefusal
from sidecar.proxy.tasks import give_up

__all__ = ["MAX_EARLY", "Front", "FrontServer", "OnReject", "RequestHead"]

MAX_EARLY: Final = 16 * 1024
"""Bytes behind a request head after which a client is not read any more until the 101. What is
held is less than this and one read (at most 256 KiB).
"""

MAX_HEADERS: Final = 64
"""Fields that a request head may have."""

_OTHER_FIELDS: Final = 32 * 1024
"""Bytes of a request head beside its two largest fields: the token's and the cookies."""


class RequestHead(NamedTuple):
    """A request's head as the parser read it.

    `version` is as the client named it. `upgrades` says that the parser takes what follows for
    another protocol's, not for HTTP. `error` says what cannot be parsed; the rest is then what was
    read until there.
    """

    method: str
    target: str
    version: str
    headers: list[tuple[bytes, bytes]]
    upgrades: bool
    error: str | None


Handler = Callable[["Front", RequestHead], Awaitable[HttpRefusal | None]]
"""Decides a request: what to answer before hanging up, or None for a socket that was taken over."""

OnReject = Callable[[str, Denial], None]
"""Is told the address of a socket that was closed without an answer, and why."""


class _Unreadable(Exception):  # noqa: N818  # a way out of the parser's callbacks
    pass


class _HeadParser:
    """Collects what llhttp finds, within limits. `done` once the head is whole."""

    __slots__ = ("_max_field", "_parser", "done", "headers", "target")

    def __init__(self, max_field: int) -> None:
        self._max_field = max_field
        self._parser = httptools.HttpRequestParser(self)
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.done = False

    def feed(self, data: bytes) -> int | None:
        """Where an upgraded protocol begins in `data`; None where there is none (yet). Raises
        httptools.HttpParserError for what is wrong with the head.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return int(upgrade.args[0])
        except httptools.HttpParserError:
            if not self.done:  # what follows a head that does not upgrade is nothing to us
                raise
        return None

    def head(self, *, upgrades: bool, error: str | None) -> RequestHead:
        """The head; the parser is let go of, since it and this hold each other."""
        parser = self._parser
        del self._parser
        return RequestHead(
            method=parser.get_method().decode("ascii"),
            target=self.target.decode("latin-1"),
            version=parser.get_http_version(),
            headers=self.headers,
            upgrades=upgrades,
            error=error,
        )

    def on_message_begin(self) -> None:
        if self.done:  # or the parser would tell the second request's method, and its upgrade
            raise _Unreadable("another request")

    def on_url(self, url: bytes) -> None:
        self.target += url
        if len(self.target) > self._max_field:
            raise _Unreadable("the request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.done:  # else it is a trailer
            if len(name) + len(value) > self._max_field:
                raise _Unreadable("a header is too long")
            if len(self.headers) == MAX_HEADERS:
                raise _Unreadable("too many headers")
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.done = True


class Front(asyncio.Protocol):
    """One accepted socket.

    `address` is the other end's ("unix" for a Unix socket), or what the PROXY protocol told;
    `secure` says whether it came by TLS.
    """

    __slots__ = (
        "_early",
        "_parser",
        "_proxied",
        "_server",
        "_size",
        "address",
        "secure",
        "task",
        "transport",
        "waits",
    )

    transport: asyncio.Transport

    def __init__(self, server: "FrontServer", proxied: str | None) -> None:
        self._server = server
        self._proxied = proxied
        self._parser: _HeadParser | None = _HeadParser(server.max_field)
        self._size = 0
        self._early = b""
        self.address = ""
        self.secure = False
        self.task: asyncio.Task[None] | None = None
        self.waits = False  # its task has begun, and so waits whenever something else runs

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket, unless too many wait for their handshake already."""
        self.transport = cast(asyncio.Transport, transport)
        self.secure = transport.get_extra_info("sslcontext") is not None
        peername = transport.get_extra_info("peername")
        known = isinstance(peername, tuple) and peername
        self.address = self._proxied or (str(peername[0]) if known else "unix")
        self._server.enter(self)

    def data_received(self, data: bytes) -> None:
        """Read the head; keep what comes behind it."""
        parser = self._parser
        if parser is None:
            self._keep(data)
            return
        upgrade, error = None, None
        try:
            upgrade = parser.feed(data)
        except httptools.HttpParserCallbackError as raised:
            error = str(raised.__context__)
        except httptools.HttpParserError as raised:
            error = type(raised).__name__
        early = b"" if upgrade is None else data[upgrade:]
        self._size += len(data) - len(early)
        if self._size > self._server.max_head:
            error = "the request head is too large"
        if parser.done or error is not None:
            self._parser = None
            head = parser.head(upgrades=upgrade is not None, error=error)
            self._server.begin(self, head)
            self._keep(early)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left: what is awaited for it is not any more. A decision that has not
        begun still is made, and recorded.
        """
        self._server.leave(self)
        if self.task is not None and self.waits:
            self.task.cancel()

    def hand_over(self, make_protocol: Callable[[asyncio.Transport], asyncio.Protocol]) -> bytes:
        """Switch the socket to another protocol; returns what the client sent behind its head.

        `make_protocol` gets the transport and must write the 101 itself. Nothing is awaited, so no
        byte can arrive in between. The handler must then return None. Raises ConnectionResetError
        where the client has left.
        """
        transport = self.transport
        if transport.is_closing():
            raise ConnectionResetError("the client has left")
        self._server.leave(self)
        transport.set_protocol(make_protocol(transport))
        if not transport.is_reading():
            transport.resume_reading()
        early, self._early = self._early, b""
        return early

    def answer(self, refusal: HttpRefusal, *, body: bool) -> None:
        """Send an answer and hang up."""
        if not self.transport.is_closing():
            self.transport.write(_response(refusal, body=body))
            self.transport.close()

    def _keep(self, early: bytes) -> None:
        self._early += early
        if len(self._early) >= MAX_EARLY:
            self.transport.pause_reading()


class FrontServer:
    """Makes a `Front` for each accepted socket.

    `handler` decides each request; `on_error` answers for it where it raises. `head_timeout` is in
    seconds from the first moment of the socket to the end of its request head; `max_field` limits
    one header field (the token's) and the request target in bytes; `max_head` limits the whole
    request head; `max_waiting` is how many sockets may be without a decision.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        on_error: Callable[[Front, Exception], HttpRefusal],
        on_reject: OnReject,
        head_timeout: float,
        max_field: int,
        max_waiting: int,
    ) -> None:
        self._handler = handler
        self._on_error = on_error
        self._on_reject = on_reject
        self._head_timeout = head_timeout
        self._loop = asyncio.get_running_loop()
        self._headless: dict[Front, float] = {}  # those without a head, since when; eldest first
        self._timer: asyncio.TimerHandle | None = None  # of the eldest
        self.fronts: set[Front] = set()
        self.max_waiting = max_waiting
        self.max_field = max_field
        self.max_head = 2 * max_field + _OTHER_FIELDS

    def __call__(self, proxied: str | None = None) -> Front:
        """A protocol for a new socket; `proxied` is the address that the PROXY protocol told."""
        return Front(self, proxied)

    def __len__(self) -> int:
        """How many sockets are without a decision, or have not taken theirs."""
        return len(self.fronts)

    def enter(self, front: Front) -> None:
        """A socket waits for its request head from now on."""
        if len(self.fronts) >= self.max_waiting:
            denial = Denial(Reason.OVERLOADED, "too many sockets wait for their handshake")
            self._on_reject(front.address, denial)
            front.transport.abort()
            return
        self.fronts.add(front)
        since = self._headless[front] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(since + self._head_timeout, self._cut_late)

    def begin(self, front: Front, head: RequestHead) -> None:
        """A request head is whole: decide it."""
        self._headless.pop(front, None)
        front.task = self._loop.create_task(self._decide(front, head))

    def leave(self, front: Front) -> None:
        """A socket is gone, or another protocol's."""
        self.fronts.discard(front)
        self._headless.pop(front, None)

    def adopt(self, *, head_timeout: float, max_field: int) -> None:
        """Go by these limits from now on, also for the sockets that wait."""
        self.max_field, self.max_head = max_field, 2 * max_field + _OTHER_FIELDS
        if head_timeout != self._head_timeout:
            self._head_timeout = head_timeout
            if self._timer is not None:
                self._timer.cancel()
            self._cut_late()

    async def close(self) -> None:
        """Let go of every socket, whatever its handshake is waiting for."""
        if self._timer is not None:
            self._timer.cancel()
        await give_up(front.task for front in self.fronts if front.task is not None)
        for front in list(self.fronts):
            front.transport.abort()
            self.leave(front)

    async def _decide(self, front: Front, head: RequestHead) -> None:
        front.waits = True
        try:
            refusal = await self._handler(front, head)
        except Exception as error:
            refusal = self._on_error(front, error)
        finally:
            front.task = None  # they hold each other
        if refusal is not None:
            front.answer(refusal, body=head.method != "HEAD")

    def _cut_late(self) -> None:
        """Cut off the sockets whose head has not come in time."""
        self._timer = None
        now = self._loop.time()
        while self._headless:
            front, since = next(iter(self._headless.items()))
            if since + self._head_timeout > now:
                self._timer = self._loop.call_at(since + self._head_timeout, self._cut_late)
                return
            del self._headless[front]
            front.transport.abort()


def _response(refusal: HttpRefusal, *, body: bool) -> bytes:
    """The answer in HTTP/1.1, whatever version the request named (RFC 9110 section 2.5)."""
    fields = {
        **refusal.headers,
        "Content-Length": str(len(refusal.body)),
        "Date": formatdate(usegmt=True),
        "Connection": "close",
    }
    lines = [
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head + refusal.body if body else head
