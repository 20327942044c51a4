"""/api/connections: who is there, and out with them."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.admin.live import Connection, ConnectionFilter, page_of
from sidecar.errors import WorkerError

if TYPE_CHECKING:
    from tests.admin.conftest import Running

PATH = "/api/connections"
ONE = Connection("c", "chat", "chat", "192.0.2.1", "alice", "app", None, 0.0, None, 0, 0, 0, 0)


async def listed(running: "Running", **query: str) -> list[str]:
    status, page = await running.ask("GET", PATH, params=query)
    assert (status, page["next"]) == (200, None)
    return [each["id"] for each in page["connections"]]


async def test_connections_are_listed_with_who_they_are(
    running: "Running", crowd: list[Connection]
) -> None:
    status, page = await running.ask("GET", PATH)
    assert status == 200
    assert page == {"connections": [asdict(each) for each in crowd], "next": None}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["00000000000000c0", "00000000000000c1", "00000000000000c2", "00000000000000c3"]),
        ({"user": "alice"}, ["00000000000000c1", "00000000000000c3"]),
        ({"user": "nobody"}, []),
        ({"user": ""}, []),
        ({"route": "chat"}, ["00000000000000c1", "00000000000000c2"]),
        ({"address": "192.0.2.2"}, ["00000000000000c2"]),
        ({"provider": "app"}, ["00000000000000c1", "00000000000000c3"]),
        ({"user": "alice", "route": "news"}, ["00000000000000c3"]),
    ],
)
async def test_connections_are_filtered(
    running: "Running", crowd: list[Connection], query: dict[str, str], expected: list[str]
) -> None:
    assert len(crowd) == 4
    assert await listed(running, **query) == expected


async def test_pages_follow_each_other(running: "Running", crowd: list[Connection]) -> None:
    _, first = await running.ask("GET", PATH, params={"limit": "3"})
    assert first["next"] == "00000000000000c2"
    assert await listed(running, limit="3", cursor=first["next"]) == ["00000000000000c3"]
    assert len(crowd) == 4


@pytest.mark.parametrize("cursor", ["", "x", "1700000000.0~a", "00000000000000C2", "0" * 17])
async def test_a_cursor_that_no_page_gave_is_a_mistake(running: "Running", cursor: str) -> None:
    status, answer = await running.ask("GET", PATH, params={"cursor": cursor})
    assert status == 400
    assert answer["detail"] == "cursor: give the next of the page before, or none"


@pytest.mark.parametrize("query", ["usr=alice", "user=a&user=b", "limit=x"])
async def test_a_filter_is_never_ignored(running: "Running", query: str) -> None:
    status, _ = await running.ask("GET", f"{PATH}?{query}")
    assert status == 400


async def test_a_connection_is_kicked_once(running: "Running", crowd: list[Connection]) -> None:
    assert await running.ask("DELETE", f"{PATH}/00000000000000c1") == (204, None)
    status, answer = await running.ask("DELETE", f"{PATH}/00000000000000c1")
    assert (status, answer["detail"]) == (404, "there is no connection with this id")
    assert await listed(running) == [each.id for each in crowd if each.id != "00000000000000c1"]
    (event,) = running.events
    assert (event["event"], event["connection_id"]) == ("kicked", "00000000000000c1")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", PATH), ("DELETE", f"{PATH}/00000000000000c1")]
)
async def test_where_a_process_does_not_answer_nothing_is_made_up(
    running: "Running", monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    async def fail(*_: Any, **_options: Any) -> None:
        raise WorkerError("worker 1: no answer")

    monkeypatch.setattr(running.connections, "list", fail)
    monkeypatch.setattr(running.connections, "kick", fail)
    status, answer = await running.ask(method, path)
    assert status == 503
    assert answer["detail"].startswith("worker 1: no answer")
    assert answer["detail"].endswith("ask again")
    assert not running.log.read_text()


IDS = st.sets(st.text("abc", min_size=1, max_size=4))


@given(ids=IDS, limit=st.integers(1, 5), gone=IDS, later=IDS)
def test_what_stays_is_on_exactly_one_page(
    ids: set[str], limit: int, gone: set[str], later: set[str]
) -> None:
    """Whatever leaves and comes while the pages are turned."""
    live = {name: replace(ONE, id=name) for name in ids}
    found: list[str] = []
    cursor: str | None = None
    while True:
        page: Any = page_of(live.values(), ConnectionFilter(), cursor=cursor, limit=limit)
        assert len(page.connections) <= limit
        found += [each.id for each in page.connections]
        if page.next is None:
            break
        cursor = page.next
        for name in gone:
            live.pop(name, None)
        live |= {name: replace(ONE, id=name) for name in later}
    assert found == sorted(set(found))
    assert set(found) >= (ids - gone)
