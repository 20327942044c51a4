"""The live connections of this process: how many there may be, and what they have carried."""

import asyncio
from collections.abc import Iterator, Mapping

from sidecar.proxy.deadlines import Deadlines
from sidecar.proxy.pipe import Pipe
from sidecar.proxy.relay import Link

__all__ = ["Connections"]

Traffic = tuple[int, int]


class Connections:
    """The registry of live links, and the places that handshakes and connections take.

    `limit` is how many handshakes and connections together may exist at a time. `deadlines` looks
    at the links from their beginning to their end. `held` are the pipes that do not read at the
    moment.
    """

    def __init__(self, limit: int, deadlines: Deadlines) -> None:
        self.limit = limit
        self.held: set[Pipe] = set()
        self._deadlines = deadlines
        self.places_taken = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._links: dict[str, Link] = {}
        self._ended: dict[tuple[str, str], Traffic] = {}

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._links.values()))

    def take_place(self) -> bool:
        """Take a place for a handshake, which its connection keeps; False when all are taken."""
        if self.places_taken >= self.limit:
            return False
        self.places_taken += 1
        self._idle.clear()
        return True

    def free_place(self) -> None:
        """Give a place back."""
        self.places_taken -= 1
        if not self.places_taken:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until no place is taken."""
        await self._idle.wait()

    def add(self, link: Link) -> None:
        """A connection has begun."""
        self._links[link.identifier] = link
        self._deadlines.add(link)

    def reschedule(self, link: Link) -> None:
        """A live connection has another token or another session."""
        if link.identifier in self._links:
            self._deadlines.reschedule(link)

    def remove(self, link: Link) -> None:
        """A connection has ended: its place is free, its traffic stays counted."""
        del self._links[link.identifier]
        self._deadlines.remove(link)
        self.held -= {link.client, link.upstream}
        self.free_place()
        _count(self._ended, link)

    def look_after(self) -> None:
        """Notice sides that are gone while they are not read."""
        for pipe in tuple(self.held):
            pipe.look_after()

    def traffic(self) -> Mapping[tuple[str, str], Traffic]:
        """Messages and payload bytes so far, by route and direction ("client": from clients)."""
        totals = dict(self._ended)
        for link in self._links.values():
            _count(totals, link)
        return totals


def _count(totals: dict[tuple[str, str], Traffic], link: Link) -> None:
    for pipe in (link.client, link.upstream):
        key = (link.route, pipe.side)
        messages, payload = totals.get(key, (0, 0))
        meter = pipe.meter
        totals[key] = (messages + meter.messages, payload + meter.payload_bytes)
