import asyncio
import contextlib
import errno
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from sidecar.errors import UpstreamError
from sidecar.model import Permit, Reason
from sidecar.policy.compiled import Address, Upstream, UpstreamTls
from sidecar.proxy import upstream
from sidecar.proxy.upstream import MAX_HEAD, Dialled, dial
from sidecar.wire.handshake import accept_key
from tests.support.certificates import Authority, authority
from tests.support.clients import KEY, head
from tests.support.pairs import bare_server
from tests.support.upstreams import switching

Answer = Callable[[bytes], bytes]
REQUEST = head("/ws", "Sec-WebSocket-Protocol: chat")
PERMIT = Permit("main", "main", REQUEST, KEY, ("chat",), None, None)


def at(
    port: int, *, timeout: float = 5, tls: UpstreamTls | None = None, remote: bool = False
) -> Upstream:
    address = Address("127.0.0.1", port)
    tls = tls or UpstreamTls()
    return Upstream("main", address, connect_timeout=timeout, tls=tls, remote=remote)


async def dialled_to(
    server: Upstream, tls: ssl.SSLContext | None = None, *, timeout: float = 5
) -> Dialled:
    """Dial with a deadline that is `timeout` seconds away."""
    return await dial(PERMIT, server, tls, asyncio.get_running_loop().time() + timeout)


@contextlib.asynccontextmanager
async def answering(
    answer: Answer, *, hang_up: bool = False, remote: bool = False
) -> AsyncIterator[Upstream]:
    """An upstream that gives one answer, and checks that it is left with its first connection."""

    async def serve() -> None:
        reader, writer = await accepted.get()
        writer.write(answer(await reader.readuntil(b"\r\n\r\n")))
        if hang_up:
            writer.close()

    async with bare_server() as (port, accepted):
        serving = asyncio.create_task(serve())
        yield at(port, remote=remote)
        await serving
        assert accepted.empty()


async def refusal(answer: Answer, *, hang_up: bool = False) -> str:
    """Why an answer is refused."""
    async with answering(answer, hang_up=hang_up) as server:
        with pytest.raises(UpstreamError) as raised:
            await dialled_to(server)
    assert raised.value.reason is Reason.UPSTREAM_REFUSED
    return raised.value.detail


def changed(old: str, new: str) -> Answer:
    """The right answer with one thing wrong."""

    def answer(request: bytes) -> bytes:
        right = switching(request)
        assert old.encode() in right
        return right.replace(old.encode(), new.encode())

    return answer


def plain(status: str, *lines: str) -> Answer:
    text = "\r\n".join([f"HTTP/1.1 {status}", "Content-Length: 0", *lines]) + "\r\n\r\n"
    return lambda _: text.encode()


async def test_an_upgraded_socket_comes_with_what_the_upstream_chose_and_sent() -> None:
    def answer(request: bytes) -> bytes:
        assert request == REQUEST
        return switching(request, "Sec-WebSocket-Protocol: chat") + b"early"

    async with answering(answer) as server:
        dialled = await dialled_to(server)
        assert (dialled.subprotocol, bytes(dialled.early)) == ("chat", b"early")
        assert dialled.accept == accept_key(KEY)
        assert not dialled.transport.is_closing()
        dialled.transport.abort()


@pytest.mark.parametrize("in_one_write", [True, False])
async def test_what_comes_before_the_socket_is_taken_is_kept_up_to_one_read(
    in_one_write: bool,
) -> None:
    offered = 4 * 2**20
    early = bytes(1000)
    async with bare_server() as (port, accepted):
        dialling = asyncio.create_task(dialled_to(at(port)))
        reader, writer = await accepted.get()
        answer = switching(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer + early if in_one_write else answer)
        dialled = await asyncio.wait_for(dialling, 5)
        writer.write(b"x" * offered)
        await eventually(lambda: not dialled.transport.is_reading())
        kept = len(dialled.early)
        assert 0 < kept <= len(early) + 256 * 1024
        taken = Taken()
        dialled.transport.set_protocol(taken)
        dialled.transport.resume_reading()
        await eventually(lambda: len(dialled.early) + taken.size >= offered)
        assert len(dialled.early) == kept
        assert kept + taken.size == offered + (len(early) if in_one_write else 0)
        dialled.transport.abort()


