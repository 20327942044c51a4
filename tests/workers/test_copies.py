"""The parent's state and the workers' copies of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import StateFull, WorkerError
from sidecar.state.base import Kind, Once, Page, Revocation, State
from sidecar.state.memory import MemoryState
from sidecar.workers import copies as module
from sidecar.workers import telling
from sidecar.workers.copies import CopiedState
from tests.admin.conftest import ALICE
from tests.support.revocations import NOW, revocation, subject
from tests.workers.colleagues import Worker

MakeState = Callable[..., CopiedState]


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
async def make_state() -> AsyncIterator[MakeState]:
    """Makes states that are closed at the end."""
    made: list[CopiedState] = []

    def make(engine: State | None = None) -> CopiedState:
        made.append(CopiedState(MemoryState() if engine is None else engine))
        return made[-1]

    yield make
    for each in made:
        await each.close()


@pytest.fixture
def state(make_state: MakeState) -> CopiedState:
    return make_state()


@pytest.fixture
async def pair(state: CopiedState) -> list[Worker]:
    """Two workers that have joined, each with a connection of alice."""
    workers = [Worker(1), Worker(2)]
    for worker in workers:
        worker.connections.open(replace(ALICE, id=f"c-{worker.number}"))
        await state.join(worker, NOW)
    return workers


async def held(state: State) -> list[str]:
    page = await state.revocations(NOW, cursor=None, limit=10**6)
    return [each.id for each in page.revocations]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_a_revocation_reaches_every_worker(state: CopiedState, pair: list[Worker]) -> None:
    outcome = await state.revoke([revocation(), revocation(Kind.SID, "s-1")], NOW)
    assert outcome is not None
    assert (outcome.closed, outcome.confirmed) == (2, True)
    for worker in pair:
        assert worker.connections.live == {}
        assert await worker.memory.revoked(subject(), NOW) == revocation()
        assert await held(worker.memory) == await held(state)


async def test_a_withdrawal_reaches_every_worker(state: CopiedState, pair: list[Worker]) -> None:
    await state.revoke([revocation(id="a")], NOW)
    assert await state.withdraw("a", NOW) == revocation(id="a")
    assert [await held(worker.memory) for worker in pair] == [[], []]


async def test_what_is_not_kept_is_told_to_nobody(make_state: MakeState) -> None:
    state, worker = make_state(MemoryState(1)), Worker()
    await state.join(worker, NOW)
    once = Once("n", NOW + 10)
    assert await state.revoke([revocation(Kind.JTI, "a")], NOW, once=once) is not None
    assert await state.revoke([revocation(Kind.JTI, "a")], NOW, once=once) is None
    with pytest.raises(StateFull):
        await state.revoke([revocation(Kind.JTI, "b")], NOW)
    assert await state.withdraw("none", NOW) is None
    assert worker.asked == ["revoke"]


async def test_without_workers_there_is_nobody_to_wait_for(state: CopiedState) -> None:
    outcome = await state.revoke([revocation()], NOW)
    assert outcome is not None
    assert outcome.confirmed


async def test_a_worker_that_joins_has_all_that_is_in_force(
    state: CopiedState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 20)
    monkeypatch.setattr(module, "_CHUNK", 3)
    each = [revocation(Kind.JTI, f"{n}", created_at=NOW + n) for n in range(50)]
    await state.revoke(each, NOW)
    worker = Worker()
    await state.join(worker, NOW)
    assert await held(worker.memory) == await held(state)
    assert len(worker.asked) == 7 + 7 + 4


class Slow(MemoryState):
    """An engine whose pages take their time. `asked` is set while somebody waits for one."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()

    async def revocations(self, now: float, *, cursor: str | None, limit: int) -> Page:
        page = await super().revocations(now, cursor=cursor, limit=limit)
        self.asked.set()
        await self.goes_on.wait()
        return page


async def test_changes_while_a_worker_joins_reach_it_in_their_order(make_state: MakeState) -> None:
    engine = Slow()
    state, worker = make_state(engine), Worker()
    await state.revoke([revocation(Kind.JTI, "a")], NOW)
    joining = asyncio.create_task(state.join(worker, NOW))
    await engine.asked.wait()
    changes = [
        asyncio.create_task(state.withdraw("jti-a", NOW)),
        asyncio.create_task(state.revoke([revocation(Kind.JTI, "b")], NOW)),
    ]
    await asyncio.sleep(0)
    engine.goes_on.set()
    await asyncio.gather(joining, *changes)
    assert await held(worker.memory) == ["jti-b"]


async def test_a_worker_that_cannot_join_is_told_nothing_more(state: CopiedState) -> None:
    await state.revoke([revocation()], NOW)
    worker = Worker()
    worker.fails = True
    with pytest.raises(WorkerError, match="not today"):
        await state.join(worker, NOW)
    await state.revoke([revocation()], NOW)
    assert worker.asked == ["revoke"]


