"""The parent of the workers: starts and restarts them, and speaks for all of them.

It takes no connection of a client and holds no key; what is revoked, it holds for all.
"""

import asyncio
import secrets
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any, Final, TypeVar

import structlog

from sidecar.admin.api import Api
from sidecar.admin.app import Wiring
from sidecar.admin.record import ActionRecorder
from sidecar.clock import SystemClock
from sidecar.config.source import Document, Loaded
from sidecar.errors import WorkerError
from sidecar.observe.audit import HASH_KEY_VARIABLE, AuditLog, hash_key
from sidecar.policy.compiled import Address
from sidecar.proxy.starting import log_start
from sidecar.proxy.tasks import spawn
from sidecar.state.memory import MemoryState
from sidecar.workers.copies import CopiedState
from sidecar.workers.figures import Figures
from sidecar.workers.orders import Orders
from sidecar.workers.own import Own
from sidecar.workers.ports import Ports
from sidecar.workers.process import WorkerProcess
from sidecar.workers.reload import commit_all, prepare_all
from sidecar.workers.restarts import Restarts
from sidecar.workers.telling import Telling
from sidecar.workers.workforce import Workforce

__all__ = ["Supervisor"]

_TICK: Final = 5.0
"""Seconds between two looks at the workers' figures: what a worker that is killed has counted
since then is lost.
"""

_HUNG: Final = 30.0
"""Seconds after which a worker that answers nothing is ended by force: its connections hang."""

_MARGIN: Final = 5.0
"""Seconds beside the grace until a worker that does not end is ended by force."""

T = TypeVar("T")

_log = structlog.get_logger()


