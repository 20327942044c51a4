"""The wiring: reads as the list of layers."""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import structlog

from sidecar import __version__
from sidecar.admin.api import Api
from sidecar.admin.app import Wiring
from sidecar.admin.record import ActionRecorder
from sidecar.auth.authenticator import Authenticator
from sidecar.auth.keys import KeyStore
from sidecar.auth.logout import Logout
from sidecar.clock import Clock, SystemClock
from sidecar.model import Denial
from sidecar.observe import logs
from sidecar.observe.audit import AuditLog, hash_key
from sidecar.observe.metrics import Metrics
from sidecar.policy.compiled import Address, Policy
from sidecar.proxy.admin_side import AdminSide
from sidecar.proxy.admission import Admission
from sidecar.proxy.certificates import Certificates
from sidecar.proxy.connections import Connections
from sidecar.proxy.deadlines import TICK, Deadlines
from sidecar.proxy.draining import Draining
from sidecar.proxy.health import HealthChecks
from sidecar.proxy.judging import judge, judge_all
from sidecar.proxy.live import LocalConnections
from sidecar.proxy.prepared import Prepared
from sidecar.proxy.public import PublicSide
from sidecar.proxy.record import Attempt, Recorder
from sidecar.proxy.refreshing import Refresher
from sidecar.proxy.relay import Link
from sidecar.proxy.rules import Rules
from sidecar.proxy.starting import RESTART, log_start
from sidecar.proxy.tasks import once, repeat, spawn
from sidecar.state.memory import MemoryState

__all__ = ["Sidecar"]

_SYSTEM_CLOCK: Final = SystemClock()
_NOTE: Final = 1.0
"""Seconds between two looks at what has no event of its own."""

_log = structlog.get_logger()


