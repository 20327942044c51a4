"""The connections and the keys of several workers, as if they were one process."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.admin.live import ConnectionFilter
from sidecar.auth.logout import Logout
from sidecar.errors import WorkerError
from sidecar.model import Denial, Reason
from sidecar.state.base import Kind
from sidecar.workers import workforce as module
from sidecar.workers.workforce import Workforce
from tests.admin.conftest import ALICE
from tests.workers.colleagues import Worker

EVERYBODY = ConnectionFilter()


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[Worker]:
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    monkeypatch.setattr(module, "_VERIFY_PATIENCE", 0.1)
    return [Worker(1), Worker(2)]


@pytest.fixture
def workforce(workers: list[Worker]) -> Workforce:
    return Workforce(lambda: workers)


def open_all(workers: list[Worker], *names: str) -> None:
    """Open connections with these ids, by turns."""
    for number, name in enumerate(names):
        workers[number % len(workers)].connections.open(replace(ALICE, id=name))


async def test_the_connections_of_all_are_listed(
    workforce: Workforce, workers: list[Worker]
) -> None:
    open_all(workers, "c", "a", "d", "b")
    workers[1].connections.open(replace(ALICE, id="e", user="bob"))
    page = await workforce.list(EVERYBODY, cursor=None, limit=9)
    assert [each.id for each in page.connections] == ["a", "b", "c", "d", "e"]
    assert page.connections[0] == replace(ALICE, id="a")
    page = await workforce.list(ConnectionFilter(user="bob"), cursor=None, limit=9)
    assert [each.id for each in page.connections] == ["e"]


IDS = st.sets(st.text("abc", min_size=1, max_size=4))


async def turned(shares: list[set[str]], limit: int) -> tuple[list[str], int]:
    """What turning the pages finds, and how many pages there are."""
    workers = [Worker(number) for number, _ in enumerate(shares)]
    for number, (worker, share) in enumerate(zip(workers, shares, strict=True)):
        open_all([worker], *(f"{name}{number}" for name in share))
    workforce, found, pages = Workforce(lambda: workers), list[str](), 0
    cursor: str | None = None
    while True:
        page = await workforce.list(EVERYBODY, cursor=cursor, limit=limit)
        found += [each.id for each in page.connections]
        pages, cursor = pages + 1, page.next
        if cursor is None:
            return found, pages


@given(shares=st.lists(IDS, max_size=3), limit=st.integers(1, 5))
def test_each_connection_is_on_exactly_one_page(shares: list[set[str]], limit: int) -> None:
    found, pages = asyncio.run(turned(shares, limit))
    assert found == sorted(f"{name}{n}" for n, share in enumerate(shares) for name in share)
    assert pages == max(1, -(-len(found) // limit))


async def test_a_connection_is_kicked_wherever_it_is(
    workforce: Workforce, workers: list[Worker]
) -> None:
    open_all(workers, "a", "b")
    assert await workforce.kick("b")
    assert not await workforce.kick("b")
    assert list(workers[0].connections.live) == ["a"]


async def test_where_one_does_not_answer_nothing_is_left_out(
    workforce: Workforce, workers: list[Worker]
) -> None:
    open_all(workers, "a", "b")
    workers[0].goes_on.clear()
    with pytest.raises(WorkerError, match=r"^worker 1: no answer to connections$"):
        await workforce.list(EVERYBODY, cursor=None, limit=9)
    with pytest.raises(WorkerError, match=r"^worker 1: no answer to kick$"):
        await workforce.kick("a")
    assert await workforce.kick("b")


async def test_one_that_has_just_ended_is_not_missed(
    workforce: Workforce, workers: list[Worker]
) -> None:
    open_all(workers, "a", "b")
    workers[0].kill()
    page = await workforce.list(EVERYBODY, cursor=None, limit=9)
    assert [each.id for each in page.connections] == ["b"]
    assert not await workforce.kick("a")


async def test_what_was_not_foreseen_is_not_taken_for_silence(
    workforce: Workforce, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("inner")

    monkeypatch.setattr(workers[0], "ask", fail)
    with pytest.raises(RuntimeError, match="inner"):
        await workforce.kick("a")


@pytest.mark.parametrize(
    "verdict",
    [
        Logout("app", "https://a.example", Kind.SUB, "u-1", "l-1", 20.0),
        Denial(Reason.TOKEN_INVALID, "app: iat is missing"),
    ],
)
async def test_a_logout_token_is_verified_by_one_of_them(
    workforce: Workforce, workers: list[Worker], verdict: Logout | Denial
) -> None:
    for worker in workers:
        worker.verdict = verdict
    assert await workforce.verify_logout("a.b.c", 17.5) == verdict
    assert [worker.asked for worker in workers] == [["verify_logout"], []]


async def test_who_has_answered_last_verifies(workforce: Workforce, workers: list[Worker]) -> None:
    workers[0].silent_for = 3.0
    await workforce.verify_logout("a.b.c", 17.5)
    assert [worker.asked for worker in workers] == [[], ["verify_logout"]]


async def test_where_one_cannot_verify_another_does(
    workforce: Workforce, workers: list[Worker]
) -> None:
    workers[0].goes_on.clear()
    assert await workforce.verify_logout("a.b.c", 17.5) == workers[1].verdict


async def test_without_a_worker_no_logout_token_is_good(
    workforce: Workforce, workers: list[Worker]
) -> None:
    for worker in workers:
        worker.kill()
    denial = await workforce.verify_logout("a.b.c", 17.5)
    assert denial == Denial(Reason.STATE_UNAVAILABLE, "no worker answers")
