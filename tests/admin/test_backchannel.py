"""POST /backchannel-logout, with real tokens over real sockets."""

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.admin import bodies
from sidecar.policy.providers import JwksUrl, Provider
from sidecar.state.base import Kind
from tests.support.forgery import signed, unsigned

if TYPE_CHECKING:
    from sidecar.admin.live import Connection
    from tests.admin.conftest import Running

NOW = 1_700_000_000.0
PATH = "/backchannel-logout"
ISSUER = "https://login.example.com"
LOGOUT: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "chat",
    "iat": int(NOW),
    "exp": int(NOW) + 120,
    "jti": "l-1",
    "sid": "s-1",
    "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
}


def token(**changed: Any) -> str:
    claims = {name: value for name, value in (LOGOUT | changed).items() if value is not None}
    return signed(claims, {"alg": "HS256", "typ": "logout+jwt"})


async def post(running: "Running", form: object, **headers: str) -> tuple[int, Any]:
    """The answer to a form that is sent without the admin token."""
    running.headers = {}
    return await running.ask("POST", PATH, data=form, headers=headers)


async def refused(running: "Running", form: object, detail: str) -> None:
    assert await post(running, form) == (400, {"error": "invalid_request"})
    event = running.events[-1]
    assert (event["event"], event["level"]) == ("logout_refused", "warning")
    assert detail in event["detail"]
    assert await running.state.count(NOW) == 0


async def test_a_session_ends_at_its_issuers_word(
    running: "Running", crowd: list["Connection"]
) -> None:
    bob = next(each for each in crowd if each.user == "bob")
    running.connections.open(bob, sid="s-1")
    assert await post(running, {"logout_token": token(), "more": "ignored"}) == (200, None)
    assert {each.id for each in crowd} - set(running.connections.live) == {bob.id}
    page = await running.state.revocations(NOW, cursor=None, limit=9)
    (found,) = page.revocations
    assert (found.kind, found.value, found.provider) == (Kind.SID, "s-1", "corp")
    (event,) = running.events
    assert (event["event"], event["session_id"], event["closed"]) == ("revocation_added", "s-1", 1)
    assert event["detail"] == "back-channel logout"
    assert running.metric('ws_sidecar_logout_tokens_total{outcome="ok"}') == 1
    assert running.metric('ws_sidecar_revocations_total{kind="sid"}') == 1


async def test_a_subject_ends_in_all_its_sessions(
    running: "Running", crowd: list["Connection"]
) -> None:
    running.connections.open(crowd[2], sub="u-2", sid="s-1")
    assert (await post(running, {"logout_token": token(sid=None, sub="u-2")}))[0] == 200
    assert len(running.connections.live) == len(crowd) - 1


async def test_the_answer_is_kept_by_nobody(running: "Running") -> None:
    for form in ({"logout_token": token()}, {"logout_token": "x"}):
        async with running.client.post(PATH, data=form) as response:
            assert response.headers["Cache-Control"] == "no-store"


async def test_a_token_is_good_once(running: "Running") -> None:
    form = {"logout_token": token()}
    assert (await post(running, form))[0] == 200
    running.clock.move(60)
    await running.state.withdraw(running.events[0]["revocation_id"], NOW + 60)
    await refused(running, form, "the logout token was used before")


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (token(aud="other"), "corp: aud does not name this audience"),
        (token(nonce="n-1"), "corp: a logout token has no nonce"),
        (token(events=None), "corp: events has no logout event"),
        (token(jti=None), "corp: the required claim jti is missing"),
        (token(sid=None), "corp: there is neither sid nor sub"),
        (token(exp=int(NOW) - 31), "corp: exp is over"),
        (token(iat=int(NOW) - 400), "corp: the token is older than max_age"),
        (token(iss="https://evil.example"), "app: the provider names no issuer"),
        (signed(LOGOUT, {"alg": "HS256", "typ": "at+jwt"}), "corp: the typ is not accepted"),
        (signed(LOGOUT, key="x" * 64), "corp: the signature fits no key"),
        (unsigned(LOGOUT, {"alg": "none"}), "the signature is not base64url"),
        (f"{unsigned(LOGOUT, {'alg': 'none'})}AAAA", "no provider of the route takes alg none"),
        (signed({"sub": "alice", "exp": int(NOW) + 60, "iss": ISSUER, "aud": "chat"}), "corp: iat"),
        ("x" * 9000, "the token is over max_token_size"),
        ("", "the form has not exactly one logout_token"),
    ],
)
async def test_whatever_is_wrong_ends_nobodys_session(
    running: "Running", text: str, detail: str
) -> None:
    await refused(running, {"logout_token": text}, detail)


