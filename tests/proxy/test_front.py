"""An accepted socket: its head, its deadline, its answer, and how it is handed over."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import HandshakeError
from sidecar.model import Denial, Reason
from sidecar.proxy.front import MAX_EARLY, MAX_HEADERS, Front, FrontServer, RequestHead, _HeadParser
from sidecar.proxy.refusals import HttpRefusal
from sidecar.wire.handshake import parse_request
from tests.support.clients import Raw, head, raw
from tests.support.sidecars import policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import fields, recording

Handler = Callable[[Front, RequestHead], Awaitable[HttpRefusal | None]]
PLAIN = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
MAX_FIELD = 1000


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
        await eventually(lambda: len(self.received) >= size)
        return self.received


class Taker:
    """A handler that takes every socket over: `taken` by whom, and `early` what came before."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self.early = b""

    def make(self, transport: asyncio.Transport) -> Taken:
        self.taken.append(Taken(transport))
        return self.taken[-1]

    async def __call__(self, front: Front, _: RequestHead) -> None:
        self.early = front.hand_over(self.make)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def on_error(_: Front, error: Exception) -> HttpRefusal:
    return HttpRefusal(500, {}, type(error).__name__.encode())


@contextlib.asynccontextmanager
async def fronting(
    handler: Handler,
    *,
    head_timeout: float = 5,
    max_waiting: int = 10,
    rejected: Callable[[str, Denial], None] = lambda _address, _denial: None,
) -> AsyncIterator[tuple[FrontServer, int]]:
    """A front on a port."""
    front = FrontServer(
        handler,
        on_error=on_error,
        on_reject=rejected,
        head_timeout=head_timeout,
        max_field=MAX_FIELD,
        max_waiting=max_waiting,
    )
    server = await asyncio.get_running_loop().create_server(front, "127.0.0.1", 0)
    try:
        yield front, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await front.close()
        await asyncio.sleep(0)


async def hello(_: Front, __: RequestHead) -> HttpRefusal:
    return HttpRefusal(200, {"X-Name": "x"}, b"hello")


async def told(_: Front, request: RequestHead) -> HttpRefusal:
    """Answers with what the parser made of the head."""
    parts = (request.method, request.target, request.version, request.upgrades, request.error)
    return HttpRefusal(200, {}, " ".join(map(str, parts)).encode())


async def answer(request: bytes, handler: Handler = told) -> tuple[bytes, bytes]:
    """The head and the body of the answer to these bytes."""
    async with fronting(handler) as (_, port), raw(port) as client:
        await client.send(request)
        start, _, body = (await client.rest()).partition(b"\r\n\r\n")
        return start, body


@pytest.mark.parametrize("named", ["0.9", "1.0", "1.1", "2.0"])
async def test_every_answer_is_http_1_1_and_the_named_version_is_known(named: str) -> None:
    start, body = await answer(f"GET / HTTP/{named}\r\nHost: x\r\n\r\n".encode())
    assert start.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == f"GET / {named} False None".encode()


async def test_an_answer_says_how_long_it_is_when_it_was_made_and_that_it_is_the_last() -> None:
    start, body = await answer(PLAIN, hello)
    found = fields(start)
    assert body == b"hello"
    assert parsedate_to_datetime(found.pop("date")).tzinfo is not None
    assert found == {"x-name": "x", "content-length": "5", "connection": "close"}


