"""Strangers whose socket is accepted before they have shown a token."""

import asyncio
import contextlib
import json
import socket
from pathlib import Path

from tests.support.clients import head, raw
from tests.support.first_messages import WELCOME, accepted, asking, auth, refusal
from tests.support.frames import CONTINUATION, PING, TEXT, frame
from tests.support.sidecars import sidecar, sidecar_process
from tests.support.tokens import token
from tests.support.upstreams import recording, switching

NOWHERE = "ws://127.0.0.1:9"


async def test_empty_fragments_without_end_are_refused(tmp_path: Path) -> None:
    async with sidecar(asking(tmp_path, NOWHERE), tmp_path) as s, accepted(s) as client:
        await client.send(frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 2000)
        assert await client.rest() == refusal(4429, "message_rate")


async def test_a_byte_now_and_then_does_not_put_off_the_end(tmp_path: Path) -> None:
    policy = asking(tmp_path, NOWHERE, {"timeout": "300ms"})
    async with sidecar(policy, tmp_path) as s, accepted(s) as client:

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                for byte in frame(TEXT, auth()):
                    await client.send(bytes([byte]))
                    await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert await client.rest() == refusal(4408, "auth_timeout")
        dripping.cancel()


async def test_a_client_that_pings_and_does_not_read_costs_little(tmp_path: Path) -> None:
    policy = asking(tmp_path, NOWHERE, route={"limits": {"control_frames": None}})
    pings = frame(PING, b"x" * 125) * 500
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    async with sidecar(policy, tmp_path) as s:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", s.port))
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(head("/ws"))
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        (waiting,) = s.sidecar._admission._first_messages._waiting
        full = 0
        async with asyncio.timeout(30):
            while full < 20:
                writer.write(pings)
                await writer.drain()
                await asyncio.sleep(0)
                unsent = waiting.transport.get_write_buffer_size()
                assert unsent < 4096 + 127
                full += unsent > 0
        writer.transport.abort()
        await s.until_idle()


async def test_a_stranger_that_does_not_read_its_refusal_is_cut(tmp_path: Path) -> None:
    async with sidecar(asking(tmp_path, NOWHERE), tmp_path) as s, accepted(s) as client:
        client.stop_reading()
        await client.send(frame(TEXT, b"hello"))
        await s.until_idle(10)


async def test_frames_behind_the_message_are_judged_as_any(tmp_path: Path) -> None:
    async with (
        recording(lambda _: None) as up,
        sidecar(asking(tmp_path, up.url), tmp_path) as s,
        accepted(s) as client,
    ):
        await client.send(frame(TEXT, auth()) + frame(TEXT, b"fine") + frame(TEXT, b"x", rsv=4))
        await up.until(lambda u: len(u.heads) == 1)
        await up.send(switching(up.heads[0]))
        assert await client.exactly(len(WELCOME)) == WELCOME
        assert (await client.rest())[2:4] == (1002).to_bytes(2, "big")
        fine = frame(TEXT, b"fine")
        await up.until(lambda u: len(u.forwarded) > len(fine))
        assert up.forwarded.startswith(fine + b"\x88")


async def test_no_token_is_in_the_logs(tmp_path: Path) -> None:
    good, old, forged = token(), token(ttl=-60), token(secret="x" * 64)
    messages = [
        *(auth(text) for text in (good, old, forged, "opaque-token-of-a-stranger")),
        json.dumps({"type": "hello", "data": {"token": good}}).encode(),
        json.dumps({"type": "auth", "data": {"token": [good]}}).encode(),
        good.encode(),
    ]
    pieces = [piece for text in (good, old, forged) for piece in text.split(".")]
    path = tmp_path / "policy.yaml"
    async with recording(lambda _: b"HTTP/1.1 403 Forbidden\r\n\r\n") as up:
        path.write_text(asking(tmp_path, up.url, logging={"level": "debug", "audit": {}}))
        async with sidecar_process("serve", "-c", str(path)) as process:
            await process.started()
            (line,) = [one for one in process.output.splitlines() if '"started"' in one]
            port = int(json.loads(line)["listen"][0].rpartition(":")[2])
            told = b""
            for message in messages:
                async with raw(port) as client:
                    await client.send(head("/ws") + frame(TEXT, message))
                    told += await client.rest()
            process.process.terminate()
            await process.ended()
    assert process.output.count('"refused"') == len(messages)
    everything = process.output + told.decode("latin-1") + b"".join(up.heads).decode("latin-1")
    assert [piece for piece in (*pieces, "opaque-token") if piece in everything] == []
