"""The steps between the pure ones: who is let go of what when a handshake ends early."""

import asyncio
import gc
from pathlib import Path
from typing import Any

import httptools
import pytest

from sidecar.errors import KeysUnavailable
from sidecar.model import Denial, Identity, Permit
from sidecar.policy.compiled import Upstream
from sidecar.policy.keys import SigningKey
from sidecar.proxy import admission, upstream
from sidecar.proxy.front import Front, FrontServer, RequestHead
from sidecar.proxy.record import Attempt
from sidecar.proxy.upstream import Dialled, dial
from tests.support import frames
from tests.support.audits import audit_to, events
from tests.support.clients import head, raw
from tests.support.clocks import MovableClock
from tests.support.sidecars import policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import recording, switching


def bearer(**claims: Any) -> str:
    return "Authorization: Bearer " + token(**claims)


def with_audit(folder: Path, url: str, **sections: Any) -> str:
    return policy_of(url, logging=audit_to(folder / "audit.jsonl"), **sections)


async def test_an_admitted_client_and_its_early_bytes_reach_the_upstream(tmp_path: Path) -> None:
    async with (
        recording() as up,
        sidecar(with_audit(tmp_path, up.url), tmp_path) as s,
        raw(s.port) as client,
    ):
        early = frames.frame(frames.TEXT, b"early")
        await client.send(head("/ws", bearer()) + early)
        assert (await client.response()).startswith(b"HTTP/1.1 101 ")
        await up.until(lambda u: len(u.forwarded) == len(early))
        assert up.forwarded == early
        assert len(s.sidecar.connections) == 1
        up.connections[0][1].transport.abort()
        client.writer.transport.abort()
        await s.until_idle()
    (decision,) = events(tmp_path / "audit.jsonl")
    (closure,) = events(tmp_path / "audit.jsonl", "connection_closed")
    assert decision["decision"] == "allowed"
    assert decision["connection_id"] == decision["request_id"] == closure["connection_id"]
    assert decision["user"] == closure["user"] == "alice"
    assert closure["client_messages"] == 1


@pytest.mark.usefixtures("no_collector")
async def test_no_cycle_keeps_an_admitted_handshake_alive(tmp_path: Path) -> None:
    parsers = (httptools.HttpRequestParser, httptools.HttpResponseParser)
    kinds = (Front, RequestHead, Dialled, upstream._Answer, Attempt, *parsers)
    earlier = [one for one in gc.get_objects() if type(one) in kinds]

    def left() -> list[Any]:
        found = [one for one in gc.get_objects() if type(one) in kinds]
        return [one for one in found if not any(one is other for other in earlier)]

    async with (
        recording() as up,
        sidecar(policy_of(up.url), tmp_path) as s,
        raw(s.port) as client,
    ):
        tasks = asyncio.all_tasks()
        await client.send(head("/ws", bearer()))
        await client.response()
        async with asyncio.timeout(5):
            while left():
                await asyncio.sleep(0.005)
        assert len(s.sidecar.connections) == 1
        # The one more is the test's upstream's.
        assert len(asyncio.all_tasks() - tasks) == 1


async def test_what_the_upstream_says_at_once_reaches_the_client(tmp_path: Path) -> None:
    welcome = frames.frame(frames.TEXT, b"welcome", masked=False)
    async with (
        recording(lambda seen: switching(seen) + welcome) as up,
        sidecar(policy_of(up.url), tmp_path) as s,
        raw(s.port) as client,
    ):
        await client.send(head("/ws", bearer()))
        await client.response()
        assert await client.exactly(len(welcome)) == welcome


async def test_a_client_that_leaves_before_the_answer_frees_the_upstream(tmp_path: Path) -> None:
    async with recording(lambda _: None) as up:
        async with sidecar(with_audit(tmp_path, up.url), tmp_path) as s:
            async with raw(s.port) as client:
                await client.send(head("/ws", bearer()))
                await up.until(lambda u: len(u.heads) == 1)
            await s.until_idle()  # nobody waits for the upstream's answer
            await up.until(lambda u: u.eof + u.lost == 1)
            assert len(s.sidecar.connections) == 0
        assert up.forwarded == b""
    (decision,) = events(tmp_path / "audit.jsonl")
    assert decision["reason"] == "bad_handshake"
    assert decision["detail"] == "the client left during the handshake"


