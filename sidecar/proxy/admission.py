"""The awaits between the pure steps of a handshake; no rules.

    request -> Handshake -> Preflight -> Identity -> Permit -> dialled upstream -> Link

Each arrow may end in a refusal; `proxy.refusals` says how that looks. Between Preflight and
Identity a client may have to be waited for: `proxy.first_message`.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from sidecar.clock import Clock
from sidecar.errors import HandshakeError, KeysUnavailable, UpstreamError
from sidecar.model import Denial, Handshake, Identity, Permit, Reason
from sidecar.policy import awaiting, decide
from sidecar.policy.compiled import Policy
from sidecar.policy.credentials import MessageSource, SourceKind, extract
from sidecar.policy.decide import Preflight
from sidecar.policy.keys import SigningKey
from sidecar.policy.peers import resolve_peer
from sidecar.policy.refuse import Refuse
from sidecar.policy.routes import Route
from sidecar.proxy.connections import Connections
from sidecar.proxy.farewell import Farewell, Farewells
from sidecar.proxy.first_message import FirstMessages, Waiting
from sidecar.proxy.front import Front, RequestHead
from sidecar.proxy.joining import Client, Joiner
from sidecar.proxy.record import CLIENT_LEFT, Attempt, Recorder
from sidecar.proxy.refusals import (
    HttpRefusal,
    closable,
    close_code,
    http_refusal,
    public_name,
)
from sidecar.proxy.relay import Link
from sidecar.proxy.rules import Rules
from sidecar.proxy.upstream import Dialled, dial
from sidecar.state.base import State, is_revoked
from sidecar.wire.handshake import accept_key, parse_request, switching_protocols

__all__ = ["Admission"]

_Greet = Callable[[Permit, Dialled], bytes]
"""What the client is told once its upstream has been dialled."""

_log = structlog.get_logger()


class _Refused(Exception):  # noqa: N818  # a way out, not an error
    """Carries a denial from any step to the one place that answers it."""

    def __init__(self, denial: Denial, *, unsupported_version: bool = False) -> None:
        self.denial = denial
        self.unsupported_version = unsupported_version
        super().__init__(denial.reason)


class Admission:
    """Takes each request of the public listener to a relay or to a refusal.

    `rules` are for the handshakes that begin from now on; others may take their place. `judge`
    judges a connection by the rules in force. `state` knows which tokens are revoked. `on_tokens`
    is given what live connections bring in band. While `draining`, every handshake is refused.
    """

    def __init__(
        self,
        rules: Rules,
        signing_key: Callable[[str], SigningKey],
        connections: Connections,
        recorder: Recorder,
        state: State,
        judge: Callable[[Link], None],
        on_tokens: Callable[[Link, Sequence[object]], None],
        clock: Clock,
    ) -> None:
        self.rules = rules
        self._signing_key = signing_key
        self._connections = connections
        self._recorder = recorder
        self._state = state
        self._judge = judge
        self._clock = clock
        self._joiner = Joiner(connections, recorder, on_tokens, clock)
        self._farewells = Farewells(connections.free_place)
        self._first_messages = FirstMessages(
            self._admit_waiting, connections, self._farewells, recorder, clock
        )
        self.draining = False

    @property
    def waiting(self) -> int:
        """How many clients were accepted without a token, and have no decision yet."""
        return len(self._first_messages)

    def drain(self) -> None:
        """Refuse every handshake from now on; nobody is held any longer before being told."""
        self.draining = True
        self._farewells.hurry()
        self._first_messages.drain()

    async def close(self) -> None:
        """Cut off the clients without a decision, and the refused ones that are not gone yet."""
        await self._first_messages.close()
        self._farewells.abort()

    async def handle(self, front: Front, head: RequestHead) -> HttpRefusal | None:
        """Decide one request: None where its socket was taken over, else what to answer."""
        attempt = Attempt(front.address, secure=front.secure)
        attempt.path = head.target.partition("?")[0]
        if self.draining:
            return self._answer(attempt, _Refused(Denial(Reason.DRAINING)))
        if not self._connections.take_place():
            return self._answer(attempt, _Refused(Denial(Reason.OVERLOADED)))
        try:
            await self._admit(front, head, attempt)
        except _Refused as refused:
            return self._refuse(front, attempt, refused)
        except asyncio.CancelledError:
            if front.transport.is_closing():
                self._recorder.refused(attempt, CLIENT_LEFT)
            raise
        finally:
            if not attempt.keeps_place:
                self._connections.free_place()
        return None

    def on_error(self, front: Front, error: Exception) -> HttpRefusal:
        """Answer for an error of the program's own."""
        attempt = Attempt(front.address, secure=front.secure)
        _log.error("internal_error", request_id=attempt.identifier, exc_info=error)
        return self._answer(attempt, _Refused(Denial(Reason.INTERNAL_ERROR)))

    async def _admit(self, front: Front, head: RequestHead, attempt: Attempt) -> None:
        rules = self.rules
        admitted = self._preflight(rules.policy, _read(head), attempt)
        if admitted.awaits_message is None:
            try:
                await self._let_in(front, attempt, rules, admitted, _switch)
                return
            except _Refused as refused:
                without = awaiting.without_cookie(admitted, refused.denial)
                if without is None:
                    raise
                attempt.identity, admitted = None, without
        if admitted.awaits_message is not None:
            self._await_message(front, attempt, rules, admitted, admitted.awaits_message)

    def _await_message(
        self,
        front: Front,
        attempt: Attempt,
        rules: Rules,
        admitted: Preflight,
        source: MessageSource,
    ) -> None:
        if crowded := self._first_messages.crowded(attempt, admitted, source):
            raise _Refused(Denial(Reason.OVERLOADED, crowded))
        try:
            self._first_messages.accept(front, attempt, rules, admitted, source)
        except ConnectionResetError as error:
            raise _Refused(CLIENT_LEFT) from error

    async def _admit_waiting(self, waiting: Waiting, token: str) -> None:
        """Decide a client that was accepted, with the token of its first message, by the rules that
        are in force when that is there.
        """
        greet = partial(self._first_messages.greeting, waiting)
        try:
            if waiting.rules is not self.rules:
                self._begin_again(waiting)
            admitted = awaiting.with_token(waiting.admitted, token)
            await self._let_in(waiting, waiting.attempt, waiting.rules, admitted, greet)
        except _Refused as refused:
            self._first_messages.refuse(waiting, refused.denial)
        except Exception as error:
            _log.error("internal_error", request_id=waiting.attempt.identifier, exc_info=error)
            self._first_messages.refuse(waiting, Denial(Reason.INTERNAL_ERROR))

    def _begin_again(self, waiting: Waiting) -> None:
        again = awaiting.preflight_again(self.rules.policy, waiting.admitted)
        waiting.attempt.route = again.route
        if isinstance(again, decide.Refusal):
            raise _Refused(again.denial)
        waiting.rules, waiting.admitted = self.rules, again
        waiting.source = again.awaits_message or waiting.source

    async def _let_in(
        self,
        client: Client,
        attempt: Attempt,
        rules: Rules,
        admitted: Preflight,
        greet: _Greet,
    ) -> None:
        deadline = asyncio.get_running_loop().time() + rules.policy.server.handshake_timeout
        permit = await self._authorize(rules, admitted, attempt)
        if client.transport.is_closing():
            raise _Refused(CLIENT_LEFT)
        dialled = await self._dial(rules, permit, deadline)
        try:
            link = self._connect(client, attempt, rules, permit, dialled, admitted, greet)
        except BaseException:
            dialled.transport.abort()
            raise
        if rules is not self.rules:  # all that were live when these came have been judged, or are
            self._judge(link)
        # Once more: what was revoked meanwhile has looked for live connections before this was one.
        if link.session.revocable and await self._is_revoked(permit.identity):
            link.end(Reason.TOKEN_REVOKED)

    def _preflight(self, policy: Policy, handshake: Handshake, attempt: Attempt) -> Preflight:
        trusted = policy.server.trusted_proxies
        peer = resolve_peer(attempt.address, attempt.secure, handshake.headers, trusted)
        attempt.address = peer.address
        attempt.handshake = handshake
        admitted = decide.preflight(policy, handshake, peer)
        attempt.route = admitted.route
        if isinstance(admitted, decide.Refusal):
            raise _Refused(admitted.denial)
        return admitted

    async def _authorize(self, rules: Rules, admitted: Preflight, attempt: Attempt) -> Permit:
        token = admitted.credential.token
        if token is not None:
            identity = await rules.authenticator.authenticate(
                token, admitted.route.authenticate.providers, self._clock.time()
            )
            if isinstance(identity, Denial):
                raise _Refused(identity)
            attempt.identity = identity
            if await self._is_revoked(identity):
                raise _Refused(Denial(Reason.TOKEN_REVOKED, "a revocation means this token"))
        try:
            permit = decide.authorize(
                rules.policy,
                admitted,
                attempt.identity,
                request_id=attempt.identifier,
                now=self._clock.time(),
                signing_key=self._signing_key,
            )
        except KeysUnavailable as error:
            raise _Refused(Denial(Reason.STATE_UNAVAILABLE, str(error))) from error
        if isinstance(permit, decide.Refusal):
            raise _Refused(permit.denial)
        return permit

    async def _dial(self, rules: Rules, permit: Permit, deadline: float) -> Dialled:
        upstream = rules.policy.upstreams[permit.upstream]
        tls = rules.upstream_tls.get(permit.upstream)
        now = asyncio.get_running_loop().time
        started = now()
        try:
            dialled = await dial(permit, upstream, tls, deadline)
        except UpstreamError as error:
            denial = Denial(error.reason, error.detail)
            self._recorder.dialled(permit, denial, now() - started)
            raise _Refused(denial) from error
        self._recorder.dialled(permit, None, now() - started)
        return dialled

    def _connect(
        self,
        client: Client,
        attempt: Attempt,
        rules: Rules,
        permit: Permit,
        dialled: Dialled,
        admitted: Preflight,
        greet: _Greet,
    ) -> Link:
        """Tell the client that it is in, and join both sockets. Nothing is awaited from here on."""
        if self.draining:
            raise _Refused(Denial(Reason.DRAINING))
        if dialled.transport.is_closing():
            raise _Refused(Denial(Reason.UPSTREAM_REFUSED, "it hung up after its answer"))
        try:
            greeting = greet(permit, dialled)
            return self._joiner.join(
                client, attempt, rules.policy, permit, dialled, admitted, greeting
            )
        except UpstreamError as error:
            raise _Refused(Denial(error.reason, error.detail)) from error
        except ConnectionResetError as error:
            raise _Refused(CLIENT_LEFT) from error

    async def _is_revoked(self, identity: Identity | None) -> bool:
        now = self._clock.time()
        return await is_revoked(self._state, identity, now, now)

    def _refuse(self, front: Front, attempt: Attempt, refused: _Refused) -> HttpRefusal | None:
        """Refuse in the route's way."""
        route, handshake = attempt.route, attempt.handshake
        if route is None or handshake is None or not closable(refused.denial.reason):
            return self._answer(attempt, refused)
        crowded = self._first_messages.full or refused.denial.reason is Reason.OVERLOADED
        if crowded or not route.refuse.closes(browser=handshake.origin is not None):
            return self._answer(attempt, refused)
        try:
            self._close(front, attempt, refused.denial, route.refuse, handshake)
        except _Refused as left:
            return self._answer(attempt, left)
        return None

    def _answer(self, attempt: Attempt, refused: _Refused) -> HttpRefusal:
        self._recorder.refused(attempt, refused.denial)
        return http_refusal(
            refused.denial, attempt.identifier, unsupported_version=refused.unsupported_version
        )

    def _close(
        self,
        front: Front,
        attempt: Attempt,
        denial: Denial,
        refuse: Refuse,
        handshake: Handshake,
    ) -> None:
        """Accept, and close with a code that a browser can read."""
        code = close_code(denial.reason, denial.rule, refuse.codes)
        reason = public_name(denial)
        subprotocol = _acceptable_subprotocol(handshake, attempt.route)

        def make_farewell(transport: asyncio.Transport) -> Farewell:
            # A close frame has no room for the id; programs can read it here.
            accept = accept_key(handshake.key)
            transport.write(switching_protocols(accept, subprotocol, request_id=attempt.identifier))
            return self._farewells.bid(transport, code, reason, refuse.hold)

        try:
            front.hand_over(make_farewell)
        except ConnectionResetError as error:
            raise _Refused(CLIENT_LEFT) from error
        attempt.keeps_place = True
        self._recorder.refused(attempt, denial)


def _read(head: RequestHead) -> Handshake:
    if head.error is not None:
        raise _Refused(Denial(Reason.BAD_HANDSHAKE, f"not an HTTP request: {head.error}"))
    try:
        handshake = parse_request(head.method, head.target, head.version, head.headers)
    except HandshakeError as error:
        raise _Refused(
            Denial(Reason.BAD_HANDSHAKE, error.detail),
            unsupported_version=error.unsupported_version,
        ) from error
    if not head.upgrades:  # what follows would be the sidecar's word against the parser's
        raise _Refused(Denial(Reason.BAD_HANDSHAKE, "the HTTP parser sees no upgrade"))
    return handshake


def _switch(permit: Permit, dialled: Dialled) -> bytes:
    return switching_protocols(dialled.accept, dialled.subprotocol or permit.echo)


def _acceptable_subprotocol(handshake: Handshake, route: Route | None) -> str | None:
    """One that can be told to a client whose handshake is refused."""
    sources = route.authenticate.sources if route else ()
    # Only these: tokens in other places must not make a conflict of it.
    marked = [source for source in sources if source.kind is SourceKind.SUBPROTOCOL]
    credential = extract(handshake, marked)
    return None if isinstance(credential, Denial) else credential.selectable
