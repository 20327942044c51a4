"""The listening sockets of several processes: settled by the parent, opened by each worker.

On Linux the kernel spreads connections over sockets that are bound to one address with
SO_REUSEPORT. The parent binds first and never listens, so that a port 0 and an address in use are
settled once, and nobody else gets the port while no worker lives. Unix sockets, and every socket
elsewhere, are bound by the parent alone, and all workers listen on the same one.
"""

import contextlib
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.policy.compiled import Address
from sidecar.proxy.listeners import PUBLIC, address_of, bind, bind_inet, files_of, naming
from sidecar.proxy.unix_sockets import SocketFile

__all__ = ["BALANCED", "Place", "Ports", "open_places"]

BALANCED: Final = sys.platform == "linux"
"""Whether the kernel spreads connections over several sockets of one address."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker listens: on the inherited socket with this descriptor, or, where that is
    None, on its own, of this address family and name.
    """

    descriptor: int | None
    family: int
    name: Any

    def to_json(self) -> list[Any]:
        """What `from_json` takes."""
        return [self.descriptor, self.family, self.name]

    @classmethod
    def from_json(cls, document: Sequence[Any]) -> "Place":
        """The place that `to_json` was told."""
        descriptor, family, name = document
        return cls(descriptor, family, tuple(name) if isinstance(name, list) else name)


class Ports:
    """The parent's sockets, from `open` to `close`. `balanced` is `BALANCED` but in tests."""

    def __init__(self, *, balanced: bool = BALANCED) -> None:
        self._balanced = balanced
        self._sockets: list[socket.socket] = []
        self._files: list[SocketFile] = []
        self.places: tuple[Place, ...] = ()

    @property
    def bound(self) -> list[Address]:
        """The real addresses (a port 0 was chosen by the system)."""
        return [address_of(sock) for sock in self._sockets]

    @property
    def inherited(self) -> tuple[int, ...]:
        """The descriptors that each worker must inherit."""
        return tuple(one.descriptor for one in self.places if one.descriptor is not None)

    async def open(self, addresses: Sequence[Address]) -> None:
        """Bind every address. Raises OSError; what was opened before stays until `close`."""
        for address in addresses:
            with naming(address, PUBLIC):
                for sock in await bind(address):
                    self._sockets.append(sock)
                    self._files += files_of([sock])
                    self.places += (self._settle(sock),)

    def close(self) -> None:
        """Let go of the addresses."""
        for sock in self._sockets:
            sock.close()
        for file in self._files:
            file.remove()

    def _settle(self, sock: socket.socket) -> Place:
        if sock.family == socket.AF_UNIX or not self._balanced:
            return Place(sock.fileno(), sock.family, None)
        # Only now: bound with it, the socket would join those of another program of this user.
        # And who comes with SO_REUSEADDR alone must not get in where no worker listens.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        return Place(None, sock.family, sock.getsockname())


def open_places(places: Sequence[Place]) -> list[socket.socket]:
    """A worker's sockets for these places. Raises OSError."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(_socket(place)) for place in places]
        opened.pop_all()
    return sockets


def _socket(place: Place) -> socket.socket:
    if place.descriptor is None:
        return bind_inet(place.family, place.name, shared=True)
    sock = socket.socket(fileno=place.descriptor)
    sock.setblocking(False)
    return sock