async def test_a_handshake_that_the_sidecars_own_end_cuts_short_is_not_the_clients_doing(
    tmp_path: Path,
) -> None:
    async with (
        recording(lambda _: None) as up,
        sidecar(with_audit(tmp_path, up.url), tmp_path) as s,
        raw(s.port) as client,
    ):
        await client.send(head("/ws", bearer()))
        await up.until(lambda u: len(u.heads) == 1)
        await s.sidecar.close()
        assert await client.rest() == b""
    assert events(tmp_path / "audit.jsonl") == []


async def test_for_a_client_that_has_left_already_nothing_is_dialled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fronts: list[Front] = []
    begin = FrontServer.begin

    def begin_and_hang_up(server: FrontServer, front: Front, request: RequestHead) -> None:
        front.transport.abort()
        fronts.append(front)
        begin(server, front, request)

    monkeypatch.setattr(FrontServer, "begin", begin_and_hang_up)
    async with recording() as up:
        async with sidecar(with_audit(tmp_path, up.url), tmp_path) as s, raw(s.port) as client:
            await client.send(head("/ws", bearer()))
            assert await client.rest() == b""
            await s.until_idle()
        assert up.heads == []
    (decision,) = events(tmp_path / "audit.jsonl")
    assert decision["detail"] == "the client left during the handshake"
    assert decision["user"] == "alice"


async def test_an_upstream_that_hung_up_after_its_answer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dial_and_lose(
        permit: Permit, server: Upstream, tls: None, deadline: float
    ) -> Dialled:
        dialled = await dial(permit, server, tls, deadline)
        dialled.transport.abort()
        return dialled

    monkeypatch.setattr(admission, "dial", dial_and_lose)
    async with recording() as up, sidecar(policy_of(up.url), tmp_path) as s:
        async with raw(s.port) as client:
            await client.send(head("/ws", bearer()))
            problem = await client.refusal()
        assert (problem["status"], problem["reason"]) == (502, "upstream_refused")
        await s.until_idle()


async def test_a_signing_key_that_is_gone_is_no_internal_error(tmp_path: Path) -> None:
    def gone(provider: str) -> SigningKey:
        raise KeysUnavailable(provider, "no secret or private key to sign with")

    route = {"identity": {"sign": {"provider": "app"}}}
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        s.sidecar._admission._signing_key = gone
        async with raw(s.port) as client:
            await client.send(head("/ws", bearer()))
            problem = await client.refusal()
        assert (problem["status"], problem["reason"]) == (503, "state_unavailable")
        assert up.heads == []


async def test_an_error_after_the_dial_leaves_no_socket_to_the_upstream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Front, "hand_over", fail)
    async with recording() as up, sidecar(policy_of(up.url), tmp_path) as s:
        async with raw(s.port) as client:
            await client.send(head("/ws", bearer()))
            problem = await client.refusal()
        assert (problem["status"], problem["reason"]) == (500, "internal_error")
        await s.until_idle()
        await up.until(lambda u: u.eof + u.lost == 1)


async def test_the_time_of_day_is_the_given_clocks(tmp_path: Path) -> None:
    async with (
        recording() as up,
        sidecar(policy_of(up.url), tmp_path, clock=MovableClock(0.0)) as s,
        raw(s.port) as client,
    ):
        await client.send(head("/ws", bearer()))
        problem = await client.refusal()
        assert problem["reason"] == "token_invalid"  # issued in the future


async def test_waiting_for_keys_counts_towards_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recording() as up:
        policy = policy_of(up.url, server={"handshake_timeout": "200ms"})
        async with sidecar(policy, tmp_path) as s, raw(s.port) as client:
            authenticator = s.sidecar._admission.rules.authenticator
            authenticate = authenticator.authenticate

            async def slow(*arguments: Any) -> Identity | Denial:
                await asyncio.sleep(0.25)
                return await authenticate(*arguments)

            monkeypatch.setattr(authenticator, "authenticate", slow)
            await client.send(head("/ws", bearer()))
            problem = await client.refusal()
    assert (problem["status"], problem["reason"]) == (504, "upstream_timeout")
