"""Another policy in all workers, or in none."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from sidecar.errors import ConfigError, Problem, WorkerError
from sidecar.policy.compiled import Policy
from sidecar.workers import reload as module
from sidecar.workers import telling as telling_module
from sidecar.workers.channel import Body
from sidecar.workers.reload import ReloadVerbs, commit_all, policy_of, prepare_all
from sidecar.workers.telling import Telling
from tests.workers.conftest import KEY, MakeOrders

PREPARE, COMMIT, DISCARD = "reload_prepare", "reload_commit", "reload_discard"


@dataclass
class Change:
    """A prepared policy, and what becomes of it."""

    policy: Policy
    log: list[str]

    def commit(self) -> None:
        self.log.append(f"committed {self.policy.server.max_connections}")

    async def discard(self) -> None:
        self.log.append(f"discarded {self.policy.server.max_connections}")


@dataclass
class Worker:
    """A worker whose verbs are the real ones. While `goes_on` is not set, preparing takes its time;
    with an `error`, it fails.
    """

    number: int = 1
    error: Exception | None = None
    log: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.dead = asyncio.Event()
        self._verbs = ReloadVerbs(self._prepare).verbs

    async def _prepare(self, policy: Policy) -> Change:
        await self.goes_on.wait()
        if self.error is not None:
            raise self.error
        return Change(policy, self.log)

    @property
    def reachable(self) -> bool:
        return not self.dead.is_set()

    async def ask(self, verb: str, body: Body, within: float) -> Body:
        self.asked.append(verb)
        if not self.reachable:
            raise WorkerError("gone")
        answering = asyncio.ensure_future(self._verbs[verb](body))
        try:
            async with asyncio.timeout(within):
                return await asyncio.shield(answering)
        except TimeoutError:
            raise WorkerError(f"no answer to {verb}") from None

    def kill(self) -> None:
        self.dead.set()

    async def over(self) -> None:
        await self.dead.wait()


@pytest.fixture
def workers() -> list[Worker]:
    return [Worker(1), Worker(2)]


Reload = Callable[[list[Worker]], Awaitable[None]]


@pytest.fixture
def prepare(orders: MakeOrders) -> Reload:
    """Lets workers prepare a policy of 10 connections, of which each of two gets 5."""
    return lambda workers: prepare_all(workers, orders(server={"max_connections": 10}), Telling())


async def test_all_prepare_and_then_all_take_it(workers: list[Worker], prepare: Reload) -> None:
    await prepare(workers)
    assert [worker.log for worker in workers] == [[], []]
    await commit_all(workers, Telling())
    assert [worker.log for worker in workers] == [["committed 5"], ["committed 5"]]
    assert [worker.asked for worker in workers] == [[PREPARE, COMMIT]] * 2


PROBLEM = Problem("p.yaml", 1, 2, "jwt", "the file cannot be read", "check its rights")


@pytest.mark.parametrize("error", [ConfigError([PROBLEM]), OSError("no room"), RuntimeError("x")])
async def test_where_one_cannot_nobody_takes_it(
    workers: list[Worker], prepare: Reload, error: Exception
) -> None:
    workers[1].error = error
    expected = RuntimeError if isinstance(error, RuntimeError) else WorkerError
    with pytest.raises(expected) as raised:
        await prepare(workers)
    assert str(error) in str(raised.value)
    assert workers[0].log == ["discarded 5"]
    assert workers[1].log == []
    assert all(worker.reachable for worker in workers)


async def test_one_that_ends_meanwhile_is_not_missed(
    workers: list[Worker], prepare: Reload
) -> None:
    workers[1].kill()
    await prepare(workers)
    await commit_all(workers, Telling())
    assert workers[0].log == ["committed 5"]


async def test_one_that_is_late_lets_go_of_it_then(
    workers: list[Worker], prepare: Reload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PREPARE_TIMEOUT", 0.3)
    monkeypatch.setattr(telling_module, "PATIENCE", 0.01)
    workers[0].goes_on.clear()
    with pytest.raises(WorkerError, match="worker 1: no answer to reload_prepare"):
        await prepare(workers)
    workers[0].goes_on.set()
    monkeypatch.setattr(module, "_PREPARE_TIMEOUT", 20.0)
    await prepare(workers)
    await commit_all(workers, Telling())
    assert workers[0].log == ["discarded 5", "committed 5"]


async def test_whoever_gives_up_leaves_nothing(workers: list[Worker], prepare: Reload) -> None:
    workers[0].goes_on.clear()
    preparing = asyncio.ensure_future(prepare(workers))
    async with asyncio.timeout(10):
        while not workers[0].asked:
            await asyncio.sleep(0)
        preparing.cancel()
        workers[0].goes_on.set()
        await asyncio.wait({preparing})
    assert preparing.cancelled()
    assert DISCARD in workers[0].asked
    assert "committed 5" not in workers[0].log


async def test_one_that_has_nothing_to_take_is_ended(workers: list[Worker]) -> None:
    await commit_all(workers[:1], Telling())
    assert not workers[0].reachable


def test_a_worker_goes_by_its_share_and_by_the_key_of_all(orders: MakeOrders) -> None:
    policy, environ = policy_of(orders(server={"max_connections": 9}))
    assert policy.server.max_connections == 5
    assert policy.admin is None
    assert environ == {**os.environ, "WS_SIDECAR_HASH_KEY": KEY}
