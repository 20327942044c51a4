"""The dial: a Permit in, an upgraded socket to the upstream out.

One connect per handshake, no redirect, no retry. The client hears of success only after the
upstream has proven that it speaks WebSocket, so that no refused upgrade can become a tunnel.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final, cast

import httptools

from sidecar.errors import HandshakeError, UpstreamError
from sidecar.model import Permit, Reason
from sidecar.policy.compiled import Upstream
from sidecar.proxy.sockets import keep_alive
from sidecar.wire.handshake import check_response

__all__ = ["MAX_HEAD", "Dialled", "dial"]

MAX_HEAD: Final = 16 * 1024
"""Bytes that an upstream's response head may have."""


@dataclass(frozen=True, slots=True)
class Dialled:
    """An upgraded socket, not reading. `subprotocol` is what the upstream chose, `early` what it
    sent behind its answer.
    """

    transport: asyncio.Transport
    subprotocol: str | None
    early: bytes


class _Answer(asyncio.Protocol):
    """Writes the request head and reads the response head, with a real HTTP parser."""

    _transport: asyncio.Transport

    def __init__(self, permit: Permit) -> None:
        self._permit = permit
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._heads = 0
        self._size = 0
        self.done: asyncio.Future[Dialled] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._permit.head)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._heads += 1

    def data_received(self, data: bytes) -> None:
        if self.done.done():
            return
        early = b""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            early = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self._fail(f"not an HTTP response: {type(error).__name__}")
            return
        self._size += len(data) - len(early)
        if self._size > MAX_HEAD:
            self._fail("the response head is too large")
        elif self._heads == 1:
            self._check(early)
        elif self._heads:
            self._fail("more than one response")

    def _check(self, early: bytes) -> None:
        status = self._parser.get_status_code()
        if self._parser.get_http_version() != "1.1":
            self._fail("the response is not HTTP/1.1")
            return
        try:
            subprotocol = check_response(
                status, self._headers, key=self._permit.key, offered=self._permit.offered
            )
        except HandshakeError as error:
            self._fail(error.detail)
            return
        self._transport.pause_reading()
        self.done.set_result(Dialled(self._transport, subprotocol, early))

    def eof_received(self) -> bool:
        self._fail("it hung up before it answered")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("it hung up before it answered")

    def _fail(self, detail: str) -> None:
        if not self.done.done():
            self.done.set_exception(UpstreamError(Reason.UPSTREAM_REFUSED, detail))


async def dial(permit: Permit, upstream: Upstream, tls: ssl.SSLContext | None) -> Dialled:
    """Connect, send the permit's head, and check the answer (RFC 6455 section 4.1).

    `upstream` must be the permit's. Raises UpstreamError; TimeoutError is left to the caller's
    deadline for the answer. A cancelled or failed dial leaves no socket open.
    """
    answer = _Answer(permit)
    transport: asyncio.Transport | None = None
    try:
        transport = await _connect(answer, upstream, tls)
        keep_alive(transport)
        return await answer.done
    except BaseException:
        if transport is not None:
            transport.abort()
        if answer.done.done() and not answer.done.cancelled():
            answer.done.exception()  # seen here; asyncio need not report it
        raise


async def _connect(
    answer: _Answer, upstream: Upstream, tls: ssl.SSLContext | None
) -> asyncio.Transport:
    loop = asyncio.get_running_loop()
    address = upstream.address
    server_name = (upstream.tls.server_name or address.host) if tls else None
    try:
        async with asyncio.timeout(upstream.connect_timeout):
            if address.unix is not None:
                transport, _ = await loop.create_unix_connection(
                    lambda: answer, address.unix, ssl=tls, server_hostname=server_name
                )
            else:
                transport, _ = await loop.create_connection(
                    lambda: answer,
                    address.host,
                    address.port,
                    ssl=tls,
                    server_hostname=server_name,
                )
    except TimeoutError as error:
        raise UpstreamError(Reason.UPSTREAM_TIMEOUT, "no connection in time") from error
    except ssl.SSLError as error:
        detail = f"TLS: {error.reason or type(error).__name__}"
        raise UpstreamError(Reason.UPSTREAM_UNREACHABLE, detail) from error
    except OSError as error:
        detail = error.strerror or type(error).__name__
        raise UpstreamError(Reason.UPSTREAM_UNREACHABLE, detail) from error
    return transport
