"""The contract with aiohttp: what the handover relies on, part by part."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from sidecar.proxy.handover import (
    MAX_EARLY,
    Front,
    FrontServer,
    TakenOver,
    check_aiohttp,
    peer_of,
    take_transport,
    version_of,
)
from tests.support.clients import Raw, head, raw
from tests.support.sidecars import policy_of, sidecar

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
PLAIN = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Taken(asyncio.Protocol):
    """What takes the socket over: says so, and collects what it is told."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.received = b""
        self.lost = asyncio.get_running_loop().create_future()
        transport.write(b"taken")

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    async def until(self, size: int) -> bytes:
        async with asyncio.timeout(5):
            while len(self.received) < size:
                await asyncio.sleep(0.005)
        return self.received


def on_error(
    front: Front, request: web.BaseRequest, status: int, error: BaseException | None
) -> web.StreamResponse:
    response = web.Response(status=status, text=type(error).__name__)
    response.force_close()
    return response


@contextlib.asynccontextmanager
async def fronting(
    handler: Handler, *, head_timeout: float = 5, max_waiting: int = 10
) -> AsyncIterator[tuple[FrontServer, int]]:
    """A front on a port."""
    front = FrontServer(
        handler,
        on_error=on_error,
        on_reject=lambda _address, _denial: None,
        head_timeout=head_timeout,
        max_field=1000,
        max_waiting=max_waiting,
    )
    server = await asyncio.get_running_loop().create_server(front, "127.0.0.1", 0)
    try:
        yield front, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        front.pre_shutdown()
        await front.shutdown(1)
        await asyncio.sleep(0)


async def hello(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="hello")