async def test_the_answer_to_a_head_request_has_no_body_but_its_length() -> None:
    start, body = await answer(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", hello)
    assert fields(start)["content-length"] == "5"
    assert body == b""


async def test_a_head_may_come_byte_by_byte() -> None:
    request = head("/ws?a=b", "X-Name: caf\xe9")
    seen: list[RequestHead] = []

    async def handler(_: Front, request: RequestHead) -> HttpRefusal:
        seen.append(request)
        return HttpRefusal(200, {}, b"")

    async with fronting(handler) as (_, port):
        for data in ([request[n : n + 1] for n in range(len(request))], [request]):
            async with raw(port) as client:
                for piece in data:
                    await client.send(piece)
                    await asyncio.sleep(0)
                await client.response()
    in_pieces, at_once = seen
    assert in_pieces == at_once
    assert at_once.upgrades
    assert (at_once.method, at_once.target, at_once.version) == ("GET", "/ws?a=b", "1.1")
    assert at_once.headers[-1] == (b"X-Name", b"caf\xe9")


@pytest.mark.parametrize(
    "second",
    [
        b"HEAD /other HTTP/1.0\r\n\r\n",
        head("/other", method="POST"),
        b"\x16\x03\x01",
        b"GET /" + b"x" * 2 * MAX_FIELD,
    ],
    ids=["whole", "upgrade", "garbage", "too long"],
)
async def test_a_second_request_is_not_looked_at(second: bytes) -> None:
    expected = b"GET / 1.1 False None"
    for first in (PLAIN, PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")):
        assert (await answer(first + second))[1] == expected


async def test_a_body_and_what_stands_behind_it_are_not_looked_at() -> None:
    chunked = b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    trailers = b"0\r\nX-Trailer: x\r\n\r\n"
    assert (await answer(chunked + trailers))[1] == b"GET / 1.1 False None"
    assert (await answer(chunked + b"x\r\n"))[1] == b"GET / 1.1 False None"


async def test_a_tunnel_is_taken_for_an_upgrade_and_refused(tmp_path: Path) -> None:
    connect = b"CONNECT chat.example.com:443 HTTP/1.1\r\nHost: chat.example.com\r\n\r\n"
    assert (await answer(connect))[1] == b"CONNECT chat.example.com:443 1.1 True None"
    async with sidecar(policy_of("ws://127.0.0.1:1"), tmp_path) as running:
        for request in (connect, head("/ws", method="CONNECT")):
            async with raw(running.port) as client:
                await client.send(request + b"early")
                assert (await client.refusal())["reason"] == "bad_handshake"


async def test_an_upgrade_that_the_parser_does_not_see_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = _HeadParser.feed

    def blind(self: _HeadParser, data: bytes) -> None:
        feed(self, data)

    monkeypatch.setattr(_HeadParser, "feed", blind)
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        bearer = "Authorization: Bearer " + token()
        await client.send(head("/ws", bearer) + b"early")
        assert (await client.refusal())["reason"] == "bad_handshake"
        assert upstream.heads == []


LINES = st.sampled_from(
    [
        *("Upgrade: websocket", "Upgrade: h2c", "Content-Length: 0", "Proxy-Connection: Upgrade"),
        *("Connection: keep-alive", "Connection: close", "Connection: \xa0Upgrade"),
    ]
) | st.text("upgrade, \tx;", max_size=12).map("Connection: ".__add__)


@given(st.lists(LINES, max_size=4))
def test_what_the_handshakes_check_takes_for_an_upgrade_the_parser_does_too(
    lines: list[str],
) -> None:
    parser = _HeadParser(MAX_FIELD)
    request = head("/ws", "Connection: Upgrade", *lines, without=["Connection"])
    try:
        upgrade = parser.feed(request + b"early")
    except httptools.HttpParserError:
        return
    try:
        parse_request("GET", "/ws", "1.1", parser.headers)
    except HandshakeError:
        return
    assert upgrade == len(request)


async def test_the_socket_is_handed_over_with_what_came_early() -> None:
    taker = Taker()
    async with fronting(taker) as (front, port), raw(port) as client:
        await client.send(head() + b"early")
        assert await client.exactly(5) == b"taken"
        assert taker.early == b"early"
        await client.send(b"later")
        assert await taker.taken[0].until(5) == b"later"
        taker.taken[0].transport.write(b"answer")
        assert await client.exactly(6) == b"answer"
        assert len(front) == 0
        client.writer.close()
        await asyncio.wait_for(taker.taken[0].lost, 5)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("taken", [True, False])
async def test_no_cycle_keeps_a_decided_handshake_alive(taken: bool) -> None:
    kinds = (Front, _HeadParser, httptools.HttpRequestParser, RequestHead)
    earlier = [one for one in gc.get_objects() if type(one) in kinds]
    tasks: list[weakref.ref[Any]] = []
    taker = Taker()

    async def handler(front: Front, request: RequestHead) -> HttpRefusal | None:
        tasks.append(weakref.ref(front.task))
        if not taken:
            return await hello(front, request)
        await taker(front, request)
        return None

    def left() -> list[Any]:
        found = [one for one in gc.get_objects() if type(one) in kinds]
        return [one for one in found if not any(one is other for other in earlier)]

    async with fronting(handler) as (server, port), raw(port) as client:
        await client.send(head() + b"early")
        await (client.exactly(5) if taken else client.rest())
        await eventually(lambda: tasks[0]() is None)
        await eventually(lambda: not left())
        assert len(server) == 0
        for one in taker.taken:
            assert not one.transport.is_closing()
            one.transport.abort()


async def test_the_end_of_the_server_leaves_a_socket_alone_that_was_taken() -> None:
    taker = Taker()
    async with fronting(taker) as (front, port), raw(port) as client:
        await client.send(head())
        await client.exactly(5)
        await front.close()
        await client.send(b"later")
        assert await taker.taken[0].until(5) == b"later"
        taker.taken[0].transport.abort()


async def test_the_end_of_the_server_ends_every_handshake_under_way() -> None:
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def waits(_: Front, __: RequestHead) -> HttpRefusal:
        begun.set()
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 5)
        except asyncio.CancelledError:
            ended.set()
            raise
        raise AssertionError

    async with fronting(waits) as (front, port), raw(port) as silent, raw(port) as client:
        await client.send(PLAIN)
        await asyncio.wait_for(begun.wait(), 5)
        await eventually(lambda: len(front) == 2)
        await front.close()
        assert ended.is_set()
        assert len(front) == 0
        assert await client.rest() == b""
        assert await silent.rest() == b""


@pytest.mark.parametrize("in_one_write", [True, False])
async def test_a_client_that_waits_is_not_read_beyond_a_bound(in_one_write: bool) -> None:
    offered = 4 * 2**20
    flooded = asyncio.Event()
    taker = Taker()

    async def handler(front: Front, request: RequestHead) -> None:
        await eventually(lambda: not front.transport.is_reading())
        flooded.set()
        await taker(front, request)

    async with fronting(handler) as (_, port), raw(port) as client:
        first = b"x" * 300_000 if in_one_write else b""
        await client.send(head() + first)
        sending = asyncio.create_task(client.send(b"x" * (offered - len(first))))
        await asyncio.wait_for(flooded.wait(), 5)
        await client.exactly(5)
        assert MAX_EARLY <= len(taker.early) < MAX_EARLY + 256 * 1024
        await taker.taken[0].until(offered - len(taker.early))
        await sending
        taker.taken[0].transport.abort()


async def test_nothing_is_awaited_for_a_client_that_has_left() -> None:
    here = asyncio.Event()
    ended = asyncio.Event()

    async def handler(front: Front, _: RequestHead) -> None:
        here.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            assert front.transport.is_closing()
            ended.set()
            raise

    async with fronting(handler) as (front, port), raw(port) as client:
        await client.send(head())
        await asyncio.wait_for(here.wait(), 5)
        client.writer.close()
        await asyncio.wait_for(ended.wait(), 5)
        assert len(front) == 0


async def test_a_client_that_leaves_behind_its_head_is_still_decided_upon() -> None:
    decided: list[str] = []

    async def handler(_: Front, request: RequestHead) -> HttpRefusal:
        decided.append(request.target)
        await asyncio.sleep(0)
        return HttpRefusal(400, {}, b"")

    async with fronting(handler) as (server, port), raw(port) as client:
        received = Front.data_received

        def receive_and_lose(front: Front, data: bytes) -> None:
            received(front, data)
            front.transport.abort()
            front.connection_lost(None)  # before the task has begun

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Front, "data_received", receive_and_lose)
            await client.send(head("/there"))
            await eventually(lambda: decided == ["/there"])
        assert len(server) == 0


