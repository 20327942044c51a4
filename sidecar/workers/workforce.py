"""What the admin API asks of the workers: their connections, and their keys."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from sidecar.admin.live import ConnectionFilter, ConnectionPage, page_of
from sidecar.auth.logout import Logout
from sidecar.errors import WorkerError
from sidecar.model import Denial, Reason
from sidecar.workers.channel import Body
from sidecar.workers.plain import CONNECTIONS, FILTER, KICKED, VERDICT

__all__ = ["Colleague", "Workforce"]

_PATIENCE: Final = 2.0
_VERIFY_PATIENCE: Final = 5.0
"""Seconds for a logout token, whose keys may have to be fetched."""

_log = structlog.get_logger()


class Colleague(Protocol):
    """A worker, as those who ask all of them see it."""

    @property
    def number(self) -> int:
        """Its number."""
        ...

    @property
    def serving(self) -> bool:
        """Whether it has connections to answer for."""
        ...

    @property
    def silent_for(self) -> float:
        """Seconds since it answered last."""
        ...

    async def ask(self, verb: str, body: Body, within: float) -> Body:
        """Its answer within so many seconds. Raises WorkerError."""
        ...


class Workforce:
    """All workers that serve, as `workers` names them, as if they were one process."""

    def __init__(self, workers: Callable[[], Sequence[Colleague]]) -> None:
        self._workers = workers

    async def list(
        self, which: ConnectionFilter, *, cursor: str | None, limit: int
    ) -> ConnectionPage:
        """A page of the connections that are meant; see `LiveConnections.list`."""
        # One more than fits tells whether there is another page.
        body = {**FILTER.put(which), "cursor": cursor, "limit": limit + 1}
        answers, error = await self._ask_all("connections", body)
        if error is not None:
            raise error
        each = [connection for answer in answers for connection in CONNECTIONS.get(answer)]
        return page_of(each, which, cursor=cursor, limit=limit)

    async def kick(self, identifier: str) -> bool:
        """End a connection; see `LiveConnections.kick`."""
        answers, error = await self._ask_all("kick", {"id": identifier})
        if any(KICKED.get(answer) for answer in answers):
            return True
        if error is not None:
            raise error
        return False

    async def verify_logout(self, token: str, now: float) -> Logout | Denial:
        """Have a logout token verified by a worker, which has the keys."""
        body = {"token": token, "now": now}
        for worker in sorted(self._workers(), key=lambda each: each.silent_for):
            try:
                return VERDICT.get(await worker.ask("verify_logout", body, _VERIFY_PATIENCE))
            except WorkerError as error:
                _log.warning("logout_not_verified", worker=worker.number, error=str(error))
        return Denial(Reason.STATE_UNAVAILABLE, "no worker answers")

    async def _ask_all(self, verb: str, body: Body) -> tuple[Sequence[Body], WorkerError | None]:
        """The answers, and what is wrong with the workers that gave none."""
        workers = self._workers()
        asking = (worker.ask(verb, body, _PATIENCE) for worker in workers)
        found = await asyncio.gather(*asking, return_exceptions=True)
        answers: list[Body] = []
        wrong: WorkerError | None = None
        for worker, answer in zip(workers, found, strict=True):
            if not isinstance(answer, BaseException):
                answers.append(answer)
            elif not isinstance(answer, WorkerError):
                raise answer
            elif worker.serving:  # one that has ended has no connections
                wrong = WorkerError(f"worker {worker.number}: {answer}")
        return answers, wrong
