"""Where a token may come from, seen by real clients and by the upstream's socket."""

import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from tests.support.clients import head, raw
from tests.support.sidecars import Running, policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import Recording, fields, recording, switching, websocket_server

ALL = ["header", {"cookie": "session"}, {"query": "token"}, {"subprotocol": "bearer"}]
KUBERNETES = "base64url.bearer.authorization.k8s.io."


def route(*sources: Any, **authenticate: Any) -> dict[str, Any]:
    return {
        "authenticate": {"sources": list(sources), **authenticate},
        "forward_headers": ["Cookie", "User-Agent"],
    }


def base64url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def parts(secret: str) -> list[str]:
    """What must not be found: the token, its pieces, and its base64url form."""
    header_and_payload, _, signature = secret.rpartition(".")
    return [secret, header_and_payload, signature, base64url(secret)]


def assert_absent(secret: str, text: bytes | str) -> None:
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    for part in parts(secret):
        assert part not in text


@contextlib.asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """A client that is cut off at the end: a recording upstream answers no close frame."""
    async with connect(url, **options) as client:
        yield client
        client.transport.abort()


async def refusal(running: Running, *lines: str, path: str = "/ws") -> dict[str, Any]:
    async with raw(running.port) as client:
        await client.send(head(path, *lines))
        return await client.refusal()


async def admitted(running: Running, up: Recording, *lines: str, path: str = "/ws") -> bytes:
    """The head that the upstream got for an admitted client."""
    before = len(up.heads)
    async with raw(running.port) as client:
        await client.send(head(path, *lines))
        assert (await client.response()).startswith(b"HTTP/1.1 101 ")
    return up.heads[before]


async def test_a_token_in_the_authorization_header_opens(tmp_path: Path) -> None:
    good = token()
    async with recording() as up, sidecar(policy_of(up.url, route=route("header")), tmp_path) as s:
        async with opened(s.url + "/ws", additional_headers={"Authorization": f"Bearer {good}"}):
            pass
        assert_absent(good, up.heads[0])
        assert "authorization" not in fields(up.heads[0])


async def test_the_scheme_bearer_is_read_in_any_case(tmp_path: Path) -> None:
    good = token()
    async with recording() as up, sidecar(policy_of(up.url), tmp_path) as s:
        assert_absent(good, await admitted(s, up, f"authorization: bEaReR {good}"))


@pytest.mark.parametrize("value", ["{}", "Bearer {}"])
async def test_a_header_of_another_name_holds_the_token(tmp_path: Path, value: str) -> None:
    good = token()
    policy = route({"header": "X-Token"}) | {"forward_headers": ["X-Other"]}
    async with recording() as up, sidecar(policy_of(up.url, route=policy), tmp_path) as s:
        seen = await admitted(s, up, "X-Token: " + value.format(good), "X-Other: kept")
        assert_absent(good, seen)
        assert fields(seen)["x-other"] == "kept"
        assert (await refusal(s, f"Authorization: Bearer {good}"))["reason"] == "token_missing"


async def test_a_cookie_opens_and_the_other_cookies_go_on(tmp_path: Path) -> None:
    good = token()
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=route({"cookie": "session"})), tmp_path) as s,
    ):
        cookies = f"theme=dark; session={good}; lang=en"
        origin = Origin(f"http://127.0.0.1:{s.port}")
        async with opened(s.url, additional_headers={"Cookie": cookies}, origin=origin):
            pass
        assert fields(up.heads[0])["cookie"] == "theme=dark; lang=en"
        assert_absent(good, up.heads[0])


async def test_cookies_stay_here_where_the_policy_does_not_name_them(tmp_path: Path) -> None:
    good = token()
    policy = route({"cookie": "session"}) | {"forward_headers": []}
    async with recording() as up, sidecar(policy_of(up.url, route=policy), tmp_path) as s:
        cookie, origin = f"Cookie: a=1; session={good}", "Origin: http://127.0.0.1"
        seen = await admitted(s, up, cookie, origin)
        assert "cookie" not in fields(seen)


async def test_a_cookie_without_an_origin_is_refused_even_where_missing_is_allowed(
    tmp_path: Path,
) -> None:
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=route({"cookie": "session"})), tmp_path) as s,
    ):
        problem = await refusal(s, f"Cookie: session={token()}")
        assert (problem["status"], problem["reason"]) == (403, "origin_missing")
        assert up.heads == []


async def test_a_token_cookie_twice_is_a_bad_handshake(tmp_path: Path) -> None:
    good = token()
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=route({"cookie": "session"})), tmp_path) as s,
    ):
        twice = (f"Cookie: session={good}; session={good}", "Origin: http://127.0.0.1")
        assert (await refusal(s, *twice))["reason"] == "bad_handshake"
        assert up.heads == []


async def test_a_query_parameter_opens_and_the_rest_of_the_query_is_unchanged(
    tmp_path: Path,
) -> None:
    good = token()
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=route({"query": "token"})), tmp_path) as s,
    ):
        async with opened(f"{s.url}/ws?b=%20%2F&token={good}&a=1&&b=+"):
            pass
        assert up.heads[0].startswith(b"GET /ws?b=%20%2F&a=1&&b=+ HTTP/1.1\r\n")
        assert_absent(good, up.heads[0])