async def test_a_socket_that_closes_cannot_be_taken() -> None:
    async def handler(front: Front, _: RequestHead) -> HttpRefusal:
        front.transport.close()
        with pytest.raises(ConnectionResetError):
            front.hand_over(Taken)
        return HttpRefusal(400, {}, b"")

    async with fronting(handler) as (front, port), raw(port) as client:
        await client.send(head())
        assert await client.rest() == b""
        await eventually(lambda: len(front) == 0)


async def test_too_many_sockets_without_a_request_are_cut_and_told_of() -> None:
    told_of: list[tuple[str, Denial]] = []

    def rejected(address: str, denial: Denial) -> None:
        told_of.append((address, denial))

    async with (
        fronting(hello, max_waiting=2, rejected=rejected) as (front, port),
        raw(port),
        raw(port) as second,
    ):
        await eventually(lambda: len(front) == 2)
        async with raw(port) as third:
            assert await third.rest() == b""
        await second.send(PLAIN)
        assert (await second.response()).startswith(b"HTTP/1.1 200 ")
        await eventually(lambda: len(front) == 1)
        async with raw(port) as fourth:
            await fourth.send(PLAIN)
            assert (await fourth.response()).startswith(b"HTTP/1.1 200 ")
    detail = "too many sockets wait for their handshake"
    assert told_of == [("127.0.0.1", Denial(Reason.OVERLOADED, detail))]


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


async def test_a_socket_that_says_nothing_is_cut_in_time() -> None:
    async with fronting(hello, head_timeout=0.1) as (front, port):
        for _ in range(2):
            async with raw(port) as client:
                assert await client.rest() == b""
                await eventually(lambda: len(front) == 0)


async def test_the_deadline_of_one_socket_does_not_cut_a_younger_one() -> None:
    async with fronting(hello, head_timeout=0.4) as (front, port), raw(port) as elder:
        await eventually(lambda: len(front) == 1)
        await asyncio.sleep(0.2)
        async with raw(port) as younger:
            await eventually(lambda: len(front) == 2)
            assert await elder.rest() == b""
            await eventually(lambda: len(front) == 1)
            (left,) = front.fronts
            assert not left.transport.is_closing()
            assert await younger.rest() == b""


