"""Clients and upstreams that do not read, do not write, or leave in the middle."""

import asyncio
import contextlib
import datetime
import gc
import itertools
import socket
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from sidecar.proxy.relay import Link
from tests.support import frames
from tests.support.attacks import bearer, served
from tests.support.clients import head, raw
from tests.support.frames import TEXT, close, frame
from tests.support.sidecars import Running, policy_of, sidecar
from tests.support.upstreams import recording, switching

BOUND = 512 * 1024
"""Bytes that a stalled connection may cost in one direction: a read, and what is under way."""


def small_send_buffers(running: Running) -> None:
    """Accepted sockets inherit the option: little fits into the kernel, as over a real network."""
    for place in running.sidecar._public._listeners._places:
        for sock in place.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def only_link(running: Running) -> Link:
    (link,) = running.sidecar.connections
    return link


def kept(identifier: str) -> bool:
    """Whether anything still holds the connection."""
    gc.collect()
    return any(type(each) is Link and each.identifier == identifier for each in gc.get_objects())


async def settled(link: Link) -> tuple[int, int]:
    """The bytes that both directions hold, once they do not change any more."""
    last = (-1, -1)
    async with asyncio.timeout(10):
        while True:
            now = (
                link.client.transport.get_write_buffer_size(),
                link.upstream.transport.get_write_buffer_size(),
            )
            if now == last:
                return now
            last = now
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("early", [0, 100_000])
async def test_a_client_that_does_not_read_holds_little_memory(tmp_path: Path, early: int) -> None:
    message = frame(TEXT, bytes(60_000), masked=False)

    def answer(request: bytes) -> bytes:
        return switching(request) + (frame(TEXT, bytes(early), masked=False) if early else b"")

    async with (
        recording(answer) as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
    ):
        small_send_buffers(running)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", running.port))
        await loop.sock_sendall(sock, head("/ws", bearer()))
        await upstream.until(lambda seen: len(seen.heads) == 1)
        upstream.connections[0][1].write(message * 600)  # 36 MB
        async with asyncio.timeout(5):
            while not len(running.sidecar.connections):
                await asyncio.sleep(0.01)
        held, _ = await settled(only_link(running))
        assert 0 < held <= BOUND
        sock.close()
        upstream.connections[0][1].transport.abort()
        await running.until_idle(15)


async def test_an_upstream_that_does_not_read_holds_little_memory(tmp_path: Path) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer()))
        await client.response()
        upstream.reading.clear()
        client.writer.write(frame(TEXT, bytes(60_000)) * 600)
        _, held = await settled(only_link(running))
        assert held <= BOUND
        client.writer.transport.abort()
        upstream.connections[0][1].transport.abort()
        await running.until_idle(15)


async def test_a_stalled_client_does_not_outlive_the_end_of_its_connection(tmp_path: Path) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        small_send_buffers(running)
        await client.send(head("/ws", bearer()))
        await client.response()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        upstream.connections[0][1].write(frame(TEXT, bytes(60_000), masked=False) * 600)
        await settled(only_link(running))
        await client.send(frame(TEXT, b"x", masked=False))
        await running.until_idle(15)


TIMEOUT: dict[str, Any] = {"listen": ["127.0.0.1:0"], "handshake_timeout": "500ms"}


@pytest.mark.parametrize(
    "start", [b"", b"G", b"GET /ws HTTP/1.1\r\n", head("/ws")[:-2], b"\r\n", b"GET /ws"]
)
async def test_a_request_head_that_does_not_come_is_not_waited_for(
    tmp_path: Path, start: bytes
) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, server=TIMEOUT), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(start)
        await client.rest()
        await served(running, upstream)


async def test_a_byte_now_and_then_does_not_prolong_the_deadline(tmp_path: Path) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, server=TIMEOUT), tmp_path) as running,
        raw(running.port) as client,
    ):
        request, sent = head("/ws", bearer()), 0
        with contextlib.suppress(ConnectionError):
            while sent < len(request) and not client.reader.at_eof():
                await client.send(request[sent : sent + 1])
                sent += 1
                await asyncio.sleep(0.02)
        assert sent < len(request)
        assert upstream.heads == []


async def test_an_upstream_that_never_answers_is_not_waited_for(tmp_path: Path) -> None:
    async with (
        recording(lambda _: None) as upstream,
        sidecar(policy_of(upstream.url, server=TIMEOUT), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer()))
        problem = await client.refusal()
        assert problem["reason"] == "upstream_timeout"
        assert problem["status"] == 504
        await upstream.until(lambda seen: seen.eof + seen.lost == 1)
        assert not running.sidecar.connections.places_taken