async def test_a_query_of_the_token_alone_leaves_no_question_mark(tmp_path: Path) -> None:
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=route({"query": "token"})), tmp_path) as s,
    ):
        seen = await admitted(s, up, path=f"/ws?tok%65n={token()}")
        assert seen.startswith(b"GET /ws HTTP/1.1\r\n")


async def test_the_marker_and_the_token_as_two_subprotocols_open(tmp_path: Path) -> None:
    good = token()
    offered = [Subprotocol("bearer"), Subprotocol(good), Subprotocol("chat.v2")]
    async with (
        websocket_server(subprotocols=["chat.v2"]) as url,
        sidecar(policy_of(url, route=route({"subprotocol": "bearer"})), tmp_path) as s,
        connect(s.url, subprotocols=offered) as client,
    ):
        assert client.subprotocol == "chat.v2"
        await client.send("hello")
        assert await client.recv() == "hello"


@pytest.mark.parametrize("form", ["bearer, {token}", "bearer.{token}", KUBERNETES + "{encoded}"])
async def test_every_form_of_the_subprotocol_is_cut_out(tmp_path: Path, form: str) -> None:
    good = token()
    offered = form.format(token=good, encoded=base64url(good))
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=route({"subprotocol": "bearer"})), tmp_path) as s,
    ):
        seen = await admitted(s, up, f"Sec-WebSocket-Protocol: one, {offered}, two")
        assert fields(seen)["sec-websocket-protocol"] == "one, two"
        assert_absent(good, seen)
        alone = await admitted(s, up, f"Sec-WebSocket-Protocol: {offered}")
        assert "sec-websocket-protocol" not in fields(alone)


async def test_a_browser_that_offered_only_the_token_hears_the_marker(tmp_path: Path) -> None:
    """A browser fails the connection when it offered subprotocols and none is chosen."""
    offered = [Subprotocol("bearer"), Subprotocol(token())]
    async with (
        websocket_server() as url,
        sidecar(policy_of(url, route=route({"subprotocol": "bearer"})), tmp_path) as s,
        connect(s.url, subprotocols=offered) as client,
    ):
        assert client.subprotocol == "bearer"


async def test_the_marker_answers_where_the_upstream_chooses_none_of_the_others(
    tmp_path: Path,
) -> None:
    offered = [Subprotocol("bearer"), Subprotocol(token()), Subprotocol("chat")]
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=route({"subprotocol": "bearer"})), tmp_path) as s,
        opened(s.url, subprotocols=offered) as client,
    ):
        assert client.subprotocol == "bearer"
        assert fields(up.heads[0])["sec-websocket-protocol"] == "chat"


async def test_a_token_is_never_answered_as_a_subprotocol(tmp_path: Path) -> None:
    good = token()
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=route({"subprotocol": "bearer"})), tmp_path) as s,
        raw(s.port) as client,
    ):
        await client.send(head("/ws", f"Sec-WebSocket-Protocol: bearer.{good}"))
        answer = await client.response()
        assert "sec-websocket-protocol" not in fields(answer)
        assert_absent(good, answer)


async def test_an_upstream_that_answers_with_the_marker_is_refused(tmp_path: Path) -> None:
    def choose_marker(seen: bytes) -> bytes:
        return switching(seen, "Sec-WebSocket-Protocol: bearer")

    async with (
        recording(choose_marker) as up,
        sidecar(policy_of(up.url, route=route({"subprotocol": "bearer"})), tmp_path) as s,
    ):
        problem = await refusal(s, f"Sec-WebSocket-Protocol: bearer, {token()}")
        assert (problem["status"], problem["reason"]) == (502, "upstream_refused")


async def test_the_same_token_in_every_place_is_one_token(tmp_path: Path) -> None:
    good = token()
    async with recording() as up, sidecar(policy_of(up.url, route=route(*ALL)), tmp_path) as s:
        seen = await admitted(
            s,
            up,
            f"Authorization: Bearer {good}",
            f"Cookie: x=1; session={good}",
            f"Sec-WebSocket-Protocol: bearer, {good}, chat",
            "Origin: http://127.0.0.1",
            path=f"/ws?token={good}&x=1",
        )
        assert_absent(good, seen)
        found = fields(seen)
        assert (found["cookie"], found["sec-websocket-protocol"]) == ("x=1", "chat")
        assert seen.startswith(b"GET /ws?x=1 ")


PLACES = {
    "header": ("Authorization: Bearer {}", "/ws"),
    "cookie": ("Cookie: session={}", "/ws"),
    "query": ("User-Agent: x", "/ws?token={}"),
    "subprotocol": ("Sec-WebSocket-Protocol: bearer, {}", "/ws"),
}


