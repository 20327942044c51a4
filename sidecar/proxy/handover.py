"""The only file that touches aiohttp's protocol objects.

`Front` is aiohttp's server side up to a request head, with the sidecar's own limits and errors.
`take_transport` gets the socket out of it after the 101 and makes aiohttp let go of everything
else: it believes that the client has left, so its task, request and response are freed and its
accounting is right. That uses private names; `check_aiohttp` and a contract test fail loudly on an
aiohttp where they changed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion, HttpVersion11
from aiohttp.web_protocol import RequestHandler

from sidecar.model import Denial, Reason

__all__ = [
    "MAX_EARLY",
    "Front",
    "FrontServer",
    "OnReject",
    "TakenOver",
    "check_aiohttp",
    "peer_of",
    "take_transport",
    "version_of",
]

MAX_EARLY: Final = 16 * 1024
"""Bytes behind a request head after which a client is not read any more until the 101. What is
held is less than this and one read (at most 256 KiB).
"""

_OTHER_FIELDS: Final = 32 * 1024
"""Bytes of a request head beside its two largest fields: the token's and the cookies."""

_NO_HEAD: Final = b"\0"
"""What no request head can hold: with it the parser refuses the head in its own way."""

_PRIVATE: Final = (
    "_request_count",
    "_payload_parser",
    "_message_tail",
    "_buffer_paused",
    "_pause_reading_for_buffer",
    "_manager",
    "_parser",
    "_upgraded",
)

OnError = Callable[["Front", web.BaseRequest, int, BaseException | None], web.StreamResponse]


OnReject = Callable[[str, Denial], None]
"""Is told the address of a socket that was closed without an answer, and why."""


class Front(RequestHandler):
    """One accepted socket until its handshake is decided.

    `proxied` is the address that the PROXY protocol told, or None.
    """

    __slots__ = ("_head_size", "_server", "proxied")

    def __init__(self, server: "FrontServer", proxied: str | None, **kwargs: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **kwargs)
        self._server = server
        self._head_size = 0
        self.proxied = proxied

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket, unless too many wait for their handshake already."""
        super().connection_made(transport)
        server = self._server
        if len(server.connections) > server.max_waiting:
            denial = Denial(Reason.OVERLOADED, "too many sockets wait for their handshake")
            server.on_reject(_address(transport), denial)
            cast(asyncio.Transport, transport).abort()

    def data_received(self, data: bytes) -> None:
        """Read; aiohttp by itself limits single fields but not the whole request head, and
        overlooks what comes in one piece with it.
        """
        super().data_received(data)
        if not self._request_count:
            self._head_size += len(data)
            if self._head_size > self._server.max_head:
                super().data_received(_NO_HEAD)
        if len(self._message_tail) >= MAX_EARLY and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp could not parse, or what a handler raised, in the sidecar's form."""
        return self._server.on_error(self, request, status, exc)


class _Request(web.BaseRequest):
    """A request that is answered in HTTP/1.1, whatever version it names: aiohttp would repeat
    that one (RFC 9110 section 2.5, RFC 9112 section 2.3). `_version` still is the client's.
    """

    @property
    def version(self) -> HttpVersion:
        return HttpVersion11


class FrontServer(web.Server):
    """Makes a `Front` for each accepted socket.

    `head_timeout` is in seconds from the first moment of the socket to the end of its request
    head; `max_field` limits one header field (the token's) in bytes; `max_head` limits a request
    head that comes in pieces; `max_waiting` is how many sockets may be without a decision.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        on_error: OnError,
        on_reject: OnReject,
        head_timeout: float,
        max_field: int,
        max_waiting: int,
    ) -> None:
        check_aiohttp()
        loop = asyncio.get_running_loop()
        super().__init__(handler, request_factory=partial(_Request, loop=loop), loop=loop)
        self.on_error = on_error
        self.on_reject = on_reject
        self.max_waiting = max_waiting
        self.max_head = 2 * max_field + _OTHER_FIELDS
        self._options = {
            "access_log": None,
            "keepalive_timeout": head_timeout,
            "lingering_time": 0,
            "max_field_size": max_field,
            "max_line_size": max_field,
            "max_headers": 64,
            "read_bufsize": MAX_EARLY,
        }

    def __call__(self, proxied: str | None = None) -> Front:
        """A protocol for a new socket."""
        return Front(self, proxied, **self._options)


class TakenOver(web.StreamResponse):
    """What a handler returns when the socket is not aiohttp's any more: it sends nothing."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Nothing to prepare."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing to end."""


class _Sink:
    """Stands in for a payload parser to collect what the client sent early."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """The end of file shows on the transport."""


def check_aiohttp() -> None:
    """Raise RuntimeError where this aiohttp lacks what the handover relies on."""
    missing = [name for name in _PRIVATE if not hasattr(RequestHandler, name)]
    if missing:
        raise RuntimeError(f"this aiohttp is not supported: RequestHandler lacks {missing}")


def peer_of(request: web.BaseRequest) -> tuple[str, bool]:
    """The address of the socket's other end ("unix" for a Unix socket), and whether it is TLS."""
    protocol = request.protocol
    transport = request.transport
    secure = transport is not None and transport.get_extra_info("sslcontext") is not None
    if isinstance(protocol, Front) and protocol.proxied is not None:
        return protocol.proxied, secure
    return "unix" if transport is None else _address(transport), secure


def version_of(request: web.BaseRequest) -> tuple[int, int]:
    """The version of HTTP that the client named."""
    return request._version.major, request._version.minor


def _address(transport: asyncio.BaseTransport) -> str:
    peername = transport.get_extra_info("peername")
    return str(peername[0]) if isinstance(peername, tuple) and peername else "unix"


def take_transport(
    request: web.BaseRequest,
    make_protocol: Callable[[asyncio.Transport], asyncio.Protocol],
) -> bytes:
    """Switch the request's socket to another protocol and make aiohttp let go of it.

    `make_protocol` gets the transport and must write the 101 itself. Nothing is awaited, so no
    byte can arrive in between. Returns what the client sent behind its request head. The handler
    must then return `TakenOver()`. Raises ConnectionResetError where the client has left,
    and RuntimeError where aiohttp reads what follows as HTTP since it saw no upgrade.
    """
    handler = request.protocol
    transport = handler.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has left")
    if not handler._upgraded:
        raise RuntimeError("not an upgrade to aiohttp")
    sink = _Sink()
    handler.set_parser(sink)  # type: ignore[arg-type]  # only feed_data is called
    handler.keep_alive(False)
    transport.set_protocol(make_protocol(transport))
    handler._payload_parser = None
    handler.transport = None
    handler.connection_lost(None)
    transport.resume_reading()  # aiohttp stops reading at MAX_EARLY
    return sink.data
