"""/api/revocations: what administrators ask for, and what comes of it."""

import json
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.state.base import Subject

if TYPE_CHECKING:
    from sidecar.admin.live import Connection
    from tests.admin.conftest import Running

NOW = 1_700_000_000.0
PATH = "/api/revocations"
HOUR = 3600 + 30 + 61  # the provider app's max_age with what is added to it
MONTH = 30 * 86_400


def token(user: str = "alice", **facts: Any) -> Subject:
    defaults: dict[str, Any] = {"sub": None, "sid": None, "jti": None, "issued_at": NOW - 60}
    return Subject(**{"provider": "app", "user": user, **defaults, **facts})


async def detail_of(running: "Running", body: object) -> str:
    status, answer = await running.ask("POST", PATH, json=body)
    assert status == 400
    assert await running.state.count(NOW) == 0
    return str(answer["detail"])


async def test_a_user_is_revoked_and_live_connections_end(
    running: "Running", crowd: list["Connection"]
) -> None:
    answer = await running.revoke(user="alice", reason="lost laptop")
    assert answer == {
        "id": answer["id"],
        "kind": "user",
        "value": "alice",
        "provider": None,
        "before": NOW + 1,
        "created_at": NOW,
        "expires_at": NOW + MONTH,
        "reason": "lost laptop",
        "closed": 2,
    }
    assert set(running.connections.live) == {"00000000000000c0", "00000000000000c2"}
    assert await running.state.revoked(token(), NOW) is not None
    assert await running.state.revoked(token("bob"), NOW) is None


async def test_a_revoked_user_may_log_in_again(running: "Running") -> None:
    await running.revoke(user="alice")
    running.clock.move(1)
    assert await running.state.revoked(token(issued_at=NOW + 1), NOW + 1) is None


async def test_a_user_is_revoked_up_to_a_time(running: "Running") -> None:
    answer = await running.revoke(user="alice", issued_before=NOW - 100)
    assert (answer["kind"], answer["before"]) == ("user", NOW - 100)
    assert await running.state.revoked(token(), NOW) is None


@pytest.mark.parametrize("name", ["jti", "sid"])
async def test_a_token_or_a_session_is_revoked_for_good(running: "Running", name: str) -> None:
    answer = await running.revoke(**{name: "x-1"})
    assert (answer["kind"], answer["value"], answer["before"]) == (name, "x-1", None)
    assert await running.state.revoked(token(issued_at=NOW + 9, **{name: "x-1"}), NOW)


async def test_every_token_up_to_a_time_is_revoked(
    running: "Running", crowd: list["Connection"]
) -> None:
    answer = await running.revoke(issued_before=NOW, provider="app")
    assert (answer["kind"], answer["value"], answer["before"]) == ("issued_before", "", NOW)
    assert answer["closed"] == 2
    assert set(running.connections.live) == {"00000000000000c0", "00000000000000c2"}


async def test_a_revocation_outlives_the_tokens_of_its_provider(running: "Running") -> None:
    assert (await running.revoke(jti="a", provider="app"))["expires_at"] == NOW + HOUR
    assert (await running.revoke(jti="a", provider="corp"))["expires_at"] == NOW + MONTH
    assert (await running.revoke(jti="a", ttl="1h30m"))["expires_at"] == NOW + 5400


async def test_the_answer_says_where_the_revocation_is(running: "Running") -> None:
    async with running.client.post(PATH, json={"user": "a"}, headers=running.headers) as response:
        assert response.headers["Location"] == f"{PATH}/{(await response.json())['id']}"
        assert response.headers["Cache-Control"] == "no-store"


