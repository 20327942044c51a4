"""What comes before HTTP on an accepted socket: the PROXY protocol's header, and TLS.

Sockets that are still there count as waiting, as those do that still have to send their request
head: strangers who connect and say nothing must not take all the files there are.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Final

import structlog

from sidecar.model import Denial, Reason
from sidecar.policy.peers import Network
from sidecar.proxy.front import FrontServer, OnReject
from sidecar.proxy.tasks import give_up, spawn
from sidecar.wire import proxy_protocol

__all__ = ["Acceptor"]

_ACCEPT_PAUSE: Final = 0.5
_TLS_SHUTDOWN: Final = 2.0
"""Seconds that a client has to answer the end of TLS."""

_UNIX_PEER: Final = "127.0.0.1"

_log = structlog.get_logger()


class Acceptor:
    """Accepts sockets and brings each to the front.

    With `trusted`, each connection must come from one of these networks and begin with a PROXY
    protocol header. Where `tls` gives a context, which may be another one for each connection, a
    TLS handshake follows. Both together may take `head_timeout` seconds. All of this may be set
    anew, for the sockets that are accepted from then on.
    """

    def __init__(
        self,
        front: FrontServer,
        *,
        tls: Callable[[], ssl.SSLContext | None],
        head_timeout: float,
        trusted: Sequence[Network] | None,
        on_reject: OnReject,
    ) -> None:
        self._front = front
        self._tls = tls
        self.head_timeout = head_timeout
        self.trusted = trusted
        self._on_reject = on_reject
        self._loops: set[asyncio.Task[None]] = set()
        self._welcomes: set[asyncio.Task[None]] = set()

    def serve(self, sock: socket.socket) -> asyncio.Task[None]:
        """Accept from this listening socket until the task is cancelled, or `close`."""
        return spawn(self._accept(sock), self._loops)

    async def close(self) -> None:
        """Accept no more, and let go of the sockets that have not come to the front."""
        await give_up([*self._loops, *self._welcomes])

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peername = await loop.sock_accept(sock)
            except OSError as error:  # out of files or memory, or the network's own trouble
                _log.error("accept_failed", error=error.strerror)
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            accepted.setblocking(False)
            address = str(peername[0]) if isinstance(peername, tuple) else "unix"
            denial = self._denial(address)
            if denial is None:
                # What was asked of its address must be what its bytes are read by.
                spawn(self._welcome(accepted, address, self.trusted), self._welcomes)
            else:
                self._on_reject(address, denial)
                accepted.close()

    def _denial(self, address: str) -> Denial | None:
        if len(self._welcomes) + len(self._front) >= self._front.max_waiting:
            return Denial(Reason.OVERLOADED, "too many sockets wait for their handshake")
        if self.trusted is not None and not self._trusts(self.trusted, address):
            detail = "PROXY protocol from an address that is not trusted"
            return Denial(Reason.BAD_HANDSHAKE, detail)
        return None

    def _trusts(self, trusted: Sequence[Network], address: str) -> bool:
        known = ip_address(_UNIX_PEER if address == "unix" else address)
        return any(known in network for network in trusted)

    async def _welcome(
        self, sock: socket.socket, address: str, trusted: Sequence[Network] | None
    ) -> None:
        loop = asyncio.get_running_loop()
        stage, proxied = "PROXY protocol", None
        try:
            async with asyncio.timeout(self.head_timeout):
                if trusted is not None:
                    proxied = await _read_header(loop, sock) or address
                stage = "TLS"
                context = self._tls()
                await loop.connect_accepted_socket(
                    lambda: self._front(proxied),
                    sock,
                    ssl=context,
                    ssl_shutdown_timeout=_TLS_SHUTDOWN if context else None,
                )
        except (ValueError, OSError) as error:  # TimeoutError is an OSError
            detail = f"{stage}: {str(error) or type(error).__name__}"
            self._on_reject(address, Denial(Reason.BAD_HANDSHAKE, detail))
            sock.close()
        except BaseException:
            sock.close()
            raise


async def _read_header(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> str | None:
    prefix = await _read_exactly(loop, sock, proxy_protocol.PREFIX_SIZE)
    if proxy_protocol.is_v2(prefix):
        head = await _read_exactly(loop, sock, proxy_protocol.V2_HEAD_REST)
        body = await _read_exactly(loop, sock, proxy_protocol.v2_body_size(head))
        return proxy_protocol.parse_v2(head, body)
    if not proxy_protocol.is_v1(prefix):
        raise ValueError("no header")
    line = prefix
    while not line.endswith(b"\n"):
        room = proxy_protocol.MAX_V1_LINE - len(line)
        if not room:
            raise ValueError("the line is too long")
        # What follows the line is not ours to take; to read byte by byte would be slow.
        seen = await _peek(loop, sock, room)
        line += await _read_exactly(loop, sock, seen.find(b"\n") + 1 or len(seen) or 1)
    return proxy_protocol.parse_v1(line)


async def _peek(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> bytes:
    """What has come, at most `size` bytes, left where it is; waits for some. b"" at the end."""
    while True:
        try:
            return sock.recv(size, socket.MSG_PEEK)
        except BlockingIOError:
            arrived = asyncio.Event()
            loop.add_reader(sock, arrived.set)
            try:
                await arrived.wait()
            finally:
                loop.remove_reader(sock)


async def _read_exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await loop.sock_recv(sock, size - len(data))
        if not piece:
            raise ValueError("the connection ended inside the header")
        data += piece
    return data