class Taken(asyncio.Protocol):
    """Counts what comes."""

    def __init__(self) -> None:
        self.size = 0

    def data_received(self, data: bytes) -> None:
        self.size += len(data)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("remote", [True, False])
async def test_the_kernel_is_asked_to_notice_a_dead_upstream_on_another_host(
    remote: bool,
) -> None:
    async with answering(switching, remote=remote) as server:
        dialled = await dialled_to(server)
        sock = dialled.transport.get_extra_info("socket")
        assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) == remote
        dialled.transport.abort()


async def test_an_answer_may_come_byte_by_byte() -> None:
    async with bare_server() as (port, accepted):
        dialling = asyncio.create_task(dialled_to(at(port)))
        reader, writer = await accepted.get()
        for byte in switching(await reader.readuntil(b"\r\n\r\n")):
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        dialled = await asyncio.wait_for(dialling, 5)
        assert dialled == Dialled(dialled.transport, accept_key(KEY), None, bytearray())
        dialled.transport.abort()


@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "426 Upgrade Required"])
async def test_an_answer_other_than_101_is_refused(status: str) -> None:
    answer = plain(status, "Upgrade: websocket", "Connection: Upgrade")
    assert await refusal(answer) == f"answered {status[:3]}"


async def test_a_redirect_is_not_followed() -> None:
    async with bare_server() as (canary, visitors):
        location = f"Location: ws://127.0.0.1:{canary}/ws"
        assert await refusal(plain("302 Found", location)) == "answered 302"
        assert visitors.empty()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("Upgrade: websocket\r\n", "", "not an HTTP response"),
        ("Upgrade: websocket", "Upgrade: h2c", "Upgrade is not websocket"),
        ("Connection: Upgrade\r\n", "", "not an HTTP response"),
        ("Connection: Upgrade", "Connection: close", "not an HTTP response"),
        ("HTTP/1.1 101", "HTTP/1.1 102", "answered 102"),
        ("Sec-WebSocket-Accept: ", "X-Accept: ", "Sec-WebSocket-Accept is missing"),
        ("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x", "does not fit the key"),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: other\r\n\r\n", "a subprotocol that was not"),
        ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n", "an extension that was not"),
        ("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\n", "Content-Length in a 101"),
        ("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding in a 101"),
        ("HTTP/1.1 101", "HTTP/1.0 101", "not HTTP/1.1"),
        ("HTTP/1.1 101", "HTTP/1.1 10x", "not an HTTP response"),
        ("\r\n\r\n", "\r\nbad header\r\n\r\n", "not an HTTP response"),
    ],
)
async def test_a_101_that_is_not_right_is_refused(old: str, new: str, why: str) -> None:
    assert why in await refusal(changed(old, new))


async def test_garbage_is_refused() -> None:
    assert "not an HTTP response" in await refusal(lambda _: b"SSH-2.0-OpenSSH_9.2\r\n")


@pytest.mark.parametrize("first", ["204 No Content", "100 Continue", "304 Not Modified"])
async def test_a_101_behind_another_answer_is_refused(first: str) -> None:
    answer = await refusal(
        lambda request: f"HTTP/1.1 {first}\r\n\r\n".encode() + switching(request)
    )
    assert answer == "more than one response"


@pytest.mark.parametrize("complete", [True, False])
async def test_a_head_over_16_kib_is_refused(complete: bool) -> None:
    field = "X: " + "x" * 1000
    count = MAX_HEAD // len(field) + 1
    end = "\r\n\r\n" if complete else "\r\n"
    answer = changed("\r\n\r\n", "\r\n" + "\r\n".join([field] * count) + end)
    assert "too large" in await refusal(answer)


async def test_early_data_does_not_count_as_head() -> None:
    async with answering(lambda request: switching(request) + bytes(2 * MAX_HEAD)) as server:
        dialled = await dialled_to(server)
        assert dialled.early == bytes(len(dialled.early))
        dialled.transport.abort()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 101 Switching"])