async def test_revoking_again_extends_what_is_there(running: "Running") -> None:
    first = await running.revoke(user="alice", ttl="1h")
    running.clock.move(10)
    second = await running.revoke(user="alice", ttl="2h")
    assert second["id"] == first["id"]
    assert (second["before"], second["expires_at"]) == (NOW + 11, NOW + 7210)
    assert await running.state.count(NOW + 10) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"provider": "app"},
        {"user": "a", "jti": "b"},
        {"sid": "a", "issued_before": 1},
        {"jti": "a", "issued_before": 1},
        {"user": None},
    ],
)
async def test_exactly_one_name_is_given(running: "Running", body: dict[str, Any]) -> None:
    assert (await detail_of(running, body)).startswith("give one of user, sid, jti")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"usr": "alice"}, "usr: is not known; the keys are user, sid, jti, issued_before,"),
        ({"user": ""}, "user: String should have at least 1 character"),
        ({"user": "x" * 1025}, "user: String should have at most 1024 characters"),
        ({"user": 7}, "user: Input should be a valid string"),
        ({"user": ["a"]}, "user: Input should be a valid string"),
        ({"issued_before": True}, "issued_before: Input should be a valid number"),
        ({"issued_before": "1"}, "issued_before: Input should be a valid number"),
        ({"issued_before": -1}, "issued_before: Input should be greater than or equal to 0"),
        ({"issued_before": NOW + 61}, "issued_before: is in the future"),
        ({"user": "a", "provider": "nobody"}, "provider: there is none with this name, only app"),
        ({"user": "a", "ttl": 60}, "ttl: 60 is not a duration; write a number"),
        ({"user": "a", "ttl": "0s"}, "ttl: '0s' is zero; give more"),
        ({"user": "a", "ttl": "999ms"}, "ttl: give one from 1s to 366d"),
        ({"user": "a", "ttl": "367d"}, "ttl: give one from 1s to 366d"),
        ({"user": "a", "reason": "x" * 201}, "reason: String should have at most 200 characters"),
        ({"user": 7, "jti": 8}, "jti: Input should be a valid string"),
        ([{"user": "a"}], "the body is not a JSON object"),
        ("alice", "the body is not a JSON object"),
    ],
)
async def test_a_mistake_is_named_with_what_would_be_right(
    running: "Running", body: object, detail: str
) -> None:
    assert detail in await detail_of(running, body)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"user":"a","user":"b"}', b'{"issued_before":NaN}', b'{"issued_before":1e999}',
     b'{"user":"\\ud800"}', b"\xef\xbb\xbf{}", b'{"user":"\xff"}', b"[" * 9000],
)  # fmt: skip
async def test_a_body_that_is_no_strict_json_is_refused(running: "Running", body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    status, answer = await running.ask("POST", PATH, data=body, headers=headers)
    assert (status, answer["detail"]) == (400, "the body is not strict UTF-8 JSON")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_a_body_of_another_type_is_not_read(
    running: "Running", headers: dict[str, str]
) -> None:
    status, answer = await running.ask("POST", PATH, data=b'{"user":"a"}', headers=headers)
    assert (status, answer["detail"]) == (415, "send the body as application/json")


async def test_a_body_over_the_limit_is_not_read_to_its_end(running: "Running") -> None:
    body = json.dumps({"user": "a", "reason": "x" * 20_000}).encode()
    status, answer = await running.ask(
        "POST", PATH, data=body, headers={"Content-Type": "application/json"}
    )
    assert (status, answer["detail"]) == (413, "send a body of at most 16384 bytes")


class TestWithoutRoom:
    @pytest.fixture
    def capacity(self) -> int:
        return 2

    async def test_nothing_is_forgotten(self, running: "Running") -> None:
        await running.revoke(jti="a")
        await running.revoke(jti="b", ttl="10s")
        status, answer = await running.ask("POST", PATH, json={"jti": "c"})
        assert (status, answer["title"]) == (507, "Insufficient Storage")
        assert answer["detail"].startswith("there is no room for more than 2 revocations; withdraw")
        running.clock.move(10)
        await running.revoke(jti="c")


async def test_a_revocation_that_is_not_in_force_everywhere_is_kept_and_may_be_asked_for_again(
    running: "Running", crowd: list["Connection"], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        running.leave_unconfirmed(patch)
        async with running.client.post(
            PATH, json={"user": "alice"}, headers=running.headers
        ) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            answer = await response.json()
    assert len(running.connections.live) == len(crowd) - 2
    (event,) = running.events
    assert (event["event"], event["closed"]) == ("revocation_added", 2)
    detail = f"{event['revocation_id']} is kept, but a worker has not confirmed it yet; ask again"
    assert answer["detail"] == detail
    again = await running.revoke(user="alice")
    assert (again["id"], again["closed"]) == (event["revocation_id"], 0)


# --- listing


async def test_revocations_are_listed_page_by_page(running: "Running") -> None:
    expected = []
    for number in range(5):
        answer = await running.revoke(jti=f"{number}")
        del answer["closed"]
        expected.append(answer)
        running.clock.move(1)
    found: list[Any] = []
    cursor: dict[str, str] = {}
    for _ in range(3):
        status, page = await running.ask("GET", PATH, params={"limit": "2", **cursor})
        assert status == 200
        found += page["revocations"]
        cursor = {"cursor": page["next"]}
    assert (found, page["next"]) == (expected, None)


async def test_what_is_over_is_not_listed(running: "Running") -> None:
    await running.revoke(jti="a", ttl="10s")
    running.clock.move(10)
    assert await running.ask("GET", PATH) == (200, {"revocations": [], "next": None})


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("limit=0", "limit: give a number from 1 to 1000"),
        ("limit=1001", "limit: give a number"),
        ("limit=-1", "limit: give a number"),
        ("limit=", "limit: give a number"),
        ("limit=%D9%A1", "limit: give a number"),
        ("limit=99999999999999999999", "limit: give a number"),
        ("limit=1&limit=2", "the query: give each of limit, cursor at most once"),
        ("user=alice", "the query: give each of limit, cursor at most once, and nothing else"),
        ("cursor=x", "cursor: give the next of the page before, or none"),
    ],
)
async def test_a_query_that_would_be_misread_is_refused(
    running: "Running", query: str, detail: str
) -> None:
    status, answer = await running.ask("GET", f"{PATH}?{query}")
    assert status == 400
    assert answer["detail"].startswith(detail)