async def test_a_request_that_is_being_decided_has_no_deadline_of_its_head() -> None:
    go_on = asyncio.Event()

    async def waits(front: Front, request: RequestHead) -> HttpRefusal:
        await asyncio.wait_for(go_on.wait(), 5)
        return await hello(front, request)

    async with fronting(waits, head_timeout=0.1) as (_, port), raw(port) as client:
        await client.send(PLAIN)
        async with raw(port) as late:
            assert await late.rest() == b""
        go_on.set()
        assert (await client.response()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"X: " + b"x" * MAX_FIELD, "a header is too long"),
        (b"\r\n".join([b"X: x"] * MAX_HEADERS), "too many headers"),
        (b"X x", "HttpParserError"),
    ],
)
async def test_a_header_beyond_the_limits_ends_the_reading(line: bytes, why: str) -> None:
    start = b"GET /ws HTTP/1.1\r\nHost: x\r\n"
    _, body = await answer(start + line + b"\r\n\r\n")
    assert body == f"GET /ws 1.1 False {why}".encode()


async def test_a_target_beyond_the_limit_ends_the_reading() -> None:
    async def handler(_: Front, request: RequestHead) -> HttpRefusal:
        return HttpRefusal(200, {}, str(request.error).encode())

    for size, why in ((MAX_FIELD, "None"), (MAX_FIELD + 1, "the request target is too long")):
        target = b"/".ljust(size, b"x")
        request = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n"
        assert (await answer(request, handler))[1] == why.encode()


async def test_a_head_that_grows_without_end_is_refused() -> None:
    async def handler(_: Front, request: RequestHead) -> HttpRefusal:
        return HttpRefusal(400, {}, str(request.error).encode())

    async with fronting(handler) as (front, port), raw(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        with contextlib.suppress(ConnectionError):
            for number in range(front.max_head // 900 + 1):
                await client.send(f"X-{number}: ".encode() + b"x" * 900 + b"\r\n")
                await asyncio.sleep(0.001)
        assert (await client.rest()).endswith(b"\r\n\r\nthe request head is too large")


async def test_what_comes_early_does_not_count_as_head() -> None:
    async with fronting(told) as (front, port), raw(port) as client:
        await client.send(head() + bytes(front.max_head))
        assert (await client.rest()).endswith(b"GET /ws 1.1 True None")


async def test_an_error_of_the_handler_is_answered_in_the_servers_form() -> None:
    async def fails(_: Front, __: RequestHead) -> HttpRefusal:
        raise LookupError

    start, body = await answer(PLAIN, fails)
    assert start.startswith(b"HTTP/1.1 500 ")
    assert body == b"LookupError"


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
        assert "httptools" not in problem["head"]


async def peer(kind: str, folder: Path, proxied: str | None) -> tuple[str, bool]:
    """What a handler sees of its peer."""
    seen: asyncio.Future[tuple[str, bool]] = asyncio.get_running_loop().create_future()

    async def handler(front: Front, _: RequestHead) -> HttpRefusal:
        seen.set_result((front.address, front.secure))
        return HttpRefusal(200, {}, b"")

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


async def test_a_shorter_time_for_the_head_holds_for_those_who_wait() -> None:
    async with fronting(hello, head_timeout=60) as (front, port), raw(port) as client:
        await eventually(lambda: len(front) == 1)
        front.adopt(head_timeout=0.05, max_field=MAX_FIELD)
        assert await client.rest() == b""
        assert len(front) == 0


async def test_a_longer_time_for_the_head_holds_for_those_who_wait() -> None:
    async with fronting(hello, head_timeout=1) as (front, port), raw(port) as client:
        await eventually(lambda: len(front) == 1)
        front.adopt(head_timeout=60, max_field=MAX_FIELD)
        assert front._timer is not None
        assert front._timer.when() > asyncio.get_running_loop().time() + 30
        await client.send(head("/ws"))
        assert (await client.rest()).endswith(b"hello")


async def test_without_anybody_who_waits_another_time_for_the_head_starts_no_timer() -> None:
    async with fronting(hello) as (front, _):
        front.adopt(head_timeout=60, max_field=MAX_FIELD)
        assert front._timer is None


async def test_other_sizes_of_a_head_hold_for_those_who_come() -> None:
    async with fronting(told) as (front, port):
        front.adopt(head_timeout=5, max_field=50)
        async with raw(port) as client:
            await client.send(head("/" + "x" * 60))
            assert b"the request target is too long" in await client.rest()
