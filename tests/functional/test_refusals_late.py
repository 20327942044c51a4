"""Refusals by the upstream, for want of a place, while draining, and of the program's own."""

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests.support.clients import head, raw
from tests.support.refused import (
    answering,
    assert_well_formed,
    bearer,
    closing,
    refused,
    with_audit,
)
from tests.support.sidecars import policy_of, sidecar
from tests.support.upstreams import fields, recording, switching


async def test_an_upstream_that_nobody_serves_is_unreachable(tmp_path: Path) -> None:
    with socket.socket() as unused:  # bound and not listening: connecting is refused
        unused.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{unused.getsockname()[1]}"
        async with sidecar(with_audit(tmp_path, url), tmp_path) as s:
            problem = await refused(s, bearer())
            await s.until_idle()
    assert (problem["reason"], problem["status"]) == ("upstream_unreachable", 502)
    assert_well_formed(problem, tmp_path)


@pytest.mark.parametrize(
    "answer",
    [
        answering("HTTP/1.1 403 Forbidden\nContent-Length: 0\n\n"),
        answering("HTTP/1.1 302 Found\nLocation: ws://127.0.0.1:1/\nContent-Length: 0\n\n"),
        answering("HTTP/1.1 200 OK\nUpgrade: websocket\nConnection: Upgrade\n\n"),
        answering("HTTP/1.1 101 Switching Protocols\n\n"),
        answering("nonsense\n\n"),
        lambda seen: switching(seen, "Sec-WebSocket-Extensions: permessage-deflate"),
        lambda seen: switching(seen, "Sec-WebSocket-Protocol: chat"),
    ],
)
async def test_an_upstream_that_does_not_upgrade_is_a_bad_gateway(
    tmp_path: Path, answer: Callable[[bytes], bytes]
) -> None:
    async with recording(answer) as up:
        async with sidecar(with_audit(tmp_path, up.url), tmp_path) as s:
            async with raw(s.port) as client:
                await client.send(head("/ws", bearer()) + b"GET /internal HTTP/1.1\r\n\r\n")
                problem = await client.refusal()
            problem["fields"] = fields(problem["head"].encode("latin-1"))
            await s.until_idle()
            await up.until(lambda u: u.eof + u.lost == 1)
        assert (problem["reason"], problem["status"]) == ("upstream_refused", 502)
        assert_well_formed(problem, tmp_path)
        assert up.forwarded == b""
        assert len(up.heads) == 1


async def test_an_upstream_that_does_not_answer_in_time_is_a_gateway_timeout(
    tmp_path: Path,
) -> None:
    async with recording(lambda _: None) as up:
        policy = with_audit(tmp_path, up.url, server={"handshake_timeout": "300ms"})
        async with sidecar(policy, tmp_path) as s:
            problem = await refused(s, bearer())
            await s.until_idle()
            await up.until(lambda u: u.eof + u.lost == 1)
        assert (problem["reason"], problem["status"]) == ("upstream_timeout", 504)
        assert_well_formed(problem, tmp_path)


async def test_every_dial_is_counted_by_its_outcome(tmp_path: Path) -> None:
    answers = iter([answering("HTTP/1.1 403 Forbidden\n\n"), switching])
    async with (
        recording(lambda seen: next(answers)(seen)) as up,
        sidecar(policy_of(up.url), tmp_path) as s,
    ):
        await refused(s, bearer())
        async with raw(s.port) as client:
            await client.send(head("/ws", bearer()))
            await client.response()
        async with (
            aiohttp.ClientSession() as session,
            session.get(s.admin_url + "/metrics") as got,
        ):
            metrics = await got.text()
        name = "ws_sidecar_upstream_connects_total"
        assert name + '{outcome="upstream_refused",upstream="main"} 1.0' in metrics
        assert name + '{outcome="ok",upstream="main"} 1.0' in metrics


async def test_an_error_of_the_programs_own_is_a_500_without_a_word_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("sidecar.policy.decide.preflight", fail)
    async with recording() as up:
        async with sidecar(with_audit(tmp_path, up.url), tmp_path) as s:
            problem = await refused(s, bearer())
            await s.until_idle()
        assert (problem["reason"], problem["status"]) == ("internal_error", 500)
        assert "secret detail" not in json.dumps(problem)
        assert_well_formed(problem, tmp_path)
        assert up.heads == []