async def test_a_logout_and_an_access_token_are_told_apart(running: "Running") -> None:
    """The admin token is nothing to this path either."""
    access = signed({"sub": "alice", "exp": int(NOW) + 60, "iss": ISSUER, "aud": "chat"})
    status, _ = await running.ask("POST", PATH, data={"logout_token": access})
    assert status == 400


@pytest.mark.parametrize(
    "form",
    [b"", b"token=x", b"logout_token=a&logout_token=b", b"logout_token", b"\xff=1", b"&" * 8000,
     b"a=1&" * 100],
)  # fmt: skip
async def test_a_form_without_exactly_one_token_is_refused(running: "Running", form: bytes) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert await post(running, form, **headers) == (400, {"error": "invalid_request"})


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", "text/plain"])
async def test_a_body_of_another_type_is_refused(running: "Running", kind: str) -> None:
    status, _ = await post(running, b"logout_token=x", **{"Content-Type": kind})
    assert status == 400
    assert running.events[0]["detail"] == "send the body as application/x-www-form-urlencoded"


async def test_a_body_over_the_limit_is_refused(running: "Running") -> None:
    await refused(running, {"logout_token": "x" * 20_000}, "send a body of at most 12288 bytes")


async def test_only_a_post_means_a_logout(running: "Running") -> None:
    status, _ = await running.ask("GET", PATH, params={"logout_token": token()})
    assert status == 405


async def test_a_web_page_logs_nobody_out(running: "Running") -> None:
    status, _ = await post(running, {"logout_token": token()}, Origin="https://evil.example")
    assert (status, await running.state.count(NOW)) == (403, 0)


class TestWithoutRoom:
    @pytest.fixture
    def capacity(self) -> int:
        return 1

    async def test_a_logout_that_cannot_be_kept_fails(self, running: "Running") -> None:
        revocation = await running.revoke(jti="a")
        form = {"logout_token": token()}
        assert await post(running, form) == (400, {"error": "temporarily_unavailable"})
        assert "no room" in running.events[-1]["detail"]
        await running.state.withdraw(revocation["id"], NOW)
        assert (await post(running, form))[0] == 200


async def test_a_logout_that_is_not_in_force_everywhere_has_not_succeeded_yet(
    running: "Running", crowd: list["Connection"], monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = next(each for each in crowd if each.user == "bob")
    running.connections.open(bob, sid="s-1")
    running.leave_unconfirmed(monkeypatch)
    answer = await post(running, {"logout_token": token()})
    assert answer == (400, {"error": "temporarily_unavailable"})
    assert bob.id not in running.connections.live
    assert await running.state.count(NOW) == 1
    assert [event["event"] for event in running.events] == ["revocation_added", "logout_refused"]
    name = 'ws_sidecar_logout_tokens_total{outcome="state_unavailable"}'
    assert running.metric(name) == 1


class TestWithoutKeys:
    @pytest.fixture
    def providers(self, unused_tcp_port: int) -> tuple[Provider, ...]:
        keys = JwksUrl(f"http://127.0.0.1:{unused_tcp_port}/jwks", 600, allow_http=True)
        return (Provider("corp", ("HS256",), keys, issuer=ISSUER),)

    async def test_a_logout_is_not_called_invalid(self, running: "Running") -> None:
        answer = await post(running, {"logout_token": token()})
        assert answer == (400, {"error": "temporarily_unavailable"})
        name = 'ws_sidecar_logout_tokens_total{outcome="state_unavailable"}'
        assert running.metric(name) == 1


async def test_whoever_fails_often_has_to_wait(running: "Running") -> None:
    for _ in range(10):
        assert (await post(running, {"logout_token": "x"}))[0] == 400
    good = {"logout_token": token()}
    async with running.client.post(PATH, data=good) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "1")
        assert await response.json() == {"error": "slow_down"}
    assert running.metric('ws_sidecar_logout_tokens_total{outcome="refused"}') == 1
    running.clock.move(1)
    assert (await post(running, good))[0] == 200


# --- bodies that do not come


HEAD = (
    f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n"
    "Content-Type: application/x-www-form-urlencoded\r\n\r\nlogout_token="
).encode()


async def test_a_body_that_does_not_come_is_not_waited_for(
    running: "Running", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PATIENCE", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.client.port)
    writer.write(HEAD)
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 400 ")
    assert running.events[0]["detail"] == "the body did not come in time"
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_leaves_is_no_failure_of_ours(running: "Running") -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", running.client.port)
    writer.write(HEAD)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(10):
        while not running.events:
            await asyncio.sleep(0.005)
    assert [event["event"] for event in running.events] == ["logout_refused"]
    assert running.events[0]["detail"] == "the body broke off"
