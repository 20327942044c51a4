"""Requests and answers with a few bytes changed: whatever they become, nothing breaks."""

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest

from tests.support.attacks import bearer, served
from tests.support.clients import head, raw
from tests.support.frames import BINARY, PING, TEXT, close, frame
from tests.support.sidecars import Running, policy_of, sidecar
from tests.support.upstreams import recording, switching

ROUTE: dict[str, Any] = {
    "match": {"path": "/{rest...}"},
    "origins": {"allow": ["https://app.com"], "missing": "allow"},
    "authenticate": {
        "sources": ["header", {"cookie": "session"}, {"query": "token"}, {"subprotocol": "bearer"}]
    },
    "identity": {"headers": {"X-User-Id": "user"}},
    "forward_headers": ["User-Agent", "Cookie"],
}
PIECES = [
    *(b"\r\n", b"\n", b"\r", b"\0", b"\t", b" ", b":", b";", b",", b"%", b"%2e", b"\\", b"\xff"),
    *(b"\r\n ", b"\r\n\r\n", b"Upgrade: websocket\r\n", b"Content-Length: 1\r\n", b"\xe2\x80\xa8"),
    *(b"Host: x\r\n", b"Connection: close\r\n", b"Transfer-Encoding: chunked\r\n", b"X_User_Id: a"),
    *(b"?token=", b"&", b"=", b"#", b"//", b"..", b"{", b'"', b"a" * 300, b"bearer, ", b"."),
]


def mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                del changed[at : at + rng.randint(1, 8)]
            case 2:
                changed[at:at] = rng.choice(PIECES)
            case _:
                changed[at:at] = changed[max(0, at - 40) : at]
    return bytes(changed)


def assert_no_error(running: Running) -> None:
    assert "internal_error" not in running.sidecar.metrics.render()[0].decode()


@pytest.mark.parametrize("seed", range(3))
async def test_a_mutated_request_is_refused_or_served(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    request = head(
        "/ws?a=1",
        "Origin: https://app.com",
        "Sec-WebSocket-Protocol: chat, other",
        "Cookie: a=b; c=d",
        "User-Agent: test",
        bearer(),
    )
    server = {"listen": ["127.0.0.1:0"], "handshake_timeout": "300ms"}
    policy = policy_of("ws://127.0.0.1:9", route=ROUTE, server=server)
    async with recording() as upstream:
        policy = policy.replace("ws://127.0.0.1:9", upstream.url)
        async with sidecar(policy, tmp_path) as running:
            for _ in range(120):
                async with raw(running.port) as client:
                    await client.send(mutated(request, rng))
                    client.writer.write_eof()
                    answer = await client.rest()
                    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
                    assert b" 500 " not in answer.partition(b"\r\n")[0]
            for seen in upstream.heads:
                lines = seen.decode("latin-1").split("\r\n")
                assert lines.count("X-User-Id: alice") == 1
                assert sum(line.lower().startswith("host:") for line in lines) == 1
                assert not any(line.lower().startswith("content-length") for line in lines)
            for _, writer in upstream.connections:
                writer.close()
            await running.until_idle()
            assert_no_error(running)
            await served(running, upstream)


@pytest.mark.parametrize("seed", range(3))
async def test_a_mutated_answer_is_refused_or_right(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)

    def answer(request: bytes) -> bytes:
        good = switching(request, "Server: x") + frame(TEXT, b"welcome", masked=False)
        return mutated(good, rng)

    server = {"listen": ["127.0.0.1:0"], "handshake_timeout": "300ms"}
    async with (
        recording(answer) as upstream,
        sidecar(policy_of(upstream.url, server=server), tmp_path) as running,
    ):
        for _ in range(60):
            async with raw(running.port) as client:
                await client.send(head("/ws", bearer()))
                first = await client.response()
                assert first.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 502 ", b"HTTP/1.1 504 "))
                assert b"Server: x" not in first
            upstream.connections[-1][1].close()
        await running.until_idle()
        assert_no_error(running)


@pytest.mark.parametrize("seed", range(3))
async def test_mutated_frames_end_the_connection_or_pass_as_they_are(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    good = (
        frame(TEXT, b"hello", fin=False)
        + frame(PING, b"x")
        + frame(0, b"world")
        + frame(BINARY, bytes(300))
        + close(1000, "bye")
    )
    async with recording() as upstream, sidecar(policy_of(upstream.url), tmp_path) as running:
        for index in range(60):
            sent = mutated(good, rng)
            async with raw(running.port) as client:
                await client.send(head("/ws", bearer()))
                await client.response()
                await client.send(sent)
                client.writer.write_eof()
                await upstream.until(lambda seen, index=index: len(seen.heads) > index)  # type: ignore[misc]
                with contextlib.suppress(TimeoutError):
                    await client.rest(0.02)
            upstream.connections[index][1].close()
        await running.until_idle()
        for got in upstream.received:
            assert len(got) <= 2000
        assert_no_error(running)