# Places.


async def test_over_max_connections_is_overloaded_until_a_place_is_free(tmp_path: Path) -> None:
    async with recording() as up:
        policy = with_audit(tmp_path, up.url, server={"max_connections": 1})
        async with sidecar(policy, tmp_path) as s:
            async with raw(s.port) as first:
                await first.send(head("/ws", bearer()))
                await first.response()
                async with raw(s.port) as second:
                    await second.send(head("/ws", bearer()))
                    problem = await second.refusal()
                problem["fields"] = fields(problem["head"].encode("latin-1"))
                assert (problem["reason"], problem["status"]) == ("overloaded", 503)
                assert problem["fields"]["retry-after"] == "5"
                assert len(up.heads) == 1
            up.connections[0][1].transport.abort()
            await s.until_idle()
            async with raw(s.port) as third:
                await third.send(head("/ws", bearer()))
                assert (await third.response()).startswith(b"HTTP/1.1 101 ")
        assert_well_formed(problem, tmp_path)


async def test_a_place_comes_back_from_every_way_a_handshake_can_end(tmp_path: Path) -> None:
    hang = asyncio.Event()
    answers: dict[bytes, Callable[[bytes], bytes | None]] = {
        b"GET /refused": answering("HTTP/1.1 403 Forbidden\n\n"),
        b"GET /hangs": lambda _: hang.set(),
        b"GET /ws": switching,
    }
    server = {"max_connections": 1, "handshake_timeout": "500ms"}
    async with (
        recording(lambda seen: answers[b" ".join(seen.split()[:2])](seen)) as up,
        sidecar(policy_of(up.url, server=server, route=closing()), tmp_path) as s,
    ):
        for path, lines in [
            ("/ws", ["Origin: null"]),  # refused
            ("/ws;", [bearer()]),  # before a route
            ("/refused", [bearer()]),  # failed
            ("/hangs", [bearer()]),  # timed out
        ]:
            async with raw(s.port) as client:
                await client.send(head(path, *lines))
                assert await client.rest()
            await s.until_idle()
        hang.clear()
        async with raw(s.port) as leaving:  # the client is gone before the upstream answers
            await leaving.send(head("/hangs", bearer()))
            await hang.wait()
        await s.until_idle()
        async with raw(s.port) as ended:
            await ended.send(head("/ws", bearer()))
            assert (await ended.response()).startswith(b"HTTP/1.1 101 ")
        up.connections[-1][1].transport.abort()
        await s.until_idle()


async def test_while_draining_a_handshake_is_told_to_come_back(tmp_path: Path) -> None:
    async with recording() as up:
        async with sidecar(with_audit(tmp_path, up.url), tmp_path) as s:
            s.sidecar.drain()
            problem = await refused(s, bearer())
        assert (problem["reason"], problem["status"]) == ("draining", 503)
        assert problem["fields"]["retry-after"] == "1"
        assert assert_well_formed(problem, tmp_path)["path"] == "/ws"
        assert up.heads == []


async def test_a_handshake_that_was_under_way_is_told_so_too(tmp_path: Path) -> None:
    async with recording(lambda _: None) as up:
        async with sidecar(with_audit(tmp_path, up.url), tmp_path) as s, raw(s.port) as client:
            await client.send(head("/ws", bearer()))
            await up.until(lambda u: len(u.heads) == 1)
            s.sidecar.drain()
            await up.send(switching(up.heads[0]))
            problem = await client.refusal()
            problem["fields"] = fields(problem["head"].encode("latin-1"))
            await up.until(lambda u: u.eof + u.lost == 1)
        assert (problem["reason"], problem["status"]) == ("draining", 503)
        assert_well_formed(problem, tmp_path)


async def test_an_upstream_that_hangs_up_right_after_its_101_is_refused_or_lost(
    tmp_path: Path,
) -> None:
    """Whichever comes first: the client is never left with a socket to nowhere."""
    async with recording(lambda _: None) as up, sidecar(policy_of(up.url), tmp_path) as s:
        async with raw(s.port) as client:
            await client.send(head("/ws", bearer()))
            await up.until(lambda u: len(u.heads) == 1)
            await up.send(switching(up.heads[0]))
            up.connections[0][1].transport.abort()
            answer = await client.rest()
        assert answer.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 502 "))
        await s.until_idle()
