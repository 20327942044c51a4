"""The public side: what clients reach, from the sockets to the first bytes of their handshakes."""

import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from sidecar.policy.compiled import Address, Policy, Server
from sidecar.policy.peers import Network
from sidecar.proxy.accept import Acceptor
from sidecar.proxy.connections import Connections
from sidecar.proxy.front import Front, FrontServer, Handler, OnReject
from sidecar.proxy.listeners import Listeners, Opening
from sidecar.proxy.refusals import HttpRefusal
from sidecar.proxy.sockets import files_for, raise_file_limit

__all__ = ["PublicSide"]

_FIELD_OVERHEAD: Final = 8 * 1024
"""Bytes beside the token in the field that carries it: browsers send all their cookies in one."""

_ROOM_TO_REFUSE: Final = 64
"""Sockets over the limit that are still told so; further ones are cut off."""

_log = structlog.get_logger()


class PublicSide:
    """The listeners of `server.listen`, what comes before HTTP on them, and the front behind.

    `handler`, `on_error` and `on_reject` are as in `FrontServer`; `tls` gives the context for the
    next connection; the limit of `connections` is set here.
    """

    def __init__(
        self,
        policy: Policy,
        handler: Handler,
        connections: Connections,
        *,
        on_error: Callable[[Front, Exception], HttpRefusal],
        on_reject: OnReject,
        tls: Callable[[], ssl.SSLContext | None],
    ) -> None:
        server = policy.server
        self._connections = connections
        self._front = FrontServer(
            handler,
            on_error=on_error,
            on_reject=on_reject,
            head_timeout=server.handshake_timeout,
            max_field=policy.tokens.max_token_size + _FIELD_OVERHEAD,
            max_waiting=server.max_connections + _ROOM_TO_REFUSE,
        )
        self._acceptor = Acceptor(
            self._front,
            tls=tls,
            head_timeout=server.handshake_timeout,
            trusted=_senders(server),
            on_reject=on_reject,
        )
        self._listeners = Listeners(self._front, self._acceptor_for(server))

    @property
    def bound(self) -> list[Address]:
        """Where it listens."""
        return self._listeners.bound

    async def open(self, addresses: Sequence[Address]) -> None:
        """Listen there. Raises OSError; then `close`."""
        await self._listeners.open(addresses)

    async def adopt(self, sockets: Sequence[socket.socket]) -> None:
        """Listen on these bound sockets. Raises OSError; then `close`."""
        await self._listeners.adopt(sockets)

    async def prepare(self, server: Server, addresses: Sequence[Address]) -> Opening:
        """Open what is new of these addresses, with what comes before HTTP by these settings.
        Raises OSError, and leaves nothing.
        """
        return await self._listeners.prepare(addresses, self._acceptor_for(server))

    def take(self, opening: Opening, policy: Policy, before: Policy) -> None:
        """Go by this policy from now on, with what was opened for it; `settle` then serves."""
        server = policy.server
        self._listeners.take(opening)
        self._acceptor.head_timeout = server.handshake_timeout
        self._acceptor.trusted = _senders(server)
        self._front.adopt(
            head_timeout=server.handshake_timeout,
            max_field=policy.tokens.max_token_size + _FIELD_OVERHEAD,
        )
        if server.max_connections != before.server.max_connections:
            self._connections.limit = server.max_connections
            self.limit_connections(server.max_connections)

    async def settle(self) -> None:
        """Serve what is new, and close what is gone."""
        await self._listeners.settle()

    async def stop(self) -> None:
        """Take no new sockets."""
        await self._listeners.close()

    async def close(self) -> None:
        """Let go of the listeners and of every socket without a decision."""
        await self._listeners.close()
        await self._acceptor.close()
        await self._front.close()

    def limit_connections(self, wanted: int) -> None:
        """Take no more connections than there can be files: 503 is better than to run out."""
        allowed, waiting = raise_file_limit(wanted)
        if allowed < wanted:
            _log.warning(
                "file_limit_too_low",
                problem=f"server.max_connections is lowered from {wanted} to {allowed}",
                remedy=f"raise the limit of open files (ulimit -n) to {files_for(wanted)}",
            )
            self._connections.limit = allowed
        self._front.max_waiting = waiting + _ROOM_TO_REFUSE

    def _acceptor_for(self, server: Server) -> Acceptor | None:
        """What brings sockets through the PROXY protocol and TLS; None with neither."""
        return self._acceptor if server.tls is not None or server.proxy_protocol else None


def _senders(server: Server) -> Sequence[Network] | None:
    """Who must send the PROXY protocol's header; None where nobody has to."""
    return server.trusted_proxies if server.proxy_protocol else None
