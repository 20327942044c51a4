"""A token in the first message: the socket is accepted, and nothing dialled until it is good."""

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from sidecar.proxy.front import MAX_EARLY
from tests.support.audits import audit_to
from tests.support.certificates import authority
from tests.support.clients import head, raw
from tests.support.first_messages import (
    MESSAGE,
    WELCOME,
    accepted,
    asking,
    auth,
    decisions,
    refusal,
)
from tests.support.frames import BINARY, CONTINUATION, PING, PONG, TEXT, close, frame
from tests.support.pairs import connected
from tests.support.reloads import reload
from tests.support.sidecars import Running, policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import fields, recording, switching, websocket_server

FRAME = frame(TEXT, auth())


async def waiting(running: Running, count: int) -> None:
    """Wait until so many clients have no decision."""
    async with asyncio.timeout(5):
        while len(running.sidecar._admission._first_messages) != count:
            await asyncio.sleep(0.005)


async def test_a_page_signs_in_and_talks(tmp_path: Path) -> None:
    async with websocket_server() as url, sidecar(asking(tmp_path, url), tmp_path) as s:
        async with connect(s.url) as client:
            await client.send(auth().decode())
            assert json.loads(await client.recv()) == {"type": "auth_success", "user": "alice"}
            await client.send("hello")
            assert await client.recv() == "hello"
        await s.until_idle()
    (decision,) = decisions(tmp_path)
    assert (decision["decision"], decision["user"]) == ("allowed", "alice")
    assert (decision["route"], decision["path"]) == ("main", "/")


async def test_the_upstream_is_told_who_it_is_and_nothing_of_the_token(tmp_path: Path) -> None:
    route = {"identity": {"headers": {"X-User-Id": "user"}}}
    async with (
        recording() as up,
        sidecar(asking(tmp_path, up.url, route=route), tmp_path) as s,
        accepted(s) as client,
    ):
        text = token()
        await client.send(frame(TEXT, auth(text)) + frame(TEXT, b"next"))
        assert await client.exactly(len(WELCOME)) == WELCOME
        await up.until(lambda u: len(u.forwarded) == len(frame(TEXT, b"next")))
        assert fields(up.heads[0])["x-user-id"] == "alice"
        assert up.forwarded == frame(TEXT, b"next")
        assert text.encode() not in up.heads[0]


async def test_a_token_in_the_handshake_needs_no_message(tmp_path: Path) -> None:
    async with websocket_server() as url, sidecar(asking(tmp_path, url), tmp_path) as s:
        headers = {"Authorization": "Bearer " + token()}
        async with connect(s.url, additional_headers=headers) as client:
            await client.send(auth().decode())
            assert await client.recv() == auth().decode()


@pytest.mark.parametrize("behind_the_head", [True, False])
async def test_what_is_sent_behind_the_message_arrives_in_order(
    tmp_path: Path, behind_the_head: bool
) -> None:
    later = b"".join(frame(TEXT, b"%d" % number) for number in range(100))
    early = FRAME + later if behind_the_head else b""
    async with (
        recording() as up,
        sidecar(asking(tmp_path, up.url), tmp_path) as s,
        accepted(s, behind=early) as client,
    ):
        if not behind_the_head:
            await client.send(FRAME + later)
        await up.until(lambda u: len(u.forwarded) == len(later))
        assert up.forwarded == later
        assert await client.exactly(len(WELCOME)) == WELCOME


async def test_what_is_sent_during_the_dial_is_held_in_bounds_and_arrives(tmp_path: Path) -> None:
    later = b"".join(frame(BINARY, bytes([number]) * 60_000) for number in range(100))
    async with (
        recording(lambda _: None) as up,
        sidecar(asking(tmp_path, up.url), tmp_path) as s,
        accepted(s) as client,
    ):
        await client.send(FRAME)
        await up.until(lambda u: len(u.heads) == 1)
        sending = asyncio.create_task(client.send(later))
        (held,) = s.sidecar._admission._first_messages._waiting
        async with asyncio.timeout(5):
            while held.transport.is_reading():
                await asyncio.sleep(0.005)
        assert MAX_EARLY <= len(held._held) < MAX_EARLY + 256 * 1024
        assert up.forwarded == b""
        await up.send(switching(up.heads[0]))
        assert await client.exactly(len(WELCOME)) == WELCOME
        await up.until(lambda u: len(u.forwarded) == len(later), timeout=20)
        assert up.forwarded == later
        await sending