async def test_clients_that_leave_while_the_upstream_thinks_leave_nothing_behind(
    tmp_path: Path,
) -> None:
    async with (
        recording(lambda _: None) as upstream,
        sidecar(policy_of(upstream.url, server=TIMEOUT), tmp_path) as running,
    ):
        for _ in range(20):
            async with raw(running.port) as client:
                await client.send(head("/ws", bearer()) + frames.frame(TEXT, b"early"))
        await running.until_idle()
        await upstream.until(lambda seen: seen.eof + seen.lost == 20)
        assert all(not received for received in upstream.received)


@pytest.mark.parametrize("refuse", [{"with": "close"}, {"with": "http"}])
async def test_a_client_that_leaves_before_its_refusal_is_no_error_of_the_sidecar(
    tmp_path: Path, refuse: dict[str, Any]
) -> None:
    async with (
        recording(lambda _: None) as upstream,
        sidecar(
            policy_of(upstream.url, route={"refuse": refuse}, server=TIMEOUT), tmp_path
        ) as running,
    ):
        for _ in range(5):
            async with raw(running.port) as client:
                await client.send(head("/ws", bearer()))
                await upstream.until(lambda seen: len(seen.heads) > 0)
        await running.until_idle()
        metrics = running.sidecar.metrics.render()[0].decode()
        assert "internal_error" not in metrics


async def test_sockets_over_the_limit_are_turned_away_and_the_rest_is_served(
    tmp_path: Path,
) -> None:
    server = {"listen": ["127.0.0.1:0"], "max_connections": 3}
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, server=server), tmp_path) as running,
    ):
        async with raw(running.port) as one, raw(running.port) as two, raw(running.port) as three:
            for client in (one, two, three):
                await client.send(head("/ws", bearer()))
                await client.response()
            async with raw(running.port) as fourth:
                await fourth.send(head("/ws", bearer()))
                problem = await fourth.refusal()
                assert problem["reason"] == "overloaded"
                assert "Retry-After" in problem["head"]
            assert len(upstream.heads) == 3
            for client in (one, two, three):
                await client.send(close(1000))
            for _, writer in upstream.connections:
                writer.close()
        await running.until_idle()
        await served(running, upstream)


@pytest.mark.parametrize(
    "limits",
    [
        {"messages": {"rate": "1/hour", "on_exceed": "delay"}},
        {"bytes": {"rate": "100B/hour", "on_exceed": "delay"}},
    ],
)
async def test_a_delayed_connection_that_has_ended_is_forgotten(
    tmp_path: Path, limits: dict[str, Any]
) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route={"limits": limits}), tmp_path) as running,
    ):
        async with raw(running.port) as client:
            await client.send(head("/ws", bearer()))
            await client.response()
            await client.send(frame(TEXT, bytes(100)) * 100)
            await upstream.until(lambda seen: len(seen.forwarded) > 0)
            identifier = only_link(running).identifier
        upstream.connections[0][1].transport.abort()
        await running.until_idle(15)
        # nothing may hold what the client had sent until the delay is over, an hour later
        async with asyncio.timeout(5):
            while kept(identifier):
                await asyncio.sleep(0.01)


def tls_files(folder: Path) -> dict[str, str]:
    """A certificate that nobody trusts, and its key."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(1).not_valid_before(start)
    certificate = builder.not_valid_after(start + datetime.timedelta(days=9)).sign(key, SHA256())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "tls.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "tls.key").write_bytes(pem)
    return {"certificate": str(folder / "tls.crt"), "key": str(folder / "tls.key")}


@pytest.mark.parametrize("tls", [False, True])
async def test_silent_sockets_are_bounded_before_and_after_tls(tmp_path: Path, tls: bool) -> None:
    server: dict[str, Any] = {"listen": ["127.0.0.1:0"], "max_connections": 5}
    server["handshake_timeout"] = "1m"
    if tls:
        server["tls"] = tls_files(tmp_path)
    async with (
        sidecar(policy_of("ws://127.0.0.1:9", server=server), tmp_path) as running,
        contextlib.AsyncExitStack() as stack,
    ):
        count = running.sidecar._public._front.max_waiting + 25
        clients = [await stack.enter_async_context(raw(running.port)) for _ in range(count)]
        ends = [asyncio.create_task(client.rest(60)) for client in clients]
        async with asyncio.timeout(5):
            for end in itertools.islice(asyncio.as_completed(ends), 20):
                assert await end == b""
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


async def test_refused_clients_that_are_held_do_not_delay_the_end_of_the_program(
    tmp_path: Path,
) -> None:
    route = {"refuse": {"with": "close", "hold": "1m"}}
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=route), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws"))
        assert (await client.response()).startswith(b"HTTP/1.1 101 ")
        running.sidecar.drain()
        async with asyncio.timeout(10):  # the close timeout, not the hold or the grace of 30 s
            await running.sidecar.drained()
        assert upstream.heads == []
