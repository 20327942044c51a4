"""The public listener's sockets: opened, and closed."""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Sequence
from typing import Final

from sidecar.policy.compiled import Address
from sidecar.proxy.accept import Acceptor
from sidecar.proxy.front import FrontServer

__all__ = ["Listeners"]

_BACKLOG: Final = 4096


class Listeners:
    """Opens, and closes, every address of `server.listen`.

    Accepted sockets go straight to the front, or through an `acceptor` where something comes
    before HTTP.
    """

    def __init__(self, front: FrontServer, acceptor: Acceptor | None) -> None:
        self._front = front
        self._acceptor = acceptor
        self._servers: list[asyncio.Server] = []
        self._sockets: list[socket.socket] = []
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
        if self._acceptor is not None:
            await self._acceptor.close()
        for sock in self._sockets:
            sock.close()
        for address in self.bound:
            if address.unix:
                with contextlib.suppress(OSError):
                    os.unlink(address.unix)

    async def _serve(self, sock: socket.socket) -> None:
        if self._acceptor is not None:
            self._acceptor.serve(sock)
            return
        loop = asyncio.get_running_loop()
        if sock.family == socket.AF_UNIX:
            server = await loop.create_unix_server(self._front, sock=sock, backlog=_BACKLOG)
        else:
            server = await loop.create_server(self._front, sock=sock, backlog=_BACKLOG)
        self._servers.append(server)


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
        # Accepted sockets inherit it: the kernel notices a client that is gone.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
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