async def test_the_reply_comes_before_what_the_upstream_says_at_once(tmp_path: Path) -> None:
    hello = frame(TEXT, b"hello", masked=False)
    async with (
        recording(lambda seen: switching(seen) + hello) as up,
        sidecar(asking(tmp_path, up.url), tmp_path) as s,
        accepted(s) as client,
    ):
        await client.send(FRAME)
        assert await client.exactly(len(WELCOME + hello)) == WELCOME + hello


async def test_without_a_reply_the_upstream_speaks_first(tmp_path: Path) -> None:
    hello = frame(TEXT, b"hello", masked=False)
    async with (
        recording(lambda seen: switching(seen) + hello) as up,
        sidecar(asking(tmp_path, up.url, {"reply": None}), tmp_path) as s,
        accepted(s) as client,
    ):
        await client.send(FRAME)
        assert await client.exactly(len(hello)) == hello


async def test_the_message_may_come_in_fragments_and_bytes(tmp_path: Path) -> None:
    payload = auth()
    whole = (
        frame(TEXT, payload[:7], fin=False)
        + frame(PING, b"between")
        + frame(CONTINUATION, payload[7:50], fin=False)
        + frame(CONTINUATION, payload[50:])
    )
    pong = frame(PONG, b"between", masked=False)
    async with (
        recording() as up,
        sidecar(asking(tmp_path, up.url), tmp_path) as s,
        accepted(s) as client,
    ):
        for number in range(len(whole)):
            await client.send(whole[number : number + 1])
            await asyncio.sleep(0)
        assert await client.exactly(len(pong + WELCOME)) == pong + WELCOME
        assert up.forwarded == b""


