"""What the admin API sees of live connections: plain data, wherever the connections are."""

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nsmallest
from typing import Protocol

__all__ = ["Connection", "ConnectionFilter", "ConnectionPage", "LiveConnections", "page_of"]


@dataclass(frozen=True, slots=True)
class Connection:
    """A live connection; its id is 16 hexadecimal digits. `user`, `provider`, `token_id` and
    `expires_at` (the token's end) are None for an anonymous client. Times are in seconds since the
    epoch.
    """

    id: str
    route: str
    upstream: str
    address: str
    user: str | None
    provider: str | None
    token_id: str | None
    opened_at: float
    expires_at: float | None
    client_messages: int
    client_bytes: int
    upstream_messages: int
    upstream_bytes: int


@dataclass(frozen=True, slots=True)
class ConnectionFilter:
    """Which connections are meant: those that are equal in all that is not None."""

    user: str | None = None
    route: str | None = None
    address: str | None = None
    provider: str | None = None

    def takes(self, connection: Connection) -> bool:
        """Whether a connection is meant."""
        return (
            self.user in (None, connection.user)
            and self.route in (None, connection.route)
            and self.address in (None, connection.address)
            and self.provider in (None, connection.provider)
        )


@dataclass(frozen=True, slots=True)
class ConnectionPage:
    """Some connections by their ids' order, and the cursor of the next page: None after the
    last.
    """

    connections: tuple[Connection, ...]
    next: str | None


class LiveConnections(Protocol):
    """The connections of the whole sidecar. What goes in and out is plain data, so that it may
    come from other processes. Where one of these does not answer, each method raises WorkerError.
    """

    async def list(
        self, which: ConnectionFilter, *, cursor: str | None, limit: int
    ) -> ConnectionPage:
        """A page of the connections that are meant; see `page_of`."""
        ...

    async def kick(self, identifier: str) -> bool:
        """End a connection; False where there is none with this id."""
        ...


def page_of(
    connections: Iterable[Connection], which: ConnectionFilter, *, cursor: str | None, limit: int
) -> ConnectionPage:
    """A page of `connections`, which may come in any order and from several places.

    The order is that of the ids and the cursor is the last one's: what lives as long as somebody
    turns the pages is on exactly one of them, whatever comes and goes.
    """
    after = cursor or ""
    meant = (each for each in connections if each.id > after and which.takes(each))
    found = nsmallest(limit + 1, meant, key=lambda each: each.id)
    page = tuple(found[:limit])
    return ConnectionPage(page, page[-1].id if len(found) > limit else None)