async def test_a_worker_that_has_left_is_told_nothing_more(
    state: CopiedState, pair: list[Worker]
) -> None:
    state.leave(pair[0])
    state.leave(pair[0])
    await state.revoke([revocation()], NOW)
    assert [worker.asked for worker in pair] == [[], ["revoke"]]


async def test_a_worker_that_hangs_has_it_when_it_goes_on(
    state: CopiedState, pair: list[Worker], monkeypatch: pytest.MonkeyPatch, log: list[Any]
) -> None:
    monkeypatch.setattr(telling, "PATIENCE", 0.05)
    pair[0].goes_on.clear()
    outcome = await state.revoke([revocation(id="a")], NOW)
    assert outcome is not None
    assert (outcome.revocations, outcome.closed) == ((revocation(id="a"),), 1)
    assert not outcome.confirmed
    assert log == [{"event": "worker_behind", "worker": 1, "log_level": "error"}]
    assert await state.withdraw("a", NOW) is not None
    pair[0].goes_on.set()
    await until(lambda: len(log) == 4)
    assert [line["event"] for line in log[2:]] == ["worker_caught_up"] * 2
    assert [line["closed"] for line in log[2:]] == [1, 0]
    assert pair[0].connections.live == {}
    assert await held(pair[0].memory) == []


async def test_a_worker_that_dies_holds_up_nobody(state: CopiedState, pair: list[Worker]) -> None:
    pair[0].kill()
    outcome = await state.revoke([revocation()], NOW)
    assert outcome is not None
    assert (outcome.closed, outcome.confirmed) == (1, True)


async def test_a_worker_without_a_channel_is_waited_for_until_it_has_ended(
    state: CopiedState, pair: list[Worker], monkeypatch: pytest.MonkeyPatch, log: list[Any]
) -> None:
    monkeypatch.setattr(telling, "PATIENCE", 0.05)
    pair[0].broken = True
    outcome = await state.revoke([revocation()], NOW)
    assert outcome is not None
    assert (outcome.closed, outcome.confirmed) == (1, False)
    pair[0].kill()
    await until(lambda: len(log) == 2)
    assert [line["event"] for line in log] == ["worker_behind", "worker_caught_up"]


async def test_a_worker_that_cannot_take_a_revocation_is_ended(
    state: CopiedState, pair: list[Worker], log: list[Any]
) -> None:
    pair[0].fails = True
    outcome = await state.revoke([revocation()], NOW)
    assert outcome is not None
    assert (outcome.closed, outcome.confirmed) == (1, True)
    assert [worker.reachable for worker in pair] == [False, True]
    assert log == [
        {
            "event": "worker_not_told",
            "worker": 1,
            "verb": "revoke",
            "error": "not today",
            "log_level": "error",
        }
    ]


async def test_nobody_is_waited_for_after_the_end(
    state: CopiedState, pair: list[Worker], monkeypatch: pytest.MonkeyPatch, log: list[Any]
) -> None:
    monkeypatch.setattr(telling, "PATIENCE", 0.0)
    pair[0].goes_on.clear()
    await state.revoke([revocation()], NOW)
    await state.close()
    assert [line["event"] for line in log] == ["worker_behind"]


STEPS = st.lists(
    st.tuples(st.sampled_from(["revoke", "withdraw", "join", "hang", "go"]), st.integers(0, 3)),
    max_size=20,
)


async def run(steps: list[tuple[str, int]]) -> None:
    state, workers = CopiedState(MemoryState()), [Worker(n) for n in range(4)]
    doing: list[asyncio.Task[Any]] = []
    for number, (verb, which) in enumerate(steps):
        if verb == "revoke":
            new: Revocation = revocation(Kind.JTI, f"{which}", id=f"{number}", before=number)
            doing.append(asyncio.create_task(state.revoke([new], NOW)))
        elif verb == "withdraw":
            page = await state.revocations(NOW, cursor=None, limit=9)
            meant = [each.id for each in page.revocations[which : which + 1]]
            doing += [asyncio.create_task(state.withdraw(name, NOW)) for name in meant]
        elif verb == "join":
            doing.append(asyncio.create_task(state.join(workers[which], NOW)))
        elif verb == "hang":
            workers[which].goes_on.clear()
        else:
            workers[which].goes_on.set()
        await asyncio.sleep(0)
    for worker in workers:
        worker.goes_on.set()
    await asyncio.gather(*doing)
    expected = await state.revocations(NOW, cursor=None, limit=99)
    for which in {which for verb, which in steps if verb == "join"}:
        assert await workers[which].memory.revocations(NOW, cursor=None, limit=99) == expected


@given(steps=STEPS)
def test_whatever_comes_in_whatever_order_all_copies_agree(steps: list[tuple[str, int]]) -> None:
    asyncio.run(run(steps))