@pytest.mark.parametrize("named", ["0.9", "1.0", "1.1", "2.0"])
async def test_every_answer_is_http_1_1_and_the_named_version_is_known(named: str) -> None:
    async def which(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="{}.{}".format(*version_of(request)))

    async with fronting(which) as (_, port), raw(port) as client:
        await client.send(f"GET / HTTP/{named}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(f"\r\n{named}".encode())


@pytest.mark.parametrize(
    "name",
    [
        "_payload_parser",
        "_message_tail",
        "_buffer_paused",
        "_pause_reading_for_buffer",
        "_manager",
        "_parser",
        "_upgraded",
    ],
)
def test_an_aiohttp_that_lacks_a_private_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    check_aiohttp()
    for base in RequestHandler.__mro__:
        if name in vars(base):
            monkeypatch.delattr(base, name)
    with pytest.raises(RuntimeError, match=name):
        check_aiohttp()


async def test_the_socket_is_handed_over_with_what_came_early() -> None:
    taken: list[Taken] = []

    def make(transport: asyncio.Transport) -> Taken:
        taken.append(Taken(transport))
        return taken[0]

    early = b""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal early
        early = take_transport(request, make)
        return TakenOver()

    async with fronting(handler) as (front, port), raw(port) as client:
        await client.send(head() + b"early")
        assert await client.exactly(5) == b"taken"
        assert early == b"early"
        await client.send(b"later")
        assert await taken[0].until(5) == b"later"
        taken[0].transport.write(b"answer")
        assert await client.exactly(6) == b"answer"
        assert front.connections == []
        client.writer.close()
        await asyncio.wait_for(taken[0].lost, 5)


async def test_aiohttp_lets_go_of_its_task_request_and_response() -> None:
    left: list[weakref.ref[Any]] = []
    taken: list[Taken] = []

    def make(transport: asyncio.Transport) -> Taken:
        taken.append(Taken(transport))
        return taken[0]

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        take_transport(request, make)
        response = TakenOver()
        tasks = asyncio.current_task(), request.task
        left.extend(weakref.ref(one) for one in (*tasks, request, response))
        return response

    # Those of earlier tests, whose tasks the loop may not have let go of.
    earlier = [one for one in gc.get_objects() if isinstance(one, Front)]
    async with fronting(handler) as (_, port), raw(port) as client:
        await client.send(head())
        await client.exactly(5)
        async with asyncio.timeout(5):
            while any(one() is not None for one in left):
                await asyncio.sleep(0.005)
                gc.collect()
        assert len(left) == 4
        fronts = [one for one in gc.get_objects() if isinstance(one, Front)]
        assert [one for one in fronts if one not in earlier] == []
        assert not taken[0].transport.is_closing()
        taken[0].transport.abort()


async def test_a_shutdown_of_aiohttp_leaves_the_socket_alone() -> None:
    taken: list[Taken] = []

    def make(transport: asyncio.Transport) -> Taken:
        taken.append(Taken(transport))
        return taken[0]

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        take_transport(request, make)
        return TakenOver()

    async with fronting(handler) as (front, port), raw(port) as client:
        await client.send(head())
        await client.exactly(5)
        front.pre_shutdown()
        await front.shutdown(1)
        await client.send(b"later")
        assert await taken[0].until(5) == b"later"
        taken[0].transport.abort()


@pytest.mark.parametrize("in_one_write", [True, False])
async def test_a_client_that_waits_is_not_read_beyond_a_bound(in_one_write: bool) -> None:
    offered = 4 * 2**20
    flooded = asyncio.Event()
    taken: list[Taken] = []
    early = b""

    def make(transport: asyncio.Transport) -> Taken:
        taken.append(Taken(transport))
        return taken[0]

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal early
        assert request.transport is not None
        async with asyncio.timeout(5):
            while request.transport.is_reading():
                await asyncio.sleep(0.005)
        flooded.set()
        early = take_transport(request, make)
        return TakenOver()

    async with fronting(handler) as (_, port), raw(port) as client:
        first = b"x" * 300_000 if in_one_write else b""
        await client.send(head() + first)
        sending = asyncio.create_task(client.send(b"x" * (offered - len(first))))
        await asyncio.wait_for(flooded.wait(), 5)
        await client.exactly(5)
        assert MAX_EARLY <= len(early) < MAX_EARLY + 256 * 1024
        await taken[0].until(offered - len(early))
        await sending
        taken[0].transport.abort()


async def test_the_socket_of_a_client_that_has_left_cannot_be_taken() -> None:
    outcome: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    here = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        here.set()
        async with asyncio.timeout(5):
            while request.transport is not None:
                await asyncio.sleep(0.005)
        try:
            take_transport(request, Taken)
        except ConnectionResetError as error:
            outcome.set_result(error)
            raise
        raise AssertionError

    async with fronting(handler) as (_, port), raw(port) as client:
        await client.send(head())
        await asyncio.wait_for(here.wait(), 5)
        client.writer.close()
        assert "left" in str(await asyncio.wait_for(outcome, 5))


async def test_a_socket_that_closes_cannot_be_taken() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        with pytest.raises(ConnectionResetError):
            take_transport(request, Taken)
        return TakenOver()

    async with fronting(handler) as (_, port), raw(port) as client:
        await client.send(head())
        assert await client.rest() == b""


@pytest.mark.parametrize("upgrade", ["h2c, websocket", "h2c"])
async def test_a_socket_whose_bytes_aiohttp_reads_as_http_cannot_be_taken(upgrade: str) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        take_transport(request, Taken)
        raise AssertionError

    async with fronting(handler) as (_, port), raw(port) as client:
        await client.send(head("/ws", f"Upgrade: {upgrade}", without=["Upgrade"]) + b"early")
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"taken" not in answer


async def test_too_many_sockets_without_a_request_are_cut() -> None:
    async with fronting(hello, max_waiting=2) as (front, port), raw(port), raw(port) as second:
        async with asyncio.timeout(5):
            while len(front.connections) < 2:
                await asyncio.sleep(0.005)
        async with raw(port) as third:
            assert await third.rest() == b""
        await second.send(PLAIN)
        assert (await second.response()).startswith(b"HTTP/1.1 200 ")


async def trickle(client: Raw, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        for byte in data:
            await client.send(bytes([byte]))
            await asyncio.sleep(0.02)


async def test_a_head_that_trickles_is_cut_in_time() -> None:
    async with fronting(hello, head_timeout=0.2) as (_, port), raw(port) as client:
        trickling = asyncio.create_task(trickle(client, b"GET / HTTP/1.1\r\nX: " + b"x" * 500))
        started = asyncio.get_running_loop().time()
        assert await client.rest() == b""
        assert asyncio.get_running_loop().time() - started >= 0.15
        trickling.cancel()
        await asyncio.wait([trickling])


async def test_a_head_that_grows_without_end_is_refused() -> None:
    async with fronting(hello) as (front, port), raw(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        with contextlib.suppress(ConnectionError):
            for number in range(front.max_head // 900 + 1):
                await client.send(f"X-{number}: ".encode() + b"x" * 900 + b"\r\n")
                await asyncio.sleep(0.001)
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")


async def test_a_socket_that_says_nothing_is_cut_in_time() -> None:
    async with fronting(hello, head_timeout=0.1) as (_, port), raw(port) as client:
        assert await client.rest() == b""


async def test_an_error_of_the_handler_is_answered_in_the_servers_form() -> None:
    async def fails(_: web.BaseRequest) -> web.StreamResponse:
        raise LookupError

    async with fronting(fails) as (_, port), raw(port) as client:
        await client.send(PLAIN)
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert answer.endswith(b"LookupError")


@pytest.mark.parametrize(
    "request_head",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /ws HTTP/9.9.9\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20000 + b"\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * 65 + b"\r\n",
        b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_cannot_be_parsed_is_answered_in_the_sidecars_form(
    tmp_path: Path, request_head: bytes
) -> None:
    policy = policy_of("ws://127.0.0.1:1")
    async with sidecar(policy, tmp_path) as running, raw(running.port) as client:
        await client.send(request_head)
        problem = await client.refusal()
        assert (problem["status"], problem["reason"]) == (400, "bad_handshake")
        assert "Connection: close" in problem["head"]
        assert "aiohttp" not in problem["head"]


async def peer(kind: str, folder: Path, proxied: str | None) -> tuple[str, bool]:
    """What a handler sees of its peer."""
    seen: asyncio.Future[tuple[str, bool]] = asyncio.get_running_loop().create_future()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        seen.set_result(peer_of(request))
        return web.Response()

    async with fronting(handler) as (front, port):
        if kind == "tcp":
            front_server = None
            streams = await asyncio.open_connection("127.0.0.1", port)
        else:
            path = str(folder / "front.sock")
            front_server = await asyncio.get_running_loop().create_unix_server(
                lambda: front(proxied), path
            )
            streams = await asyncio.open_unix_connection(path)
        client = Raw(*streams)
        await client.send(PLAIN)
        try:
            return await asyncio.wait_for(seen, 5)
        finally:
            await client.response()
            client.writer.close()
            await client.writer.wait_closed()
            if front_server is not None:
                front_server.close()


async def test_a_peer_is_known_by_its_address(tmp_path: Path) -> None:
    assert await peer("tcp", tmp_path, None) == ("127.0.0.1", False)
    assert await peer("unix", tmp_path, None) == ("unix", False)


async def test_a_peer_behind_a_proxy_is_known_by_the_address_that_was_told(tmp_path: Path) -> None:
    assert await peer("unix", tmp_path, "192.0.2.1") == ("192.0.2.1", False)