CLAIMS = [{"claim": "role", "equals": "member", "reason": "not_a_member"}]
REFUSED: dict[str, tuple[int, str, bytes]] = {
    "another message": (4401, "token_missing", frame(TEXT, b'{"type":"hello"}')),
    "no JSON": (4401, "token_missing", frame(TEXT, b"hello")),
    "binary": (4401, "token_missing", frame(BINARY, auth())),
    "no token": (4401, "token_invalid", frame(TEXT, b'{"type":"auth"}')),
    "a token that is none": (4401, "token_invalid", frame(TEXT, auth("nonsense"))),
    "another's token": (4401, "token_invalid", frame(TEXT, auth(secret="x" * 64))),
    "an old token": (4401, "token_expired", frame(TEXT, auth(ttl=-60))),
    "a rule": (4403, "not_a_member", frame(TEXT, auth(role="guest"))),
    "too large": (1009, "message_too_big", frame(TEXT, b" " * (12 * 1024 + 1))),
    "too large in parts": (
        1009,
        "message_too_big",
        frame(TEXT, b" " * 12_288, fin=False) + frame(CONTINUATION, b" "),
    ),
    "not masked": (1002, "protocol_error", frame(TEXT, auth(), masked=False)),
    "a reserved bit": (1002, "protocol_error", frame(TEXT, auth(), rsv=4)),
    "a bad close code": (1002, "protocol_error", close(1006)),
    "too many pings": (4429, "message_rate", frame(PING) * 11),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_bad_first_message_is_told_and_nothing_is_dialled(
    tmp_path: Path, name: str
) -> None:
    code, reason, data = REFUSED[name]
    async with (
        recording() as up,
        sidecar(asking(tmp_path, up.url, route={"authorize": CLAIMS}), tmp_path) as s,
    ):
        async with accepted(s) as client:
            await client.send(data)
            told = (await client.rest()).removeprefix(frame(PONG, masked=False) * 10)
            assert told == refusal(code, reason)
        await s.until_idle()
        assert up.heads == []
    (decision,) = decisions(tmp_path)
    assert decision["decision"] == "refused"
    assert reason in (decision["reason"], decision.get("rule"))
    assert (decision["route"], decision["address"]) == ("main", "127.0.0.1")


async def test_what_a_refused_client_sends_goes_nowhere(tmp_path: Path) -> None:
    async with recording() as up, sidecar(asking(tmp_path, up.url), tmp_path) as s:
        async with accepted(s) as client:
            await client.send(frame(TEXT, b"hello") + FRAME)
            assert await client.rest() == refusal(4401, "token_missing")
        await s.until_idle()
        assert up.heads == []


async def test_codes_hold_and_no_failure_are_the_routes(tmp_path: Path) -> None:
    route = {"refuse": {"codes": {"token_missing": 4001}, "hold": "50ms"}}
    policy = asking(tmp_path, "ws://127.0.0.1:9", {"failure": None}, route=route)
    async with sidecar(policy, tmp_path) as s, accepted(s) as client:
        await client.send(frame(TEXT, b"hello"))
        assert await client.rest() == close(4001, "token_missing", masked=False)


async def test_a_message_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    policy = asking(tmp_path, "ws://127.0.0.1:9", {"timeout": "100ms"})
    async with sidecar(policy, tmp_path) as s:
        async with accepted(s) as client:
            await client.send(FRAME[:20])
            assert await client.rest() == refusal(4408, "auth_timeout")
        await s.until_idle()
    (decision,) = decisions(tmp_path)
    assert decision["reason"] == "auth_timeout"
    assert decision["seconds"] >= 0.1


async def test_waiting_is_no_part_of_the_time_that_a_handshake_takes(tmp_path: Path) -> None:
    async with websocket_server() as url, sidecar(asking(tmp_path, url), tmp_path) as s:
        before = asyncio.get_running_loop().time()
        async with connect(s.url) as client:
            await asyncio.sleep(0.3)
            since = asyncio.get_running_loop().time()
            await client.send(auth().decode())
            await client.recv()
        end = asyncio.get_running_loop().time()
        text = s.sidecar.metrics.render("")[0].decode()
    (line,) = [one for one in text.splitlines() if "handshake_seconds_sum" in one]
    assert float(line.split()[-1]) < end - before - 0.3 + 0.01
    assert since - before >= 0.3


async def test_pings_before_the_message_are_answered(tmp_path: Path) -> None:
    async with (
        websocket_server() as url,
        sidecar(asking(tmp_path, url), tmp_path) as s,
        connect(s.url) as client,
    ):
        async with asyncio.timeout(5):
            await (await client.ping("here?"))
        await client.send(auth().decode())
        assert "auth_success" in str(await client.recv())


@pytest.mark.parametrize(("sent", "code"), [(close(4000, "bye"), 4000), (close(), 1005)])
async def test_a_close_frame_before_the_message_is_answered(
    tmp_path: Path, sent: bytes, code: int
) -> None:
    async with recording() as up, sidecar(asking(tmp_path, up.url), tmp_path) as s:
        async with accepted(s) as client:
            await client.send(sent)
            answer = close(masked=False) if code == 1005 else close(code, masked=False)
            assert await client.rest() == answer
        await s.until_idle()
        assert up.heads == []
    (decision,) = decisions(tmp_path)
    assert decision["detail"] == "the client left during the handshake"


@pytest.mark.parametrize("how", ["reset", "eof"])
async def test_a_client_that_goes_before_its_message_is_forgotten(tmp_path: Path, how: str) -> None:
    async with sidecar(asking(tmp_path, "ws://127.0.0.1:9"), tmp_path) as s:
        async with accepted(s) as client:
            await client.send(FRAME[:20])
            if how == "reset":
                client.reset()
            else:
                client.writer.write_eof()
            await s.until_idle()
        await waiting(s, 0)
    (decision,) = decisions(tmp_path)
    assert decision["detail"] == "the client left during the handshake"


async def test_a_client_that_goes_during_the_dial_frees_the_upstream(tmp_path: Path) -> None:
    async with recording(lambda _: None) as up, sidecar(asking(tmp_path, up.url), tmp_path) as s:
        async with accepted(s) as client:
            await client.send(FRAME)
            await up.until(lambda u: len(u.heads) == 1)
        await s.until_idle()
        await up.until(lambda u: u.eof + u.lost == 1)
    (decision,) = decisions(tmp_path)
    assert (decision["reason"], decision["user"]) == ("bad_handshake", "alice")


async def test_a_revoked_token_is_refused(tmp_path: Path) -> None:
    async with (
        recording() as up,
        sidecar(asking(tmp_path, up.url), tmp_path) as s,
        aiohttp.ClientSession(s.admin_url) as admin,
    ):
        async with admin.post("/api/revocations", json={"user": "alice"}) as answer:
            assert answer.status == 201
        async with accepted(s) as client:
            await client.send(FRAME)
            assert await client.rest() == refusal(4401, "token_revoked")
        assert up.heads == []


async def test_an_upstream_that_refuses_is_told(tmp_path: Path) -> None:
    async with (
        recording(lambda _: b"HTTP/1.1 403 Forbidden\r\n\r\n") as up,
        sidecar(asking(tmp_path, up.url), tmp_path) as s,
    ):
        async with accepted(s) as client:
            await client.send(FRAME + frame(TEXT, b"secret"))
            assert await client.rest() == refusal(1014, "upstream_refused")
        await s.until_idle()
        assert up.forwarded == b""


async def test_an_upstream_that_is_not_there_is_told(tmp_path: Path) -> None:
    policy = asking(tmp_path, "ws://127.0.0.1:9")
    async with sidecar(policy, tmp_path) as s, accepted(s) as client:
        await client.send(FRAME)
        assert await client.rest() == refusal(1014, "upstream_unreachable")


async def test_a_path_that_the_upstream_cannot_get_is_told(tmp_path: Path) -> None:
    route = {"match": {"path": "/ws/{rest...}"}, "upstream_path": "/x/{rest}/y"}
    async with (
        sidecar(asking(tmp_path, "ws://127.0.0.1:9", route=route), tmp_path) as s,
        raw(s.port) as client,
    ):
        await client.send(head("/ws/") + FRAME)
        assert b" 101 " in await client.response()
        assert await client.rest() == refusal(4400, "bad_handshake")


async def test_an_error_of_the_programs_own_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sidecar(asking(tmp_path, "ws://127.0.0.1:9"), tmp_path) as s:

        async def fail(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(s.sidecar._admission.rules.authenticator, "authenticate", fail)
        async with accepted(s) as client:
            await client.send(FRAME)
            assert await client.rest() == refusal(1011, "internal_error")
        await s.until_idle()


async def test_the_first_subprotocol_is_told_and_alone_offered(tmp_path: Path) -> None:
    chosen = "Sec-WebSocket-Protocol: chat.v2"
    async with (
        recording(lambda seen: switching(seen, chosen)) as up,
        sidecar(asking(tmp_path, up.url), tmp_path) as s,
        raw(s.port) as client,
    ):
        await client.send(head("/ws", "Sec-WebSocket-Protocol: chat.v2, chat.v1") + FRAME)
        assert fields(await client.response())["sec-websocket-protocol"] == "chat.v2"
        assert await client.exactly(len(WELCOME)) == WELCOME
        assert fields(up.heads[0])["sec-websocket-protocol"] == "chat.v2"


async def test_an_upstream_without_the_subprotocol_that_was_told_is_refused(
    tmp_path: Path,
) -> None:
    async with websocket_server() as url, sidecar(asking(tmp_path, url), tmp_path) as s:
        async with connect(s.url, subprotocols=[Subprotocol("chat")]) as client:
            assert client.subprotocol == "chat"
            await client.send(auth().decode())
            assert json.loads(await client.recv())["message"] == "upstream_refused"
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1014
        await s.until_idle()


async def test_the_marker_of_a_subprotocol_source_is_told(tmp_path: Path) -> None:
    async with recording() as up:
        policy = asking(tmp_path, up.url).replace("- header\n", "- subprotocol: bearer\n")
        async with sidecar(policy, tmp_path) as s, raw(s.port) as client:
            await client.send(head("/ws", "Sec-WebSocket-Protocol: bearer") + FRAME)
            assert fields(await client.response())["sec-websocket-protocol"] == "bearer"
            assert await client.exactly(len(WELCOME)) == WELCOME
            assert "sec-websocket-protocol" not in fields(up.heads[0])


async def crowded(running: Running) -> None:
    """Be refused for want of room."""
    async with raw(running.port) as client:
        await client.send(head("/ws"))
        problem = await client.refusal()
    assert (problem["status"], problem["reason"]) == (503, "overloaded")


@pytest.mark.parametrize(
    ("bounds", "connections"),
    [({"per_ip": 2}, 100), ({"total": 2}, 100), ({}, 4)],
    ids=["per_ip", "total", "max_connections"],
)
async def test_only_so_many_clients_may_wait(
    tmp_path: Path, bounds: dict[str, int], connections: int
) -> None:
    async with recording() as up:
        policy = asking(
            tmp_path,
            up.url,
            {"max_waiting": bounds},
            route={"refuse": {"with": "close"}},
            server={"max_connections": connections},
        )
        async with sidecar(policy, tmp_path) as s:
            async with accepted(s), accepted(s) as second:
                await crowded(s)
                await second.send(FRAME)
                assert await second.exactly(len(WELCOME)) == WELCOME
                async with accepted(s):  # the second waits no more
                    await crowded(s)
                up.connections[0][1].transport.abort()
            await s.until_idle()
            await waiting(s, 0)
            assert not s.sidecar._admission._first_messages._counts


async def test_a_client_counts_by_the_address_that_a_trusted_proxy_tells(tmp_path: Path) -> None:
    policy = asking(
        tmp_path,
        "ws://127.0.0.1:9",
        {"max_waiting": {"per_ip": 1}},
        server={"trusted_proxies": ["127.0.0.0/8"]},
    )
    async with (
        sidecar(policy, tmp_path) as s,
        accepted(s, "X-Forwarded-For: 2001:db8::1"),
        accepted(s, "X-Forwarded-For: 2001:db8:0:1::1"),
        raw(s.port) as third,
    ):
        await third.send(head("/ws", "X-Forwarded-For: 2001:db8::ffff:2"))
        assert (await third.refusal())["reason"] == "overloaded"


async def test_behind_a_unix_socket_there_is_no_address_to_count(tmp_path: Path) -> None:
    policy = asking(
        tmp_path,
        "ws://127.0.0.1:9",
        {"max_waiting": {"per_ip": 1}},
        server={"listen": [f"unix:{tmp_path}/it"]},
    )
    async with sidecar(policy, tmp_path) as s:
        ends = [await asyncio.open_unix_connection(f"{tmp_path}/it") for _ in range(2)]
        for reader, writer in ends:
            writer.write(head("/ws"))
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        for _, writer in ends:
            writer.close()
        await s.until_idle()


async def test_a_drain_sends_away_those_who_wait(tmp_path: Path) -> None:
    route = {"refuse": {"hold": "1h"}}
    async with sidecar(asking(tmp_path, "ws://127.0.0.1:9", route=route), tmp_path) as s:
        async with accepted(s) as client:
            s.sidecar.drain()
            assert await client.rest() == refusal(1012, "draining")
        async with raw(s.port) as late:
            await late.send(head("/ws"))
            assert (await late.refusal())["reason"] == "draining"
        await s.sidecar.drained()


async def test_the_metrics_tell_how_many_wait(tmp_path: Path) -> None:
    async with sidecar(asking(tmp_path, "ws://127.0.0.1:9"), tmp_path) as s:

        async def told(number: int) -> None:
            line = f"ws_sidecar_waiting_clients {number}.0\n"
            async with asyncio.timeout(20):
                while line not in s.sidecar.metrics.render("")[0].decode():
                    await asyncio.sleep(0.05)

        async with accepted(s), accepted(s):
            await told(2)
        await told(0)


async def test_a_drain_during_the_dial_is_told_after_it(tmp_path: Path) -> None:
    async with recording(lambda _: None) as up, sidecar(asking(tmp_path, up.url), tmp_path) as s:
        async with accepted(s) as client:
            await client.send(FRAME)
            await up.until(lambda u: len(u.heads) == 1)
            s.sidecar.drain()
            await up.send(switching(up.heads[0]))
            assert await client.rest() == refusal(1012, "draining")
        await up.until(lambda u: u.eof + u.lost == 1)


async def test_the_programs_end_cuts_off_everybody(tmp_path: Path) -> None:
    async with (
        recording(lambda _: None) as up,
        sidecar(asking(tmp_path, up.url), tmp_path) as s,
        accepted(s) as waits,
        accepted(s) as dials,
    ):
        await dials.send(FRAME)
        await up.until(lambda u: len(u.heads) == 1)
        await s.sidecar.close()
        assert await waits.rest() == await dials.rest() == b""
        await up.until(lambda u: u.eof + u.lost == 1)
        assert s.sidecar.connections.places_taken == 0
    assert decisions(tmp_path) == []


async def test_nothing_is_dialled_before_the_message(tmp_path: Path) -> None:
    async with (
        recording() as up,
        sidecar(asking(tmp_path, up.url), tmp_path) as s,
        accepted(s, behind=FRAME[:-1]) as client,
    ):
        await waiting(s, 1)
        assert up.heads == []
        await client.send(FRAME[-1:])
        assert await client.exactly(len(WELCOME)) == WELCOME
        assert up.forwarded == b""


def with_tls(folder: Path) -> tuple[dict[str, Any], ssl.SSLContext]:
    """The listener's section, and a client's context that trusts it."""
    made = authority(folder)
    certificate, key = made.issue("localhost")
    section = {"tls": {"certificate": str(certificate), "key": str(key)}}
    return section, ssl.create_default_context(cafile=made.ca)


async def test_it_is_the_same_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.proxy.farewell.CLOSE_TIMEOUT", 3600)  # nobody is cut off here
    server, trusting = with_tls(tmp_path)
    options: dict[str, Any] = {
        "ssl": trusting,
        "server_hostname": "localhost",
        "close_timeout": None,
    }
    async with websocket_server() as url:
        policy = asking(tmp_path, url, {"timeout": "300ms"}, server=server)
        async with sidecar(policy, tmp_path) as s:
            async with connect(f"wss://127.0.0.1:{s.port}", **options) as good:
                await good.send(auth().decode())
                assert "auth_success" in str(await good.recv())
                await good.send("hello")
                assert await good.recv() == "hello"
            async with connect(f"wss://127.0.0.1:{s.port}", **options) as late:
                assert "auth_timeout" in str(await late.recv())
                await asyncio.wait_for(late.wait_closed(), 8)
                assert late.close_code == 4408
            async with connect(f"wss://127.0.0.1:{s.port}", **options) as leaving:
                await leaving.close(4000, "bye")
                assert leaving.close_code == 4000
            await s.until_idle()


@pytest.mark.parametrize("sent", [frame(TEXT, b"hello"), close(1000)])
async def test_a_tls_client_that_does_not_hang_up_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr("sidecar.proxy.farewell.CLOSE_TIMEOUT", 0.1)
    server, trusting = with_tls(tmp_path)
    async with sidecar(asking(tmp_path, "ws://127.0.0.1:9", server=server), tmp_path) as s:
        client = await connected(s.port, None, trusting)
        await client.send(head("/ws"))
        await client.response()
        client.stop_reading()  # so that it does not see the end either
        await client.send(sent)
        await s.until_idle()
        client.transport.abort()


async def test_a_stale_cookie_gives_way_to_the_first_message(tmp_path: Path) -> None:
    sources = [{"cookie": "session"}, {"message": dict(MESSAGE)}]
    route = {"authenticate": {"sources": sources}}
    lines = ["Origin: http://127.0.0.1", "Cookie: session=" + token("mallory", ttl=-3600)]
    async with recording() as up:
        policy = policy_of(up.url, route=route, logging=audit_to(tmp_path / "audit.jsonl"))
        async with sidecar(policy, tmp_path) as s, accepted(s, *lines) as client:
            await client.send(frame(TEXT, auth()))
            assert await client.exactly(len(WELCOME)) == WELCOME
            assert b"mallory" not in up.heads[0]
    (decision,) = decisions(tmp_path)
    assert (decision["decision"], decision["user"]) == ("allowed", "alice")


async def test_a_cookie_that_is_good_needs_no_message(tmp_path: Path) -> None:
    sources = [{"cookie": "session"}, {"message": dict(MESSAGE)}]
    lines = ["Origin: http://127.0.0.1", "Cookie: session=" + token()]
    async with recording() as up:
        policy = policy_of(up.url, route={"authenticate": {"sources": sources}})
        async with sidecar(policy, tmp_path) as s, accepted(s, *lines):
            await up.until(lambda it: len(it.heads) == 1)


@pytest.mark.parametrize(
    ("change", "end"),
    [
        ({"authorize": [{"claim": "role", "equals": "x"}]}, (4403, "claims_denied")),
        ({"match": {"path": "/elsewhere"}}, (4404, "no_route")),
        ({"authenticate": {"sources": ["header"]}}, (4401, "token_missing")),
        ({"authenticate": {"sources": ["header"], "anonymous": True}}, (4404, "no_route")),
    ],
)
async def test_a_policy_that_came_meanwhile_decides_before_anything_is_dialled(
    tmp_path: Path, change: dict[str, Any], end: tuple[int, str]
) -> None:
    async with (
        recording() as up,
        sidecar(asking(tmp_path, up.url), tmp_path) as s,
        accepted(s) as client,
    ):
        after = yaml.safe_load(asking(tmp_path, up.url))
        after["routes"][0] |= change
        await reload(s, tmp_path, yaml.safe_dump(after, sort_keys=False))
        await client.send(FRAME)
        assert await client.rest() == refusal(*end)
        assert up.heads == []


async def test_a_policy_that_lets_it_in_too_lets_it_in(tmp_path: Path) -> None:
    async with (
        recording() as up,
        sidecar(asking(tmp_path, up.url), tmp_path) as s,
        accepted(s) as client,
    ):
        message = {"reply": {"type": "another"}}
        await reload(s, tmp_path, asking(tmp_path, up.url, message))
        await client.send(FRAME)
        welcome = frame(TEXT, b'{"type":"another"}', masked=False)
        assert await client.exactly(len(welcome)) == welcome
