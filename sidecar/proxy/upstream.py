"""The dial: a Permit in, an upgraded socket to the upstream out.

One connect per handshake, no redirect, no retry. The client hears of success only after the
upstream has proven that it speaks WebSocket, so that no refused upgrade can become a tunnel.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple, cast

import httptools

from sidecar.errors import HandshakeError, UpstreamError
from sidecar.model import Permit, Reason
from sidecar.policy.compiled import Upstream
from sidecar.proxy.sockets import keep_alive
from sidecar.wire.handshake import accept_key, check_response

__all__ = ["MAX_HEAD", "Dialled", "dial"]

MAX_HEAD: Final = 16 * 1024
"""Bytes that an upstream's response head may have."""


class Dialled(NamedTuple):
    """An upgraded socket. `accept` is what it answered the key with, `subprotocol` what it chose,
    `early` what it sent behind its answer: that grows until the socket has another protocol, by
    one read at most.
    """

    transport: asyncio.Transport
    accept: str
    subprotocol: str | None
    early: bytearray


class _Answer(asyncio.Protocol):
    """Writes the request head and reads the response head, with a real HTTP parser.

    `done` is the outcome. Without a connection at `connected_by`, it is `timed_out` and calls
    `cancel`; without an answer at `deadline`, `done` fails. One timer does both, since an
    asyncio.timeout costs a handshake more than the connect.
    """

    def __init__(
        self,
        permit: Permit,
        connected_by: float,
        deadline: float,
        cancel: Callable[[], object],
    ) -> None:
        self._permit = permit
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._heads = 0
        self._size = 0
        self._early = bytearray()
        self._loop = asyncio.get_running_loop()
        self._cancel = cancel
        self._deadline = deadline
        self._timer = self._loop.call_at(min(connected_by, deadline), self._late)
        self.transport: asyncio.Transport | None = None
        self.timed_out = False
        self.done: asyncio.Future[Dialled] = self._loop.create_future()

    def _late(self) -> None:
        if self.transport is None:
            self.timed_out = True
            self._cancel()
        elif self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._late)
        else:
            self._fail("no answer in time", Reason.UPSTREAM_TIMEOUT)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._permit.head)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._heads += 1

    def data_received(self, data: bytes) -> None:
        if self.done.done():
            # To pause at once would cost every handshake what few need.
            assert self.transport is not None  # noqa: S101
            self.transport.pause_reading()
            self._early += data
            return
        early = 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._early += data[upgrade.args[0] :]
            early = len(self._early)
        except httptools.HttpParserError as error:
            self._fail(f"not an HTTP response: {type(error).__name__}")
            return
        self._size += len(data) - early
        if self._size > MAX_HEAD:
            self._fail("the response head is too large")
        elif self._heads == 1:
            self._check()
        elif self._heads:
            self._fail("more than one response")

    def _check(self) -> None:
        status = self._parser.get_status_code()
        if self._parser.get_http_version() != "1.1":
            self._fail("the response is not HTTP/1.1")
            return
        accept = accept_key(self._permit.key)
        try:
            subprotocol = check_response(
                status, self._headers, accept=accept, offered=self._permit.offered
            )
        except HandshakeError as error:
            self._fail(error.detail)
            return
        assert self.transport is not None  # noqa: S101
        self.done.set_result(Dialled(self.transport, accept, subprotocol, self._early))

    def eof_received(self) -> bool:
        self._fail("it hung up before it answered")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("it hung up before it answered")

    def _fail(self, detail: str, reason: Reason = Reason.UPSTREAM_REFUSED) -> None:
        if not self.done.done():
            self.done.set_exception(UpstreamError(reason, detail))

    def end(self, *, good: bool) -> None:
        """Stop the timer, and where the dial was in vain, let the socket go."""
        self._timer.cancel()
        del self._parser  # which holds this protocol, as this holds it
        if not good:
            if self.transport is not None:
                self.transport.abort()
            if self.done.done() and not self.done.cancelled():
                self.done.exception()  # seen here; asyncio need not report it


async def dial(
    permit: Permit, upstream: Upstream, tls: ssl.SSLContext | None, deadline: float
) -> Dialled:
    """Connect, send the permit's head, and check the answer (RFC 6455 section 4.1).

    `upstream` must be the permit's; `deadline` is the loop's time by which the answer must be
    there. Raises UpstreamError. A cancelled or failed dial leaves no socket open.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # there is one where something is awaited
    connected_by = asyncio.get_running_loop().time() + upstream.connect_timeout
    answer = _Answer(permit, connected_by, deadline, task.cancel)
    good = False
    try:
        transport = await _connect(answer, upstream, tls)
        if upstream.remote:
            keep_alive(transport)
        dialled = await answer.done
        good = True
        return dialled
    except asyncio.CancelledError:
        if answer.timed_out and not task.uncancel():
            detail = "no connection in time"
            raise UpstreamError(Reason.UPSTREAM_TIMEOUT, detail) from None
        raise
    finally:
        answer.end(good=good)


async def _connect(
    answer: _Answer, upstream: Upstream, tls: ssl.SSLContext | None
) -> asyncio.Transport:
    loop = asyncio.get_running_loop()
    address = upstream.address
    server_name = (upstream.tls.server_name or address.host) if tls else None
    try:
        if address.unix is not None:
            transport, _ = await loop.create_unix_connection(
                lambda: answer, address.unix, ssl=tls, server_hostname=server_name
            )
        else:
            transport, _ = await loop.create_connection(
                lambda: answer, address.host, address.port, ssl=tls, server_hostname=server_name
            )
    except TimeoutError as error:  # the kernel's
        raise UpstreamError(Reason.UPSTREAM_TIMEOUT, "no connection in time") from error
    except ssl.SSLError as error:
        detail = f"TLS: {error.reason or type(error).__name__}"
        raise UpstreamError(Reason.UPSTREAM_UNREACHABLE, detail) from error
    except OSError as error:
        detail = error.strerror or type(error).__name__
        raise UpstreamError(Reason.UPSTREAM_UNREACHABLE, detail) from error
    return transport