# --- withdrawing


async def test_a_revocation_is_withdrawn(running: "Running") -> None:
    path = f"{PATH}/{(await running.revoke(user='alice'))['id']}"
    assert await running.ask("DELETE", path) == (204, None)
    assert await running.state.revoked(token(), NOW) is None
    status, answer = await running.ask("DELETE", path)
    assert (status, answer["detail"]) == (404, "there is no revocation with this id")


# --- who may ask, and what is written down


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", PATH), ("POST", PATH), ("DELETE", f"{PATH}/x"), ("GET", "/api/connections"),
     ("DELETE", "/api/connections/00000000000000c1")],
)  # fmt: skip
async def test_the_api_takes_the_token_and_no_web_page(
    running: "Running", crowd: list["Connection"], method: str, path: str
) -> None:
    body = {"json": {"user": "alice"}} if method == "POST" else {}
    assert (await running.ask(method, path, headers={"Authorization": "Bearer x"}, **body))[
        0
    ] == 401
    if method != "GET":
        page = {"Sec-Fetch-Site": "same-origin"}
        assert (await running.ask(method, path, headers=page, **body))[0] == 403
    assert (await running.state.count(NOW), len(running.connections.live)) == (0, len(crowd))


async def test_what_is_done_is_written_down(running: "Running", crowd: list["Connection"]) -> None:
    user = await running.revoke(user="alice", reason="lost\nlaptop")
    session = await running.revoke(sid="s-1", provider="corp")
    await running.revoke(jti="t-1")
    await running.ask("DELETE", f"{PATH}/{session['id']}")
    first, second, third, last = running.events
    assert (first["event"], first["revocation_id"]) == ("revocation_added", user["id"])
    assert (first["user"], first["closed"], first["address"]) == ("alice", 2, "127.0.0.1")
    assert (second["kind"], second["session_id"], second["provider"]) == ("sid", "s-1", "corp")
    assert (third["kind"], third["token_id"]) == ("jti", "t-1")
    assert (last["event"], last["revocation_id"]) == ("revocation_withdrawn", session["id"])
    assert "closed" not in last
    assert running.metric('ws_sidecar_revocations_total{kind="user"}') == 1
