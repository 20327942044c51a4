"""The public listener's sockets: opened, and closed."""

import asyncio
import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sidecar.policy.compiled import Address
from sidecar.proxy.accept import Acceptor
from sidecar.proxy.front import FrontServer
from sidecar.proxy.tasks import give_up
from sidecar.proxy.unix_sockets import SocketFile, bind_unix

__all__ = [
    "ADMIN",
    "PUBLIC",
    "Listeners",
    "Opening",
    "address_of",
    "bind",
    "bind_inet",
    "files_of",
    "naming",
]

PUBLIC: Final = "server.listen"
ADMIN: Final = "admin.listen"
"""The keys of the policy that say where to listen."""

_BACKLOG: Final = 4096

# The file of a Unix socket is not the server's: its place goes on with it, or removes it.
_FILE_STAYS: Final[dict[str, Any]] = (
    {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
)

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


class _Place:
    """An address of `server.listen`: its sockets, which are bound, and what accepts from them.

    `address` is as the policy has it, `bound` what it has come to. `files` are those of Unix
    sockets, which go when the place does.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        address: Address | None = None,
        files: Sequence[SocketFile] = (),
    ) -> None:
        self.address = address
        self.sockets = sockets
        self.files = files
        self.bound: list[Address] = []
        self._servers: list[asyncio.Server] = []
        self._accepting: list[asyncio.Task[None]] = []

    def again(self) -> "_Place":
        """The same sockets under new descriptors, to be accepted from in another way. Raises
        OSError.
        """
        sockets: list[socket.socket] = []
        place = _Place(sockets, self.address)
        try:
            sockets.extend(sock.dup() for sock in self.sockets)
        except OSError:
            place.close()
            raise
        return place

    def listen(self) -> None:
        """Let the kernel take clients; they wait until they are served. Raises OSError."""
        for sock in self.sockets:
            with naming(address_of(sock), PUBLIC):
                _listen(sock)
        self.bound = [address_of(sock) for sock in self.sockets]

    async def serve(self, front: FrontServer, acceptor: Acceptor | None) -> None:
        """Accept from the sockets that listen. Raises OSError."""
        for sock in self.sockets:
            if acceptor is None:
                self._servers.append(await _server(front, sock))
            else:
                self._accepting.append(acceptor.serve(sock))

    async def stop(self) -> None:
        """Accept no more; accepted sockets stay."""
        for server in self._servers:
            server.close()
        await give_up(self._accepting)
        self.close()

    def close(self) -> None:
        """Let go of the sockets and their files."""
        for sock in self.sockets:
            sock.close()
        for file in self.files:
            file.remove()


class Opening:
    """What `Listeners.prepare` has opened: the places that are to be, and those of them that are
    new.
    """

    def __init__(self, acceptor: Acceptor | None) -> None:
        self.acceptor = acceptor
        self.places: list[_Place] = []
        self.fresh: list[_Place] = []
        self.again: dict[_Place, _Place] = {}

    def discard(self) -> None:
        """Close what was opened."""
        for place in (*self.fresh, *self.again.values()):
            place.close()


class Listeners:
    """Opens, and closes, every address of `server.listen`.

    Accepted sockets go straight to the front, or through an `acceptor` where something comes
    before HTTP.
    """

    def __init__(self, front: FrontServer, acceptor: Acceptor | None) -> None:
        self._front = front
        self._acceptor = acceptor
        self._places: list[_Place] = []
        self._gone: list[_Place] = []
        self._unserved: list[_Place] = []

    @property
    def bound(self) -> list[Address]:
        """The real addresses (a port 0 was chosen by the system)."""
        return [address for place in self._places for address in place.bound]

    async def open(self, addresses: Sequence[Address]) -> None:
        """Listen. Raises OSError; what was opened before stays open until `close`."""
        for address in addresses:
            await self._open(await _bound(address))

    async def adopt(self, sockets: Sequence[socket.socket]) -> None:
        """Listen on sockets that are bound. The file of a Unix socket stays at `close`. Raises
        OSError.
        """
        await self._open(_Place(sockets))

    async def prepare(self, addresses: Sequence[Address], acceptor: Acceptor | None) -> Opening:
        """Open what these addresses need beside what is open, and leave everything as it is until
        `take`. The new ones listen, and serve nobody yet. Raises OSError, and leaves nothing.
        """
        opening = Opening(acceptor)
        left = [place for place in self._places if place.address is not None]
        try:
            for address in addresses:
                place = next((one for one in left if one.address == address), None)
                if place is None:
                    place = await _bound(address)
                    opening.fresh.append(place)
                    place.listen()
                else:
                    left.remove(place)
                self._plan(opening, place)
            for place in self._places:
                if place.address is None:  # given, and kept whatever the policy says
                    self._plan(opening, place)
        except BaseException:
            opening.discard()
            raise
        return opening

    def take(self, opening: Opening) -> None:
        """Change over to what was prepared. `settle` begins to serve, and closes what is gone."""
        for old, new in opening.again.items():
            new.files, old.files = old.files, ()
            new.bound = old.bound
        places = [opening.again.get(place, place) for place in opening.places]
        self._gone += [place for place in self._places if place not in places]
        self._unserved += [place for place in places if place not in self._places]
        self._places = places
        self._acceptor = opening.acceptor

    async def settle(self) -> None:
        """Serve the new places, and close those that are gone; accepted sockets stay. Nobody is
        turned away in between: who comes then waits.
        """
        unserved, self._unserved = [one for one in self._unserved if one in self._places], []
        gone, self._gone = self._gone, []
        for place in gone:
            await place.stop()
        for number, place in enumerate(unserved):
            try:
                await place.serve(self._front, self._acceptor)
            except OSError:
                self._unserved += unserved[number:]  # with the next change they are tried again
                raise

    async def close(self) -> None:
        """Stop listening; accepted sockets stay."""
        places, self._places = (*self._places, *self._gone), []
        self._gone = []
        for place in places:
            await place.stop()
        if self._acceptor is not None:
            await self._acceptor.close()

    async def _open(self, place: _Place) -> None:
        self._places.append(place)
        place.listen()
        await place.serve(self._front, self._acceptor)

    def _plan(self, opening: Opening, place: _Place) -> None:
        opening.places.append(place)
        if opening.acceptor is not self._acceptor and place in self._places:
            opening.again[place] = place.again()


async def _bound(address: Address) -> _Place:
    with naming(address, PUBLIC):
        sockets = await bind(address)
        return _Place(sockets, address, files_of(sockets))


async def _server(front: FrontServer, sock: socket.socket) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    if sock.family == socket.AF_UNIX:
        return await loop.create_unix_server(front, sock=sock, backlog=_BACKLOG, **_FILE_STAYS)
    return await loop.create_server(front, sock=sock, backlog=_BACKLOG)


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
