"""Refusals that are told in a close frame (`refuse.with: close` and `auto`)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from sidecar.proxy import relay
from sidecar.proxy.front import Front, FrontServer, RequestHead
from tests.support import frames
from tests.support.audits import events
from tests.support.clients import Raw, head, raw
from tests.support.refused import (
    answering,
    bearer,
    closing,
    refused,
    with_audit,
)
from tests.support.sidecars import Running, policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import fields, recording, websocket_server


@contextlib.asynccontextmanager
async def closed(
    running: Running, *lines: str, path: str = "/ws"
) -> AsyncIterator[tuple[Raw, bytes]]:
    """A handshake that is accepted; the block ends with the socket."""
    async with raw(running.port) as client:
        await client.send(head(path, *lines))
        yield client, await client.response()


async def close_frame(client: Raw) -> tuple[int, str]:
    """The one frame that a refused client gets."""
    first, size = await client.exactly(2)
    assert first == 0x88
    payload = await client.exactly(size)
    return int.from_bytes(payload[:2], "big"), payload[2:].decode()


CLOSED = [
    (4403, "origin_denied", ["Origin: https://evil.example"]),
    (4401, "token_missing", []),
    (4401, "token_invalid", ["Authorization: Bearer nonsense"]),
    (4401, "token_expired", [bearer(ttl=-60)]),
    (4403, "claims_denied", [bearer(banned=True)]),
    (4403, "not_a_member", [bearer()]),
]


@pytest.mark.parametrize(("code", "reason", "lines"), CLOSED)
async def test_a_closed_refusal_has_the_code_of_its_reason(
    tmp_path: Path, code: int, reason: str, lines: list[str]
) -> None:
    rules = [
        {"claim": "banned", "exists": False},
        {"claim": "member", "equals": True, "reason": "not_a_member"},
    ]
    async with recording() as up:
        policy = with_audit(tmp_path, up.url, route={"authorize": rules, **closing()})
        async with sidecar(policy, tmp_path) as s:
            async with closed(s, *lines) as (client, answer):
                assert answer.startswith(b"HTTP/1.1 101 ")
                assert await close_frame(client) == (code, reason)
                assert await client.rest() == b""
            await s.until_idle()
        assert up.heads == []
    (logged,) = events(tmp_path / "audit.jsonl")
    assert logged["decision"] == "refused"
    assert reason in (logged["reason"], logged.get("rule"))


async def test_a_closed_refusal_names_the_request_and_a_connection_does_not(tmp_path: Path) -> None:
    async with recording() as up:
        policy = with_audit(tmp_path, up.url, route=closing())
        async with sidecar(policy, tmp_path) as s:
            async with closed(s) as (_, answer):
                name = fields(answer)["x-request-id"]
            async with closed(s, bearer()) as (_, answer):
                assert "x-request-id" not in fields(answer)
                up.connections[0][1].close()
    refused, allowed = events(tmp_path / "audit.jsonl")
    assert (refused["decision"], refused["request_id"]) == ("refused", name)
    assert allowed["decision"] == "allowed"


async def test_held_refusals_take_no_more_than_half_of_the_places(tmp_path: Path) -> None:
    async with recording() as up:
        policy = with_audit(
            tmp_path, up.url, server={"max_connections": 4}, route=closing(hold="1h")
        )
        async with sidecar(policy, tmp_path) as s:
            async with closed(s) as (_, first), closed(s) as (_, second):
                assert first.startswith(b"HTTP/1.1 101 ")
                assert second.startswith(b"HTTP/1.1 101 ")
                async with closed(s) as (_, third):
                    assert third.startswith(b"HTTP/1.1 401 ")
                async with raw(s.port) as admitted:
                    await admitted.send(head("/ws", bearer()))
                    assert (await admitted.response()).startswith(b"HTTP/1.1 101 ")
            await s.until_idle()


async def test_a_conflict_is_closed_with_4400(tmp_path: Path) -> None:
    sources = {"sources": ["header", {"query": "token"}]}
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route={"authenticate": sources, **closing()}), tmp_path) as s,
        closed(s, bearer(), path="/ws?token=other") as (client, _),
    ):
        assert await close_frame(client) == (4400, "token_conflict")


@pytest.mark.parametrize(
    ("answer", "code", "reason"),
    [
        (answering("HTTP/1.1 403 Forbidden\n\n"), 1014, "upstream_refused"),
        (lambda _: None, 1014, "upstream_timeout"),
    ],
)
async def test_a_failed_dial_is_closed_with_1014(
    tmp_path: Path, answer: Callable[[bytes], bytes | None], code: int, reason: str
) -> None:
    server = {"handshake_timeout": "300ms"}
    async with (
        recording(answer) as up,
        sidecar(policy_of(up.url, route=closing(), server=server), tmp_path) as s,
        closed(s, bearer()) as (client, _),
    ):
        assert await close_frame(client) == (code, reason)


async def test_a_missing_origin_and_clear_text_are_closed_with_4403(tmp_path: Path) -> None:
    route = {**closing(), "origins": {"missing": "deny"}}
    server = {"require_tls": True, "trusted_proxies": ["127.0.0.1/32"]}
    async with recording() as up:
        async with (
            sidecar(policy_of(up.url, route=route), tmp_path) as s,
            closed(s, bearer()) as (client, _),
        ):
            assert await close_frame(client) == (4403, "origin_missing")
        async with (
            sidecar(policy_of(up.url, route=route, server=server), tmp_path) as s,
            closed(s, bearer()) as (client, _),
        ):
            assert await close_frame(client) == (4403, "tls_required")


async def test_the_policy_gives_reasons_their_own_codes(tmp_path: Path) -> None:
    codes = {"token_missing": 4001, "not_a_member": 4100, "claims_denied": 4200}
    rules = [
        {"claim": "banned", "exists": False},
        {"claim": "member", "equals": True, "reason": "not_a_member"},
    ]
    route = {"authorize": rules, **closing(codes=codes)}
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        for lines, expected in [
            ([], (4001, "token_missing")),
            ([bearer()], (4100, "not_a_member")),
            ([bearer(banned=True)], (4200, "claims_denied")),
            ([bearer(ttl=-60)], (4401, "token_expired")),
        ]:
            async with closed(s, *lines) as (client, _):
                assert await close_frame(client) == expected


async def test_a_rules_reason_takes_the_code_of_claims_denied(tmp_path: Path) -> None:
    rules = [{"claim": "member", "equals": True, "reason": "not_a_member"}]
    route = {"authorize": rules, **closing(codes={"claims_denied": 4200})}
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=route), tmp_path) as s,
        closed(s, bearer()) as (client, _),
    ):
        assert await close_frame(client) == (4200, "not_a_member")


async def test_auto_closes_for_browsers_and_answers_programs(tmp_path: Path) -> None:
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=closing("auto")), tmp_path) as s,
    ):
        async with closed(s, "Origin: http://127.0.0.1") as (client, answer):
            assert answer.startswith(b"HTTP/1.1 101 ")
            assert await close_frame(client) == (4401, "token_missing")
        assert (await refused(s))["status"] == 401


async def test_what_is_no_handshake_is_never_accepted(tmp_path: Path) -> None:
    async with recording() as up, sidecar(policy_of(up.url, route=closing()), tmp_path) as s:
        assert (await refused(s, "Content-Length: 3"))["status"] == 400
        assert (await refused(s, path="/a;b"))["status"] == 400
        s.sidecar.drain()
        assert (await refused(s, bearer()))["status"] == 503


async def test_a_browser_gets_to_open_before_it_is_closed(tmp_path: Path) -> None:
    """One that offered subprotocols fails before `open` unless one of them is chosen."""
    source = {"authenticate": {"sources": [{"subprotocol": "bearer"}, {"query": "token"}]}}
    expired = token(ttl=-60)
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=source | closing()), tmp_path) as s,
    ):
        for path, offered, chosen in [
            ("/", ["bearer", expired], "bearer"),
            ("/", ["bearer", expired, "chat"], "chat"),
            ("/", ["chat", "v2"], "chat"),
            ("/?token=x", ["bearer", expired], "bearer"),  # a conflict
        ]:
            protocols = [Subprotocol(name) for name in offered]
            async with connect(s.url + path, subprotocols=protocols) as client:
                assert client.subprotocol == chosen
                with pytest.raises(ConnectionClosed) as refused:
                    await client.recv()
            assert refused.value.rcvd is not None
            assert refused.value.rcvd.code in (4400, 4401)
        assert up.heads == []


@pytest.mark.parametrize("offered", ["bearer.{}", "bearer, {}, bearer.x"])
async def test_a_closed_refusal_never_echoes_a_token(tmp_path: Path, offered: str) -> None:
    source = {"authenticate": {"sources": [{"subprotocol": "bearer"}]}}
    lines = f"Sec-WebSocket-Protocol: {offered.format(token(ttl=-60))}"
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=source | closing()), tmp_path) as s,
        closed(s, lines) as (client, answer),
    ):
        assert "sec-websocket-protocol" not in fields(answer)
        assert (await close_frame(client))[0] in (4400, 4401)


async def test_hold_keeps_the_close_frame_back_and_throws_data_away(tmp_path: Path) -> None:
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=closing(hold="400ms")), tmp_path) as s,
    ):
        loop = asyncio.get_running_loop()
        async with closed(s) as (client, _):
            accepted = loop.time()
            await client.send(frames.frame(frames.TEXT, b"x" * 100_000))
            await client.send(b"\xff" * 100_000)  # not even frames
            assert await close_frame(client) == (4401, "token_missing")
            assert loop.time() - accepted >= 0.3
        await s.until_idle()
        assert up.heads == []


async def test_a_client_that_leaves_during_the_hold_frees_its_place(tmp_path: Path) -> None:
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=closing(hold="1h")), tmp_path) as s,
    ):
        async with closed(s):
            assert s.sidecar.connections.places_taken == 1
        await s.until_idle()


async def test_a_refused_client_that_never_hangs_up_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.proxy.farewell.CLOSE_TIMEOUT", 0.2)
    assert relay.CLOSE_TIMEOUT == 5.0
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route=closing()), tmp_path) as s,
        closed(s) as (client, _),
    ):
        await close_frame(client)
        await s.until_idle()
        assert not client.writer.transport.is_closing()


async def test_a_client_that_left_before_a_closed_refusal_is_no_internal_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = FrontServer.begin

    def begin_and_hang_up(server: FrontServer, front: Front, request: RequestHead) -> None:
        front.transport.abort()
        begin(server, front, request)

    monkeypatch.setattr(FrontServer, "begin", begin_and_hang_up)
    policy = with_audit(tmp_path, "ws://127.0.0.1:1", route=closing())
    async with sidecar(policy, tmp_path) as s, raw(s.port) as client:
        await client.send(head("/ws"))
        assert await client.rest() == b""
        await s.until_idle()
    (logged,) = events(tmp_path / "audit.jsonl")
    assert logged["reason"] == "bad_handshake"
    assert logged["detail"] == "the client left during the handshake"


async def test_the_sidecar_ends_with_a_hold_under_way(tmp_path: Path) -> None:
    policy = policy_of("ws://127.0.0.1:1", route=closing(hold="1h"))
    async with contextlib.AsyncExitStack() as clients:
        async with sidecar(policy, tmp_path) as s:
            client, _ = await clients.enter_async_context(closed(s))
        assert await client.rest() == b""


async def test_a_real_client_reads_the_code_and_the_reason(tmp_path: Path) -> None:
    async with (
        websocket_server() as url,
        sidecar(policy_of(url, route=closing()), tmp_path) as s,
        connect(s.url) as client,
    ):
        with pytest.raises(ConnectionClosed) as refused:
            await client.recv()
        assert refused.value.rcvd is not None
        assert (refused.value.rcvd.code, refused.value.rcvd.reason) == (4401, "token_missing")


async def test_recorded_heads_are_those_of_the_dial(tmp_path: Path) -> None:
    """The counterpart of "nothing reached the upstream": an admitted client does reach it."""
    async with recording() as up, sidecar(policy_of(up.url), tmp_path) as s, raw(s.port) as client:
        await client.send(head("/ws", bearer()))
        await client.response()
        assert len(up.heads) == 1