async def test_an_upstream_that_hangs_up_is_refused(sent: bytes) -> None:
    assert "hung up" in await refusal(lambda _: sent, hang_up=True)


async def test_an_upstream_that_resets_the_connection_is_refused() -> None:
    async with bare_server() as (port, accepted):
        dialling = asyncio.create_task(dialled_to(at(port)))
        _, writer = await accepted.get()
        writer.transport.abort()  # with the request unread: an RST
        with pytest.raises(UpstreamError) as raised:
            await asyncio.wait_for(dialling, 5)
        assert raised.value.reason is Reason.UPSTREAM_REFUSED


async def test_a_refused_answer_leaves_no_socket_open() -> None:
    async with bare_server() as (port, accepted):
        dialling = asyncio.create_task(dialled_to(at(port)))
        reader, writer = await accepted.get()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with pytest.raises(UpstreamError):
            await asyncio.wait_for(dialling, 5)
        writer.write(b"GET /internal HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == REQUEST


async def test_a_cancelled_dial_leaves_no_socket_open() -> None:
    async with bare_server() as (port, accepted):
        dialling = asyncio.create_task(dialled_to(at(port)))
        reader, _ = await accepted.get()
        await reader.readuntil(b"\r\n\r\n")
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_bytes_behind_a_refused_answer_are_not_looked_at() -> None:
    """They may come between the refusal and the end of the socket."""
    later = asyncio.get_running_loop().time() + 60
    answer = upstream._Answer(PERMIT, later, later, lambda: None)
    answer.connection_made(Deaf())
    answer.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
    answer.data_received(switching(REQUEST))
    with pytest.raises(UpstreamError, match="answered 200"):
        answer.done.result()
    answer.end(good=False)


class Deaf(asyncio.Transport):
    """Takes everything, reads nothing."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def abort(self) -> None:
        pass


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


async def test_a_refused_connection_is_unreachable() -> None:
    with pytest.raises(UpstreamError) as raised:
        await dialled_to(at(closed_port()))
    assert raised.value.reason is Reason.UPSTREAM_UNREACHABLE
    gc.collect()  # an exception that nobody looked at would be reported here


@pytest.fixture
def full() -> Iterator[int]:
    """The port of a server that takes no connections: its queue of them is full."""
    with socket.socket() as server, contextlib.ExitStack() as queue:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(2):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(server.getsockname())
        yield server.getsockname()[1]


@pytest.mark.parametrize(("connect_timeout", "timeout"), [(0.1, 60), (60, 0.1)])
async def test_a_connection_that_is_not_there_in_time_is_a_timeout(
    full: int, connect_timeout: float, timeout: float
) -> None:
    with pytest.raises(UpstreamError, match="no connection in time") as raised:
        await dialled_to(at(full, timeout=connect_timeout), timeout=timeout)
    assert raised.value.reason is Reason.UPSTREAM_TIMEOUT
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)  # where a cancellation that was left over would show


async def test_a_time_out_of_the_kernel_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(*_: object, **__: object) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", late)
    with pytest.raises(UpstreamError, match="no connection in time") as raised:
        await dialled_to(at(1))
    assert raised.value.reason is Reason.UPSTREAM_TIMEOUT


@pytest.mark.parametrize("connect_timeout", [0.1, 60])
async def test_an_answer_that_is_not_there_in_time_is_a_timeout(connect_timeout: float) -> None:
    async with bare_server() as (port, accepted):
        server = at(port, timeout=connect_timeout)
        dialling = asyncio.create_task(dialled_to(server, timeout=0.3))
        reader, _ = await accepted.get()
        with pytest.raises(UpstreamError, match="no answer in time") as raised:
            await asyncio.wait_for(dialling, 5)
        assert raised.value.reason is Reason.UPSTREAM_TIMEOUT
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == REQUEST


async def test_an_answer_may_take_longer_than_the_connection() -> None:
    async with bare_server() as (port, accepted):
        dialling = asyncio.create_task(dialled_to(at(port, timeout=0.1)))
        reader, writer = await accepted.get()
        request = await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.2)
        writer.write(switching(request))
        dialled = await asyncio.wait_for(dialling, 5)
        dialled.transport.abort()


async def test_a_dial_that_is_cancelled_while_it_connects_stays_cancelled(full: int) -> None:
    dialling = asyncio.create_task(dialled_to(at(full)))
    await asyncio.sleep(0.05)
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling
    assert dialling.cancelled()


@pytest.mark.parametrize("time_out_first", [True, False])
async def test_a_cancellation_that_comes_together_with_the_time_out_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, full: int, time_out_first: bool
) -> None:
    answers: list[upstream._Answer] = []
    late = upstream._Answer._late

    def late_and_cancelled(self: upstream._Answer) -> None:
        answers.append(self)
        if time_out_first:
            late(self)
        dialling.cancel()
        if not time_out_first:
            late(self)

    monkeypatch.setattr(upstream._Answer, "_late", late_and_cancelled)
    dialling = asyncio.create_task(dialled_to(at(full, timeout=0.05)))
    with pytest.raises(asyncio.CancelledError):
        await dialling
    assert dialling.cancelled()
    (answer,) = answers
    assert answer.timed_out


async def test_a_unix_socket_is_dialled(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(switching(await reader.readuntil(b"\r\n\r\n")))
        await reader.read()
        writer.close()
        left.set()

    left = asyncio.Event()
    path = str(tmp_path / "upstream.sock")
    server = await asyncio.start_unix_server(serve, path)
    async with server:
        dialled = await dialled_to(Upstream("main", Address(unix=path)))
        dialled.transport.abort()
        await asyncio.wait_for(left.wait(), 5)


async def test_a_unix_socket_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(UpstreamError) as raised:
        await dialled_to(Upstream("main", Address(unix=str(tmp_path / "none"))))
    assert raised.value.reason is Reason.UPSTREAM_UNREACHABLE


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return authority(tmp_path)


async def dial_tls(
    server: Authority, name: str, trusted: Authority, server_name: str | None = None
) -> Dialled:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*server.issue(name))

    async def serve() -> None:
        reader, writer = await accepted.get()
        writer.write(switching(await reader.readuntil(b"\r\n\r\n")) + b"early")

    async with bare_server(context) as (port, accepted):
        serving = asyncio.create_task(serve())
        try:
            client = ssl.create_default_context(cafile=trusted.ca)
            secure = at(port, tls=UpstreamTls(server_name=server_name))
            dialled = await dialled_to(secure, client)
            dialled.transport.abort()
            return dialled
        finally:
            serving.cancel()


async def test_an_upstream_with_the_right_certificate_is_dialled(ca: Authority) -> None:
    dialled = await dial_tls(ca, "127.0.0.1", ca)
    assert dialled.subprotocol is None


async def test_the_name_in_the_certificate_may_be_told(ca: Authority) -> None:
    await dial_tls(ca, "chat.internal", ca, server_name="chat.internal")


async def test_a_certificate_of_another_authority_is_not_believed(
    ca: Authority, tmp_path: Path
) -> None:
    with pytest.raises(UpstreamError, match="CERTIFICATE_VERIFY_FAILED") as raised:
        await dial_tls(authority(tmp_path, "other"), "127.0.0.1", ca)
    assert raised.value.reason is Reason.UPSTREAM_UNREACHABLE


async def test_a_certificate_of_another_name_is_not_believed(ca: Authority) -> None:
    with pytest.raises(UpstreamError, match="CERTIFICATE_VERIFY_FAILED"):
        await dial_tls(ca, "elsewhere.internal", ca)


async def test_a_plain_server_where_tls_is_expected_is_unreachable() -> None:
    async with bare_server() as (port, accepted):
        client = ssl.create_default_context()
        dialling = asyncio.create_task(dialled_to(at(port), client))
        _, writer = await accepted.get()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(UpstreamError, match="TLS") as raised:
            await asyncio.wait_for(dialling, 5)
        assert raised.value.reason is Reason.UPSTREAM_UNREACHABLE