class Supervisor:
    """Several workers as one sidecar, from `start` to `close`.

    `public` and `admin` are the addresses that it really listens on, once it has started. Raises
    ConfigError for a key of pseudonyms that must not be used, and for a file of the audit log that
    cannot be written.
    """

    def __init__(self, loaded: Loaded, environ: Mapping[str, str], workers: int) -> None:
        hash_key(environ)
        self._documents = loaded.documents
        self._count = workers
        self._hash_key = environ.get(HASH_KEY_VARIABLE) or secrets.token_hex(32)
        self._figures = Figures(loaded.policy, workers)
        self._clock = SystemClock()
        self._audit = AuditLog(
            loaded.policy.logging,
            clock=self._clock.time,
            hash_key=hash_key({HASH_KEY_VARIABLE: self._hash_key}),
        )
        self._state = CopiedState(MemoryState())
        self._own = Own(loaded.policy, environ, self._audit, self._figures.own, self._wiring)
        self._telling = Telling()
        # A worker starts by the policy that is in force when it listens.
        self._changing = asyncio.Lock()
        self._ports = Ports()
        self._processes: set[WorkerProcess] = set()
        self._up: dict[int, WorkerProcess] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._beginnings: set[asyncio.Task[WorkerProcess]] = set()
        self._ends: set[asyncio.Task[None]] = set()
        self._drains: set[asyncio.Task[None]] = set()
        self._drain_begun = asyncio.Event()
        self._closing = False

    @property
    def public(self) -> list[Address]:
        """Where the workers listen."""
        return self._ports.bound

    @property
    def admin(self) -> Address | None:
        """Where the admin listener is bound."""
        return self._own.admin

    @property
    def _draining(self) -> bool:
        return self._drain_begun.is_set()

    async def start(self) -> None:
        """Settle the addresses, prepare every worker, open the admin listener; only then let them
        listen, all together: the first alone would get every client that waits.

        Raises OSError and WorkerError; then `close`.
        """
        await self._ports.open(self._own.policy.server.listen)
        workers = await _together(map(self._prepare, range(1, self._count + 1)))
        await self._own.open()
        await _together(map(self._listen, workers))
        for worker in workers:
            spawn(self._keep(worker), self._background)
        spawn(self._watch(), self._background)
        log_start(self.public, self.admin, workers=self._count)

    async def reload(self, loaded: Loaded) -> int:
        """Put another policy in force, in all processes or in none; how many connections there were
        to be judged by it when this began.

        Raises ConfigError, KeyMaterialError, OSError and WorkerError; then the one before is still
        in force.
        """
        await self._count_all()
        live = self._figures.connections
        async with self._changing:
            workers = self._serving()
            own = await self._own.prepare(loaded.policy)
            try:
                await prepare_all(workers, self._orders(loaded.documents), self._telling)
            except BaseException:
                await own.discard()
                raise
            own.commit()
            self._documents = loaded.documents
            await commit_all(workers, self._telling)
            await self._own.settle()
        return live

    def note_reload(self, ok: bool) -> None:
        """Count an attempt to take a changed policy."""
        self._figures.own.policy_reload(ok)

    def drain(self) -> None:
        """Let all workers take no new handshakes and end their connections."""
        if not self._draining:
            self._drain_begun.set()
            for worker in self._serving():
                spawn(self._drain(worker), self._drains)

    def hurry(self) -> None:
        """Let no worker spread the close frames of a drain any longer."""
        for worker in self._serving():
            spawn(_hurry(worker), self._background)

    async def drain_begun(self) -> None:
        """Wait until somebody asks for a drain."""
        await self._drain_begun.wait()

    async def drained(self) -> None:
        """Wait until a drain has begun and is over in every worker."""
        await self._drain_begun.wait()
        while self._drains:
            await asyncio.wait(self._drains)

    async def close(self) -> None:
        """End all workers, by force where they do not end by themselves, and release everything."""
        self._closing = True
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, *self._beginnings, return_exceptions=True)
        await asyncio.gather(*map(_end, self._processes))
        if self._ends:
            await asyncio.wait(self._ends, timeout=_MARGIN)
        for worker in self._processes:
            worker.kill()
        await asyncio.gather(*self._ends)
        await self._own.close()
        self._ports.close()
        await self._state.close()
        await self._telling.close()

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The exposition of all processes as one, for a request's Accept field."""
        await self._count_all()
        self._figures.own.revocations_active(await self._state.count(self._clock.time()))
        return self._figures.render(accept)

    async def readiness(self) -> Mapping[str, str]:
        """What is not ready in any worker that is up, and why."""
        workers = list(self._up.values())
        problems: dict[str, str] = {}
        for found in await asyncio.gather(*map(_problems, workers)):
            problems |= found
        if self._draining:
            problems["server"] = "draining"
        elif not workers:
            problems["workers"] = "none is up"
        return problems

    def _wiring(self) -> Wiring:
        workforce = Workforce(self._serving)
        api = Api(
            self._state,
            workforce,
            workforce.verify_logout,
            lambda: self._own.policy.tokens,
            ActionRecorder(self._audit, self._figures.own),
            self._clock,
        )
        return Wiring(self.metrics, self.readiness, self.drain, api)

    def _orders(self, documents: Sequence[Document]) -> Orders:
        return Orders(documents, self._count, self._ports.places, self._hash_key)

    async def _prepare(self, number: int) -> WorkerProcess:
        """A worker that is ready to listen. Raises OSError and WorkerError."""
        # Shielded: a process that was begun must be known, to be ended.
        worker = await asyncio.shield(spawn(self._begin(number), self._beginnings))
        try:
            await worker.prepare(self._orders(self._documents))
        except BaseException:
            worker.kill()
            raise
        return worker

    async def _listen(self, worker: WorkerProcess) -> None:
        """Let it serve. Raises WorkerError."""
        try:
            await self._state.join(worker, self._clock.time())
            await worker.listen()
        except BaseException:
            worker.kill()
            raise
        self._up[worker.number] = worker
        self._figures.up(len(self._up))
        _log.info("worker_started", worker=worker.number, pid=worker.pid)
        if self._draining:
            spawn(self._drain(worker), self._drains)

    async def _begin(self, number: int) -> WorkerProcess:
        worker = await WorkerProcess.spawn(number, self._ports.inherited, self._figures.note)
        self._processes.add(worker)
        spawn(self._await_end(worker), self._ends)
        return worker

    async def _keep(self, worker: WorkerProcess) -> None:
        """See to it that in this one's place there is always a worker, until the drain."""
        restarts = Restarts()
        current: WorkerProcess | None = worker
        while current is not None:
            await current.gone()
            del self._up[current.number]
            self._figures.up(len(self._up))
            current = await self._replace(current, restarts)

    async def _replace(self, worker: WorkerProcess, restarts: Restarts) -> WorkerProcess | None:
        """The worker that takes the place of one that is gone, after as many attempts as it takes;
        None where there is a drain meanwhile.
        """
        number, lived = worker.number, inf if worker.leaving else worker.lived
        while True:
            await asyncio.sleep(restarts.pause(lived))
            if self._draining:
                return None
            try:
                async with self._changing:
                    successor = await self._prepare(number)
                    await self._listen(successor)
            except (OSError, WorkerError) as error:
                _log.error("worker_not_started", worker=number, error=str(error))
                lived = 0.0
            else:
                self._figures.restarted()
                return successor

    async def _await_end(self, worker: WorkerProcess) -> None:
        how = await worker.ended()
        self._processes.discard(worker)
        self._figures.retire(worker)
        self._state.leave(worker)
        if worker.leaving:
            _log.info("worker_ended", worker=worker.number, pid=worker.pid, how=how)
        elif worker.started and not self._closing:
            then = "no other is started in the drain" if self._draining else "another is started"
            _log.error("worker_died", worker=worker.number, pid=worker.pid, how=how, then=then)

    async def _drain(self, worker: WorkerProcess) -> None:
        try:
            await worker.drain(self._own.policy.server.drain.grace + _MARGIN)
        except WorkerError as error:
            _log.error("worker_not_drained", worker=worker.number, error=str(error))
            worker.kill()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._audit.flush()
            await self._count_all()
            for worker in self._serving():
                if worker.silent_for > _HUNG:
                    _log.error("worker_hangs", worker=worker.number, pid=worker.pid)
                    worker.kill()

    async def _count_all(self) -> None:
        await asyncio.gather(*map(self._count_one, self._serving()))

    async def _count_one(self, worker: WorkerProcess) -> None:
        try:
            await worker.count()
        except WorkerError:
            self._figures.silent()

    def _serving(self) -> list[WorkerProcess]:
        return [worker for worker in self._processes if worker.serving]


async def _problems(worker: WorkerProcess) -> Mapping[str, str]:
    try:
        return await worker.readiness()
    except WorkerError:
        # One that has just ended is no problem: the others get its share.
        return {f"worker {worker.number}": "does not answer"} if worker.serving else {}


async def _hurry(worker: WorkerProcess) -> None:
    with suppress(WorkerError):
        await worker.hurry()


async def _end(worker: WorkerProcess) -> None:
    if worker.serving:
        with suppress(WorkerError):
            await worker.stop()
    else:
        worker.kill()


async def _together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What each comes to. Raises the first one's error, once all are over."""
    found = []
    for one in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(one, BaseException):
            raise one
        found.append(one)
    return found
