"""The live connections of this process, as the admin API and revocations reach them."""

from sidecar.admin.live import Connection, ConnectionFilter, ConnectionPage, page_of
from sidecar.model import Reason
from sidecar.proxy.connections import Connections
from sidecar.proxy.relay import Link
from sidecar.state.base import Revocation, Subject

__all__ = ["LocalConnections"]


class LocalConnections:
    """Lists them, and ends one or those that a revocation means."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def list(
        self, which: ConnectionFilter, *, cursor: str | None, limit: int
    ) -> ConnectionPage:
        """A page of the connections that are meant."""
        return page_of(map(_shown, self._connections), which, cursor=cursor, limit=limit)

    async def kick(self, identifier: str) -> bool:
        """End a connection; False where there is none with this id, or it is ending."""
        for link in self._connections:
            if link.identifier == identifier and link.closing is None:
                link.end(Reason.KICKED)
                return True
        return False

    async def end_revoked(self, revocation: Revocation) -> int:
        """End those whose token a revocation means; how many."""
        meant = [link for link in self._connections if _is_meant(link, revocation)]
        for link in meant:
            link.end(Reason.TOKEN_REVOKED)
        return len(meant)


def _is_meant(link: Link, revocation: Revocation) -> bool:
    if link.identity is None or link.closing is not None or not link.session.revocable:
        return False
    return revocation.revokes(Subject.of(link.identity, link.verified_at))


def _shown(link: Link) -> Connection:
    identity = link.identity
    client, upstream = link.client.meter, link.upstream.meter
    return Connection(
        id=link.identifier,
        route=link.route,
        upstream=link.server,
        address=link.address,
        user=identity.user if identity else None,
        provider=identity.provider if identity else None,
        token_id=identity.token_id if identity else None,
        opened_at=link.opened_at,
        expires_at=link.expires_at,
        client_messages=client.messages,
        client_bytes=client.payload_bytes,
        upstream_messages=upstream.messages,
        upstream_bytes=upstream.payload_bytes,
    )
