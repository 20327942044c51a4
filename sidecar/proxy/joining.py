"""A client and its dialled upstream become a connection."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from sidecar.clock import Clock
from sidecar.model import Permit
from sidecar.policy.compiled import Policy
from sidecar.policy.decide import Preflight, standing
from sidecar.proxy.connections import Connections
from sidecar.proxy.pipe import Pipe
from sidecar.proxy.record import Attempt, Recorder
from sidecar.proxy.relay import Link
from sidecar.proxy.scanners import Scanners
from sidecar.proxy.sockets import probe
from sidecar.proxy.upstream import Dialled

__all__ = ["Client", "Joiner"]


class Client(Protocol):
    """Whoever holds a client's socket until its handshake is decided."""

    @property
    def transport(self) -> asyncio.Transport:
        """The socket."""
        ...

    def hand_over(self, make_protocol: Callable[[asyncio.Transport], asyncio.Protocol]) -> bytes:
        """Switch the socket to another protocol; what the client sent before. Raises
        ConnectionResetError where the client has left.
        """
        ...


class Joiner:
    """Makes a live connection of both sockets. `on_tokens` is given what it brings in band."""

    def __init__(
        self,
        connections: Connections,
        recorder: Recorder,
        on_tokens: Callable[[Link, Sequence[object]], None],
        clock: Clock,
    ) -> None:
        self._connections = connections
        self._recorder = recorder
        self._on_tokens = on_tokens
        self._clock = clock

    def join(
        self,
        client: Client,
        attempt: Attempt,
        policy: Policy,
        permit: Permit,
        dialled: Dialled,
        admitted: Preflight,
        greeting: bytes,
    ) -> Link:
        """Say `greeting` to the client and join both sockets. Nothing is awaited. Raises
        ConnectionResetError where the client has left.
        """
        now = self._clock.monotonic
        route = admitted.route
        scanners = Scanners(route.limits)
        upstream = Pipe("upstream", dialled.transport, scanners.upstream, now)
        clients: list[Pipe] = []

        def make_client(transport: asyncio.Transport) -> Pipe:
            transport.write(greeting)
            clients.append(Pipe("client", transport, scanners.client, now))
            return clients[0]

        early = client.hand_over(make_client)
        attempt.keeps_place = True
        link = Link(
            attempt.identifier,
            permit,
            clients[0],
            upstream,
            route.refuse.codes,
            self._on_end,
            scanners=scanners,
            session=route.session,
            address=attempt.address,
            opened=now(),
            opened_at=self._clock.time(),
            standing=standing(policy, admitted),
            on_tokens=self._on_tokens,
            held=self._connections.held,
        )
        if link.session.heartbeat is not None:
            probe(dialled.transport, link.session.heartbeat)
        self._connections.add(link)
        self._recorder.allowed(attempt, permit)
        upstream.begin(bytes(dialled.early))
        if early:
            clients[0].data_received(early)
        return link

    def _on_end(self, link: Link) -> None:
        self._connections.remove(link)
        self._recorder.ended(link)
