"""The public listener's sockets: opened, and closed."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Final

from sidecar.policy.compiled import Address
from sidecar.proxy.accept import Acceptor
from sidecar.proxy.front import FrontServer
from sidecar.proxy.unix_sockets import SocketFile, bind_unix

__all__ = ["ADMIN", "PUBLIC", "Listeners", "address_of", "bind", "bind_inet", "files_of", "naming"]

PUBLIC: Final = "server.listen"
ADMIN: Final = "admin.listen"
"""The keys of the policy that say where to listen."""

_BACKLOG: Final = 4096

_PORT_REMEDIES: Final = {
    errno.EADDRINUSE: "end the program that does, or choose another port",
    errno.EADDRNOTAVAIL: "choose an address that this machine has",
    errno.EACCES: "choose a port from 1024 on, or let the program have lower ones",
}
_PATH_REMEDIES: Final = {
    errno.EADDRINUSE: "end who listens there or remove the file, or choose another path",
    errno.ENOENT: "make the folder first, or choose another path",
    errno.EACCES: "let the program write to the folder, or choose another path",
}


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
        self._files: list[SocketFile] = []
        self.bound: list[Address] = []

    async def open(self, addresses: Sequence[Address]) -> None:
        """Listen. `bound` then holds the real addresses (a port 0 was chosen by the system).
        Raises OSError; what was opened before stays open until `close`.
        """
        for address in addresses:
            with naming(address, PUBLIC):
                sockets = await bind(address)
                self._files += files_of(sockets)
            await self.adopt(sockets)

    async def adopt(self, sockets: Sequence[socket.socket]) -> None:
        """Listen on sockets that are bound. The file of a Unix socket stays at `close`. Raises
        OSError.
        """
        self._sockets += sockets
        for sock in sockets:
            address = address_of(sock)
            with naming(address, PUBLIC):
                _listen(sock)
                await self._serve(sock)
            self.bound.append(address)

    async def close(self) -> None:
        """Stop listening; accepted sockets stay."""
        for server in self._servers:
            server.close()
        if self._acceptor is not None:
            await self._acceptor.close()
        for sock in self._sockets:
            sock.close()
        for file in self._files:
            file.remove()

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


def address_of(sock: socket.socket) -> Address:
    """Where a socket is bound."""
    name = sock.getsockname()
    return Address(unix=name) if sock.family == socket.AF_UNIX else Address(name[0], name[1])


async def bind(address: Address) -> list[socket.socket]:
    """Sockets bound to an address: one, or one for each address of its name. Raises OSError."""
    if address.unix is not None:
        return [bind_unix(address.unix)]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        address.host or None,
        address.port,
        type=socket.SOCK_STREAM,
        flags=socket.AI_PASSIVE,
    )
    return [bind_inet(family, name) for family, _, _, _, name in dict.fromkeys(found)]


def files_of(sockets: Sequence[socket.socket]) -> list[SocketFile]:
    """The files of those that are Unix sockets and have just been bound. Raises OSError."""
    return [SocketFile.of(sock) for sock in sockets if sock.family == socket.AF_UNIX]


@contextlib.contextmanager
def naming(address: Address, key: str) -> Iterator[None]:
    """Make an OSError of the block say where it was to listen, which key of the policy says so,
    and what to do.
    """
    try:
        yield
    except OSError as error:
        number = error.errno or 0  # below 0 where a name was not found
        why = os.strerror(number) if number > 0 else error.strerror or str(error)
        remedies = _PORT_REMEDIES if address.unix is None else _PATH_REMEDIES
        remedy = f"; {remedies[number]}" if number in remedies else ""
        raise OSError(f"{key}: cannot listen on {address}: {why}{remedy}") from error


def _listen(sock: socket.socket) -> None:
    # Accepted sockets inherit it: the kernel notices a client that is gone.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.listen(_BACKLOG)


def bind_inet(family: int, name: tuple[object, ...], *, shared: bool = False) -> socket.socket:
    """A TCP socket bound to a numeric address; a `shared` one beside others of this user there.
    Raises OSError.
    """
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections that ended just now keep the port for a while.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(name)
    except OSError:
        sock.close()
        raise
    return sock