@pytest.mark.parametrize(
    ("first", "second"),
    [(a, b) for a in PLACES for b in PLACES if a != b],
)
async def test_two_different_tokens_are_a_conflict(tmp_path: Path, first: str, second: str) -> None:
    good, other = token("alice"), token("mallory")
    lines = [PLACES[first][0].format(good), PLACES[second][0].format(other)]
    path = PLACES[first][1].format(good) if first == "query" else PLACES[second][1].format(other)
    async with recording() as up, sidecar(policy_of(up.url, route=route(*ALL)), tmp_path) as s:
        problem = await refusal(s, *lines, "Origin: http://127.0.0.1", path=path)
        assert (problem["status"], problem["reason"]) == (400, "token_conflict")
        assert up.heads == []


async def test_two_tokens_in_one_source_are_a_conflict(tmp_path: Path) -> None:
    async with recording() as up, sidecar(policy_of(up.url, route=route(*ALL)), tmp_path) as s:
        path = f"/ws?token={token('a')}&token={token('b')}"
        assert (await refusal(s, path=path))["reason"] == "token_conflict"
        assert up.heads == []


async def test_a_source_that_the_route_does_not_name_is_not_looked_at(tmp_path: Path) -> None:
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=route("header")), tmp_path) as s,
    ):
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{s.url}/ws?token={token()}")
        assert refused.value.response.status_code == 401
        assert up.heads == []


async def test_a_bad_token_is_not_rescued_by_a_later_source(tmp_path: Path) -> None:
    good = token()
    async with recording() as up, sidecar(policy_of(up.url, route=route(*ALL)), tmp_path) as s:
        problem = await refusal(s, "Authorization: Bearer nonsense", path=f"/ws?token={good}")
        assert problem["reason"] == "token_conflict"
        assert up.heads == []


async def test_without_a_token_an_anonymous_client_comes_in_without_identity(
    tmp_path: Path,
) -> None:
    policy = route("header", anonymous=True) | {"identity": {"headers": {"X-User-Id": "user"}}}
    async with recording() as up, sidecar(policy_of(up.url, route=policy), tmp_path) as s:
        seen = await admitted(s, up, "X-User-Id: root", "X_User_Id: root")
        assert "x-user-id" not in fields(seen)
        assert b"root" not in seen
        seen = await admitted(s, up, f"Authorization: Bearer {token('alice')}")
        assert fields(seen)["x-user-id"] == "alice"


async def test_a_bad_token_is_refused_where_none_would_be_fine(tmp_path: Path) -> None:
    policy = route("header", anonymous=True)
    async with recording() as up, sidecar(policy_of(up.url, route=policy), tmp_path) as s:
        problem = await refusal(s, f"Authorization: Bearer {token(ttl=-3600)}")
        assert problem["reason"] == "token_expired"
        assert up.heads == []


async def test_the_token_goes_on_where_the_policy_says_so(tmp_path: Path) -> None:
    good = token()
    policy = route({"query": "token"}) | {"identity": {"forward_token": True}}
    async with recording() as up, sidecar(policy_of(up.url, route=policy), tmp_path) as s:
        seen = await admitted(s, up, "Authorization: Basic eDp5", path=f"/ws?token={good}")
        assert fields(seen)["authorization"] == f"Bearer {good}"
        assert seen.lower().count(b"authorization:") == 1
        assert seen.startswith(b"GET /ws HTTP/1.1\r\n")


async def test_the_token_goes_on_in_a_header_of_its_own(tmp_path: Path) -> None:
    good = token()
    policy = route("header") | {"identity": {"forward_token": {"header": "X-Token"}}}
    async with recording() as up, sidecar(policy_of(up.url, route=policy), tmp_path) as s:
        seen = await admitted(s, up, f"Authorization: Bearer {good}", "x.token: forged")
        assert fields(seen)["x-token"] == good
        assert "authorization" not in fields(seen)
        assert b"forged" not in seen


async def test_the_upstream_never_sees_a_token_from_any_source(tmp_path: Path) -> None:
    heads: list[str] = []

    async def note(connection: ServerConnection) -> None:
        assert connection.request is not None
        heads.append(connection.request.path + str(connection.request.headers))

    good = token()
    async with websocket_server(note) as url:
        policy = policy_of(url, route=route(*ALL))
        async with sidecar(policy, tmp_path) as s:
            origin = Origin(f"http://127.0.0.1:{s.port}")
            bearer = {"Authorization": f"Bearer {good}"}
            cookie = {"Cookie": f"session={good}"}
            markers = [Subprotocol("bearer"), Subprotocol(good)]
            async with connect(s.url, additional_headers=bearer) as one:
                await one.wait_closed()
            async with connect(s.url, additional_headers=cookie, origin=origin) as two:
                await two.wait_closed()
            async with connect(f"{s.url}/?token={good}") as three:
                await three.wait_closed()
            async with connect(s.url, subprotocols=markers) as four:
                await four.wait_closed()
    assert len(heads) == 4
    assert_absent(good, "".join(heads))


async def test_no_subprotocol_is_answered_where_none_was_offered(tmp_path: Path) -> None:
    bearer = {"Authorization": f"Bearer {token()}"}
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=route(*ALL)), tmp_path) as s,
        opened(s.url, additional_headers=bearer) as client,
    ):
        assert client.subprotocol is None