class Sidecar:
    """One running sidecar, from `start` to `close`.

    `public` and `admin` are the addresses it really listens on, once it has started. As one of
    several workers it has a number, which its log lines bear, and listens on the bound `sockets`
    that it is given, and nowhere else, once it is told to `listen`. All that happens to connections
    by and by goes by `clock`.
    """

    def __init__(
        self,
        policy: Policy,
        environ: Mapping[str, str],
        *,
        worker: int | None = None,
        sockets: Sequence[socket.socket] = (),
        clock: Clock = _SYSTEM_CLOCK,
    ) -> None:
        self._policy = policy
        self._environ = environ
        self._worker = worker
        self._sockets = sockets
        self._background: list[asyncio.Task[None]] = []
        self._drain: Draining | None = None
        self._drain_begun, self._drained = asyncio.Event(), asyncio.Event()

        self.metrics = Metrics(policy, version=__version__)
        self._clock = clock
        self._audit = AuditLog(
            policy.logging, clock=clock.time, hash_key=hash_key(environ), worker=worker
        )
        self._recorder = Recorder(self._audit, self.metrics, clock)
        self._keys = KeyStore(policy.tokens, environ=environ, on_fetch=self.metrics.key_fetch)
        self._deadlines = Deadlines(clock, policy.tokens.leeway)
        self.connections = Connections(policy.server.max_connections, self._deadlines)
        self.metrics.set_traffic_source(self.connections.traffic)
        self._live = LocalConnections(self.connections)
        self._state = MemoryState()
        self._certificates = Certificates(policy)
        self._health = HealthChecks(policy.upstreams, self._certificates.upstreams)
        self._refresher = Refresher(
            lambda: self._policy,
            lambda: self._admission.rules.authenticator,
            self._state,
            self._recorder,
            self._clock,
            self.connections.reschedule,
        )
        self._admission = Admission(
            self._rules(policy),
            self._keys.signing_key,
            self.connections,
            self._recorder,
            self._state,
            self._judge,
            self._refresher.take,
            clock,
        )
        self._public = PublicSide(
            policy,
            self._admission.handle,
            self.connections,
            on_error=self._admission.on_error,
            on_reject=self._reject,
            tls=lambda: self._certificates.server,
        )
        self._admin = AdminSide(self._wiring, environ)
        self._settling = asyncio.Lock()
        self._settlings: set[asyncio.Task[None]] = set()

    @property
    def public(self) -> list[Address]:
        """Where the public listener is bound."""
        return self._public.bound

    @property
    def admin(self) -> Address | None:
        """Where the admin listener is bound."""
        return self._admin.address

    @property
    def draining(self) -> bool:
        """Whether no new handshake is taken any more."""
        return self._admission.draining

    async def start(self) -> None:
        """Load the keys, open the listeners. Raises KeyMaterialError and OSError; then `close`."""
        self._public.limit_connections(self._policy.server.max_connections)
        self._state.subscribe(self._live.end_revoked)
        await self._keys.start()
        await self._health.start()
        if self._worker is None:
            # The first, so that its failure comes before any client.
            await self._admin.open(self._policy.admin)
            await self._public.open(self._policy.server.listen)
        for work in (
            repeat(self.tick, TICK),
            repeat(self._note, _NOTE),
            self._certificates.watch(),
        ):
            self._background.append(asyncio.create_task(work))
        if self._worker is None:
            log_start(self.public, self.admin)

    async def listen(self) -> None:
        """Take connections, as a worker that has started. Raises OSError; then `close`."""
        await self._public.adopt(self._sockets)

    def drain(self) -> None:
        """Take no new handshakes, and end every connection with a close frame, spread over some
        time where the policy says so.

        What is left after the grace is cut off; `drained` waits for it.
        """
        if self._drain is not None:
            return
        self._drain_begun.set()
        self._admission.drain()
        _log.info("draining", connections=len(self.connections))
        self._drain = Draining(self.connections, self._policy.server.drain, self._clock)
        self._drain.advance()
        self._background.append(asyncio.create_task(self._finish_drain(self._drain)))

    def hurry(self) -> None:
        """Spread the close frames of a drain no longer: send those that are left at once."""
        if self._drain is not None:
            self._drain.hurry()

    async def stop_listening(self) -> None:
        """Take no new sockets, where others on the same address do."""
        await self._public.stop()

    async def drain_begun(self) -> None:
        """Wait until somebody asks for a drain."""
        await self._drain_begun.wait()

    async def drained(self) -> None:
        """Wait until a drain has begun and is over: every connection has ended, or was cut off."""
        await self._drained.wait()

    async def _finish_drain(self, drain: Draining) -> None:
        _log.info("drained", cut_off=await drain.run())
        self._drained.set()

    async def close(self) -> None:
        """Release everything. Connections that are left are cut off."""
        for link in self.connections:
            link.abort()
        await self._refresher.close()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, *self._settlings, return_exceptions=True)
        await self._public.close()
        for sock in self._sockets:
            sock.close()
        await self._admission.close()
        await self._admin.close()
        await self._health.close()
        await self._keys.close()
        await asyncio.sleep(0)  # aborted sockets report their end in the next turn of the loop
        self._audit.close()

    def readiness(self) -> Mapping[str, str]:
        """What is not ready, and why; empty where the sidecar can do its work."""
        problems = {f"keys of {name}": why for name, why in self._keys.unready().items()}
        problems |= {f"upstream {name}": why for name, why in self._health.problems().items()}
        if self.draining:
            problems["server"] = "draining"
        return problems

    async def reload(self, policy: Policy) -> None:
        """Put another policy in force, and wait until it holds for every connection. Raises
        ConfigError, KeyMaterialError and OSError; then everything is as before.
        """
        await self.take(policy)
        await asyncio.wait(self._settlings)

    async def take(self, policy: Policy) -> int:
        """Put another policy in force, and begin to judge the live connections by it: how many
        there are. Raises as `reload` does. What the change before has begun is finished first.
        """
        if self._settlings:
            await asyncio.wait(self._settlings)
        (await self.prepare(policy)).commit()
        return len(self.connections)

    async def prepare(self, policy: Policy) -> Prepared:
        """Do all that can fail of a change to this policy: read its local keys and certificates,
        listen on its new addresses (a worker has those that it was given). Raises ConfigError,
        KeyMaterialError and OSError, and leaves nothing.
        """
        async with AsyncExitStack() as opened:
            certificates = await asyncio.to_thread(Certificates, policy)
            keys = await self._keys.read(policy.tokens)
            sink = self._audit.sink_for(policy.logging)
            opened.callback(self._audit.close_unused, sink)
            addresses = policy.server.listen if self._worker is None else ()
            opening = await self._public.prepare(policy.server, addresses)
            opened.callback(opening.discard)
            take_admin = await self._admin.prepare(policy.admin, opened)

            def commit() -> None:
                before, self._policy = self._policy, policy
                self._certificates.adopt(certificates)
                self._keys.adopt(policy.tokens, keys)
                self._audit.follow(policy.logging, sink)
                self._public.take(opening, policy, before)
                take_admin()
                self._follow(before)

            kept = opened.pop_all()
        return Prepared(commit, kept)

    def _follow(self, before: Policy) -> None:
        """Let every part that goes by the policy go by the one that is in force now."""
        policy = self._policy
        self.metrics.follow(policy)
        logs.follow(before.logging, policy.logging, worker=self._worker)
        self._health.adopt(policy.upstreams, self._certificates.upstreams)
        if self._worker is None and policy.server.workers != before.server.workers:
            _log.warning("restart_needed", key="server.workers", remedy=RESTART)
        self._deadlines.follow(policy.tokens.leeway)
        self._admission.rules = self._rules(policy)
        spawn(self._settle(list(self.connections)), self._settlings)

    async def _settle(self, live: Sequence[Link]) -> None:
        """Finish a change of the policy: what it takes time to judge, to begin, or to end. Where
        one of them fails the others are done all the same.
        """
        async with self._settling:
            for work in (
                partial(judge_all, live, self._judge, self._state, self._clock),
                self._public.settle,
                self._health.settle,
                self._keys.settle,
                self._admin.settle,
            ):
                await once(work)

    def _judge(self, link: Link) -> None:
        if judge(link, self._policy, self._clock.time()):
            self.connections.reschedule(link)

    def _rules(self, policy: Policy) -> Rules:
        return Rules(policy, Authenticator(policy.tokens, self._keys), self._certificates.upstreams)

    def _wiring(self) -> Wiring:
        return Wiring(self._exposition, self._unready, self.drain, self.api)

    @property
    def api(self) -> Api:
        """What the admin API asks of this process."""
        return Api(
            self._state,
            self._live,
            self._verify_logout,
            lambda: self._policy.tokens,
            ActionRecorder(self._audit, self.metrics),
            self._clock,
        )

    async def _verify_logout(self, token: str, now: float) -> Logout | Denial:
        return await self._admission.rules.authenticator.logout(token, now)

    async def _exposition(self, accept: str) -> tuple[bytes, str]:
        return self.metrics.render(accept)

    async def _unready(self) -> Mapping[str, str]:
        return self.readiness()

    def _reject(self, address: str, denial: Denial) -> None:
        self._recorder.refused(Attempt(address), denial)

    async def tick(self) -> None:
        """Do what is due by now for the live connections."""
        while self._deadlines.advance():  # noqa: ASYNC110  # the rest of the loop has its turn
            await asyncio.sleep(0)
        self.connections.look_after()

    async def _note(self) -> None:
        """Write down what is asked for now and then."""
        self._audit.flush()
        unready = self._keys.unready()
        for provider in self._policy.tokens.providers:
            self.metrics.provider_ready(provider.name, provider.name not in unready)
        self.metrics.waiting_clients(self._admission.waiting)
        self.metrics.revocations_active(await self._state.count(self._clock.time()))
