"""The public listener's sockets, plain or TLS, with or without the PROXY protocol."""

import asyncio
import contextlib
import os
import socket
import ssl
import stat
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Final

import structlog

from sidecar.policy.compiled import Address
from sidecar.policy.peers import Network
from sidecar.proxy.handover import FrontServer
from sidecar.wire import proxy_protocol

__all__ = ["Listeners"]

_BACKLOG: Final = 4096
_ACCEPT_PAUSE: Final = 0.5
_UNIX_PEER: Final = "127.0.0.1"

_log = structlog.get_logger()


class Listeners:
    """Opens, and closes, every address of `server.listen`.

    With `trusted`, each connection must begin with a PROXY protocol header and come from one of
    these networks; `on_reject` is told the address and the trouble of one that does not.
    """

    def __init__(
        self,
        front: FrontServer,
        *,
        tls: ssl.SSLContext | None,
        head_timeout: float,
        trusted: Sequence[Network] | None,
        on_reject: Callable[[str, str], None],
    ) -> None:
        self._front = front
        self._tls = tls
        self._head_timeout = head_timeout
        self._trusted = trusted
        self._on_reject = on_reject
        self._servers: list[asyncio.Server] = []
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.bound: list[Address] = []

    async def open(self, addresses: Sequence[Address]) -> None:
        """Listen. `bound` then holds the real addresses (a port 0 was chosen by the system).
        Raises OSError; what was opened before stays open until `close`.
        """
        for address in addresses:
            for sock in await _bind(address):
                self._sockets.append(sock)
                name = sock.getsockname()
                bound = address if address.unix else Address(name[0], name[1])
                self.bound.append(bound)
                await self._serve(sock)

    async def close(self) -> None:
        """Stop listening; accepted sockets stay."""
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in self._sockets:
            sock.close()
        for address in self.bound:
            if address.unix:
                with contextlib.suppress(OSError):
                    os.unlink(address.unix)

    async def _serve(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if self._trusted is not None:
            self._spawn(self._accept(sock, self._trusted))
            return
        handshake_timeout = self._head_timeout if self._tls else None
        if sock.family == socket.AF_UNIX:
            server = await loop.create_unix_server(
                self._front,
                sock=sock,
                ssl=self._tls,
                ssl_handshake_timeout=handshake_timeout,
                backlog=_BACKLOG,
            )
        else:
            server = await loop.create_server(
                self._front,
                sock=sock,
                ssl=self._tls,
                ssl_handshake_timeout=handshake_timeout,
                backlog=_BACKLOG,
            )
        self._servers.append(server)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, sock: socket.socket, trusted: Sequence[Network]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peername = await loop.sock_accept(sock)
            except OSError as error:  # out of files or memory, or the network's own trouble
                _log.error("accept_failed", error=error.strerror)
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            accepted.setblocking(False)
            is_ip = isinstance(peername, tuple)
            address = str(peername[0]) if is_ip else _UNIX_PEER
            if any(ip_address(address) in network for network in trusted):
                self._spawn(self._welcome(accepted, address if is_ip else "unix"))
            else:
                self._on_reject(address, "PROXY protocol from an address that is not trusted")
                accepted.close()

    async def _welcome(self, sock: socket.socket, address: str) -> None:
        """Read the PROXY header, then hand the socket to the front."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._head_timeout):
                proxied = await _read_header(loop, sock) or address
            await loop.connect_accepted_socket(
                lambda: self._front(proxied),
                sock,
                ssl=self._tls,
                ssl_handshake_timeout=self._head_timeout if self._tls else None,
            )
        except (ValueError, OSError) as error:  # TimeoutError is an OSError
            self._on_reject(address, f"PROXY protocol: {str(error) or type(error).__name__}")
            sock.close()
        except BaseException:
            sock.close()
            raise


async def _bind(address: Address) -> list[socket.socket]:
    if address.unix is not None:
        return [_bind_unix(address.unix)]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        address.host or None,
        address.port,
        type=socket.SOCK_STREAM,
        flags=socket.AI_PASSIVE,
    )
    return [_bind_inet(family, name) for family, _, _, _, name in dict.fromkeys(found)]


def _bind_inet(family: int, name: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(name)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _bind_unix(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)  # left behind by a process that was killed
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(path)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


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
        if len(line) >= proxy_protocol.MAX_V1_LINE:
            raise ValueError("the line is too long")
        line += await _read_exactly(loop, sock, 1)
    return proxy_protocol.parse_v1(line)


async def _read_exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await loop.sock_recv(sock, size - len(data))
        if not piece:
            raise ValueError("the connection ended inside the header")
        data += piece
    return data
